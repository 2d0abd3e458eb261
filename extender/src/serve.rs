//! HTTP and HTTPS around the judge: bounded bodies, bounded concurrency, bounded time; health and metrics beside it.
//!
//! The scheduler takes only 200 for an answer and does not read other bodies; those are for people and their tools.

mod tls;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum_server::Handle;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::RustlsAcceptor;
use http_body_util::LengthLimitError;
use tokio::sync::Semaphore;

pub use tls::TlsError;

use crate::config::Config;
use crate::judge::{Judge, Verb};

/// How often holds are looked at for their end.
const TICK: Duration = Duration::from_millis(250);

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The certificates cannot be used.
    #[error("HTTPS cannot be served")]
    Tls(#[source] TlsError),
    /// The socket failed.
    #[error("the listening socket failed")]
    Io(#[source] std::io::Error),
}

struct App {
    judge: Arc<Judge>,
    config: Config,
    permits: Semaphore,
}

/// The routes, also below `/v1` for those who like a version in their URLs.
fn router(judge: Arc<Judge>, config: Config) -> Router {
    let permits = Semaphore::new(config.max_requests);
    let app = Arc::new(App { judge, config, permits });
    let verb = |verb: Verb| post(move |State(app): State<Arc<App>>, request: Request| ask(app, verb, request));
    let verbs = Router::new()
        .route("/filter", verb(Verb::Filter))
        .route("/prioritize", verb(Verb::Prioritize))
        .route("/simulate/filter", verb(Verb::SimulateFilter))
        .route("/simulate/prioritize", verb(Verb::SimulatePrioritize));
    Router::new()
        .merge(verbs.clone())
        .nest("/v1", verbs)
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(app)
}

/// Serve until `handle` says to stop.
///
/// # Errors
/// Where certificates or the socket cannot be used.
pub async fn serve(
    listener: TcpListener,
    judge: Arc<Judge>,
    config: Config,
    handle: Handle<std::net::SocketAddr>,
) -> Result<(), ServeError> {
    listener.set_nonblocking(true).map_err(ServeError::Io)?;
    let index = judge.index.clone();
    let ticking = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            index.expire();
        }
    });
    let files = config.tls.clone();
    let routes = router(judge, config).into_make_service();
    let server = axum_server::from_tcp(listener).map_err(ServeError::Io)?.handle(handle);
    let served = match files {
        None => server.acceptor(NoDelayAcceptor::new()).serve(routes).await,
        Some(files) => {
            let tls = tls::load(files).map_err(ServeError::Tls)?;
            let acceptor = RustlsAcceptor::new(tls.current()).acceptor(NoDelayAcceptor::new());
            let reloading = tokio::spawn(tls.follow());
            let served = server.acceptor(acceptor).serve(routes).await;
            reloading.abort();
            served
        }
    };
    ticking.abort();
    served.map_err(ServeError::Io)
}

async fn ask(app: Arc<App>, verb: Verb, request: Request) -> Response {
    let begun = Instant::now();
    let count = |outcome: &str| app.judge.metrics.requests.with_label_values(&[verb.label(), outcome]).inc();
    let refuse = |status: StatusCode, outcome: &str, why: String| {
        count(outcome);
        tracing::debug!(verb = verb.label(), status = status.as_u16(), why, "request refused");
        (status, why + "\n").into_response()
    };
    let timeout = app.config.timeout;
    let Ok(Ok(_permit)) = tokio::time::timeout(timeout, app.permits.acquire()).await else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "busy", "too many requests at once".to_owned());
    };
    let body = match tokio::time::timeout(timeout, read(request.into_body(), app.config.max_body)).await {
        Ok(Ok(body)) => body,
        Ok(Err((status, why))) => return refuse(status, "malformed", why),
        Err(_) => {
            return refuse(StatusCode::REQUEST_TIMEOUT, "malformed", "the body did not arrive in time".to_owned());
        }
    };
    let began = Instant::now();
    let answer = app.judge.answer(verb, &body, timeout.saturating_sub(begun.elapsed())).await;
    app.judge.metrics.seconds.with_label_values(&[verb.label()]).observe(began.elapsed().as_secs_f64());
    match answer {
        Ok(answer) => {
            count(answer.outcome.label());
            ([(header::CONTENT_TYPE, "application/json")], answer.body).into_response()
        }
        Err(malformed) => refuse(StatusCode::BAD_REQUEST, "malformed", malformed.to_string()),
    }
}

async fn read(body: Body, most: usize) -> Result<Bytes, (StatusCode, String)> {
    to_bytes(body, most).await.map_err(|error| {
        let error = error.into_inner();
        if error.is::<LengthLimitError>() {
            (StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {most} bytes"))
        } else {
            (StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}"))
        }
    })
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    if app.judge.index.synced() {
        "ok".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the index is not complete yet\n").into_response()
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    match app.judge.metrics.scrape(&app.judge.index) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
