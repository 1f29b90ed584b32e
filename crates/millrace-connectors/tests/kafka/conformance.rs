//! The sink in transactions under the suite that kills it at every step.

use millrace_connectors::kafka::KafkaSink;
use millrace_core::sink::DeliveryGuarantee;
use millrace_testkit::{
    conformance::sink::{SinkUnderTest, sink_conformance},
    services::kafka::{Follower, Isolation},
};

use super::*;

/// A topic, and a reader that runs all the time.
struct Transactions {
    kafka: &'static KafkaBroker,
    reader: Follower,
    seen: Vec<String>,
}

impl SinkUnderTest for Transactions {
    type Sink = KafkaSink<String>;

    fn sink(&self) -> KafkaSink<String> {
        KafkaSink::strings()
            .bootstrap_servers(self.kafka.bootstrap())
            .topic("conformance")
            .delivery_guarantee(DeliveryGuarantee::ExactlyOnce)
            .transactional_id_prefix("conformance")
            .build()
            .unwrap()
    }

    fn visible(&mut self) -> Vec<String> {
        let more = self.reader.read_on(Duration::from_millis(200)).unwrap();
        self.seen.extend(more.iter().map(|message| message.text().to_owned()));
        self.seen.clone()
    }
}

#[test]
fn readers_see_each_record_once_and_in_order_wherever_the_job_dies() {
    let kafka = KafkaBroker::shared();
    kafka.create_topic("conformance", 1).unwrap();
    let reader = kafka.follow("conformance", Isolation::ReadCommitted).unwrap();
    sink_conformance(&mut Transactions { kafka, reader, seen: Vec::new() });
}
