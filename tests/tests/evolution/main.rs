//! The types of a job's state change between two runs of it: fields come and go and integers widen, in state of every
//! kind and in the source's splits, on every backend. What does not fit is refused before the first record.

mod numbers;

use std::{
    collections::{BTreeMap, BTreeSet},
    marker::PhantomData,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use millrace::{
    Result,
    prelude::*,
    sink::{Committer, CommitterContext, NoCommittable, NoCommitter, Sink, SinkWriter, WriterContext},
    source::SourceSplit,
};
use millrace_testkit::conformance::BTreeStateBackend;
use numbers::Numbers;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// In each of the two splits.
const NUMBERS: u64 = 200;
/// Where the first run ends.
const HALF: u64 = 100;
const KEYS: u64 = 5;
const HALFWAY: &str = "the first half is in a checkpoint";

/// What a value of state must do, whatever it looks like.
trait Tally: Serialize + DeserializeOwned + Default + Clone + Send + Sync + 'static {
    fn count(&mut self);
    fn counted(&self) -> u64;
}

/// The types of one version of the program.
trait Version: Clone + Default + Send + Sync + 'static {
    type Tally: Tally;
    type Split: Split;
    type Number: Number;
}

impl<T: Tally, S: Split, N: Number> Version for (T, S, N) {
    type Tally = T;
    type Split = S;
    type Number = N;
}

type Before = (before::Tally, before::Split, u16);
type After = (after::Tally, after::Split, i64);
/// What can't read what the first version wrote: a number has become text.
type Unfit = (unfit::Tally, after::Split, i64);

trait Split: SourceSplit + Default + Sync + From<Position> + Into<Position> {}

trait Number:
    Serialize
    + DeserializeOwned
    + Clone
    + Default
    + Send
    + Sync
    + TryFrom<u64, Error: std::fmt::Debug>
    + Into<i64>
    + 'static
{
}

impl Number for u16 {}
impl Number for i64 {}

/// A split without its form.
struct Position {
    name: String,
    next: u64,
}

mod before {
    use super::{Deserialize, Serialize};

    #[derive(Clone, Default, Serialize, Deserialize)]
    pub struct Tally {
        count: u16,
        note: String,
    }

    #[derive(Clone, Default, Serialize, Deserialize)]
    pub struct Split {
        pub next: u8,
        pub name: String,
        pub speed: f32,
    }

    impl super::Tally for Tally {
        fn count(&mut self) {
            self.count += 1;
            self.note = format!("counted {}", self.count);
        }

        fn counted(&self) -> u64 {
            self.count.into()
        }
    }
}

mod after {
    use super::{Deserialize, Serialize};

    #[derive(Clone, Default, Serialize, Deserialize)]
    pub struct Tally {
        #[serde(default)]
        since: u32,
        count: i64,
        by: Option<String>,
    }

    #[derive(Clone, Default, Serialize, Deserialize)]
    pub struct Split {
        pub name: String,
        pub next: u64,
        pub end: Option<u64>,
    }

    impl super::Tally for Tally {
        fn count(&mut self) {
            self.count += 1;
            self.since += 1;
            self.by = Some("the program of today".to_owned());
        }

        fn counted(&self) -> u64 {
            assert!(i64::from(self.since) <= self.count, "it began at zero");
            self.count.try_into().expect("a count")
        }
    }
}

mod unfit {
    use super::{Deserialize, Serialize};

    #[derive(Clone, Default, Serialize, Deserialize)]
    pub struct Tally {
        count: String,
    }

    impl super::Tally for Tally {
        fn count(&mut self) {
            self.count.push('|');
        }

        fn counted(&self) -> u64 {
            self.count.len() as u64
        }
    }
}

impl From<Position> for before::Split {
    fn from(Position { name, next }: Position) -> Self {
        Self { name, next: next.try_into().expect("the first half is short"), speed: 1.5 }
    }
}

impl From<Position> for after::Split {
    fn from(Position { name, next }: Position) -> Self {
        Self { name, next, end: None }
    }
}

macro_rules! splits {
    ($($split:ty),*) => {$(
        impl From<$split> for Position {
            fn from(split: $split) -> Self {
                Self { name: split.name, next: split.next.into() }
            }
        }

        impl SourceSplit for $split {
            fn split_id(&self) -> String {
                self.name.clone()
            }
        }

        impl Split for $split {}
    )*};
}
splits!(before::Split, after::Split);

