//! Asking a running agent over its admin socket.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bedplate_agent::admin::{Order, Problem};
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;

/// Where the agent listens.
#[derive(Clone, Debug, Args)]
pub struct Agent {
    /// The agent's admin socket.
    #[arg(long, env = "BEDPLATE_ADMIN_SOCKET", default_value = "/run/bedplate/admin.sock")]
    pub socket: PathBuf,
}

impl Agent {
    /// GET a JSON value.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let body = ask(&self.socket, Method::GET, path, Bytes::new()).await?;
        serde_json::from_slice(&body).with_context(|| format!("the agent's answer to {path} is not understood"))
    }

    /// Whether it says that it serves; an error says why not.
    pub async fn ready(&self) -> anyhow::Result<()> {
        ask(&self.socket, Method::GET, "/readyz", Bytes::new()).await.map(drop)
    }

    /// Whether it answers at all.
    pub async fn alive(&self) -> anyhow::Result<()> {
        ask(&self.socket, Method::GET, "/healthz", Bytes::new()).await.map(drop)
    }

    /// POST an order; the answer's body.
    pub async fn order(&self, path: &str, order: &Order) -> anyhow::Result<Bytes> {
        ask(&self.socket, Method::POST, path, Bytes::from(serde_json::to_vec(order)?)).await
    }
}

async fn ask(socket: &Path, method: Method, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
    let stream = tokio::net::UnixStream::connect(socket).await.with_context(|| {
        format!(
            "no agent answers on {}; start bedplate-agent, or name its admin_socket with --socket",
            socket.display()
        )
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::new(body))?;
    let response = sender.send_request(request).await?;
    let code = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    drop(sender);
    connection.await??;
    if code.is_success() {
        return Ok(body);
    }
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => bail!("{}", problem.error),
        Err(_) if code == StatusCode::NOT_FOUND => bail!("the agent knows no {path}; is it of another version?"),
        Err(_) => bail!("the agent answered {code}: {}", String::from_utf8_lossy(&body)),
    }
}

/// On whose word an order is given: the person behind sudo, else the user.
pub fn orderer() -> String {
    ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()))
        .unwrap_or_else(|| format!("uid {}", nix::unistd::Uid::current()))
}
