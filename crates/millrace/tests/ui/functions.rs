//! Closures need no annotations, and a program's own types can be functions beside them.

use millrace::prelude::*;

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
struct Last<T: Clone + Send + Sync + serde::Serialize + serde::de::DeserializeOwned + 'static>(ValueState<Option<T>>);

impl<T: millrace::StateValue> KeyedMapFunction<T, (Option<T>, T)> for Last<T> {
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

fn main() {
    let env = StreamExecutionEnvironment::new();
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
        .try_map(|number| u64::try_from(number));
    numbers.key_by(|number| number % 2).map(Last(ValueState::default())).sink_to(DiscardingSink::new());
    numbers.key_by(|_| 1).reduce(|sum, number| sum + number).print();
    lines.key_by_ref(|line| line.as_str()).filter(|line: &String| line.len() > 1).print();
    lines.key_by_ref(|line| line).flat_map(|line: String, out: &mut Collector<usize>| out.collect(line.len())).print();
}
