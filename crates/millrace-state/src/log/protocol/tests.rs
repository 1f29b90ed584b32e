//! The protocol against a store in memory, one interleaving at a time.

mod race;

use std::collections::BTreeMap;

use millrace_core::ids::Attempt;

use super::*;
use crate::log::entry::{TerminalResult, tests::record};

const JOB: JobId = JobId(0xbeef);

/// A store that is never wrong.
#[derive(Default)]
struct Store(BTreeMap<u64, Vec<u8>>);

impl Store {
    fn answer(&mut self, op: &StoreOp) -> Answer {
        match op {
            StoreOp::List { from } => Answer::Listed(self.0.range(from..).map(|(position, _)| *position).collect()),
            StoreOp::Read(position) => Answer::Read(self.0.get(position).cloned()),
            StoreOp::Create { position, .. } if self.0.contains_key(position) => Answer::AlreadyExists,
            StoreOp::Create { position, bytes } => {
                self.0.insert(*position, bytes.clone());
                Answer::Created
            }
            StoreOp::Delete(position) => {
                self.0.remove(position);
                Answer::Deleted
            }
        }
    }

    fn entries(&self) -> Vec<LogEntry> {
        self.0.iter().map(|(position, bytes)| LogEntry::decode(JOB, *position, bytes).unwrap()).collect()
    }
}

/// An incarnation, and the request it waits for.
struct Writer {
    protocol: LogProtocol,
    next_writer: u128,
    waiting: Option<(RequestId, StoreOp)>,
    outcome: Option<Outcome>,
    /// The deployment that it claims for.
    deployment: u64,
    /// In a race: paused before this step.
    paused_until: u128,
}

impl Writer {
    fn new(name: u128) -> Self {
        Self::with(name, ProtocolChecks::default())
    }

    fn with(name: u128, checks: ProtocolChecks) -> Self {
        let protocol = LogProtocol::new(JOB, checks);
        Self { protocol, next_writer: name << 64, waiting: None, outcome: None, deployment: 0, paused_until: 0 }
    }

    fn of_deployment(name: u128, deployment: u64) -> Self {
        Self { deployment, ..Self::new(name) }
    }

    fn step(&mut self, event: Event) {
        for effect in self.protocol.step(event) {
            match effect {
                Effect::Store { request, op } => self.waiting = Some((request, op)),
                Effect::Done(outcome) => {
                    self.waiting = None;
                    self.outcome = Some(outcome);
                }
            }
        }
    }

    fn command(&mut self, command: Command) {
        assert!(self.waiting.is_none());
        self.step(Event::Command(command));
    }

    fn start_claim(&mut self) {
        self.next_writer += 1;
        let (writer, deployment) = (WriterId(self.next_writer), self.deployment);
        self.command(Command::ClaimGeneration { writer, owner: "test".to_string(), deployment, now_ms: 0 });
    }

    fn start_append(&mut self, body: Append) {
        self.next_writer += 1;
        self.command(Command::Append { writer: WriterId(self.next_writer), now_ms: 0, body });
    }

    fn is_busy(&self) -> bool {
        self.waiting.is_some()
    }

    /// Carries out the request it waits for.
    fn advance(&mut self, store: &mut Store) {
        let (request, op) = self.waiting.take().expect("a request");
        let answer = store.answer(&op);
        self.step(Event::Answer { request, answer });
    }

    fn lose_answer(&mut self, store: &mut Store) {
        let (request, op) = self.waiting.take().expect("a request");
        store.answer(&op);
        self.step(Event::Answer { request, answer: Answer::Failed });
    }

    fn give_up(&mut self) {
        self.step(Event::GiveUp(Error::external("unreachable")));
    }

    fn finish(&mut self, store: &mut Store) -> Outcome {
        while self.is_busy() {
            self.advance(store);
        }
        self.outcome.take().expect("an outcome")
    }

