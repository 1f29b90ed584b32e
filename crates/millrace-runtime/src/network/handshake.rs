//! The first frame of a connection, and who is let in.

use millrace_core::{
    Error, Result, codec,
    ids::{Attempt, Generation, JobId, TaskManagerId},
};
use serde::{Deserialize, Serialize};

use super::{NetworkSettings, frame::garbage};

const MAGIC: [u8; 4] = *b"MRDP";
/// The version of the frames; taskmanagers of different versions don't talk.
const VERSION: u16 = 2;

/// Who a producing taskmanager is and what it wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub job: JobId,
    pub generation: Generation,
    pub attempt: Attempt,
    pub from: TaskManagerId,
    /// Whom it means to reach: an address may have a new owner.
    pub to: TaskManagerId,
    pub auth: Vec<u8>,
}

impl Hello {
    /// Magic and version come first and never change, so that any two versions can refuse each other politely.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        codec::encode_into(self, &mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let body = bytes.strip_prefix(&MAGIC).ok_or_else(|| garbage("it is not from a taskmanager"))?;
        let (version, body) = body.split_first_chunk::<2>().ok_or_else(|| garbage("it is too short"))?;
        let version = u16::from_le_bytes(*version);
        if version != VERSION {
            return Err(Error::invalid(format!(
                "the peer speaks version {version} of the data protocol, this taskmanager version {VERSION}: \
                 run the same build on all of them"
            )));
        }
        codec::decode(body)
    }

    /// Decides whether this taskmanager talks to the peer. `known` tells whether the attempt has inputs here.
    pub(super) fn check(&self, settings: &NetworkSettings, known: bool) -> Result<(), String> {
        if self.auth != settings.auth {
            return Err("its authentication field is wrong".into());
        }
        if self.job != settings.job {
            return Err(format!("it belongs to job {}, this taskmanager to job {}", self.job, settings.job));
        }
        if self.to != settings.taskmanager {
            return Err(format!("it looks for taskmanager {}, this is {}", self.to, settings.taskmanager));
        }
        if !known {
            let (attempt, generation) = (self.attempt, self.generation);
            return Err(format!("attempt {attempt} of generation {generation} is not deployed here"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            job: JobId(1),
            generation: Generation(1),
            attempt: Attempt(1),
            from: TaskManagerId("from".into()),
            to: TaskManagerId("to".into()),
            auth: b"secret".to_vec(),
        }
    }

    #[test]
    fn each_mismatch_is_refused_with_its_reason() {
        let settings =
            NetworkSettings { auth: b"secret".to_vec(), ..NetworkSettings::new(JobId(1), TaskManagerId("to".into())) };
        assert_eq!(hello().check(&settings, true), Ok(()));
        let refused = |hello: Hello, known, part: &str| {
            let reason = hello.check(&settings, known).unwrap_err();
            assert!(reason.contains(part), "{reason}");
        };
        refused(Hello { auth: vec![], ..hello() }, true, "authentication");
        refused(Hello { job: JobId(2), ..hello() }, true, "belongs to job 0000");
        refused(Hello { to: TaskManagerId("other".into()), ..hello() }, true, "looks for taskmanager other");
        refused(hello(), false, "attempt 1 of generation 1");
    }

    #[test]
    fn another_protocol_or_version_is_refused() {
        let bytes = hello().encode().unwrap();
        assert_eq!(Hello::decode(&bytes).unwrap(), hello());
        assert!(Hello::decode(b"GET / HTTP/1.1").unwrap_err().message.contains("not from a taskmanager"));
        let mut newer = bytes;
        newer[4] = 9;
        assert!(Hello::decode(&newer).unwrap_err().message.contains("version 9"));
    }
}
