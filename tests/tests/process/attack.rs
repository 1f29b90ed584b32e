//! Attacks on a job, over the state backends: faults of every kind, each of which must happen, and all effects exactly
//! once afterwards.

use std::{collections::BTreeSet, time::Duration};

use millrace_tests::attack::{
    Backend, Campaign, Expected, Fault, Focus, Job, Moment, Report, Result, SINK_STEPS, Strike, Struck, Target,
};

fn own_job() -> Job {
    Job::own(env!("CARGO_BIN_EXE_attacked_job").into())
}

/// Runs it: all faults fire, and every effect is there exactly once.
fn attack(campaign: &Campaign) -> Result<()> {
    let report = campaign.run()?;
    expect_right(&report);
    assert_eq!(report.struck.len(), campaign.faults);
    Ok(())
}

/// Behind a fault that is over, readers wait no longer than this for something new: what is silent is given up after 2 s,
/// what a zombie leaves open is looked for every 10 s, and a busy machine has three times as much again.
const LONGEST_SILENCE: Duration = Duration::from_secs(40);

fn expect_right(report: &Report) {
    println!("{report}{}", report.last_line());
    assert!(report.verdict.is_right(), "{report}");
    let silent = report.struck.iter().map(Struck::silent_beyond).max().unwrap_or_default();
    assert!(silent < LONGEST_SILENCE, "readers saw nothing new for {silent:.1?} after a fault was over\n{report}");
}

/// Two thirds of a backend's kinds and more; the seeds are such that each kind comes on some backend.
fn everywhere(backend: Backend) -> Campaign {
    let seed = match backend {
        Backend::Memory => 141,
        Backend::Filesystem => 142,
        Backend::RocksDb => 143,
    };
    Campaign { job: own_job(), backend, faults: 14, kinds: Vec::new(), focus: Focus::All, seed }
}

#[test]
fn effects_in_memory_survive() -> Result<()> {
    attack(&everywhere(Backend::Memory))
}

#[test]
fn effects_in_the_filesystem_survive() -> Result<()> {
    attack(&everywhere(Backend::Filesystem))
}

#[cfg(feature = "rocksdb")]
#[test]
fn effects_in_rocksdb_survive() -> Result<()> {
    attack(&everywhere(Backend::RocksDb))
}

/// In the order in which they are struck.
fn faults(campaign: &Campaign) -> Vec<Fault> {
    campaign.plan().iter().map(|strike| strike.fault).collect()
}

#[test]
fn each_kind_of_fault_comes_on_some_backend() {
    let backends = [Backend::Memory, Backend::Filesystem, Backend::RocksDb];
    let plans = backends.map(|backend| faults(&everywhere(backend)));
    assert!(plans.iter().all(|kinds| kinds.contains(&Fault::Rescale) && kinds.contains(&Fault::KillTaskManager)));
    let mut all = BTreeSet::from(Fault::ALL);
    all.remove(&Fault::RestartPostgres);
    assert_eq!(
        plans.concat().into_iter().collect::<BTreeSet<_>>(),
        all,
        "the database is struck at in its own campaign"
    );
}

/// A campaign at the steps of a sink that commits with the checkpoint: as many faults as kinds (SIGKILLs of taskmanagers
/// count four times), so that each kind comes.
fn at_sinks<const N: usize>(target: Target, backend: Backend, kinds: [Fault; N], seed: u64) -> Campaign {
    let kills = if kinds.contains(&Fault::KillTaskManager) { 3 } else { 0 };
    let job = Job::own_exactly_once(env!("CARGO_BIN_EXE_attacked_job").into()).to(target);
    Campaign { job, backend, faults: N + kills, kinds: kinds.to_vec(), focus: Focus::Sinks, seed }
}

fn unaligned(campaign: Campaign) -> Campaign {
    Campaign { job: campaign.job.unaligned(), ..campaign }
}

/// Kafka's transactions: each backend with both kinds of barriers, and in each campaign every step of the sink is
/// struck, and the job goes on at another parallelism.
mod over {
    use Fault::{
        CutConnections, KafkaClose, KafkaCut, KafkaLatency, KillBoth, KillJobManager, KillTaskManager,
        PauseTaskManager, Rescale, RestartKafka,
    };

