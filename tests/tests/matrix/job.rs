//! The golden job: all kinds of state, timers and broadcast, in one.

use std::{collections::BTreeMap, time::Duration};

use millrace::{
    Clock, OperatorListState,
    prelude::*,
    sink::{Committer, CommitterContext, NoCommittable, NoCommitter, Sink, SinkWriter, WriterContext},
};
use serde::{Deserialize, Serialize};

use crate::{
    director::{Director, END, LATER},
    source::Numbers,
};

/// Of the main input.
pub const RECORDS: u64 = 560;
/// After how many of them the checkpoint is taken.
pub const HALF: u64 = RECORDS / 2;
/// Each is in one split, so that its records have an order.
pub const KEYS: u64 = 35;
/// Of the broadcast input; half of them come in the first half.
pub const RULES: u64 = 8;
/// The numbers' splits.
const SPLITS: u64 = 7;
/// What is written in the first half has expired at [`END`], what is written in the second has not.
const TTL: Duration = Duration::from_secs(17);

/// What a key has in state, told for each record and each timer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub key: String,
    pub timer: Option<u64>,
    pub last: Option<Last>,
    pub list: Vec<u64>,
    pub map: BTreeMap<u64, String>,
    pub least: Option<u64>,
    pub average: Option<u64>,
    pub expiring: u64,
    pub expiring_map: BTreeMap<u64, u64>,
    /// Only timers tell it: where among a half's records a rule arrives is open.
    pub rules: BTreeMap<u64, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    pub count: u64,
    pub record: Option<u64>,
    pub text: String,
}

pub fn key_of(record: u64) -> String {
    format!("key {}", record % KEYS)
}

pub fn rule(number: u64) -> String {
    format!("rule {number}")
}

#[derive(Clone)]
struct AllKinds {
    director: Director,
    last: ValueState<Last>,
    list: ListState<u64>,
    map: MapState<u64, String>,
    least: ReducingState<u64>,
    average: AggregatingState<Average>,
    expiring: ValueState<u64>,
    expiring_map: MapState<u64, u64>,
    rules: ReadOnlyBroadcastState<u64, String>,
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

impl AllKinds {
    fn tell(&self, key: String, timer: Option<u64>) -> FunctionResult<Told> {
        let rules = match timer {
            None => BTreeMap::new(),
            Some(_) => self.rules.with(|rules| rules.iter().map(|(rule, text)| (*rule, text.clone())).collect())?,
        };
        Ok(Told {
            key,
            timer,
            last: Some(self.last.get()?),
            list: self.list.get()?,
            map: self.map.entries()?.into_iter().collect(),
            least: self.least.get()?,
            average: self.average.get()?,
            expiring: self.expiring.get()?,
            expiring_map: self.expiring_map.entries()?.into_iter().collect(),
            rules,
        })
    }
}

impl KeyedBroadcastProcessFunction<String, u64, u64, Told> for AllKinds {
    fn open(&mut self, context: &mut KeyedContext<'_>) -> FunctionResult {
        self.last = context.value_state("last", Last::default())?;
        self.list = context.list_state("list")?;
        self.map = context.map_state("map")?;
        self.least = context.reducing_state("least", |one: u64, other| one.min(other))?;
        self.average = context.aggregating_state("average", Average)?;
        let ttl = StateTtlConfig::new(TTL);
        self.expiring = context.with_ttl(ttl).value_state("expiring", 0)?;
        self.expiring_map = context.with_ttl(ttl).map_state("expiring map")?;
        self.rules = context.broadcast_state("rules")?;
        Ok(())
    }

    fn process_element(
        &mut self,
        record: u64,
        context: &KeyedProcessContext<'_, String>,
        out: &mut Collector<Told>,
    ) -> FunctionResult {
        self.last.modify(|last| {
            *last = Last { count: last.count + 1, record: Some(record), text: "x".repeat(record as usize % 9) }
        })?;
        self.list.add(record)?;
        self.map.put(record % 13, record.to_string())?;
        self.least.add(RECORDS - record)?;
        self.average.add(record)?;
        // In the second half only some keys write it again.
        if record < HALF || (record % KEYS).is_multiple_of(2) {
            self.expiring.modify(|count| *count += 1)?;
        }
        self.expiring_map.put(record, record + 1)?;
        let timers = context.timer_service();
        if record < HALF {
            // All records of a key register the same.
            timers.register_processing_time_timer(LATER)?;
            timers.register_processing_time_timer(END - 1)?;
            timers.register_processing_time_timer(END - 2)?;
        } else {
            timers.register_processing_time_timer(END)?;
            timers.delete_processing_time_timer(END - 2)?;
        }
        out.collect(self.tell(context.current_key()?, None)?);
        Ok(())
    }

