//! A job with all kinds of functions: closures need no annotations, and a program's own types stand beside them.

use std::sync::{Arc, Mutex};

use millrace::{
    Record, StateValue,
    prelude::*,
    sink::{Committer, CommitterContext, NoCommittable, NoCommitter, Sink, SinkWriter, WriterContext},
};

/// Keeps what reaches it.
#[derive(Clone)]
struct Kept<T>(Arc<Mutex<Vec<T>>>);

impl<T: Record + Ord> Kept<T> {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn sorted(&self) -> Vec<T> {
        let mut kept = self.0.lock().unwrap().clone();
        kept.sort();
        kept
    }
}

impl<T: Record> Sink for Kept<T> {
    type Record = T;
    type Committable = NoCommittable;

    fn create_writer(&self, _context: &mut WriterContext) -> millrace::Result<Box<dyn SinkWriter<T>>> {
        Ok(Box::new(self.clone()))
    }

    fn create_committer(&self, _context: &CommitterContext) -> millrace::Result<Box<dyn Committer<NoCommittable>>> {
        Ok(Box::new(NoCommitter))
    }
}

impl<T: Record> SinkWriter<T> for Kept<T> {
    fn write(&mut self, records: Vec<T>) -> millrace::Result<()> {
        self.0.lock().unwrap().extend(records);
        Ok(())
    }

    fn prepare_commit(&mut self) -> millrace::Result<Vec<NoCommittable>> {
        Ok(Vec::new())
    }
}

#[derive(Clone, Default)]
struct Repeat {
    times: usize,
    repeated: Counter,
}

impl FlatMapFunction<String, String> for Repeat {
    fn open(&mut self, context: &mut RuntimeContext<'_>) -> FunctionResult {
        self.repeated = context.metrics().counter("repeated")?;
        let _: OperatorListState<u64> = context.operator_state().union_list("seen")?;
        Ok(())
    }

    fn flat_map(&mut self, record: String, out: &mut Collector<String>) -> FunctionResult {
        self.repeated.inc();
        out.extend(std::iter::repeat_n(record, self.times));
        Ok(())
    }
}

/// A function that is generic in what it takes.
#[derive(Clone)]
struct Last<T: StateValue>(ValueState<Option<T>>);

impl<T: StateValue> KeyedMapFunction<T, (Option<T>, T)> for Last<T> {
    fn open(&mut self, context: &mut KeyedContext<'_>) -> FunctionResult {
        assert!(context.index_of_this_subtask() < context.number_of_parallel_subtasks());
        self.0 = context.value_state("last", None)?;
        Ok(())
    }

    fn map(&mut self, record: T) -> FunctionResult<(Option<T>, T)> {
        let last = self.0.get()?;
        self.0.set(Some(record.clone()))?;
        Ok((last, record))
    }
}

/// Counts letters in a map and keeps words in a list, for each key.
#[derive(Clone, Default)]
struct Letters {
    counts: MapState<char, u32>,
    words: ListState<String>,
}

impl KeyedFlatMapFunction<String, (String, Vec<(char, u32)>)> for Letters {
    fn open(&mut self, context: &mut KeyedContext<'_>) -> FunctionResult {
        self.counts = context.map_state("counts")?;
        self.words = context.list_state("words")?;
        Ok(())
    }

    fn flat_map(&mut self, word: String, out: &mut Collector<(String, Vec<(char, u32)>)>) -> FunctionResult {
        for letter in word.chars() {
            self.counts.put(letter, self.counts.get(&letter)?.unwrap_or(0) + 1)?;
        }
        self.words.add(word)?;
        let mut counts = self.counts.entries()?;
        counts.sort_unstable();
        out.collect((self.words.get()?.join(" "), counts));
        Ok(())
    }
}

#[test]
fn all_kinds_of_functions_run() {
    let mut env = StreamExecutionEnvironment::new();
    env.set_parallelism(2);
    let (lasts, sums, longs, lengths) = (Kept::new(), Kept::new(), Kept::new(), Kept::new());
    let lines = env.from_collection(["1 2".to_string(), "3".to_string()]);
    let numbers = lines
        .flat_map_with(Repeat { times: 2, ..Repeat::default() })
        .filter(|line| !line.is_empty())
        .flat_map(|line, out| {
            for word in line.split(' ') {
                out.collect(word.parse::<i64>()?);
            }
            Ok(())
        })
        .map(|number| number + 1)
        .try_map(u64::try_from);
    numbers.key_by(|number| *number).map(Last(ValueState::default())).sink_to(lasts.clone());
    numbers.key_by(|_| 1).reduce(|sum, number| sum + number).sink_to(sums.clone());
    lines.key_by_ref(|line| line.as_str()).filter(|line: &String| line.len() > 1).sink_to(longs.clone());
    let measure = |line: String, out: &mut Collector<usize>| out.collect(line.len());
    lines.union(&lines.broadcast()).key_by_ref(|line| line).flat_map(measure).sink_to(lengths.clone());
    env.execute("functions").unwrap();

    let last = |number| [(None, number), (Some(number), number)];
    let mut expected: Vec<_> = [2u64, 3, 4].into_iter().flat_map(last).collect();
    expected.sort();
    assert_eq!(lasts.sorted(), expected);
    assert_eq!(sums.sorted().last(), Some(&18));
    assert_eq!(sums.sorted().len(), 6);
    assert_eq!(longs.sorted(), ["1 2"]);
    assert_eq!(lengths.sorted(), [1, 1, 3, 3]);
}

#[test]
fn lists_and_maps_belong_to_their_key() {
    let env = StreamExecutionEnvironment::new();
    let kept = Kept::new();
    env.from_collection(["ab", "xy", "bb"].map(String::from))
        .key_by(|word| word.ends_with('b'))
        .flat_map(Letters::default())
        .sink_to(kept.clone());
    env.execute("letters").unwrap();
    let of = |words: &str, counts: &[(char, u32)]| (words.to_string(), counts.to_vec());
    let expected =
        [of("ab", &[('a', 1), ('b', 1)]), of("ab bb", &[('a', 1), ('b', 3)]), of("xy", &[('x', 1), ('y', 1)])];
    assert_eq!(kept.sorted(), expected);
}

#[test]
fn a_functions_error_fails_the_job_and_says_where() {
    let env = StreamExecutionEnvironment::new();
    let _ = env.from_collection([1i64, 2, 0]).map(|n| 6 / n).name("Divide").print();
    let error = env.execute("divide").unwrap_err();
    for part in ["operator \"Divide\", subtask 1 of 1, records collection@", "record ", "divide by zero"] {
        assert!(error.message.contains(part), "{part} is missing: {error}");
    }
}
