//! Configuration in layers: default < preset < file < environment < flag, under one name for each setting.
//!
//! `archive.store` is `store` in `[archive]` of the TOML file, `POSTE_ARCHIVE__STORE` in the environment and
//! `--archive-store` as a flag. A secret may also be given as the path of a file, `POSTE_…_FILE`. A name that
//! no section knows is an error that tells the nearest one that exists.
//!
//! A service describes its settings as a flat serde struct that implements [`Section`]; the process lists its
//! sections in a [`Schema`], loads them with [`Schema::load`] and takes them out with [`Config::section`].

mod nearest;
mod sources;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use toml::{Table, Value};

pub use sources::Sources;
pub use value::{ByteSize, HumanDuration, Secret, ValueError};

/// The settings of one service: a flat struct of text, numbers, booleans and lists of text, with
/// `#[serde(deny_unknown_fields)]`. A field without a default is an `Option` of text.
pub trait Section: Serialize + DeserializeOwned + Default {
    /// Its name: the TOML table.
    const NAME: &'static str;
    /// Every field, in the order in which people read them.
    const KEYS: &'static [Key];

    /// Whether the service can run with these values, which fit their types. The error names the key, as in
    /// `queue_records is 0: write 4096 or more`.
    fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}

/// One setting of a [`Section`].
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The name of the field.
    pub name: &'static str,
    /// One line for people, in lower case, without full stop.
    pub help: &'static str,
    /// What the generic code must know of it.
    pub kind: Kind,
}

/// What kind of setting a [`Key`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing special.
    Plain,
    /// Never shown; may come from a file.
    Secret,
    /// `IP:PORT` where a listener is bound.
    Listener,
}

impl Key {
    /// A plain setting.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Plain }
    }

    /// A setting that is masked when shown and may be given as `POSTE_…_FILE`.
    pub const fn secret(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Secret }
    }

    /// The address of a listener: `--ephemeral-ports` gives it port 0.
    pub const fn listener(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Listener }
    }
}

/// The sections that a process knows.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    sections: Vec<SectionInfo>,
}

#[derive(Clone, Debug)]
struct SectionInfo {
    name: &'static str,
    keys: &'static [Key],
    defaults: Table,
    /// Reads a table as the section and writes it again.
    round_trip: fn(Table) -> Result<Table, String>,
    /// Reads a table as the section and asks it whether it can be used.
    validate: fn(Table) -> Result<(), String>,
}

impl Schema {
    /// No sections.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a section.
    #[must_use]
    pub fn with<S: Section>(mut self) -> Self {
        let defaults = Table::try_from(S::default()).expect("a section is a flat struct that TOML can hold");
        self.sections.push(SectionInfo {
            name: S::NAME,
            keys: S::KEYS,
            defaults,
            round_trip: |table| {
                let section: S = table.try_into().map_err(|error: toml::de::Error| message(&error))?;
                Table::try_from(section).map_err(|error| error.to_string())
            },
            validate: |table| {
                let section: S = table.try_into().map_err(|error: toml::de::Error| message(&error))?;
                section.validate()
            },
        });
        self
    }

    /// Every setting with its key and default.
    pub fn settings(&self) -> impl Iterator<Item = Setting> + '_ {
        self.sections.iter().flat_map(|section| {
            section.keys.iter().map(|key| Setting {
                name: Name { section: section.name, key: key.name },
                key: *key,
                default: section.defaults.get(key.name).cloned(),
            })
        })
    }

    /// Merges the layers. Nothing is believed yet about the values' form but that they can be read at all:
    /// [`Config::section`] and [`Config::check`] see to that.
    pub fn load(&self, sources: &Sources) -> Result<Config, ConfigError> {
        sources::merge(self, sources)
    }

    /// Whether keys and fields agree in every section, every key has a help line, and the defaults can be used
    /// and survive being written and read. For tests.
    pub fn verify(&self) -> Result<(), String> {
        for section in &self.sections {
            let name = section.name;
            for field in section.defaults.keys() {
                if !section.keys.iter().any(|key| key.name == field) {
                    return Err(format!("{name}.{field} is a field without a key"));
                }
            }
            for key in section.keys {
                if key.help.trim().is_empty() || key.help.ends_with('.') {
                    return Err(format!("{name}.{} needs a help line without full stop", key.name));
                }
            }
            let again = (section.round_trip)(section.defaults.clone())
                .map_err(|error| format!("[{name}] does not read its own defaults: {error}"))?;
            if again != section.defaults {
                return Err(format!("the defaults of [{name}] change when they are read"));
            }
            (section.validate)(section.defaults.clone())
                .map_err(|error| format!("[{name}] does not take its own defaults: {error}"))?;
            let mut unknown = section.defaults.clone();
            unknown.insert("no such key".into(), Value::Boolean(true));
            if (section.round_trip)(unknown).is_ok() {
                return Err(format!("[{name}] lacks deny_unknown_fields"));
            }
        }
        Ok(())
    }

    fn section(&self, name: &str) -> Option<&SectionInfo> {
        self.sections.iter().find(|section| section.name == name)
    }
}