    /// Advances until a create is about to be carried out.
    fn until_create(&mut self, store: &mut Store) {
        while !matches!(self.waiting, Some((_, StoreOp::Create { .. }))) {
            self.advance(store);
        }
    }

    fn claim(&mut self, store: &mut Store) -> Outcome {
        self.start_claim();
        self.finish(store)
    }

    fn append(&mut self, id: u64, store: &mut Store) -> Outcome {
        self.start_append(checkpoint(id));
        self.finish(store)
    }

    fn check(&mut self, store: &mut Store) -> Outcome {
        self.command(Command::AnnounceCheck);
        self.finish(store)
    }

    fn trim(&mut self, store: &mut Store) -> Outcome {
        self.command(Command::Trim);
        self.finish(store)
    }

    fn retained(&self) -> Vec<u64> {
        self.protocol.view().checkpoints().map(|record| record.id.0).collect()
    }
}

fn checkpoint(id: u64) -> Append {
    Append::Checkpoint { record: record(id), retain: 2 }
}

fn failed(deployment: u64) -> TerminalRecord {
    let result = TerminalResult::Failed { error: Error::user("record \"x\" is no number") };
    TerminalRecord { result, checkpoints_retained: true, deployment }
}

fn claimed(generation: u64) -> Outcome {
    Outcome::Claimed { generation: Generation(generation) }
}

fn fenced(generation: u64) -> Outcome {
    Outcome::Fenced { generation: Generation(generation) }
}

fn appended(position: u64, released: &[u64]) -> Outcome {
    Outcome::Appended { position, released: released.iter().copied().map(record).collect() }
}

fn leader(name: u128, store: &mut Store) -> Writer {
    let mut writer = Writer::new(name);
    assert!(matches!(writer.claim(store), Outcome::Claimed { .. }));
    writer
}

#[test]
fn history_is_handed_from_one_incarnation_to_the_next() {
    let mut store = Store::default();
    let mut first = leader(1, &mut store);
    assert_eq!(first.append(1, &mut store), appended(2, &[]));
    assert_eq!(first.append(2, &mut store), appended(3, &[]));
    assert_eq!(first.append(3, &mut store), appended(4, &[1]));
    assert_eq!(first.retained(), [2, 3]);
    let mut second = Writer::new(2);
    assert_eq!(second.claim(&mut store), claimed(2));
    assert_eq!(second.retained(), [2, 3]);
    assert_eq!(first.check(&mut store), fenced(2));
    assert_eq!(first.append(4, &mut store), fenced(2));
    assert_eq!(second.check(&mut store), Outcome::StillLeader);
    assert_eq!(second.append(4, &mut store), appended(6, &[2]));
}

#[test]
fn an_attempt_is_handed_on_until_a_later_checkpoint_makes_it_void() {
    let mut store = Store::default();
    let mut first = leader(1, &mut store);
    let begins = |writer: &mut Writer, store: &mut Store| {
        writer.start_append(Append::Attempt(AttemptRecord { attempt: Attempt(5) }));
        writer.finish(store)
    };
    first.append(1, &mut store);
    first.append(2, &mut store);
    assert_eq!(begins(&mut first, &mut store), appended(4, &[]), "it makes nothing void");
    let mut second = leader(2, &mut store);
    assert_eq!(second.retained(), [1, 2]);
    assert_eq!(second.protocol.view().newest_attempt(), Some((Generation(1), Attempt(5))));
    assert_eq!(begins(&mut first, &mut store), fenced(2));
    for id in [3, 4] {
        second.append(id, &mut store);
    }
    assert_eq!(second.protocol.view().newest_attempt(), None);
}

#[test]
fn who_loses_a_create_stops() {
    let mut store = Store::default();
    let mut first = leader(1, &mut store);
    first.start_append(checkpoint(1));
    first.until_create(&mut store);
    let mut second = leader(2, &mut store);
    assert_eq!(first.finish(&mut store), fenced(2));
    assert_eq!(second.append(1, &mut store), appended(3, &[]));
}

