//! The socket as clients meet it: hand-rolled HTTP/2 with every known `:authority`, and who may take which path.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are not seen as tests by the lint

use bedplate_csi::server::{BindError, bind, serve};
use bedplate_csi::v1::identity_client::IdentityClient;
use bedplate_csi::v1::identity_server::{Identity, IdentityServer};
use bedplate_csi::v1::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest, GetPluginInfoResponse,
    ProbeRequest, ProbeResponse,
};
use std::error::Error as _;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

const DRAIN: Duration = Duration::from_secs(20);

/// An Identity service; `Probe` can be held up to see a call in flight.
#[derive(Clone, Default)]
struct Fixed {
    hold: Option<(Arc<Notify>, Arc<Notify>)>,
}

#[tonic::async_trait]
impl Identity for Fixed {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse { name: "bedplate.dev".into(), ..Default::default() }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        if let Some((entered, go_on)) = &self.hold {
            entered.notify_one();
            go_on.notified().await;
        }
        Ok(Response::new(ProbeResponse { ready: Some(true) }))
    }
}

fn routes(service: Fixed) -> Routes {
    Routes::new(IdentityServer::new(service))
}

/// A server in its own thread and runtime, stopped on drop.
struct Running {
    stop: Arc<Notify>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn start(path: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let bound = runtime.block_on(async { bind(path) }).unwrap();
        Self::spawn(move |stopped| {
            runtime.block_on(serve(bound, routes(Fixed::default()), stopped.notified(), DRAIN)).unwrap();
        })
    }

    /// The same service with nothing between tonic and the socket.
    fn start_bare(path: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(async { tokio::net::UnixListener::bind(path) }).unwrap();
        Self::spawn(move |stopped| {
            let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
            let serving = tonic::transport::Server::builder().add_routes(routes(Fixed::default()));
            runtime.block_on(serving.serve_with_incoming_shutdown(incoming, stopped.notified())).unwrap();
        })
    }

    fn spawn(body: impl FnOnce(Arc<Notify>) + Send + 'static) -> Self {
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        Self { stop, thread: Some(std::thread::spawn(move || body(stopped))) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server ended well");
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A literal without indexing, as RFC 7541 §6.2.2 has it; short strings only.
fn field(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0);
    block.push(u8::try_from(name.len()).unwrap());
    block.extend_from_slice(name);
    block.push(u8::try_from(value.len()).unwrap());
    block.extend_from_slice(value);
}

/// What became of a raw request.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// A reply with DATA: the call reached the service.
    Reply,
    /// RST_STREAM with this HTTP/2 error code.
    Reset(u32),
    /// The connection ended.
    Closed,
}

/// Calls GetPluginInfo with raw frames, written in pieces of `piece` bytes.
fn call(path: &Path, authority: Option<&[u8]>, piece: usize) -> Answer {
    let mut socket = UnixStream::connect(path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut block = Vec::new();
    field(&mut block, b":method", b"POST");
    field(&mut block, b":scheme", b"http");
    field(&mut block, b":path", b"/csi.v1.Identity/GetPluginInfo");
    if let Some(authority) = authority {
        field(&mut block, b":authority", authority);
    }
    field(&mut block, b"content-type", b"application/grpc");
    field(&mut block, b"te", b"trailers");
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    let (first, rest) = block.split_at(10);
    bytes.extend(frame(1, 0, 1, first));
    bytes.extend(frame(9, 4, 1, rest));
    bytes.extend(frame(0, 1, 1, &[0; 5]));
    for piece in bytes.chunks(piece) {
        socket.write_all(piece).unwrap();
    }
    loop {
        let mut header = [0; 9];
        if socket.read_exact(&mut header).is_err() {
            return Answer::Closed;
        }
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        socket.read_exact(&mut payload).unwrap();
        match header[3] {
            0 if payload.windows(12).any(|seen| seen == b"bedplate.dev") => return Answer::Reply,
            3 => return Answer::Reset(u32::from_be_bytes(payload.try_into().unwrap())),
            7 => return Answer::Closed,
            _ => {}
        }
    }
}

const ODD: [Option<&[u8]>; 4] =
    [Some(b""), Some(b"%2Ftmp%2Fcsi.sock"), Some(b"/csi/csi.sock"), Some(b"unix:///csi/csi.sock")];
const PLAIN: [Option<&[u8]>; 3] = [None, Some(b"localhost"), Some(b"CSI.Sock")];

#[test]
fn every_known_authority_reaches_the_service() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("csi.sock");
    let _running = Running::start(&path);
    for authority in ODD.into_iter().chain(PLAIN) {
        for piece in [1, 7, 4096] {
            assert_eq!(call(&path, authority, piece), Answer::Reply, "{authority:?} in pieces of {piece}");
        }
    }
}

#[test]
fn without_the_shim_h2_resets_odd_authorities() {
    // The reason why `authority` exists. Where this fails, h2 has become lenient and the shim can go.
    const PROTOCOL_ERROR: u32 = 1;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("csi.sock");
    let _running = Running::start_bare(&path);
    for authority in ODD {
        assert_eq!(call(&path, authority, 4096), Answer::Reset(PROTOCOL_ERROR), "{authority:?}");
    }
    for authority in PLAIN {
        assert_eq!(call(&path, authority, 4096), Answer::Reply, "{authority:?}");
    }
}

#[test]
fn a_client_that_talks_nonsense_is_closed_and_others_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("csi.sock");
    let _running = Running::start(&path);
    let mut socket = UnixStream::connect(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend(frame(1, 4, 1, &[0xff; 6]));
    socket.write_all(&bytes).unwrap();
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest);
    assert_eq!(call(&path, None, 4096), Answer::Reply);
}

