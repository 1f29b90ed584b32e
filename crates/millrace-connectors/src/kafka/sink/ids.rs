//! Transactional ids: `<prefix>-<uid>-<subtask>-<slot>`, so that whoever knows prefix and uid recognizes all of a sink's.

/// Names the transactional ids of a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TransactionalIds {
    stem: String,
}

/// Which of them: each transaction that is not settled holds a slot of its subtask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub subtask: u32,
    pub slot: u32,
}

impl TransactionalIds {
    /// Those of the sink `uid` under a prefix.
    pub fn new(prefix: &str, uid: &str) -> Self {
        Self { stem: format!("{prefix}-{uid}-") }
    }

    /// The id of a place.
    pub fn id(&self, place: Place) -> String {
        format!("{}{}-{}", self.stem, place.subtask, place.slot)
    }

    /// The place of an id; `None` if it is not one of these.
    pub fn place(&self, id: &str) -> Option<Place> {
        let (subtask, slot) = id.strip_prefix(&self.stem)?.split_once('-')?;
        let place = Place { subtask: subtask.parse().ok()?, slot: slot.parse().ok()? };
        // Not one that is only read like this: "+1", "01".
        (self.id(place) == id).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_again_and_a_strangers_is_not() {
        let ids = TransactionalIds::new("shop", "orders-2");
        for (subtask, slot) in [(0, 0), (7, 12), (u32::MAX, 3)] {
            let place = Place { subtask, slot };
            assert_eq!(ids.place(&ids.id(place)), Some(place));
        }
        assert_eq!(ids.id(Place { subtask: 1, slot: 0 }), "shop-orders-2-1-0");
        let strangers =
            ["", "shop", "shop-orders-2-1", "shop-orders-2-+1-0", "shop-orders-2-01-0", "shop-orders-2-1-0-0", "x-1-0"];
        for stranger in strangers {
            assert_eq!(ids.place(stranger), None, "{stranger:?}");
        }
        // The sink with uid "orders" beside it has none of these.
        assert_eq!(TransactionalIds::new("shop", "orders").place("shop-orders-2-1-0"), None);
    }
}