#[test]
fn a_lost_answer_to_a_create_is_found_to_be_success() {
    let mut store = Store::default();
    let mut writer = leader(1, &mut store);
    writer.start_append(checkpoint(1));
    writer.until_create(&mut store);
    writer.lose_answer(&mut store);
    assert_eq!(writer.finish(&mut store), appended(2, &[]));
    assert_eq!(store.0.len(), 2);
}

#[test]
fn a_conflict_answer_while_nothing_is_there_is_tried_again_and_not_for_ever() {
    let mut store = Store::default();
    let mut writer = leader(1, &mut store);
    writer.start_append(checkpoint(1));
    let conflict = |writer: &mut Writer| {
        let (request, _) = writer.waiting.take().unwrap();
        writer.step(Event::Answer { request, answer: Answer::AlreadyExists });
    };
    conflict(&mut writer);
    assert_eq!(writer.finish(&mut store), appended(2, &[]));
    writer.start_append(checkpoint(2));
    while writer.is_busy() {
        match writer.waiting {
            Some((_, StoreOp::Create { .. })) => conflict(&mut writer),
            _ => writer.advance(&mut store),
        }
    }
    assert!(matches!(writer.outcome.take(), Some(Outcome::GaveUp(error)) if error.retryable));
    assert_eq!(writer.protocol.in_doubt().collect::<Vec<_>>(), [CheckpointId(2)]);
}

#[test]
fn an_append_in_doubt_is_resumed_and_never_doubled() {
    let mut store = Store::default();
    let mut writer = leader(1, &mut store);
    writer.start_append(checkpoint(1));
    writer.lose_answer(&mut store);
    writer.give_up();
    assert!(matches!(writer.outcome.take(), Some(Outcome::GaveUp(_))));
    assert_eq!(writer.protocol.in_doubt().collect::<Vec<_>>(), [CheckpointId(1)]);
    assert_eq!(writer.append(1, &mut store), appended(2, &[]));
    assert_eq!(writer.protocol.in_doubt().count(), 0);
    assert_eq!(store.0.len(), 2);
}

#[test]
fn appending_something_else_settles_what_is_in_doubt() {
    for lands in [true, false] {
        let mut store = Store::default();
        let mut writer = leader(1, &mut store);
        writer.start_append(checkpoint(1));
        if lands {
            writer.lose_answer(&mut store);
        }
        let (_, delayed) = writer.waiting.clone().unwrap();
        writer.give_up();
        let outcome = writer.append(2, &mut store);
        assert_eq!(outcome, appended(if lands { 3 } else { 2 }, &[]));
        assert_eq!(writer.retained(), if lands { vec![1, 2] } else { vec![2] });
        assert_eq!(writer.protocol.in_doubt().count(), 0);
        // The first create arrives only now: its place is taken for ever.
        assert!(matches!(store.answer(&delayed), Answer::AlreadyExists));
    }
}

/// A random schedule found this.
#[test]
fn nothing_is_appended_behind_an_end_that_was_in_doubt() {
    let mut store = Store::default();
    let mut writer = leader(1, &mut store);
    writer.start_append(Append::Terminal(failed(0)));
    writer.lose_answer(&mut store);
    writer.give_up();
    assert_eq!(writer.append(1, &mut store), Outcome::Ended(failed(0)));
    assert_eq!(store.0.len(), 2);
}

#[test]
fn several_appends_in_doubt_are_told_apart_from_a_strangers() {
    let mut store = Store::default();
    let mut writer = leader(1, &mut store);
    let mut delayed = Vec::new();
    for id in [1, 2] {
        writer.start_append(checkpoint(id));
        delayed.push(writer.waiting.clone().unwrap().1);
        writer.give_up();
    }
    store.answer(&delayed[0]);
    assert_eq!(writer.check(&mut store), Outcome::StillLeader);
    assert_eq!(writer.retained(), [1]);
    assert_eq!(writer.append(3, &mut store), appended(3, &[]));
}

