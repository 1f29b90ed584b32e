//! The `millrace` command with real processes. The program that it runs is this test binary again: `the_program` is a
//! jobmanager without tasks, or a taskmanager that stays as long as its jobmanager.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use millrace_core::{
    ids::{JobId, TaskManagerId},
    rest::{JobProgram, JobStatus, TaskManagerInfo},
};
use millrace_worker::{
    announce::{Announcement, JobEnd},
    config::{Configuration, Role},
    rest::{self, JobCommand, JobView, RestState},
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::{mpsc, oneshot, watch};

/// What the program does instead of its work, if anything.
const MISBEHAVE: &str = "MILLRACE_TEST_MISBEHAVE";
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
#[ignore = "the program that the other tests run"]
fn the_program() {
    if std::env::var_os(MISBEHAVE).is_some() {
        eprintln!("there is no broker at nowhere:9092");
        std::process::exit(9);
    }
    let config = Configuration::load().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match config.role() {
        Role::JobManager => runtime.block_on(jobmanager(&config)),
        Role::TaskManager => taskmanager(&config),
        Role::Local => panic!("only the command starts this"),
    }
    std::process::exit(0);
}

async fn jobmanager(config: &Configuration) {
    let settings = config.settings().unwrap();
    let (job, directory) = (settings.job_id.unwrap(), settings.cluster_directory.clone().unwrap());
    let door = tokio::net::TcpListener::bind(("localhost", settings.jobmanager.rpc_port)).await.unwrap();
    let (listener, rest_address) = rest::bind(&settings.rest).await.unwrap();
    let (publish, view) = watch::channel(Arc::new(JobView::new(job, "nothing", 1)));
    let (commands, mut asked) = mpsc::channel(4);
    let rpc_address = format!("localhost:{}", door.local_addr().unwrap().port());
    let rest_address = format!("localhost:{}", rest_address.port());
    let mut announcement = Announcement::of_this_process(job, "nothing", rpc_address.clone(), rest_address).unwrap();
    let program = JobProgram {
        jid: job,
        program: announcement.program.display().to_string(),
        args: announcement.args.clone(),
        working_directory: String::new(),
        rpc_address,
    };
    let state = RestState {
        view,
        commands,
        settings: Arc::new(rest::shown_settings(config.entries())),
        program: Arc::new(program),
        registry: prometheus::Registry::new(),
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(rest::serve(listener, state, async {
        let _ = stopped.await;
    }));
    announcement.write(&directory).unwrap();
    let mut taskmanagers = Vec::new();
    let end = loop {
        tokio::select! {
            peer = door.accept() => {
                taskmanagers.push(peer.unwrap());
                publish.send_modify(|view| *Arc::make_mut(view) = with_taskmanagers(view, taskmanagers.len()));
            }
            Some(command) = asked.recv() => {
                let (reply, state, kept) = match command {
                    JobCommand::Cancel(reply) | JobCommand::Delete(reply) => (reply, JobStatus::Canceled, None),
                    JobCommand::Stop(reply) => (reply, JobStatus::Finished, Some("file:///c/chk-1".to_string())),
                };
                reply.send(Ok(())).unwrap();
                break JobEnd { state, error: None, retained_checkpoint: kept };
            }
        }
    };
    announcement.write_end(&directory, end).unwrap();
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}

fn with_taskmanagers(view: &JobView, count: usize) -> JobView {
    let mut view = view.clone();
    view.enter(JobStatus::Running, 2);
    let taskmanager = |index: usize| TaskManagerInfo {
        hardware: Default::default(),
        memory: Default::default(),
        id: TaskManagerId(index.to_string()),
        resource_id: index.to_string(),
        path: String::new(),
        data_port: 0,
        time_since_last_heartbeat: 0,
        slots_number: 1,
        free_slots: 1,
        pid: None,
    };
    view.taskmanagers = (0..count).map(taskmanager).collect();
    view
}

fn taskmanager(config: &Configuration) {
    let settings = config.settings().unwrap();
    println!("a taskmanager with {} slots", settings.taskmanager.slots);
    let address = (settings.jobmanager.rpc_address.as_str(), settings.jobmanager.rpc_port);
    let mut jobmanager = std::net::TcpStream::connect(address).unwrap();
    let _ = jobmanager.read(&mut [0]);
}

struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn millrace(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MILLRACE_")) {
            command.env_remove(name);
        }
        command.env("MILLRACE_CLUSTER_DIRECTORY", self.0.path().join("cluster"));
        command.env("MILLRACE_ENV_LOG_DIR", self.0.path().join("log")).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, options: &[&str]) -> Command {
        let program = std::env::current_exe().unwrap();
        let mut command = self.millrace(&["run"]);
        command.arg(program).args(options).args(["--", "the_program", "--exact", "--ignored", "--nocapture"]);
        command
    }

    fn output(&self, args: &[&str]) -> (i32, String, String) {
        told(self.millrace(args).output().unwrap())
    }

    fn log_names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.0.path().join("log"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn announcement(&self) -> Announcement {
        let mut all = Announcement::list(&self.0.path().join("cluster")).unwrap();
        assert_eq!(all.len(), 1);
        all.remove(0)
    }
}

fn told(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A `millrace run` that is followed, with what it said until it had started all processes.
struct Followed {
    command: Child,
    lines: BufReader<std::process::ChildStderr>,
    pids: Vec<i32>,
}

impl Followed {
    fn start(mut command: Command) -> Self {
        let mut command = command.spawn().unwrap();
        let mut lines = BufReader::new(command.stderr.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("jobmanager ") {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "the command ended too early");
        }
        let pids = line.split("pid ").skip(1).map(|rest| rest.split(')').next().unwrap().parse().unwrap()).collect();
        Self { command, lines, pids }
    }

    fn signal(&self, pid: i32, signal: Signal) {
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    fn end(mut self) -> (i32, String) {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        (self.command.wait().unwrap().code().unwrap_or(-1), rest)
    }
}

fn is_running(pid: i32) -> bool {
    // One that has ended and that nobody asked for yet is still there by its id, but no longer has memory.
    std::fs::read_to_string(format!("/proc/{pid}/statm")).is_ok_and(|pages| !pages.starts_with("0 "))
}

#[test]
fn a_detached_job_is_listed_extended_stopped_and_remembered() {
    let machine = Machine::new();
    let (code, id, said) = told(machine.run(&["--detached", "--slots", "3"]).output().unwrap());
    assert_eq!(code, 0, "{said}");
    let id: JobId = id.trim().parse().unwrap();
    let announcement = machine.announcement();
    assert_eq!((announcement.job_id, announcement.name.as_str()), (id, "nothing"));

    let (code, started, said) = machine.output(&["taskmanager", "start", "--slots", "5"]);
    assert_eq!(code, 0, "{said}");
    assert!(started.starts_with("taskmanager 1 (pid "), "{started}");
    let id = id.to_string();
    wait_until("a job with two taskmanagers", || {
        let (_, jobs, _) = machine.output(&["list"]);
        jobs.lines().any(|line| line.split_whitespace().take(3).eq([&id, "RUNNING", "2"]))
    });
    let names = machine.log_names();
    let kinds: Vec<_> =
        names.iter().map(|name| name.split('-').skip(2).take(2).collect::<Vec<_>>().join("-")).collect();
    let meant = ["jobmanager-0", "jobmanager-0", "taskmanager-0", "taskmanager-0", "taskmanager-1", "taskmanager-1"];
    assert_eq!(kinds, meant, "{names:?}");
    for (index, slots) in [("0", 3), ("1", 5)] {
        let (_, out, said) = machine.output(&["logs", "nothing", index, "--out"]);
        assert!(out.contains(&format!("a taskmanager with {slots} slots\n")), "{out}{said}");
    }
    let (code, _, said) = machine.output(&["logs", "nothing", "7"]);
    assert_eq!((code, said.as_str()), (1, "millrace: job nothing has no such taskmanager: it has 0, 1\n"));

    let (code, stopped, said) = machine.output(&["stop", &id[..6]]);
    assert_eq!((code, said.as_str()), (0, ""));
    assert_eq!(stopped, format!("job {id} (nothing) FINISHED; checkpoint kept at file:///c/chk-1\n"));
    let (_, jobs, _) = machine.output(&["list"]);
    assert!(jobs.contains(&format!("{id}  FINISHED")), "{jobs}");
    let (code, _, said) = machine.output(&["cancel", "nothing"]);
    assert_eq!((code, said), (1, format!("millrace: job {id} (nothing) has ended: FINISHED\n")));
}

#[test]
fn ctrl_c_cancels_the_job_and_ends_its_processes() {
    let machine = Machine::new();
    let followed = Followed::start(machine.run(&["--taskmanagers", "2"]));
    assert_eq!(followed.pids.len(), 3);
    let pids = followed.pids.clone();
    // Twice at once, as `timeout` does it, is once.
    followed.signal(followed.command.id() as i32, Signal::INT);
    followed.signal(followed.command.id() as i32, Signal::TERM);
    let (code, said) = followed.end();
    assert_eq!(code, 130, "{said}");
    assert!(said.contains("cancelling the job") && said.ends_with("job cancelled\n"), "{said}");
    assert!(pids.into_iter().all(|pid| !is_running(pid)));
    assert_eq!(machine.announcement().end.unwrap().state, JobStatus::Canceled);
}

#[test]
fn a_lost_taskmanager_is_told_and_the_job_goes_on_until_it_is_cancelled() {
    let machine = Machine::new();
    let mut followed = Followed::start(machine.run(&["--taskmanagers", "2"]));
    let lost = followed.pids[2];
    followed.signal(lost, Signal::KILL);
    let mut line = String::new();
    while !line.starts_with("taskmanager 1") {
        line.clear();
        assert!(followed.lines.read_line(&mut line).unwrap() > 0, "the command ended too early");
    }
    assert!(line.starts_with(&format!("taskmanager 1 (pid {lost}) ended: signal: 9 (SIGKILL); its log is ")), "{line}");
    let (code, said, _) = machine.output(&["cancel", "nothing"]);
    assert_eq!(code, 0);
    assert!(said.ends_with("(nothing) CANCELED\n"), "{said}");
    assert_eq!(followed.end().0, 3);
}

#[test]
fn a_jobmanager_that_is_killed_is_no_success() {
    let machine = Machine::new();
    let followed = Followed::start(machine.run(&[]));
    let pids = followed.pids.clone();
    followed.signal(pids[0], Signal::KILL);
    let (code, said) = followed.end();
    assert_eq!(code, 1);
    assert!(said.contains("the jobmanager ended before the job did (signal: 9 (SIGKILL)); its log "), "{said}");
    assert!(pids.into_iter().all(|pid| !is_running(pid)));
    let (_, jobs, _) = machine.output(&["list"]);
    assert!(jobs.contains("  LOST  "), "{jobs}");
}

#[test]
fn a_program_that_fails_at_once_shows_its_log() {
    let machine = Machine::new();
    let (code, _, said) = told(machine.run(&[]).env(MISBEHAVE, "1").output().unwrap());
    assert_eq!(code, 1);
    assert!(said.contains("the program ended before its job began (exit status: 9); its log "), "{said}");
    assert!(said.ends_with("\n    there is no broker at nowhere:9092\n"), "{said}");
}

#[test]
fn what_cannot_be_run_is_refused_before_anything_starts() {
    let machine = Machine::new();
    let missing = machine.0.path().join("no-such-job");
    let (code, _, said) = machine.output(&["run", missing.to_str().unwrap()]);
    let meant = format!("millrace: program {}: not found: build it first, or correct the path\n", missing.display());
    assert_eq!((code, said), (1, meant));
    let (code, _, said) = told(machine.run(&["-D", "rest.prot=1"]).output().unwrap());
    assert_eq!((code, said.as_str()), (1, "millrace: unknown setting \"rest.prot\" (-D): did you mean rest.port?\n"));
    assert!(!Path::exists(&machine.0.path().join("log")));
    let (code, _, said) = machine.output(&["taskmanager", "start"]);
    assert_eq!((code, said.as_str()), (1, "millrace: no job runs on this machine: start one with `millrace run`\n"));
}
