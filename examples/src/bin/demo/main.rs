//! The main job, shown to a newcomer in a minute: a job counts records, the process that holds the counter is killed,
//! and the result is checked against what was written. `make run` starts it.

mod check;
mod input;
mod job;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;

use check::{Printed, Verdict};
use input::Input;
use job::Job;

/// Any error ends the demonstration with its text.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Counts records, kills the process that counts, and checks that none was lost and none counted twice.
#[derive(Debug, Parser)]
struct Arguments {
    /// A Kafka broker to read from, instead of a directory of files.
    #[arg(long, value_name = "HOST:PORT", requires = "topic")]
    kafka: Option<String>,
    /// The topic to write to and to read from; made if it does not exist.
    #[arg(long, requires = "kafka")]
    topic: Option<String>,
}

/// How long anything may take before the demonstration gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Records that are written before the kill and after the recovery, at least.
const RECORDS_EACH: u64 = 500;

fn main() -> ExitCode {
    match demonstrate(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn demonstrate(arguments: &Arguments) -> Result<bool> {
    let directory = tempfile::Builder::new().prefix("millrace-demo-").tempdir()?;
    let input = Input::prepare(arguments.kafka.as_deref().zip(arguments.topic.as_deref()), directory.path())?;

    say("1. Starting a job as processes: a jobmanager and two taskmanagers. It counts the records that it reads and");
    say("   prints each with its number; a checkpoint of the counter is taken every second.");
    let job = Job::start(&input, directory.path())?;
    say(&format!("   Job {}, {}.", job.id, job.rest));

    wait("the first checkpoint", || Ok((job.completed_checkpoints()? > 0).then_some(())))?;
    say(&format!("2. Writing records to {} without a pause from now on.", input.place()));
    let writing = input.write();
    let printed = || Printed::read(&job.logs);
    wait("the first records to be counted", || Ok((printed()?.records() >= RECORDS_EACH).then_some(())))?;

    // The newest records must be newer than the newest checkpoint: wait for one, and then for more records.
    let checkpoints = job.completed_checkpoints()?;
    wait("a checkpoint", || Ok((job.completed_checkpoints()? > checkpoints).then_some(())))?;
    let covered = printed()?.records();
    wait("records after it", || Ok((printed()?.records() > covered + 50).then_some(())))?;

    let victim = job.taskmanager_with_the_counter()?;
    let killed_at = Instant::now();
    job.kill(victim)?;
    wait("the process to be gone", || Ok(job::is_gone(victim).then_some(())))?;
    let before = printed()?;
    say(&format!(
        "3. Killed process {victim} (SIGKILL), the taskmanager that held the counter, at record {}.",
        before.highest_count()
    ));
    let recovered = wait("output after the kill", || {
        let now = printed()?;
        Ok((now.highest_count() > before.highest_count()).then(|| killed_at.elapsed()))
    })?;
    let restarts = job.restarts()?;
    if restarts == 0 {
        return Err("the job did not restart: the kill did not hit it".into());
    }
    say(&format!(
        "   The other taskmanager took the counter from the last checkpoint and goes on {:.2} s after the kill.",
        recovered.as_secs_f64()
    ));

    let more = printed()?.records() + RECORDS_EACH;
    wait("more records", || Ok((printed()?.records() >= more).then_some(())))?;
    let written = writing.finish()?;
    wait("the last record to be counted", || Ok((printed()?.records() >= written).then_some(())))?;
    say(&format!("4. Stopped writing after {written} records. Comparing what was written with what was counted:"));
    let verdict = Verdict::of(&printed()?, written);
    job.cancel()?;

    if verdict.printed_again > 0 {
        say(&format!(
            "   {} lines were printed twice: a plain print can't be taken back, so what came after the last checkpoint",
            verdict.printed_again
        ));
        say("   is printed again, with the same numbers. The counter itself has each record once.");
    }
    println!(
        "records {written}, lost {}, counted twice {}, recovered in {:.2} s",
        verdict.lost,
        verdict.counted_twice,
        recovered.as_secs_f64()
    );
    Ok(verdict.is_exactly_once())
}

fn say(line: &str) {
    println!("{line}");
}

/// Asks again and again until there is an answer.
fn wait<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            return Err(format!("waited {PATIENCE:?} for {what} in vain").into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
