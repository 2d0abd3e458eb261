//! HTTP/2 frames as far as header blocks need them (RFC 9113 §4.1, §6.2, §6.10): parse a frame header, take padding and
//! priority off a HEADERS payload, and write a block back as HEADERS and CONTINUATION frames of the default size.

/// Bytes of a frame header.
pub(super) const HEADER_LEN: usize = 9;

/// The largest frame every peer must take without negotiation, in bytes (SETTINGS_MAX_FRAME_SIZE, RFC 9113 §6.5.2).
const MAX_FRAME: usize = 16_384;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const TYPE_HEADERS: u8 = 0x1;
const TYPE_CONTINUATION: u8 = 0x9;

/// The kinds of frame that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Headers,
    Continuation,
    Other,
}

/// The nine bytes before every payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameHeader {
    /// Bytes of the payload that follows.
    pub length: usize,
    pub kind: Kind,
    pub stream: u32,
    flags: u8,
    raw: [u8; HEADER_LEN],
}

impl FrameHeader {
    pub fn parse(raw: [u8; HEADER_LEN]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = raw;
        Self {
            length: (usize::from(l0) << 16) | (usize::from(l1) << 8) | usize::from(l2),
            kind: match kind {
                TYPE_HEADERS => Kind::Headers,
                TYPE_CONTINUATION => Kind::Continuation,
                _ => Kind::Other,
            },
            // The top bit is reserved and ignored.
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
            flags,
            raw,
        }
    }

    /// Appends the header exactly as it came.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.raw);
    }

    pub fn end_stream(&self) -> bool {
        self.flags & END_STREAM != 0
    }

    pub fn end_headers(&self) -> bool {
        self.flags & END_HEADERS != 0
    }

    /// A HEADERS payload without its padding: the priority bytes, if there are any, and the block's first fragment.
    /// `None` where the payload is shorter than its flags promise.
    pub fn split_headers<'a>(&self, payload: &'a [u8]) -> Option<(Option<[u8; 5]>, &'a [u8])> {
        let mut rest = payload;
        let mut padding = 0;
        if self.flags & PADDED != 0 {
            let (first, after) = rest.split_first()?;
            padding = usize::from(*first);
            rest = after;
        }
        let mut priority = None;
        if self.flags & PRIORITY != 0 {
            let (first, after) = rest.split_first_chunk::<5>()?;
            priority = Some(*first);
            rest = after;
        }
        Some((priority, rest.get(..rest.len().checked_sub(padding)?)?))
    }
}

/// Appends a header block as one HEADERS frame and as many CONTINUATION frames as it needs.
pub(super) fn write_block(stream: u32, end_stream: bool, priority: Option<[u8; 5]>, block: &[u8], out: &mut Vec<u8>) {
    let prefix: &[u8] = priority.as_ref().map_or(&[], |bytes| &bytes[..]);
    let (first, mut rest) = block.split_at(block.len().min(MAX_FRAME - prefix.len()));
    let mut flags = if end_stream { END_STREAM } else { 0 };
    if priority.is_some() {
        flags |= PRIORITY;
    }
    if rest.is_empty() {
        flags |= END_HEADERS;
    }
    write_header(out, prefix.len() + first.len(), TYPE_HEADERS, flags, stream);
    out.extend_from_slice(prefix);
    out.extend_from_slice(first);
    while !rest.is_empty() {
        let (fragment, after) = rest.split_at(rest.len().min(MAX_FRAME));
        let flags = if after.is_empty() { END_HEADERS } else { 0 };
        write_header(out, fragment.len(), TYPE_CONTINUATION, flags, stream);
        out.extend_from_slice(fragment);
        rest = after;
    }
}

/// `length` is at most [`MAX_FRAME`], so it fits into the three bytes that a frame header has for it.
fn write_header(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}
