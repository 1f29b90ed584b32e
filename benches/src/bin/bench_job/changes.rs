//! A counter for each of many keys: all are filled, and then changed one after the other, some a second or as fast as it
//! goes.

use clap::Args as ClapArgs;
use millrace::prelude::*;

use crate::{Result, count::Count};

/// How many keys, and how fast they are changed.
#[derive(ClapArgs, Clone)]
pub struct Args {
    /// Different keys.
    #[arg(long)]
    keys: u64,
    /// Changes a second once all are filled; otherwise as fast as it goes.
    #[arg(long)]
    rate: Option<f64>,
}

/// Prime to any number of keys that is no multiple of it: neighbours in time are none in number, and as many records in a
/// row as there are keys have each key once.
const STEP: u64 = 7919;

fn key(index: u64, keys: u64) -> String {
    format!("key-{}", index.wrapping_mul(STEP) % keys)
}

/// Runs the job.
pub fn run(args: &Args) -> Result<()> {
    let env = StreamExecutionEnvironment::new();
    let keys = args.keys;
    let endless = GeneratorSource::new(move |index| key(index, keys));
    let records = match args.rate {
        None => env.from_source(endless, "changes").uid("changes"),
        Some(rate) => {
            let fill = GeneratorSource::new(move |index| key(index, keys)).count(keys);
            let changes = env.from_source(endless.rate(rate), "changes").uid("changes");
            env.from_source(fill, "fill").uid("fill").union(&changes)
        }
    };
    records.key_by_ref(|key| key).flat_map(Count::default()).name("Count").uid("count").sink_to(DiscardingSink::new());
    env.execute("changes")?;
    Ok(())
}
