//! Waits for steps of the protocol, which processes name in their logs.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use super::Result;

/// What makes processes log their steps.
pub const LOG_LEVEL: &str = "info,millrace::step=debug";
/// How often a log is looked at: the time that may pass between a step and the fault.
const POLL: Duration = Duration::from_millis(1);

/// Logs that are followed from their present end on.
pub struct Logs {
    logs: Vec<Log>,
}

struct Log {
    path: PathBuf,
    offset: u64,
    text: String,
}

impl Logs {
    /// From now on. A file that is not there yet is read from its beginning.
    pub fn follow(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let end = |path: &PathBuf| std::fs::metadata(path).map_or(0, |file| file.len());
        let logs = paths.into_iter().map(|path| Log { offset: end(&path), path, text: String::new() }).collect();
        Self { logs }
    }

    /// Waits until one of them has a complete line that is looked for; which one, and the line.
    pub fn wait_for(
        &mut self,
        what: &str,
        limit: Duration,
        mut found: impl FnMut(&str) -> bool,
    ) -> Result<(usize, String)> {
        let end = Instant::now() + limit;
        loop {
            for (index, log) in self.logs.iter_mut().enumerate() {
                if let Some(line) = log.read_on()?.into_iter().find(|line| found(line)) {
                    return Ok((index, line));
                }
            }
            if Instant::now() >= end {
                return Err(format!("no {what} in {} logs within {limit:?}", self.logs.len()).into());
            }
            thread::sleep(POLL);
        }
    }
}

impl Log {
    fn read_on(&mut self) -> Result<Vec<String>> {
        let Ok(mut file) = File::open(&self.path) else { return Ok(Vec::new()) };
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(self.offset))?;
        self.offset += file.read_to_end(&mut bytes)? as u64;
        self.text.push_str(&String::from_utf8_lossy(&bytes));
        let complete = self.text.rfind('\n').map_or(0, |end| end + 1);
        let rest = self.text.split_off(complete);
        let lines = std::mem::replace(&mut self.text, rest);
        Ok(lines.lines().map(str::to_owned).collect())
    }
}

/// Whether a line says that this step is taken.
pub fn is_step(line: &str, step: &str) -> bool {
    line.contains("millrace::step") && line.contains(&format!("step=\"{step}\""))
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::*;

    #[test]
    fn only_what_comes_after_is_found_and_only_in_complete_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let line = |step: &str| format!("2026 DEBUG millrace::step: step=\"{step}\" checkpoint=3\n");
        fs::write(&path, line("trigger")).unwrap();
        let mut logs = Logs::follow([dir.path().join("none"), path.clone()]);
        let mut file = File::options().append(true).open(&path).unwrap();
        let wait = |logs: &mut Logs, ms| {
            logs.wait_for("step", Duration::from_millis(ms), |line| is_step(line, "trigger")).map(|(index, _)| index)
        };
        file.write_all(line("complete").as_bytes()).unwrap();
        file.write_all(line("trigger").trim_end().as_bytes()).unwrap();
        assert!(wait(&mut logs, 10).is_err());
        file.write_all(b"\n").unwrap();
        assert_eq!(wait(&mut logs, 10).unwrap(), 1);
    }
}
