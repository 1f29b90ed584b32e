//! The processes that the command starts.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use millrace_core::{Error, Result};
use millrace_worker::config::{self, ROLE, Role};
use tokio::{
    process::{Child, Command},
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use crate::log_files;

/// How long taskmanagers may take to end by themselves when their job has ended.
const GRACE: Duration = Duration::from_secs(5);
/// How long a process may take to end after SIGTERM.
const TERM_GRACE: Duration = Duration::from_secs(2);

/// A program to start.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Where it runs.
    pub working_directory: PathBuf,
    /// All its `MILLRACE_*` variables but the role.
    pub variables: BTreeMap<String, String>,
    /// Where its logs go.
    pub log_dir: PathBuf,
}

/// A process that was started.
#[derive(Debug)]
pub struct Started {
    /// The number in the names of its files.
    pub index: u32,
    /// The process's id.
    pub pid: u32,
    /// Its log.
    pub log: PathBuf,
    child: Child,
}

impl Launch {
    /// Starts the program in a role. It has a process group of its own, so that Ctrl-C does not reach it: the command
    /// decides what that means.
    pub fn start(&self, role: Role) -> Result<Started> {
        let files = log_files::create(&self.log_dir, role)?;
        let mut command = Command::new(&self.program);
        for (name, _) in config::process_variables()? {
            command.env_remove(name);
        }
        command.args(&self.args).current_dir(&self.working_directory).envs(&self.variables).env(ROLE, role.name());
        command.stdin(Stdio::null()).stdout(files.out).stderr(files.log).process_group(0);
        let named =
            |why: String| Error::invalid(format!("program {} cannot be started: {why}", self.program.display()));
        let child = command.spawn().map_err(|error| named(error.to_string()))?;
        let pid = child.id().ok_or_else(|| named("it ended at once".to_string()))?;
        Ok(Started { index: files.index, pid, log: files.path, child })
    }
}

impl Started {
    /// Waits for its end.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().await.map_err(|error| Error::internal(format!("process {}: {error}", self.pid)))
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        // An error means that it has ended.
        let _ = self.child.start_kill();
    }

    /// Waits a while for its end, then ends it by force.
    async fn end(&mut self, grace: Duration) {
        if timeout(grace, self.wait()).await.is_ok() {
            return;
        }
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if timeout(TERM_GRACE, self.wait()).await.is_err() {
            self.kill();
            let _ = self.wait().await;
        }
    }
}

/// A taskmanager that ended before its job did.
#[derive(Debug)]
pub struct Ended {
    /// Its number.
    pub index: u32,
    /// The process.
    pub pid: u32,
    /// How.
    pub status: ExitStatus,
    /// Its log.
    pub log: PathBuf,
}

/// The taskmanagers that the command started and watches.
pub struct Fleet {
    tasks: JoinSet<()>,
    ended: mpsc::UnboundedReceiver<Ended>,
    end: watch::Sender<Option<Duration>>,
}

impl Fleet {
    /// Watches over processes.
    pub fn watch(processes: Vec<Started>) -> Self {
        let (report, ended) = mpsc::unbounded_channel();
        let (end, _) = watch::channel(None);
        let mut tasks = JoinSet::new();
        for process in processes {
            tasks.spawn(look_after(process, report.clone(), end.subscribe()));
        }
        Self { tasks, ended, end }
    }

