//! The seeded simulation of checkpoints, coordinator and log, as much of it as fits into a minute, and the proof that it
//! would notice if one of their safety steps were missing.
//!
//! `SIM_SEED=<seed> cargo test -p millrace-tests --test sim -- --nocapture` replays one schedule and prints its steps;
//! `SIM_SECONDS` changes how long the run takes.

use std::time::{Duration, Instant};

use millrace_tests::sim::{Counters, Mutation, REQUIRED, REQUIRED_OF_REGIONS, Seen, report, run};

/// How often each event must have happened.
const AT_LEAST: u64 = 1000;
const AT_LEAST_OF_REGIONS: u64 = 100;

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

#[test]
fn no_schedule_breaks_a_promise() {
    if let Some(seed) = variable("SIM_SEED") {
        let verdict = run(seed, Mutation::None, true);
        println!("{}", verdict.trace.join("\n"));
        assert_eq!(verdict.violation, None);
        return;
    }
    let time = Duration::from_secs(variable("SIM_SECONDS").unwrap_or(45));
    let (start, mut counters, mut seed) = (Instant::now(), Counters::default(), 0);
    // On a slow machine it takes longer rather than proving less.
    let rare = |counters: &Counters| {
        REQUIRED.iter().any(|seen| counters.get(*seen) < AT_LEAST)
            || REQUIRED_OF_REGIONS.iter().any(|seen| counters.get(*seen) < AT_LEAST_OF_REGIONS)
    };
    while start.elapsed() < time || rare(&counters) {
        let verdict = run(seed, Mutation::None, false);
        assert!(verdict.violation.is_none(), "{}", report(seed, Mutation::None));
        counters.add(&verdict.counters);
        seed += 1;
        assert!(start.elapsed() < 10 * time + Duration::from_secs(60), "some events are too rare:\n{counters}");
    }
    assert_eq!(counters.get(Seen::FullSchedule), seed, "a schedule without three tasks, two checkpoints and a crash");
    println!("{seed} schedules in {:?}:\n{counters}", start.elapsed());
}

#[test]
fn a_seed_is_a_schedule() {
    for seed in 0..20 {
        let (first, second) = (run(seed, Mutation::None, true), run(seed, Mutation::None, true));
        assert!(!first.trace.is_empty());
        assert_eq!(first.trace, second.trace);
        assert_eq!(first.counters, run(seed, Mutation::None, false).counters);
    }
}

/// Runs schedules without a safety step until one breaks a promise.
fn is_noticed(mutation: Mutation, within: u64) {
    let found = (0..within).find_map(|seed| run(seed, mutation, false).violation.map(|violation| (seed, violation)));
    let Some((seed, violation)) = found else { panic!("{mutation:?} breaks nothing in {within} schedules") };
    println!("{mutation:?} is noticed by seed {seed}: {violation}");
}

#[test]
fn without_the_fence_promises_are_broken() {
    is_noticed(Mutation::NoFence, 2000);
}

#[test]
fn without_the_second_listing_promises_are_broken() {
    is_noticed(Mutation::NoRelist, 20_000);
}

#[test]
fn without_the_data_in_flight_promises_are_broken() {
    is_noticed(Mutation::NoDataInFlight, 200);
}

#[test]
fn without_the_agreement_of_adopted_tasks_promises_are_broken() {
    is_noticed(Mutation::NoAgreement, 20_000);
}

#[test]
fn without_one_attempt_of_adopted_tasks_promises_are_broken() {
    is_noticed(Mutation::AnyAttempt, 5000);
}

#[test]
fn without_the_look_for_later_attempts_promises_are_broken() {
    is_noticed(Mutation::AnyOlder, 5000);
}

#[test]
fn without_the_mark_of_an_attempt_promises_are_broken() {
    is_noticed(Mutation::NoMark, 5000);
}

#[test]
fn without_alignment_promises_are_broken() {
    is_noticed(Mutation::NoAlignment, 200);
}
