//! Errors whose class is data, so that it survives a process boundary: who is to blame, and whether trying again can
//! help (after `ErrorDomain` and `RetryHint` of Arroyo).

use serde::{Deserialize, Serialize};

/// Any error a user's function may return.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// What a user's function returns.
pub type FunctionResult<T = ()> = std::result::Result<T, BoxError>;
/// The engine's own result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who can mend an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorDomain {
    /// The job's author: a function failed, a setting is wrong, a state type does not fit.
    User,
    /// The world outside: a broker, a store or a peer does not answer.
    External,
    /// Millrace itself.
    Internal,
}

/// An error with its class. `Display` shows the message alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Who can mend it.
    pub domain: ErrorDomain,
    /// Whether the same attempt may succeed later without anybody's change.
    pub retryable: bool,
    /// What failed, on which thing, and what to do.
    pub message: String,
}

impl Error {
    /// An error of the job's author that a restart may cure (a function that failed on a record).
    pub fn user(message: impl Into<String>) -> Self {
        Self { domain: ErrorDomain::User, retryable: true, message: message.into() }
    }

    /// A setting, type or argument that is wrong: no restart can cure it.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { domain: ErrorDomain::User, retryable: false, message: message.into() }
    }

    /// Something outside does not answer or refuses for now.
    pub fn external(message: impl Into<String>) -> Self {
        Self { domain: ErrorDomain::External, retryable: true, message: message.into() }
    }

    /// A broken invariant of the engine.
    pub fn internal(message: impl Into<String>) -> Self {
        Self { domain: ErrorDomain::Internal, retryable: true, message: message.into() }
    }

    /// The same error, marked as one that trying again cannot cure.
    pub fn fatal(mut self) -> Self {
        self.retryable = false;
        self
    }

    /// The same error, its message preceded by what was being done.
    pub fn context(mut self, what: impl std::fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The error of a user's function. An [`Error`] inside keeps its class; anything else is the user's.
    pub fn from_function(error: BoxError) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => *error,
            Err(other) => Self::user(chain_text(&*other)),
        }
    }

    /// The error behind a panic's payload.
    pub fn from_panic(payload: &(dyn std::any::Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_string())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a payload that is no text".to_string());
        Self::user(format!("panicked: {text}"))
    }
}

/// An error and its causes on one line, outermost first.
pub fn chain_text(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_survives_a_box() {
        let boxed: BoxError = Box::new(Error::external("broker b:9092 does not answer"));
        let error = Error::from_function(boxed);
        assert_eq!(error.domain, ErrorDomain::External);
        assert!(error.retryable);
    }

    #[test]
    fn a_foreign_error_is_the_users_and_keeps_its_causes() {
        let parse = "x".parse::<i32>().unwrap_err();
        let error = Error::from_function(Box::new(parse));
        assert_eq!(error.domain, ErrorDomain::User);
        assert!(error.message.contains("invalid digit"));
    }
}
