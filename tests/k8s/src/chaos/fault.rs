//! The faults, and a seeded order of them.

use std::fmt;

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

/// Whether a deleted pod's processes are given time to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grace {
    /// As long as the pod says: SIGTERM comes first.
    Given,
    /// None: SIGKILL.
    None,
}

impl Grace {
    /// The grace period of a deletion; none: the pod's own.
    pub fn seconds(self) -> Option<u32> {
        match self {
            Self::Given => None,
            Self::None => Some(0),
        }
    }
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A taskmanager's pod is deleted.
    TaskManager(Grace),
    /// All of them are.
    AllTaskManagers(Grace),
    /// The jobmanager's pod is deleted.
    JobManager(Grace),
    /// Jobmanager and a taskmanager are deleted together.
    JobManagerAndTaskManager(Grace),
    /// The operator's pods are deleted.
    Operator(Grace),
    /// A taskmanager's process is killed in its pod.
    TaskManagerProcess,
    /// The jobmanager's process is killed in its pod.
    JobManagerProcess,
    /// MinIO is away for longer than a checkpoint may take.
    Minio,
    /// Kafka is.
    Kafka,
    /// A taskmanager is cut off from the job, is replaced, and comes back.
    Zombie,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::TaskManager(Grace::Given),
        Self::TaskManager(Grace::None),
        Self::AllTaskManagers(Grace::Given),
        Self::AllTaskManagers(Grace::None),
        Self::JobManager(Grace::Given),
        Self::JobManager(Grace::None),
        Self::JobManagerAndTaskManager(Grace::Given),
        Self::JobManagerAndTaskManager(Grace::None),
        Self::Operator(Grace::Given),
        Self::Operator(Grace::None),
        Self::TaskManagerProcess,
        Self::JobManagerProcess,
        Self::Minio,
        Self::Kafka,
        Self::Zombie,
    ];

    /// Whether it takes more than the Kubernetes API: the node itself.
    pub fn needs_node(self) -> bool {
        matches!(self, Self::TaskManagerProcess | Self::JobManagerProcess | Self::Zombie)
    }

    /// Whether the job does not notice it.
    pub fn spares_the_job(self) -> bool {
        matches!(self, Self::Operator(_))
    }

    /// Whether the jobmanager is hit.
    pub fn hits_jobmanager(self) -> bool {
        matches!(self, Self::JobManager(_) | Self::JobManagerAndTaskManager(_) | Self::JobManagerProcess)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, grace) = match self {
            Self::TaskManager(grace) => ("taskmanager pod deleted", Some(grace)),
            Self::AllTaskManagers(grace) => ("all taskmanager pods deleted", Some(grace)),
            Self::JobManager(grace) => ("jobmanager pod deleted", Some(grace)),
            Self::JobManagerAndTaskManager(grace) => ("jobmanager and taskmanager deleted", Some(grace)),
            Self::Operator(grace) => ("operator pod deleted", Some(grace)),
            Self::TaskManagerProcess => ("taskmanager process killed", None),
            Self::JobManagerProcess => ("jobmanager process killed", None),
            Self::Minio => ("MinIO away", None),
            Self::Kafka => ("Kafka away", None),
            Self::Zombie => ("taskmanager cut off, then back", None),
        };
        f.write_str(what)?;
        match grace {
            Some(Grace::None) => f.write_str(", no grace"),
            _ => Ok(()),
        }
    }
}

/// So many of these faults, in an order that the seed decides: all kinds come before one comes again.
pub fn schedule(kinds: &[Fault], count: usize, seed: u64) -> Vec<Fault> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut faults = Vec::with_capacity(count);
    while faults.len() < count && !kinds.is_empty() {
        let mut round = kinds.to_vec();
        round.shuffle(&mut rng);
        round.truncate(count - faults.len());
        faults.append(&mut round);
    }
    faults
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_is_an_order_with_all_kinds() {
        let kinds = Fault::ALL.len();
        let first = schedule(&Fault::ALL, 2 * kinds + 3, 7);
        assert_eq!(first, schedule(&Fault::ALL, 2 * kinds + 3, 7));
        assert_ne!(first, schedule(&Fault::ALL, 2 * kinds + 3, 8));
        assert_eq!(first.len(), 2 * kinds + 3);
        for round in first.chunks_exact(kinds) {
            assert_eq!(round.iter().collect::<BTreeSet<_>>().len(), kinds, "{round:?}");
        }
    }

    #[test]
    fn kinds_have_names_of_their_own() {
        let names: BTreeSet<_> = Fault::ALL.iter().map(Fault::to_string).collect();
        assert_eq!(names.len(), Fault::ALL.len());
    }
}
