//! Leader election: one replica of the operator works at a time. The one whose name stands in a Lease and that renews it;
//! who can't renew it ends its process before another may take over. This only saves double work and noise: what must
//! not happen twice is fenced in the checkpoint store, not here.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::{Instant, sleep, timeout};

/// How long a lease that is not renewed keeps others out.
const LEASE_DURATION: Duration = Duration::from_secs(15);
/// How long the holder tries to renew it before it ends.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Time between two attempts.
const RETRY_PERIOD: Duration = Duration::from_secs(2);
/// How long one request may last.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// What to do about a Lease.
#[derive(Clone, Debug, PartialEq)]
enum Move {
    /// There is none.
    Create(LeaseSpec),
    /// It is ours, given back or expired.
    Replace(LeaseSpec),
    /// Somebody else has it.
    Wait,
}

/// The candidate's view: whose lease it saw last, and since when it has not changed. Expiry is measured by this process's
/// clock from what it saw, so that clocks that differ between nodes do no harm.
#[derive(Debug)]
struct Candidate {
    identity: String,
    seen: Option<(LeaseSpec, Instant)>,
}

impl Candidate {
    fn decide(&mut self, lease: Option<&LeaseSpec>, now: Instant, clock: Timestamp) -> Move {
        let Some(lease) = lease else { return Move::Create(self.taken(None, clock)) };
        if self.seen.as_ref().is_none_or(|(seen, _)| seen != lease) {
            self.seen = Some((lease.clone(), now));
        }
        let holder = lease.holder_identity.as_deref().unwrap_or_default();
        if holder == self.identity {
            return Move::Replace(LeaseSpec { renew_time: Some(MicroTime(clock)), ..lease.clone() });
        }
        let lasts = lease
            .lease_duration_seconds
            .map_or(LEASE_DURATION, |seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or_default()));
        let unchanged_for = self.seen.as_ref().map_or(Duration::ZERO, |(_, since)| now.duration_since(*since));
        if holder.is_empty() || unchanged_for >= lasts {
            Move::Replace(self.taken(Some(lease), clock))
        } else {
            Move::Wait
        }
    }

    fn taken(&self, from: Option<&LeaseSpec>, clock: Timestamp) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(LEASE_DURATION.as_secs() as i32),
            acquire_time: Some(MicroTime(clock)),
            renew_time: Some(MicroTime(clock)),
            lease_transitions: Some(from.map_or(0, |lease| lease.lease_transitions.unwrap_or_default() + 1)),
            ..LeaseSpec::default()
        }
    }
}

/// One candidate for the Lease.
pub struct Elector {
    api: Api<Lease>,
    name: String,
    candidate: Candidate,
    renewed: Instant,
}

/// Why the process must end.
#[derive(Debug, thiserror::Error)]
#[error("the lease {0} is lost: another replica may lead")]
pub struct Lost(String);

