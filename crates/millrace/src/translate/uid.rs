//! The uids that tie state to operators.

use std::collections::BTreeMap;

use millrace_core::{Error, Result, ids::OperatorUid, key::murmur3_x64_128};

use crate::plan::PlanNode;

/// The uid of each node: the program's, or one that follows from the place in the graph.
pub(super) fn assign(nodes: &[PlanNode]) -> Result<Vec<OperatorUid>> {
    let mut uids: Vec<OperatorUid> = Vec::with_capacity(nodes.len());
    // How many operators of a kind hang on the same inputs so far.
    let mut siblings = BTreeMap::<String, u32>::new();
    for node in nodes {
        let place = place(node, &uids);
        let sibling = siblings.entry(place.clone()).or_default();
        let uid = node.uid.clone().map_or_else(|| generated(&place, *sibling), OperatorUid);
        *sibling += 1;
        uids.push(uid);
    }
    check(nodes, &uids)?;
    Ok(uids)
}

/// What an operator is and what it hangs on. Its name, its parallelism and how records reach it are not part of it:
/// they may change without the state getting lost.
fn place(node: &PlanNode, uids: &[OperatorUid]) -> String {
    let inputs = node.inputs.iter().map(|edge| format!("{:?}", uids[edge.from].0));
    format!("{} on [{}]", node.kind, inputs.collect::<Vec<_>>().join(", "))
}

/// 32 hexadecimal digits, as Flink writes its generated ids.
fn generated(place: &str, sibling: u32) -> OperatorUid {
    let (high, low) = murmur3_x64_128(format!("{place} {sibling}").as_bytes());
    OperatorUid(format!("{high:016x}{low:016x}"))
}

fn check(nodes: &[PlanNode], uids: &[OperatorUid]) -> Result<()> {
    let mut owners = BTreeMap::<&OperatorUid, &PlanNode>::new();
    for (node, uid) in nodes.iter().zip(uids) {
        if uid.0.is_empty() {
            return Err(Error::invalid(format!("the uid of operator {:?} is empty: choose a name", node.name)));
        }
        if let Some(other) = owners.insert(uid, node) {
            return Err(Error::invalid(format!(
                "operators {:?} and {:?} have the same uid, {:?}: state would be mixed up, choose another for one",
                other.name, node.name, uid.0
            )));
        }
    }
    Ok(())
}
