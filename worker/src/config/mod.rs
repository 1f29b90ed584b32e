//! The configuration of a process: settings with Flink's keys, from defaults, a file, the environment, the program and
//! explicit values (`-D`), in this order of precedence. Each value knows where it came from.

pub mod docs;
mod environment;
mod file;
pub mod options;
mod origin;
mod settings;
mod suggest;
pub mod value;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use millrace_core::{Error, Result};

pub use environment::{
    CONF, OVERRIDES, ROLE, encode_overrides, of_process as process_variables, split_override, variable_name,
};
pub use options::ConfigOption;
pub use origin::{Layer, Origin};
pub use settings::{
    HeartbeatSettings, JobManagerSettings, LogFormat, LogSettings, RestSettings, RestoreSettings, RocksDBSettings,
    S3Settings, Secret, Settings, TaskManagerSettings,
};

/// What is shown instead of a secret, as in Flink.
pub const REDACTED: &str = "******";

/// What a process of a job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Jobmanager and taskmanager in one.
    #[default]
    Local,
    /// The jobmanager.
    JobManager,
    /// A taskmanager.
    TaskManager,
}

impl Role {
    /// Its name in `MILLRACE_ROLE` and in the names of log files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::JobManager => "jobmanager",
            Self::TaskManager => "taskmanager",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Role {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let roles = [Self::Local, Self::JobManager, Self::TaskManager];
        let found = roles.into_iter().find(|role| role.name() == text.to_ascii_lowercase());
        found.ok_or_else(|| {
            Error::invalid(format!("{ROLE}={text:?} is no role: choose local, jobmanager or taskmanager"))
        })
    }
}

/// A setting with its value, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// The key.
    pub key: &'static str,
    /// The value; [`REDACTED`] where it is a secret.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// The configuration of a process.
#[derive(Clone, Default)]
pub struct Configuration {
    role: Role,
    layers: BTreeMap<Layer, BTreeMap<&'static str, Entry>>,
}

#[derive(Clone)]
struct Entry {
    /// The name that was used.
    name: &'static str,
    value: String,
    origin: Origin,
}

impl fmt::Debug for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Configuration").field("role", &self.role).field("entries", &self.entries()).finish()
    }
}

impl Configuration {
    /// The configuration of this process: the file that `MILLRACE_CONF` names and the `MILLRACE_*` variables.
    pub fn load() -> Result<Self> {
        Self::from_variables(environment::of_process()?)
    }

    /// The configuration that a process with these variables has. Variables that don't begin with `MILLRACE_` are
    /// passed over.
    pub fn from_variables(variables: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let variables = environment::sort_out(variables)?;
        let mut configuration = Self { role: variables.role, ..Self::default() };
        if let Some(path) = variables.file {
            configuration.read_file(&path)?;
        }
        for (option, variable, value) in variables.options {
            let origin = Origin::Environment { variable };
            configuration.put(Layer::Environment, option, option.key, &value, origin)?;
        }
        for (key, value) in variables.overrides {
            configuration.set_explicit(&key, value)?;
        }
        Ok(configuration)
    }

