//! The client of the API server, from a kubeconfig or as a pod has it.

use std::path::{Path, PathBuf};

use kube::config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody said where the API server is.
    #[error("no API server is configured: give --kubeconfig, or run as a pod with a service account")]
    None(#[source] InferConfigError),
    /// The file cannot be used.
    #[error("--kubeconfig {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: KubeconfigError,
    },
    /// What it says cannot be used.
    #[error("the API server's configuration cannot be used")]
    Config(#[source] kube::Error),
}

/// The configuration from that file; without one, the pod's own account or the user's default.
///
/// # Errors
/// See [`ClientError`].
pub async fn config(kubeconfig: Option<&Path>) -> Result<kube::Config, ClientError> {
    let Some(path) = kubeconfig.filter(|path| !path.as_os_str().is_empty()) else {
        return kube::Config::infer().await.map_err(ClientError::None);
    };
    let failed = |source| ClientError::File { path: path.to_owned(), source };
    let file = Kubeconfig::read_from(path).map_err(failed)?;
    kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(failed)
}

/// A client by [`config`].
///
/// # Errors
/// See [`ClientError`].
pub async fn connect(kubeconfig: Option<&Path>) -> Result<kube::Client, ClientError> {
    kube::Client::try_from(config(kubeconfig).await?).map_err(ClientError::Config)
}
