//! Logs on stderr: JSON lines, or text for people on a terminal.

mod json;
mod level;

use std::io::{self, IsTerminal};
use std::panic;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

use crate::config::{Key, Section};
use json::JsonLines;
pub use level::LogLevel;

/// The section `[log]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// A level, or directives such as `info,poste_gateway=debug`.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
    /// Which of several processes of one kind it is; none: the name of the host, or of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Auto, instance: None }
    }
}

impl Section for LogConfig {
    const NAME: &'static str = "log";
    const KEYS: &'static [Key] = &[
        Key::new("level", "error, warn, info, debug or trace, also by target: info,poste_gateway=debug"),
        Key::new("format", "auto (text on a terminal, json elsewhere), json or text"),
        Key::new("instance", "the field `instance` of lines of json; default: the name of the host"),
    ];

    /// A misspelt level would be taken for the name of a target, and silence everything else.
    fn validate(&self) -> Result<(), String> {
        level::check(&self.level).map_err(|reason| format!("level: {reason}"))
    }
}

/// Starts logging for this process, and logs panics too. `service` stands in every JSON line. The variable
/// `RUST_LOG` beats the setting, and what is returned beats both.
pub fn init(config: &LogConfig, service: &'static str) -> Result<LogLevel, LogError> {
    let directives = std::env::var("RUST_LOG").ok().filter(|directives| !directives.is_empty());
    let (filter, level) = LogLevel::start(directives.as_deref().unwrap_or(&config.level))?;
    let json = match config.format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Json => true,
        LogFormat::Text => false,
    };
    // A line that cannot be written is lost. To tell of it on the same stderr would panic.
    let lines = fmt::layer().with_writer(io::stderr).log_internal_errors(false);
    let lines = if json {
        let instance = config.instance.clone().unwrap_or_else(host);
        lines.event_format(JsonLines::new(service, instance)).boxed()
    } else {
        lines.with_ansi(io::stderr().is_terminal()).boxed()
    };
    registry().with(filter).with(lines).try_init().map_err(|_| LogError::Twice)?;
    panic::set_hook(Box::new(|info| {
        // A panic in here ends the process. Nothing below panics: what cannot be logged is lost.
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        let payload = info.payload();
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        tracing::error!(location, panic = message, "a task panicked");
    }));
    Ok(level)
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Why logging could not start.
#[derive(Debug, Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error("log.level {directives:?}: {reason}")]
    Level {
        /// The text.
        directives: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody logs any more.
    #[error("logging has ended")]
    Ended,
    /// This process already has a logger.
    #[error("logging was started twice")]
    Twice,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_refused() {
        let check = |level: &str| LogConfig { level: level.to_owned(), ..LogConfig::default() }.validate();
        for level in ["info", "TRACE", "off", "info,poste_gateway=debug", "poste_gateway=debug, warn"] {
            assert_eq!(check(level), Ok(()), "{level}");
        }
        for level in ["nonsense", "info,poste_gateway", "inof"] {
            assert!(check(level).unwrap_err().contains("is not error"), "{level}");
        }
    }
}
