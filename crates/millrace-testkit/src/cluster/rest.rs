//! A small client of a jobmanager's REST server that waits for its answers.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;

use super::{Error, Result};

const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Asks REST servers.
#[derive(Debug)]
pub struct RestClient {
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl Default for RestClient {
    fn default() -> Self {
        Self::new()
    }
}

impl RestClient {
    /// A client.
    ///
    /// # Panics
    /// When there is no thread for it.
    pub fn new() -> Self {
        // A proxy that is meant for the internet does not know this machine's ports.
        let http = reqwest::Client::builder().timeout(ANSWER_LIMIT).no_proxy().build();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Self { http: http.expect("a client can be made"), runtime: runtime.expect("a runtime can be made") }
    }

    /// What `GET` answers; the address is `host:port`.
    pub fn get<T: DeserializeOwned>(&self, address: &str, path: &str) -> Result<T> {
        let (request, body) = self.send(Method::GET, address, path)?;
        serde_json::from_slice(&body).map_err(|error| Error::Rest {
            request,
            why: format!("unknown answer ({error}): {}", String::from_utf8_lossy(&body)),
        })
    }

    /// Sends a request without a body; returns what it was, for messages, and the answer's body.
    pub(super) fn send(&self, method: Method, address: &str, path: &str) -> Result<(String, Vec<u8>)> {
        let url = format!("http://{address}{path}");
        let request = format!("{method} {url}");
        let (status, body) = self.ask(method, address, path)?;
        if status.is_success() {
            return Ok((request, body));
        }
        let why = format!("{status} {}", String::from_utf8_lossy(&body));
        Err(Error::Rest { request, why })
    }

    /// Sends a request without a body; returns the answer, whatever its status.
    pub(super) fn ask(&self, method: Method, address: &str, path: &str) -> Result<(StatusCode, Vec<u8>)> {
        let url = format!("http://{address}{path}");
        let request = format!("{method} {url}");
        let answer = self.runtime.block_on(async {
            let response = self.http.request(method, &url).send().await?;
            Ok::<_, reqwest::Error>((response.status(), response.bytes().await?.to_vec()))
        });
        answer.map_err(|error| Error::Rest { request, why: error.to_string() })
    }
}
