//! What a job writes.

use std::time::{Duration, Instant};

use millrace_testkit::services::kafka::{Follower, Isolation};
use millrace_tests::process::printed;

use super::{Counts, Place, Seen, Verdict};
use crate::{Result, ensure, job::Job, wait};

/// How long a look at the topic may wait for a record.
const LOOK: Duration = Duration::from_millis(50);

/// Follows the topic that a counting job writes to.
pub struct Outputs {
    follower: Follower,
    /// What was read so far.
    pub seen: Seen,
}

impl Outputs {
    /// At the beginning of the place's output.
    pub fn follow(place: &Place) -> Result<Self> {
        Self::follow_topic(place, &place.output)
    }

    /// At the beginning of another topic.
    pub fn follow_topic(place: &Place, topic: &str) -> Result<Self> {
        let follower = place.kafka.follow(topic, Isolation::ReadUncommitted)?;
        Ok(Self { follower, seen: Seen::default() })
    }

    /// Takes in what was written since the last call.
    pub fn read_on(&mut self) -> Result<()> {
        for message in self.follower.read_on(LOOK)? {
            for line in printed::lines(&format!("{}\n", message.text())) {
                ensure!(line.count > 0, "a count of {} in {}", line.count, message.text());
                self.seen.add(line.record, line.count);
            }
        }
        Ok(())
    }

    /// Waits until each of these records has come with a number above this one.
    pub async fn wait_until_past(&mut self, job: &Job<'_>, counts: &Counts) -> Result<()> {
        let past = async || {
            self.read_on()?;
            Ok(self.seen.moved_past(counts).then_some(()))
        };
        wait::until("counts of what was written just now", wait::PATIENCE, past, async || job.describe().await).await
    }

    /// Waits until as many records are counted as were written, and for a checkpoint behind them: whatever else the job
    /// has read is written before it completes. Then compares. Where records are missing for too long, that is what the
    /// comparison says.
    pub async fn compare_all(&mut self, job: &Job<'_>, written: &Counts) -> Result<Verdict> {
        let (total, end) = (written.values().sum::<u64>(), Instant::now() + wait::PATIENCE);
        while self.seen.highest().values().sum::<u64>() < total && Instant::now() < end {
            self.read_on()?;
        }
        job.wait_for_new_checkpoint().await?;
        self.read_on()?;
        Ok(self.seen.compare(written))
    }

    /// The same, and everything must be right.
    pub async fn expect_all(&mut self, job: &Job<'_>, written: &Counts) -> Result<()> {
        let verdict = self.compare_all(job, written).await?;
        ensure!(
            verdict == Verdict::default(),
            "{verdict:?}\nwritten {written:?}\ncounted {:?}\n{}",
            self.seen.highest(),
            job.describe().await
        );
        Ok(())
    }
}
