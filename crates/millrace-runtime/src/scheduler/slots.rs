//! Which taskmanager runs which slot's tasks. A slot holds one subtask of every vertex, as in Flink.

use std::collections::BTreeMap;

use millrace_core::ids::TaskManagerId;

/// Assigns `needed` slots to taskmanagers (with the slots each offers). Slots stay where they were before, as their
/// state may still be there, if only on the disk of a process that came in the place of another (the ids of both begin
/// with the same resource id); the others go to where most is free. `None` while there are too few.
pub fn assign_slots(
    needed: u32,
    offered: &BTreeMap<TaskManagerId, u32>,
    previous: &[TaskManagerId],
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
        let of_resource = |id: &TaskManagerId| id.0.rsplit_once('-').map(|(resource, _)| resource.to_string());
        let came_after = |(id, left): &(&TaskManagerId, &mut u32)| **left > 0 && of_resource(id) == of_resource(before);
        if let Some((id, left)) = free.iter_mut().find(came_after).filter(|_| of_resource(before).is_some()) {
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

    #[test]
    fn slots_are_spread() {
        let assigned = assign_slots(2, &offered(&[("a", 2), ("b", 2)]), &[]).unwrap();
        assert_ne!(assigned[0], assigned[1]);
    }

    #[test]
    fn a_slot_stays_where_it_was() {
        let all = offered(&[("a", 1), ("b", 1), ("c", 1)]);
        assert_eq!(assign_slots(2, &all, &ids(&["c", "gone"])).unwrap()[0], ids(&["c"])[0]);
    }

    #[test]
    fn a_process_in_the_place_of_another_gets_its_slot() {
        let all = offered(&[("a-2", 1), ("b-1", 1), ("c-1", 1)]);
        assert_eq!(assign_slots(2, &all, &ids(&["b-1", "a-1"])).unwrap(), ids(&["b-1", "a-2"]));
    }

    #[test]
    fn too_few_slots_are_none() {
        assert_eq!(assign_slots(3, &offered(&[("a", 2)]), &[]), None);
    }
}
