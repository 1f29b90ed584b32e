//! What a command knows of this machine: its configuration and the jobs that are announced.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use millrace_core::{Error, Result, ids::JobId};
use millrace_worker::{
    announce::{Announcement, create_private, default_cluster_directory},
    config::{self, CONF, Configuration, OVERRIDES, ROLE, encode_overrides},
};
use serde::{Deserialize, Serialize};

use crate::args::Common;

/// How long jobs that ended are still listed.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// What a command knows.
pub struct Context {
    /// The `MILLRACE_*` variables for processes that it starts.
    pub variables: BTreeMap<String, String>,
    /// The configuration that these give.
    pub config: Configuration,
    /// Where jobmanagers announce themselves.
    pub directory: PathBuf,
}

/// A process of a job, as whoever started it notes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessNote {
    /// `jobmanager` or `taskmanager`.
    pub role: String,
    /// The number in the names of its files.
    pub index: u32,
    /// The process.
    pub pid: u32,
    /// Its log.
    pub log: PathBuf,
}

impl Context {
    /// What the environment and the command line say.
    pub fn new(common: &Common) -> Result<Self> {
        let mut variables: BTreeMap<String, String> = config::process_variables()?.into_iter().collect();
        variables.remove(ROLE);
        if let Some(path) = &common.conf {
            variables.insert(CONF.to_string(), path.display().to_string());
        }
        if let Some(path) = variables.get_mut(CONF) {
            *path = absolute(Path::new(path))?.display().to_string();
        }
        add_overrides(&mut variables, &common.settings)?;
        let config = Configuration::from_variables(variables.clone())?;
        let directory = config.settings()?.cluster_directory.unwrap_or_else(default_cluster_directory);
        Ok(Self { variables, config, directory: absolute(&directory)? })
    }

    /// The job with this name or this beginning of its id: one that runs, or else one that ended.
    pub fn find(&self, wanted: &str) -> Result<Announcement> {
        choose(Announcement::list(&self.directory)?, wanted, Announcement::is_alive)
    }

    /// The only job that runs.
    pub fn only(&self) -> Result<Announcement> {
        let mut running = Announcement::list(&self.directory)?;
        running.retain(Announcement::is_alive);
        match running.len() {
            1 => Ok(running.remove(0)),
            0 => Err(Error::invalid("no job runs on this machine: start one with `millrace run`")),
            _ => Err(Error::invalid(format!("several jobs run: choose one with --job\n{}", table(&running)))),
        }
    }

    /// Notes a process of a job.
    pub fn note(&self, job: JobId, note: &ProcessNote) -> Result<()> {
        create_private(&self.directory)?;
        let path = self.notes(job);
        let failed = |error: std::io::Error| Error::external(format!("{} cannot be written: {error}", path.display()));
        let mut line = serde_json::to_string(note).map_err(|error| failed(error.into()))?;
        line.push('\n');
        let file = fs::OpenOptions::new().append(true).create(true).open(&path);
        file.and_then(|mut file| std::io::Write::write_all(&mut file, line.as_bytes())).map_err(failed)
    }

    /// The processes that were noted for a job.
    pub fn processes(&self, job: JobId) -> Vec<ProcessNote> {
        let text = fs::read_to_string(self.notes(job)).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Forgets jobs that ended long ago.
    pub fn sweep(&self) -> Result<()> {
        for gone in Announcement::list(&self.directory)?.into_iter().filter(|job| !job.is_alive()) {
            let path = self.directory.join(format!("{}.json", gone.job_id));
            let age =
                fs::metadata(path).and_then(|found| found.modified()).map(|at| SystemTime::now().duration_since(at));
            if matches!(age, Ok(Ok(age)) if age > REMEMBERED) {
                Announcement::remove(&self.directory, gone.job_id)?;
                let _ = fs::remove_file(self.notes(gone.job_id));
            }
        }
        Ok(())
    }

    fn notes(&self, job: JobId) -> PathBuf {
        self.directory.join(format!("{job}.processes"))
    }
}

/// A path that means the same in every directory.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| Error::invalid(format!("path {}: {error}", path.display())))
}

