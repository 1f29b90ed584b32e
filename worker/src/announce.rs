//! How the `millrace` command finds the jobs of a machine: each jobmanager writes a file `<job-id>.json` into the cluster
//! directory, and notes in it how the job ended.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use millrace_core::{Error, Result, ids::JobId, rest::JobStatus};
use serde::{Deserialize, Serialize};

/// What a jobmanager says of itself. The file may be read by its user alone: it holds the environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The jobmanager's process.
    pub pid: u32,
    /// When that process started, in the system's own count: tells it from a later one with the same id.
    pub pid_started: Option<u64>,
    /// The job.
    pub job_id: JobId,
    /// Its name.
    pub name: String,
    /// Where taskmanagers find the jobmanager, `host:port`.
    pub rpc_address: String,
    /// Where its REST server is, `host:port`.
    pub rest_address: String,
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// The directory that it runs in.
    pub working_directory: PathBuf,
    /// Its `MILLRACE_*` variables, so that another taskmanager gets the same configuration.
    pub environment: BTreeMap<String, String>,
    /// Where the logs of its processes are.
    pub log_dir: Option<PathBuf>,
    /// How the job ended, once it has.
    pub end: Option<JobEnd>,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEnd {
    /// `FINISHED`, `CANCELED`, `FAILED` or `SUSPENDED`.
    pub state: JobStatus,
    /// Why it failed.
    pub error: Option<String>,
    /// The newest checkpoint, where it was kept.
    pub retained_checkpoint: Option<String>,
}

impl Announcement {
    /// What this process has to say as a job's jobmanager.
    pub fn of_this_process(job_id: JobId, name: &str, rpc_address: String, rest_address: String) -> Result<Self> {
        let cannot = |what: &str, error: io::Error| Error::external(format!("{what} cannot be told: {error}"));
        let pid = std::process::id();
        Ok(Self {
            pid,
            pid_started: process_started(pid),
            job_id,
            name: name.to_string(),
            rpc_address,
            rest_address,
            program: std::env::current_exe().map_err(|error| cannot("the program's path", error))?,
            args: arguments()?,
            working_directory: std::env::current_dir().map_err(|error| cannot("the working directory", error))?,
            environment: environment(),
            log_dir: None,
            end: None,
        })
    }

    /// Writes the file as a whole, in place of an older one.
    pub fn write(&self, directory: &Path) -> Result<PathBuf> {
        create_private(directory)?;
        let path = path_of(directory, self.job_id);
        let unfinished = directory.join(format!(".{}.{}", self.job_id, std::process::id()));
        let failed =
            |error: io::Error| Error::external(format!("announcement {} cannot be written: {error}", path.display()));
        let text = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        let mut options = fs::OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        options.open(&unfinished).and_then(|mut file| io::Write::write_all(&mut file, &text)).map_err(failed)?;
        fs::rename(&unfinished, &path).map_err(failed)?;
        Ok(path)
    }

    /// Notes how the job ended, so that who started it can tell.
    pub fn write_end(&mut self, directory: &Path, end: JobEnd) -> Result<()> {
        self.end = Some(end);
        self.write(directory).map(drop)
    }

    /// The announcement of a job; `None` where there is none.
    pub fn read(directory: &Path, job_id: JobId) -> Result<Option<Self>> {
        read_file(&path_of(directory, job_id))
    }

    /// All announcements, also of jobmanagers that are gone, by name and id. Other files are passed over.
    pub fn list(directory: &Path) -> Result<Vec<Self>> {
        let unreadable = |error: io::Error| {
            Error::external(format!("cluster directory {} cannot be read: {error}", directory.display()))
        };
        let files = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            files => files.map_err(unreadable)?,
        };
        let mut announcements = Vec::new();
        for file in files {
            let path = file.map_err(unreadable)?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            if path.extension().is_some_and(|extension| extension == "json") && stem.parse::<JobId>().is_ok() {
                announcements.extend(read_file(&path)?);
            }
        }
        announcements.sort_by(|a, b| (&a.name, a.job_id).cmp(&(&b.name, b.job_id)));
        Ok(announcements)
    }

    /// Removes the announcement of a job, if it is there.
    pub fn remove(directory: &Path, job_id: JobId) -> Result<()> {
        let path = path_of(directory, job_id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::external(format!("announcement {} cannot be removed: {error}", path.display())))
            }
            _ => Ok(()),
        }
    }

    /// Whether the jobmanager's process is still there.
    pub fn is_alive(&self) -> bool {
        is_running(self.pid) && (self.pid_started.is_none() || self.pid_started == process_started(self.pid))
    }
}

/// Where announcements go on this machine if nothing else is said.
pub fn default_cluster_directory() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty()) {
        Some(directory) => PathBuf::from(directory).join("millrace"),
        None => std::env::temp_dir().join(format!("millrace-{}", user_name())),
    }
}

