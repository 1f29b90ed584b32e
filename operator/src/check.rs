//! `millrace-operator check`: what `helm test` runs, since the image has nothing else that could ask.

use std::{error::Error, time::Duration};

use clap::Args;
use tokio::time::{Instant, sleep};

/// How long to wait between two tries.
const PAUSE: Duration = Duration::from_millis(500);
/// How long to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks an address until it answers.
#[derive(Args, Clone, Debug)]
pub struct Check {
    /// The address, such as http://millrace-operator:8080/metrics.
    #[arg(long)]
    address: String,
    /// How many seconds to go on asking.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u32,
}

impl Check {
    /// Asks until there is an answer, or time is up: then it fails with what went wrong last.
    pub async fn run(&self) -> Result<(), String> {
        let client = reqwest::Client::builder().timeout(PATIENCE).build().map_err(|error| told(&error))?;
        let deadline = Instant::now() + Duration::from_secs(self.timeout.into());
        loop {
            let Err(failure) = self.ask(&client).await else { return Ok(()) };
            if Instant::now() + PAUSE > deadline {
                return Err(format!("{} gave no answer within {} s: {failure}", self.address, self.timeout));
            }
            sleep(PAUSE).await;
        }
    }

    async fn ask(&self, client: &reqwest::Client) -> Result<(), String> {
        let answer = client.get(&self.address).send().await.map_err(|error| told(&error))?;
        if answer.status().is_success() { Ok(()) } else { Err(format!("it answered {}", answer.status())) }
    }
}

/// The innermost of an error's causes says what happened.
fn told(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), told)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use axum::{Router, http::StatusCode, routing::get};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that is not ready yet when it is asked for the first time.
    async fn server() -> (String, Arc<AtomicU32>) {
        let asked = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&asked);
        let answer = async move || match counter.fetch_add(1, Ordering::Relaxed) {
            0 => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::OK,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/metrics", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, Router::new().route("/metrics", get(answer))).into_future());
        (address, asked)
    }

    #[tokio::test]
    async fn it_asks_until_there_is_an_answer() {
        let (address, asked) = server().await;
        Check { address, timeout: 60 }.run().await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn it_says_why_there_is_none() {
        let (address, _) = server().await;
        let error = Check { address: address.clone(), timeout: 0 }.run().await.unwrap_err();
        assert_eq!(error, format!("{address} gave no answer within 0 s: it answered 503 Service Unavailable"));
        let error = Check { address: "http://127.0.0.1:1/".into(), timeout: 0 }.run().await.unwrap_err();
        assert!(error.contains("refused"), "{error}");
        let error = Check { address: "millrace-operator".into(), timeout: 0 }.run().await.unwrap_err();
        assert!(error.contains("relative URL"), "{error}");
    }
}