    /// The next one that ends before it is told to. Never returns when there is none.
    pub async fn next_ended(&mut self) -> Ended {
        match self.ended.recv().await {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    }

    /// Waits until all have ended, by force after a while, or at once.
    pub async fn end(mut self, at_once: bool) {
        let grace = if at_once { Duration::ZERO } else { GRACE };
        let _ = self.end.send(Some(grace));
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn look_after(
    mut process: Started,
    report: mpsc::UnboundedSender<Ended>,
    mut end: watch::Receiver<Option<Duration>>,
) {
    let told = tokio::select! {
        status = process.wait() => Err(status),
        told = end.wait_for(Option::is_some) => Ok(told.ok().and_then(|grace| *grace).unwrap_or_default()),
    };
    match told {
        Ok(grace) => process.end(grace).await,
        Err(Ok(status)) => {
            let _ = report.send(Ended { index: process.index, pid: process.pid, status, log: process.log });
        }
        Err(Err(_)) => {}
    }
}

/// The executable that is meant: a path, or a name that is looked for where a shell looks.
pub fn find_program(program: &Path, search: Option<&std::ffi::OsStr>) -> Result<PathBuf> {
    let named = |why: &str| Error::invalid(format!("program {}: {why}", program.display()));
    let is_name = program.components().count() == 1 && !program.is_absolute() && !program.starts_with(".");
    let paths = search.filter(|_| is_name).map(|search| std::env::split_paths(search).collect::<Vec<_>>());
    let found = paths.unwrap_or_default().into_iter().map(|directory| directory.join(program));
    let found = found.chain([program.to_path_buf()]).find(|path| path.is_file() && is_executable(path));
    if let Some(found) = found {
        return found.canonicalize().map_err(|error| named(&error.to_string()));
    }
    Err(match program.metadata() {
        Ok(found) if found.is_dir() => named("is a directory: name the executable in it"),
        Ok(_) => named("is not executable: make it so (chmod +x), or name the built executable"),
        Err(_) if is_name => named("not found here or in PATH: give its path"),
        Err(_) => named("not found: build it first, or correct the path"),
    })
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn launch(directory: &Path, script: &str, variables: &[(&str, &str)]) -> Launch {
        let variables = variables.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        Launch {
            program: PathBuf::from("/bin/sh"),
            args: vec!["-c".to_string(), script.to_string()],
            working_directory: directory.to_path_buf(),
            variables,
            log_dir: directory.join("log"),
        }
    }

    #[tokio::test]
    async fn a_process_writes_to_its_own_files_and_knows_its_role() {
        let directory = tempfile::tempdir().unwrap();
        let script = "echo out $MILLRACE_ROLE $MILLRACE_TEST_X; echo log >&2; exit 7";
        let mut started =
            launch(directory.path(), script, &[("MILLRACE_TEST_X", "y")]).start(Role::TaskManager).unwrap();
        assert_eq!(started.wait().await.unwrap().code(), Some(7));
        assert_eq!(fs::read_to_string(&started.log).unwrap(), "log\n");
        assert_eq!(fs::read_to_string(started.log.with_extension("out")).unwrap(), "out taskmanager y\n");
    }

    #[tokio::test]
    async fn a_fleet_tells_who_ended_and_ends_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let lasting = launch(directory.path(), "exec sleep 600", &[]).start(Role::TaskManager).unwrap();
        let brief = launch(directory.path(), "exit 3", &[]).start(Role::TaskManager).unwrap();
        let (lasting_pid, brief_pid) = (lasting.pid, brief.pid);
        let mut fleet = Fleet::watch(vec![lasting, brief]);
        let ended = fleet.next_ended().await;
        assert_eq!((ended.pid, ended.index, ended.status.code()), (brief_pid, 1, Some(3)));
        fleet.end(true).await;
        let pid = rustix::process::Pid::from_raw(lasting_pid as i32).unwrap();
        assert!(rustix::process::test_kill_process(pid).is_err());
    }

    #[test]
    fn a_program_is_found_by_path_and_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let job = directory.path().join("job");
        fs::write(&job, "").unwrap();
        let wrong = |path: &Path| find_program(path, Some(directory.path().as_os_str())).unwrap_err().message;
        assert!(wrong(&job).contains("not executable"));
        assert!(wrong(directory.path()).contains("is a directory"));
        assert!(wrong(&directory.path().join("x")).contains("build it first"));
        assert!(wrong(Path::new("no-such-job")).contains("in PATH"));
        fs::set_permissions(&job, fs::Permissions::from_mode(0o755)).unwrap();
        let found = find_program(Path::new("job"), Some(directory.path().as_os_str())).unwrap();
        assert_eq!(found, job.canonicalize().unwrap());
        assert_eq!(find_program(&job, None).unwrap(), found);
    }
}