/// A setting as [`Schema::settings`] lists it.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Its name.
    pub name: Name,
    /// Its description.
    pub key: Key,
    /// Its default, if it has one.
    pub default: Option<Value>,
}

/// The name of a setting; displays as `archive.store`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The section.
    pub section: &'static str,
    /// The key in it.
    pub key: &'static str,
}

impl Name {
    /// Its flag without the dashes in front: `archive-store`.
    pub fn flag(&self) -> String {
        format!("{}-{}", self.section, self.key).replace('_', "-")
    }

    /// Its environment variable: `POSTE_ARCHIVE__STORE`.
    pub fn variable(&self) -> String {
        format!("POSTE_{}__{}", self.section, self.key).to_uppercase()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.section, self.key)
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The section's default.
    Default,
    /// A flag that sets several defaults at once, such as `--data`.
    Preset(&'static str),
    /// The configuration file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag, with its dashes.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Preset(flag) => f.write_str(flag),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(variable) => f.write_str(variable),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// What is in force. Its `Debug` tells names and origins, no value: secrets are among them.
#[derive(Clone)]
pub struct Config {
    schema: Schema,
    values: BTreeMap<Name, (Value, Origin)>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origins = self.values.iter().map(|(name, (_, origin))| (name.to_string(), origin.to_string()));
        f.debug_map().entries(origins).finish()
    }
}

impl Config {
    /// One section, read. The error names the setting that does not fit and where it came from.
    pub fn section<S: Section>(&self) -> Result<S, ConfigError> {
        let section = self.schema.section(S::NAME).ok_or(ConfigError::NoSection { name: S::NAME })?;
        self.check_section(section)?;
        self.table(section)
            .try_into()
            .map_err(|error| ConfigError::Section { name: S::NAME, reason: message(&error) })
    }

    /// Whether every section can be read and used.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.schema.sections.iter().try_for_each(|section| self.check_section(section))
    }

    /// Every setting in force: name, value as TOML (`None`: not set; secrets masked) and origin.
    pub fn show(&self) -> impl Iterator<Item = (Name, Option<String>, Origin)> + '_ {
        self.schema.settings().map(|setting| match self.values.get(&setting.name) {
            None => (setting.name, None, Origin::Default),
            Some((_, origin)) if setting.key.kind == Kind::Secret => {
                (setting.name, Some("\"********\"".into()), origin.clone())
            }
            Some((value, origin)) => (setting.name, Some(value.to_string()), origin.clone()),
        })
    }

    fn table(&self, section: &SectionInfo) -> Table {
        self.values
            .iter()
            .filter(|(name, _)| name.section == section.name)
            .map(|(name, (value, _))| (name.key.to_owned(), value.clone()))
            .collect()
    }

    /// serde's errors do not tell the field, so each value is tried alone among the defaults.
    fn check_section(&self, section: &SectionInfo) -> Result<(), ConfigError> {
        for (name, (value, origin)) in self.values.iter().filter(|(name, _)| name.section == section.name) {
            let mut table = section.defaults.clone();
            table.insert(name.key.to_owned(), value.clone());
            if let Err(error) = (section.round_trip)(table) {
                let secret = section.keys.iter().any(|key| key.name == name.key && key.kind == Kind::Secret);
                let reason = if secret { "this secret cannot be used".to_owned() } else { error };
                return Err(ConfigError::Value { name: *name, origin: origin.clone(), reason });
            }
        }
        (section.validate)(self.table(section))
            .map_err(|reason| ConfigError::Section { name: section.name, reason })
    }
}

/// A configuration that cannot be used. Every message tells where to look.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file that a setting or flag names cannot be read.
    #[error("{}: {source} (named by {named_by})", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The flag or variable that named it.
        named_by: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{}: {reason}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and what was expected.
        reason: String,
    },
    /// A name that no section knows.
    #[error("{origin}: unknown {what} {name}; the nearest known one is {nearest}")]
    Unknown {
        /// Where it was found: a path, or "environment".
        origin: String,
        /// "setting", "section" or "variable".
        what: &'static str,
        /// The name as written.
        name: String,
        /// The nearest name that exists.
        nearest: String,
    },
    /// A value that does not fit its setting.
    #[error("{name} (from {origin}): {reason}")]
    Value {
        /// The setting.
        name: Name,
        /// Where its value came from.
        origin: Origin,
        /// What is wrong.
        reason: String,
    },
    /// Values that are of their types, but cannot be used, alone or together.
    #[error("[{name}]: {reason}")]
    Section {
        /// The section.
        name: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A secret was given both as a value and as a file.
    #[error("{variable} and {variable}_FILE are both set: unset one of them")]
    Twice {
        /// The variable.
        variable: String,
    },
    /// The process does not know this section.
    #[error("[{name}] is not a section of this process")]
    NoSection {
        /// The section.
        name: &'static str,
    },
}

/// The message of a TOML error without the excerpt of the source, on one line.
fn message(error: &toml::de::Error) -> String {
    error.message().replace('\n', " ")
}

#[cfg(test)]
mod tests;
