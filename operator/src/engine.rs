//! A jobmanager as the operator sees it: its REST interface at the pod's address.

use std::time::Duration;

use millrace_core::rest::{
    CheckpointStatistics, CheckpointingStatistics, ErrorResponse, JobDetails, JobExceptions, JobStatus,
    RecoveryDetails, TaskManagers,
};
use reqwest::{Client, Method, Response, StatusCode};

/// How long the jobmanager may take for an answer. It answers from memory.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// What a jobmanager says of its job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobFacts {
    /// What the job is doing; none before the first answer.
    pub state: Option<JobStatus>,
    /// The jobmanager's generation.
    pub generation: u64,
    /// Restarts within this generation.
    pub restarts: u64,
    /// When the job started, in milliseconds since the epoch.
    pub start_time: i64,
    /// What the job waits for.
    pub waiting_for: Option<String>,
    /// The greatest parallelism of its vertices.
    pub parallelism: u32,
    /// The last recovery.
    pub last_recovery: Option<RecoveryDetails>,
    /// What the jobmanager could not delete, and why.
    pub left_behind: Option<String>,
    /// Checkpoints completed by this jobmanager.
    pub completed: u64,
    /// Checkpoints failed under this jobmanager.
    pub failed: u64,
    /// The newest completed checkpoint.
    pub latest: Option<CheckpointStatistics>,
    /// Why the newest failed one failed.
    pub checkpoint_failure: Option<String>,
    /// Slots of the registered taskmanagers.
    pub slots_total: u32,
    /// Those that hold no subtask.
    pub slots_free: u32,
    /// The newest failure of the job.
    pub failure: Option<String>,
}

/// Why a jobmanager did not give an answer.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No connection, no answer in time, or one that makes no sense.
    #[error("{0}")]
    Unreachable(String),
    /// It answered, and refused.
    #[error("the jobmanager refused with {status}: {message}")]
    Refused {
        /// HTTP's.
        status: StatusCode,
        /// Its sentence.
        message: String,
    },
}

/// A client for all jobmanagers.
#[derive(Clone, Debug)]
pub struct EngineClient {
    http: Client,
    port: u16,
}

impl EngineClient {
    /// A client; `port` is where jobmanagers serve REST.
    pub fn new(port: u16) -> Self {
        // Addresses of pods are never behind a proxy, whatever the operator's environment says.
        let http = Client::builder()
            .timeout(TIMEOUT)
            .connect_timeout(TIMEOUT)
            .no_proxy()
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(1)
            .build()
            .expect("a client without TLS needs nothing that can be missing");
        Self { http, port }
    }

    /// What the jobmanager at `address` says of job `id`.
    pub async fn job(&self, address: &str, id: &str) -> Result<JobFacts, EngineError> {
        let job = format!("/jobs/{id}");
        let (of_checkpoints, of_exceptions) =
            (format!("{job}/checkpoints"), format!("{job}/exceptions?maxExceptions=1"));
        let details: JobDetails = self.get(address, &job).await?;
        let (checkpoints, taskmanagers, exceptions) = tokio::try_join!(
            self.get::<CheckpointingStatistics>(address, &of_checkpoints),
            self.get::<TaskManagers>(address, "/taskmanagers"),
            self.get::<JobExceptions>(address, &of_exceptions),
        )?;
        Ok(facts(details, checkpoints, &taskmanagers, exceptions))
    }

    /// Asks the jobmanager to cancel job `id` and to delete everything of it in the store.
    pub async fn delete(&self, address: &str, id: &str) -> Result<(), EngineError> {
        self.request(Method::DELETE, address, &format!("/jobs/{id}")).await.map(|_| ())
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, address: &str, path: &str) -> Result<T, EngineError> {
        let mut answer = self.request(Method::GET, address, path).await?;
        let broken = |error: String| EngineError::Unreachable(format!("answer to {path}: {error}"));
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(|error| broken(innermost(&error)))? {
            if body.len() + part.len() > ANSWER_BYTES_MAX {
                return Err(broken(format!("longer than {ANSWER_BYTES_MAX} bytes")));
            }
            body.extend_from_slice(&part);
        }
        serde_json::from_slice(&body).map_err(|error| broken(error.to_string()))
    }

