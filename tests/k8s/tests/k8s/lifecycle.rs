//! A job from `kubectl apply` to `kubectl delete`.

use std::time::Instant;

use millrace_k8s_tests::{
    Context, Result,
    commands::succeed,
    ensure,
    job::{Job, Manifest},
    load::{Counts, Feed, Outputs},
    suite::Suite,
    wait::PATIENCE,
};

pub fn from_apply_to_delete(suite: &Suite) -> Result<()> {
    suite.block_on(async {
        let namespace = suite.namespace("lifecycle").await?;
        let place = suite.place(&namespace).await?;
        let before = namespace.objects()?;
        let feed = Feed::start(&place, 1);
        let mut outputs = Outputs::follow(&place)?;

        let applied = Instant::now();
        let job = Job::apply(&namespace, &Manifest::counting(&place))?;
        let first = Counts::from([("key-0".to_owned(), 0)]);
        outputs.wait_until_past(&job, &first).await?;
        println!("from kubectl apply to the first record: {:.1} s", applied.elapsed().as_secs_f64());
        job.wait_until_settled().await?;
        job.wait("checkpoint", |view| view.latest_checkpoint() > 0).await?;
        columns(&job)?;
        let view = job.view().await?;
        ensure!(view.job_id().len() == 32, "job id {:?}", view.job_id());
        let path = view.text("/status/checkpoints/latest/path");
        ensure!(path.contains(view.job_id()), "checkpoint {path} does not lie in the job's own directory");
        for kind in ["Ready", "JobManagerReady", "Checkpointing", "Valid"] {
            ensure!(view.condition(kind).status == "True", "condition {kind}: {:?}", view.condition(kind));
        }
        job.wait_for_event("Running").await?;
        let events = job.events().await?;
        for reason in ["Deployed", "Running"] {
            ensure!(events.iter().filter(|event| *event == reason).count() == 1, "one event {reason} in {events:?}");
        }

        let written = feed.finish()?;
        outputs.expect_all(&job, &written).await?;
        ensure!(!place.objects()?.is_empty(), "a job with checkpoints has nothing in its bucket");
        job.begin_delete().await?;
        let took = job.wait_until_gone(PATIENCE).await?;
        println!("from kubectl delete to nothing: {:.1} s", took.as_secs_f64());
        namespace.wait_for_only(&before).await?;
        let left = place.objects()?;
        ensure!(left.is_empty(), "left in the bucket: {left:?}");
        Ok(())
    })
}

/// What `kubectl get sj` shows.
fn columns(job: &Job<'_>) -> Result<()> {
    let namespace = job.namespace;
    let shown = succeed(namespace.cluster.kubectl()?.args(["get", "sj", "--namespace", &namespace.name]))?;
    println!("{shown}");
    let mut lines = shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let header = lines.next().context("a header")?;
    ensure!(header == ["NAME", "PHASE", "READY", "PARALLELISM", "CHECKPOINT", "RESTARTS", "AGE"], "{shown}");
    let row = lines.next().context("a row")?;
    ensure!(row.len() == header.len() && row[..4] == [job.name.as_str(), "Running", "1/1", "1"], "{shown}");
    ensure!(row[4].ends_with('s') && row[5] == "0", "{shown}");
    Ok(())
}
