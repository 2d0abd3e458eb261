//! Binds a private Unix socket and serves gRPC on it, with every client's `:authority` made acceptable.
//!
//! The socket appears under its name only once it listens and only with mode 0600. A stale socket is replaced; anything
//! else in its place (a file, a socket on which somebody accepts) is refused in words and stays untouched. Two servers
//! that start at once are kept apart by a lock on the folder, held while the name changes hands.

use crate::transport::Localhost;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{DirBuilder, File, Metadata, Permissions};
use std::future::Future;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio::sync::Notify;
use tokio::time::Sleep;
use tokio_stream::Stream;
use tonic::service::Routes;
use tonic::transport::Server;

/// The longest path a Unix socket can have, in bytes without the closing NUL (`sun_path`, unix(7)).
const MAX_PATH: usize = 107;

/// Connections the kernel holds for us until we accept them.
const BACKLOG: u32 = 128;

/// How long to leave a failed accept (no descriptors left) before the next one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why a socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The path cannot be a socket's.
    #[error("socket path {} must be absolute, with a file name, and at most {MAX_PATH} bytes long with its folder", .0.display())]
    Path(PathBuf),
    /// Somebody accepts connections there.
    #[error("another server is already listening on {}: stop it, or give this one another socket", .0.display())]
    Live(PathBuf),
    /// Something that is no socket is in the way.
    #[error("{} exists and is not a socket: move it away, or choose another socket path", .0.display())]
    NotASocket(PathBuf),
    /// A system call failed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why serving ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The transport gave up.
    #[error("the gRPC server on {} stopped", path.display())]
    Transport {
        /// The socket served.
        path: PathBuf,
        /// What the transport said.
        source: tonic::transport::Error,
    },
}

/// A socket that listens. Its name is removed when this is dropped, if it still is this socket's.
#[derive(Debug)]
pub struct Bound {
    listener: UnixListener,
    name: Name,
}

/// A name in the file system and what stands behind it while it is ours.
#[derive(Debug)]
struct Name {
    path: PathBuf,
    made: Made,
}

/// Which inode, and since when: a number alone may be used again for another server's socket.
#[derive(Debug, PartialEq, Eq)]
struct Made {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl From<&Metadata> for Made {
    fn from(found: &Metadata) -> Self {
        Self { device: found.dev(), inode: found.ino(), changed: (found.ctime(), found.ctime_nsec()) }
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|found| Made::from(&found) == self.made);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), error = %error, "socket left behind");
        }
    }
}

impl Bound {
    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.name.path
    }

    /// The next connection, for servers that speak something else than gRPC.
    ///
    /// # Errors
    /// What `accept` answered.
    pub async fn accept(&mut self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

/// Binds `path`: makes missing folders (0700), replaces a stale socket, refuses everything else. Needs a Tokio runtime.
///
/// # Errors
/// See [`BindError`]; nothing foreign was changed.
pub fn bind(path: &Path) -> Result<Bound, BindError> {
    let (folder, fresh) = places(path)?;
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| BindError::Io { doing, path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed("create the folder", folder))?;
    let _lock = File::open(folder)
        .and_then(|opened| Flock::lock(opened, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into()))
        .map_err(failed("lock the folder", folder))?;
    if let Some(found) = look(path).map_err(failed("look at", path))? {
        clear_stale(path, &found)?;
    }
    // Left by a server that died between the next lines; only a holder of the lock ever makes one.
    if look(&fresh).map_err(failed("look at", &fresh))?.is_some_and(|left| left.file_type().is_socket()) {
        std::fs::remove_file(&fresh).map_err(failed("remove the unfinished socket", &fresh))?;
    }
    let socket = UnixSocket::new_stream().map_err(failed("make a socket for", path))?;
    socket.bind(&fresh).map_err(failed("bind", &fresh))?;
    let named = (|| {
        std::fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
        let listener = socket.listen(BACKLOG)?;
        std::fs::rename(&fresh, path)?;
        let made = Made::from(&std::fs::symlink_metadata(path)?);
        Ok(Bound { listener, name: Name { path: path.to_owned(), made } })
    })();
    named.map_err(|source| {
        if let Err(error) = std::fs::remove_file(&fresh) {
            tracing::warn!(path = %fresh.display(), error = %error, "unfinished socket left behind");
        }
        BindError::Io { doing: "listen on", path: path.to_owned(), source }
    })
}

/// The folder of `path` and the name under which the socket is born.
fn places(path: &Path) -> Result<(&Path, PathBuf), BindError> {
    let wrong = || BindError::Path(path.to_owned());
    let folder = path.parent().filter(|folder| folder.is_absolute()).ok_or_else(wrong)?;
    let name = path.file_name().ok_or_else(wrong)?;
    let mut born = std::ffi::OsString::from(".");
    born.push(name);
    let fresh = folder.join(born);
    if fresh.as_os_str().len() > MAX_PATH {
        return Err(wrong());
    }
    Ok((folder, fresh))
}

/// What is at `path`, not following a symlink; `None` where nothing is.
fn look(path: &Path) -> io::Result<Option<Metadata>> {
    match std::fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a socket that nobody accepts on. Connecting is the only question the kernel answers truthfully.
fn clear_stale(path: &Path, found: &Metadata) -> Result<(), BindError> {
    if !found.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "stale socket removed");
            std::fs::remove_file(path).map_err(|source| BindError::Io {
                doing: "remove the stale socket",
                path: path.to_owned(),
                source,
            })
        }
        // A full backlog (EAGAIN) is a live server too.
        Ok(_) => Err(BindError::Live(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(BindError::Live(path.to_owned())),
        Err(source) => Err(BindError::Io { doing: "find out who listens on", path: path.to_owned(), source }),
    }
}

/// Serves `routes` until `shutdown` resolves; then takes no new calls, lets the running ones finish for at most
/// `drain`, and removes the socket.
///
/// # Errors
/// The transport failed before `shutdown` resolved.
pub async fn serve(
    bound: Bound,
    routes: Routes,
    shutdown: impl Future<Output = ()>,
    drain: Duration,
) -> Result<(), ServeError> {
    let Bound { listener, name } = bound;
    let asked = Notify::new();
    let serving = Server::builder()
        .add_routes(routes)
        .serve_with_incoming_shutdown(Incoming { listener, pause: None }, asked.notified());
    tokio::pin!(serving, shutdown);
    let ended = tokio::select! {
        ended = &mut serving => Some(ended),
        () = &mut shutdown => None,
    };
    let ended = if let Some(ended) = ended {
        ended
    } else {
        asked.notify_one();
        tokio::time::timeout(drain, &mut serving).await.unwrap_or_else(|_| {
            tracing::warn!(path = %name.path.display(), "calls were still running at the end of the drain time");
            Ok(())
        })
    };
    ended.map_err(|source| ServeError::Transport { path: name.path.clone(), source })
}

/// Accepted connections, for ever: an accept that fails (no descriptors left) is tried again after a pause.
struct Incoming {
    listener: UnixListener,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Stream for Incoming {
    type Item = io::Result<Localhost<UnixStream>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match ready!(self.listener.poll_accept(cx)) {
                Ok((stream, _)) => return Poll::Ready(Some(Ok(Localhost::new(stream)))),
                Err(error) => {
                    tracing::warn!(error = %error, "connection not accepted");
                    self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }
}
