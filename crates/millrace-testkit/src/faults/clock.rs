//! A process's clock that jumps, by libfaketime (Debian's package of that name): no special build is needed, and what
//! the user's own code asks for is shifted too. Time that only measures durations goes on evenly, as it does on a
//! machine whose clock is set.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::services::{Result, io_error};

/// Where Debian's package puts it, on every architecture.
const LIBRARIES: &str = "/usr/lib";
const LIBRARY: &str = "faketime/libfaketime.so.1";

/// The clock of one process; it is started with [`environment`](Self::environment).
#[derive(Clone, Debug)]
pub struct FakeClock {
    library: PathBuf,
    file: PathBuf,
}

impl FakeClock {
    /// A right one, controlled through this file; none where libfaketime is not installed.
    pub fn new(file: &Path) -> Result<Option<Self>> {
        let places = fs::read_dir(LIBRARIES).into_iter().flatten().flatten().map(|place| place.path().join(LIBRARY));
        let Some(library) = places.chain([Path::new(LIBRARIES).join(LIBRARY)]).find(|path| path.is_file()) else {
            return Ok(None);
        };
        let clock = Self { library, file: file.to_owned() };
        clock.shift(0)?;
        Ok(Some(clock))
    }

    /// What a process needs to go by this clock.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            // How many seconds may pass before the file is read again.
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    /// Makes it so many seconds fast, or slow, within a second or two.
    pub fn shift(&self, seconds: i64) -> Result<()> {
        let next = self.file.with_extension("next");
        let written = fs::write(&next, format!("{seconds:+}s\n")).and_then(|()| fs::rename(&next, &self.file));
        written.map_err(io_error(format!("writing {}", self.file.display())))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        process::Command,
        time::{SystemTime, UNIX_EPOCH},
    };

    use super::*;

    #[test]
    fn a_process_goes_by_it() {
        let dir = tempfile::tempdir().unwrap();
        let Some(clock) = FakeClock::new(&dir.path().join("clock")).unwrap() else {
            println!("skipped: libfaketime is not installed");
            return;
        };
        let off = || {
            let output = Command::new("date").arg("+%s").envs(clock.environment()).output().unwrap();
            let told: i64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
            told - SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
        };
        assert!(off().abs() <= 5);
        clock.shift(-600).unwrap();
        assert!((-605..=-595).contains(&off()), "{}", off());
        clock.shift(600).unwrap();
        assert!((595..=605).contains(&off()), "{}", off());
    }
}