/// What a key has in state.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Told {
    value: u64,
    expiring: u64,
    list: Vec<i64>,
    map: BTreeMap<u64, u64>,
    sum: Option<i64>,
    most: Option<i64>,
}

#[derive(Clone, Default)]
struct Most<V>(PhantomData<fn() -> V>);

impl<V: Version> AggregateFunction for Most<V> {
    type In = u64;
    type Accumulator = (V::Number, V::Tally);
    type Out = i64;

    fn create_accumulator(&self) -> Self::Accumulator {
        (number::<V>(0), V::Tally::default())
    }

    fn add(&self, value: u64, (most, tally): &mut Self::Accumulator) {
        tally.count();
        if most.clone().into() < value as i64 {
            *most = number::<V>(value);
        }
    }

    fn get_result(&self, (most, tally): &Self::Accumulator) -> i64 {
        most.clone().into() * 1000 + tally.counted() as i64
    }
}

fn number<V: Version>(number: u64) -> V::Number {
    number.try_into().expect("the numbers are small")
}

#[derive(Clone)]
struct EveryKind<V: Version> {
    value: ValueState<V::Tally>,
    expiring: ValueState<V::Tally>,
    list: ListState<V::Number>,
    map: MapState<u64, V::Tally>,
    sum: ReducingState<V::Number>,
    most: AggregatingState<Most<V>>,
}

impl<V: Version> KeyedMapFunction<u64, (u64, Told)> for EveryKind<V> {
    fn open(&mut self, context: &mut KeyedContext<'_>) -> FunctionResult {
        self.value = context.value_state("value", V::Tally::default())?;
        let day = StateTtlConfig::new(Duration::from_secs(86_400));
        self.expiring = context.with_ttl(day).value_state("expiring", V::Tally::default())?;
        self.list = context.list_state("list")?;
        self.map = context.map_state("map")?;
        self.sum = context.reducing_state("sum", |one: V::Number, other: V::Number| {
            number::<V>((one.into() + other.into()) as u64)
        })?;
        self.most = context.aggregating_state("most", Most::default())?;
        Ok(())
    }

    fn map(&mut self, record: u64) -> FunctionResult<(u64, Told)> {
        self.value.modify(Tally::count)?;
        self.expiring.modify(Tally::count)?;
        self.list.add(number::<V>(record))?;
        let mut tally = self.map.get(&(record % 3))?.unwrap_or_default();
        tally.count();
        self.map.put(record % 3, tally)?;
        self.sum.add(number::<V>(record))?;
        self.most.add(record)?;
        let mut list: Vec<i64> = self.list.get()?.into_iter().map(Into::into).collect();
        list.sort_unstable();
        let told = Told {
            value: self.value.get()?.counted(),
            expiring: self.expiring.get()?.counted(),
            list,
            map: self.map.entries()?.into_iter().map(|(key, tally)| (key, tally.counted())).collect(),
            sum: self.sum.get()?.map(Into::into),
            most: self.most.get()?,
        };
        Ok((record % KEYS, told))
    }
}

/// Counts what passes in an operator list, and in an item of its own in a union list.
#[derive(Clone)]
struct Passed<V: Version> {
    list: Option<OperatorListState<V::Tally>>,
    union: Option<OperatorListState<V::Tally>>,
    /// How many the items of the union list had counted that were there.
    restored: u64,
    has_own: bool,
    kept: Kept,
}

impl<V: Version> Passed<V> {
    fn new(kept: Kept) -> Self {
        Self { list: None, union: None, restored: 0, has_own: false, kept }
    }
}

fn counted<T: Tally>(list: Option<&OperatorListState<T>>) -> u64 {
    list.into_iter().flat_map(OperatorListState::get).map(|tally| tally.counted()).sum()
}

impl<V: Version> MapFunction<u64, u64> for Passed<V> {
    fn open(&mut self, context: &mut RuntimeContext<'_>) -> FunctionResult {
        self.list = Some(context.operator_state().list("passed")?);
        self.union = Some(context.operator_state().union_list("all that passed")?);
        self.restored = counted(self.union.as_ref());
        Ok(())
    }

