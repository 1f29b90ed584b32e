//! A proxy in front of an S3 server that misbehaves when it is told to.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};

/// What the proxy does to requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum S3Fault {
    /// Nothing.
    #[default]
    None,
    /// Each waits so long before it is passed on.
    Slow(Duration),
    /// Each is answered with 503, as by a server that wants fewer.
    Unavailable,
    /// What writes is answered with 403, as by a bucket that may only be read.
    ReadOnly,
}

/// The proxy; it ends with this.
pub struct S3Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Serves until it is dropped.
    _runtime: tokio::runtime::Runtime,
}

struct Shared {
    upstream: String,
    http: reqwest::Client,
    fault: Mutex<S3Fault>,
    fired: AtomicU64,
}

impl S3Proxy {
    /// A proxy in front of the server at this URL.
    pub fn start(upstream: &str) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let http = reqwest::Client::builder().no_proxy().build().map_err(std::io::Error::other)?;
        let shared = Arc::new(Shared {
            upstream: upstream.trim_end_matches('/').to_string(),
            http,
            fault: Mutex::default(),
            fired: AtomicU64::new(0),
        });
        let router = Router::new().fallback(pass).with_state(Arc::clone(&shared));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, shared, _runtime: runtime })
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on, this is done to requests.
    pub fn set(&self, fault: S3Fault) {
        *self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// To how many requests something was done.
    pub fn fired(&self) -> u64 {
        self.shared.fired.load(Ordering::SeqCst)
    }
}

fn refused(status: StatusCode, code: &str) -> Response {
    let body =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>as the test wants it</Message></Error>");
    (status, [(header::CONTENT_TYPE, "application/xml")], body).into_response()
}

async fn pass(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let fault = *shared.fault.lock().unwrap_or_else(PoisonError::into_inner);
    let is_read = matches!(method, Method::GET | Method::HEAD);
    if fault != S3Fault::None && !(fault == S3Fault::ReadOnly && is_read) {
        shared.fired.fetch_add(1, Ordering::SeqCst);
    }
    match fault {
        S3Fault::Unavailable => return refused(StatusCode::SERVICE_UNAVAILABLE, "SlowDown"),
        S3Fault::ReadOnly if !is_read => return refused(StatusCode::FORBIDDEN, "AccessDenied"),
        S3Fault::Slow(time) => tokio::time::sleep(time).await,
        _ => {}
    }
    let url = format!("{}{}", shared.upstream, uri.path_and_query().map_or("/", |path| path.as_str()));
    // The host stays the proxy's: it is signed.
    let answer = shared.http.request(method.clone(), url).headers(headers).body(body).send().await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    };
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    headers.remove(header::TRANSFER_ENCODING);
    let body = match answer.bytes().await {
        Ok(body) => body,
        Err(error) => return (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    };
    // The length that a HEAD tells is not that of its empty body.
    let body = if method == Method::HEAD { Body::empty() } else { Body::from(body) };
    (status, headers, body).into_response()
}
