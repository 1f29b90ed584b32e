//! What `deploy/` offers, as it is: MinIO and Kafka for development, and the samples on them.

use std::process::Command;

use millrace_k8s_tests::{
    Result,
    commands::{cache, script, succeed},
    job::Job,
    suite::{Suite, skipped},
};

pub fn run(suite: &Suite) -> Result<()> {
    if suite.cluster.node.is_none() {
        skipped("samples", "deploy/dev needs images that can be loaded into the project's own cluster only");
        return Ok(());
    }
    let directory = cache().join("images");
    succeed(script("deploy/images/dev-services.sh").arg(&directory))?;
    let images = ["minio.tar", "kafka.tar"].map(|file| directory.join(file));
    succeed(script("tests/cluster/load-image.sh").args(images))?;
    suite.block_on(async {
        let namespace = suite.namespace("samples").await?;
        let kubectl = || -> Result<Command> {
            let mut command = suite.cluster.kubectl()?;
            command.args(["--namespace", &namespace.name]);
            Ok(command)
        };
        succeed(kubectl()?.args(["apply", "--filename=deploy/dev"]))?;
        for deployment in ["minio", "kafka"] {
            succeed(kubectl()?.args(["rollout", "status", &format!("deployment/{deployment}"), "--timeout=3m"]))?;
        }
        let mut topic = kubectl()?;
        topic.args(["exec", "deployment/kafka", "--", "java", "-Xmx64m", "-cp", "/opt/kafka/libs/*"]);
        topic.args(["org.apache.kafka.tools.TopicCommand", "--bootstrap-server", "kafka:9092"]);
        topic.args(["--create", "--topic", "input-topic", "--partitions", "4"]);
        succeed(&mut topic)?;
        succeed(kubectl()?.args(["apply", "--filename=deploy/samples"]))?;
        for name in ["seed", "keyed-count"] {
            let job = Job::new(&namespace, name);
            // The count may have come to its end already.
            let runs = |view: &millrace_k8s_tests::job::View| view.is_settled() || view.phase() == "Finished";
            job.wait(&format!("sample {name} that runs"), runs).await?;
            job.wait("checkpoint", |view| view.latest_checkpoint() > 0).await?;
        }
        Ok(())
    })
}