    /// What the process is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Adds what a file says, above the defaults and below all else.
    pub fn read_file(&mut self, path: &Path) -> Result<()> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Error::invalid(format!("configuration file {} ({CONF}) cannot be read: {error}", path.display()))
        })?;
        self.read_text(path, &text)
    }

    /// Adds what the text of a file says; `path` is named as its origin.
    pub fn read_text(&mut self, path: &Path, text: &str) -> Result<()> {
        for entry in file::parse(path, text)? {
            let origin = Origin::File { path: PathBuf::from(path), line: entry.line };
            self.set(Layer::File, &entry.key, &entry.value, origin)?;
        }
        Ok(())
    }

    /// Sets a value on behalf of the job's program: above file and environment, below explicit values.
    pub fn set_from_program(&mut self, key: &str, value: impl ToString) -> Result<()> {
        self.set(Layer::Program, key, &value.to_string(), Origin::Program)
    }

    /// Sets a value that nothing overrides, as `-D` does.
    pub fn set_explicit(&mut self, key: &str, value: impl ToString) -> Result<()> {
        self.set(Layer::Explicit, key, &value.to_string(), Origin::Explicit)
    }

    fn set(&mut self, layer: Layer, key: &str, value: &str, origin: Origin) -> Result<()> {
        let option = options::find(key).ok_or_else(|| unknown(key, &origin))?;
        let name = option.names().find(|name| *name == key).unwrap_or(option.key);
        self.put(layer, option, name, value, origin)
    }

    fn put(
        &mut self,
        layer: Layer,
        option: &'static ConfigOption,
        name: &'static str,
        value: &str,
        origin: Origin,
    ) -> Result<()> {
        let value = value.trim();
        option.check(value).map_err(|why| wrong(option, name, value, &why, &origin))?;
        let entries = self.layers.entry(layer).or_default();
        if let Some(earlier) = entries.get(option.key).filter(|earlier| earlier.name != name) {
            return Err(Error::invalid(format!(
                "{name} ({origin}) and {} ({}) are the same setting: set one of them",
                earlier.name, earlier.origin
            )));
        }
        entries.insert(option.key, Entry { name, value: value.to_string(), origin });
        Ok(())
    }

    fn entry(&self, option: &ConfigOption) -> Option<&Entry> {
        Layer::ALL.iter().rev().find_map(|layer| self.layers.get(layer)?.get(option.key))
    }

    /// The text of a setting: what was set, or the default.
    pub fn get(&self, option: &ConfigOption) -> Option<&str> {
        self.entry(option).map(|entry| entry.value.as_str()).or(option.default)
    }

    /// Whether anybody set it.
    pub fn is_set(&self, option: &ConfigOption) -> bool {
        self.entry(option).is_some()
    }

    /// Where the value of a setting came from.
    pub fn origin(&self, key: &str) -> Result<Origin> {
        let option = options::find(key).ok_or_else(|| unknown(key, &Origin::Explicit))?;
        Ok(self.origin_of(option))
    }

    fn origin_of(&self, option: &ConfigOption) -> Origin {
        self.entry(option).map_or(Origin::Default, |entry| entry.origin.clone())
    }

    /// All settings that have a value, in the order of the documentation. Secrets are not shown.
    pub fn entries(&self) -> Vec<ConfigEntry> {
        let shown = |option: &'static ConfigOption| {
            let value = self.get(option)?;
            let value = if option.secret { REDACTED } else { value };
            Some(ConfigEntry { key: option.key, value: value.to_string(), origin: self.origin_of(option) })
        };
        options::all().filter_map(shown).collect()
    }

    /// The settings, read and checked against each other.
    pub fn settings(&self) -> Result<Settings> {
        settings::read(self)
    }

    /// A setting's value, read; `None` where there is none.
    fn read<T>(&self, option: &ConfigOption, read: impl FnOnce(&str) -> Result<T, String>) -> Result<Option<T>> {
        match self.get(option) {
            None => Ok(None),
            Some(word) if option.or.is_some_and(|none| word.eq_ignore_ascii_case(none)) => Ok(None),
            Some(text) => read(text).map(Some).map_err(|why| self.error(option, &why)),
        }
    }

    /// The error that a setting's value is wrong, naming key, value and origin.
    fn error(&self, option: &ConfigOption, why: &str) -> Error {
        let name = self.entry(option).map_or(option.key, |entry| entry.name);
        wrong(option, name, self.get(option).unwrap_or_default(), why, &self.origin_of(option))
    }
}

fn wrong(option: &ConfigOption, name: &str, value: &str, why: &str, origin: &Origin) -> Error {
    let value = if option.secret { REDACTED.to_string() } else { format!("{value:?}") };
    Error::invalid(format!("{name}: {value} {why} ({origin})"))
}

fn unknown(key: &str, origin: &Origin) -> Error {
    let known = options::all().flat_map(ConfigOption::names);
    let hint = match suggest::nearest(key, known) {
        Some(name) => format!("did you mean {name}?"),
        None => "docs/configuration.md lists all settings".to_string(),
    };
    Error::invalid(format!("unknown setting {key:?} ({origin}): {hint}"))
}
