//! Numbers and times as people read them.

use std::time::{Duration, SystemTime};

/// The first millisecond that a time stamp can't show, that of the year 10000.
const YEAR_10000: u64 = 253_402_300_800_000;

/// A time in milliseconds since the epoch.
pub fn time(ms: u64) -> String {
    match ms {
        ..YEAR_10000 => {
            humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + Duration::from_millis(ms)).to_string()
        }
        _ => format!("{ms} ms"),
    }
}

/// `1 entry`, `2 entries`.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_any_file_can_be_shown() {
        assert_eq!(time(1_700_000_000_001), "2023-11-14T22:13:20.001Z");
        assert_eq!(time(YEAR_10000 - 1), "9999-12-31T23:59:59.999Z");
        assert_eq!(time(u64::MAX), "18446744073709551615 ms");
    }
}
