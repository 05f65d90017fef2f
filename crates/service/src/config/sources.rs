//! The layers of a configuration and how they are merged.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::nearest::nearest;
use super::value::typed;
use super::{Config, ConfigError, Key, Kind, Name, Origin, Schema};

/// How the variables of the environment begin that are settings.
const PREFIX: &str = "POSTE_";
/// Variables that begin like settings and are none: of this program (the configuration file), of the compose file
/// (image, host and port of RLPx), and of the tests.
const FOREIGN: [&str; 7] = [
    "POSTE_CONFIG",
    "POSTE_IMAGE",
    "POSTE_RLPX_BIND",
    "POSTE_RLPX_PORT",
    "POSTE_BIN",
    "POSTE_SKIP",
    "POSTE_VECTORS",
];
/// The largest file that is read as configuration or secret, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Where values come from, from the weakest to the strongest layer. Its `Debug` tells names, no value: secrets are
/// among them.
#[derive(Clone, Default)]
pub struct Sources {
    /// Stands in for defaults: (the flag that causes it, setting, value).
    pub presets: Vec<(&'static str, Name, Value)>,
    /// The TOML file.
    pub file: Option<PathBuf>,
    /// The environment; variables that do not begin with `POSTE_` are passed over.
    pub environment: Vec<(String, String)>,
    /// Flags that were given, as text.
    pub flags: Vec<(Name, String)>,
    /// Gives port 0 to every listener whose own flag was not given.
    pub ephemeral_ports: bool,
}

impl Sources {
    /// The environment of this process.
    pub fn process_environment() -> Vec<(String, String)> {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let presets: Vec<String> =
            self.presets.iter().map(|(flag, name, _)| format!("{name} ({flag})")).collect();
        let variables = self.environment.iter().map(|(variable, _)| variable.as_str());
        let variables: Vec<&str> = variables.filter(|variable| variable.starts_with(PREFIX)).collect();
        let flags: Vec<String> = self.flags.iter().map(|(name, _)| format!("--{}", name.flag())).collect();
        f.debug_struct("Sources")
            .field("presets", &presets)
            .field("file", &self.file)
            .field("environment", &variables)
            .field("flags", &flags)
            .field("ephemeral_ports", &self.ephemeral_ports)
            .finish()
    }
}

pub(super) fn merge(schema: &Schema, sources: &Sources) -> Result<Config, ConfigError> {
    let mut values = BTreeMap::new();
    for setting in schema.settings() {
        if let Some(value) = setting.default {
            values.insert(setting.name, (value, Origin::Default));
        }
    }
    for (flag, name, value) in &sources.presets {
        values.insert(*name, (value.clone(), Origin::Preset(flag)));
    }
    let mut config = Config { schema: schema.clone(), values };
    if let Some(path) = &sources.file {
        add_file(&mut config, path)?;
    }
    add_environment(&mut config, &sources.environment)?;
    for (name, text) in &sources.flags {
        let origin = Origin::Flag(format!("--{}", name.flag()));
        set_text(&mut config, *name, text, origin)?;
    }
    if sources.ephemeral_ports {
        set_ephemeral_ports(&mut config);
    }
    Ok(config)
}

fn add_file(config: &mut Config, path: &Path) -> Result<(), ConfigError> {
    let text = read(path, "--config")?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
        path: path.to_owned(),
        reason: syntax(&text, &error),
    })?;
    let unknown = |what, name: String, nearest| ConfigError::Unknown {
        origin: path.display().to_string(),
        what,
        name,
        nearest,
    };
    for (section_name, content) in table {
        let Some(section) = config.schema.section(&section_name) else {
            let known = config.schema.sections.iter().map(|section| section.name.to_owned());
            return Err(unknown(
                "section",
                format!("[{section_name}]"),
                format!("[{}]", nearest(&section_name, known)),
            ));
        };
        let (section_name, keys) = (section.name, section.keys);
        let Value::Table(content) = content else {
            return Err(ConfigError::Section {
                name: section_name,
                reason: format!("{}: it must be a table", path.display()),
            });
        };
        for (key, value) in content {
            let Some(known) = keys.iter().find(|known| known.name == key) else {
                let nearest = nearest(&key, keys.iter().map(|key| key.name.to_owned()));
                return Err(unknown(
                    "setting",
                    format!("{section_name}.{key}"),
                    format!("{section_name}.{nearest}"),
                ));
            };
            let name = Name { section: section_name, key: known.name };
            config.values.insert(name, (value, Origin::File(path.to_owned())));
        }
    }
    Ok(())
}

