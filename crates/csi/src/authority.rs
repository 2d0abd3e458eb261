//! Gives every inbound HTTP/2 request the `:authority` "localhost", and passes every other byte on unchanged.
//!
//! Why: over a Unix socket there is no host name, so clients invent one: grpc-go has sent the socket's path, raw and
//! percent-encoded, an empty string, nothing at all and "localhost" in turn. The h2 crate parses the value as a URI
//! authority and resets the stream (PROTOCOL_ERROR) where that fails, so a kubelet or a sidecar of the wrong age could
//! not speak to us. Authority means nothing on a 0600 socket; so nobody's is trusted, everybody's is replaced.
//!
//! This is a pure machine, bytes in and bytes out; [`crate::transport`] puts it around a socket. Never does: keep more
//! than one header block (64 KiB) in memory, look into DATA, or touch what we send.

mod fields;
mod frame;

use fields::FieldDecoder;
use frame::{FrameHeader, HEADER_LEN, Kind};

/// The largest header block taken, in bytes, counted both as it arrives and as it decodes (names plus values).
pub const MAX_BLOCK: usize = 64 * 1024;

/// The most output produced in one step, in bytes, beyond the block that ends it.
const STEP: usize = 16 * 1024;

/// What every HTTP/2 client says first (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Why a connection cannot go on. The connection is closed; no other connection is touched.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum AuthorityError {
    /// A block, or what it decodes to, is above [`MAX_BLOCK`].
    #[error("a header block is larger than {MAX_BLOCK} bytes")]
    BlockTooLarge,
    /// Padding or priority bytes that do not fit into their frame.
    #[error("a HEADERS frame is shorter than its own padding and priority fields")]
    FrameTooShort,
    /// Another frame amid HEADERS and CONTINUATION (RFC 9113 §6.10 forbids it).
    #[error("a header block was interrupted by another frame")]
    Interrupted,
    /// The HPACK bytes make no sense; the connection's compression state is lost (RFC 7541 §2).
    #[error("a header block does not decode")]
    Undecodable,
}

/// Where in the stream of frames we are.
#[derive(Debug)]
enum State {
    /// So many bytes of the preface seen and passed on.
    Preface(usize),
    /// Not HTTP/2 with prior knowledge: everything goes through for the server to refuse.
    Opaque,
    /// Collecting a frame header.
    Header { seen: [u8; HEADER_LEN], len: usize },
    /// In a frame that is none of our business.
    Passing { left: usize },
    /// In the payload of a HEADERS or CONTINUATION frame.
    Collecting { frame: FrameHeader, payload: Vec<u8> },
}

/// A header block under way: HEADERS seen, END_HEADERS not yet.
#[derive(Debug)]
struct Block {
    stream: u32,
    end_stream: bool,
    priority: Option<[u8; 5]>,
    fragments: Vec<u8>,
}

/// The machine for one connection's inbound direction.
pub struct Rewriter {
    state: State,
    block: Option<Block>,
    fields: FieldDecoder,
}

impl Default for Rewriter {
    fn default() -> Self {
        Self { state: State::Preface(0), block: None, fields: FieldDecoder::new() }
    }
}

impl Rewriter {
    /// Takes from the front of `input` and appends to `out` what the server shall see; returns how many bytes of
    /// `input` were taken, all of them unless `out` has grown enough for one step. Call again with the rest.
    ///
    /// # Errors
    /// The connection must be closed; calling again is meaningless.
    pub fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, AuthorityError> {
        let mut rest = input;
        let full = out.len() + STEP;
        while !rest.is_empty() && out.len() < full {
            let taken = self.advance(rest, out)?;
            rest = &rest[taken..];
        }
        Ok(input.len() - rest.len())
    }

    /// One move of the state machine; takes at least one byte of a non-empty `input`.
    fn advance(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, AuthorityError> {
        match &mut self.state {
            State::Opaque => {
                let n = input.len().min(STEP);
                out.extend_from_slice(&input[..n]);
                Ok(n)
            }
            State::Preface(seen) => {
                let n = input.len().min(PREFACE.len() - *seen);
                let same = input[..n] == PREFACE[*seen..*seen + n];
                out.extend_from_slice(&input[..n]);
                *seen += n;
                if !same {
                    self.state = State::Opaque;
                } else if *seen == PREFACE.len() {
                    self.state = State::Header { seen: [0; HEADER_LEN], len: 0 };
                }
                Ok(n)
            }
            State::Header { seen, len } => {
                let n = input.len().min(HEADER_LEN - *len);
                seen[*len..*len + n].copy_from_slice(&input[..n]);
                *len += n;
                if *len == HEADER_LEN {
                    let header = FrameHeader::parse(*seen);
                    self.begin(header, out)?;
                }
                Ok(n)
            }
            State::Passing { left } => {
                let n = input.len().min(*left).min(STEP);
                out.extend_from_slice(&input[..n]);
                *left -= n;
                if *left == 0 {
                    self.state = State::Header { seen: [0; HEADER_LEN], len: 0 };
                }
                Ok(n)
            }
            State::Collecting { frame, payload } => {
                let n = input.len().min(frame.length - payload.len());
                payload.extend_from_slice(&input[..n]);
                if payload.len() == frame.length {
                    let (frame, payload) = (*frame, std::mem::take(payload));
                    self.end(frame, &payload, out)?;
                }
                Ok(n)
            }
        }
    }

    /// A frame header is complete: pass the frame on, or collect it.
    fn begin(&mut self, frame: FrameHeader, out: &mut Vec<u8>) -> Result<(), AuthorityError> {
        match (frame.kind, &self.block) {
            (Kind::Headers, None) => {}
            (Kind::Continuation, Some(block)) if block.stream == frame.stream => {}
            (_, Some(_)) => return Err(AuthorityError::Interrupted),
            // A CONTINUATION out of the blue is the server's to refuse: it carries nothing we must understand.
            (Kind::Other | Kind::Continuation, None) => {
                frame.write(out);
                self.state = match frame.length {
                    0 => State::Header { seen: [0; HEADER_LEN], len: 0 },
                    left => State::Passing { left },
                };
                return Ok(());
            }
        }
        let held = self.block.as_ref().map_or(0, |block| block.fragments.len());
        if held + frame.length > MAX_BLOCK {
            return Err(AuthorityError::BlockTooLarge);
        }
        if frame.length == 0 {
            return self.end(frame, &[], out);
        }
        self.state = State::Collecting { frame, payload: Vec::with_capacity(frame.length) };
        Ok(())
    }

    /// A HEADERS or CONTINUATION frame is complete: add it to the block, and write the block if that was its end.
    fn end(&mut self, frame: FrameHeader, payload: &[u8], out: &mut Vec<u8>) -> Result<(), AuthorityError> {
        self.state = State::Header { seen: [0; HEADER_LEN], len: 0 };
        let block = if let Some(mut block) = self.block.take() {
            block.fragments.extend_from_slice(payload);
            block
        } else {
            let (priority, fragment) = frame.split_headers(payload).ok_or(AuthorityError::FrameTooShort)?;
            Block { stream: frame.stream, end_stream: frame.end_stream(), priority, fragments: fragment.to_vec() }
        };
        if frame.end_headers() {
            let encoded = self.fields.rewrite(&block.fragments)?;
            frame::write_block(block.stream, block.end_stream, block.priority, &encoded, out);
        } else {
            self.block = Some(block);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
