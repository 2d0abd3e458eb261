//! Every authority that clients are known to send, every way to cut the bytes, and bytes that are no HTTP/2 at all.

use super::fields::AUTHORITY;
use super::{AuthorityError, MAX_BLOCK, PREFACE, Rewriter};
use proptest::prelude::*;

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn request(authority: Option<&[u8]>) -> Fields {
    let mut fields: Fields = vec![(b":method".to_vec(), b"POST".to_vec()), (b":scheme".to_vec(), b"http".to_vec())];
    fields.extend(authority.map(|value| (b":authority".to_vec(), value.to_vec())));
    fields.push((b":path".to_vec(), b"/csi.v1.Identity/Probe".to_vec()));
    fields.push((b"content-type".to_vec(), b"application/grpc".to_vec()));
    fields
}

/// An HPACK encoder that, like grpc-go's, puts every new field into the dynamic table and refers to it afterwards.
#[derive(Default)]
struct Encoder {
    newest_first: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Encoder {
    fn encode(&mut self, fields: &Fields) -> Vec<u8> {
        let mut block = Vec::new();
        for field in fields {
            if let Some(at) = self.newest_first.iter().position(|known| known == field) {
                integer(0x80, 7, 62 + at, &mut block);
                continue;
            }
            block.push(0x40);
            for text in [&field.0, &field.1] {
                integer(0, 7, text.len(), &mut block);
                block.extend_from_slice(text);
            }
            self.newest_first.insert(0, field.clone());
            while self.newest_first.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>() > 4096 {
                self.newest_first.pop();
            }
        }
        block
    }
}

/// RFC 7541 §5.1.
fn integer(pattern: u8, prefix: u8, mut value: usize, block: &mut Vec<u8>) {
    let limit = (1 << prefix) - 1;
    if value < limit {
        block.push(pattern | u8::try_from(value).unwrap());
        return;
    }
    block.push(pattern | u8::try_from(limit).unwrap());
    value -= limit;
    while value >= 128 {
        block.push(u8::try_from(value % 128).unwrap() | 128);
        value /= 128;
    }
    block.push(u8::try_from(value).unwrap());
}

/// Runs the machine over the pieces; the output, or the first error.
fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>, AuthorityError> {
    let (mut machine, mut out) = (Rewriter::default(), Vec::new());
    for mut piece in pieces {
        while !piece.is_empty() {
            let taken = machine.step(piece, &mut out)?;
            assert!(taken > 0, "a step takes something");
            piece = &piece[taken..];
        }
    }
    Ok(out)
}

fn with_preface(frames: &[u8]) -> Vec<u8> {
    [PREFACE.as_slice(), frames].concat()
}

/// The frames after the preface: kind, flags, stream, payload.
fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
    bytes = bytes.strip_prefix(PREFACE).expect("the preface goes through");
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let length = usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]);
        let stream = u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]);
        found.push((bytes[3], bytes[4], stream, bytes[9..9 + length].to_vec()));
        bytes = &bytes[9 + length..];
    }
    found
}

fn decode(block: &[u8]) -> Fields {
    loona_hpack::Decoder::new().decode(block).expect("what we write decodes with an empty table")
}

#[test]
fn every_authority_a_client_is_known_to_send_becomes_localhost() {
    for authority in [
        None,
        Some(&b""[..]),
        Some(b"localhost"),
        Some(b"%2Ftmp%2Fcsi.sock"),
        Some(b"/csi/csi.sock"),
        Some(b"/Var/Lib/Kubelet/csi.sock"),
        Some(b"unix:/csi/csi.sock"),
        Some(b"unix:///csi/csi.sock"),
        Some(b"csi.sock"),
        Some(b"a b\xff"),
    ] {
        let block = Encoder::default().encode(&request(authority));
        let out = run([with_preface(&frame(1, END_HEADERS, 1, &block)).as_slice()]).unwrap();
        let seen = decode(&frames(&out)[0].3);
        let found: Vec<_> = seen.iter().filter(|(name, _)| name == b":authority").collect();
        assert_eq!(found, [&(b":authority".to_vec(), AUTHORITY.to_vec())], "{authority:?}");
        let mut others = seen.clone();
        others.retain(|(name, _)| name != b":authority");
        assert_eq!(others, request(None), "everything else stays as it was");
    }
}

