//! The log files of the processes that the command starts: `millrace-<user>-<role>-<index>-<host>.log` and `.out`.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use millrace_core::{Error, Result};
use millrace_worker::{announce::user_name, config::Role};

/// The two files of a process.
#[derive(Debug)]
pub struct LogFiles {
    /// The process's number among those of its role in the directory.
    pub index: u32,
    /// The path of the log; that of standard output has the extension `out`.
    pub path: PathBuf,
    /// Standard error goes here.
    pub log: File,
    /// Standard output goes here.
    pub out: File,
}

/// Makes the files of a new process. The index counts up over all that were ever made in the directory; creating the
/// log exclusively decides between two processes that are started at once.
pub fn create(directory: &Path, role: Role) -> Result<LogFiles> {
    create_for(directory, role, &user_name(), &host_name())
}

fn create_for(directory: &Path, role: Role, user: &str, host: &str) -> Result<LogFiles> {
    let named = |error: io::Error| Error::invalid(format!("log directory {}: {error}", directory.display()));
    fs::create_dir_all(directory).map_err(named)?;
    let directory = directory.canonicalize().map_err(named)?;
    let names = fs::read_dir(&directory).map_err(named)?;
    let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let highest = names.filter_map(|name| index_of(&name, user, role)).max();
    let mut index = highest.map_or(0, |highest| highest.saturating_add(1));
    loop {
        let path = directory.join(format!("millrace-{user}-{role}-{index}-{host}.log"));
        match File::create_new(&path) {
            Ok(log) => {
                let out = File::create(path.with_extension("out")).map_err(named)?;
                return Ok(LogFiles { index, path, log, out });
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => index += 1,
            Err(error) => return Err(named(error)),
        }
    }
}

fn index_of(name: &str, user: &str, role: Role) -> Option<u32> {
    let rest = name.strip_prefix("millrace-")?.strip_prefix(user)?.strip_prefix('-')?;
    rest.strip_prefix(role.name())?.strip_prefix('-')?.split('-').next()?.parse().ok()
}

fn host_name() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    host.replace('/', "_")
}

/// The last lines of a file, indented, to be shown under a message.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| format!("\n    {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_counts_up_for_every_new_process_of_a_role() {
        let directory = tempfile::tempdir().unwrap();
        let make = |role| create_for(directory.path(), role, "ann", "box-1").unwrap();
        assert_eq!(make(Role::TaskManager).index, 0);
        assert_eq!(make(Role::TaskManager).index, 1);
        assert_eq!(make(Role::JobManager).index, 0);
        let last = make(Role::TaskManager);
        assert_eq!(last.index, 2);
        assert_eq!(last.path.file_name().unwrap(), "millrace-ann-taskmanager-2-box-1.log");
        assert!(last.path.with_extension("out").exists());
    }

    #[test]
    fn a_removed_log_does_not_bring_its_index_back_and_others_do_not_count() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["millrace-ann-taskmanager-7-old.out", "millrace-ben-taskmanager-9-b.log", "millrace-ann-x.log"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        assert_eq!(create_for(directory.path(), Role::TaskManager, "ann", "b").unwrap().index, 8);
    }

    #[test]
    fn processes_that_start_at_once_get_different_indices() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let mut indices: Vec<u32> = std::thread::scope(|scope| {
            let make = || scope.spawn(|| create_for(path, Role::TaskManager, "ann", "b").unwrap().index);
            let threads: Vec<_> = (0..16).map(|_| make()).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        indices.sort_unstable();
        assert_eq!(indices, (0..16).collect::<Vec<_>>());
    }

    #[test]
    fn the_tail_of_a_short_or_missing_file_is_what_there_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.log");
        assert_eq!(tail(&path, 2), "");
        fs::write(&path, "a\nb\nc\n").unwrap();
        assert_eq!(tail(&path, 2), "\n    b\n    c");
    }
}
