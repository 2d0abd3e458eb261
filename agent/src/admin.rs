//! The private Unix socket for the command line and metrics scrapers: what is there, and orders by a person.
//!
//! Readable by root alone. Orders go through the engine like everything else: the agent is the only writer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{Path as UrlPath, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bedplate_core::chain::chain;
use bedplate_core::ids::{PoolName, VolumeId};
use bedplate_core::volume::ReleaseKind;
use bedplate_provisioner::engine::{CommandError, Engine, ReleaseError};
use serde::{Deserialize, Serialize};

use crate::metrics::Metrics;

/// What handlers work with.
#[derive(Clone)]
pub struct Admin {
    /// The volumes.
    pub engine: Arc<Engine>,
    /// The figures.
    pub metrics: Arc<Metrics>,
}

/// What the agent says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// The ledger's id.
    pub ledger: String,
    /// Why the ledger closed itself, if it did.
    pub failure: Option<String>,
    /// Name of the host.
    pub host: Option<String>,
    /// Release of the kernel.
    pub kernel: Option<String>,
    /// Memory of the host in bytes.
    pub memory_bytes: u64,
}

/// An order, and on whose word.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Who orders it; recorded.
    pub by: String,
    /// For `adopt`: which file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// An error as the command line shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong and what to do.
    pub error: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    #[serde(default)]
    all: bool,
}

/// The routes.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .route("/v1/volumes", get(volumes))
        .route("/v1/volumes/{id}/ranges", get(ranges))
        .route("/v1/pools", get(pools))
        .route("/v1/volumes/{id}/{order}", post(order))
        .route("/v1/pools/{pool}/adopt", post(adopt))
        .with_state(admin)
}

async fn ready(State(admin): State<Admin>) -> Response {
    match admin.engine.failure() {
        None => "ok\n".into_response(),
        Some(why) => problem(StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    // Looking at pools asks the filesystem: not on the runtime's own threads.
    let text = tokio::task::spawn_blocking(move || admin.metrics.scrape(&admin.engine)).await;
    match text {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Ok(Err(error)) => problem(StatusCode::INTERNAL_SERVER_ERROR, chain(&error)),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, chain(&error)),
    }
}

async fn status(State(admin): State<Admin>) -> Response {
    let memory_bytes = sysinfo::System::new().map_or(0, |mut system| {
        system.refresh_memory();
        system.total_memory()
    });
    Json(Status {
        version: crate::VERSION.to_owned(),
        ledger: admin.engine.ledger_id().to_string(),
        failure: admin.engine.failure(),
        host: sysinfo::System::host_name().ok(),
        kernel: sysinfo::System::kernel_version().ok(),
        memory_bytes,
    })
    .into_response()
}

async fn volumes(State(admin): State<Admin>, Query(query): Query<ListQuery>) -> Response {
    Json(admin.engine.volumes(query.all)).into_response()
}

async fn ranges(State(admin): State<Admin>, UrlPath(id): UrlPath<String>) -> Response {
    let id: VolumeId = match id.parse() {
        Ok(id) => id,
        Err(error) => return problem(StatusCode::BAD_REQUEST, chain(&error)),
    };
    let missing = format!("volume {id} has no ranges: it does not exist any more, or its pool is absent");
    match tokio::task::spawn_blocking(move || admin.engine.ranges(&id)).await {
        Ok(Some(ranges)) => Json(ranges).into_response(),
        Ok(None) => problem(StatusCode::NOT_FOUND, missing),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, chain(&error)),
    }
}

async fn pools(State(admin): State<Admin>) -> Response {
    match tokio::task::spawn_blocking(move || admin.engine.pools()).await {
        Ok(pools) => Json(pools).into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, chain(&error)),
    }
}