/// Adds explicit settings behind those that are there already.
pub fn add_overrides(variables: &mut BTreeMap<String, String>, settings: &[(String, String)]) -> Result<()> {
    let lines = encode_overrides(settings.iter().map(|(key, value)| (key.as_str(), value.as_str())))?;
    if lines.is_empty() {
        return Ok(());
    }
    let all = variables.entry(OVERRIDES.to_string()).or_default();
    if !all.is_empty() && !all.ends_with('\n') {
        all.push('\n');
    }
    all.push_str(&lines);
    Ok(())
}

/// The one announcement that is meant. Jobs that run come before those that ended.
fn choose(
    announcements: Vec<Announcement>,
    wanted: &str,
    is_alive: impl Fn(&Announcement) -> bool,
) -> Result<Announcement> {
    let meant = |job: &Announcement| job.name == wanted || job.job_id.to_string().starts_with(&wanted.to_lowercase());
    let (mut running, mut gone): (Vec<_>, Vec<_>) =
        announcements.into_iter().filter(|job| !wanted.is_empty() && meant(job)).partition(is_alive);
    let matches = if running.is_empty() { &mut gone } else { &mut running };
    match matches.len() {
        1 => Ok(matches.remove(0)),
        0 => Err(Error::invalid(format!("no job has the name or id {wanted:?}: `millrace list` shows all"))),
        _ => Err(Error::invalid(format!("{wanted:?} could be several jobs: use more of the id\n{}", table(matches)))),
    }
}

fn table(jobs: &[Announcement]) -> String {
    let rows: Vec<_> = jobs.iter().map(|job| format!("    {}  {}", job.job_id, job.name)).collect();
    rows.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(id: u128, name: &str) -> Announcement {
        let here = String::from("localhost:1");
        let mut job = Announcement::of_this_process(JobId(id), name, here.clone(), here).unwrap();
        job.pid = u32::from(id < 100);
        job
    }

    fn chosen(jobs: &[Announcement], wanted: &str) -> Result<JobId> {
        choose(jobs.to_vec(), wanted, |job| job.pid == 1).map(|job| job.job_id)
    }

    #[test]
    fn a_job_is_found_by_name_or_by_the_beginning_of_its_id() {
        let jobs = [job(1 << 124, "old"), job(0xabc << 116, "clicks"), job(2, "counts")];
        assert_eq!(chosen(&jobs, "clicks").unwrap(), JobId(0xabc << 116));
        assert_eq!(chosen(&jobs, "ABC").unwrap(), JobId(0xabc << 116));
        assert_eq!(chosen(&jobs, "0000").unwrap(), JobId(2));
    }

    #[test]
    fn one_that_runs_comes_before_those_that_ended() {
        let jobs = [job(1 << 124, "counts"), job(2, "counts"), job(3 << 124, "counts")];
        assert_eq!(chosen(&jobs, "counts").unwrap(), JobId(2));
    }

    #[test]
    fn what_is_not_clear_is_an_error_that_lists_the_choices() {
        let jobs = [job(1, "counts"), job(2, "counts")];
        let error = chosen(&jobs, "counts").unwrap_err();
        assert!(error.message.contains("0001  counts") && error.message.contains("0002  counts"), "{error}");
        assert!(chosen(&jobs, "x").unwrap_err().message.contains("no job has the name or id \"x\""));
        assert!(chosen(&jobs, "").is_err());
    }

    #[test]
    fn overrides_are_added_behind_those_of_the_environment() {
        let mut variables = BTreeMap::from([(OVERRIDES.to_string(), "rest.port=1".to_string())]);
        add_overrides(&mut variables, &[("rest.port".to_string(), "2".to_string())]).unwrap();
        assert_eq!(variables[OVERRIDES], "rest.port=1\nrest.port=2\n");
        let config = Configuration::from_variables(variables).unwrap();
        assert_eq!(config.settings().unwrap().rest.port, 2);
    }
}
