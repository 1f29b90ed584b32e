//! The handlers: each reads the job's view once and answers from it, or hands a command to the job's main loop.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Json,
    extract::{Path, Query, State},
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use millrace_core::{
    Error, Result,
    ids::JobId,
    rest::{Accepted, ErrorResponse, Health, JobPlanInfo, JobStatusInfo, MetricValue, TaskManagers, vertex_text},
};
use tokio::sync::oneshot;

use super::{
    JobCommand, RestState, answers,
    view::{JobView, VertexView},
};

/// How long the job's main loop may take to take up a command.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// How many failures are shown where the request says nothing, as in Flink.
const MAX_EXCEPTIONS: usize = 16;

/// A request that is refused.
pub struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(ErrorResponse { errors: vec![self.1] })).into_response()
    }
}

type Answer<T> = std::result::Result<T, Refusal>;
type Parameters = Query<HashMap<String, String>>;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl RestState {
    fn now_seen(&self) -> Arc<JobView> {
        self.view.borrow().clone()
    }

    /// The job with this id.
    fn job(&self, id: &str) -> Answer<Arc<JobView>> {
        let wanted: JobId = id.parse().map_err(|error: Error| Refusal(StatusCode::BAD_REQUEST, error.message))?;
        let view = self.now_seen();
        if view.job_id != wanted {
            let why = format!("job {wanted} not found: this jobmanager runs {}", view.job_id);
            return Err(Refusal(StatusCode::NOT_FOUND, why));
        }
        Ok(view)
    }

    /// Hands a command to the job's main loop and waits until it is taken up.
    async fn command(&self, make: impl FnOnce(oneshot::Sender<Result<()>>) -> JobCommand) -> Answer<()> {
        let unavailable = |why: &str| Refusal(StatusCode::SERVICE_UNAVAILABLE, why.to_string());
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            self.commands.send(make(reply)).await.map_err(|_| unavailable("the jobmanager is ending"))?;
            answer.await.map_err(|_| unavailable("the jobmanager is ending"))
        };
        match tokio::time::timeout(COMMAND_TIMEOUT, exchange).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) if error.retryable => Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, error.message)),
            Ok(Ok(Err(error))) => Err(Refusal(StatusCode::CONFLICT, error.message)),
            Ok(Err(refusal)) => Err(refusal),
            Err(_) => Err(unavailable("the jobmanager does not answer: try again")),
        }
    }
}

pub async fn overview(State(state): State<RestState>) -> impl IntoResponse {
    Json(answers::cluster_overview(&state.now_seen()))
}

pub async fn dashboard_config() -> impl IntoResponse {
    Json(answers::dashboard_config())
}

pub async fn jobmanager_config(State(state): State<RestState>) -> impl IntoResponse {
    Json(state.settings.to_vec())
}

pub async fn jobs(State(state): State<RestState>) -> impl IntoResponse {
    Json(answers::jobs(&state.now_seen()))
}

pub async fn jobs_overview(State(state): State<RestState>) -> impl IntoResponse {
    Json(answers::jobs_overview(&state.now_seen(), now()))
}

pub async fn job(State(state): State<RestState>, Path(id): Path<String>) -> Answer<impl IntoResponse> {
    Ok(Json(answers::job_details(&*state.job(&id)?, now())))
}

pub async fn job_status(State(state): State<RestState>, Path(id): Path<String>) -> Answer<impl IntoResponse> {
    Ok(Json(JobStatusInfo { status: state.job(&id)?.state }))
}

pub async fn job_plan(State(state): State<RestState>, Path(id): Path<String>) -> Answer<impl IntoResponse> {
    Ok(Json(JobPlanInfo { plan: answers::plan(&*state.job(&id)?) }))
}

pub async fn job_config(State(state): State<RestState>, Path(id): Path<String>) -> Answer<impl IntoResponse> {
    Ok(Json(answers::job_config(&*state.job(&id)?, &state.settings)))
}

pub async fn checkpoints(State(state): State<RestState>, Path(id): Path<String>) -> Answer<impl IntoResponse> {
    Ok(Json(state.job(&id)?.checkpoints.clone()))
}

pub async fn checkpoint_config(State(state): State<RestState>, Path(id): Path<String>) -> Answer<impl IntoResponse> {
    Ok(Json(answers::checkpoint_config(&*state.job(&id)?)))
}

pub async fn exceptions(
    State(state): State<RestState>,
    Path(id): Path<String>,
    Query(parameters): Parameters,
) -> Answer<impl IntoResponse> {
    let limit = match parameters.get("maxExceptions") {
        None => MAX_EXCEPTIONS,
        Some(text) => text.parse().map_err(|_| {
            Refusal(StatusCode::BAD_REQUEST, format!("maxExceptions={text:?} is not a whole number from 0"))
        })?,
    };
    Ok(Json(answers::exceptions(&*state.job(&id)?, limit)))
}

