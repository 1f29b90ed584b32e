//! Each index is yielded once, wherever the source is stopped and however it goes on.

use std::{collections::BTreeSet, time::Instant};

use millrace_core::{
    ids::CheckpointId,
    source::{ReadStatus, SourceSplit},
};
use proptest::prelude::*;

use super::*;

type Reader = Box<dyn SourceReader<u64, GeneratorSplit>>;

fn discover(source: &impl Source<Split = GeneratorSplit>, parallelism: u32) -> Vec<GeneratorSplit> {
    let mut enumerator = source.create_enumerator(&EnumeratorContext { parallelism }).unwrap();
    enumerator.discover(&BTreeSet::new(), Discovery::Initial).unwrap()
}

/// Readers, the splits dealt out to them in turn.
fn readers(
    source: &impl Source<Record = u64, Split = GeneratorSplit>,
    splits: Vec<GeneratorSplit>,
    parallelism: u32,
) -> Vec<Reader> {
    let mut dealt: Vec<Vec<_>> = (0..parallelism).map(|_| vec![]).collect();
    for (i, split) in splits.into_iter().enumerate() {
        dealt[i % parallelism as usize].push(split);
    }
    let make = |(subtask, splits): (usize, Vec<_>)| {
        let operator_state = Default::default();
        let mut context = ReaderContext { subtask: subtask as u32, parallelism, operator_state };
        let mut reader = source.create_reader(&mut context).unwrap();
        reader.add_splits(splits).unwrap();
        reader.no_more_splits();
        reader
    };
    dealt.into_iter().enumerate().map(make).collect()
}

fn snapshot(readers: Vec<Reader>) -> Vec<GeneratorSplit> {
    readers.into_iter().flat_map(|mut reader| reader.snapshot(CheckpointId(1)).unwrap()).collect()
}

fn finish(readers: Vec<Reader>, out: &mut Vec<u64>) {
    for mut reader in readers {
        while reader.read(1000, Duration::ZERO, out).unwrap() != ReadStatus::Finished {}
    }
}

#[test]
fn a_single_reader_yields_in_order() {
    let source = GeneratorSource::new(|index| index).count(200_000);
    let mut out = Vec::new();
    finish(readers(&source, discover(&source, 1), 1), &mut out);
    assert!(out.iter().copied().eq(0..200_000));
}

#[test]
fn a_small_count_is_shared_by_all_readers() {
    let source = GeneratorSource::new(|index| index).count(128);
    for reader in readers(&source, discover(&source, 4), 4) {
        let mut out = Vec::new();
        finish(vec![reader], &mut out);
        assert_eq!(out.len(), 32);
    }
}

#[test]
fn more_subtasks_than_usual_have_a_split_each() {
    let source = GeneratorSource::new(|index| index);
    let ids: BTreeSet<_> = discover(&source, 100).iter().map(SourceSplit::split_id).collect();
    assert_eq!(ids.len(), 100);
}

#[test]
fn splits_of_a_restored_job_are_not_made_again() {
    let source = GeneratorSource::new(|index| index);
    let mut enumerator = source.create_enumerator(&EnumeratorContext { parallelism: 100 }).unwrap();
    let known = discover(&source, 1).iter().map(SourceSplit::split_id).collect();
    assert_eq!(enumerator.discover(&known, Discovery::Later).unwrap(), []);
}

#[test]
fn an_empty_count_finishes_at_once() {
    let source = GeneratorSource::new(|index| index).count(0);
    let mut out = Vec::new();
    finish(readers(&source, discover(&source, 2), 2), &mut out);
    assert!(out.is_empty());
}

#[test]
fn positions_are_named() {
    let source = GeneratorSource::new(|index| index).count(100_000);
    let mut reader = readers(&source, discover(&source, 1), 1).remove(0);
    reader.read(120, Duration::ZERO, &mut Vec::new()).unwrap();
    reader.read(63, Duration::ZERO, &mut Vec::new()).unwrap();
    assert_eq!(reader.position(), "generator@120..183");
}

#[test]
fn a_rate_is_not_exceeded_and_no_call_outlasts_its_wait() {
    let source = GeneratorSource::new(|index| index).rate(1000.0);
    let mut readers = readers(&source, discover(&source, 2), 2);
    let (mut out, start) = (Vec::new(), Instant::now());
    while out.len() < 200 {
        for reader in &mut readers {
            let called = Instant::now();
            reader.read(100, Duration::from_millis(5), &mut out).unwrap();
            assert!(called.elapsed() < Duration::from_secs(1));
        }
    }
    assert!(start.elapsed() >= Duration::from_millis(190), "200 records at 1000/s in {:?}", start.elapsed());
}

#[test]
fn a_rate_of_one_in_an_hour_does_not_block() {
    let source = GeneratorSource::new(|index| index).rate(1.0 / 3600.0);
    let mut reader = readers(&source, discover(&source, 1), 1).remove(0);
    let mut out = Vec::new();
    assert_eq!(reader.read(100, Duration::from_millis(1), &mut out).unwrap(), ReadStatus::Idle);
    assert!(out.is_empty());
}

#[test]
fn senseless_rates_are_refused() {
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let source = GeneratorSource::new(|index| index).rate(rate);
        let error = source.create_enumerator(&EnumeratorContext { parallelism: 1 }).err().unwrap();
        assert!(!error.retryable && error.message.contains(&rate.to_string()), "{error}");
    }
}

proptest! {
    /// Stopped after any number of reads of any size, and gone on at any other parallelism, repeatedly.
    #[test]
    fn each_index_once_across_restarts_and_parallelisms(
        count in 0_u64..20_000,
        runs in prop::collection::vec((1_u32..7, prop::collection::vec((0_usize..7, 0_usize..3000), 0..8)), 1..4),
        last in 1_u32..7,
    ) {
        let source = GeneratorSource::new(|index| index).count(count);
        let mut splits = discover(&source, runs[0].0);
        let mut out = Vec::new();
        for (parallelism, reads) in runs {
            let mut readers = readers(&source, splits, parallelism);
            for (reader, max) in reads {
                let reader = reader % readers.len();
                readers[reader].read(max, Duration::ZERO, &mut out).unwrap();
            }
            splits = snapshot(readers);
        }
        finish(readers(&source, splits, last), &mut out);
        out.sort_unstable();
        prop_assert!(out.iter().copied().eq(0..count));
    }
}
