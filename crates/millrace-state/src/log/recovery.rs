//! Going back to an older checkpoint when the newest is damaged.

use millrace_core::{Error, Result, ids::CheckpointId};

use super::{entry::CheckpointRecord, view::LogView};

/// The checkpoint to restore from when those in `damaged`, the newest ones, can't be read.
///
/// Going back is automatic only where no sink has made records visible since: otherwise these records would be written
/// again, and the user has to allow that.
pub fn older_checkpoint<'a>(
    view: &'a LogView,
    damaged: &[CheckpointId],
    allow_older: bool,
) -> Result<&'a CheckpointRecord> {
    let is_damaged = |record: &&CheckpointRecord| damaged.contains(&record.id);
    let names = damaged.iter().map(|id| format!("chk-{id}")).collect::<Vec<_>>().join(", ");
    let Some(older) = view.checkpoints().rev().find(|record| !is_damaged(record)) else {
        return Err(refused(format!(
            "every retained checkpoint is damaged ({names}): bring the files back from a backup, or start a new job"
        )));
    };
    let committed = view.checkpoints().filter(|record| record.id > older.id).find(|record| record.commits);
    match committed {
        Some(newer) if !allow_older => Err(refused(format!(
            "checkpoint {names} is damaged. Checkpoint {} is whole, but sinks have committed records with checkpoint \
             {}: going back would write them a second time, and exactly once would not hold. Bring the files back \
             from a backup, or accept the duplicates with allow-older-checkpoint",
            older.id, newer.id
        ))),
        _ => Ok(older),
    }
}

/// Nothing that trying again could change.
fn refused(message: String) -> Error {
    Error::external(message).fatal()
}

#[cfg(test)]
mod tests {
    use millrace_core::ids::{Generation, JobId};

    use super::*;
    use crate::log::entry::{LogBody, LogEntry, WriterId, tests::record};

    fn view(commits: [bool; 3]) -> LogView {
        let mut view = LogView::default();
        for (index, commits) in commits.into_iter().enumerate() {
            let position = index as u64 + 1;
            view.push(LogEntry {
                job: JobId(1),
                position,
                writer: WriterId(u128::from(position)),
                generation: Generation(1),
                generation_at: 1,
                floor: 1,
                written_at_ms: 0,
                body: LogBody::Checkpoint(CheckpointRecord { commits, ..record(position) }),
            });
        }
        view
    }

    fn older(commits: [bool; 3], damaged: &[u64], allow: bool) -> Result<u64, String> {
        let damaged: Vec<_> = damaged.iter().copied().map(CheckpointId).collect();
        older_checkpoint(&view(commits), &damaged, allow).map(|record| record.id.0).map_err(|error| error.message)
    }

    #[test]
    fn going_back_is_automatic_while_nothing_was_committed() {
        assert_eq!(older([false; 3], &[3], false), Ok(2));
        assert_eq!(older([false; 3], &[3, 2], false), Ok(1));
        // A commit with the checkpoint itself is part of what it restores to.
        assert_eq!(older([false, true, false], &[3], false), Ok(2));
    }

    #[test]
    fn going_back_past_a_commit_needs_permission() {
        let error = older([false, false, true], &[3], false).unwrap_err();
        assert!(error.contains("chk-3") && error.contains("allow-older-checkpoint") && error.contains("exactly once"));
        assert!(older([false, true, false], &[3, 2], false).unwrap_err().contains("checkpoint 2"));
        assert_eq!(older([false, false, true], &[3], true), Ok(2));
    }

    #[test]
    fn nothing_is_left_when_all_are_damaged() {
        assert!(older([false; 3], &[1, 2, 3], true).unwrap_err().contains("chk-1, chk-2, chk-3"));
    }
}