impl Elector {
    /// A candidate named `pod`: what follows the name differs from one start to the next.
    pub fn new(client: Client, namespace: &str, name: &str, pod: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_string(),
            candidate: Candidate { identity: format!("{pod}_{}", uuid::Uuid::new_v4()), seen: None },
            renewed: Instant::now(),
        }
    }

    /// Waits until this process leads.
    pub async fn acquire(&mut self) {
        let mut waits = false;
        loop {
            match self.attempt().await {
                Ok(true) => {
                    tracing::info!(lease = self.name, identity = self.candidate.identity, "this replica leads");
                    return;
                }
                Ok(false) if waits => {}
                Ok(false) => {
                    waits = true;
                    tracing::info!(lease = self.name, "another replica leads: this one stands by");
                }
                Err(error) => tracing::warn!(lease = self.name, "cannot take the lease: {error}"),
            }
            sleep(RETRY_PERIOD).await;
        }
    }

    /// Renews the lease for as long as that succeeds.
    pub async fn hold(&mut self) -> Lost {
        loop {
            sleep(RETRY_PERIOD).await;
            match self.attempt().await {
                Ok(true) => {}
                Ok(false) => return Lost(self.name.clone()),
                Err(error) => tracing::warn!(lease = self.name, "cannot renew the lease: {error}"),
            }
            if self.renewed.elapsed() >= RENEW_DEADLINE {
                return Lost(self.name.clone());
            }
        }
    }

    /// Gives the lease back, so that another replica leads at once.
    pub async fn release(self) {
        let given_back = async {
            let mut lease = self.api.get(&self.name).await?;
            let Some(spec) = &mut lease.spec else { return Ok(()) };
            if spec.holder_identity.as_ref() != Some(&self.candidate.identity) {
                return Ok(());
            }
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
            spec.renew_time = Some(MicroTime(Timestamp::now()));
            self.api.replace(&self.name, &PostParams::default(), &lease).await.map(|_| ())
        };
        match timeout(REQUEST_TIMEOUT, given_back).await {
            Ok(Ok(())) => tracing::info!(lease = self.name, "the lease is given back"),
            Ok(Err(error)) => tracing::warn!(lease = self.name, "cannot give the lease back: {error}"),
            Err(_) => tracing::warn!(lease = self.name, "cannot give the lease back in time"),
        }
    }

    /// Whether this process has the lease after another look at it.
    async fn attempt(&mut self) -> Result<bool, Failed> {
        // Measured from before the request: an answer that is late must not stretch the lease.
        let asked = Instant::now();
        let led = timeout(REQUEST_TIMEOUT, self.exchange()).await.map_err(|_| Failed::TimedOut)??;
        if led {
            self.renewed = asked;
        }
        Ok(led)
    }

    async fn exchange(&mut self) -> Result<bool, Failed> {
        let found = self.api.get_opt(&self.name).await?;
        let spec = found.as_ref().map(|lease| lease.spec.clone().unwrap_or_default());
        let parameters = PostParams::default();
        let written = match self.candidate.decide(spec.as_ref(), Instant::now(), Timestamp::now()) {
            Move::Wait => return Ok(false),
            Move::Create(spec) => {
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                self.api.create(&parameters, &Lease { metadata, spec: Some(spec) }).await
            }
            Move::Replace(spec) => {
                // With the resource version of what was read: of two that take it at once, one is refused.
                let lease = Lease { spec: Some(spec), ..found.unwrap_or_default() };
                self.api.replace(&self.name, &parameters, &lease).await
            }
        };
        match written {
            Ok(_) => Ok(true),
            // Somebody else was faster: the next look says who.
            Err(kube::Error::Api(status)) if status.code == 409 => Err(Failed::Overtaken),
            Err(error) => Err(error.into()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("no answer within {} s", REQUEST_TIMEOUT.as_secs())]
    TimedOut,
    #[error("another replica wrote it meanwhile")]
    Overtaken,
    #[error(transparent)]
    Api(#[from] kube::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(identity: &str) -> Candidate {
        Candidate { identity: identity.to_string(), seen: None }
    }

    fn lease_of(act: Move) -> LeaseSpec {
        match act {
            Move::Create(spec) | Move::Replace(spec) => spec,
            Move::Wait => panic!("the lease should be taken"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_takes_it_and_renews_it_and_the_second_waits_until_it_has_not_changed_for_15_s() {
        let (mut first, mut second) = (candidate("first"), candidate("second"));
        let clock = Timestamp::UNIX_EPOCH;
        let taken = lease_of(first.decide(None, Instant::now(), clock));
        assert_eq!(taken.holder_identity.as_deref(), Some("first"));
        assert_eq!((taken.lease_duration_seconds, taken.lease_transitions), (Some(15), Some(0)));

        assert_eq!(second.decide(Some(&taken), Instant::now(), clock), Move::Wait);
        tokio::time::advance(Duration::from_secs(14)).await;
        let later = Timestamp::from_second(14).unwrap();
        let renewed = lease_of(first.decide(Some(&taken), Instant::now(), later));
        assert_eq!(renewed.renew_time, Some(MicroTime(later)));
        assert_eq!(renewed.acquire_time, taken.acquire_time);

        assert_eq!(second.decide(Some(&renewed), Instant::now(), later), Move::Wait);
        tokio::time::advance(Duration::from_secs(14)).await;
        assert_eq!(second.decide(Some(&renewed), Instant::now(), later), Move::Wait, "14 s since it changed");
        tokio::time::advance(Duration::from_secs(1)).await;
        let over = lease_of(second.decide(Some(&renewed), Instant::now(), later));
        assert_eq!(over.holder_identity.as_deref(), Some("second"));
        assert_eq!(over.lease_transitions, Some(1));
        assert_eq!(first.decide(Some(&over), Instant::now(), later), Move::Wait, "the first has lost it");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_given_back_is_taken_at_once() {
        let mut second = candidate("second");
        let clock = Timestamp::UNIX_EPOCH;
        let free = LeaseSpec { holder_identity: None, lease_transitions: Some(4), ..LeaseSpec::default() };
        let taken = lease_of(second.decide(Some(&free), Instant::now(), clock));
        assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("second"), Some(5)));
    }
}
