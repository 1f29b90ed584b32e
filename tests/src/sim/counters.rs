//! What happened in the schedules of a run: proof that the simulation went where it has to go.

use std::{collections::BTreeMap, fmt};

/// Something that a schedule can run into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Seen {
    /// A schedule with at least three tasks, two completed checkpoints and a crash.
    FullSchedule,
    /// A checkpoint was announced.
    Announced,
    /// The tasks were started from a checkpoint.
    Restored,
    /// A new jobmanager adopted tasks that ran.
    Adopted,
    /// One refused to.
    AdoptionRefused,
    /// Regions were started again while others ran on.
    RegionRestarted,
    /// Another was lost before they were, and more ran on still.
    RegionExtended,
    /// The log was told that the whole job starts again.
    Marked,
    /// A jobmanager failed, and the next one adopted tasks of several attempts.
    AdoptedAfterRegion,
    /// One was told of tasks that had been started again without them.
    ZombieReported,
    /// A task died.
    TaskCrash,
    /// A jobmanager died.
    JobManagerCrash,
    /// A jobmanager died after its metadata was created and before the log entry was.
    CrashBetweenMetadataAndLog,
    /// A jobmanager died after its log entry was created and before the checkpoint was announced.
    CrashBetweenCreateAndAnnounce,
    /// A jobmanager died after it announced a checkpoint and before it deleted older ones.
    CrashBetweenAnnounceAndDelete,
    /// A jobmanager died while it took over.
    CrashWhileTakingOver,
    /// A jobmanager that had been replaced while it stood still went on.
    ZombieWoke,
    /// A create of a jobmanager reached the log after a newer generation had.
    StaleCreate,
    /// One of them found its place empty, because a newer generation had trimmed the log.
    StaleCreateInGap,
    /// A jobmanager stopped because of a newer generation.
    Fenced,
    /// A request was carried out and its answer never came.
    LostAnswer,
    /// A request was carried out after its sender had given up waiting.
    LateRequest,
    /// The store answered that something exists that does not (S3's 409).
    FalseConflict,
    /// Metadata of another jobmanager was in the way.
    MetadataConflict,
    /// A completed checkpoint abandoned an older one.
    Superseded,
    /// A checkpoint expired or was declined.
    FailedCheckpoint,
    /// A message between jobmanager and tasks was lost.
    LostMessage,
    /// One arrived twice.
    DuplicatedMessage,
    /// One arrived before another that was sent earlier to the same receiver.
    ReorderedMessage,
    /// A task's answer reached a jobmanager of another generation.
    MisdirectedAnswer,
    /// Tasks stopped while a checkpoint was being completed.
    RestartWaitedForCommit,
    /// Void entries were deleted from the log.
    Trimmed,
    /// A completed checkpoint was deleted.
    Deleted,
    /// Barriers overtook records.
    Overtook,
    /// Records that were in flight were restored.
    RestoredInFlight,
    /// At least once: a restored state counted records that are read again.
    CountedAgain,
}

/// What every run has to see a thousand times.
pub const REQUIRED: [Seen; 18] = [
    Seen::FullSchedule,
    Seen::Restored,
    Seen::Adopted,
    Seen::AdoptionRefused,
    Seen::Marked,
    Seen::TaskCrash,
    Seen::JobManagerCrash,
    Seen::CrashBetweenMetadataAndLog,
    Seen::CrashBetweenCreateAndAnnounce,
    Seen::ZombieWoke,
    Seen::StaleCreate,
    Seen::LostAnswer,
    Seen::Superseded,
    Seen::LostMessage,
    Seen::DuplicatedMessage,
    Seen::ReorderedMessage,
    Seen::Overtook,
    Seen::RestoredInFlight,
];

/// What it has to see a hundred times: it takes a job of several regions and several faults that follow each other.
pub const REQUIRED_OF_REGIONS: [Seen; 4] =
    [Seen::RegionRestarted, Seen::RegionExtended, Seen::AdoptedAfterRegion, Seen::ZombieReported];

/// How often each was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<Seen, u64>);

impl Counters {
    /// Counts one.
    pub fn saw(&mut self, seen: Seen) {
        *self.0.entry(seen).or_default() += 1;
    }

    /// How often something was seen.
    pub fn get(&self, seen: Seen) -> u64 {
        self.0.get(&seen).copied().unwrap_or(0)
    }

    /// Adds another schedule's counts.
    pub fn add(&mut self, other: &Self) {
        for (seen, count) in &other.0 {
            *self.0.entry(*seen).or_default() += count;
        }
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(seen, count)| writeln!(f, "{count:>10}  {seen:?}"))
    }
}
