//! Following a job: its progress by REST, the end of its processes, Ctrl-C.

use std::{
    process::ExitStatus,
    sync::Arc,
    time::{Duration, Instant},
};

use millrace_core::{Error, Result, rest::JobStatus};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    client::Client,
    log_files::tail,
    processes::{Ended, Fleet, Started},
    progress::Progress,
    run::Interrupts,
    screen::Screen,
};

/// How often the jobmanager is asked.
const POLL: Duration = Duration::from_millis(500);
/// Signals this close together are one: `timeout` and the like send theirs to the process and to its group.
const SAME: Duration = Duration::from_secs(1);
/// How many lines of a taskmanager's log are shown with its failure.
const LOG_LINES: usize = 5;

/// How following a job ended.
#[derive(Debug)]
pub enum End {
    /// The jobmanager's process ended.
    Exited {
        /// How.
        status: ExitStatus,
        /// Whether the job was cancelled by Ctrl-C.
        interrupted: bool,
    },
    /// A second Ctrl-C.
    Killed,
}

/// What the poller last heard.
#[derive(Clone, Debug, Default)]
struct News {
    progress: Option<Progress>,
    failure: Option<(u64, String)>,
}

/// Follows a job until its jobmanager's process ends.
pub async fn follow(
    client: Client,
    jobmanager: &mut Started,
    fleet: &mut Fleet,
    interrupts: &mut Interrupts,
    screen: &mut Screen,
) -> Result<End> {
    let client = Arc::new(client);
    let (told, mut news) = watch::channel(News::default());
    let poller = Poller(tokio::spawn(poll(client.clone(), told)));
    let mut shown_failure = 0;
    let mut interrupted: Option<Instant> = None;
    let mut cancelling: Option<JoinHandle<Result<()>>> = None;
    let end = loop {
        tokio::select! {
            status = jobmanager.wait() => {
                break End::Exited { status: status?, interrupted: interrupted.is_some() };
            }
            ended = fleet.next_ended() => screen.message(&ended_text(&ended)),
            changed = news.changed() => {
                if changed.is_err() {
                    // The poller never ends by itself; without it only the process is left to watch.
                    break End::Exited { status: jobmanager.wait().await?, interrupted: interrupted.is_some() };
                }
                let heard = news.borrow_and_update().clone();
                if let Some((timestamp, text)) = heard.failure.filter(|(timestamp, _)| *timestamp > shown_failure) {
                    shown_failure = timestamp;
                    screen.message(&format!("failure: {text}"));
                }
                if let Some(progress) = &heard.progress {
                    screen.progress(progress);
                }
            }
            () = interrupts.next() => {
                match interrupted {
                    Some(first) if first.elapsed() < SAME => continue,
                    Some(_) => {
                        jobmanager.kill();
                        jobmanager.wait().await?;
                        break End::Killed;
                    }
                    None => interrupted = Some(Instant::now()),
                }
                screen.message("cancelling the job; once more ends its processes at once");
                let client = client.clone();
                cancelling = Some(tokio::spawn(async move { client.cancel().await }));
            }
            refused = refusal(&mut cancelling) => {
                cancelling = None;
                if let Some(error) = refused {
                    screen.message(&format!("the job cannot be cancelled: {error}"));
                }
            }
        }
    };
    drop(poller);
    screen.finish_line();
    Ok(end)
}

/// Waits for the answer to the request to cancel, if there is one; the error if it was refused.
async fn refusal(cancelling: &mut Option<JoinHandle<Result<()>>>) -> Option<Error> {
    match cancelling {
        Some(task) => task.await.ok().and_then(Result::err),
        None => std::future::pending().await,
    }
}

/// The polling task, which ends with its owner.
struct Poller(JoinHandle<()>);

impl Drop for Poller {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Asks the jobmanager again and again. One that does not answer for a while is left to the watch over its process.
async fn poll(client: Arc<Client>, told: watch::Sender<News>) {
    let mut ticks = tokio::time::interval(POLL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last: Option<(Instant, Progress)> = None;
    let mut failures = 0;
    loop {
        ticks.tick().await;
        let Ok((job, checkpoints)) = tokio::try_join!(client.details(), client.checkpoints()) else { continue };
        let now = Instant::now();
        let mut progress = Progress::new(&job, &checkpoints);
        if let Some((at, earlier)) = &last {
            progress = progress.since(earlier, now.duration_since(*at));
        }
        last = Some((now, progress.clone()));
        let mut failure = None;
        if (job.restarts > failures || job.state != JobStatus::Running)
            && let Ok(told) = client.exceptions().await
        {
            failures = job.restarts;
            failure = told.timestamp.zip(told.root_exception);
        }
        told.send_modify(|news| {
            news.progress = Some(progress);
            news.failure = failure.or(news.failure.take());
        });
    }
}

fn ended_text(ended: &Ended) -> String {
    let Ended { index, pid, status, log } = ended;
    let lines = if status.code().is_some_and(|code| code != 0) { tail(log, LOG_LINES) } else { String::new() };
    format!("taskmanager {index} (pid {pid}) ended: {status}; its log is {}{lines}", log.display())
}