pub async fn program(State(state): State<RestState>, Path(id): Path<String>) -> Answer<impl IntoResponse> {
    state.job(&id)?;
    Ok(Json((*state.program).clone()))
}

pub async fn cancel(
    State(state): State<RestState>,
    Path(id): Path<String>,
    Query(parameters): Parameters,
) -> Answer<impl IntoResponse> {
    state.job(&id)?;
    match parameters.get("mode").map_or("cancel", String::as_str) {
        "cancel" => state.command(JobCommand::Cancel).await?,
        "stop" => {
            let why = "mode=stop is POST /jobs/<id>/stop";
            return Err(Refusal(StatusCode::BAD_REQUEST, why.to_string()));
        }
        other => {
            let why = format!("mode={other:?} is unknown: the only mode is cancel");
            return Err(Refusal(StatusCode::BAD_REQUEST, why));
        }
    }
    Ok((StatusCode::ACCEPTED, Json(Accepted {})))
}

pub async fn delete(State(state): State<RestState>, Path(id): Path<String>) -> Answer<impl IntoResponse> {
    state.job(&id)?;
    state.command(JobCommand::Delete).await?;
    Ok((StatusCode::ACCEPTED, Json(Accepted {})))
}

pub async fn stop(
    State(state): State<RestState>,
    Path(id): Path<String>,
    body: axum::body::Bytes,
) -> Answer<impl IntoResponse> {
    state.job(&id)?;
    check_stop_body(&body).map_err(|why| Refusal(StatusCode::BAD_REQUEST, why))?;
    state.command(JobCommand::Stop).await?;
    Ok((StatusCode::ACCEPTED, Json(Accepted {})))
}

/// Flink's request may name a savepoint's directory. There are no savepoints, and silence would mislead.
fn check_stop_body(body: &[u8]) -> std::result::Result<(), String> {
    if body.is_empty() {
        return Ok(());
    }
    let fields: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(body).map_err(|error| format!("the body is not a JSON object: {error}"))?;
    match fields.into_iter().find(|(_, value)| !value.is_null()) {
        Some((name, value)) if name == "drain" && value.is_boolean() => Ok(()),
        Some((name, _)) => {
            Err(format!("field {name:?} is not supported: the final checkpoint goes to state.checkpoints.dir"))
        }
        None => Ok(()),
    }
}

pub async fn taskmanagers(State(state): State<RestState>) -> impl IntoResponse {
    Json(TaskManagers { taskmanagers: state.now_seen().taskmanagers.clone() })
}

pub async fn taskmanager(State(state): State<RestState>, Path(id): Path<String>) -> Answer<impl IntoResponse> {
    answers::taskmanagers::details(&state.now_seen(), &id).map(Json).ok_or_else(|| not_registered(&id))
}

pub async fn taskmanager_metrics(
    State(state): State<RestState>,
    Path(id): Path<String>,
    Query(parameters): Parameters,
) -> Answer<impl IntoResponse> {
    let seen = state.now_seen();
    let info = answers::taskmanagers::info(&seen, &id).ok_or_else(|| not_registered(&id))?;
    Ok(selected(answers::metrics::of_taskmanager(info), &parameters))
}

fn not_registered(id: &str) -> Refusal {
    Refusal(StatusCode::NOT_FOUND, format!("taskmanager {id:?} is not registered"))
}

fn selected(all: Vec<(String, String)>, parameters: &HashMap<String, String>) -> Json<Vec<MetricValue>> {
    Json(answers::metrics::select(all, parameters.get("get").map(String::as_str)))
}

pub async fn jobmanager_metrics(State(state): State<RestState>, Query(parameters): Parameters) -> impl IntoResponse {
    selected(answers::metrics::of_jobmanager(&state.now_seen(), now(), false), &parameters)
}

pub async fn job_metrics(
    State(state): State<RestState>,
    Path(id): Path<String>,
    Query(parameters): Parameters,
) -> Answer<impl IntoResponse> {
    Ok(selected(answers::metrics::of_jobmanager(&*state.job(&id)?, now(), true), &parameters))
}

/// The vertex with this id.
fn vertex_of<'a>(view: &'a JobView, id: &str) -> Answer<&'a VertexView> {
    let found = view.vertices.iter().find(|vertex| vertex_text(vertex.id) == id);
    found.ok_or_else(|| {
        let known: Vec<_> = view.vertices.iter().map(|vertex| vertex_text(vertex.id)).collect();
        let why = format!("vertex {id:?} not found: the job's vertices are {}", known.join(", "));
        Refusal(StatusCode::NOT_FOUND, why)
    })
}

