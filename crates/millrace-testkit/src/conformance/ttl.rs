//! State that expires.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use millrace_core::{
    Result,
    clock::{Clock, ManualClock},
};
use millrace_state::{
    AggregatingState, KeyedStateStore, ListState, MapState, ReducingState, StateBackend, StateTtlConfig,
    StateVisibility, UpdateType, ValueState,
};

use super::{
    Check,
    operator::{Average, on_key, open_store_with, write},
    run,
};

/// When the tests begin, and how long state lives in them.
const START: u64 = 1_000_000;
const TTL: u64 = 100;

/// A store whose time the test sets, with a state of each kind.
struct Expiring {
    store: KeyedStateStore,
    hand: ManualClock,
    value: ValueState<i64>,
    list: ListState<String>,
    map: MapState<u32, String>,
    sum: ReducingState<i64>,
    average: AggregatingState<Average>,
}

fn ttl() -> StateTtlConfig {
    StateTtlConfig::new(Duration::from_millis(TTL))
}

impl Expiring {
    fn open(backend: &Arc<dyn StateBackend>, config: Option<StateTtlConfig>) -> Result<Self> {
        Self::restored(backend, config, START, None)
    }

    fn restored(
        backend: &Arc<dyn StateBackend>,
        config: Option<StateTtlConfig>,
        now: u64,
        file: Option<&[u8]>,
    ) -> Result<Self> {
        let (clock, hand) = Clock::manual(now);
        let store = open_store_with(&**backend, 0, 1, clock);
        if let Some(file) = file {
            store.restore("the file", Bytes::copy_from_slice(file))?;
        }
        let states = config.map_or_else(|| store.clone(), |config| store.with_ttl(config));
        let opened = Self {
            value: states.value("value", 0)?,
            list: states.list("list")?,
            map: states.map("map")?,
            sum: states.reducing("sum", |a, b| a + b)?,
            average: states.aggregating("average", Average)?,
            store,
            hand,
        };
        on_key(&opened.store, "a");
        Ok(opened)
    }

    fn fill(&self) -> Result<()> {
        self.value.set(1)?;
        self.list.add("x".to_string())?;
        self.map.put(1, "one".to_string())?;
        self.sum.add(1)?;
        self.average.add(1)
    }

    /// Which of the states have something.
    fn seen(&self) -> Result<[bool; 5]> {
        Ok([
            self.value.get()? != 0,
            !self.list.get()?.is_empty(),
            !self.map.entries()?.is_empty(),
            self.sum.get()?.is_some(),
            self.average.get()?.is_some(),
        ])
    }

    /// The same for two keys.
    fn seen_of_both(&self) -> Result<[[bool; 5]; 2]> {
        on_key(&self.store, "a");
        let a = self.seen()?;
        on_key(&self.store, "b");
        Ok([a, self.seen()?])
    }

    fn file(&self) -> Result<Vec<u8>> {
        write(self.store.snapshot()?)
    }
}

const ALL: [bool; 5] = [true; 5];
const NONE: [bool; 5] = [false; 5];

pub(super) fn check(backend: &Arc<dyn StateBackend>) {
    let checks: &[(&str, Check)] = &[
        ("state expires", state_expires),
        ("writing renews", writing_renews),
        ("reading renews if configured", reading_renews),
        ("expired state is shown once at most", expired_state_is_shown_once),
        ("elements and entries expire by themselves", parts_expire_by_themselves),
        ("a clock may go back", a_clock_may_go_back),
        ("one state has one time to live", one_time_to_live),
    ];
    run(backend, checks);
    check_from_to(backend, backend);
}

