//! Flink: a standalone cluster that runs the one job, from the jars that `scripts/fetch-flink.sh` brings.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use millrace_testkit::{
    cluster::RestClient,
    services::{
        ports::free_port,
        process::{ManagedProcess, Signal},
    },
};
use serde_json::Value;

use crate::{
    Result,
    contender::Running,
    scenario::{PARALLELISM, Place, SAMPLE, Scenario, Victim, wait},
};

/// How Flink is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tuning {
    /// As it is.
    Defaults,
    /// To notice and restart sooner.
    Tuned,
}

/// What Flink's own scripts give a JVM of version 17.
const JVM: [&str; 12] = [
    "--add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED",
    "--add-opens=java.base/java.io=ALL-UNNAMED",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "--add-opens=java.base/java.lang.invoke=ALL-UNNAMED",
    "--add-opens=java.base/java.lang.reflect=ALL-UNNAMED",
    "--add-opens=java.base/java.net=ALL-UNNAMED",
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/java.text=ALL-UNNAMED",
    "--add-opens=java.base/java.time=ALL-UNNAMED",
    "--add-opens=java.base/java.util=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent.atomic=ALL-UNNAMED",
];

/// Starts the processes.
pub fn start(place: &Place, scenario: Scenario, tuning: Tuning) -> Result<Box<dyn Running>> {
    let libraries = place.flink.clone().ok_or("no Flink: --flink is what `scripts/fetch-flink.sh` prints")?;
    let directory = place.directory.path().to_owned();
    let (rpc, rest) = (free_port(), free_port());
    fs::create_dir_all(directory.join("conf"))?;
    fs::write(directory.join("conf/config.yaml"), configuration(&directory, scenario, tuning, rpc, rest))?;
    fs::write(directory.join("conf/log4j.properties"), LOGGING)?;
    let mut job = Job {
        launcher: Launcher { libraries, directory },
        jobmanager: None,
        taskmanagers: BTreeMap::new(),
        started: 0,
        victim: None,
        killed: None,
        rest: RestClient::new(),
        address: format!("127.0.0.1:{rest}"),
        scenario,
    };
    job.jobmanager = Some(job.launcher.jobmanager(place, scenario)?);
    for _ in 0..PARALLELISM + usize::from(scenario.victim == Victim::TaskManager) {
        job.add(None)?;
    }
    Ok(Box::new(job))
}

const LOGGING: &str = "rootLogger.level = INFO
rootLogger.appenderRef.console.ref = Console
appender.console.name = Console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss.SSS} %-5p %c{1} - %m%n
";

fn configuration(directory: &Path, scenario: Scenario, tuning: Tuning, rpc: u16, rest: u16) -> String {
    let directory = directory.display();
    let mut settings = vec![
        ("jobmanager.rpc.address", "127.0.0.1".to_owned()),
        ("jobmanager.rpc.port", rpc.to_string()),
        ("jobmanager.bind-host", "127.0.0.1".to_owned()),
        ("rest.address", "127.0.0.1".to_owned()),
        ("rest.port", rest.to_string()),
        ("rest.bind-address", "127.0.0.1".to_owned()),
        ("taskmanager.host", "127.0.0.1".to_owned()),
        ("taskmanager.bind-host", "127.0.0.1".to_owned()),
        ("taskmanager.numberOfTaskSlots", "1".to_owned()),
        ("parallelism.default", PARALLELISM.to_string()),
        // What the scripts would work out of the process's size.
        ("taskmanager.cpu.cores", "1".to_owned()),
        ("taskmanager.memory.framework.heap.size", "128m".to_owned()),
        ("taskmanager.memory.framework.off-heap.size", "128m".to_owned()),
        ("taskmanager.memory.jvm-metaspace.size", "256m".to_owned()),
        ("taskmanager.memory.jvm-overhead.min", "192m".to_owned()),
        ("taskmanager.memory.jvm-overhead.max", "192m".to_owned()),
        ("taskmanager.memory.task.heap.size", "1g".to_owned()),
        ("taskmanager.memory.task.off-heap.size", "128m".to_owned()),
        ("taskmanager.memory.managed.size", "512m".to_owned()),
        ("taskmanager.memory.network.min", "128m".to_owned()),
        ("taskmanager.memory.network.max", "128m".to_owned()),
        ("jobmanager.memory.process.size", "1g".to_owned()),
        ("io.tmp.dirs", format!("{directory}/tmp")),
        ("state.backend.type", if scenario.rocksdb { "rocksdb" } else { "hashmap" }.to_owned()),
        ("execution.checkpointing.dir", format!("file://{directory}/checkpoints")),
        ("execution.checkpointing.storage", "filesystem".to_owned()),
        ("execution.checkpointing.interval", "1s".to_owned()),
        ("execution.checkpointing.incremental", scenario.rocksdb.to_string()),
    ];
    match tuning {
        // Each kill is a first one: without this the delay would grow with every kill of a run.
        Tuning::Defaults => {
            settings.push(("restart-strategy.exponential-delay.reset-backoff-threshold", "1s".to_owned()));
        }
        Tuning::Tuned => settings.extend([
            ("execution.state-recovery.from-local", "true".to_owned()),
            ("heartbeat.interval", "1000".to_owned()),
            ("heartbeat.timeout", "3000".to_owned()),
            ("restart-strategy.type", "fixed-delay".to_owned()),
            ("restart-strategy.fixed-delay.attempts", "1000000".to_owned()),
            ("restart-strategy.fixed-delay.delay", "100ms".to_owned()),
        ]),
    }
    settings.iter().map(|(key, value)| format!("{key}: {value}\n")).collect()
}

