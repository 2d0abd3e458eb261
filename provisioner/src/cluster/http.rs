//! `/healthz`, `/readyz`, `/metrics`. It answers only what the main loop told it; it asks the API server nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;

use crate::cluster::metrics::Metrics;

/// What the main loop says of itself.
#[derive(Debug, Default)]
pub struct Health {
    /// Every watch has shown its first list.
    pub complete: AtomicBool,
    /// The main loop has ended.
    pub ended: AtomicBool,
}

type Shared = (Arc<Health>, Arc<Metrics>);

/// The routes.
pub fn router(health: Arc<Health>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .with_state((health, metrics))
}

async fn healthz(State((health, _)): State<Shared>) -> (StatusCode, &'static str) {
    if health.ended.load(Ordering::Relaxed) {
        (StatusCode::SERVICE_UNAVAILABLE, "the main loop has ended\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}

async fn readyz(State((health, _)): State<Shared>) -> (StatusCode, &'static str) {
    if health.complete.load(Ordering::Relaxed) && !health.ended.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not every watch has shown its first list\n")
    }
}

async fn scrape(State((_, metrics)): State<Shared>) -> Result<String, (StatusCode, String)> {
    metrics.scrape().map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")))
}