fn state_expires(backend: &Arc<dyn StateBackend>) -> Result<()> {
    let state = Expiring::open(backend, Some(ttl()))?;
    state.fill()?;
    state.hand.set(START + TTL - 1);
    assert_eq!(state.seen()?, ALL, "a moment before");
    assert!(state.map.contains(&1)? && !state.map.is_empty()? && state.map.get(&1)?.is_some());
    state.hand.set(START + TTL);
    assert_eq!(state.seen()?, NONE);
    assert!(!state.map.contains(&1)? && state.map.is_empty()? && state.map.get(&1)?.is_none());
    state.hand.set(START);
    assert_eq!(state.seen()?, NONE, "what was seen to have expired does not come back");
    state.fill()?;
    assert_eq!((state.value.get()?, state.sum.get()?, state.average.get()?), (1, Some(1), Some(1)));
    state.hand.advance(TTL);
    assert_eq!(state.value.modify(|value| std::mem::replace(value, 7))?, 0, "modify begins with the default");
    state.sum.add(5)?;
    state.average.add(5)?;
    assert_eq!((state.value.get()?, state.sum.get()?, state.average.get()?), (7, Some(5), Some(5)));
    Ok(())
}

fn writing_renews(backend: &Arc<dyn StateBackend>) -> Result<()> {
    let state = Expiring::open(backend, Some(ttl()))?;
    state.fill()?;
    state.hand.advance(TTL / 2);
    assert_eq!(state.seen()?, ALL);
    state.value.modify(|value| *value += 1)?;
    state.map.put(1, "two".to_string())?;
    state.sum.add(1)?;
    state.average.add(1)?;
    state.list.update(vec!["y".to_string()])?;
    state.hand.set(START + TTL);
    assert_eq!(state.seen()?, ALL);
    state.hand.advance(TTL / 2);
    assert_eq!(state.seen()?, NONE, "reading does not renew");
    Ok(())
}

fn reading_renews(backend: &Arc<dyn StateBackend>) -> Result<()> {
    let state = Expiring::open(backend, Some(ttl().set_update_type(UpdateType::OnReadAndWrite)))?;
    state.fill()?;
    for _ in 0..5 {
        state.hand.advance(TTL - 1);
        assert_eq!(state.seen()?, ALL);
    }
    state.hand.advance(TTL - 1);
    let restored = Expiring::restored(backend, Some(ttl()), START + 6 * (TTL - 1), Some(&state.file()?))?;
    restored.hand.advance(1);
    assert_eq!(restored.seen()?, NONE, "a snapshot does not renew");
    state.map.get(&1)?;
    state.hand.advance(1);
    assert_eq!(state.seen()?, [false, false, true, false, false], "an entry that was read lives on");
    Ok(())
}

/// A backend may have dropped it; once it was shown it is gone.
fn expired_state_is_shown_once(backend: &Arc<dyn StateBackend>) -> Result<()> {
    let config = ttl().set_state_visibility(StateVisibility::ReturnExpiredIfNotCleanedUp);
    let state = Expiring::open(backend, Some(config))?;
    state.fill()?;
    state.hand.advance(TTL);
    state.seen()?;
    assert_eq!(state.seen()?, NONE);
    Ok(())
}

fn parts_expire_by_themselves(backend: &Arc<dyn StateBackend>) -> Result<()> {
    let state = Expiring::open(backend, Some(ttl()))?;
    for step in 0..10u32 {
        state.list.add(step.to_string())?;
        state.map.put(step, step.to_string())?;
        state.hand.advance(TTL / 10);
    }
    let kept = |from: u32| -> Vec<String> { (from..10).map(|step| step.to_string()).collect() };
    for expired in 1..=10 {
        assert_eq!(state.list.get()?, kept(expired));
        let mut keys = state.map.keys()?;
        keys.sort_unstable();
        assert_eq!(keys, (expired..10).collect::<Vec<_>>());
        let restored = Expiring::restored(backend, Some(ttl()), state_now(expired), Some(&state.file()?))?;
        assert_eq!(restored.list.get()?, kept(expired));
        assert_eq!(restored.map.values()?.len(), 10 - expired as usize);
        state.hand.advance(TTL / 10);
    }
    state.list.add("new".to_string())?;
    assert_eq!(state.list.get()?, ["new"]);
    Ok(())
}

/// The time at which so many of ten steps have expired.
fn state_now(expired: u32) -> u64 {
    START + TTL + u64::from(expired - 1) * TTL / 10
}

