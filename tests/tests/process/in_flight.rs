//! How much waits in front of tasks that are too slow, once their channels have adapted: less than they get through in a
//! second.

use std::{fs, time::Duration};

use millrace_testkit::cluster::{ClusterSpec, JobCluster, PATIENCE, Result, program};

use crate::cancel;

const LINES: usize = 20_000;
const PARALLELISM: u64 = 2;
/// What a subtask takes for a record, and so how many it gets through at most.
const THROTTLE: Duration = Duration::from_millis(5);
/// The source has waited for so long for the counter.
const BACKPRESSURED_MS: u64 = 1000;
/// So many times in a row the bound must hold.
const LOOKS: usize = 10;

/// Records that the source has sent and the counter has not taken, as REST tells. The counts come with heartbeats, those
/// of both within one interval.
#[test]
fn less_than_a_second_of_records_waits_before_tasks_that_are_too_slow() -> Result<()> {
    let directory = tempfile::tempdir().expect("a directory can be made");
    fs::create_dir(directory.path().join("in")).expect("a directory can be made");
    for file in 0..2 {
        let lines: String = (0..LINES).map(|line| format!("key-{}\n", line % 50)).collect();
        fs::write(directory.path().join(format!("in/{file}.txt")), lines).expect("a file can be written");
    }
    let path = |name| directory.path().join(name).display().to_string();
    let spec = ClusterSpec::new(program("checkpoint_example")?)
        .args(["--files".to_owned(), path("in")])
        .args(["--key-by", "record", "--throttle-count", "5ms", "--checkpoints", "--interval", "1s"])
        .args(["--parallelism".to_owned(), PARALLELISM.to_string()])
        .args(["--checkpoint-dir".to_owned(), format!("file://{}", path("checkpoints"))])
        .set("heartbeat.interval", "100 ms")
        .taskmanagers(PARALLELISM as usize);
    let mut cluster = JobCluster::start(spec)?;
    cluster.wait_until_running()?;
    let a_second = PARALLELISM * (Duration::from_secs(1).as_micros() / THROTTLE.as_micros()) as u64;
    let (mut held, mut highest, mut before) = (Vec::new(), 0, 0);
    cluster.wait_for("channels that have adapted", PATIENCE, |cluster| {
        let Ok(state) = cluster.state() else { return (None, "no state".to_owned()) };
        let [source, counter] = [0, 1].map(|vertex| &state.job.vertices[vertex].metrics);
        let in_flight = source.write_records.saturating_sub(counter.read_records);
        highest = highest.max(in_flight);
        // Before that the channels are still filling.
        if counter.read_records > before && source.accumulated_backpressured_time > BACKPRESSURED_MS {
            before = counter.read_records;
            if in_flight > a_second { held.clear() } else { held.push(in_flight) }
        }
        ((held.len() >= LOOKS).then_some(()), format!("{in_flight} records in flight, {before} taken"))
    })?;
    let state = cluster.state()?;
    let waited = state.job.vertices[0].metrics.accumulated_backpressured_time;
    println!("in flight at most {a_second} once adapted: {held:?}, at first {highest}; the source waited {waited} ms");
    assert!(held.iter().all(|records| *records > 0), "something waits: {held:?}");
    assert!(waited > BACKPRESSURED_MS, "backpressure: {waited} ms");
    cancel(&mut cluster)
}
