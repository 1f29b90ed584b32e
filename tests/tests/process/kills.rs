//! Kills at random moments: the counts are those of a run without a fault.

use millrace_testkit::cluster::Result;
use millrace_tests::process::kills::{Campaign, Input};

#[test]
fn counts_survive_40_kills_of_taskmanagers() -> Result<()> {
    let campaign = Campaign::from_env(40, 0, Input::Files);
    let report = campaign.run()?;
    assert_eq!(report.taskmanagers, campaign.kills);
    Ok(())
}

#[test]
fn counts_survive_kills_of_jobmanagers_among_those_of_taskmanagers() -> Result<()> {
    let campaign = Campaign::from_env(12, 3, Input::Kafka);
    let report = campaign.run()?;
    assert_eq!((report.taskmanagers, report.jobmanagers), (campaign.kills - campaign.kills / 3, campaign.kills / 3));
    Ok(())
}

/// State on the taskmanagers' disks, of which a checkpoint holds only what is new: each recovery goes on from files of
/// several checkpoints.
#[cfg(feature = "rocksdb")]
#[test]
fn counts_in_rocksdb_survive_kills() -> Result<()> {
    let campaign = Campaign::from_env(12, 4, Input::Files)
        .set("state.backend", "rocksdb")
        .set("state.backend.rocksdb.memory.size", "16mb")
        .set("execution.checkpointing.incremental", "true");
    let report = campaign.run()?;
    assert_eq!((report.taskmanagers, report.jobmanagers), (campaign.kills - campaign.kills / 4, campaign.kills / 4));
    Ok(())
}

#[cfg(feature = "hdfs")]
#[test]
fn counts_with_checkpoints_in_hdfs_survive_kills() -> Result<()> {
    let hdfs = millrace_testkit::services::hdfs::Hdfs::shared();
    let campaign = Campaign::from_env(6, 3, Input::Files).set("state.checkpoints.dir", &hdfs.uri("checkpoints"));
    let report = campaign.run()?;
    assert_eq!((report.taskmanagers, report.jobmanagers), (campaign.kills - campaign.kills / 3, campaign.kills / 3));
    Ok(())
}
