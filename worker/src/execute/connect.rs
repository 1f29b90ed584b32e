//! The ways between a jobmanager and its taskmanagers: TCP, or a pipe inside one process.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use millrace_core::{Error, Result};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::mpsc,
    task::AbortHandle,
    time::{error::Elapsed, interval, timeout},
};

use crate::{
    jobmanager::{self, Admission, PeerEvent},
    rpc::Connection,
    taskmanager::Connect,
};

/// How long connecting may take: nobody answers for the address of a pod that is gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// After so long without an answer it is tried anew beside that: the name may stand for another pod by now, which waits for
/// its tasks no longer than a second.
const ANOTHER_ATTEMPT: Duration = Duration::from_millis(250);

/// How taskmanagers come in.
pub enum Door {
    /// A port.
    Network(TcpListener, SocketAddr),
    /// A pipe from the same process.
    Local(mpsc::UnboundedReceiver<Connection>),
}

impl Door {
    /// The port's address.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Network(_, address) => Some(*address),
            Self::Local(_) => None,
        }
    }

    /// Sends everybody away, for ever: they come again. While the job is not this jobmanager's, that is all that it
    /// can tell them, and a connection that waited would be of no use any more when its turn comes.
    pub async fn turn_away(&mut self) -> Infallible {
        loop {
            match self {
                Self::Network(listener, _) => {
                    if listener.accept().await.is_err() {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
                Self::Local(door) => {
                    if door.recv().await.is_none() {
                        std::future::pending::<()>().await;
                    }
                }
            }
        }
    }

    /// Lets taskmanagers in until it is dropped; `control` serves them.
    pub fn open(
        self,
        admission: Arc<Admission>,
        events: mpsc::UnboundedSender<PeerEvent>,
        control: &Handle,
    ) -> OpenDoor {
        let task = match self {
            Self::Network(listener, _) => control.spawn(jobmanager::listen(listener, admission, events)),
            Self::Local(door) => control.spawn(serve_local(door, admission, events)),
        };
        OpenDoor(task.abort_handle())
    }
}

/// A door through which taskmanagers come in. Dropping it closes it.
pub struct OpenDoor(AbortHandle);

impl Drop for OpenDoor {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn serve_local(
    mut door: mpsc::UnboundedReceiver<Connection>,
    admission: Arc<Admission>,
    events: mpsc::UnboundedSender<PeerEvent>,
) {
    while let Some(connection) = door.recv().await {
        let (admission, events) = (Arc::clone(&admission), events.clone());
        tokio::spawn(jobmanager::serve(connection, admission, events));
    }
}

/// A pipe to the jobmanager of the same process.
pub struct LocalConnect(pub mpsc::UnboundedSender<Connection>);

impl Connect for LocalConnect {
    async fn connect(&mut self) -> Result<Connection> {
        let (near, far) = tokio::io::duplex(1 << 20);
        self.0.send(Connection::new(far)).map_err(|_| Error::internal("the jobmanager has ended"))?;
        Ok(Connection::new(near))
    }

    fn target(&self) -> String {
        "this process".to_string()
    }
}

/// A TCP connection to the jobmanager's address.
pub struct TcpConnect(pub String);

/// The first answer that any of several attempts gets, one after the other and side by side. An error where there is none
/// in time.
async fn first_answer<T, F: Future<Output = T>>(mut attempt: impl FnMut() -> F) -> std::result::Result<T, Elapsed> {
    let mut attempts = FuturesUnordered::new();
    let mut next = interval(ANOTHER_ATTEMPT);
    let answer = async {
        loop {
            tokio::select! {
                Some(answer) = attempts.next() => return answer,
                _ = next.tick() => attempts.push(attempt()),
            }
        }
    };
    timeout(CONNECT_TIMEOUT, answer).await
}

impl Connect for TcpConnect {
    async fn connect(&mut self) -> Result<Connection> {
        let cannot = |why: String| Error::external(format!("can't connect: {why}"));
        let connected = first_answer(|| TcpStream::connect(&self.0)).await;
        let stream = connected.map_err(|_| cannot(format!("no answer within {CONNECT_TIMEOUT:?}")))?;
        let stream = stream.map_err(|error| cannot(error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| cannot(error.to_string()))?;
        Ok(Connection::new(stream))
    }

    fn target(&self) -> String {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures::future::Either;
    use tokio::time::Instant;

    use super::*;

    /// What is answered, and after which time, where only this attempt, counted from 0, is answered at all.
    async fn answered(which: usize, answer: std::result::Result<(), &'static str>) -> (Option<bool>, Duration) {
        let (mut attempts, began) = (0.., Instant::now());
        let attempt = || match attempts.next() == Some(which) {
            true => Either::Left(ready(answer)),
            false => Either::Right(pending()),
        };
        let first = first_answer(attempt).await;
        (first.ok().map(|answer| answer.is_ok()), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_does_not_answer_does_not_hold_up_the_next_attempt() {
        assert_eq!(answered(0, Ok(())).await, (Some(true), Duration::ZERO));
        assert_eq!(answered(0, Err("refused")).await, (Some(false), Duration::ZERO), "whoever asked waits a little");
        assert_eq!(answered(1, Ok(())).await, (Some(true), ANOTHER_ATTEMPT));
        assert_eq!(answered(3, Err("refused")).await, (Some(false), ANOTHER_ATTEMPT * 3));
        assert_eq!(answered(usize::MAX, Ok(())).await.0, None);
    }
}
