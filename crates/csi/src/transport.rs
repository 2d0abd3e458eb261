//! A connection whose inbound half passes through [`Rewriter`]; the outbound half is untouched.
//!
//! Holds at most one read (16 KiB) and one rewritten header block in memory. An error of the machine becomes an
//! `InvalidData` error of the connection, which closes it.

use crate::authority::Rewriter;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// Bytes asked of the socket at once.
const READ: usize = 16 * 1024;

/// A stream that gives every request it carries an acceptable `:authority`.
pub struct Localhost<S> {
    inner: S,
    rewriter: Rewriter,
    /// Read from the socket; `raw[taken..filled]` is not yet rewritten.
    raw: Box<[u8]>,
    taken: usize,
    filled: usize,
    /// Rewritten; `ready[given..]` is not yet handed to the server.
    ready: Vec<u8>,
    given: usize,
}

impl<S> Localhost<S> {
    /// Wraps a fresh connection, before its first byte was read.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            rewriter: Rewriter::default(),
            raw: vec![0; READ].into_boxed_slice(),
            taken: 0,
            filled: 0,
            ready: Vec::new(),
            given: 0,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Localhost<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.given < this.ready.len() {
                let n = buf.remaining().min(this.ready.len() - this.given);
                buf.put_slice(&this.ready[this.given..this.given + n]);
                this.given += n;
                return Poll::Ready(Ok(()));
            }
            this.ready.clear();
            this.given = 0;
            if this.taken < this.filled {
                let raw = &this.raw[this.taken..this.filled];
                match this.rewriter.step(raw, &mut this.ready) {
                    Ok(n) => this.taken += n,
                    Err(error) => {
                        tracing::warn!(error = %error, "connection closed: its frames make no sense");
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
                    }
                }
                continue;
            }
            let mut read = ReadBuf::new(&mut this.raw);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut read))?;
            this.filled = read.filled().len();
            this.taken = 0;
            if this.filled == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Localhost<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

impl<S: Connected> Connected for Localhost<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.inner.connect_info()
    }
}
