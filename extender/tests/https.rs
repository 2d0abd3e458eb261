//! HTTPS: a certificate that is read again when it changes, and clients that must show one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are not seen as tests by the lint

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum_server::Handle;
use bedplate_extender::config::TlsFiles;
use bedplate_extender::fetch::Fetcher;
use bedplate_extender::{Config, Index, Judge, Metrics, serve};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
}

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let cert = params.self_signed(&key).unwrap();
    Authority { der: cert.der().clone(), pem: cert.pem(), issuer: Issuer::new(params, key) }
}

impl Authority {
    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        (cert, key)
    }

    fn write(&self, folder: &Path) {
        let (cert, key) = self.sign("extender");
        std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
        std::fs::write(folder.join("tls.crt"), cert.pem()).unwrap();
    }
}

struct Served {
    runtime: Option<tokio::runtime::Runtime>,
    address: SocketAddr,
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn start(folder: &Path, client_ca: bool) -> Served {
    let tls = TlsFiles {
        cert: folder.join("tls.crt"),
        key: folder.join("tls.key"),
        client_ca: client_ca.then(|| folder.join("ca.crt")),
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let judge = Arc::new(Judge {
        index: Index::new(),
        fetcher: Fetcher::new(None),
        metrics: Arc::new(Metrics::new().unwrap()),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let config = Config { tls: Some(tls), ..Config::default() };
    runtime.spawn(async move { serve(listener, judge, config, Handle::new()).await.unwrap() });
    Served { runtime: Some(runtime), address }
}

/// Filter a pod without claims, trusting `by`, showing a certificate signed by `as_client`.
fn ask(address: SocketAddr, by: &Authority, as_client: Option<&Authority>) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(by.der.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let config = match as_client {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let (cert, key) = authority.sign("scheduler");
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            builder.with_client_auth_cert(vec![cert.der().clone()], key).unwrap()
        }
    };
    let tls = ClientConnection::new(Arc::new(config), ServerName::try_from("extender").unwrap()).unwrap();
    let tcp = TcpStream::connect(address)?;
    tcp.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut stream = StreamOwned::new(tls, tcp);
    let body = r#"{"Pod":{},"Nodes":null,"NodeNames":["n1"]}"#;
    write!(
        stream,
        "POST /filter HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    match stream.read_to_string(&mut answer) {
        Ok(_) => Ok(answer),
        // Closed without a goodbye, after the answer.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof && !answer.is_empty() => Ok(answer),
        Err(error) => Err(error),
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not happen in time");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn a_changed_certificate_is_taken_up_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (authority(), authority());
    old.write(folder.path());
    let served = start(folder.path(), false);
    until("the first answer", || ask(served.address, &old, None).is_ok());
    assert!(ask(served.address, &old, None).unwrap().contains(r#""NodeNames":["n1"]"#));
    assert!(ask(served.address, &new, None).is_err(), "signed by somebody else");
    new.write(folder.path());
    until("the new certificate", || ask(served.address, &new, None).is_ok());
    std::fs::write(folder.path().join("tls.crt"), "no certificate").unwrap();
    let begun = Instant::now();
    // Longer than files are left unlooked at: the last good one stays.
    until("time", || ask(served.address, &new, None).is_err() || begun.elapsed() > Duration::from_secs(3));
    assert!(ask(served.address, &new, None).is_ok());
}

#[test]
fn where_an_authority_is_named_clients_must_show_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (authority(), authority());
    ours.write(folder.path());
    std::fs::write(folder.path().join("ca.crt"), &ours.pem).unwrap();
    let served = start(folder.path(), true);
    until("the first answer", || ask(served.address, &ours, Some(&ours)).is_ok_and(|answer| answer.contains("200 OK")));
    assert!(ask(served.address, &ours, None).is_err());
    assert!(ask(served.address, &ours, Some(&theirs)).is_err());
}