/// The case that a log without re-listing gets wrong: a create far below, where the entry has been trimmed.
#[test]
fn a_stale_create_in_the_trimmed_part_is_void() {
    let mut store = Store::default();
    let mut stale = leader(1, &mut store);
    stale.start_append(checkpoint(1));
    stale.until_create(&mut store);
    leader(2, &mut store);
    let mut third = leader(3, &mut store);
    for id in 1..=3 {
        third.append(id, &mut store);
    }
    assert_eq!(third.trim(&mut store), Outcome::Trimmed { deleted: 3 });
    assert_eq!(store.0.keys().copied().collect::<Vec<_>>(), [3, 5, 6]);
    // It succeeds, and listing the log once more tells that it means nothing.
    let (_, op) = stale.waiting.clone().unwrap();
    assert_eq!(stale.finish(&mut store), fenced(3));
    assert!(matches!(store.answer(&op), Answer::AlreadyExists));
    let mut fourth = Writer::new(4);
    assert_eq!(fourth.claim(&mut store), claimed(4));
    assert_eq!(fourth.retained(), [2, 3]);
    assert_eq!(third.check(&mut store), fenced(4));
}

#[test]
fn a_stale_claim_in_the_trimmed_part_claims_again() {
    let mut store = Store::default();
    let mut first = leader(1, &mut store);
    let mut late = Writer::new(2);
    late.start_claim();
    late.until_create(&mut store);
    for id in 1..=4 {
        first.append(id, &mut store);
    }
    first.trim(&mut store);
    assert!(!store.0.contains_key(&2));
    assert_eq!(late.finish(&mut store), claimed(2));
    assert_eq!(late.retained(), [3, 4]);
    assert_eq!(first.check(&mut store), fenced(2));
}

/// A random schedule found this: a claim lists the log; an entry that it is about to read becomes void, is trimmed, and
/// comes back as another incarnation's stale create. That is no damage.
#[test]
fn an_entry_that_changes_under_a_claim_is_read_again() {
    let mut store = Store::default();
    let mut first = leader(1, &mut store);
    first.append(1, &mut store);
    let mut stale = Writer::new(2);
    stale.start_claim();
    stale.until_create(&mut store);
    first.append(2, &mut store);
    first.append(3, &mut store);
    let mut claiming = Writer::new(3);
    claiming.start_claim();
    claiming.advance(&mut store);
    assert!(matches!(claiming.waiting, Some((_, StoreOp::Read(4)))));
    claiming.advance(&mut store);
    assert!(matches!(claiming.waiting, Some((_, StoreOp::Read(3)))));
    first.append(4, &mut store);
    first.append(5, &mut store);
    first.trim(&mut store);
    // The stale claim's own create lands at 3.
    let (_, StoreOp::Create { position: 3, bytes }) = stale.waiting.clone().unwrap() else { panic!() };
    store.0.insert(3, bytes);
    assert_eq!(claiming.finish(&mut store), claimed(2));
    assert_eq!(claiming.retained(), [4, 5]);
}

#[test]
fn of_two_claims_at_once_the_later_fences_the_earlier() {
    let mut store = Store::default();
    let (mut a, mut b) = (Writer::new(1), Writer::new(2));
    a.start_claim();
    b.start_claim();
    a.until_create(&mut store);
    b.until_create(&mut store);
    a.advance(&mut store);
    assert_eq!(b.finish(&mut store), claimed(2));
    assert_eq!(a.finish(&mut store), fenced(2));
}