    async fn request(&self, method: Method, address: &str, path: &str) -> Result<Response, EngineError> {
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_string() };
        let url = format!("http://{host}:{}{path}", self.port);
        let answer = self.http.request(method, url).send().await;
        let answer = answer.map_err(|error| EngineError::Unreachable(innermost(&error)))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let message = match answer.json::<ErrorResponse>().await {
            Ok(refusal) => refusal.errors.join("; "),
            Err(_) => "without a reason".to_string(),
        };
        Err(EngineError::Refused { status, message })
    }
}

/// The cause that says something: reqwest's own sentences only say that sending failed.
fn innermost(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", TIMEOUT.as_secs());
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

fn facts(
    details: JobDetails,
    checkpoints: CheckpointingStatistics,
    taskmanagers: &TaskManagers,
    exceptions: JobExceptions,
) -> JobFacts {
    JobFacts {
        state: Some(details.state),
        generation: details.generation.0,
        restarts: details.restarts,
        start_time: details.start_time,
        waiting_for: details.waiting_for,
        parallelism: details.vertices.iter().map(|vertex| vertex.parallelism).max().unwrap_or_default(),
        last_recovery: details.last_recovery,
        left_behind: details.left_behind,
        completed: checkpoints.counts.completed,
        failed: checkpoints.counts.failed,
        latest: checkpoints.latest.completed,
        checkpoint_failure: checkpoints.latest.failed.and_then(|failed| failed.failure_message),
        slots_total: taskmanagers.taskmanagers.iter().map(|taskmanager| taskmanager.slots_number).sum(),
        slots_free: taskmanagers.taskmanagers.iter().map(|taskmanager| taskmanager.free_slots).sum(),
        failure: exceptions.root_exception,
    }
}

#[cfg(test)]
mod tests {
    use axum::{
        Json, Router,
        extract::Path,
        http::StatusCode as Code,
        routing::{get, patch},
    };
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;

    /// Serves what a jobmanager would; the process that a job runs in is tested with the operator on a real cluster.
    async fn serve(router: Router) -> EngineClient {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(axum::serve(listener, router).into_future());
        EngineClient::new(port)
    }

    #[tokio::test]
    async fn a_refusal_is_told_with_its_sentence() {
        let refused = || async { (Code::SERVICE_UNAVAILABLE, Json(json!({"errors": ["still waits for the store"]}))) };
        let client = serve(Router::new().route("/jobs/{id}", patch(refused).delete(refused))).await;
        let error = client.delete("127.0.0.1", "a").await.unwrap_err();
        let said = "the jobmanager refused with 503 Service Unavailable: still waits for the store";
        assert_eq!(error.to_string(), said);
    }

    #[tokio::test]
    async fn an_answer_that_makes_no_sense_or_is_too_long_is_none() {
        let answer = |Path(id): Path<String>| async move {
            if id == "long" { "x".repeat(ANSWER_BYTES_MAX + 1) } else { "{}".to_owned() }
        };
        let client = serve(Router::new().route("/jobs/{id}", get(answer))).await;
        for (id, said) in [("a", "answer to /jobs/a: missing field"), ("long", "longer than 4194304 bytes")] {
            let error = client.job("127.0.0.1", id).await.unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[tokio::test]
    async fn one_that_does_not_answer_is_not_waited_for_longer_than_2_s() {
        let never = || async { std::future::pending::<String>().await };
        let client = serve(Router::new().route("/jobs/{id}", get(never))).await;
        let started = std::time::Instant::now();
        let error = client.job("127.0.0.1", "a").await.unwrap_err();
        assert_eq!(error.to_string(), "no answer within 2 s");
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test]
    async fn a_closed_port_is_named_as_such() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = EngineClient::new(listener.local_addr().unwrap().port());
        drop(listener);
        let error = client.job("127.0.0.1", "a").await.unwrap_err().to_string();
        assert!(error.contains("onnection refused"), "{error}");
    }
}
