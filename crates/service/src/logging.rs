//! Logs on stderr: JSON lines, or text for people on a terminal.

mod json;

use std::io::{self, IsTerminal};
use std::panic;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::{Key, Section};
use json::JsonLines;

/// The section `[log]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// A level, or directives such as `info,poste_gateway=debug`.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
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
        Self { level: "info".into(), format: LogFormat::Auto }
    }
}

impl Section for LogConfig {
    const NAME: &'static str = "log";
    const KEYS: &'static [Key] = &[
        Key::new("level", "error, warn, info, debug or trace, also by target: info,poste_gateway=debug"),
        Key::new("format", "auto (text on a terminal, json elsewhere), json or text"),
    ];

    /// A misspelt level would be taken for the name of a target, and silence everything else.
    fn validate(&self) -> Result<(), String> {
        let alone = self.level.split(',').map(str::trim).filter(|directive| !directive.contains('='));
        for level in alone {
            if level.parse::<LevelFilter>().is_err() {
                return Err(format!("level: {level:?} is not error, warn, info, debug, trace or off"));
            }
        }
        Ok(())
    }
}

/// Starts logging for this process, and logs panics too. `service` stands in every JSON line. The variable
/// `RUST_LOG` beats the setting.
pub fn init(config: &LogConfig, service: &'static str) -> Result<(), LogError> {
    let directives = std::env::var("RUST_LOG").ok().filter(|directives| !directives.is_empty());
    let directives = directives.as_deref().unwrap_or(&config.level);
    let filter = EnvFilter::builder()
        .parse(directives)
        .map_err(|error| LogError::Level { directives: directives.to_owned(), reason: error.to_string() })?;
    let json = match config.format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Json => true,
        LogFormat::Text => false,
    };
    // A line that cannot be written is lost. To tell of it on the same stderr would panic.
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).log_internal_errors(false);
    let outcome = if json {
        builder.event_format(JsonLines::new(service)).try_init()
    } else {
        builder.with_ansi(io::stderr().is_terminal()).try_init()
    };
    outcome.map_err(|_| LogError::Twice)?;
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
    Ok(())
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
