//! Counts the words in a Kafka topic and prints each with its count so far.

use std::{process::exit, time::Duration};

use millrace::{connectors::kafka::StartingOffsets, prelude::*};

#[derive(Clone, Default)]
struct CountWords {
    count: ValueState<u64>,
}

impl KeyedFlatMapFunction<String, String> for CountWords {
    fn open(&mut self, context: &mut KeyedContext<'_>) -> FunctionResult {
        self.count = context.value_state("count", 0)?;
        Ok(())
    }

    fn flat_map(&mut self, word: String, out: &mut Collector<String>) -> FunctionResult {
        let count = self.count.modify(|count| {
            *count += 1;
            *count
        })?;
        out.collect(format!("{word} {count}"));
        Ok(())
    }
}

fn main() -> Result<(), Error> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [brokers, topic] = arguments.as_slice() else {
        eprintln!("usage: word-count BROKERS TOPIC");
        exit(2);
    };
    let source = KafkaSource::strings()
        .bootstrap_servers(brokers)
        .topics([topic])
        .group_id("word-count")
        .starting_offsets(StartingOffsets::Earliest)
        .build()?;

    let mut env = StreamExecutionEnvironment::new();
    env.enable_checkpointing(Duration::from_secs(1));
    env.from_source(source, topic)
        .uid("lines")
        .flat_map(|line, out| out.extend(line.split_whitespace().map(String::from)))
        .uid("words")
        .key_by_ref(|word| word)
        .flat_map(CountWords::default())
        .name("Count words")
        .uid("count-words")
        .print()
        .uid("print");
    env.execute("word count")?;
    Ok(())
}