pub async fn vertex(
    State(state): State<RestState>,
    Path((id, vertex)): Path<(String, String)>,
) -> Answer<impl IntoResponse> {
    let view = state.job(&id)?;
    Ok(Json(answers::vertices::vertex(&view, vertex_of(&view, &vertex)?, now())))
}

pub async fn backpressure(
    State(state): State<RestState>,
    Path((id, vertex)): Path<(String, String)>,
) -> Answer<impl IntoResponse> {
    let view = state.job(&id)?;
    Ok(Json(answers::vertices::backpressure(vertex_of(&view, &vertex)?, now())))
}

pub async fn vertex_taskmanagers(
    State(state): State<RestState>,
    Path((id, vertex)): Path<(String, String)>,
) -> Answer<impl IntoResponse> {
    let view = state.job(&id)?;
    Ok(Json(answers::vertices::taskmanagers(vertex_of(&view, &vertex)?, now())))
}

pub async fn vertex_metrics(
    State(state): State<RestState>,
    Path((id, vertex)): Path<(String, String)>,
    Query(parameters): Parameters,
) -> Answer<impl IntoResponse> {
    let view = state.job(&id)?;
    Ok(selected(answers::metrics::of_vertex(vertex_of(&view, &vertex)?), &parameters))
}

pub async fn subtask(
    State(state): State<RestState>,
    Path((id, vertex, index)): Path<(String, String, String)>,
) -> Answer<impl IntoResponse> {
    let view = state.job(&id)?;
    let vertex = vertex_of(&view, &vertex)?;
    let found = vertex.subtasks.iter().find(|subtask| subtask.index.to_string() == index);
    let found = found.ok_or_else(|| {
        let why =
            format!("subtask {index:?} not found: {} of {} are deployed", vertex.subtasks.len(), vertex.parallelism);
        Refusal(StatusCode::NOT_FOUND, why)
    })?;
    Ok(Json(answers::vertices::subtask(&view, vertex, found, now())))
}

/// A checkpoint's number.
fn checkpoint_of(text: &str) -> Answer<u64> {
    text.parse().map_err(|_| Refusal(StatusCode::BAD_REQUEST, format!("checkpoint {text:?} is not a number")))
}

fn no_such_checkpoint(view: &JobView, id: u64) -> Refusal {
    let known: Vec<_> = view.checkpoints.history.iter().map(|checkpoint| checkpoint.id.to_string()).collect();
    let why = format!("checkpoint {id} is not in the history, which has [{}]", known.join(", "));
    Refusal(StatusCode::NOT_FOUND, why)
}

pub async fn checkpoint_details(
    State(state): State<RestState>,
    Path((id, checkpoint)): Path<(String, String)>,
) -> Answer<impl IntoResponse> {
    let (view, checkpoint) = (state.job(&id)?, checkpoint_of(&checkpoint)?);
    let details = answers::checkpoints::details(&view, checkpoint);
    details.map(Json).ok_or_else(|| no_such_checkpoint(&view, checkpoint))
}

pub async fn checkpoint_subtasks(
    State(state): State<RestState>,
    Path((id, checkpoint, vertex)): Path<(String, String, String)>,
) -> Answer<impl IntoResponse> {
    let (view, checkpoint) = (state.job(&id)?, checkpoint_of(&checkpoint)?);
    let details = answers::checkpoints::task_details(&view, checkpoint, vertex_of(&view, &vertex)?);
    details.map(Json).ok_or_else(|| no_such_checkpoint(&view, checkpoint))
}

pub async fn openapi() -> impl IntoResponse {
    Json(super::openapi::document())
}

pub async fn health() -> impl IntoResponse {
    Json(Health { status: "ok".to_string() })
}

pub async fn ready(State(state): State<RestState>) -> impl IntoResponse {
    match answers::readiness(&state.now_seen()) {
        Ok(()) => (StatusCode::OK, Json(Health { status: "ok".to_string() })),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, Json(Health { status: why })),
    }
}

pub async fn metrics(State(state): State<RestState>) -> Answer<impl IntoResponse> {
    metrics_text(&state.registry).map_err(|error| Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.message))
}

/// A registry's metrics and those of the process's default one, which connectors and users' libraries register theirs
/// with, in the format that Prometheus scrapes.
pub(crate) fn metrics_text(registry: &prometheus::Registry) -> Result<Response> {
    let encoder = prometheus::TextEncoder::new();
    let mut families = registry.gather();
    families.extend(prometheus::gather());
    let text = encoder.encode_to_string(&families);
    let text = text.map_err(|error| Error::internal(format!("metrics cannot be written: {error}")))?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}

pub async fn unknown_path(uri: Uri) -> Refusal {
    Refusal(StatusCode::NOT_FOUND, format!("path {} is unknown", uri.path()))
}

pub async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    Refusal(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not allowed on {}", uri.path()))
}
