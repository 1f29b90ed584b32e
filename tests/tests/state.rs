//! A job with every kind of state fails half way and ends as if it had not; on Millrace's own backend, and on one of the
//! user's that is registered by name.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use millrace::{
    prelude::*,
    sink::{Committer, CommitterContext, NoCommittable, NoCommitter, Sink, SinkWriter, WriterContext},
    source::{Boundedness, EnumeratorContext, ReaderContext, Source, SourceReader, SplitEnumerator},
};
use millrace_testkit::conformance::BTreeStateBackend;
use serde::{Deserialize, Serialize};

const RECORDS: u64 = 3000;
const KEYS: u64 = 20;
const RULES: i64 = 3;

/// What a key has seen, as its states tell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Told {
    fired: u64,
    count: u64,
    sum: u64,
    average: u64,
    list: usize,
    map: usize,
    expiring: u64,
    rules: usize,
}

#[derive(Clone, Default)]
struct AllKinds {
    count: ValueState<u64>,
    fired: ValueState<u64>,
    list: ListState<u64>,
    map: MapState<u64, String>,
    sum: ReducingState<u64>,
    average: AggregatingState<Average>,
    expiring: ValueState<u64>,
    rules: ReadOnlyBroadcastState<i64, String>,
}

#[derive(Clone)]
struct Average;

impl AggregateFunction for Average {
    type In = u64;
    type Accumulator = (u64, u64);
    type Out = u64;

    fn create_accumulator(&self) -> (u64, u64) {
        (0, 0)
    }

    fn add(&self, value: u64, (sum, count): &mut (u64, u64)) {
        *sum += value;
        *count += 1;
    }

    fn get_result(&self, (sum, count): &(u64, u64)) -> u64 {
        sum / count
    }
}

impl KeyedBroadcastProcessFunction<u64, u64, i64, (u64, Told)> for AllKinds {
    fn open(&mut self, context: &mut KeyedContext<'_>) -> FunctionResult {
        self.count = context.value_state("count", 0)?;
        self.fired = context.value_state("fired", 0)?;
        self.list = context.list_state("list")?;
        self.map = context.map_state("map")?;
        self.sum = context.reducing_state("sum", |a, b| a + b)?;
        self.average = context.aggregating_state("average", Average)?;
        let day = StateTtlConfig::new(Duration::from_secs(86_400));
        self.expiring = context.with_ttl(day).value_state("expiring", 0)?;
        self.rules = context.broadcast_state("rules")?;
        Ok(())
    }

    fn process_element(
        &mut self,
        record: u64,
        context: &KeyedProcessContext<'_, u64>,
        _out: &mut Collector<(u64, Told)>,
    ) -> FunctionResult {
        self.count.modify(|count| *count += 1)?;
        self.expiring.modify(|count| *count += 1)?;
        self.list.add(record)?;
        self.map.put(record % 7, record.to_string())?;
        self.sum.add(record)?;
        self.average.add(record)?;
        // Long ago: it fires as soon as it can.
        context.timer_service().register_processing_time_timer(record)?;
        context.timer_service().register_processing_time_timer(record)?;
        Ok(())
    }

    fn process_broadcast_element(
        &mut self,
        rule: i64,
        context: &BroadcastContext<'_>,
        _out: &mut Collector<(u64, Told)>,
    ) -> FunctionResult {
        context.broadcast_state(&self.rules)?.put(rule, format!("rule {rule}"));
        Ok(())
    }

    fn on_timer(
        &mut self,
        timestamp: u64,
        context: &KeyedProcessContext<'_, u64>,
        out: &mut Collector<(u64, Told)>,
    ) -> FunctionResult {
        let key = context.current_key()?;
        assert_eq!(timestamp % KEYS, key, "a timer fires for its key");
        let told = Told {
            fired: self.fired.modify(|fired| {
                *fired += 1;
                *fired
            })?,
            count: self.count.get()?,
            sum: self.sum.get()?.unwrap_or_default(),
            average: self.average.get()?.unwrap_or_default(),
            list: self.list.get()?.len(),
            map: self.map.keys()?.len(),
            expiring: self.expiring.get()?,
            rules: self.rules.with(|rules| rules.len())?,
        };
        out.collect((key, told));
        Ok(())
    }
}

/// Keeps the last that each key told.
#[derive(Clone, Default)]
struct Last(Arc<Mutex<BTreeMap<u64, Told>>>);

impl Sink for Last {
    type Record = (u64, Told);
    type Committable = NoCommittable;

    fn create_writer(&self, _context: &mut WriterContext) -> millrace::Result<Box<dyn SinkWriter<(u64, Told)>>> {
        Ok(Box::new(self.clone()))
    }

    fn create_committer(&self, _context: &CommitterContext) -> millrace::Result<Box<dyn Committer<NoCommittable>>> {
        Ok(Box::new(NoCommitter))
    }
}

impl SinkWriter<(u64, Told)> for Last {
    fn write(&mut self, records: Vec<(u64, Told)>) -> millrace::Result<()> {
        self.0.lock().unwrap().extend(records);
        Ok(())
    }

    fn prepare_commit(&mut self) -> millrace::Result<Vec<NoCommittable>> {
        Ok(Vec::new())
    }
}

/// What the keys would tell at the end of a job that was never interrupted.
fn expected() -> BTreeMap<u64, Told> {
    let of_key = |key| {
        let records: Vec<u64> = (0..RECORDS).filter(|record| record % KEYS == key).collect();
        let (count, sum) = (records.len() as u64, records.iter().sum::<u64>());
        let told = Told {
            fired: count,
            count,
            sum,
            average: sum / count,
            list: records.len(),
            map: 7,
            expiring: count,
            rules: RULES as usize,
        };
        (key, told)
    };
    (0..KEYS).map(of_key).collect()
}

