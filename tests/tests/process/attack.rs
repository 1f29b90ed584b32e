//! Attacks on a job, over the state backends: faults of every kind, each of which must happen, and all effects exactly
//! once afterwards.

use millrace_tests::attack::{Backend, Campaign, Fault, Focus, Job, Report, Result, Target};

/// Each kind once, and kills more often.
const FAULTS: usize = 14;
const KILLS: [Fault; 3] = [Fault::KillTaskManager, Fault::KillJobManager, Fault::KillBoth];
/// What interrupts a sink of part files.
const FILE_FAULTS: [Fault; 5] =
    [Fault::KillTaskManager, Fault::KillJobManager, Fault::KillBoth, Fault::Rescale, Fault::PauseTaskManager];
/// Changes of the parallelism, and what comes between them.
const RESCALES: [Fault; 3] = [Fault::KillJobManager, Fault::Rescale, Fault::PauseTaskManager];

fn own_job() -> Job {
    Job::own(env!("CARGO_BIN_EXE_attacked_job").into())
}

fn attack(backend: Backend, seed: u64) -> Result<()> {
    let (job, kinds) = (own_job(), Vec::new());
    let report = Campaign { job, backend, faults: FAULTS, kinds, focus: Focus::All, seed }.run()?;
    expect_right(&report);
    assert_eq!(report.struck.len(), FAULTS);
    Ok(())
}

fn expect_right(report: &Report) {
    println!("{report}{}", report.last_line());
    assert!(report.verdict.is_right(), "{report}");
}

#[test]
fn effects_in_memory_survive() -> Result<()> {
    attack(Backend::Memory, 1)
}

#[test]
fn effects_in_the_filesystem_survive() -> Result<()> {
    attack(Backend::Filesystem, 2)
}

#[cfg(feature = "rocksdb")]
#[test]
fn effects_in_rocksdb_survive() -> Result<()> {
    attack(Backend::RocksDb, 3)
}

fn own_sink() -> Job {
    Job::own_exactly_once(env!("CARGO_BIN_EXE_attacked_job").into())
}

fn attack_sink(job: Job, backend: Backend, kinds: &[Fault], seed: u64) -> Result<()> {
    let (kinds, faults) = (kinds.to_vec(), if job.target == Target::Kafka { 10 } else { 8 });
    let report = Campaign { job, backend, faults, kinds, focus: Focus::Sinks, seed }.run()?;
    expect_right(&report);
    assert_eq!(report.struck.len(), faults);
    Ok(())
}

/// Readers of committed outputs see each once, wherever a process was killed.
#[test]
fn outputs_committed_with_the_checkpoint_survive() -> Result<()> {
    attack_sink(own_sink(), Backend::Filesystem, &KILLS, 5)
}

/// The fifth fault pauses a taskmanager while it commits. It is given up, and goes on. When attempts shared transactional
/// ids, its writer took one over with which its successor had prepared a checkpoint meanwhile: Kafka aborted that
/// transaction, and the output of a complete checkpoint was lost.
#[test]
fn outputs_committed_with_the_checkpoint_survive_zombies() -> Result<()> {
    attack_sink(own_sink(), Backend::Filesystem, &Fault::AT_SINKS[..5], 5)
}

/// With records in flight in the checkpoint, and another parallelism at the restore.
#[test]
fn outputs_committed_with_unaligned_checkpoints_survive_rescaling() -> Result<()> {
    attack_sink(own_sink().unaligned(), Backend::Memory, &RESCALES, 6)
}

#[cfg(feature = "rocksdb")]
#[test]
fn outputs_committed_over_rocksdb_survive_rescaling() -> Result<()> {
    attack_sink(own_sink().unaligned(), Backend::RocksDb, &RESCALES, 7)
}

/// Part files are seen when their checkpoint is complete, each line once, in order in each writer's files, and nothing is
/// left over when the job has ended.
#[test]
fn files_committed_with_the_checkpoint_survive() -> Result<()> {
    attack_sink(own_sink().to(Target::Files), Backend::Memory, &FILE_FAULTS, 8)
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
    let mut job = own_sink().to(Target::Files);
    job.args.push("--not-idempotent".to_owned());
    let kinds = vec![Fault::KillTaskManager];
    let campaign = Campaign { job, backend: Backend::Memory, faults: 1, kinds, focus: Focus::Sinks, seed: 4 };
    let verdict = campaign.run()?.verdict;
    assert!(verdict.duplicated > 0 && verdict.left_over > 0 && verdict.lost == 0, "{verdict:?}");
    Ok(())
}