    fn process_broadcast_element(
        &mut self,
        number: u64,
        context: &BroadcastContext<'_>,
        _out: &mut Collector<Told>,
    ) -> FunctionResult {
        context.broadcast_state(&self.rules)?.put(number, rule(number));
        self.director.rule();
        Ok(())
    }

    fn on_timer(
        &mut self,
        timestamp: u64,
        context: &KeyedProcessContext<'_, String>,
        out: &mut Collector<Told>,
    ) -> FunctionResult {
        out.collect(self.tell(context.current_key()?, Some(timestamp))?);
        Ok(())
    }
}

/// Keeps some of the records that pass in operator lists: one that is dealt out again, and one that all get.
#[derive(Clone)]
struct Lists {
    director: Director,
    states: Option<(OperatorListState<u64>, OperatorListState<u64>)>,
}

impl MapFunction<u64, u64> for Lists {
    fn open(&mut self, context: &mut RuntimeContext<'_>) -> FunctionResult {
        let store = context.operator_state();
        let (list, union) = (store.list("list")?, store.union_list("union")?);
        self.director.union(union.get());
        union.update(Vec::new());
        self.states = Some((list, union));
        Ok(())
    }

    fn map(&mut self, record: u64) -> FunctionResult<u64> {
        let (list, union) = self.states.as_ref().ok_or("not open")?;
        if record.is_multiple_of(5) {
            list.add(record);
        }
        if record.is_multiple_of(9) {
            union.add(record);
        }
        Ok(record)
    }

    fn close(&mut self) -> FunctionResult {
        if let Some((list, _)) = &self.states {
            self.director.list(list.get());
        }
        Ok(())
    }
}

/// Gives the director what it gets.
struct ToDirector(Director);

impl Sink for ToDirector {
    type Record = Told;
    type Committable = NoCommittable;

    fn create_writer(&self, _context: &mut WriterContext) -> millrace::Result<Box<dyn SinkWriter<Told>>> {
        Ok(Box::new(Self(self.0.clone())))
    }

    fn create_committer(&self, _context: &CommitterContext) -> millrace::Result<Box<dyn Committer<NoCommittable>>> {
        Ok(Box::new(NoCommitter))
    }
}

impl SinkWriter<Told> for ToDirector {
    fn write(&mut self, records: Vec<Told>) -> millrace::Result<()> {
        self.0.told(records);
        Ok(())
    }

    fn prepare_commit(&mut self) -> millrace::Result<Vec<NoCommittable>> {
        Ok(Vec::new())
    }
}

/// Runs the job to its end, or half-way. How it ended is for the caller to judge.
pub fn run(mut env: StreamExecutionEnvironment, director: &Director, clock: Clock) -> Result<(), Error> {
    env.set_clock(clock).set_restart_strategy(RestartStrategy::None);
    let numbers = |count, splits| Numbers { count, splits, director: director.clone() };
    let rules = env.from_source(numbers(RULES, 2), "rules").uid("rules").broadcast();
    env.from_source(numbers(RECORDS, SPLITS), "numbers")
        .uid("numbers")
        .map_with(Lists { director: director.clone(), states: None })
        .uid("lists")
        .key_by(|record| key_of(*record))
        .connect(&rules)
        .process(AllKinds {
            director: director.clone(),
            last: ValueState::default(),
            list: ListState::default(),
            map: MapState::default(),
            least: ReducingState::default(),
            average: AggregatingState::default(),
            expiring: ValueState::default(),
            expiring_map: MapState::default(),
            rules: ReadOnlyBroadcastState::default(),
        })
        .uid("all kinds")
        .sink_to(ToDirector(director.clone()))
        .uid("told");
    env.execute("golden").map(|_| ())
}
