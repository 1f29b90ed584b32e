//! Faults of the services that a job uses, and of the network between.

use std::{
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use millrace_testkit::{
    faults::StoreFault,
    services::{self, kafka::KafkaBroker, postgres::PostgresServer},
};
use rand::Rng;

use super::{Attack, KAFKA_SOCKET_TIMEOUT, Result, at_least, happened};

/// So many requests go wrong before a store that fails is mended.
const REQUESTS: u64 = 3;

impl Attack<'_, '_> {
    pub(super) fn fail_store(&mut self, fault: StoreFault) -> Result<String> {
        let store = &self.place.store;
        store.set(fault);
        let struck = at_least(REQUESTS, || store.struck());
        store.set(StoreFault::None);
        happened(struck, format!("{struck} requests: {fault:?}"))
    }

    pub(super) fn restart_kafka(&mut self) -> Result<String> {
        self.restart("broker", &self.place.broker, KafkaBroker::kill, KafkaBroker::restart)
    }

    pub(super) fn restart_postgres(&mut self) -> Result<String> {
        let server = self.place.postgres.as_ref().ok_or("there is no database")?;
        self.restart("database", server, PostgresServer::kill, PostgresServer::restart)
    }

    fn restart<S>(
        &mut self,
        name: &str,
        service: &Mutex<S>,
        kill: impl FnOnce(&mut S) -> services::Result<()>,
        restart: impl FnOnce(&mut S) -> services::Result<()>,
    ) -> Result<String> {
        let mut service = service.lock().unwrap_or_else(PoisonError::into_inner);
        let killed = Instant::now();
        kill(&mut service)?;
        thread::sleep(Duration::from_millis(self.rng.random_range(0..1000)));
        restart(&mut service)?;
        Ok(format!("the {name} was killed and serves again after {:.1} s", killed.elapsed().as_secs_f64()))
    }

    /// Half of the cuts outlast what clients wait for an answer: they give their connections up and try again, and the
    /// requests on these take effect in the end, late.
    pub(super) fn cut_kafka(&mut self) -> Result<String> {
        let proxy = &self.place.kafka_proxy;
        let (started, timeout) = (Instant::now(), KAFKA_SOCKET_TIMEOUT.as_millis() as u64);
        proxy.hold();
        match self.rng.random_ratio(1, 2) {
            true => self.linger(timeout + 500, 2 * timeout),
            false => self.linger(200, 2000),
        }
        at_least(1, || proxy.held());
        let held = proxy.release();
        let seconds = started.elapsed().as_secs_f64();
        happened(held, format!("{held} pieces from and to Kafka held back for {seconds:.1} s and delivered late"))
    }

    pub(super) fn close_kafka(&mut self) -> Result<String> {
        // Behind another fault there may be none for a moment.
        let closed = at_least(1, || self.place.kafka_proxy.close());
        happened(closed, format!("{closed} connections to Kafka reset"))
    }

    pub(super) fn delay_kafka(&mut self) -> Result<String> {
        let delay = Duration::from_millis(self.rng.random_range(20..400));
        let proxy = &self.place.kafka_proxy;
        proxy.delay(delay);
        self.linger(1000, 2500);
        let mut delayed = 0;
        at_least(1, || {
            delayed += proxy.delay(delay);
            delayed
        });
        delayed += proxy.delay(Duration::ZERO);
        happened(delayed, format!("{delayed} pieces from and to Kafka came {delay:?} late"))
    }
}
