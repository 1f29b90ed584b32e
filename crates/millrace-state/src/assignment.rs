//! Which state each subtask of a new start gets out of a checkpoint, at any parallelism.

use std::collections::{BTreeMap, BTreeSet};

use millrace_core::{
    Error, Result,
    ids::OperatorUid,
    key::KeyGroupRange,
    operator_state::{OperatorListSnapshot, redistribute},
};
use serde::{Deserialize, Serialize};

use crate::{
    KeyedStateHandle, OperatorSubtaskState, SOURCE_SPLITS, StateHandle,
    metadata::{CheckpointMetadata, OperatorStateMeta},
};

/// An operator of the graph that is to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreTarget {
    /// What ties its state to it.
    pub uid: OperatorUid,
    /// Its name.
    pub name: String,
    /// How many subtasks it has now.
    pub parallelism: u32,
}

/// What a checkpoint holds for the operators of a graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestoreAssignment {
    /// For each operator that has something in the checkpoint.
    pub operators: BTreeMap<OperatorUid, OperatorAssignment>,
    /// What the graph has no operator for, and was allowed to be left behind: uid and name.
    pub non_restored: Vec<(OperatorUid, String)>,
}

/// What a checkpoint holds for one operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperatorAssignment {
    /// For each new subtask, in order.
    pub subtasks: Vec<SubtaskAssignment>,
    /// The source's splits, as each old subtask had them. The enumerator deals them out.
    pub source_splits: Vec<OperatorListSnapshot>,
}

/// What a checkpoint holds for one new subtask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubtaskAssignment {
    /// The keyed states that have some of its key groups.
    pub keyed: Vec<KeyedStateHandle>,
    /// Its operator lists.
    pub lists: Vec<OperatorListSnapshot>,
    /// What was in flight to the old subtasks of which it takes over something.
    pub in_flight: Vec<InFlightHandle>,
}

/// What was in flight to one old subtask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlightHandle {
    /// The old subtask. What has no key goes from there to the new subtask of this index, modulo the new parallelism.
    pub subtask: u32,
    /// The data.
    pub data: StateHandle,
}

/// Deals a checkpoint out to the operators of a graph.
///
/// A changed maximum parallelism is refused, since keys would fall into other groups; and so is state that no operator
/// claims, unless that is allowed.
pub fn assign(
    checkpoint: &CheckpointMetadata,
    targets: &[RestoreTarget],
    max_parallelism: u32,
    allow_non_restored: bool,
) -> Result<RestoreAssignment> {
    if checkpoint.max_parallelism != max_parallelism {
        return Err(Error::invalid(format!(
            "checkpoint {} was taken with maximum parallelism {}, and the job now has {max_parallelism}: keys would \
             not find their state. Set the maximum parallelism back to {}",
            checkpoint.checkpoint, checkpoint.max_parallelism, checkpoint.max_parallelism
        )));
    }
    let by_uid: BTreeMap<_, _> = targets.iter().map(|target| (&target.uid, target)).collect();
    let mut assignment = RestoreAssignment::default();
    for operator in &checkpoint.operators {
        match by_uid.get(&operator.uid) {
            Some(target) => {
                let dealt = assign_operator(operator, target.parallelism, max_parallelism);
                assignment.operators.insert(operator.uid.clone(), dealt);
            }
            None if has_state(operator) => {
                assignment.non_restored.push((operator.uid.clone(), operator.name.clone()));
            }
            None => {}
        }
    }
    if !assignment.non_restored.is_empty() && !allow_non_restored {
        return Err(unclaimed(checkpoint, &assignment.non_restored, targets));
    }
    Ok(assignment)
}

fn assign_operator(operator: &OperatorStateMeta, parallelism: u32, max_parallelism: u32) -> OperatorAssignment {
    let is_splits = |list: &&OperatorListSnapshot| list.name == SOURCE_SPLITS;
    let lists_of = |subtask: &OperatorSubtaskState| -> Vec<OperatorListSnapshot> {
        subtask.lists.iter().filter(|list| !is_splits(list)).cloned().collect()
    };
    let old: Vec<_> = operator.subtasks.iter().map(lists_of).collect();
    let keyed_of = |subtask: u32| {
        let range = KeyGroupRange::of_subtask(max_parallelism, parallelism, subtask);
        let all = operator.subtasks.iter().filter_map(|old| old.keyed.as_ref());
        all.filter(|keyed| keyed.range.overlaps(range)).cloned().collect()
    };
    let in_flight_of = |subtask: u32| {
        let range = KeyGroupRange::of_subtask(max_parallelism, parallelism, subtask);
        let takes_over = |old: u32| {
            let old_range = KeyGroupRange::of_subtask(max_parallelism, operator.parallelism, old);
            old_range.overlaps(range) || old % parallelism == subtask
        };
        let old = (0..).zip(&operator.subtasks).filter(|(old, _)| takes_over(*old));
        old.filter_map(|(subtask, old)| Some(InFlightHandle { subtask, data: old.in_flight.clone()? })).collect()
    };
    let subtasks = redistribute(&old, parallelism)
        .into_iter()
        .zip(0..)
        .map(|(lists, subtask)| SubtaskAssignment { keyed: keyed_of(subtask), lists, in_flight: in_flight_of(subtask) })
        .collect();
    let source_splits = operator.subtasks.iter().flat_map(|old| old.lists.iter().filter(is_splits)).cloned().collect();
    OperatorAssignment { subtasks, source_splits }
}

/// Whether leaving an operator behind would lose anything.
fn has_state(operator: &OperatorStateMeta) -> bool {
    operator.subtasks.iter().any(OperatorSubtaskState::has_state)
}

