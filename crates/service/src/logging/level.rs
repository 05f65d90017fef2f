//! What is logged, as it can be changed while the process runs.

use std::sync::Arc;

use parking_lot::Mutex;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::LogError;

/// The level, or the directives, that decide what is logged. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogLevel {
    filter: reload::Handle<EnvFilter, Registry>,
    directives: Arc<Mutex<String>>,
}

impl LogLevel {
    /// The filter, and its handle. Directives of `RUST_LOG` may also be names of targets alone.
    pub(crate) fn start(directives: &str) -> Result<(reload::Layer<EnvFilter, Registry>, Self), LogError> {
        let (layer, filter) = reload::Layer::new(parse(directives)?);
        Ok((layer, Self { filter, directives: Arc::new(Mutex::new(directives.to_owned())) }))
    }

    /// What it is now.
    pub fn get(&self) -> String {
        self.directives.lock().clone()
    }

    /// From now on it is this, until the process ends: as in the setting `log.level`.
    ///
    /// # Errors
    /// [`LogError::Level`] when it cannot be read: everything stays as it was.
    pub fn set(&self, directives: &str) -> Result<(), LogError> {
        check(directives).map_err(|reason| refusal(directives, reason))?;
        let filter = parse(directives)?;
        let before = self.get();
        let tell = || tracing::warn!(before, now = directives, "log.level is changed");
        // The change must not silence the line that tells of it.
        let is_heard = tracing::enabled!(tracing::Level::WARN);
        if is_heard {
            tell();
        }
        {
            let mut now = self.directives.lock();
            // Of two that change it at a time the last one is shown, too.
            self.filter.reload(filter).map_err(|_| LogError::Ended)?;
            directives.clone_into(&mut now);
        }
        if !is_heard {
            tell();
        }
        Ok(())
    }
}

/// A misspelt level would be taken for the name of a target, and silence everything else.
pub(super) fn check(directives: &str) -> Result<(), String> {
    // The parser does not expect other letters where blanks may stand.
    if !directives.is_ascii() {
        return Err("it is written in ASCII, as info,poste_push=debug".to_owned());
    }
    let alone = directives.split(',').map(str::trim).filter(|directive| !directive.contains('='));
    for level in alone {
        if level.is_empty() || level.parse::<LevelFilter>().is_err() {
            return Err(format!("{level:?} is not error, warn, info, debug, trace or off"));
        }
    }
    Ok(())
}

/// Values of fields are compared, and not matched with expressions: a short one can take more memory than there is. To the
/// parser a blank behind a comma is part of a name.
fn parse(directives: &str) -> Result<EnvFilter, LogError> {
    let trimmed = directives.split(',').map(str::trim).collect::<Vec<_>>().join(",");
    EnvFilter::builder()
        .with_regex(false)
        .parse(trimmed)
        .map_err(|error| refusal(directives, error.to_string()))
}

fn refusal(directives: &str, reason: String) -> LogError {
    LogError::Level { directives: directives.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn it_changes_while_the_process_runs_and_not_to_what_cannot_be_read() {
        let (filter, level) = LogLevel::start("info").unwrap();
        let subscriber = tracing_subscriber::registry().with(filter);
        tracing::subscriber::with_default(subscriber, || {
            let told = || (tracing::enabled!(tracing::Level::INFO), tracing::enabled!(tracing::Level::DEBUG));
            assert_eq!((told(), level.get()), ((true, false), "info".to_owned()));
            level.set("info, poste_service=debug").unwrap();
            assert_eq!((told(), level.get()), ((true, true), "info, poste_service=debug".to_owned()));
            for wrong in ["inof", "poste_service=loud", "poste_service", "", "info,", "warn,\u{3000}a=info"] {
                assert!(matches!(level.set(wrong), Err(LogError::Level { .. })), "{wrong}");
            }
            assert_eq!(told(), (true, true));
            let expression = format!("info,[{{f=(a|b)*a{}}}]=trace", "(a|b)".repeat(60));
            level.set(&expression).unwrap();
            level.set("warn").unwrap();
            assert_eq!(told(), (false, false));
        });
        let (filter, level) = LogLevel::start("info").unwrap();
        drop(filter);
        assert!(matches!(level.set("info"), Err(LogError::Ended)));
    }
}