/// Where a file is not TOML, and what was expected; never the line itself, which may hold a secret.
fn syntax(text: &str, error: &toml::de::Error) -> String {
    let message = super::message(error);
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else { return message };
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let (line, column) = (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1);
    format!("line {line}, column {column}: {message}")
}

fn add_environment(config: &mut Config, environment: &[(String, String)]) -> Result<(), ConfigError> {
    let settings: Vec<(String, Name, Key)> = config
        .schema
        .settings()
        .map(|setting| (setting.name.variable(), setting.name, setting.key))
        .collect();
    for (variable, text) in environment {
        if !variable.starts_with(PREFIX) || is_foreign(variable) {
            continue;
        }
        if let Some((_, name, _)) = settings.iter().find(|(known, ..)| known == variable) {
            set_text(config, *name, text, Origin::Environment(variable.clone()))?;
            continue;
        }
        let of_secret = variable.strip_suffix("_FILE").and_then(|value_variable| {
            settings.iter().find(|(known, _, key)| known == value_variable && key.kind == Kind::Secret)
        });
        let Some((value_variable, name, _)) = of_secret else {
            let known = settings.iter().map(|(known, ..)| known.clone());
            return Err(ConfigError::Unknown {
                origin: "environment".into(),
                what: "variable",
                name: variable.clone(),
                nearest: nearest(variable, known),
            });
        };
        if environment.iter().any(|(other, _)| other == value_variable) {
            return Err(ConfigError::Twice { variable: value_variable.clone() });
        }
        let secret = read(Path::new(text), variable)?;
        let secret = secret.strip_suffix('\n').unwrap_or(&secret);
        let secret = secret.strip_suffix('\r').unwrap_or(secret);
        set_text(config, *name, secret, Origin::Environment(variable.clone()))?;
    }
    Ok(())
}

/// Variables that are passed over: those of [`FOREIGN`], and what Kubernetes sets in every container for a
/// Service called `poste-…`.
fn is_foreign(variable: &str) -> bool {
    FOREIGN.contains(&variable)
        || !variable.contains("__")
            && (variable.ends_with("_SERVICE_HOST")
                || variable.contains("_SERVICE_PORT")
                || variable.ends_with("_PORT")
                || variable.contains("_PORT_"))
}

fn set_text(config: &mut Config, name: Name, text: &str, origin: Origin) -> Result<(), ConfigError> {
    let default = config.schema.section(name.section).and_then(|section| section.defaults.get(name.key));
    let value = typed(text, default).map_err(|reason| ConfigError::Value {
        name,
        origin: origin.clone(),
        reason: reason.to_owned(),
    })?;
    config.values.insert(name, (value, origin));
    Ok(())
}

fn set_ephemeral_ports(config: &mut Config) {
    for setting in config.schema.settings().filter(|setting| setting.key.kind == Kind::Listener) {
        let Some((value, origin)) = config.values.get_mut(&setting.name) else { continue };
        let address = value.as_str().and_then(|text| text.parse::<SocketAddr>().ok());
        if let (Some(mut address), false) = (address, matches!(origin, Origin::Flag(_))) {
            address.set_port(0);
            *value = Value::String(address.to_string());
            *origin = Origin::Flag("--ephemeral-ports".into());
        }
    }
}

fn read(path: &Path, named_by: &str) -> Result<String, ConfigError> {
    let unreadable =
        |source| ConfigError::Unreadable { path: path.to_owned(), named_by: named_by.to_owned(), source };
    let length = fs::metadata(path).map_err(unreadable)?.len();
    if length > MAX_FILE_BYTES {
        return Err(unreadable(std::io::Error::other("it is larger than 1 MiB")));
    }
    fs::read_to_string(path).map_err(unreadable)
}
