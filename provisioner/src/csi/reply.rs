//! Errors as gRPC statuses: the chain of causes is rendered here, once, and nowhere else.

use std::error::Error;
use std::fmt::Write;
use tonic::{Code, Status};

/// A status whose message is `error` and all its causes, outermost first.
pub fn status(code: Code, error: &dyn Error) -> Status {
    render(code, error.to_string(), error)
}

/// The same, about one volume: `what` says how `text` names it.
pub fn status_about(code: Code, what: &str, text: &str, error: &dyn Error) -> Status {
    render(code, format!("{what} {text:?}: {error}"), error)
}

fn render(code: Code, mut message: String, error: &dyn Error) -> Status {
    let mut cause = error.source();
    while let Some(next) = cause {
        // Writing to a String cannot fail.
        let _ = write!(message, ": {next}");
        cause = next.source();
    }
    match code {
        Code::Internal => tracing::error!(error = %message, "call failed"),
        code => tracing::info!(code = ?code, error = %message, "call refused"),
    }
    Status::new(code, message)
}

/// Runs blocking work, with whatever it must hold until it ends. The work goes on if the caller goes away.
///
/// # Errors
/// What `work` returns; INTERNAL if it panicked.
pub async fn blocking<T, F>(held: impl Send + 'static, work: F) -> Result<T, Status>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Status> + Send + 'static,
{
    let span = tracing::Span::current();
    let running = tokio::task::spawn_blocking(move || {
        let _held = held;
        span.in_scope(work)
    });
    running.await.unwrap_or_else(|error| {
        tracing::error!(error = %error, "call ended without an answer");
        Err(Status::internal("the call ended without an answer; its log line says why"))
    })
}
