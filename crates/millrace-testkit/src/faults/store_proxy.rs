//! A proxy in front of an object store that lets requests fail as networks and stores let them fail.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONNECTION, CONTENT_TYPE, HeaderMap, TRANSFER_ENCODING},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::watch, task::AbortHandle, time::sleep};

use super::runtime;
use crate::services::{Result, io_error};

/// How requests go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreFault {
    /// They don't.
    #[default]
    None,
    /// Each is answered with 503 and not passed on.
    Refuses,
    /// Each that changes something is answered with 403 and not passed on, as by a bucket that may only be read.
    ReadOnly,
    /// Each takes this much longer.
    Slow(Duration),
    /// Every second one that changes something does so, but its connection is closed instead of an answer.
    LosesAnswers,
    /// Every second one that changes something has its connection closed at once, and does it this much later, when
    /// whoever asked has tried again or has given up.
    ActsLate(Duration),
}

/// Stands in front of an object store that speaks HTTP. Dropping it ends it.
#[derive(Debug)]
pub struct StoreProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    fault: watch::Sender<StoreFault>,
    changes: AtomicU64,
    struck: AtomicU64,
    client: reqwest::Client,
}

impl StoreProxy {
    /// Listens on a loopback port.
    pub fn start(target: SocketAddr) -> Result<Self> {
        let listener = runtime().block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listener.map_err(io_error("binding a proxy's port"))?;
        let address = listener.local_addr().map_err(io_error("asking for a proxy's port"))?;
        let client = reqwest::Client::builder().no_proxy().build().expect("a client can be made");
        let shared = Arc::new(Shared {
            target,
            fault: watch::Sender::default(),
            changes: AtomicU64::new(0),
            struck: AtomicU64::new(0),
            client,
        });
        let accepting = runtime().spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self { address, shared, accepting })
    }

    /// The URL that an S3 client is given.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How requests go wrong from now on.
    pub fn set(&self, fault: StoreFault) {
        self.shared.struck.store(0, Ordering::Relaxed);
        self.shared.fault.send_replace(fault);
    }

    /// How many requests went wrong since [`set`](Self::set).
    pub fn struck(&self) -> u64 {
        self.shared.struck.load(Ordering::Relaxed)
    }
}

impl Drop for StoreProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let answer = service_fn(|request| answer(request, Arc::clone(&shared)));
            // An error is a connection that ended, or that was to be closed.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

/// Answers a request, or fails: then its connection is closed.
async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> io::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let fault = *shared.fault.borrow();
    let changes = !matches!(head.method, Method::GET | Method::HEAD);
    let hit = match fault {
        StoreFault::None => false,
        StoreFault::Refuses | StoreFault::Slow(_) => true,
        StoreFault::ReadOnly => changes,
        StoreFault::LosesAnswers | StoreFault::ActsLate(_) => {
            changes && shared.changes.fetch_add(1, Ordering::Relaxed).is_multiple_of(2)
        }
    };
    if !hit {
        return shared.forward(head, body).await;
    }
    let count = || shared.struck.fetch_add(1, Ordering::Relaxed);
    let closed = || io::Error::other("closed on purpose");
    match fault {
        StoreFault::None | StoreFault::Refuses => {
            count();
            Ok(refusal(StatusCode::SERVICE_UNAVAILABLE, "SlowDown"))
        }
        StoreFault::ReadOnly => {
            count();
            Ok(refusal(StatusCode::FORBIDDEN, "AccessDenied"))
        }
        StoreFault::Slow(delay) => {
            sleep(delay).await;
            count();
            shared.forward(head, body).await
        }
        StoreFault::LosesAnswers => {
            shared.forward(head, body).await?;
            count();
            Err(closed())
        }
        StoreFault::ActsLate(delay) => {
            let later = Arc::clone(&shared);
            tokio::spawn(async move {
                sleep(delay).await;
                // Nobody is there to be told what came of it.
                if later.forward(head, body).await.is_ok() {
                    later.struck.fetch_add(1, Ordering::Relaxed);
                }
            });
            Err(closed())
        }
    }
}

/// What S3 says when it will not.
fn refusal(status: StatusCode, code: &str) -> Response<Full<Bytes>> {
    let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code></Error>");
    let response = Response::builder().status(status).header(CONTENT_TYPE, "application/xml");
    response.body(Full::from(body)).expect("it is well-formed")
}

impl Shared {
    /// Asks the store. The request is signed: it must arrive as it was sent.
    async fn forward(&self, head: hyper::http::request::Parts, body: Bytes) -> io::Result<Response<Full<Bytes>>> {
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let url = format!("http://{}{path}", self.target);
        let request = self.client.request(head.method, url).headers(end_to_end(head.headers)).body(body);
        let answer = request.send().await.map_err(io::Error::other)?;
        let mut response = Response::builder().status(answer.status());
        if let Some(headers) = response.headers_mut() {
            *headers = end_to_end(answer.headers().clone());
        }
        let body = answer.bytes().await.map_err(io::Error::other)?;
        response.body(Full::from(body)).map_err(io::Error::other)
    }
}

/// Without what concerns one connection only.
fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    for name in [CONNECTION, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    headers
}
