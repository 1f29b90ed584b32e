//! Any bytes as an operator list of a checkpoint, with the schema that it was written under, read by the types of today:
//! the splits of a source, what a sink commits, a function's own lists and broadcast state.

#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace_connectors::{CollectionSource, FileSource, GeneratorSource, file::FileCommittable};
use millrace_core::{
    codec,
    operator_state::{OperatorListSnapshot, OperatorStateStore, redistribute},
};
use millrace_runtime::{
    source::{ErasedSource, TypedSource},
    task::decode_splits,
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Item {
    name: String,
    #[serde(default)]
    place: Option<(i64, u32)>,
    #[serde(default)]
    kinds: Vec<Kind>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Kind {
    Empty,
    Number(f64),
    Named { text: String },
}

fuzz_target!(|data: &[u8]| {
    let Ok(list) = codec::decode::<OperatorListSnapshot>(data) else { return };
    let _ = list.schema.to_string();
    splits(&TypedSource(FileSource::directory("/nowhere")), &list);
    splits(&TypedSource(GeneratorSource::new(|index| index)), &list);
    splits(&TypedSource(CollectionSource::new(vec![1u8])), &list);
    let _ = with(&list).list::<FileCommittable>(&list.name);
    // What was read can be written, and read again.
    let mut store = with(&list);
    if store.list::<Item>(&list.name).is_ok() {
        let again = store.snapshot().expect("what was read can be written");
        for lists in redistribute(&[again], 2) {
            let mut store = OperatorStateStore::restored(lists);
            store.list::<Item>(&list.name).expect("what was written can be read");
        }
    }
    let _ = with(&list).union_list::<Item>(&list.name);
    let _ = with(&list).broadcast::<String, Item>(&list.name);
});

fn with(list: &OperatorListSnapshot) -> OperatorStateStore {
    OperatorStateStore::restored(vec![list.clone()])
}

fn splits(source: &dyn ErasedSource, list: &OperatorListSnapshot) {
    if let Ok(splits) = decode_splits(list) {
        let _ = source.migrate_splits(&list.schema, splits);
    }
}