/// Numbers from a generator, whose readers keep in a union list who reads.
struct Numbers {
    generator: GeneratorSource<u64, fn(u64) -> u64>,
    /// How many readers each reader knew of when it was made.
    known: Arc<Mutex<Vec<usize>>>,
}

impl Source for Numbers {
    type Record = u64;
    type Split = <GeneratorSource<u64, fn(u64) -> u64> as Source>::Split;

    fn boundedness(&self) -> Boundedness {
        self.generator.boundedness()
    }

    fn create_enumerator(
        &self,
        context: &EnumeratorContext,
    ) -> millrace::Result<Box<dyn SplitEnumerator<Self::Split>>> {
        self.generator.create_enumerator(context)
    }

    fn create_reader(&self, context: &mut ReaderContext) -> millrace::Result<Box<dyn SourceReader<u64, Self::Split>>> {
        let readers = context.operator_state.union_list("readers")?;
        self.known.lock().unwrap().push(readers.get().len());
        readers.update(vec![context.subtask]);
        self.generator.create_reader(context)
    }

    fn fingerprint(&self) -> Vec<u8> {
        self.generator.fingerprint()
    }
}

/// What a test sees of [`FailOnce`].
#[derive(Default)]
struct Passed {
    failed: AtomicBool,
    /// The first record after the failure.
    resumed_at: AtomicU64,
    /// How many records have passed each subtask.
    by_subtask: Mutex<BTreeMap<u32, u64>>,
}

/// Fails once, two thirds through, and counts what passes in an operator list.
#[derive(Clone)]
struct FailOnce {
    passed: Arc<Passed>,
    subtask: u32,
    count: Option<OperatorListState<u64>>,
}

impl MapFunction<u64, u64> for FailOnce {
    fn open(&mut self, context: &mut RuntimeContext<'_>) -> FunctionResult {
        self.subtask = context.index_of_this_subtask();
        self.count = Some(context.operator_state().list("passed")?);
        Ok(())
    }

    fn map(&mut self, record: u64) -> FunctionResult<u64> {
        if self.passed.failed.load(Ordering::SeqCst) {
            self.passed.resumed_at.fetch_min(record, Ordering::SeqCst);
        } else if record == RECORDS / 3 * 2 {
            self.passed.failed.store(true, Ordering::SeqCst);
            panic!("record {record} fails once");
        }
        let count = self.count.as_ref().ok_or("not open")?;
        count.update(vec![count.get().iter().sum::<u64>() + 1]);
        Ok(record)
    }

    fn close(&mut self) -> FunctionResult {
        let count = self.count.as_ref().map(OperatorListState::get).unwrap_or_default();
        self.passed.by_subtask.lock().unwrap().insert(self.subtask, count.iter().sum());
        Ok(())
    }
}

/// Runs the job; two thirds through, it fails once.
fn run(choose_backend: impl FnOnce(&mut StreamExecutionEnvironment)) {
    let mut env = StreamExecutionEnvironment::new();
    env.set_parallelism(2);
    env.enable_checkpointing(Duration::from_millis(50));
    env.set_restart_strategy(RestartStrategy::FixedDelay { attempts: 3, delay: Duration::from_millis(10) });
    choose_backend(&mut env);
    let passed = Arc::new(Passed { resumed_at: AtomicU64::new(u64::MAX), ..Passed::default() });
    let (known, last) = (Arc::default(), Last::default());
    let generator = GeneratorSource::new((|index| index) as fn(u64) -> u64).count(RECORDS).rate(2000.0);
    let rules = env.from_collection(1..=RULES).name("Source: rules").uid("rules");
    env.from_source(Numbers { generator, known: Arc::clone(&known) }, "numbers")
        .uid("numbers")
        .map_with(FailOnce { passed: Arc::clone(&passed), subtask: 0, count: None })
        .uid("fail once")
        .key_by(|record| record % KEYS)
        .connect(&rules.broadcast())
        .process(AllKinds::default())
        .uid("all kinds")
        .sink_to(last.clone());
    env.execute("every kind of state").unwrap();
    assert!(passed.resumed_at.load(Ordering::SeqCst) > 0, "it went on from a checkpoint");
    assert_eq!(passed.by_subtask.lock().unwrap().values().sum::<u64>(), RECORDS, "an operator list");
    assert_eq!(*known.lock().unwrap(), [0, 0, 2, 2], "a union list");
    assert_eq!(*last.0.lock().unwrap(), expected());
}

#[test]
fn every_kind_of_state_survives_a_failure() {
    run(|_| {});
}

#[test]
fn every_kind_of_state_survives_a_failure_on_a_backend_of_the_users() {
    let directory = tempfile::tempdir().unwrap();
    run(|env| {
        env.register_state_backend(BTreeStateBackend);
        env.configure("state.backend", "btree");
        env.configure("state.checkpoints.dir", format!("file://{}", directory.path().display()));
    });
}

#[cfg(feature = "rocksdb")]
#[test]
fn every_kind_of_state_survives_a_failure_on_rocksdb_in_full_and_in_incremental_checkpoints() {
    for incremental in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let checkpoints = format!("file://{}", directory.path().join("checkpoints").display());
        let backend = RocksDBStateBackend::new(checkpoints).with_local_directory(directory.path().join("local"));
        run(|env| {
            env.set_state_backend(backend.with_memory_size(16 << 20).with_incremental_checkpoints(incremental));
        });
    }
}