#[tokio::test]
async fn the_socket_is_private_and_goes_when_the_server_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/csi.sock");
    let bound = bind(&path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    for made in ["a", "a/b"] {
        assert_eq!(dir.path().join(made).metadata().unwrap().permissions().mode() & 0o7777, 0o700, "{made}");
    }
    let names: Vec<PathBuf> = std::fs::read_dir(dir.path().join("a/b")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(names, std::slice::from_ref(&path), "nothing beside it");
    drop(bound);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("csi.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists() && UnixStream::connect(&path).is_err(), "it must be stale, or this test shows nothing");
    let bound = bind(&path).unwrap();
    UnixStream::connect(bound.path()).unwrap();
}

#[tokio::test]
async fn a_live_server_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("csi.sock");
    let _first = bind(&path).unwrap();
    let before = path.symlink_metadata().unwrap().ino();
    let refused = bind(&path).unwrap_err();
    assert!(matches!(&refused, BindError::Live(at) if *at == path));
    assert!(refused.to_string().contains("another server is already listening"), "{refused}");
    assert_eq!(path.symlink_metadata().unwrap().ino(), before);
    UnixStream::connect(&path).unwrap();
}

#[tokio::test]
async fn a_file_or_a_symlink_in_the_way_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for path in [&file, &link] {
        assert!(matches!(bind(path), Err(BindError::NotASocket(_))), "{}", path.display());
    }
    assert!(matches!(bind(dir.path()), Err(BindError::NotASocket(_))));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    assert!(link.is_symlink());
}

#[tokio::test]
async fn a_path_that_no_socket_can_have_is_refused() {
    for path in ["csi.sock", "/", "", &format!("/tmp/{}", "x".repeat(110))] {
        assert!(matches!(bind(Path::new(path)), Err(BindError::Path(_))), "{path:?}");
    }
}

#[tokio::test]
async fn of_many_servers_starting_at_once_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("csi.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut starts = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let path = path.clone();
        let runtime = tokio::runtime::Handle::current();
        starts.spawn_blocking(move || {
            let _inside = runtime.enter();
            bind(&path)
        });
    }
    let (won, lost): (Vec<_>, Vec<_>) = starts.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    assert!(lost.iter().all(|refused| matches!(refused, Err(BindError::Live(_)))), "{lost:?}");
}

#[tokio::test]
async fn a_running_call_is_finished_before_the_server_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("csi.sock");
    let (entered, go_on, stop) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let service = Fixed { hold: Some((entered.clone(), go_on.clone())) };
    let bound = bind(&path).unwrap();
    let stopped = stop.clone();
    let server = tokio::spawn(async move { serve(bound, routes(service), stopped.notified(), DRAIN).await });
    let channel = bedplate_csi::client::connect(&path).await.unwrap();
    let call = tokio::spawn(async move { IdentityClient::new(channel).probe(ProbeRequest {}).await });
    entered.notified().await;
    stop.notify_one();
    go_on.notify_one();
    assert_eq!(call.await.unwrap().unwrap().into_inner().ready, Some(true));
    server.await.unwrap().unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_nobody_serves_is_named_by_the_client() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none.sock");
    let error = bedplate_csi::client::connect(&path).await.unwrap_err();
    assert!(error.to_string().contains("none.sock"), "{error}");
    assert!(error.source().is_some());
}