/// Starts processes.
struct Launcher {
    libraries: PathBuf,
    directory: PathBuf,
}

impl Launcher {
    fn jobmanager(&self, place: &Place, scenario: Scenario) -> Result<ManagedProcess> {
        let mut command =
            self.java("512m", "org.apache.flink.container.entrypoint.StandaloneApplicationClusterEntryPoint");
        command
            .args(["--job-classname", "millrace.bench.Recovery"])
            .args(["--kafka", &place.kafka.bootstrap(), "--input", &place.input, "--output", &place.output])
            .args(["--payload", &scenario.payload.to_string(), "--sample", &SAMPLE.to_string()]);
        Ok(ManagedProcess::spawn("jobmanager", &command, &self.directory)?)
    }

    fn taskmanager(&self, number: usize, local: &Path) -> Result<ManagedProcess> {
        let mut command = self.java("1280m", "org.apache.flink.runtime.taskexecutor.TaskManagerRunner");
        command.arg(format!("-Dtaskmanager.resource-id={}", name(number)));
        command.arg(format!("-Dprocess.taskmanager.working-dir={}", local.display()));
        Ok(ManagedProcess::spawn(&name(number), &command, &self.directory)?)
    }

    fn java(&self, heap: &str, class: &str) -> Command {
        let java = match env::var_os("JAVA_HOME") {
            Some(home) => Path::new(&home).join("bin/java"),
            None => "java".into(),
        };
        let conf = self.directory.join("conf");
        let mut command = Command::new(java);
        command
            .args([format!("-Xms{heap}"), format!("-Xmx{heap}"), "-XX:-UsePerfData".to_owned()])
            .args(JVM)
            .arg(format!("-Dlog4j.configurationFile={}", conf.join("log4j.properties").display()))
            .arg("-cp")
            .arg(self.libraries.join("lib/*"))
            .arg(class)
            .arg("--configDir")
            .arg(conf)
            .current_dir(&self.directory);
        command
    }
}

fn name(number: usize) -> String {
    format!("taskmanager-{number}")
}

struct Job {
    launcher: Launcher,
    jobmanager: Option<ManagedProcess>,
    taskmanagers: BTreeMap<String, (ManagedProcess, PathBuf)>,
    started: usize,
    /// Who is killed next.
    victim: Option<String>,
    /// The local directory of the one that was killed last.
    killed: Option<PathBuf>,
    rest: RestClient,
    address: String,
    scenario: Scenario,
}

impl Job {
    /// Starts a taskmanager, on this local directory or on one of its own.
    fn add(&mut self, local: Option<PathBuf>) -> Result<()> {
        let number = self.started;
        self.started += 1;
        let local = local.unwrap_or_else(|| self.launcher.directory.join(format!("local-{number}")));
        let process = self.launcher.taskmanager(number, &local)?;
        self.taskmanagers.insert(name(number), (process, local));
        Ok(())
    }

    fn get(&self, path: &str) -> Result<Value> {
        Ok(self.rest.get(&self.address, path)?)
    }

    fn job(&self) -> Result<String> {
        let overview = self.get("/jobs/overview")?;
        Ok(overview["jobs"][0]["jid"].as_str().ok_or("there is no job yet")?.to_owned())
    }

