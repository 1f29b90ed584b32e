//! Which taskmanager runs which slot's tasks. A slot holds one subtask of every vertex, as in Flink.

use std::collections::BTreeMap;

use millrace_core::ids::TaskManagerId;

/// Assigns `needed` slots to taskmanagers (with the slots each offers). Slots stay where they were before, as their
/// state may still be there, if only on the disk of a process that came in the place of another and has its resource id;
/// the others go to where most is free. `None` while there are too few.
pub fn assign_slots(
    needed: u32,
    offered: &BTreeMap<TaskManagerId, u32>,
    previous: &[TaskManagerId],
    resources: &BTreeMap<TaskManagerId, String>,
) -> Option<Vec<TaskManagerId>> {
    let mut free = offered.clone();
    let mut assigned: Vec<Option<TaskManagerId>> = vec![None; needed as usize];
    for (slot, before) in assigned.iter_mut().zip(previous) {
        if let Some(left) = free.get_mut(before).filter(|left| **left > 0) {
            *left -= 1;
            *slot = Some(before.clone());
        }
    }
    for (slot, before) in assigned.iter_mut().zip(previous).filter(|(slot, _)| slot.is_none()) {
        let Some(resource) = resources.get(before) else { continue };
        let in_its_place = |(id, left): &(&TaskManagerId, &mut u32)| **left > 0 && resources.get(*id) == Some(resource);
        if let Some((id, left)) = free.iter_mut().find(in_its_place) {
            *left -= 1;
            *slot = Some(id.clone());
        }
    }
    for slot in assigned.iter_mut().filter(|slot| slot.is_none()) {
        let (id, left) = free.iter_mut().filter(|(_, left)| **left > 0).max_by_key(|(_, left)| **left)?;
        *left -= 1;
        *slot = Some(id.clone());
    }
    assigned.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Vec<TaskManagerId> {
        names.iter().map(|name| TaskManagerId((*name).to_string())).collect()
    }

    fn offered(slots: &[(&str, u32)]) -> BTreeMap<TaskManagerId, u32> {
        slots.iter().map(|(name, slots)| (TaskManagerId((*name).to_string()), *slots)).collect()
    }

    fn assigned(needed: u32, slots: &[(&str, u32)], previous: &[&str]) -> Option<Vec<TaskManagerId>> {
        let resources = [("a-1", "a"), ("a-2", "a"), ("b-1", "b"), ("c-1", "c")];
        let resources = resources.map(|(name, resource)| (TaskManagerId(name.to_string()), resource.to_string()));
        assign_slots(needed, &offered(slots), &ids(previous), &resources.into())
    }

    #[test]
    fn slots_are_spread() {
        let assigned = assigned(2, &[("a", 2), ("b", 2)], &[]).unwrap();
        assert_ne!(assigned[0], assigned[1]);
    }

    #[test]
    fn a_slot_stays_where_it_was() {
        let assigned = assigned(2, &[("a", 1), ("b", 1), ("c", 1)], &["c", "gone"]).unwrap();
        assert_eq!(assigned[0], ids(&["c"])[0]);
    }

    #[test]
    fn a_process_in_the_place_of_another_gets_its_slot() {
        let assigned = assigned(2, &[("c-1", 1), ("b-1", 1), ("a-2", 1)], &["b-1", "a-1"]);
        assert_eq!(assigned.unwrap(), ids(&["b-1", "a-2"]));
    }

    #[test]
    fn too_few_slots_are_none() {
        assert_eq!(assigned(3, &[("a", 2)], &[]), None);
    }
}
