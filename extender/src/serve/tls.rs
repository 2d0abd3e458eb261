//! Certificates from files, read again when they change. A change that cannot be used is refused and the last good one
//! kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::config::TlsFiles;

/// How often files are looked at.
const EVERY: Duration = Duration::from_secs(2);

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each field is named in the message")]
pub enum TlsError {
    #[error("{path} cannot be read")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} holds no {what} in PEM")]
    Pem { path: PathBuf, what: &'static str },
    #[error("certificate {cert} and key {key} cannot be used together")]
    Unusable {
        cert: PathBuf,
        key: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("{path} holds no authority that clients could be checked by: {why}")]
    Authority { path: PathBuf, why: String },
}

/// A server's certificates and where they come from.
pub(super) struct Tls {
    files: TlsFiles,
    seen: Contents,
    config: RustlsConfig,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// Read the files.
pub(super) fn load(files: TlsFiles) -> Result<Tls, TlsError> {
    let seen = contents(&files)?;
    let config = RustlsConfig::from_config(config(&files, &seen)?);
    Ok(Tls { files, seen, config })
}

impl Tls {
    pub fn current(&self) -> RustlsConfig {
        self.config.clone()
    }

    /// Look at the files for ever.
    pub async fn follow(mut self) {
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            ticks.tick().await;
            self.look();
        }
    }

    fn look(&mut self) {
        let fresh = match contents(&self.files) {
            Ok(fresh) if fresh == self.seen => return,
            Ok(fresh) => fresh,
            Err(error) => {
                let why = &error as &dyn std::error::Error;
                tracing::warn!(error = why, "certificates cannot be read again, keeping the last good ones");
                return;
            }
        };
        match config(&self.files, &fresh) {
            Ok(config) => {
                self.config.reload_from_config(config);
                tracing::info!(cert = %self.files.cert.display(), "certificates changed");
            }
            Err(error) => {
                let why = &error as &dyn std::error::Error;
                tracing::error!(error = why, "changed certificates cannot be used, keeping the last good ones");
            }
        }
        // Also where they cannot be used: told once a change.
        self.seen = fresh;
    }
}

fn contents(files: &TlsFiles) -> Result<Contents, TlsError> {
    let read = |path: &Path| std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source });
    let client_ca = files.client_ca.as_deref().map(read).transpose()?;
    Ok(Contents { cert: read(&files.cert)?, key: read(&files.key)?, client_ca })
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let none = || TlsError::Pem { path: path.to_owned(), what: "certificate" };
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| none())?;
    if found.is_empty() { Err(none()) } else { Ok(found) }
}

fn config(files: &TlsFiles, contents: &Contents) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(&files.cert, &contents.cert)?;
    let key = PrivateKeyDer::from_pem_slice(&contents.key)
        .map_err(|_| TlsError::Pem { path: files.key.clone(), what: "private key" })?;
    let unusable = |source| TlsError::Unusable { cert: files.cert.clone(), key: files.key.clone(), source };
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = match files.client_ca.as_deref().zip(contents.client_ca.as_deref()) {
        None => builder.with_no_client_auth(),
        Some((path, pem)) => {
            let authority = |why: String| TlsError::Authority { path: path.to_owned(), why };
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path, pem)? {
                roots.add(certificate).map_err(|error| authority(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| authority(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
