//! State whose type changes between two runs.

use std::sync::Arc;

use bytes::Bytes;
use millrace_core::Result;
use millrace_state::{AggregateFunction, KeyedStateStore, StateBackend};
use serde::{Deserialize, Serialize};

use super::operator::{on_key, open_store, write};

mod before {
    use super::{Deserialize, Serialize};

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Visit {
        pub(super) page: u16,
        pub(super) referrer: String,
        pub(super) device: Device,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(super) enum Device {
        Phone { width: u8 },
        Other,
    }
}

mod after {
    use super::{Deserialize, Serialize};

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Visit {
        #[serde(default)]
        pub(super) seconds: u32,
        pub(super) device: Device,
        pub(super) page: i64,
        pub(super) user: Option<String>,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(super) enum Device {
        Tablet,
        Phone {
            #[serde(default)]
            height: u32,
            width: u32,
        },
        Other,
    }
}

fn old(page: u16) -> before::Visit {
    let device = if page.is_multiple_of(2) { before::Device::Phone { width: 200 } } else { before::Device::Other };
    before::Visit { page, referrer: format!("from {page}"), device }
}

fn new(page: u16) -> after::Visit {
    let device =
        if page.is_multiple_of(2) { after::Device::Phone { height: 0, width: 200 } } else { after::Device::Other };
    after::Visit { seconds: 0, device, page: i64::from(page), user: None }
}

/// Keeps the last value.
#[derive(Clone)]
struct Last<T>(T);

impl<T: millrace_state::StateValue> AggregateFunction for Last<T> {
    type In = T;
    type Accumulator = T;
    type Out = T;

    fn create_accumulator(&self) -> T {
        self.0.clone()
    }

    fn add(&self, value: T, accumulator: &mut T) {
        *accumulator = value;
    }

    fn get_result(&self, accumulator: &T) -> T {
        accumulator.clone()
    }
}

const PAGES: u16 = 300;

fn written(backend: &Arc<dyn StateBackend>) -> Result<Vec<u8>> {
    let store = open_store(&**backend, 0, 1);
    let (value, number) = (store.value("value", old(0))?, store.value("number", 0u8)?);
    let (list, map) = (store.list("list")?, store.map("map")?);
    let (reduced, last) = (store.reducing("reduced", |_, last| last)?, store.aggregating("last", Last(old(0)))?);
    for page in 0..PAGES {
        on_key(&store, &page.to_string());
        value.set(old(page))?;
        number.set(page as u8)?;
        list.update(vec![old(page), old(page + 1)])?;
        map.put(page, old(page))?;
        map.put(page + 1, old(7))?;
        reduced.add(old(page))?;
        last.add(old(page))?;
    }
    write(store.snapshot()?)
}

fn restored(backend: &Arc<dyn StateBackend>, file: &[u8]) -> Result<KeyedStateStore> {
    let store = open_store(&**backend, 0, 1);
    store.restore("the file", Bytes::copy_from_slice(file))?;
    Ok(store)
}

pub(super) fn check(backend: &Arc<dyn StateBackend>) {
    check_from_to(backend, backend);
    refused(backend).unwrap_or_else(|error| panic!("incompatible types on {}: {error}", backend.name()));
}

/// A state gains and loses fields and its integers widen, whichever backend wrote it.
pub(super) fn check_from_to(from: &Arc<dyn StateBackend>, to: &Arc<dyn StateBackend>) {
    migrates(from, to).unwrap_or_else(|error| panic!("migration from {} to {}: {error}", from.name(), to.name()));
}

fn migrates(from: &Arc<dyn StateBackend>, to: &Arc<dyn StateBackend>) -> Result<()> {
    let mut file = written(from)?;
    // The second time the file is of the new types: nothing is migrated any more.
    for _ in 0..2 {
        let store = restored(to, &file)?;
        let (value, number) = (store.value("value", new(0))?, store.value("number", 0u64)?);
        let (list, map) = (store.list::<after::Visit>("list")?, store.map::<u16, after::Visit>("map")?);
        let (reduced, last) = (store.reducing("reduced", |_, last| last)?, store.aggregating("last", Last(new(0)))?);
        for page in 0..PAGES {
            on_key(&store, &page.to_string());
            assert_eq!((value.get()?, number.get()?), (new(page), u64::from(page as u8)));
            assert_eq!(list.get()?, [new(page), new(page + 1)]);
            assert_eq!((map.get(&page)?, map.get(&(page + 1))?), (Some(new(page)), Some(new(7))));
            assert_eq!((reduced.get()?, last.get()?), (Some(new(page)), Some(new(page))));
        }
        assert!(store.unclaimed().is_empty());
        file = write(store.snapshot()?)?;
    }
    Ok(())
}

fn refused(backend: &Arc<dyn StateBackend>) -> Result<()> {
    let file = written(backend)?;
    let store = || restored(backend, &file).expect("a snapshot is accepted");
    for error in [
        store().value("value", 0i64).err(),
        store().value("number", 0i8).err(),
        store().list::<(u16, String)>("list").err(),
        store().map::<u32, after::Visit>("map").err(),
        store().value("reduced", new(0)).err(),
        store().aggregating("last", Last(1u8)).err(),
    ] {
        let error = error.expect("a type that can't read the writer's is refused");
        assert!(error.message.contains("the file") && !error.retryable, "{error}");
    }
    let error = store().value("number", false).err().expect("another type is refused");
    assert!(error.message.contains("value state of u8") && error.message.contains("value state of bool"), "{error}");
    Ok(())
}
