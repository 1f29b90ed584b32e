//! MinIO and Kafka on this machine, at an address that pods reach.

use std::{net::IpAddr, thread};

use millrace_testkit::services::{kafka::KafkaBroker, minio::Minio};

use crate::Result;

/// Real services for jobs in the cluster. They end when this is dropped.
pub struct Services {
    /// Holds checkpoints.
    pub minio: Minio,
    /// Holds what jobs read and write.
    pub kafka: KafkaBroker,
}

impl Services {
    /// Starts both.
    pub fn start(host: IpAddr) -> Result<Self> {
        thread::scope(|scope| {
            let kafka = scope.spawn(|| KafkaBroker::start_on(host));
            let minio = Minio::start_on(host)?;
            let kafka = kafka.join().expect("starting a broker does not panic")?;
            Ok(Self { minio, kafka })
        })
    }
}