    fn map(&mut self, record: u64) -> FunctionResult<u64> {
        let list = self.list.as_ref().ok_or("not open")?;
        let mut tally = list.get().pop().unwrap_or_default();
        tally.count();
        list.update(vec![tally]);
        let union = self.union.as_ref().ok_or("not open")?;
        let mut tallies = union.get();
        let mut own = if self.has_own { tallies.pop().unwrap_or_default() } else { V::Tally::default() };
        own.count();
        tallies.push(own);
        union.update(tallies);
        self.has_own = true;
        Ok(record)
    }

    fn close(&mut self) -> FunctionResult {
        let mut kept = self.kept.0.lock().unwrap();
        kept.passed += counted(self.list.as_ref());
        // Every subtask has all that was there.
        kept.own += counted(self.union.as_ref()) - self.restored;
        kept.restored = kept.restored.max(self.restored);
        Ok(())
    }
}

/// Counts what it hears in broadcast state.
#[derive(Clone)]
struct Heard<V: Version> {
    tallies: ReadOnlyBroadcastState<u64, V::Tally>,
    kept: Kept,
}

impl<V: Version> BroadcastProcessFunction<u64, u64, u64> for Heard<V> {
    fn open(&mut self, context: &mut RuntimeContext<'_>) -> FunctionResult {
        self.tallies = context.broadcast_state("heard")?;
        Ok(())
    }

    fn process_element(
        &mut self,
        record: u64,
        _context: &ProcessContext<'_>,
        out: &mut Collector<u64>,
    ) -> FunctionResult {
        out.collect(record);
        Ok(())
    }

    fn process_broadcast_element(
        &mut self,
        record: u64,
        context: &BroadcastContext<'_>,
        _out: &mut Collector<u64>,
    ) -> FunctionResult {
        let tallies = context.broadcast_state(&self.tallies)?;
        let mut tally = tallies.get(&(record % 3)).unwrap_or_default();
        tally.count();
        tallies.put(record % 3, tally);
        Ok(())
    }

