//! Deletion, whatever is missing: nothing stays in the cluster, and what stays in the bucket is named.

use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use millrace_k8s_tests::{
    Result,
    cluster::{Namespace, Services},
    ensure,
    job::{Job, Manifest, Role},
    load::{Feed, Outputs, Place},
    suite::Suite,
    wait,
};
use serde_json::json;

/// The time for the jobmanager to clean up, and some for what comes before and after.
const GONE: Duration = Duration::from_secs(60);

/// A job that has written checkpoints.
async fn job<'a>(namespace: &'a Namespace<'_>, place: &Place) -> Result<Job<'a>> {
    let feed = Feed::start(place, 11);
    let job = Job::apply(namespace, &Manifest::counting(place))?;
    job.wait_until_settled().await?;
    job.wait_for_new_checkpoint().await?;
    feed.finish()?;
    Ok(job)
}

pub fn with_the_namespace(suite: &Suite) -> Result<()> {
    suite.block_on(async {
        let namespace = suite.namespace("terminating").await?;
        let place = suite.place(&namespace).await?;
        job(&namespace, &place).await?;
        let took = namespace.delete().await?;
        println!("a namespace with a running job was gone after {:.1} s", took.as_secs_f64());
        // Nothing takes an event about it any more: what is left is named in the operator's log.
        let left = place.objects()?;
        let named = suite.release.log_lines(suite.cluster.client.clone(), &place.storage()).await?;
        let named: Vec<_> = named.into_iter().filter(|line| line.contains("CleanupFailed")).collect();
        println!("{} objects are left in the bucket; the operator's log says {named:?}", left.len());
        ensure!(left.is_empty() || !named.is_empty(), "left in the bucket without a word: {left:?}");
        Ok(())
    })
}

pub fn without_a_jobmanager(suite: &Suite) -> Result<()> {
    suite.block_on(async {
        let namespace = suite.namespace("headless").await?;
        let place = suite.place(&namespace).await?;
        let before = namespace.objects()?;
        let job = job(&namespace, &place).await?;
        let jobmanager = job.pods(Role::JobManager).await?.remove(0);
        job.delete_pod(&jobmanager, Some(0)).await?;
        job.begin_delete().await?;
        job.wait_until_gone(GONE).await?;
        namespace.wait_for_only(&before).await?;
        // It came back in time to clean up, or else what it left is named.
        let left = place.objects()?;
        let messages = job.event_messages("CleanupFailed").await?;
        let named = messages.iter().any(|message| message.contains(&place.storage()));
        ensure!(left.is_empty() || named, "left in the bucket without a word: {left:?}, events {messages:?}");
        Ok(())
    })
}

pub fn while_suspended(suite: &Suite) -> Result<()> {
    suite.block_on(async {
        let namespace = suite.namespace("asleep").await?;
        let place = suite.place(&namespace).await?;
        let before = namespace.objects()?;
        let job = job(&namespace, &place).await?;
        job.patch_spec(json!({"state": "suspended"})).await?;
        job.wait_for_phase("Suspended").await?;
        ensure!(!place.objects()?.is_empty(), "its checkpoints stay while it is suspended");
        job.begin_delete().await?;
        job.wait_until_gone(GONE).await?;
        namespace.wait_for_only(&before).await?;
        let left = place.objects()?;
        ensure!(left.is_empty(), "left in the bucket: {left:?}");
        Ok(())
    })
}

pub fn without_the_object_store(suite: &Suite) -> Result<()> {
    suite.block_on(async {
        // Its own, which goes away.
        let mut services = Services::start(suite.cluster.host)?;
        let namespace = suite.namespace("storeless").await?;
        let place = Place::create(&namespace, &services).await?;
        let before = namespace.objects()?;
        let job = job(&namespace, &place).await?;
        services.minio.kill()?;
        job.begin_delete().await?;
        let took = job.wait_until_gone(GONE).await?;
        println!("without its object store a job was gone after {:.1} s", took.as_secs_f64());
        namespace.wait_for_only(&before).await?;
        let messages = job.event_messages("CleanupFailed").await?;
        let named = messages.iter().any(|message| message.contains(&place.storage()));
        ensure!(named, "no event CleanupFailed names {}: {messages:?}", place.storage());
        Ok(())
    })
}

/// What is left of a job while another takes its name is none of that one's.
pub fn again_under_the_same_name(suite: &Suite) -> Result<()> {
    suite.block_on(async {
        let namespace = suite.namespace("again").await?;
        let place = suite.place(&namespace).await?;
        let before = namespace.objects()?;
        let (feed, mut outputs) = (Feed::start(&place, 20), Outputs::follow(&place)?);
        let manifest = Manifest::counting(&place);
        let job = Job::apply(&namespace, &manifest)?;
        let old = job.wait_until_settled().await?;
        let now = feed.written();
        outputs.wait_until_past(&job, &now).await?;
        let written = feed.finish()?;
        outputs.expect_all(&job, &written).await?;
        let (lines, records) = (outputs.seen.lines, written.values().sum::<u64>());

        manifest.replace_by_force(&namespace)?;
        let new = job.wait_until_settled().await?;
        ensure!(new.uid() != old.uid() && new.job_id() != old.job_id(), "it is another job: {}", new.describe());
        ensure!((new.generation(), new.restarts()) == (1, 0), "it starts from nothing: {}", new.describe());
        // It reads all again. With anything kept of the old job's state, it would count them to twice as many.
        let again = async || {
            outputs.read_on()?;
            Ok((outputs.seen.lines >= lines + records).then_some(()))
        };
        wait::until("count of all records again", wait::PATIENCE, again, async || job.describe().await).await?;
        outputs.expect_all(&job, &written).await?;
        let sets = namespace.api::<StatefulSet>().list(&Default::default()).await?.items;
        let owners = sets.iter().flat_map(|set| set.metadata.owner_references.iter().flatten());
        let owners: Vec<_> = owners.map(|owner| owner.uid.as_str()).collect();
        ensure!(owners == [new.uid(); 2], "StatefulSets belong to {owners:?}: {}", new.describe());
        let left: Vec<_> = place.objects()?.into_iter().filter(|path| path.contains(old.job_id())).collect();
        ensure!(left.is_empty(), "left of the old job in the bucket: {left:?}");
        job.begin_delete().await?;
        job.wait_until_gone(GONE).await?;
        namespace.wait_for_only(&before).await
    })
}