#[test]
fn an_ended_job_is_not_claimed_again() {
    for checkpoints_retained in [false, true] {
        let mut store = Store::default();
        let mut writer = leader(1, &mut store);
        writer.append(1, &mut store);
        writer.append(2, &mut store);
        let end = TerminalRecord { result: TerminalResult::Finished, checkpoints_retained, deployment: 0 };
        writer.start_append(Append::Terminal(end.clone()));
        let released: &[u64] = if checkpoints_retained { &[] } else { &[1, 2] };
        assert_eq!(writer.finish(&mut store), appended(4, released));
        assert_eq!(writer.append(3, &mut store), Outcome::Ended(end.clone()));
        writer.trim(&mut store);
        // The newest entries of the generation, of a checkpoint, and the end always stay.
        let kept: &[u64] = if checkpoints_retained { &[1, 2, 3, 4] } else { &[1, 3, 4] };
        assert_eq!(store.0.keys().copied().collect::<Vec<_>>(), kept);
        let mut next = Writer::of_deployment(2, 9);
        assert_eq!(next.claim(&mut store), Outcome::Ended(end));
        assert_eq!(store.0.keys().copied().collect::<Vec<_>>(), kept);
    }
}

#[test]
fn a_job_that_failed_is_taken_up_by_a_higher_deployment_alone() {
    let mut store = Store::default();
    let mut writer = leader(1, &mut store);
    writer.append(1, &mut store);
    writer.append(2, &mut store);
    writer.start_append(Append::Terminal(failed(4)));
    assert_eq!(writer.finish(&mut store), appended(4, &[]));
    for not_above in [0, 3, 4] {
        assert_eq!(Writer::of_deployment(2, not_above).claim(&mut store), Outcome::Ended(failed(4)));
    }
    let mut next = Writer::of_deployment(3, 5);
    assert_eq!(next.claim(&mut store), claimed(2));
    assert_eq!(next.retained(), [1, 2]);
    // Whoever ended it is fenced, and the job goes on as any other: the end is history.
    assert_eq!(writer.append(3, &mut store), Outcome::Ended(failed(4)));
    assert_eq!(next.append(3, &mut store), appended(6, &[1]));
    next.trim(&mut store);
    assert_eq!(store.0.keys().copied().collect::<Vec<_>>(), [3, 4, 5, 6]);
    let mut restarted = Writer::of_deployment(4, 5);
    assert_eq!(restarted.claim(&mut store), claimed(3));
    assert_eq!(restarted.retained(), [2, 3]);
    restarted.start_append(Append::Terminal(failed(5)));
    restarted.finish(&mut store);
    assert_eq!(Writer::of_deployment(5, 5).claim(&mut store), Outcome::Ended(failed(5)));
}

/// Whoever deletes a job deletes its entries from the oldest on. What is left by one that was killed meanwhile says
/// that the job has ended, until nothing is left.
#[test]
fn half_a_log_with_an_end_says_that_the_job_has_ended() {
    let canceled = TerminalRecord { result: TerminalResult::Canceled, checkpoints_retained: false, deployment: 0 };
    let ends = [failed(0), canceled];
    for end in ends {
        let mut store = Store::default();
        let mut writer = leader(1, &mut store);
        writer.append(1, &mut store);
        let mut second = leader(2, &mut store);
        second.append(2, &mut store);
        second.start_append(Append::Terminal(end.clone()));
        second.finish(&mut store);
        while store.0.len() > 1 {
            store.0.pop_first();
            assert_eq!(Writer::new(3).claim(&mut store), Outcome::Ended(end.clone()), "{:?}", store.entries());
        }
    }
    // For one that would go on with the job it is damaged.
    let mut store = Store::default();
    let mut writer = leader(1, &mut store);
    writer.append(1, &mut store);
    writer.start_append(Append::Terminal(failed(0)));
    writer.finish(&mut store);
    store.0.remove(&1);
    assert!(matches!(Writer::of_deployment(2, 1).claim(&mut store), Outcome::Refused(_)));
}

#[test]
fn an_entry_that_vanishes_is_noticed_and_may_come_back() {
    let mut store = Store::default();
    let mut writer = leader(1, &mut store);
    writer.append(1, &mut store);
    let kept = store.0.remove(&2).unwrap();
    assert!(matches!(writer.check(&mut store), Outcome::GaveUp(error) if error.message.contains("gone")));
    assert!(matches!(writer.append(2, &mut store), Outcome::GaveUp(_)));
    store.0.insert(2, kept);
    assert_eq!(writer.append(2, &mut store), appended(3, &[]));
}

