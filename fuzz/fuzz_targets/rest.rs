//! Any request to the REST server, and to the one of metrics: a line with method and path, then a body. It is answered,
//! by REST with an error's form where it is refused, and never as a failure of the server's own.

#![no_main]

use std::sync::{Arc, LazyLock};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    http::{Method, Request, StatusCode, Uri},
};
use libfuzzer_sys::fuzz_target;
use millrace_core::{
    ids::{JobId, VertexId},
    rest::{ErrorResponse, Health, JobProgram},
};
use millrace_worker::{
    metrics_server,
    rest::{JobView, RestState, VertexView, router},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc, watch},
};
use tower::ServiceExt;

const JOB: JobId = JobId(0xbeef);

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Builder::new_current_thread().enable_all().build().unwrap());

fn state() -> RestState {
    let mut view = JobView::new(JOB, "job", 1_000);
    view.vertices.push(VertexView {
        id: VertexId(0),
        name: "vertex".to_string(),
        parallelism: 2,
        tasks: Default::default(),
        start_time: None,
        subtasks: Vec::new(),
        inputs: Vec::new(),
    });
    // Nobody takes commands: they are refused at once.
    let (commands, _) = mpsc::channel(1);
    RestState {
        view: watch::channel(Arc::new(view)).1,
        commands,
        settings: Arc::default(),
        program: Arc::new(JobProgram {
            jid: JOB,
            program: String::new(),
            args: Vec::new(),
            working_directory: String::new(),
            rpc_address: String::new(),
        }),
        registry: Default::default(),
    }
}

fuzz_target!(|data: &[u8]| {
    let mut lines = data.splitn(2, |byte| *byte == b'\n');
    let (line, body) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut words = line.splitn(2, |byte| *byte == b' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (Ok(method), Ok(uri)) = (Method::from_bytes(method), Uri::try_from(path)) else { return };
    let request = || Request::builder().method(&method).uri(&uri).body(Body::from(body.to_vec()));
    let (Ok(of_rest), Ok(of_metrics)) = (request(), request()) else { return };
    RUNTIME.block_on(async {
        let (status, body) = ask(router(state()), of_rest).await;
        let refused = status.is_client_error() || status.is_server_error();
        if refused && !body.is_empty() {
            let is_error =
                serde_json::from_slice::<ErrorResponse>(&body).is_ok_and(|refusal| !refusal.errors.is_empty());
            let is_health = serde_json::from_slice::<Health>(&body).is_ok();
            assert!(is_error || is_health, "{status}: {}", String::from_utf8_lossy(&body));
        }
        ask(metrics_server::router(Default::default()), of_metrics).await;
    });
});

async fn ask(server: Router, request: Request<Body>) -> (StatusCode, Bytes) {
    let answer = server.oneshot(request).await.expect("every request is answered");
    let status = answer.status();
    let body = to_bytes(answer.into_body(), 1 << 24).await.expect("an answer has an end");
    assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{}", String::from_utf8_lossy(&body));
    (status, body)
}
