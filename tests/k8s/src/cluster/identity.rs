//! Credentials for pods that show who they are: what Amazon's EKS Pod Identity agent does on each of its nodes.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    routing::get,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Api, Client, api::PostParams};
use millrace_testkit::services::minio::MinioClient;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use super::Cluster;
use crate::Result;

/// Whom the pods' tokens are made out to.
pub const TOKEN_AUDIENCE: &str = "pods.eks.amazonaws.com";
/// How long credentials are said to be valid. Clients ask for others five minutes before their end, so that they are
/// seen to.
const VALID: SignedDuration = SignedDuration::from_secs(302);

/// An agent for one service account. It ends when this is dropped.
pub struct IdentityAgent {
    /// Where pods ask.
    pub url: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    client: Client,
    minio: MinioClient,
    account: String,
    served: AtomicUsize,
}

impl IdentityAgent {
    /// Serves temporary keys of an object store to pods of a service account, such as
    /// `system:serviceaccount:<namespace>:<name>`.
    pub async fn start(cluster: &Cluster, minio: MinioClient, account: String) -> Result<Self> {
        let served = AtomicUsize::new(0);
        let shared = Arc::new(Shared { client: cluster.client.clone(), minio, account, served });
        let port = TcpListener::bind((cluster.host, 0)).await?;
        let url = format!("http://{}/v1/credentials", port.local_addr()?);
        let router = Router::new().route("/v1/credentials", get(credentials)).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(port, router).await {
                eprintln!("the identity agent ended: {error}");
            }
        });
        Ok(Self { url, shared, server })
    }

    /// How often it has handed out keys, other ones each time.
    pub fn served(&self) -> usize {
        self.shared.served.load(Ordering::Relaxed)
    }
}

impl Drop for IdentityAgent {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn credentials(
    State(agent): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Value>, (StatusCode, String)> {
    let broken = |error: String| (StatusCode::INTERNAL_SERVER_ERROR, error);
    let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let spec = TokenReviewSpec { token, audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]) };
    let review = TokenReview { spec, ..TokenReview::default() };
    let reviews = Api::<TokenReview>::all(agent.client.clone());
    let review = reviews.create(&PostParams::default(), &review).await.map_err(|error| broken(error.to_string()))?;
    let status = review.status.unwrap_or_default();
    let user = status.user.and_then(|user| user.username).unwrap_or_default();
    if status.authenticated != Some(true) || user != agent.account {
        return Err((StatusCode::FORBIDDEN, format!("{user:?} is not {}: {:?}", agent.account, status.error)));
    }
    let keys = agent.minio.temporary_keys().map_err(|error| broken(error.to_string()))?;
    agent.served.fetch_add(1, Ordering::Relaxed);
    Ok(Json(json!({
        "AccessKeyId": keys.access_key,
        "SecretAccessKey": keys.secret_key,
        "Token": keys.session_token,
        "Expiration": (Timestamp::now() + VALID).to_string(),
    })))
}