async fn order(
    State(admin): State<Admin>,
    UrlPath((id, order)): UrlPath<(String, String)>,
    Json(Order { by, .. }): Json<Order>,
) -> Response {
    let id: VolumeId = match id.parse() {
        Ok(id) => id,
        Err(error) => return problem(StatusCode::BAD_REQUEST, chain(&error)),
    };
    let done = tokio::task::spawn_blocking(move || {
        let engine = &admin.engine;
        match order.as_str() {
            "retry" => engine.retry(&id, &by).map_err(command),
            "accept" => engine.accept_level(&id, &by).map_err(command),
            "forget" => engine.forget(&id, &by).map_err(command),
            "retain" => engine.retain(&id, &by).map_err(command),
            "release" if engine.volume(&id).is_none() => Err(command(CommandError::Unknown { id })),
            "release" => engine.release(&id, ReleaseKind::ByHand, &by).map_err(|error| {
                let code = match &error {
                    ReleaseError::Busy(_)
                    | ReleaseError::InUse { .. }
                    | ReleaseError::Retained { .. }
                    | ReleaseError::WasStaged { .. } => StatusCode::CONFLICT,
                    ReleaseError::PoolAbsent { .. } => StatusCode::SERVICE_UNAVAILABLE,
                    ReleaseError::Host { .. } | ReleaseError::Commit { .. } => StatusCode::INTERNAL_SERVER_ERROR,
                };
                (code, chain(&error))
            }),
            other => Err((
                StatusCode::NOT_FOUND,
                format!("there is no order {other:?}; use retry, accept, forget, retain or release"),
            )),
        }
    });
    answer(done.await.map_err(|error| chain(&error)), |()| StatusCode::NO_CONTENT.into_response())
}

async fn adopt(State(admin): State<Admin>, UrlPath(pool): UrlPath<String>, Json(order): Json<Order>) -> Response {
    let pool: PoolName = match pool.parse() {
        Ok(pool) => pool,
        Err(error) => return problem(StatusCode::BAD_REQUEST, chain(&error)),
    };
    let Some(file) = order.file else {
        return problem(
            StatusCode::BAD_REQUEST,
            "field `file` is missing; `bedplate pools` lists found files".to_owned(),
        );
    };
    let done = tokio::task::spawn_blocking(move || admin.engine.adopt(&pool, &file, &order.by).map_err(command));
    answer(done.await.map_err(|error| chain(&error)), |id| Json(id).into_response())
}

fn answer<T>(done: Result<Result<T, (StatusCode, String)>, String>, good: impl FnOnce(T) -> Response) -> Response {
    match done {
        Ok(Ok(value)) => good(value),
        Ok(Err((code, error))) => problem(code, error),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn command(error: CommandError) -> (StatusCode, String) {
    let code = match &error {
        CommandError::Unknown { .. } | CommandError::NoSuchFile { .. } => StatusCode::NOT_FOUND,
        CommandError::Busy(_) | CommandError::WrongPhase { .. } | CommandError::NotAVolume { .. } => {
            StatusCode::CONFLICT
        }
        CommandError::Pool { .. } => StatusCode::SERVICE_UNAVAILABLE,
        CommandError::Host { .. } | CommandError::Commit(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (code, chain(&error))
}

fn problem(code: StatusCode, error: String) -> Response {
    (code, Json(Problem { error })).into_response()
}

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each field is named in the message")]
pub enum AdminError {
    #[error("admin socket {path} cannot be bound")]
    Bind {
        path: PathBuf,
        #[source]
        source: bedplate_csi::server::BindError,
    },
    #[error("admin socket {path} failed")]
    Serve {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Bind the socket, private and never over a living one.
///
/// # Errors
/// Where another process serves it or the path cannot be used.
pub fn bind(path: &Path) -> Result<bedplate_csi::server::Bound, AdminError> {
    bedplate_csi::server::bind(path).map_err(|source| AdminError::Bind { path: path.to_owned(), source })
}

/// A bound socket as axum wants it.
struct Listener(bedplate_csi::server::Bound);

impl axum::serve::Listener for Listener {
    type Io = tokio::net::UnixStream;
    type Addr = PathBuf;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.0.accept().await {
                Ok(stream) => return (stream, self.0.path().to_owned()),
                Err(error) => {
                    // Out of descriptors: they come back when other connections end.
                    tracing::warn!(error = %error, "a connection to the admin socket could not be accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.0.path().to_owned())
    }
}

/// Serve until `shutdown` resolves.
///
/// # Errors
/// Where the socket fails.
pub async fn serve(
    bound: bedplate_csi::server::Bound,
    admin: Admin,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), AdminError> {
    let path = bound.path().to_owned();
    axum::serve(Listener(bound), router(admin))
        .with_graceful_shutdown(shutdown)
        .await
        .map_err(|source| AdminError::Serve { path, source })
}

#[cfg(test)]
mod tests;
