//! Several incarnations race over one store, as a seed tells them.

use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::*;

/// What the random schedules found, for the tests to ask whether they have met everything.
#[derive(Debug, Default)]
struct Met {
    lost_answers: usize,
    stale_creates_that_succeeded: usize,
    fenced: usize,
    resumed: usize,
    taken_up: usize,
    violation: Option<String>,
}

/// Several incarnations race over one store; requests are lost, delayed, doubled; writers crash.
fn race(seed: u64, checks: ProtocolChecks, met: &mut Met) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut store = Store::default();
    let mut writers: Vec<Writer> = Vec::new();
    let mut delayed: Vec<StoreOp> = Vec::new();
    // What some leader was told to be in the log, in the order in which it was told.
    let mut announced: Vec<(Generation, u64)> = Vec::new();
    for step in 0..300u128 {
        if writers.len() < 3 || (writers.len() < 5 && random.random_ratio(1, 30)) {
            writers.push(Writer { deployment: step as u64, ..Writer::with(step + 1, checks) });
        }
        let index = random.random_range(0..writers.len());
        let crashed = random.random_ratio(1, 100);
        let writer = &mut writers[index];
        if writer.paused_until > step {
            continue;
        }
        if !writer.is_busy() {
            start_something(writer, &mut random);
        }
        // Some stand still before a create: long enough for others to trim its place away.
        if matches!(writer.waiting, Some((_, StoreOp::Create { .. })))
            && writer.paused_until == 0
            && random.random_ratio(1, 4)
        {
            writer.paused_until = step + random.random_range(20..120);
            continue;
        }
        let is_stale_create = |writer: &Writer, store: &Store| match &writer.waiting {
            Some((_, StoreOp::Create { position, .. })) => {
                !store.0.contains_key(position) && store.0.keys().next_back().is_some_and(|last| last > position)
            }
            _ => false,
        };
        match random.random_range(0..20) {
            _ if !writer.is_busy() => {}
            0 => {
                met.lost_answers += 1;
                writer.lose_answer(&mut store);
            }
            1 => {
                delayed.extend(writer.waiting.clone().map(|(_, op)| op));
                writer.give_up();
                met.resumed += usize::from(writer.protocol.in_doubt().next().is_some());
            }
            2 => delayed.extend(writer.waiting.clone().map(|(_, op)| op)),
            _ => {
                met.stale_creates_that_succeeded += usize::from(is_stale_create(writer, &store));
                writer.advance(&mut store);
            }
        }
        match writer.outcome.take() {
            Some(Outcome::Claimed { .. }) => {
                let before = writer.protocol.view().entries().rev().nth(1);
                met.taken_up += usize::from(before.is_some_and(|entry| entry.terminal().is_some()));
            }
            Some(Outcome::Ended(_)) => drop(writers.remove(index)),
            Some(Outcome::Appended { position, .. }) => {
                announced.push((writer.protocol.generation().unwrap_or_default(), position));
            }
            Some(Outcome::Fenced { .. }) => {
                met.fenced += 1;
                writers.remove(index);
            }
            Some(Outcome::Refused(error)) => {
                met.violation = Some(format!("seed {seed}: {error}"));
                return;
            }
            _ if crashed => drop(writers.remove(index)),
            _ => {}
        }
        if random.random_ratio(1, 10)
            && let Some(op) = delayed.choose(&mut random)
        {
            // Deletes are not repeated by a network long after: but even these would do no harm.
            store.answer(op);
        }
    }
    met.violation = check_history(&mut store, &announced).map(|what| format!("seed {seed}: {what}"));
}

fn start_something(writer: &mut Writer, random: &mut ChaCha8Rng) {
    if writer.protocol.generation().is_none() {
        return writer.start_claim();
    }
    let next = writer.protocol.view().newest_checkpoint().map_or(1, |record| record.id.0 + 1);
    if random.random_ratio(1, 50) {
        return writer.start_append(Append::Terminal(failed(writer.deployment)));
    }
    match random.random_range(0..4) {
        0 => writer.command(Command::AnnounceCheck),
        1 => writer.command(Command::Trim),
        // Before the first checkpoint it counts for nothing: no task could be gone on with.
        2 if next > 1 && random.random_ratio(1, 4) => {
            writer.start_append(Append::Attempt(AttemptRecord { attempt: Attempt(next as u32) }));
        }
        _ => writer.start_append(checkpoint(next)),
    }
}

/// What was announced must be one line of history, whose newest part a new incarnation sees.
fn check_history(store: &mut Store, announced: &[(Generation, u64)]) -> Option<String> {
    if let Some(pair) = announced.windows(2).find(|pair| pair[0].0 > pair[1].0 || pair[0].1 >= pair[1].1) {
        return Some(format!("announced out of order: {pair:?}"));
    }
    let mut last = Writer::of_deployment(u128::from(u32::MAX), u64::MAX);
    if let Outcome::Refused(error) = last.claim(store) {
        return Some(error.message);
    }
    let (generation, newest) = *announced.last()?;
    let told = |entry: &&LogEntry| !matches!(entry.body, LogBody::Generation(_));
    let seen = last.protocol.view().entries().filter(told).map(|entry| entry.position).max();
    (seen < Some(newest)).then(|| format!("entry {newest} of generation {generation} is lost; the newest is {seen:?}"))
}

const SEEDS: u64 = 1500;

#[test]
fn random_schedules_never_break_the_line_of_history() {
    let mut met = Met::default();
    for seed in 0..SEEDS {
        race(seed, ProtocolChecks::default(), &mut met);
        assert_eq!(met.violation, None);
    }
    // Otherwise the test shows nothing.
    let counts = [met.lost_answers, met.stale_creates_that_succeeded, met.fenced, met.resumed];
    assert!(counts.iter().all(|count| *count >= 1000) && met.taken_up >= 100, "{met:?}");
}

#[test]
fn without_any_one_safety_step_random_schedules_break_it() {
    for checks in [ProtocolChecks { fence: false, relist: true }, ProtocolChecks { fence: true, relist: false }] {
        let mut met = Met::default();
        let broken = (0..SEEDS).any(|seed| {
            race(seed, checks, &mut met);
            met.violation.is_some()
        });
        assert!(broken, "{checks:?} was not missed");
    }
}