    /// The job, and the subtasks of all vertices.
    fn state(&self) -> Result<(Value, Vec<Value>)> {
        let id = self.job()?;
        let job = self.get(&format!("/jobs/{id}"))?;
        let mut subtasks = Vec::new();
        for vertex in job["vertices"].as_array().into_iter().flatten() {
            let vertex = vertex["id"].as_str().ok_or("a vertex without an id")?;
            let vertex = self.get(&format!("/jobs/{id}/vertices/{vertex}"))?;
            subtasks.extend(vertex["subtasks"].as_array().into_iter().flatten().cloned());
        }
        Ok((job, subtasks))
    }

    fn is_running(&self) -> bool {
        let Ok((job, subtasks)) = self.state() else { return false };
        job["state"] == "RUNNING"
            && !subtasks.is_empty()
            && subtasks.iter().all(|subtask| subtask["status"] == "RUNNING")
    }

    fn completed(&self) -> Result<i64> {
        let id = self.job()?;
        let checkpoints = self.get(&format!("/jobs/{id}/checkpoints"))?;
        Ok(checkpoints["latest"]["completed"]["id"].as_i64().unwrap_or(0))
    }

    fn wait(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) -> Result<()> {
        wait(what, || {
            if self.jobmanager.as_mut().is_none_or(|process| !process.is_alive()) {
                return Err("Flink's jobmanager has ended".into());
            }
            Ok(condition(self))
        })
        .map_err(|error| format!("{error}\n{}", self.tail()).into())
    }

    fn tail(&self) -> String {
        let output = self.jobmanager.as_ref().map(|process| process.stdout() + &process.stderr()).unwrap_or_default();
        let lines: Vec<_> = output.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Running for Job {
    fn settle(&mut self) -> Result<()> {
        let slots = (PARALLELISM + usize::from(self.scenario.victim == Victim::TaskManager)) as u64;
        self.wait("running job", |job| {
            job.is_running() && job.get("/overview").is_ok_and(|overview| overview["slots-total"] == slots)
        })?;
        let newest = self.completed()?;
        self.wait("new checkpoint", |job| job.completed().is_ok_and(|completed| completed > newest))
    }

    fn aim(&mut self) -> Result<()> {
        let (_, subtasks) = self.state()?;
        let victim = subtasks.iter().find_map(|subtask| subtask["taskmanager-id"].as_str());
        self.victim = victim.map(str::to_owned);
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        let victim = self.victim.take().ok_or("no taskmanager has tasks")?;
        let (mut process, local) = self.taskmanagers.remove(&victim).ok_or("a taskmanager that nobody started")?;
        process.signal(Signal::KILL)?;
        process.kill()?;
        self.killed = Some(local);
        Ok(())
    }

    fn wait_until_recovered(&mut self, killed_ms: u64) -> Result<()> {
        self.wait("recovery", |job| {
            let restarted = job.state().is_ok_and(|(job, _)| time(&job["timestamps"]["RESTARTING"]) >= killed_ms);
            restarted && job.is_running()
        })
    }

    fn phases(&mut self, killed_ms: u64) -> Result<Vec<(String, u64)>> {
        let (job, subtasks) = self.state()?;
        let noticed = time(&job["timestamps"]["RESTARTING"]);
        let restarted = time(&job["timestamps"]["RUNNING"]);
        // Of subtasks that do the same side by side, the slowest counts.
        let longest = |states: &[&str]| {
            let of = |subtask: &Value| states.iter().map(|state| time(&subtask["status-duration"][state])).sum::<u64>();
            subtasks.iter().map(of).max().unwrap_or(0)
        };
        let phases = [
            ("until noticed", noticed.saturating_sub(killed_ms)),
            ("cancel and restart delay", restarted.saturating_sub(noticed)),
            ("schedule", longest(&["CREATED", "SCHEDULED"])),
            ("deploy", longest(&["DEPLOYING"])),
            ("restore", longest(&["INITIALIZING"])),
        ];
        Ok(phases.map(|(name, took)| (name.to_owned(), took)).into())
    }

    fn fetched_bytes(&mut self) -> Result<u64> {
        Err("Flink does not tell what it fetched".into())
    }

    fn replace(&mut self) -> Result<()> {
        let local = self.killed.take().filter(|_| self.scenario.victim == Victim::TaskManagerThatComesBack);
        self.add(local)
    }
}

fn time(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}
