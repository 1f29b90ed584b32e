//! Taskmanagers that don't belong to the job are told why, and the job goes on without them.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use millrace_testkit::{
    cluster::{JobCluster, PATIENCE, Result},
    services::process::ManagedProcess,
};

use crate::{Words, announced, assert_calm, assert_says, cancel, counts, job_over, wait_for_count};

/// A taskmanager that looks for the jobmanager of a running job.
struct Stranger {
    program: PathBuf,
    args: Vec<String>,
    config: Vec<(&'static str, String)>,
}

impl Stranger {
    /// One that belongs to the job, so far.
    fn of(cluster: &JobCluster, args: &[String]) -> Self {
        let rpc_address = announced(cluster, "rpc_address");
        let (host, port) = rpc_address.rsplit_once(':').expect("an address has a port");
        Self {
            program: PathBuf::from(env!("CARGO_BIN_EXE_misbehaving_job")),
            args: args.to_vec(),
            config: vec![
                ("job.id", cluster.job().to_string()),
                ("jobmanager.rpc.address", host.to_owned()),
                ("jobmanager.rpc.port", port.to_owned()),
                ("security.token", TOKEN.to_owned()),
            ],
        }
    }

    fn set(mut self, key: &'static str, value: &str) -> Self {
        self.config.push((key, value.to_owned()));
        self
    }

    /// Starts it and waits for its end; what it says.
    fn refusal(self, name: &str, directory: &Path) -> Result<String> {
        let mut command = Command::new(&self.program);
        let lines: String = self.config.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        command.args(&self.args).env("MILLRACE_ROLE", "taskmanager").env("MILLRACE_OVERRIDES", lines);
        let mut process = ManagedProcess::spawn(name, &command, directory)?;
        let status = process.wait_timeout(PATIENCE)?.expect("the taskmanager ends by itself");
        let said = process.stderr();
        assert_eq!(status.code(), Some(1), "{said}");
        assert_says(&said, &["the jobmanager refused this taskmanager"]);
        assert!(!said.contains("panicked"), "{said}");
        Ok(said)
    }
}

const TOKEN: &str = "the-cluster's-token";

#[test]
fn a_taskmanager_of_something_else_is_refused_with_what_differs() -> Result<()> {
    let mut words = Words::new();
    let extra = words.path().join(".extra");
    let spec = job_over(&words)
        .args(["--checkpoints".to_owned(), "100".to_owned()])
        .args(["--extra-operator-if".to_owned(), extra.display().to_string()]);
    let args = spec.args.clone();
    let mut cluster = JobCluster::start(spec.set("security.token", TOKEN))?;
    words.write_many(10, 1);
    wait_for_count(&mut cluster, 10)?;
    let directory = cluster.directory().to_owned();
    let stranger = || Stranger::of(&cluster, &args);

    let other = "0123456789abcdef0123456789abcdef";
    let said = stranger().set("job.id", other).refusal("other-job", &directory)?;
    assert_says(&said, &[&format!("was started for job {other}"), &format!("this is job {}", cluster.job())]);

    let said = stranger().set("security.token", "a guess").refusal("other-token", &directory)?;
    assert_says(&said, &["security.token"]);
    assert!(!said.contains(TOKEN) && !said.contains("a guess"), "tokens stay out of messages: {said}");

    let mut other = stranger();
    other.args.extend(["--topic".to_owned(), "another".to_owned()]);
    let said = other.refusal("other-arguments", &directory)?;
    assert_says(&said, &["its arguments", "another", "the same arguments"]);

    let mut other = stranger();
    other.program = another_build(&directory);
    let said = other.refusal("other-build", &directory)?;
    assert_says(&said, &["its build", "the same image or executable"]);

    fs::write(&extra, "").expect("the file can be written");
    let said = stranger().refusal("other-graph", &directory)?;
    assert_says(&said, &["its job graph", "the same arguments and parallelism"]);

    words.write_many(10, 1);
    wait_for_count(&mut cluster, 20)?;
    let state = cluster.state()?;
    assert!(state.is_running() && state.job.restarts == 0 && state.taskmanagers.len() == 1, "{state}");
    let log = cluster.jobmanager_log();
    assert!(log.matches("refused a connection to the taskmanager port").count() >= 5, "{log}");
    cancel(&mut cluster)?;
    assert_eq!(counts(&cluster.stdout(0)), (1..=20).collect::<Vec<_>>());
    assert_calm(&cluster);
    Ok(())
}

/// The same program with a byte more.
fn another_build(directory: &Path) -> PathBuf {
    let path = directory.join("another_build");
    fs::copy(env!("CARGO_BIN_EXE_misbehaving_job"), &path).expect("the program can be copied");
    let mut file = OpenOptions::new().append(true).open(&path).expect("the copy can be written");
    file.write_all(b"\0").expect("the copy can be written");
    path
}