fn unclaimed(checkpoint: &CheckpointMetadata, unclaimed: &[(OperatorUid, String)], targets: &[RestoreTarget]) -> Error {
    let list = |pairs: &mut dyn Iterator<Item = (&OperatorUid, &str)>| {
        pairs.map(|(uid, name)| format!("{uid:?} ({name})", uid = uid.0)).collect::<Vec<_>>().join(", ")
    };
    let claimed: BTreeSet<_> = checkpoint.operators.iter().map(|operator| &operator.uid).collect();
    let mut without = targets.iter().filter(|t| !claimed.contains(&t.uid)).map(|t| (&t.uid, t.name.as_str()));
    let without = match list(&mut without).as_str() {
        "" => String::new(),
        names => format!(" Operators that have no state in it: {names}."),
    };
    Error::invalid(format!(
        "checkpoint {} holds state of operators that the program does not have: {}.{without} Give the operators their \
         uid back, or give this state up with allow-non-restored-state",
        checkpoint.checkpoint,
        list(&mut unclaimed.iter().map(|(uid, name)| (uid, name.as_str())))
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::tests::{file, lists, overtaken, sample};

    fn target(uid: &str, parallelism: u32) -> RestoreTarget {
        RestoreTarget { uid: OperatorUid(uid.into()), name: format!("new {uid}"), parallelism }
    }

    fn names(subtask: &SubtaskAssignment) -> Vec<String> {
        let name = |keyed: &KeyedStateHandle| match &keyed.data {
            StateHandle::File { name, .. } => name.clone(),
            StateHandle::Inline(_) => "inline".to_string(),
            StateHandle::Shared(_) => "shared".to_string(),
        };
        subtask.keyed.iter().map(name).collect()
    }

    #[test]
    fn keyed_state_follows_its_key_groups() {
        let assigned = |parallelism| {
            let targets = [target("source", 1), target("count", parallelism)];
            let assignment = assign(&sample(""), &targets, 128, false).unwrap();
            assignment.operators[&OperatorUid("count".into())].subtasks.iter().map(names).collect::<Vec<_>>()
        };
        assert_eq!(assigned(1), [["count-0.state", "inline"]]);
        assert_eq!(assigned(2), [["count-0.state"], ["inline"]]);
        assert_eq!(assigned(3), [vec!["count-0.state"], vec!["count-0.state", "inline"], vec!["inline"]]);
        assert_eq!(assigned(128).iter().filter(|names| *names == &["inline"]).count(), 64);
    }

    #[test]
    fn data_in_flight_goes_to_all_who_may_take_some_of_it() {
        let assigned = |parallelism| {
            let targets = [target("source", 1), target("count", parallelism)];
            let assignment = assign(&overtaken(""), &targets, 128, false).unwrap();
            let of = |subtask: &SubtaskAssignment| subtask.in_flight.iter().map(|old| old.subtask).collect::<Vec<_>>();
            assignment.operators[&OperatorUid("count".into())].subtasks.iter().map(of).collect::<Vec<_>>()
        };
        assert_eq!(assigned(1), [[0, 1]]);
        assert_eq!(assigned(2), [[0], [1]]);
        assert_eq!(assigned(3), [vec![0], vec![0, 1], vec![1]]);
    }

    #[test]
    fn lists_are_dealt_out_and_splits_stay_whole() {
        let mut checkpoint = sample("");
        checkpoint.operators[0].subtasks[0].lists.extend(lists("offsets", &[1, 2, 3, 4]));
        let targets = [target("source", 2), target("count", 2)];
        let assignment = assign(&checkpoint, &targets, 128, false).unwrap();
        let source = &assignment.operators[&OperatorUid("source".into())];
        assert_eq!(source.source_splits, lists(SOURCE_SPLITS, &[1, 2]));
        for subtask in &source.subtasks {
            let lists: Vec<_> = subtask.lists.iter().map(|list| (list.name.as_str(), list.items.len())).collect();
            assert_eq!(lists, [("offsets", 2)]);
        }
    }

    #[test]
    fn a_changed_maximum_parallelism_is_refused_with_both() {
        let error = assign(&sample(""), &[target("source", 1), target("count", 1)], 256, true).unwrap_err();
        assert!(error.message.contains("128") && error.message.contains("256") && !error.retryable, "{error}");
    }

    #[test]
    fn state_that_nothing_claims_is_refused_by_uid_and_name_unless_allowed() {
        let targets = [target("source", 1), target("counter", 1)];
        let error = assign(&sample(""), &targets, 128, false).unwrap_err();
        for name in ["\"count\" (Count)", "\"counter\" (new counter)", "allow-non-restored-state"] {
            assert!(error.message.contains(name), "{error}");
        }
        let allowed = assign(&sample(""), &targets, 128, true).unwrap();
        assert_eq!(allowed.non_restored, [(OperatorUid("count".into()), "Count".to_string())]);
        assert_eq!(allowed.operators.len(), 1);
    }

    #[test]
    fn an_operator_without_state_may_go() {
        let mut checkpoint = sample("");
        for subtask in &mut checkpoint.operators[1].subtasks {
            subtask.keyed = None;
        }
        let assignment = assign(&checkpoint, &[target("source", 1)], 128, false).unwrap();
        assert!(assignment.non_restored.is_empty());
        checkpoint.operators[1].subtasks[0].keyed =
            Some(KeyedStateHandle { range: KeyGroupRange::all(128), data: file("", "x") });
        assert!(assign(&checkpoint, &[target("source", 1)], 128, false).is_err());
    }
}
