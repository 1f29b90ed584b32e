//! What a job has of its own in the services: a bucket and two topics.

use millrace_testkit::services::{
    kafka::KafkaClient,
    minio::{Minio, MinioClient},
};

use crate::{
    Context, Result,
    cluster::{Namespace, Services},
};

/// Partitions of each topic.
const PARTITIONS: i32 = 4;

/// A bucket and topics, named after a namespace.
#[derive(Clone, Debug)]
pub struct Place {
    /// A client of the object store.
    pub minio: MinioClient,
    /// A client of the broker.
    pub kafka: KafkaClient,
    /// The bucket for checkpoints.
    pub bucket: String,
    /// The topic that the job reads.
    pub input: String,
    /// The topic that it writes to.
    pub output: String,
}

impl Place {
    /// Makes bucket and topics, and puts the bucket's keys into the namespace.
    pub async fn create(namespace: &Namespace<'_>, services: &Services) -> Result<Self> {
        Self::create_on(namespace, &services.minio, &services.kafka.client()).await
    }

    /// The same with another object store.
    pub async fn create_on(namespace: &Namespace<'_>, minio: &Minio, kafka: &KafkaClient) -> Result<Self> {
        let name = &namespace.name;
        let place = Self {
            minio: MinioClient::clone(minio),
            kafka: kafka.clone(),
            bucket: name.clone(),
            input: format!("{name}-in"),
            output: format!("{name}-out"),
        };
        minio.create_bucket(&place.bucket)?;
        for topic in [&place.input, &place.output] {
            place.create_topic(topic)?;
        }
        namespace.put_credentials(&place.minio).await?;
        Ok(place)
    }

    /// One more topic.
    pub fn create_topic(&self, name: &str) -> Result<()> {
        self.kafka.create_topic(name, PARTITIONS).context("making a topic")
    }

    /// Where the job's checkpoints go.
    pub fn storage(&self) -> String {
        format!("s3://{}/checkpoints", self.bucket)
    }

    /// The object store, as pods reach it.
    pub fn endpoint(&self) -> String {
        self.minio.endpoint()
    }

    /// The broker, as pods reach it.
    pub fn bootstrap(&self) -> String {
        self.kafka.bootstrap()
    }

    /// Everything that lies in the bucket.
    pub fn objects(&self) -> Result<Vec<String>> {
        Ok(self.minio.objects(&self.bucket)?)
    }
}