    fn close(&mut self) -> FunctionResult {
        let counted = self.tallies.with(|all| all.iter().map(|(key, tally)| (*key, tally.counted())).collect());
        // What was not opened has heard nothing.
        if let Ok(counted) = counted {
            self.kept.0.lock().unwrap().heard.insert(counted);
        }
        Ok(())
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Output {
    /// The last that each key told.
    told: BTreeMap<u64, Told>,
    passed: u64,
    /// Of the union list: what the subtasks have counted themselves, and what was there before.
    own: u64,
    restored: u64,
    /// What the subtasks have heard: all of them the same.
    heard: BTreeSet<BTreeMap<u64, u64>>,
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Output>>);

impl Sink for Kept {
    type Record = (u64, Told);
    type Committable = NoCommittable;

    fn create_writer(&self, _context: &mut WriterContext) -> Result<Box<dyn SinkWriter<(u64, Told)>>> {
        Ok(Box::new(self.clone()))
    }

    fn create_committer(&self, _context: &CommitterContext) -> Result<Box<dyn Committer<NoCommittable>>> {
        Ok(Box::new(NoCommitter))
    }
}

impl SinkWriter<(u64, Told)> for Kept {
    fn write(&mut self, records: Vec<(u64, Told)>) -> Result<()> {
        self.0.lock().unwrap().told.extend(records);
        Ok(())
    }

    fn prepare_commit(&mut self) -> Result<Vec<NoCommittable>> {
        Ok(Vec::new())
    }
}

/// Runs a version of the program.
fn run<V: Version>(
    mut env: StreamExecutionEnvironment,
    parallelism: u32,
    end: u64,
    fails: bool,
) -> (Result<()>, Output) {
    env.set_parallelism(parallelism).set_restart_strategy(RestartStrategy::None);
    env.enable_checkpointing(Duration::from_millis(20));
    // The first run fails, as it is to.
    env.configure("log.level", "off");
    let kept = Kept::default();
    let passed = env
        .from_source(Numbers::<V> { end, fails, version: PhantomData }, "numbers")
        .uid("numbers")
        .map_with(Passed::<V>::new(kept.clone()))
        .uid("passed");
    passed
        .connect(&passed.broadcast())
        .process(Heard::<V> { tallies: ReadOnlyBroadcastState::default(), kept: kept.clone() })
        .uid("heard")
        .key_by(|record| record % KEYS)
        .map(EveryKind::<V> {
            value: ValueState::default(),
            expiring: ValueState::default(),
            list: ListState::default(),
            map: MapState::default(),
            sum: ReducingState::default(),
            most: AggregatingState::default(),
        })
        .uid("every kind")
        .sink_to(kept.clone())
        .uid("kept");
    let ended = env.execute("evolution").map(drop);
    let output = kept.0.lock().unwrap().clone();
    (ended, output)
}

/// The last checkpoint of the only job that has any in the directory.
fn newest(checkpoints: &Path) -> String {
    let inside = |path: &Path| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let [job] = &inside(checkpoints)[..] else { panic!("one job: {:?}", inside(checkpoints)) };
    let number = |path: &Path| path.file_name()?.to_str()?.strip_prefix("chk-")?.parse::<u64>().ok();
    let complete = inside(job).into_iter().filter(|path| path.join("_metadata").is_file());
    let newest = complete.max_by_key(|path| number(path)).expect("there is a checkpoint");
    format!("file://{}", newest.display())
}

fn changes_on(choose_backend: impl Fn(&mut StreamExecutionEnvironment, &Path)) {
    let env = |directory: &Path| {
        let mut env = StreamExecutionEnvironment::new();
        env.configure("state.checkpoints.dir", format!("file://{}", directory.join("checkpoints").display()));
        choose_backend(&mut env, directory);
        env
    };
    let [whole, first, second, third] = [0; 4].map(|_| tempfile::tempdir().unwrap());
    let (ended, meant) = run::<After>(env(whole.path()), 1, NUMBERS, false);
    ended.unwrap();
    assert_eq!((meant.told.len() as u64, meant.passed, meant.own, meant.restored), (KEYS, 2 * NUMBERS, 2 * NUMBERS, 0));
    let of_rest = |rest: u64| 2 * (0..NUMBERS).filter(|number| number % 3 == rest).count() as u64;
    assert_eq!(meant.heard, [(0..3).map(|rest| (rest, of_rest(rest))).collect()].into());
    let per_key = 2 * NUMBERS / KEYS;
    assert!(meant.told.values().all(|told| told.value == per_key && told.list.len() as u64 == per_key), "{meant:?}");

    let (ended, halfway) = run::<Before>(env(first.path()), 1, HALF, true);
    assert!(ended.unwrap_err().message.contains(HALFWAY));
    assert!(halfway.told.values().all(|told| told.value == per_key / 2), "{halfway:?}");
    let checkpoint = newest(&first.path().join("checkpoints"));

    let mut changed = env(second.path());
    changed.configure("execution.state-recovery.path", &checkpoint);
    let (ended, output) = run::<After>(changed, 2, NUMBERS, false);
    ended.unwrap();
    assert_eq!((output.own, output.restored), (2 * (NUMBERS - HALF), 2 * HALF));
    assert_eq!(Output { own: meant.own, restored: 0, ..output }, meant);

    let mut unfit = env(third.path());
    unfit.configure("execution.state-recovery.path", &checkpoint);
    let (ended, output) = run::<Unfit>(unfit, 1, NUMBERS, false);
    let refused = ended.unwrap_err();
    for part in ["{count: u16, note: str}", "{count: str}", "u16 can't become str"] {
        assert!(refused.message.contains(part), "{part} is not in: {refused}");
    }
    assert!(!refused.retryable && output == Output::default(), "before the first record");
}

#[test]
fn types_change_in_memory() {
    changes_on(|env, _| {
        env.set_state_backend(MemoryStateBackend::default());
    });
}

#[test]
fn types_change_on_the_filesystem() {
    changes_on(|env, directory| {
        env.set_state_backend(FsStateBackend::new(format!("file://{}", directory.join("checkpoints").display())));
    });
}

#[test]
fn types_change_on_a_backend_of_the_users() {
    changes_on(|env, _| {
        env.register_state_backend(BTreeStateBackend).configure("state.backend", "btree");
    });
}

#[cfg(feature = "rocksdb")]
#[test]
fn types_change_in_rocksdb_from_full_and_from_incremental_checkpoints() {
    for incremental in [false, true] {
        changes_on(|env, directory| {
            let checkpoints = format!("file://{}", directory.join("checkpoints").display());
            let backend = RocksDBStateBackend::new(checkpoints).with_local_directory(directory.join("local"));
            env.set_state_backend(backend.with_memory_size(16 << 20).with_incremental_checkpoints(incremental));
        });
    }
}
