//! `millrace run`: a jobmanager and taskmanagers as processes, followed to the job's end.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use millrace_core::{Error, Result, ids::JobId, rest::JobStatus};
use millrace_worker::{
    announce::{Announcement, JobEnd},
    config::{Configuration, Role, options, variable_name},
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    args::Run,
    client::Client,
    context::{Context, ProcessNote, absolute, add_overrides},
    follow::{End, follow},
    log_files::tail,
    processes::{Fleet, Launch, Started, find_program},
    screen::Screen,
};

/// How often the jobmanager's announcement is looked for.
const LOOK: Duration = Duration::from_millis(20);
/// How many lines of a log are shown with an error.
const LOG_LINES: usize = 20;

/// Exit code of a job that was cancelled.
const CANCELED: u8 = 3;
/// Exit code after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

/// Ctrl-C and SIGTERM.
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|error| Error::internal(format!("signal handler: {error}")));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// The next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Runs a job; the exit code tells its result.
pub async fn run(command: Run) -> Result<u8> {
    let mut context = Context::new(&command.common)?;
    let program = find_program(&command.program, std::env::var_os("PATH").as_deref())?;
    context.sweep()?;
    let job = prepare(&mut context, &command)?;
    let launch = Launch {
        program,
        args: command.args.clone(),
        working_directory: absolute(Path::new("."))?,
        variables: context.variables.clone(),
        log_dir: log_directory(&context.config, command.log_dir.as_deref())?,
    };
    let mut screen = Screen::new();
    let mut interrupts = Interrupts::new()?;
    let mut jobmanager = start(&context, job, &launch, Role::JobManager)?;
    let announcement = tokio::select! {
        announced = announced(&context, job, &mut jobmanager) => announced?,
        () = interrupts.next() => {
            jobmanager.kill();
            return Ok(INTERRUPTED);
        }
    };
    let taskmanagers = start_taskmanagers(&context, &announcement, &launch, command.taskmanagers)?;
    tell_started(&mut screen, &announcement, &jobmanager, &taskmanagers, &launch.log_dir);
    if command.detached {
        println!("{job}");
        return Ok(0);
    }
    let client = Client::new(&announcement.rest_address, job)?;
    let mut fleet = Fleet::watch(taskmanagers);
    let end = follow(client, &mut jobmanager, &mut fleet, &mut interrupts, &mut screen).await?;
    fleet.end(matches!(end, End::Killed)).await;
    tell_result(&context, job, &end, &jobmanager.log, &mut screen)
}

/// Decides the job's id and what its processes have to know, and makes sure that it does not run already.
fn prepare(context: &mut Context, command: &Run) -> Result<JobId> {
    let settings = context.config.settings()?;
    let job = settings.job_id.unwrap_or_else(|| JobId(uuid::Uuid::new_v4().as_u128()));
    if let Some(other) = Announcement::read(&context.directory, job)?.filter(Announcement::is_alive) {
        return Err(Error::invalid(format!("job {job} ({}) runs already, in process {}", other.name, other.pid)));
    }
    // An announcement of an earlier run must not be taken for the new one.
    Announcement::remove(&context.directory, job)?;
    let mut explicit = vec![
        (options::JOB_ID.key.to_string(), job.to_string()),
        (options::CLUSTER_DIRECTORY.key.to_string(), context.directory.display().to_string()),
    ];
    explicit.extend(command.slots.map(|slots| (options::TASK_SLOTS.key.to_string(), slots.to_string())));
    let from = command.from_checkpoint.iter();
    explicit.extend(from.map(|path| (options::RESTORE_PATH.key.to_string(), path.clone())));
    add_overrides(&mut context.variables, &explicit)?;
    // Several jobs run on one machine: any free port does, unless somebody chose one.
    for option in [&options::RPC_PORT, &options::REST_PORT] {
        if !context.config.is_set(option) {
            context.variables.insert(variable_name(option.key), "0".to_string());
        }
    }
    context.config = Configuration::from_variables(context.variables.clone())?;
    Ok(job)
}