    use super::*;

    pub fn memory() -> Campaign {
        at_sinks(Target::Kafka, Backend::Memory, [KillTaskManager, KillJobManager, KillBoth, Rescale], 5)
    }

    pub fn memory_unaligned() -> Campaign {
        let kinds = [KillJobManager, KillBoth, Rescale, PauseTaskManager, CutConnections, RestartKafka, KafkaCut];
        unaligned(at_sinks(Target::Kafka, Backend::Memory, kinds, 6))
    }

    pub fn filesystem() -> Campaign {
        let kinds =
            [KillTaskManager, KillJobManager, KillBoth, PauseTaskManager, CutConnections, RestartKafka, Rescale];
        at_sinks(Target::Kafka, Backend::Filesystem, kinds, 126)
    }

    pub fn filesystem_unaligned() -> Campaign {
        let kinds = [KillJobManager, KillBoth, Rescale, RestartKafka, KafkaCut, KafkaClose, KafkaLatency];
        unaligned(at_sinks(Target::Kafka, Backend::Filesystem, kinds, 8))
    }

    pub fn rocksdb() -> Campaign {
        let kinds = [KillJobManager, KillBoth, Rescale, PauseTaskManager, KafkaCut, KafkaClose, KafkaLatency];
        at_sinks(Target::Kafka, Backend::RocksDb, kinds, 9)
    }

    pub fn rocksdb_unaligned() -> Campaign {
        unaligned(at_sinks(Target::Kafka, Backend::RocksDb, [KillTaskManager, KillBoth, Rescale, CutConnections], 10))
    }

    pub fn all() -> [Campaign; 6] {
        [memory(), memory_unaligned(), filesystem(), filesystem_unaligned(), rocksdb(), rocksdb_unaligned()]
    }
}

#[test]
fn each_backend_has_each_step_of_the_sink_struck_with_both_barriers_and_rescaling() {
    let steps = |campaign: &Campaign| campaign.plan().iter().map(|strike| strike.moment).collect::<BTreeSet<_>>();
    let (mut struck, mut crossed) = (BTreeSet::new(), BTreeSet::new());
    for campaign in over::all() {
        assert_eq!(steps(&campaign), SINK_STEPS.into(), "{campaign:?}");
        assert!(faults(&campaign).contains(&Fault::Rescale), "{campaign:?}");
        crossed.insert((campaign.backend.name(), campaign.job.config.clone()));
        struck.extend(faults(&campaign));
    }
    assert_eq!((struck, crossed.len()), (Fault::AT_SINKS.into(), 6));
    assert_eq!((steps(&files()), steps(&objects())), (SINK_STEPS.into(), SINK_STEPS.into()));
    let (files, objects) = (faults(&files()), faults(&objects()));
    assert!(files.contains(&Fault::Rescale) && objects.contains(&Fault::Rescale));
    assert!(Fault::AT_STORES.iter().all(|fault| objects.contains(fault)), "{objects:?}");
}

/// Readers of committed outputs see each once, wherever a process was killed.
#[test]
fn outputs_committed_over_memory_survive() -> Result<()> {
    attack(&over::memory())
}

#[test]
fn outputs_committed_over_memory_unaligned_survive() -> Result<()> {
    attack(&over::memory_unaligned())
}

/// The fifth fault pauses a taskmanager while it commits. It is given up, and goes on. When attempts shared transactional
/// ids, its writer took one over with which its successor had prepared a checkpoint meanwhile: Kafka aborted that
/// transaction, and the output of a complete checkpoint was lost.
#[test]
fn outputs_committed_over_the_filesystem_survive_zombies() -> Result<()> {
    let campaign = over::filesystem();
    let Strike { fault, moment, .. } = campaign.plan()[4];
    assert_eq!((fault, moment), (Fault::PauseTaskManager, Moment::TaskManagerStep("commit")));
    attack(&campaign)
}

#[test]
fn outputs_committed_over_the_filesystem_unaligned_survive() -> Result<()> {
    attack(&over::filesystem_unaligned())
}

#[cfg(feature = "rocksdb")]
#[test]
fn outputs_committed_over_rocksdb_survive() -> Result<()> {
    attack(&over::rocksdb())
}