#[test]
fn the_clients_dynamic_table_is_followed_over_many_requests() {
    let mut encoder = Encoder::default();
    let mut bytes = Vec::new();
    let mut sizes = Vec::new();
    for stream in [1, 3, 5, 7] {
        let block = encoder.encode(&request(Some(b"%2Ftmp%2Fcsi.sock")));
        sizes.push(block.len());
        bytes.extend(frame(1, END_HEADERS | END_STREAM, stream, &block));
    }
    assert!(sizes[3] < sizes[0], "later blocks must lean on the table, or this test shows nothing");
    let out = run([with_preface(&bytes).as_slice()]).unwrap();
    let frames = frames(&out);
    assert_eq!(frames.len(), 4);
    for (kind, flags, _, block) in frames {
        assert_eq!((kind, flags), (1, END_HEADERS | END_STREAM));
        assert_eq!(decode(&block).len(), 5);
    }
}

#[test]
fn huffman_coded_fields_are_read() {
    // RFC 7541 C.4.1: GET http / with :authority www.example.com, Huffman-coded and indexed.
    let block = [0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
    let out = run([with_preface(&frame(1, END_HEADERS, 1, &block)).as_slice()]).unwrap();
    let expected: Fields = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "localhost")]
        .map(|(name, value)| (name.into(), value.into()))
        .to_vec();
    assert_eq!(decode(&frames(&out)[0].3), expected);
}

#[test]
fn padding_is_taken_off_and_priority_stays() {
    let block = Encoder::default().encode(&request(None));
    let mut payload = vec![7, 0x80, 0, 0, 3, 200];
    payload.extend_from_slice(&block);
    payload.extend_from_slice(&[0; 7]);
    let flags = END_HEADERS | PADDED | PRIORITY;
    let out = run([with_preface(&frame(1, flags, 5, &payload)).as_slice()]).unwrap();
    let (kind, flags, stream, payload) = frames(&out).remove(0);
    assert_eq!((kind, flags, stream), (1, END_HEADERS | PRIORITY, 5));
    assert_eq!(payload[..5], [0x80, 0, 0, 3, 200]);
    assert_eq!(decode(&payload[5..]).len(), 5);
}

#[test]
fn trailers_get_no_authority() {
    let trailers: Fields = vec![(b"grpc-status".to_vec(), b"0".to_vec())];
    let block = Encoder::default().encode(&trailers);
    let out = run([with_preface(&frame(1, END_HEADERS | END_STREAM, 1, &block)).as_slice()]).unwrap();
    assert_eq!(decode(&frames(&out)[0].3), trailers);
}

#[test]
fn other_frames_pass_byte_for_byte() {
    let mut bytes = frame(4, 0, 0, &[0, 3, 0, 0, 0, 100]);
    bytes.extend(frame(0, END_STREAM, 1, &vec![9; 40_000]));
    bytes.extend(frame(6, 0, 0, &[1; 8]));
    bytes.extend(frame(0, 0, 1, &[]));
    bytes.extend(frame(0xfe, 0xff, 77, b"unknown"));
    let bytes = with_preface(&bytes);
    assert_eq!(run([bytes.as_slice()]).unwrap(), bytes);
}

#[test]
fn what_is_not_http2_passes_for_the_server_to_refuse() {
    let bytes = b"GET / HTTP/1.1\r\nhost: /csi/csi.sock\r\n\r\n";
    assert_eq!(run([bytes.as_slice()]).unwrap(), bytes);
}

#[test]
fn a_block_that_grows_beyond_one_frame_is_continued() {
    let mut fields = request(Some(b"/csi/csi.sock"));
    fields.push((b"x".to_vec(), vec![b'a'; 40_000]));
    let block = Encoder::default().encode(&fields);
    let mut bytes = Vec::new();
    let pieces: Vec<_> = block.chunks(16_000).collect();
    for (at, piece) in pieces.iter().enumerate() {
        let flags = if at + 1 == pieces.len() { END_HEADERS } else { 0 };
        bytes.extend(frame(if at == 0 { 1 } else { 9 }, flags, 1, piece));
    }
    let frames = frames(&run([with_preface(&bytes).as_slice()]).unwrap());
    let kinds: Vec<_> = frames.iter().map(|frame| (frame.0, frame.1)).collect();
    assert_eq!(kinds, [(1, 0), (9, 0), (9, END_HEADERS)]);
    assert!(frames.iter().all(|frame| frame.3.len() <= 16_384));
    let block: Vec<u8> = frames.into_iter().flat_map(|frame| frame.3).collect();
    assert_eq!(decode(&block).last().unwrap().1.len(), 40_000);
}