/// What was written before lives longer by as much, and what is written then for its time, by the clock as it is: nothing
/// expires early.
fn a_clock_may_go_back(backend: &Arc<dyn StateBackend>) -> Result<()> {
    let state = Expiring::open(backend, Some(ttl()))?;
    state.fill()?;
    let back = START - 5 * TTL;
    state.hand.set(back);
    on_key(&state.store, "b");
    state.fill()?;
    assert_eq!(state.seen_of_both()?, [ALL, ALL]);
    state.hand.set(back + TTL - 1);
    assert_eq!(state.seen_of_both()?, [ALL, ALL]);
    // A snapshot, its writing and its restore see the same clock.
    let restored = Expiring::restored(backend, Some(ttl()), back, Some(&state.file()?))?;
    for state in [state, restored] {
        assert_eq!(state.seen_of_both()?, [ALL, ALL]);
        state.hand.set(back + TTL);
        assert_eq!(state.seen_of_both()?, [ALL, NONE]);
        state.hand.set(START + TTL - 1);
        assert_eq!(state.seen_of_both()?, [ALL, NONE], "the later of both is not forgotten");
        state.hand.set(0);
        assert_eq!(state.seen_of_both()?, [ALL, NONE]);
        state.hand.set(START + TTL);
        assert_eq!(state.seen_of_both()?, [NONE, NONE]);
    }
    Ok(())
}

fn one_time_to_live(backend: &Arc<dyn StateBackend>) -> Result<()> {
    let state = Expiring::open(backend, Some(ttl()))?;
    let error = state.store.value("value", 0i64).err().expect("another time to live is refused");
    assert!(error.message.contains("\"value\"") && error.message.contains("time to live"), "{error}");
    state.store.with_ttl(ttl()).value("value", 0i64)?;
    let none = state.store.with_ttl(StateTtlConfig::new(Duration::ZERO));
    assert!(none.value("other", 0i64).is_err_and(|error| error.message.contains("at least one millisecond")));
    Ok(())
}

/// Expiry is part of a snapshot; a time to live may come and go between two runs.
pub(super) fn check_from_to(from: &Arc<dyn StateBackend>, to: &Arc<dyn StateBackend>) {
    restores(from, to).unwrap_or_else(|error| panic!("expiry from {} to {}: {error}", from.name(), to.name()));
}

fn restores(from: &Arc<dyn StateBackend>, to: &Arc<dyn StateBackend>) -> Result<()> {
    let old = Expiring::open(from, Some(ttl()))?;
    old.fill()?;
    on_key(&old.store, "b");
    old.hand.advance(TTL / 2);
    old.fill()?;
    let file = old.file()?;
    let both = Expiring::seen_of_both;
    for (elapsed, expected) in [(0, [ALL, ALL]), (TTL / 2 - 1, [ALL, ALL]), (TTL / 2, [NONE, ALL]), (TTL, [NONE, NONE])]
    {
        let new = Expiring::restored(to, Some(ttl()), START + TTL / 2, Some(&file))?;
        new.hand.advance(elapsed);
        assert_eq!(both(&new)?, expected, "expiring {elapsed} ms after the restore");
        let late = Expiring::restored(to, Some(ttl()), START + TTL / 2 + elapsed, Some(&file))?;
        assert_eq!(both(&late)?, expected, "expired {elapsed} ms before the restore");
        old.hand.set(START + TTL / 2 + elapsed);
        let filtered = Expiring::restored(to, None, START, Some(&old.file()?))?;
        assert_eq!(both(&filtered)?, expected, "expired {elapsed} ms before the snapshot");
    }
    let without = Expiring::restored(to, None, START + TTL / 2, Some(&file))?;
    without.hand.advance(10 * TTL);
    assert_eq!(both(&without)?, [ALL, ALL], "the time to live was taken away");
    let again = Expiring::restored(from, Some(ttl()), START + 20 * TTL, Some(&without.file()?))?;
    assert_eq!(both(&again)?, [ALL, ALL], "a new time to live begins with the restore");
    again.hand.advance(TTL);
    assert_eq!(both(&again)?, [NONE, NONE]);
    Ok(())
}