#[cfg(feature = "rocksdb")]
#[test]
fn outputs_committed_over_rocksdb_unaligned_survive() -> Result<()> {
    attack(&over::rocksdb_unaligned())
}

/// Part files.
fn files() -> Campaign {
    use Fault::{KillBoth, KillJobManager, KillTaskManager, PauseTaskManager, Rescale};
    let kinds = [KillTaskManager, KillJobManager, KillBoth, Rescale, PauseTaskManager];
    at_sinks(Target::Files, Backend::Memory, kinds, 8)
}

/// They are seen when their checkpoint is complete, each line once, in order in each writer's files, and nothing is left
/// over when the job has ended.
#[test]
fn files_committed_with_the_checkpoint_survive() -> Result<()> {
    attack(&files())
}

/// The same with multipart uploads, whose requests fail too.
fn objects() -> Campaign {
    use Fault::{KillBoth, KillJobManager, PauseTaskManager, Rescale, StoreActsLate, StoreLosesAnswers, StoreRefuses};
    let kinds = [KillJobManager, KillBoth, Rescale, PauseTaskManager, StoreRefuses, StoreLosesAnswers, StoreActsLate];
    let campaign = at_sinks(Target::S3, Backend::Filesystem, kinds, 24);
    unaligned(Campaign { faults: 8, ..campaign })
}

#[test]
fn objects_committed_with_the_checkpoint_survive() -> Result<()> {
    attack(&objects())
}

/// Rows that are inserted and updated, at least once: a process is killed anywhere, or the database is.
fn rows() -> Campaign {
    let kinds = vec![Fault::KillTaskManager, Fault::KillJobManager, Fault::KillBoth, Fault::RestartPostgres];
    let job = own_job().to(Target::Postgres);
    Campaign { job, backend: Backend::Filesystem, faults: 6, kinds, focus: Focus::All, seed: 34 }
}

#[test]
fn the_database_is_struck_among_the_processes() {
    let struck: BTreeSet<_> = faults(&rows()).into_iter().collect();
    assert_eq!(struck, rows().kinds.into_iter().collect());
}

/// In the end there is a row for each output of a run without a fault, and no other.
#[test]
fn rows_of_a_table_survive() -> Result<()> {
    attack(&rows())
}

/// As `make chaos JOB=…`: nothing is known of the program but its arguments, a run without a fault over the same input says
/// what is right, and the inputs come from a file.
#[test]
fn a_job_of_ones_own_is_attacked() -> Result<()> {
    let job = Job {
        records: (0..50).map(|n| (format!("word-{}", n % 7), format!("word-{} {n}", n % 7))).collect(),
        ..Job::new(own_job().program, own_job().args)
    };
    assert_eq!(job.expected, Expected::Reference);
    let kinds = vec![Fault::KillTaskManager, Fault::KillJobManager, Fault::CloseConnections];
    attack(&Campaign { job, backend: Backend::Filesystem, faults: 3, kinds, focus: Focus::All, seed: 11 })
}

/// An attack that can't fail shows nothing.
#[test]
fn a_job_without_state_is_found_out() -> Result<()> {
    let mut job = own_job();
    job.args.push("--forgetful".to_owned());
    let kinds = vec![Fault::KillTaskManager];
    let campaign = Campaign { job, backend: Backend::Memory, faults: 1, kinds, focus: Focus::All, seed: 4 };
    let verdict = campaign.run()?.verdict;
    assert!(verdict.lost > 0 && verdict.duplicated > 0 && !verdict.examples.is_empty(), "{verdict:?}");
    Ok(())
}

#[test]
fn a_committer_that_is_not_idempotent_is_found_out() -> Result<()> {
    let mut job = at_sinks(Target::Files, Backend::Memory, Fault::AT_SINKS, 4).job;
    job.args.push("--not-idempotent".to_owned());
    let kinds = vec![Fault::KillTaskManager];
    let campaign = Campaign { job, backend: Backend::Memory, faults: 1, kinds, focus: Focus::Sinks, seed: 4 };
    let verdict = campaign.run()?.verdict;
    assert!(verdict.duplicated > 0 && verdict.left_over > 0 && verdict.lost == 0, "{verdict:?}");
    Ok(())
}
