//! What a setting's value may be: durations, sizes, numbers, choices. Reading a value is pure; an error says only what
//! is wrong with the text, its caller adds the key and the origin.

use std::time::Duration;

use millrace_core::ids::JobId;

/// The kind of a setting's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueKind {
    /// Any text.
    Text,
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Count {
        /// The least allowed.
        least: u32,
        /// The greatest allowed.
        most: u32,
    },
    /// A number that may have decimals.
    Factor {
        /// The least allowed.
        least: f64,
        /// The greatest allowed.
        most: f64,
    },
    /// A span of time, at least this long.
    Duration {
        /// The least allowed.
        least: Duration,
    },
    /// A number of bytes, from 0 to `most`.
    Size {
        /// The greatest allowed.
        most: u64,
    },
    /// A TCP port; 0 takes any that is free.
    Port,
    /// One of these; the first of each group is the name, the others mean the same.
    Choice(&'static [&'static [&'static str]]),
    /// A job's id.
    JobId,
}

impl ValueKind {
    /// Whether a text is such a value, and if not, why.
    pub fn check(self, text: &str) -> Result<(), String> {
        match self {
            Self::Text if text.is_empty() => Err("is empty: give it a value or leave the setting out".to_string()),
            Self::Text => Ok(()),
            Self::Flag => flag(text).map(drop),
            Self::Count { least, most } => count(text, least, most).map(drop),
            Self::Factor { least, most } => factor(text, least, most).map(drop),
            Self::Duration { least } => at_least(duration(text)?, least),
            Self::Size { most } => at_most(size(text)?, most),
            Self::Port => port(text).map(drop),
            Self::Choice(groups) => choice(text, groups).map(drop),
            Self::JobId => text.parse::<JobId>().map(drop).map_err(|_| "is not 32 hexadecimal digits".to_string()),
        }
    }

    /// What the documentation calls it.
    pub fn describe(self) -> String {
        match self {
            Self::Text => "text".to_string(),
            Self::Flag => "`true` or `false`".to_string(),
            Self::Count { least, most: u32::MAX } => format!("whole number from {least}"),
            Self::Count { least, most } => format!("whole number from {least} to {most}"),
            Self::Factor { least, most } => format!("number from {least} to {most}"),
            Self::Duration { least } if least.is_zero() => "duration".to_string(),
            Self::Duration { least } => format!("duration from {}", show_duration(least)),
            Self::Size { most: u64::MAX } => "size".to_string(),
            Self::Size { most } => format!("size up to {most} bytes"),
            Self::Port => "port (0: any free one)".to_string(),
            Self::Choice(groups) => {
                let names: Vec<_> = groups.iter().map(|group| format!("`{}`", group.join("`/`"))).collect();
                names.join(", ")
            }
            Self::JobId => "32 hexadecimal digits".to_string(),
        }
    }
}

const DURATION_UNITS: &[(&str, u64)] = &[
    ("ns", 1),
    ("nano", 1),
    ("nanos", 1),
    ("nanosecond", 1),
    ("nanoseconds", 1),
    ("µs", 1_000),
    ("us", 1_000),
    ("micro", 1_000),
    ("micros", 1_000),
    ("microsecond", 1_000),
    ("microseconds", 1_000),
    ("ms", 1_000_000),
    ("milli", 1_000_000),
    ("millis", 1_000_000),
    ("millisecond", 1_000_000),
    ("milliseconds", 1_000_000),
    ("s", 1_000_000_000),
    ("sec", 1_000_000_000),
    ("secs", 1_000_000_000),
    ("second", 1_000_000_000),
    ("seconds", 1_000_000_000),
    ("m", 60_000_000_000),
    ("min", 60_000_000_000),
    ("mins", 60_000_000_000),
    ("minute", 60_000_000_000),
    ("minutes", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("hour", 3_600_000_000_000),
    ("hours", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("day", 86_400_000_000_000),
    ("days", 86_400_000_000_000),
];

const SIZE_UNITS: &[(&str, u64)] = &[
    ("b", 1),
    ("byte", 1),
    ("bytes", 1),
    ("k", 1 << 10),
    ("kb", 1 << 10),
    ("kib", 1 << 10),
    ("kibibytes", 1 << 10),
    ("m", 1 << 20),
    ("mb", 1 << 20),
    ("mib", 1 << 20),
    ("mebibytes", 1 << 20),
    ("g", 1 << 30),
    ("gb", 1 << 30),
    ("gib", 1 << 30),
    ("gibibytes", 1 << 30),
    ("t", 1 << 40),
    ("tb", 1 << 40),
    ("tib", 1 << 40),
    ("tebibytes", 1 << 40),
];

/// A duration as Flink writes it: a whole number and a unit; milliseconds without one.
pub fn duration(text: &str) -> Result<Duration, String> {
    let how = "is not a duration: write a whole number with a unit, such as 1000ms, 1 s or 10 min";
    let (number, unit) = split_unit(text).ok_or_else(|| how.to_string())?;
    let nanos = unit_factor(unit, "ms", DURATION_UNITS).ok_or_else(|| how.to_string())?;
    let nanos = number.checked_mul(nanos).ok_or_else(|| "is too long a duration".to_string())?;
    Ok(Duration::from_nanos(nanos))
}

/// A number of bytes as Flink writes it: a whole number and a unit of 1024s; bytes without one.
pub fn size(text: &str) -> Result<u64, String> {
    let how = "is not a size: write a whole number with a unit, such as 20kb or 5 MiB";
    let (number, unit) = split_unit(text).ok_or_else(|| how.to_string())?;
    let bytes = unit_factor(unit, "b", SIZE_UNITS).ok_or_else(|| how.to_string())?;
    number.checked_mul(bytes).ok_or_else(|| "is too large a size".to_string())
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

fn unit_factor(unit: &str, without: &str, units: &[(&str, u64)]) -> Option<u64> {
    let unit = if unit.is_empty() { without.to_string() } else { unit.to_lowercase() };
    units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)
}

/// A duration in the largest unit that loses nothing, as [`duration`] reads it.
pub fn show_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let units = [(86_400_000_000_000, "d"), (3_600_000_000_000, "h"), (60_000_000_000, "min"), (1_000_000_000, "s")];
    let small = [(1_000_000, "ms"), (1_000, "us"), (1, "ns")];
    if nanos == 0 {
        return "0 ms".to_string();
    }
    let fits = units.into_iter().chain(small).find(|(unit, _)| nanos.is_multiple_of(*unit));
    let (unit, name) = fits.unwrap_or((1, "ns"));
    format!("{} {name}", nanos / unit)
}

fn at_least(duration: Duration, least: Duration) -> Result<(), String> {
    if duration >= least {
        return Ok(());
    }
    Err(format!("is too short: {} is the least", show_duration(least)))
}

fn at_most(size: u64, most: u64) -> Result<(), String> {
    if size <= most {
        return Ok(());
    }
    Err(format!("is too large: {most} bytes are the most"))
}

/// A whole number within bounds.
pub fn count(text: &str, least: u32, most: u32) -> Result<u32, String> {
    let range = || match most {
        u32::MAX => format!("from {least}"),
        _ => format!("from {least} to {most}"),
    };
    match text.parse::<i128>() {
        Ok(number) if (i128::from(least)..=i128::from(most)).contains(&number) => Ok(number as u32),
        Ok(_) => Err(format!("is out of range: choose a whole number {}", range())),
        Err(_) => Err(format!("is not a whole number {}", range())),
    }
}

/// A number within bounds.
pub fn factor(text: &str, least: f64, most: f64) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        Ok(_) => Err(format!("is out of range: choose a number from {least} to {most}")),
        Err(_) => Err(format!("is not a number from {least} to {most}")),
    }
}

/// A port.
pub fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "is not a port: choose 0 (any free one) to 65535".to_string())
}

/// A flag.
pub fn flag(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("is neither true nor false".to_string()),
    }
}

/// The name of the group that a word belongs to; case and `_` for `-` don't matter.
pub fn choice(text: &str, groups: &[&[&'static str]]) -> Result<&'static str, String> {
    let word = text.to_ascii_lowercase().replace('_', "-");
    let group =
        groups.iter().find(|group| group.iter().any(|name| name.to_ascii_lowercase().replace('_', "-") == word));
    group.map(|group| group[0]).ok_or_else(|| {
        let names: Vec<_> = groups.iter().map(|group| group[0]).collect();
        format!("is unknown: choose {}", names.join(" or "))
    })
}
