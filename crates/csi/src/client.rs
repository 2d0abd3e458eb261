//! Dials a CSI socket: for the demo, the benchmark, the tests, and anything else that plays orchestrator.

use hyper_util::rt::TokioIo;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

/// Why a socket could not be dialled.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to the CSI socket {}", path.display())]
pub struct ConnectError {
    /// The socket that was asked for.
    pub path: PathBuf,
    /// What the transport said.
    pub source: tonic::transport::Error,
}

/// Connects to the Unix socket at `path`. The channel re-connects by itself; clones share the connection.
///
/// # Errors
/// Nobody listens there, or the path is no socket.
pub async fn connect(path: &Path) -> Result<Channel, ConnectError> {
    let dialled = path.to_owned();
    // The URI is only the `:authority`; where to dial is the connector's.
    let connector = tower::service_fn(move |_| {
        let path = dialled.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost")
        .connect_with_connector(connector)
        .await
        .map_err(|source| ConnectError { path: path.to_owned(), source })
}