/// Two jobmanagers, the first of which stands still while a user deletes the job at the second.
#[test]
fn who_wakes_after_its_job_was_deleted_stops() {
    for paused_in in 0..3 {
        let mut store = Store::default();
        let mut first = leader(1, &mut store);
        first.append(1, &mut store);
        match paused_in {
            0 => {}
            1 => {
                first.start_append(checkpoint(2));
                first.until_create(&mut store);
            }
            _ => first.command(Command::Trim),
        }
        leader(2, &mut store);
        store.0.clear();
        if first.is_busy() {
            assert_eq!(first.finish(&mut store), Outcome::Removed);
        }
        // Also when it tries again.
        assert_eq!(first.check(&mut store), Outcome::Removed);
        assert_eq!(first.append(3, &mut store), Outcome::Removed);
    }
}

#[test]
fn holes_and_strangers_are_refused_by_name() {
    let filled = || {
        let mut store = Store::default();
        let mut first = leader(1, &mut store);
        first.append(1, &mut store);
        leader(2, &mut store);
        store
    };
    let refused = |mut store: Store| match Writer::new(9).claim(&mut store) {
        Outcome::Refused(error) if !error.retryable => error.message,
        other => panic!("{other:?}"),
    };
    let mut hole = filled();
    hole.0.remove(&2);
    assert!(refused(hole).contains("log/00000000000000000002 is missing"));
    let mut no_generation = filled();
    let mut entry = no_generation.entries().remove(2);
    entry.floor = 3;
    entry.generation_at = 1;
    no_generation.0.insert(3, entry.encode());
    assert!(refused(no_generation).contains("log/00000000000000000003"));
    let mut torn = filled();
    torn.0.get_mut(&3).unwrap().truncate(20);
    assert!(refused(torn).contains("torn"));
    let mut backwards = filled();
    let entry = LogEntry { generation: Generation(1), ..backwards.entries().remove(2) };
    backwards.0.insert(3, entry.encode());
    assert!(refused(backwards).contains("generation 1 stands behind 1"));
}

#[test]
fn answers_that_are_late_doubled_or_unfitting_do_no_harm() {
    let mut store = Store::default();
    let mut writer = leader(1, &mut store);
    writer.start_append(checkpoint(1));
    let (request, _) = writer.waiting.clone().unwrap();
    writer.advance(&mut store);
    let waiting = writer.waiting.clone();
    writer.step(Event::Answer { request, answer: Answer::AlreadyExists });
    assert_eq!(writer.waiting, waiting);
    assert_eq!(writer.finish(&mut store), appended(2, &[]));
    writer.step(Event::Answer { request, answer: Answer::Failed });
    writer.give_up();
    assert_eq!(writer.outcome, None);
    writer.command(Command::AnnounceCheck);
    let (request, _) = writer.waiting.clone().unwrap();
    writer.step(Event::Answer { request, answer: Answer::Created });
    assert!(matches!(writer.outcome.take(), Some(Outcome::GaveUp(_))));
    assert_eq!(writer.check(&mut store), Outcome::StillLeader);
}

#[test]
fn commands_out_of_turn_are_refused() {
    let mut store = Store::default();
    let mut outside = Writer::new(1);
    for command in [Command::AnnounceCheck, Command::Trim] {
        outside.command(command);
        assert!(matches!(outside.finish(&mut store), Outcome::Refused(_)));
    }
    assert!(matches!(outside.append(1, &mut store), Outcome::Refused(_)));
    assert!(matches!(outside.claim(&mut store), Outcome::Claimed { .. }));
    assert!(matches!(outside.claim(&mut store), Outcome::Refused(_)));
    assert_eq!(store.0.len(), 1);
}
