//! Which of Kafka's errors pass by themselves, and what the others mean.

use millrace_core::Error;
use rdkafka::{error::KafkaError, types::RDKafkaErrorCode as Code};

use super::context::Reported;

/// What an error means to a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// librdkafka goes on by itself.
    Passing,
    /// The broker does not have the offset that was asked for.
    Position,
    /// A topic or partition is unknown: deleted, or not known yet to a broker that has just started.
    Missing,
    /// The group may not be used.
    Group,
    /// Access was refused: nobody but a person can change that.
    Refused,
    /// Anything else.
    Failed,
}

/// Judges an error that a consumer reports while it reads.
pub(super) fn judge(error: &KafkaError) -> Verdict {
    if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
        return Verdict::Failed;
    }
    error.rdkafka_error_code().map_or(Verdict::Failed, judge_code)
}

fn judge_code(code: Code) -> Verdict {
    match code {
        Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::NoOffset => Verdict::Position,
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => Verdict::Missing,
        Code::GroupAuthorizationFailed => Verdict::Group,
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => Verdict::Refused,
        Code::AllBrokersDown
        | Code::BrokerTransportFailure
        | Code::Resolve
        | Code::OperationTimedOut
        | Code::TimedOutQueue
        | Code::RequestTimedOut
        | Code::NetworkException
        | Code::NodeUpdate
        | Code::WaitingForCoordinator
        | Code::WaitCache
        | Code::InProgress
        | Code::PreviousInProgress
        | Code::Retry
        | Code::PollExceeded
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::ReplicaNotAvailable
        | Code::BrokerNotAvailable
        | Code::KafkaStorageError
        | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch
        | Code::OffsetNotAvailable
        | Code::PreferredLeaderNotAvailable
        | Code::ThrottlingQuotaExceeded
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator => Verdict::Passing,
        _ => Verdict::Failed,
    }
}

/// The error of a call that did not succeed in time, with what librdkafka reported meanwhile.
pub(super) fn call_failed(what: &str, servers: &str, error: &KafkaError, reported: Option<Reported>) -> Error {
    let refused = reported
        .as_ref()
        .is_some_and(|reported| matches!(reported.code, Some(Code::Authentication | Code::SaslAuthenticationFailed)));
    let why = reported.map(|reported| format!(" ({})", reported.reason)).unwrap_or_default();
    let failed = Error::external(format!("{what} failed on Kafka at {servers}: {error}{why}"));
    match error.rdkafka_error_code().map(judge_code) {
        Some(Verdict::Refused | Verdict::Group) => failed.fatal(),
        _ if refused => failed.fatal(),
        _ => failed,
    }
}

/// Whether a cluster has answered that it has no such topic.
pub(super) fn is_missing(code: Code) -> bool {
    matches!(code, Code::UnknownTopic | Code::UnknownTopicOrPartition)
}

/// The error of a topic that is not there.
pub(super) fn no_such_topic(topic: &str, servers: &str) -> Error {
    Error::external(format!("topic {topic} does not exist on Kafka at {servers}; create it or correct the name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restarting_broker_passes_and_a_lost_offset_does_not() {
        let judged = |code| judge(&KafkaError::MessageConsumption(code));
        for code in [Code::AllBrokersDown, Code::BrokerTransportFailure, Code::NotLeaderForPartition, Code::Resolve] {
            assert_eq!(judged(code), Verdict::Passing, "{code:?}");
        }
        assert_eq!(judged(Code::AutoOffsetReset), Verdict::Position);
        assert_eq!(judged(Code::UnknownTopicOrPartition), Verdict::Missing);
        assert_eq!(judged(Code::TopicAuthorizationFailed), Verdict::Refused);
        assert_eq!(judged(Code::InvalidMessage), Verdict::Failed);
        assert_eq!(judge(&KafkaError::MessageConsumptionFatal(Code::AllBrokersDown)), Verdict::Failed);
    }

    #[test]
    fn wrong_credentials_are_not_tried_again() {
        let timeout = KafkaError::MetadataFetch(Code::OperationTimedOut);
        let reported = |code| Some(Reported { code: Some(code), reason: "because".into() });
        let down = call_failed("fetching", "b:1", &timeout, reported(Code::BrokerTransportFailure));
        assert!(down.retryable && down.message.contains("b:1") && down.message.contains("because"), "{down:?}");
        assert!(!call_failed("fetching", "b:1", &timeout, reported(Code::Authentication)).retryable);
        let denied = KafkaError::MetadataFetch(Code::TopicAuthorizationFailed);
        assert!(!call_failed("fetching", "b:1", &denied, None).retryable);
    }
}
