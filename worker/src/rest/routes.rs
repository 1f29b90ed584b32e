//! All paths of the REST server: the one table that the server and its [OpenAPI document](super::openapi) are made from.

use axum::{
    handler::Handler,
    routing::{MethodRouter, delete, get, patch, post},
};
use millrace_core::rest::*;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::{RestState, handlers as h};

/// A path and method.
pub struct Route {
    /// In lower case.
    pub method: &'static str,
    /// With `{…}` where something is filled in.
    pub path: &'static str,
    /// What it is for.
    pub summary: &'static str,
    /// What may be in the query: names and what they mean.
    pub query: &'static [(&'static str, &'static str)],
    /// The answer when all is well: 202 where the request is only taken up.
    pub status: u16,
    /// What else it may answer with the same schema.
    pub other_status: Option<u16>,
    /// The answer's form; `None` where it is not JSON.
    pub answer: Option<fn(&mut SchemaGenerator) -> Schema>,
    /// Serves it.
    pub handler: MethodRouter<RestState>,
}

impl Route {
    fn new(method: &'static str, path: &'static str, summary: &'static str, handler: MethodRouter<RestState>) -> Self {
        Self { method, path, summary, query: &[], status: 200, other_status: None, answer: None, handler }
    }

    fn get<H: Handler<X, RestState>, X: 'static>(path: &'static str, summary: &'static str, handler: H) -> Self {
        Self::new("get", path, summary, get(handler))
    }

    fn answers<T: JsonSchema>(mut self) -> Self {
        self.answer = Some(|generator| generator.subschema_for::<T>());
        self
    }

    fn query(mut self, query: &'static [(&'static str, &'static str)]) -> Self {
        self.query = query;
        self
    }

    fn accepted(self) -> Self {
        Self { status: 202, ..self.answers::<Accepted>() }
    }
}

const GET: &[(&str, &str)] =
    &[("get", "The names of the metrics whose values are wanted, with commas between them. Without it: all names.")];
const EXCEPTIONS: &[(&str, &str)] = &[("maxExceptions", "The most failures to show; 16 where it is not set.")];
const MODE: &[(&str, &str)] = &[("mode", "`cancel`, which is all that there is.")];

/// The table.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/overview", "The cluster in numbers.", h::overview).answers::<ClusterOverview>(),
        Route::get("/config", "What a client should know of the server.", h::dashboard_config)
            .answers::<DashboardConfig>(),
        Route::get("/jobmanager/config", "The jobmanager's settings.", h::jobmanager_config).answers::<Vec<Setting>>(),
        Route::get("/jobmanager/metrics", "The jobmanager's metrics.", h::jobmanager_metrics)
            .query(GET)
            .answers::<Vec<MetricValue>>(),
        Route::get("/jobs", "The job with its status.", h::jobs).answers::<Jobs>(),
        Route::get("/jobs/overview", "The job in brief.", h::jobs_overview).answers::<JobsOverview>(),
        Route::get("/jobs/{jobid}", "The job with its vertices.", h::job).answers::<JobDetails>(),
        Route::new("patch", "/jobs/{jobid}", "Cancels the job.", patch(h::cancel)).query(MODE).accepted(),
        Route::new(
            "delete",
            "/jobs/{jobid}",
            "Cancels the job and deletes all that the store has of it.",
            delete(h::delete),
        )
        .accepted(),
        Route::get("/jobs/{jobid}/status", "What the job is doing.", h::job_status).answers::<JobStatusInfo>(),
        Route::get("/jobs/{jobid}/plan", "How the job's vertices are connected.", h::job_plan).answers::<JobPlanInfo>(),
        Route::get("/jobs/{jobid}/config", "The job's settings and where each came from.", h::job_config)
            .answers::<JobConfigInfo>(),
        Route::get("/jobs/{jobid}/metrics", "The job's metrics.", h::job_metrics)
            .query(GET)
            .answers::<Vec<MetricValue>>(),
        Route::get("/jobs/{jobid}/checkpoints", "The job's checkpoints and their history.", h::checkpoints)
            .answers::<CheckpointingStatistics>(),
        Route::get("/jobs/{jobid}/checkpoints/config", "How checkpoints are taken.", h::checkpoint_config)
            .answers::<CheckpointConfigInfo>(),
        Route::get(
            "/jobs/{jobid}/checkpoints/details/{checkpointid}",
            "A checkpoint of the history with each vertex's part.",
            h::checkpoint_details,
        )
        .answers::<CheckpointDetails>(),
        Route::get(
            "/jobs/{jobid}/checkpoints/details/{checkpointid}/subtasks/{vertexid}",
            "A vertex's part of a checkpoint, subtask by subtask.",
            h::checkpoint_subtasks,
        )
        .answers::<TaskCheckpointDetails>(),
        Route::get("/jobs/{jobid}/exceptions", "The job's failures, the newest first.", h::exceptions)
            .query(EXCEPTIONS)
            .answers::<JobExceptions>(),
        Route::get("/jobs/{jobid}/program", "What the jobmanager runs.", h::program).answers::<JobProgram>(),
        Route::new("post", "/jobs/{jobid}/stop", "Ends the job with a final checkpoint, which is kept.", post(h::stop))
            .accepted(),
        Route::get("/jobs/{jobid}/vertices/{vertexid}", "A vertex with its subtasks.", h::vertex)
            .answers::<JobVertexInfo>(),
        Route::get(
            "/jobs/{jobid}/vertices/{vertexid}/backpressure",
            "How the subtasks of a vertex spend their time.",
            h::backpressure,
        )
        .answers::<BackPressureInfo>(),
        Route::get(
            "/jobs/{jobid}/vertices/{vertexid}/metrics",
            "The metrics of a vertex's subtasks.",
            h::vertex_metrics,
        )
        .query(GET)
        .answers::<Vec<MetricValue>>(),
        Route::get("/jobs/{jobid}/vertices/{vertexid}/subtasks/{subtaskindex}", "A subtask.", h::subtask)
            .answers::<SubtaskInfo>(),
        Route::get(
            "/jobs/{jobid}/vertices/{vertexid}/taskmanagers",
            "A vertex's subtasks by taskmanager.",
            h::vertex_taskmanagers,
        )
        .answers::<JobVertexTaskManagers>(),
        Route::get("/taskmanagers", "The registered taskmanagers.", h::taskmanagers).answers::<TaskManagers>(),
        Route::get("/taskmanagers/{taskmanagerid}", "A taskmanager with its memory and state.", h::taskmanager)
            .answers::<TaskManagerDetails>(),
        Route::get("/taskmanagers/{taskmanagerid}/metrics", "A taskmanager's metrics.", h::taskmanager_metrics)
            .query(GET)
            .answers::<Vec<MetricValue>>(),
        Route::get("/health", "Whether the process is alive.", h::health).answers::<Health>(),
        Route {
            other_status: Some(503),
            ..Route::get("/ready", "Whether the job does its work; 503 says why not.", h::ready).answers::<Health>()
        },
        Route::get("/metrics", "The process's metrics, as Prometheus reads them.", h::metrics),
        Route::get("/openapi.json", "This document.", h::openapi)
            .answers::<serde_json::Map<String, serde_json::Value>>(),
    ]
}
