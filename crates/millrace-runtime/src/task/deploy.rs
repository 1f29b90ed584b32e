//! Making a task's operators and giving them their state.

use std::collections::{BTreeMap, BTreeSet};

use millrace_core::{
    Error, Result,
    ids::{JobAttempt, OperatorUid},
    key::KeyGroupRange,
    operator_state::OperatorStateStore,
    source::ReaderContext,
};
use millrace_state::{KeyedBackendContext, KeyedStateStore, SOURCE_SPLITS, SnapshotTarget};

use super::{
    OperatorRestore, RestoreMetrics,
    blame::Blame,
    gate::Gate,
    handle::TaskSetup,
    in_flight,
    restore::{self, RestoreMeter},
    run::Parts,
    source_head::SourceHead,
};
use crate::{
    graph::{OperatorNode, SourceNode},
    operator::OperatorContext,
};

/// Fills `parts`: restores state and what was in flight, makes the reader, makes and opens the operators.
pub(super) fn deploy(setup: &TaskSetup, gate: &Gate, parts: &mut Parts, blame: &Blame) -> Result<RestoreMetrics> {
    let mut meter = RestoreMeter::default();
    let mut restore: BTreeMap<_, _> =
        setup.spec.restore.iter().map(|restore| (restore.uid.clone(), restore.clone())).collect();
    let vertex = setup.graph.vertex(setup.spec.task.vertex);
    if let Some(node) = &vertex.source {
        parts.source = Some(blame.part(0, || make_source(setup, node, restore.remove(&node.uid)))?);
    }
    for (index, node) in vertex.operators.iter().enumerate() {
        let mut restore = restore.remove(&node.uid);
        let in_flight = restore.as_mut().map(|restore| std::mem::take(&mut restore.in_flight)).unwrap_or_default();
        if index == 0 && parts.source.is_none() {
            in_flight::restore(setup, gate, &in_flight)?;
        } else if !in_flight.is_empty() && !setup.spec.allow_non_restored {
            return Err(unclaimed(
                &node.uid,
                "records in flight, although it is chained to the operator before it now",
            ));
        }
        let context = context(setup, node, restore, &mut meter)?;
        parts.chain.push(node.factory.create(), context);
    }
    parts.chain.open()?;
    check_unclaimed(setup, parts, restore.into_keys())?;
    Ok(meter.finish())
}

fn make_source(setup: &TaskSetup, node: &SourceNode, restore: Option<OperatorRestore>) -> Result<SourceHead> {
    let spec = &setup.spec;
    let lists = restore.map(|restore| restore.lists).unwrap_or_default();
    if lists.iter().any(|list| list.name == SOURCE_SPLITS && !list.items.is_empty()) {
        return Err(Error::internal(format!(
            "source {} was given splits inside its operator state; they belong in the task's own list of splits",
            node.uid
        )));
    }
    let lists = lists.into_iter().filter(|list| list.name != SOURCE_SPLITS).collect();
    let mut context = ReaderContext {
        subtask: spec.task.subtask,
        parallelism: setup.graph.vertex(spec.task.vertex).parallelism,
        operator_state: OperatorStateStore::restored(lists),
    };
    let mut reader = node.source.create_reader(&mut context)?;
    if !spec.splits.is_empty() {
        reader.add_splits(&spec.splits)?;
    }
    if !spec.more_splits {
        reader.no_more_splits();
    }
    Ok(SourceHead {
        uid: node.uid.clone(),
        reader,
        context,
        split_schema: node.source.split_schema()?,
        held: spec.hold_source,
        exhausted: false,
    })
}

fn context(
    setup: &TaskSetup,
    node: &OperatorNode,
    restore: Option<OperatorRestore>,
    meter: &mut RestoreMeter,
) -> Result<OperatorContext> {
    let spec = &setup.spec;
    let (keyed, lists) = restore.map(|restore| (restore.keyed, restore.lists)).unwrap_or_default();
    let parallelism = setup.graph.vertex(spec.task.vertex).parallelism;
    let keyed_state = if let Some(key) = &node.key {
        let context = KeyedBackendContext {
            uid: node.uid.clone(),
            operator: node.name.clone(),
            subtask: spec.task.subtask,
            max_parallelism: setup.graph.max_parallelism,
            range: KeyGroupRange::of_subtask(setup.graph.max_parallelism, parallelism, spec.task.subtask),
            key_schema: Some(key.clone()),
            clock: setup.clock.clone(),
        };
        Some(restore::open_store(setup, context, &keyed, meter)?)
    } else if keyed.is_empty() || spec.allow_non_restored {
        None
    } else {
        return Err(unclaimed(&node.uid, "keyed state, although the operator is not behind a key_by any more"));
    };
    Ok(OperatorContext {
        uid: node.uid.clone(),
        name: node.name.clone(),
        subtask: spec.task.subtask,
        parallelism,
        attempt: JobAttempt { job: setup.job, generation: spec.generation, attempt: spec.attempt },
        keyed_state,
        operator_state: OperatorStateStore::restored(lists),
        checkpoints: spec.barriers.is_some(),
        metrics: setup.metrics.clone(),
        clock: setup.clock.clone(),
    })
}

/// Refuses state that no operator has asked for while it was opened.
fn check_unclaimed(setup: &TaskSetup, parts: &Parts, mut unknown: impl Iterator<Item = OperatorUid>) -> Result<()> {
    if setup.spec.allow_non_restored {
        return Ok(());
    }
    if let Some(uid) = unknown.next() {
        return Err(unclaimed(&uid, "state of an operator that this task does not have"));
    }
    let source = parts.source.iter().map(|source| (&source.uid, source.context.operator_state.unclaimed()));
    let operators = parts.chain.operators().iter().map(|operator| {
        let context = &operator.context;
        let mut names = context.operator_state.unclaimed();
        names.extend(context.keyed_state.iter().flat_map(KeyedStateStore::unclaimed));
        (&context.uid, names)
    });
    let mut all = source.chain(operators).filter(|(_, names): &(_, BTreeSet<String>)| !names.is_empty());
    match all.next() {
        None => Ok(()),
        Some((uid, names)) => {
            let names: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
            Err(unclaimed(uid, &format!("state {}", names.join(", "))))
        }
    }
}

fn unclaimed(uid: &OperatorUid, what: &str) -> Error {
    Error::invalid(format!(
        "the checkpoint holds, for operator uid {uid}, {what}, which the program does not use: restore the operator or \
         its state, or set allow-non-restored-state to drop it"
    ))
}

/// Up to which size snapshots travel inside the checkpoint's metadata.
pub(super) fn inline_limit(setup: &TaskSetup) -> usize {
    match setup.backend.snapshot_target() {
        // The store that takes the snapshot refuses what is too large for this.
        SnapshotTarget::JobManager { .. } => usize::MAX,
        SnapshotTarget::Files => setup.settings.inline_threshold,
    }
}