#[test]
fn a_block_beyond_the_bound_ends_the_connection() {
    let mut bytes = frame(1, 0, 1, &[0; 16_384]);
    for _ in 0..4 {
        bytes.extend(frame(9, 0, 1, &[0; 16_384]));
    }
    assert_eq!(run([with_preface(&bytes).as_slice()]), Err(AuthorityError::BlockTooLarge));
}

#[test]
fn a_small_block_that_stands_for_a_huge_one_ends_the_connection() {
    // One 3,000-byte field into the table (index 62), then one byte, 0x80 | 62, per repetition.
    let mut encoder = Encoder::default();
    let mut block = encoder.encode(&vec![(b"x".to_vec(), vec![b'a'; 3000])]);
    block.extend(vec![0xbe; 10_000]);
    let bytes = frame(1, END_HEADERS, 1, &block);
    assert!(bytes.len() < MAX_BLOCK / 4);
    assert_eq!(run([with_preface(&bytes).as_slice()]), Err(AuthorityError::BlockTooLarge));
}

#[test]
fn frames_amid_a_block_and_padding_beyond_the_frame_end_the_connection() {
    let interrupted = [frame(1, 0, 1, &[0x83]), frame(6, 0, 0, &[0; 8])].concat();
    assert_eq!(run([with_preface(&interrupted).as_slice()]), Err(AuthorityError::Interrupted));
    let other_stream = [frame(1, 0, 1, &[0x83]), frame(9, END_HEADERS, 3, &[])].concat();
    assert_eq!(run([with_preface(&other_stream).as_slice()]), Err(AuthorityError::Interrupted));
    let padded = frame(1, END_HEADERS | PADDED, 1, &[9, 0x83]);
    assert_eq!(run([with_preface(&padded).as_slice()]), Err(AuthorityError::FrameTooShort));
    let garbled = frame(1, END_HEADERS, 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(run([with_preface(&garbled).as_slice()]), Err(AuthorityError::Undecodable));
}

/// A plausible connection: preface, then requests, data, pings, in any order and with odd authorities.
fn connections() -> impl Strategy<Value = Vec<u8>> {
    let one = prop_oneof![
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)).prop_map(Ok),
        (prop_oneof![Just(0_u8), Just(4), Just(6), Just(8)], proptest::collection::vec(any::<u8>(), 0..600))
            .prop_map(Err),
    ];
    (proptest::collection::vec(one, 1..8), 1..200_usize).prop_map(|(parts, piece)| {
        let mut encoder = Encoder::default();
        let mut bytes = PREFACE.to_vec();
        for part in parts {
            match part {
                Ok(authority) => {
                    let block = encoder.encode(&request(authority.as_deref()));
                    let pieces: Vec<_> = block.chunks(piece).collect();
                    for (at, fragment) in pieces.iter().enumerate() {
                        let flags = if at + 1 == pieces.len() { END_HEADERS } else { 0 };
                        bytes.extend(frame(if at == 0 { 1 } else { 9 }, flags, 1, fragment));
                    }
                }
                Err((kind, payload)) => bytes.extend(frame(kind, 0, 1, &payload)),
            }
        }
        bytes
    })
}

proptest! {
    #[test]
    fn cut_anywhere_the_result_is_the_same(bytes in connections(), cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12)) {
        let whole = run([bytes.as_slice()]);
        let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        prop_assert_eq!(&run(at.windows(2).map(|pair| &bytes[pair[0]..pair[1]])), &whole);
        prop_assert_eq!(&run(bytes.chunks(1)), &whole);
        for (kind, _, _, payload) in frames(&whole.unwrap()) {
            if kind == 1 {
                prop_assert_eq!(decode(&payload).iter().filter(|(name, value)| name == b":authority" && value == AUTHORITY).count(), 1);
            }
        }
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..4000)) {
        let _ = run([bytes.as_slice()]);
        let _ = run([with_preface(&bytes).as_slice()]);
    }

    #[test]
    fn garbled_header_blocks_never_panic(block in proptest::collection::vec(any::<u8>(), 0..400), flags in any::<u8>()) {
        let _ = run([with_preface(&frame(1, flags | END_HEADERS, 1, &block)).as_slice()]);
    }
}
