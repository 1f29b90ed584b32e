//! What the engine does most often, each by itself: `cargo bench -p millrace-runtime` for times.
//!
//! `micro --count NAME` does one of them a few times in `counted_round`, for callgrind to count its instructions:
//! `scripts/count-instructions.sh`.

mod alignment;
mod channel;
mod exchange;
mod keyed_state;

use std::cell::RefCell;

use divan::{Bencher, counter::ItemsCount};

/// Something that is done again and again.
trait Workload {
    /// Gets ready for another round; not measured.
    fn prepare(&mut self) {}

    /// One round.
    fn round(&mut self);

    /// How many there are of what is counted in a round: records, batches or barriers.
    fn units(&self) -> usize;
}

/// Makes a workload.
type Make = fn() -> Box<dyn Workload>;

/// All of them by name.
const WORKLOADS: &[(&str, Make)] = &[
    ("channel", || Box::new(channel::Hops::new())),
    ("alignment", || Box::new(alignment::Barriers::new())),
    ("partition", || Box::new(exchange::Partition::new())),
    ("encode", || Box::new(exchange::Encode::new())),
    ("decode", || Box::new(exchange::Decode::new())),
    ("keyed-state", || Box::new(keyed_state::Modify::new())),
    ("snapshot", || Box::new(keyed_state::Snapshot::new())),
];

/// So many records make a batch.
const BATCH: usize = 1024;
/// So many rounds are counted.
const COUNTED: usize = 8;

fn main() {
    let args: Vec<_> = std::env::args().collect();
    match args.iter().position(|arg| arg == "--count") {
        Some(at) => count(args.get(at + 1).map(String::as_str).unwrap_or_default()),
        None => divan::main(),
    }
}

#[divan::bench(args = names(), sample_size = 1)]
fn round(bencher: Bencher<'_, '_>, name: &str) {
    let workload = RefCell::new(make(name));
    let units = workload.borrow().units();
    bencher
        .counter(ItemsCount::new(units))
        .with_inputs(|| workload.borrow_mut().prepare())
        .bench_local_values(|()| workload.borrow_mut().round());
}

fn names() -> impl Iterator<Item = &'static str> {
    WORKLOADS.iter().map(|(name, _)| *name)
}

fn make(name: &str) -> Box<dyn Workload> {
    match WORKLOADS.iter().find(|(known, _)| *known == name) {
        Some((_, make)) => make(),
        None => panic!("there is no {name:?}, there are {:?}", names().collect::<Vec<_>>()),
    }
}

/// Prints how many units callgrind counts the instructions of.
fn count(name: &str) {
    let mut workload = make(name);
    // What is made at the first use does not count.
    workload.prepare();
    workload.round();
    for _ in 0..COUNTED {
        workload.prepare();
        counted_round(&mut *workload);
    }
    println!("units={}", COUNTED * workload.units());
}

#[inline(never)]
fn counted_round(workload: &mut dyn Workload) {
    workload.round();
}

/// `key-<n>`, as the keyed count's.
fn key(number: u64) -> String {
    format!("key-{}", mix(number) % 1_000_000)
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
