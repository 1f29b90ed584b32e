//! Identifiers. Each is a type of its own, so that one cannot stand for another.

use std::{fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, de};

use crate::Error;

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The one that follows.
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(
    /// An incarnation of the jobmanager. A higher one fences all lower ones.
    Generation(u64)
);
number_id!(
    /// One start of the job's tasks within a generation.
    Attempt(u32)
);
number_id!(
    /// A checkpoint of a job; never used twice within a job's life.
    CheckpointId(u64)
);
number_id!(
    /// A vertex of the job graph: a chain of operators.
    VertexId(u32)
);
number_id!(
    /// An input of an operator.
    InputId(u16)
);
number_id!(
    /// An output of an operator.
    OutputId(u16)
);

/// A job, for its whole life across restarts; 32 hexadecimal digits, as Flink writes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u128);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobId({self})")
    }
}

impl FromStr for JobId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let id = digits.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        id.map(Self).ok_or_else(|| Error::invalid(format!("job id {text:?} is not 32 hexadecimal digits")))
    }
}

impl Serialize for JobId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for JobId {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "JobId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9a-f]{32}$" })
    }
}

/// A start of a job's tasks. No two are the same, and of one job's, a later one is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobAttempt {
    /// The job.
    pub job: JobId,
    /// The jobmanager that has started it.
    pub generation: Generation,
    /// Its number among those of this jobmanager.
    pub attempt: Attempt,
}

impl JobAttempt {
    /// A job's first start.
    pub const fn first(job: JobId) -> Self {
        Self { job, generation: Generation(1), attempt: Attempt(1) }
    }

    /// Whether the other one is over since this one has begun: an earlier one of this job, or any of another job that
    /// had the same place.
    pub fn supersedes(self, other: Self) -> bool {
        other.job != self.job || other < self
    }

    /// Whether the other one is an earlier one of this job. Unlike [`supersedes`](Self::supersedes), it can be asked at any
    /// time: of attempts of two jobs nobody knows which is the zombie.
    pub fn follows(self, other: Self) -> bool {
        other.job == self.job && other < self
    }
}

impl fmt::Display for JobAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { job, generation, attempt } = self;
        write!(f, "{job}.{generation}.{attempt}")
    }
}

impl FromStr for JobAttempt {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = || {
            let mut parts = text.splitn(3, '.');
            let job = parts.next()?.parse().ok()?;
            let generation = Generation(parts.next()?.parse().ok()?);
            Some(Self { job, generation, attempt: Attempt(parts.next()?.parse().ok()?) })
        };
        // Not one that is only read like this: "+1", "01".
        let parsed = parse().filter(|attempt| attempt.to_string() == text);
        parsed.ok_or_else(|| Error::invalid(format!("{text:?} is no attempt: <job id>.<generation>.<attempt>")))
    }
}

/// What ties an operator's state to the operator across versions of a program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct OperatorUid(pub String);

impl fmt::Display for OperatorUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A taskmanager process; unique for every start of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct TaskManagerId(pub String);

impl fmt::Display for TaskManagerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A subtask: one of the parallel instances of a vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId {
    /// The vertex.
    pub vertex: VertexId,
    /// The index among the vertex's subtasks, from 0.
    pub subtask: u32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.vertex, self.subtask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_supersedes_those_before_it_and_all_of_other_jobs() {
        let attempt = |job, generation, attempt| JobAttempt {
            job: JobId(job),
            generation: Generation(generation),
            attempt: Attempt(attempt),
        };
        let own = attempt(1, 3, 2);
        for over in [attempt(1, 3, 1), attempt(1, 2, 9), attempt(2, 9, 9)] {
            assert!(own.supersedes(over), "{over}");
            assert_eq!(own.follows(over), over.job == own.job, "{over}");
        }
        for later in [own, attempt(1, 3, 3), attempt(1, 4, 1)] {
            assert!(!own.supersedes(later) && !own.follows(later), "{later}");
        }
        assert_eq!(own.to_string().parse::<JobAttempt>().unwrap(), own);
        for wrong in ["", "part", "1.3.2", &format!("{own}.4"), &own.to_string().replace(".3", ".+3")] {
            wrong.parse::<JobAttempt>().unwrap_err();
        }
    }

    #[test]
    fn a_job_id_is_read_as_it_is_written() {
        let id = JobId(0xabc);
        assert_eq!(id.to_string().parse::<JobId>().unwrap(), id);
    }

    #[test]
    fn a_wrong_job_id_is_named() {
        for text in ["", "xyz", "+0000000000000000000000000000001"] {
            let error = text.parse::<JobId>().unwrap_err();
            assert!(error.message.contains(&format!("{text:?}")), "{error}");
        }
    }
}