fn log_directory(config: &Configuration, chosen: Option<&Path>) -> Result<PathBuf> {
    if let Some(directory) = chosen.map(Path::to_path_buf).or(config.settings()?.log_directory) {
        return absolute(&directory);
    }
    let state = std::env::var_os("XDG_STATE_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || std::env::home_dir().map(|home| home.join(".local/state"));
    let state = state.or_else(home).unwrap_or_else(std::env::temp_dir);
    absolute(&state.join("millrace/log"))
}

fn start(context: &Context, job: JobId, launch: &Launch, role: Role) -> Result<Started> {
    let started = launch.start(role)?;
    let note = ProcessNote { role: role.to_string(), index: started.index, pid: started.pid, log: started.log.clone() };
    context.note(job, &note)?;
    Ok(started)
}

/// Waits until the jobmanager has announced itself.
async fn announced(context: &Context, job: JobId, jobmanager: &mut Started) -> Result<Announcement> {
    loop {
        if let Some(announcement) = Announcement::read(&context.directory, job)? {
            return Ok(announcement);
        }
        let status = tokio::select! {
            status = jobmanager.wait() => status?,
            () = tokio::time::sleep(LOOK) => continue,
        };
        // It may have announced itself since it was last looked for.
        if let Some(announcement) = Announcement::read(&context.directory, job)? {
            return Ok(announcement);
        }
        let why = if status.success() {
            "without executing a job: does the program call `execute`?".to_string()
        } else {
            format!("before its job began ({status})")
        };
        let log = jobmanager.log.display();
        return Err(Error::invalid(format!(
            "the program ended {why}; its log {log}:{}",
            tail(&jobmanager.log, LOG_LINES)
        )));
    }
}

/// Starts taskmanagers of a job that was announced.
pub fn start_taskmanagers(
    context: &Context,
    announcement: &Announcement,
    launch: &Launch,
    count: u32,
) -> Result<Vec<Started>> {
    let address = &announcement.rpc_address;
    let (host, port) = address
        .rsplit_once(':')
        .ok_or_else(|| Error::internal(format!("job {} announced the address {address:?}", announcement.job_id)))?;
    let mut launch = launch.clone();
    let explicit = [(&options::RPC_ADDRESS, host), (&options::RPC_PORT, port)];
    let explicit = explicit.map(|(option, value)| (option.key.to_string(), value.to_string()));
    add_overrides(&mut launch.variables, &explicit)?;
    (0..count).map(|_| start(context, announcement.job_id, &launch, Role::TaskManager)).collect()
}

fn tell_started(
    screen: &mut Screen,
    announcement: &Announcement,
    jobmanager: &Started,
    taskmanagers: &[Started],
    log_dir: &Path,
) {
    let Announcement { name, job_id, rest_address, .. } = announcement;
    screen.message(&format!("job {name} {job_id} on http://{rest_address}, logs in {}", log_dir.display()));
    let pids = |processes: &[Started]| {
        let each: Vec<_> = processes.iter().map(|process| format!("{} (pid {})", process.index, process.pid)).collect();
        if each.is_empty() { "none".to_string() } else { each.join(", ") }
    };
    let jobmanager = std::slice::from_ref(jobmanager);
    screen.message(&format!("jobmanager {}, taskmanagers {}", pids(jobmanager), pids(taskmanagers)));
}

/// Tells how the job ended; the exit code.
fn tell_result(context: &Context, job: JobId, end: &End, log: &Path, screen: &mut Screen) -> Result<u8> {
    let noted = Announcement::read(&context.directory, job)?.and_then(|announcement| announcement.end);
    let (text, code) = result(noted.as_ref(), end);
    let show_log = noted.is_none() && code == 1;
    let lines = if show_log { format!("; its log {}:{}", log.display(), tail(log, LOG_LINES)) } else { String::new() };
    screen.message(&format!("{text}{lines}"));
    Ok(code)
}

fn result(noted: Option<&JobEnd>, end: &End) -> (String, u8) {
    let kept = noted.and_then(|end| end.retained_checkpoint.as_deref());
    let kept = kept.map(|path| format!("; checkpoint kept at {path}")).unwrap_or_default();
    let (text, code) = match (noted.map(|noted| noted.state), end) {
        (Some(JobStatus::Canceled), End::Exited { interrupted: true, .. }) => {
            ("job cancelled".to_string(), INTERRUPTED)
        }
        (Some(JobStatus::Canceled), _) => ("job cancelled".to_string(), CANCELED),
        (Some(JobStatus::Finished), _) => ("job finished".to_string(), 0),
        (Some(JobStatus::Failed), _) => {
            let why = noted.and_then(|end| end.error.as_deref()).unwrap_or("no reason was noted");
            (format!("job failed: {why}"), 1)
        }
        (_, End::Killed) => ("the job's processes were killed".to_string(), INTERRUPTED),
        (Some(state), End::Exited { status, .. }) => {
            let why = noted.and_then(|end| end.error.clone()).unwrap_or_else(|| format!("{state} ({status})"));
            (format!("the jobmanager gave the job up: {why}"), 1)
        }
        (None, End::Exited { status, .. }) => (format!("the jobmanager ended before the job did ({status})"), 1),
    };
    (text + &kept, code)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn noted(state: JobStatus, error: Option<&str>, kept: Option<&str>) -> JobEnd {
        JobEnd { state, error: error.map(str::to_string), retained_checkpoint: kept.map(str::to_string) }
    }

    #[test]
    fn the_exit_code_is_the_jobs_result() {
        let exited = |interrupted| End::Exited { status: std::process::ExitStatus::from_raw(0), interrupted };
        let killed = End::Exited { status: std::process::ExitStatus::from_raw(9), interrupted: false };
        let finished = noted(JobStatus::Finished, None, Some("file:///c/chk-3"));
        let canceled = noted(JobStatus::Canceled, None, None);
        let failed = noted(JobStatus::Failed, Some("map 2 panicked: x"), None);
        let refused = noted(JobStatus::Suspended, Some("checkpoint storage s3://b: the bucket does not exist"), None);
        let given_up = "the jobmanager gave the job up: checkpoint storage s3://b: the bucket does not exist";
        for (noted, end, text, code) in [
            (Some(&refused), exited(false), given_up, 1),
            (Some(&finished), exited(false), "job finished; checkpoint kept at file:///c/chk-3", 0),
            (Some(&canceled), exited(false), "job cancelled", 3),
            (Some(&canceled), exited(true), "job cancelled", 130),
            (Some(&failed), exited(false), "job failed: map 2 panicked: x", 1),
            (None, killed, "the jobmanager ended before the job did (signal: 9 (SIGKILL))", 1),
            (None, End::Killed, "the job's processes were killed", 130),
        ] {
            assert_eq!(result(noted, &end), (text.to_string(), code));
        }
    }
}
