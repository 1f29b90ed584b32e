//! The client of a jobmanager's REST server.

use std::time::Duration;

use millrace_core::{
    Error, Result,
    ids::JobId,
    rest::{CheckpointingStatistics, ErrorResponse, JobDetails, JobExceptions, TaskManagers},
};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;

const TIMEOUT: Duration = Duration::from_secs(10);

/// The client of one job.
pub struct Client {
    http: reqwest::Client,
    base: String,
    job: JobId,
}

impl Client {
    /// A client of the job whose jobmanager's REST server is at `address`, `host:port`.
    pub fn new(address: &str, job: JobId) -> Result<Self> {
        // A proxy that is meant for the internet does not know this machine's ports.
        let http = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build();
        let http = http.map_err(|error| Error::internal(format!("HTTP client: {error}")))?;
        Ok(Self { http, base: format!("http://{address}"), job })
    }

    /// The job.
    pub async fn details(&self) -> Result<JobDetails> {
        self.get(&format!("/jobs/{}", self.job)).await
    }

    /// Its checkpoints.
    pub async fn checkpoints(&self) -> Result<CheckpointingStatistics> {
        self.get(&format!("/jobs/{}/checkpoints", self.job)).await
    }

    /// Its failures.
    pub async fn exceptions(&self) -> Result<JobExceptions> {
        self.get(&format!("/jobs/{}/exceptions", self.job)).await
    }

    /// Its taskmanagers.
    pub async fn taskmanagers(&self) -> Result<TaskManagers> {
        self.get("/taskmanagers").await
    }

    /// Asks for the job's end.
    pub async fn cancel(&self) -> Result<()> {
        self.send(Method::PATCH, &format!("/jobs/{}?mode=cancel", self.job)).await.map(drop)
    }

    /// Asks for the job's end with a final checkpoint.
    pub async fn stop(&self) -> Result<()> {
        self.send(Method::POST, &format!("/jobs/{}/stop", self.job)).await.map(drop)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let body = self.send(Method::GET, path).await?;
        serde_json::from_slice(&body)
            .map_err(|error| Error::external(format!("{}{path} gave an unknown answer: {error}", self.base)))
    }

    async fn send(&self, method: Method, path: &str) -> Result<Vec<u8>> {
        let url = format!("{}{path}", self.base);
        let failed = |error: reqwest::Error| {
            Error::external(format!("{url} does not answer: {}", millrace_core::error::chain_text(&error)))
        };
        let response = self.http.request(method, &url).send().await.map_err(failed)?;
        let status = response.status();
        let body = response.bytes().await.map_err(failed)?.to_vec();
        if status.is_success() {
            return Ok(body);
        }
        let told = serde_json::from_slice::<ErrorResponse>(&body).map(|answer| answer.errors.join("; "));
        let told = told.unwrap_or_else(|_| format!("{url} answered {status}"));
        Err(if status == StatusCode::SERVICE_UNAVAILABLE { Error::external(told) } else { Error::invalid(told) })
    }
}
