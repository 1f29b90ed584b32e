//! `millrace list`, `cancel`, `stop`, `logs` and `taskmanager start`.

use std::{
    fs::File,
    io::{self, Write},
    time::Duration,
};

use millrace_core::{Error, Result, rest::JobStatus};
use millrace_worker::{
    announce::{Announcement, JobEnd},
    config::{Role, options},
};

use crate::{
    args::{Common, Logs, OneJob, TaskmanagerStart},
    client::Client,
    context::{Context, add_overrides},
    processes::Launch,
    run::start_taskmanagers,
};

/// How often it is looked whether a job has ended.
const LOOK: Duration = Duration::from_millis(100);

/// Lists the jobs of this machine.
pub async fn list(common: Common) -> Result<u8> {
    let context = Context::new(&common)?;
    let jobs = Announcement::list(&context.directory)?;
    if jobs.is_empty() {
        eprintln!("no job was started on this machine");
        return Ok(0);
    }
    let mut rows = vec![["ID", "STATE", "TASKMANAGERS", "REST", "NAME"].map(str::to_string)];
    for job in &jobs {
        let (state, taskmanagers) = describe(job).await;
        rows.push([job.job_id.to_string(), state, taskmanagers, job.rest_address.clone(), job.name.clone()]);
    }
    print(&columns(&rows))
}

/// A job's state and its number of taskmanagers.
async fn describe(job: &Announcement) -> (String, String) {
    let nothing = "-".to_string();
    if let Some(end) = &job.end {
        return (end.state.to_string(), nothing);
    }
    if !job.is_alive() {
        return ("LOST".to_string(), nothing);
    }
    let asked = async {
        let client = Client::new(&job.rest_address, job.job_id)?;
        tokio::try_join!(client.details(), client.taskmanagers())
    };
    match asked.await {
        Ok((details, all)) => (details.state.to_string(), all.taskmanagers.len().to_string()),
        Err(_) => ("UNREACHABLE".to_string(), nothing),
    }
}

/// Rows of cells as lines, each column as wide as its widest cell.
pub fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Cancels a job and waits until it has ended.
pub async fn cancel(command: OneJob) -> Result<u8> {
    let context = Context::new(&command.common)?;
    let job = running(&context, &command.job)?;
    Client::new(&job.rest_address, job.job_id)?.cancel().await?;
    told(&job, wait_for_end(&context, &job).await?.as_ref(), JobStatus::Canceled)
}

/// Stops a job with a final checkpoint and waits until it has ended.
pub async fn stop(command: OneJob) -> Result<u8> {
    let context = Context::new(&command.common)?;
    let job = running(&context, &command.job)?;
    Client::new(&job.rest_address, job.job_id)?.stop().await?;
    told(&job, wait_for_end(&context, &job).await?.as_ref(), JobStatus::Finished)
}

fn running(context: &Context, wanted: &str) -> Result<Announcement> {
    let job = context.find(wanted)?;
    match &job.end {
        Some(end) => Err(Error::invalid(format!("job {} ({}) has ended: {}", job.job_id, job.name, end.state))),
        None if !job.is_alive() => {
            Err(Error::invalid(format!("the jobmanager of job {} ({}) is gone", job.job_id, job.name)))
        }
        None => Ok(job),
    }
}

async fn wait_for_end(context: &Context, job: &Announcement) -> Result<Option<JobEnd>> {
    loop {
        let alive = job.is_alive();
        let end = Announcement::read(&context.directory, job.job_id)?.and_then(|job| job.end);
        if end.is_some() || !alive {
            return Ok(end);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn told(job: &Announcement, end: Option<&JobEnd>, meant: JobStatus) -> Result<u8> {
    let Some(end) = end else {
        return Err(Error::external(format!("the jobmanager of job {} ended without noting how", job.job_id)));
    };
    let kept = end.retained_checkpoint.as_ref().map(|path| format!("; checkpoint kept at {path}")).unwrap_or_default();
    let why = end.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    print(&format!("job {} ({}) {}{why}{kept}\n", job.job_id, job.name, end.state))?;
    Ok(u8::from(end.state != meant))
}

/// Shows a log.
pub fn logs(command: Logs) -> Result<u8> {
    let context = Context::new(&command.common)?;
    let job = context.find(&command.job)?;
    let role = if command.taskmanager.is_some() { Role::TaskManager } else { Role::JobManager };
    let processes = context.processes(job.job_id);
    let of_role = processes.iter().filter(|note| note.role == role.name());
    let meant = |index: u32| command.taskmanager.is_none_or(|wanted| wanted == index);
    let Some(note) = of_role.clone().rfind(|note| meant(note.index)) else {
        let known: Vec<_> = of_role.map(|note| note.index.to_string()).collect();
        let known = if known.is_empty() { "none".to_string() } else { known.join(", ") };
        return Err(Error::invalid(format!("job {} has no such {role}: it has {known}", job.name)));
    };
    let path = if command.out { note.log.with_extension("out") } else { note.log.clone() };
    let failed = |error: io::Error| Error::invalid(format!("{} cannot be shown: {error}", path.display()));
    let mut file = File::open(&path).map_err(failed)?;
    match io::copy(&mut file, &mut io::stdout().lock()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(failed(error)),
        _ => Ok(0),
    }
}

/// Starts one more taskmanager.
pub async fn start_taskmanager(command: TaskmanagerStart) -> Result<u8> {
    let context = Context::new(&command.common)?;
    let job = match &command.job {
        Some(wanted) => running(&context, wanted)?,
        None => context.only()?,
    };
    let mut variables = job.environment.clone();
    let mut explicit = command.common.settings.clone();
    explicit.extend(command.slots.map(|slots| (options::TASK_SLOTS.key.to_string(), slots.to_string())));
    add_overrides(&mut variables, &explicit)?;
    let mut known = context.processes(job.job_id).into_iter().map(|note| note.log);
    let log_dir = known.next_back().and_then(|log| Some(log.parent()?.to_path_buf())).or_else(|| job.log_dir.clone());
    let launch = Launch {
        program: job.program.clone(),
        args: job.args.clone(),
        working_directory: job.working_directory.clone(),
        variables,
        log_dir: log_dir.unwrap_or_else(|| context.directory.join("log")),
    };
    for started in start_taskmanagers(&context, &job, &launch, 1)? {
        let log = started.log.display();
        print(&format!("taskmanager {} (pid {}) of job {}, log {log}\n", started.index, started.pid, job.name))?;
    }
    Ok(0)
}

/// Prints results; nobody may be there to read them.
pub fn print(text: &str) -> Result<u8> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::external(format!("standard output: {error}")))
        }
        _ => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 5]| cells.map(str::to_string);
        let text = columns(&[row(["ID", "STATE", "N", "REST", "NAME"]), row(["abc", "X", "1", "h:1", "job"])]);
        assert_eq!(text, "ID   STATE  N  REST  NAME\nabc  X      1  h:1   job\n");
    }
}
