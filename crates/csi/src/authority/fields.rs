//! Header fields: HPACK in, with the client's dynamic table (RFC 7541), and literals without indexing out, so that the
//! server's own table stays empty and the two can never disagree.

use super::{AuthorityError, MAX_BLOCK};

/// What every request is told to be for.
pub(super) const AUTHORITY: &[u8] = b"localhost";

/// The dynamic table we allow a client, in bytes: the protocol's default, which our server never raises
/// (SETTINGS_HEADER_TABLE_SIZE, RFC 9113 §6.5.2).
const TABLE_SIZE: usize = 4096;

/// One connection's HPACK state.
pub(super) struct FieldDecoder {
    hpack: loona_hpack::Decoder<'static>,
}

impl FieldDecoder {
    pub fn new() -> Self {
        let mut hpack = loona_hpack::Decoder::new();
        hpack.set_max_allowed_table_size(TABLE_SIZE);
        Self { hpack }
    }

    /// Decodes `block`, puts [`AUTHORITY`] where a request's authority is or is missing, and encodes the fields again.
    /// A block with no `:method` and no `:authority` is a trailer and keeps its fields as they are.
    pub fn rewrite(&mut self, block: &[u8]) -> Result<Vec<u8>, AuthorityError> {
        let mut encoded = Vec::with_capacity(block.len() * 2 + 64);
        let mut size = 0_usize;
        let (mut request, mut has_authority) = (false, false);
        let decoded = self.hpack.decode_with_cb(block, |name, value| {
            // The table must see the block to its end, but nothing beyond the bound is kept: one byte of HPACK can
            // stand for 4 KiB of field.
            size = size.saturating_add(name.len() + value.len());
            if size > MAX_BLOCK {
                return;
            }
            match name.as_ref() {
                b":authority" => {
                    has_authority = true;
                    write_literal(&name, AUTHORITY, &mut encoded);
                }
                name => {
                    request |= name == b":method";
                    write_literal(name, &value, &mut encoded);
                }
            }
        });
        match decoded {
            Err(_) => return Err(AuthorityError::Undecodable),
            Ok(()) if size > MAX_BLOCK => return Err(AuthorityError::BlockTooLarge),
            Ok(()) => {}
        }
        if request && !has_authority {
            // In front: pseudo-header fields come before all others (RFC 9113 §8.3).
            let mut with = Vec::with_capacity(encoded.len() + 32);
            write_literal(b":authority", AUTHORITY, &mut with);
            with.extend_from_slice(&encoded);
            encoded = with;
        }
        Ok(encoded)
    }
}

/// Literal header field without indexing, new name, no Huffman coding (RFC 7541 §6.2.2).
fn write_literal(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.push(0x00);
    write_string(name, out);
    write_string(value, out);
}

/// A length with a seven-bit prefix (RFC 7541 §5.1) and the bytes.
fn write_string(bytes: &[u8], out: &mut Vec<u8>) {
    let mut length = bytes.len();
    if length < 0x7f {
        out.push(u8::try_from(length).unwrap_or(0));
    } else {
        out.push(0x7f);
        length -= 0x7f;
        while length >= 0x80 {
            out.push(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
            length >>= 7;
        }
        out.push(u8::try_from(length).unwrap_or(0));
    }
    out.extend_from_slice(bytes);
}
