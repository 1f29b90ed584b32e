//! The example jobs, and what they share: reading their flags, and ending.

pub mod checkpoint_example;
pub mod keyed_count;

use std::{process::ExitCode, time::Duration};

/// What a job's program ends with: its error is told on standard error.
pub fn exit_code(result: millrace::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A positive duration such as `1000ms` or `2 s`.
pub fn positive_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text.trim())
        .map_err(|error| format!("{error}: write a number with a unit, such as 1000ms or 2s"))?;
    if duration.is_zero() {
        return Err("it must be longer than 0".to_string());
    }
    Ok(duration)
}

/// A positive duration, or `off`.
pub fn interval_or_off(text: &str) -> Result<Option<Duration>, String> {
    if text.eq_ignore_ascii_case("off") { Ok(None) } else { positive_duration(text).map(Some) }
}

/// `name=value`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_string(), value.to_string())),
        _ => Err("write it as name=value".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_are_positive() {
        assert_eq!(positive_duration("1000ms"), Ok(Duration::from_secs(1)));
        assert_eq!(positive_duration("1 s"), Ok(Duration::from_secs(1)));
        for wrong in ["", "0ms", "-5ms", "5", "soon"] {
            assert!(positive_duration(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(interval_or_off("off"), Ok(None));
        assert_eq!(interval_or_off("2s"), Ok(Some(Duration::from_secs(2))));
    }

    #[test]
    fn pairs_need_a_name() {
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(pair("a="), Ok(("a".into(), String::new())));
        assert!(pair("a").is_err() && pair("=b").is_err());
    }
}
