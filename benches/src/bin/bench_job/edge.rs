//! An edge between two processes: one makes records, all of which go to a task of the other.

use clap::Args as ClapArgs;
use millrace::prelude::*;

use crate::Result;

/// How many different records.
#[derive(ClapArgs, Clone)]
pub struct Args {
    /// Different records.
    #[arg(long)]
    keys: u64,
}

/// Its key group, 119 of 128, is the second of two subtasks', and which group a key falls into never changes.
const KEY: &str = "b";

#[derive(Clone)]
struct Arrive;

impl KeyedFlatMapFunction<String, String> for Arrive {
    fn flat_map(&mut self, _record: String, _out: &mut Collector<String>) -> FunctionResult {
        Ok(())
    }
}

/// `key-<n>`, as the edge by hand has it.
fn record(index: u64, keys: u64) -> String {
    let mut record = String::with_capacity(16);
    record.push_str("key-");
    record.push_str(itoa::Buffer::new().format(index % keys));
    record
}

/// Runs the job.
pub fn run(args: &Args) -> Result<()> {
    let env = StreamExecutionEnvironment::new();
    let keys = args.keys;
    env.from_source(GeneratorSource::new(move |index| record(index, keys)), "records")
        .set_parallelism(1)
        .uid("records")
        .key_by(|_| KEY.to_owned())
        .flat_map(Arrive)
        .set_parallelism(2)
        .name("Arrive")
        .uid("arrive")
        .sink_to(DiscardingSink::new());
    env.execute("edge")?;
    Ok(())
}