/// The user's name as it stands in file names; the number where there is no name.
pub fn user_name() -> String {
    let named = ["USER", "LOGNAME"].into_iter().find_map(|key| std::env::var(key).ok().filter(|name| !name.is_empty()));
    let uid = rustix::process::geteuid().as_raw();
    // Services and containers often run without these variables.
    let listed = || name_of(uid, &fs::read_to_string("/etc/passwd").ok()?);
    let name = named.or_else(listed).unwrap_or_else(|| uid.to_string());
    name.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') { c } else { '_' }).collect()
}

/// The name of a user by the text of `/etc/passwd`: `name:password:uid:…` a line.
fn name_of(uid: u32, passwd: &str) -> Option<String> {
    let mut users = passwd.lines().map(|line| line.split(':'));
    users
        .find_map(|mut fields| Some((fields.next()?, fields.nth(1)?.parse::<u32>().ok()?)).filter(|user| user.1 == uid))
        .map(|(name, _)| name.to_string())
}

/// Makes a directory that only its user may enter. One that is there already must be the user's, and nobody else may
/// write to it: what lies in it says which programs to start.
pub fn create_private(directory: &Path) -> Result<()> {
    let named = |why: String| Error::invalid(format!("cluster directory {}: {why}", directory.display()));
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| named(format!("cannot be created: {error}")))?;
    let found = fs::metadata(directory).map_err(|error| named(error.to_string()))?;
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(named("belongs to another user: choose another cluster.directory".to_string()));
    }
    if found.mode() & 0o022 != 0 {
        return Err(named("others may write to it: make it private (chmod 700)".to_string()));
    }
    Ok(())
}

fn path_of(directory: &Path, job_id: JobId) -> PathBuf {
    directory.join(format!("{job_id}.json"))
}

fn read_file(path: &Path) -> Result<Option<Announcement>> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|error| Error::external(format!("{} cannot be read: {error}", path.display())))?,
    };
    let read = serde_json::from_slice(&text);
    read.map(Some).map_err(|error| {
        Error::invalid(format!("{} is no announcement of this version ({error}): remove it", path.display()))
    })
}

fn arguments() -> Result<Vec<String>> {
    let text = |argument: std::ffi::OsString| {
        argument.into_string().map_err(|other| Error::invalid(format!("argument {other:?} is not UTF-8")))
    };
    std::env::args_os().skip(1).map(text).collect()
}

fn environment() -> BTreeMap<String, String> {
    let text =
        std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    text.filter(|(key, _)| key.starts_with("MILLRACE_")).collect()
}

fn is_running(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    // A process of another user answers "not permitted", but then it is not the one that wrote the file.
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
}

/// When a process started, in clock ticks since boot; `None` where the system does not tell.
fn process_started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, a name in parentheses, may hold spaces; the start is the 22nd field.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn announcement() -> Announcement {
        Announcement::of_this_process(JobId(7), "counts", "localhost:1".into(), "localhost:2".into()).unwrap()
    }

    #[test]
    fn what_is_written_is_read_and_listed_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("cluster");
        assert_eq!(Announcement::list(&directory).unwrap(), []);
        let mut announcement = announcement();
        let path = announcement.write(&directory).unwrap();
        fs::write(directory.join("notes.json"), "{").unwrap();
        assert_eq!(Announcement::read(&directory, JobId(7)).unwrap(), Some(announcement.clone()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
        let end = JobEnd { state: JobStatus::Failed, error: Some("boom".into()), retained_checkpoint: None };
        announcement.write_end(&directory, end.clone()).unwrap();
        assert_eq!(Announcement::list(&directory).unwrap()[0].end, Some(end));
        Announcement::remove(&directory, JobId(7)).unwrap();
        Announcement::remove(&directory, JobId(7)).unwrap();
        assert_eq!(Announcement::read(&directory, JobId(7)).unwrap(), None);
    }

    #[test]
    fn a_process_that_is_gone_or_another_with_its_id_is_told_apart() {
        let mut announcement = announcement();
        assert!(announcement.is_alive());
        announcement.pid_started = announcement.pid_started.map(|started| started + 1);
        assert_eq!(announcement.is_alive(), announcement.pid_started.is_none());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        announcement.pid = child.id();
        announcement.pid_started = None;
        child.wait().unwrap();
        assert!(!announcement.is_alive());
    }

    #[test]
    fn a_user_is_known_by_the_list_of_users() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n# a comment\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!(name_of(1000, passwd).as_deref(), Some("ann"));
        assert_eq!(name_of(7, passwd), None);
    }

    #[test]
    fn a_directory_that_others_write_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = announcement().write(directory.path()).unwrap_err();
        assert!(error.message.contains("others may write"), "{error}");
    }

    #[test]
    fn a_damaged_announcement_is_named() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(path_of(directory.path(), JobId(1)), "{\"pid\": 1").unwrap();
        let error = Announcement::list(directory.path()).unwrap_err();
        assert!(error.message.contains("00000001.json is no announcement"), "{error}");
    }
}
