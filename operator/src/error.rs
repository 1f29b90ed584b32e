//! What can go wrong in a reconcile, and after how long it is tried again.

use std::time::Duration;

/// The class of an error decides how soon another attempt makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Somebody else wrote the object meanwhile: look again.
    Conflict,
    /// The apiserver does not answer, or is overloaded.
    Unavailable,
    /// The operator may not do it: a right, a quota or an admission policy.
    Forbidden,
    /// The apiserver refuses an object as it is.
    Invalid,
    /// Something that should not happen.
    Internal,
}

impl ErrorClass {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Conflict, Self::Unavailable, Self::Forbidden, Self::Invalid, Self::Internal];

    /// Its name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::Forbidden => "forbidden",
            Self::Invalid => "invalid",
            Self::Internal => "internal",
        }
    }

    /// How long to wait after so many failures in a row: doubled each time up to the class's maximum.
    pub fn back_off(self, failures: u32) -> Duration {
        let (first, longest) = match self {
            Self::Conflict => (Duration::from_millis(100), Duration::from_secs(5)),
            Self::Unavailable | Self::Internal => (Duration::from_secs(1), Duration::from_secs(60)),
            Self::Forbidden => (Duration::from_secs(2), Duration::from_secs(120)),
            Self::Invalid => (Duration::from_secs(5), Duration::from_secs(300)),
        };
        first.saturating_mul(1u32 << failures.saturating_sub(1).min(16)).min(longest)
    }
}

/// Why a reconcile ended early.
#[derive(Debug, thiserror::Error)]
#[error("{action}: {}", sentence(source))]
pub struct Error {
    /// What was attempted.
    pub action: String,
    /// What the apiserver says.
    #[source]
    pub source: kube::Error,
}

impl Error {
    /// `action` failed with what the apiserver says.
    pub fn api(action: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let action = action.into();
        move |source| Self { action, source }
    }

    /// The API server did not answer.
    pub fn timed_out(after: Duration) -> Self {
        let source = kube::Error::Service(format!("no answer within {} s", after.as_secs()).into());
        Self { action: "reconcile".to_owned(), source }
    }

    /// Its class.
    pub fn class(&self) -> ErrorClass {
        match &self.source {
            kube::Error::Api(status) => match status.code {
                // 404: the object of a write is gone, which the next look shows.
                404 | 409 => ErrorClass::Conflict,
                401 | 403 => ErrorClass::Forbidden,
                400 | 413 | 422 => ErrorClass::Invalid,
                408 | 429 | 500..=599 => ErrorClass::Unavailable,
                _ => ErrorClass::Internal,
            },
            kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => {
                ErrorClass::Unavailable
            }
            _ => ErrorClass::Internal,
        }
    }

    /// Whether nothing can be created because the namespace is being deleted.
    pub fn is_namespace_terminating(&self) -> bool {
        let kube::Error::Api(status) = &self.source else { return false };
        let named = status.details.iter().flat_map(|details| &details.causes);
        status.code == 403
            && (named.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
                || status.message.contains("because it is being terminated"))
    }
}

/// The apiserver's sentence, without the whole answer that kube repeats behind it.
fn sentence(source: &kube::Error) -> String {
    match source {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::{
        Status,
        response::{StatusCause, StatusDetails},
    };

    use super::*;

    fn refused(code: u16, message: &str) -> Error {
        let status = Status::failure(message, "").with_code(code);
        Error::api("apply service a")(kube::Error::Api(status.boxed()))
    }

    #[test]
    fn the_answer_decides_the_class() {
        let cases = [
            (409, ErrorClass::Conflict),
            (404, ErrorClass::Conflict),
            (403, ErrorClass::Forbidden),
            (422, ErrorClass::Invalid),
            (400, ErrorClass::Invalid),
            (429, ErrorClass::Unavailable),
            (503, ErrorClass::Unavailable),
            (418, ErrorClass::Internal),
        ];
        for (code, class) in cases {
            assert_eq!(refused(code, "no").class(), class, "{code}");
        }
        assert_eq!(refused(422, "spec.ports: wrong").to_string(), "apply service a: spec.ports: wrong");
        let silent = Error::timed_out(Duration::from_secs(60));
        assert_eq!(silent.class(), ErrorClass::Unavailable);
        assert!(silent.to_string().contains("no answer within 60 s"), "{silent}");
    }

    #[test]
    fn waiting_doubles_up_to_the_longest_of_the_class() {
        let waits = |class: ErrorClass| [1, 2, 3, 100].map(|failures| class.back_off(failures).as_millis());
        assert_eq!(waits(ErrorClass::Conflict), [100, 200, 400, 5_000]);
        assert_eq!(waits(ErrorClass::Unavailable), [1_000, 2_000, 4_000, 60_000]);
        assert_eq!(waits(ErrorClass::Invalid), [5_000, 10_000, 20_000, 300_000]);
    }

    #[test]
    fn a_dying_namespace_is_recognised_by_its_cause_and_by_its_sentence() {
        assert!(!refused(403, "exceeded quota").is_namespace_terminating());
        let text = "unable to create new content in namespace a because it is being terminated";
        assert!(refused(403, text).is_namespace_terminating());
        let cause = StatusCause { reason: "NamespaceTerminating".to_string(), ..named() };
        let details = StatusDetails { causes: vec![cause], ..details() };
        let status = Status::failure("no", "Forbidden").with_code(403).with_details(details);
        assert!(Error::api("x")(kube::Error::Api(status.boxed())).is_namespace_terminating());
    }

    fn named() -> StatusCause {
        StatusCause { reason: String::new(), message: String::new(), field: String::new() }
    }

    fn details() -> StatusDetails {
        StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: 0,
        }
    }
}
