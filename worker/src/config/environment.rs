//! Settings in environment variables.

use std::path::PathBuf;

use millrace_core::{Error, Result};

use super::{Role, options, options::ConfigOption, suggest};

/// Names the configuration file.
pub const CONF: &str = "MILLRACE_CONF";
/// Says what the process is: `local`, `jobmanager` or `taskmanager`.
pub const ROLE: &str = "MILLRACE_ROLE";
/// Explicit settings, a line `key=value` each: how `-D` reaches a process.
pub const OVERRIDES: &str = "MILLRACE_OVERRIDES";

const PREFIX: &str = "MILLRACE_";
/// Variables of the build and the tests, which are no settings.
pub(super) const RESERVED: [&str; 4] =
    ["MILLRACE_CACHE", "MILLRACE_HADOOP_HOME", "MILLRACE_KAFKA_HOME", "MILLRACE_MINIO_BIN"];
const RESERVED_PREFIX: &str = "MILLRACE_TEST_";

/// The variable that sets a key: upper case, `.` and `-` as `_`, behind `MILLRACE_`.
pub fn variable_name(key: &str) -> String {
    let plain: String =
        key.chars().map(|c| if matches!(c, '.' | '-') { '_' } else { c.to_ascii_uppercase() }).collect();
    format!("{PREFIX}{plain}")
}

/// The `MILLRACE_*` variables of a process.
#[derive(Debug, Default)]
pub struct Variables {
    pub role: Role,
    pub file: Option<PathBuf>,
    pub options: Vec<(&'static ConfigOption, String, String)>,
    pub overrides: Vec<(String, String)>,
}

/// The `MILLRACE_*` variables of this process.
pub fn of_process() -> Result<Vec<(String, String)>> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        let value = value.into_string().map_err(|value| {
            Error::invalid(format!("environment variable {name}: {value:?} is not UTF-8: write it as text"))
        })?;
        variables.push((name.to_string(), value));
    }
    Ok(variables)
}

/// Tells the variables apart by what they are for.
pub fn sort_out(variables: impl IntoIterator<Item = (String, String)>) -> Result<Variables> {
    let mut sorted = Variables::default();
    for (name, value) in variables {
        match name.as_str() {
            CONF => sorted.file = Some(PathBuf::from(value)),
            ROLE => sorted.role = value.parse()?,
            OVERRIDES => sorted.overrides = decode_overrides(&value)?,
            other if !other.starts_with(PREFIX) || is_reserved(other) => {}
            _ => {
                let option = option_of(&name).ok_or_else(|| unknown(&name))?;
                if let Some((_, earlier, _)) = sorted.options.iter().find(|(known, ..)| known.key == option.key) {
                    return Err(Error::invalid(format!(
                        "environment variables {earlier} and {name} are the same setting: set one of them"
                    )));
                }
                sorted.options.push((option, name, value));
            }
        }
    }
    Ok(sorted)
}

/// Settings as [`OVERRIDES`] carries them.
pub fn encode_overrides<'a>(settings: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<String> {
    let mut lines = String::new();
    for (key, value) in settings {
        if key.contains(['\n', '=']) || value.contains('\n') {
            return Err(Error::invalid(format!("setting {key:?}: keys have no '=' and values no line breaks")));
        }
        lines.push_str(&format!("{key}={value}\n"));
    }
    Ok(lines)
}

fn decode_overrides(text: &str) -> Result<Vec<(String, String)>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| split_override(line).map_err(|error| error.context(OVERRIDES))).collect()
}

/// Splits `key=value`, as `-D` takes it.
pub fn split_override(text: &str) -> Result<(String, String)> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| Error::invalid(format!("{text:?} is no setting: write key=value, such as rest.port=8081")))?;
    Ok((key.trim().to_string(), value.trim().to_string()))
}

fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || name.starts_with(RESERVED_PREFIX)
}

fn option_of(variable: &str) -> Option<&'static ConfigOption> {
    options::all().find(|option| option.names().any(|name| variable_name(name) == variable))
}

fn unknown(variable: &str) -> Error {
    let known: Vec<String> = options::all().flat_map(ConfigOption::names).map(variable_name).collect();
    let known = known.iter().map(String::as_str).chain([CONF, ROLE, OVERRIDES]);
    // Compared without the prefix, which all have in common.
    let short = known.filter_map(|name| name.strip_prefix(PREFIX));
    let hint = match suggest::nearest(variable.strip_prefix(PREFIX).unwrap_or(variable), short) {
        Some(name) => format!("did you mean {PREFIX}{name}?"),
        None => format!("no setting has this name; names that begin with {RESERVED_PREFIX} are free"),
    };
    Error::invalid(format!("unknown environment variable {variable}: {hint}"))
}
