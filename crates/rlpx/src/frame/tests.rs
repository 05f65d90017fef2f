use poste_codec::{SecretKey, keccak256};
use proptest::prelude::*;
use sha3::{Digest, Keccak256};
use zeroize::Zeroizing;

use super::*;

/// The two directions of a connection, by one set of secrets that reads what it writes.
fn loopback() -> (FrameEncoder, FrameDecoder) {
    let hash = Keccak256::new_with_prefix(b"seed");
    codec(Secrets {
        aes: Zeroizing::new(keccak256(b"aes")),
        mac: Zeroizing::new(keccak256(b"mac")),
        egress: hash.clone(),
        ingress: hash,
    })
}

fn encode(encoder: &mut FrameEncoder, id: u32, payload: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    assert!(encoder.encode(id, payload, &mut out));
    out
}

#[test]
fn ids_are_rlp_integers() {
    for (id, encoded) in [
        (0, &[0x80][..]),
        (1, &[1]),
        (127, &[0x7f]),
        (128, &[0x81, 0x80]),
        (142, &[0x81, 0x8e]),
        (271, &[0x82, 1, 15]),
        (u32::MAX, &[0x84, 255, 255, 255, 255]),
    ] {
        let mut out = BytesMut::new();
        put_id(id, &mut out);
        assert_eq!(&out[..], encoded);
        out.extend_from_slice(b"payload");
        assert_eq!(read_id(&out), Ok((id, encoded.len())));
    }
    for bad in [&[][..], &[0x81, 5], &[0xc0], &[0x82, 0, 1], &[0x85, 1, 0, 0, 0, 0], &[0x81], &[0]] {
        assert_eq!(read_id(bad), Err(Breach::MessageId), "{bad:02x?}");
    }
}

#[test]
fn a_header_above_the_limit_is_refused_without_its_body() {
    let (mut encoder, mut decoder) = loopback();
    decoder.set_limit(100);
    let mut wire = encode(&mut encoder, 1, &[7; 99]);
    assert_eq!(decoder.decode(&mut wire).unwrap().unwrap().payload.len(), 99);
    let mut wire = encode(&mut encoder, 1, &[7; 100]);
    wire.truncate(HEADER_SIZE);
    let refused = decoder.decode(&mut wire).unwrap_err();
    assert!(matches!(refused, FrameError::Breach(Breach::TooLarge { size: 101, limit: 100 })));
}

#[test]
fn a_promise_takes_no_memory_ahead_of_its_bytes() {
    let (mut encoder, mut decoder) = loopback();
    let mut wire = encode(&mut encoder, 1, &vec![7; 10 << 20]);
    let mut input = BytesMut::from(&wire.split_to(HEADER_SIZE)[..]);
    assert!(decoder.decode(&mut input).unwrap().is_none());
    assert!(input.capacity() <= 2 * READ_AHEAD, "{}", input.capacity());
}

#[test]
fn what_no_frame_carries_is_not_written() {
    let (mut encoder, _) = loopback();
    let mut out = BytesMut::new();
    assert!(!encoder.encode(1, &vec![0; MAX_BODY_SIZE], &mut out));
    assert!(!encoder.encode(1, &vec![0; MAX_BODY_SIZE + 1], &mut out));
    assert!(out.is_empty());
    assert!(encoder.encode(1, &vec![0; MAX_BODY_SIZE - 1], &mut out));
}

#[test]
fn every_changed_byte_is_noticed() {
    let wire = encode(&mut loopback().0, 17, b"some payload");
    for at in 0..wire.len() {
        let mut wire = wire.clone();
        wire[at] ^= 1;
        let read = loopback().1.decode(&mut wire);
        assert!(matches!(read, Err(FrameError::Breach(Breach::WrongMac))), "byte {at}");
    }
}

#[test]
fn a_stream_that_ends_within_a_frame_just_ends() {
    let (mut encoder, mut decoder) = loopback();
    let mut wire = encode(&mut encoder, 17, b"some payload");
    wire.truncate(wire.len() - 1);
    assert!(decoder.decode_eof(&mut wire).unwrap().is_none());
    assert!(decoder.decode_eof(&mut wire).unwrap().is_none());
}

#[test]
fn nothing_secret_is_printed() {
    let (encoder, decoder) = loopback();
    assert_eq!(format!("{encoder:?}"), "FrameEncoder { snappy: false, .. }");
    assert!(format!("{decoder:?}").starts_with("FrameDecoder { limit: 16777215, part: Header"));
    let key = SecretKey::from_bytes(&[1; 32]).unwrap();
    let fresh = crate::handshake::Fresh::draw(|bytes| bytes.fill(1));
    let initiator = crate::handshake::Initiator::new(&key, &key.public(), fresh);
    assert_eq!(format!("{initiator:?}"), "Initiator { .. }");
}

proptest! {
    #[test]
    fn survives_any_division_into_chunks(
        messages in proptest::collection::vec((any::<u32>(), proptest::collection::vec(any::<u8>(), 0..700)), 1..6),
        cuts in proptest::collection::vec(1usize..200, 1..20),
        snappy: bool,
    ) {
        let (mut encoder, mut decoder) = loopback();
        if snappy {
            encoder.enable_snappy();
        }
        let mut wire = BytesMut::new();
        for (id, payload) in &messages {
            prop_assert!(encoder.encode(*id, payload, &mut wire));
        }
        let (mut input, mut read, mut cuts) = (BytesMut::new(), Vec::new(), cuts.iter().cycle());
        while !wire.is_empty() {
            input.extend_from_slice(&wire.split_to((*cuts.next().unwrap()).min(wire.len())));
            while let Some(Frame { id, payload }) = decoder.decode(&mut input).unwrap() {
                let payload = if snappy { crate::snappy::decompress(&payload, 700).unwrap() } else { payload };
                read.push((id, payload.to_vec()));
            }
        }
        prop_assert_eq!(read, messages);
        prop_assert!(input.is_empty());
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut input = BytesMut::from(&bytes[..]);
        let _ = loopback().1.decode(&mut input);
    }

    #[test]
    fn no_authentic_body_panics(body in proptest::collection::vec(any::<u8>(), 0..100)) {
        let (mut encoder, mut decoder) = loopback();
        let mut wire = BytesMut::new();
        // An encoder whose id is part of the payload: what a hostile peer with the right secrets can send.
        encoder.encode_body(&body, &mut wire);
        let _ = decoder.decode(&mut wire);
    }
}

impl FrameEncoder {
    /// A frame whose body is any bytes at all.
    pub(crate) fn encode_body(&mut self, body: &[u8], out: &mut BytesMut) {
        self.seal(body.len(), body, out);
    }

    /// A header that promises `size` bytes, its MAC right, and a body of other size.
    pub(crate) fn encode_promise(&mut self, size: usize, out: &mut BytesMut) {
        self.seal(size, &[], out);
        out.truncate(out.len() - TAG);
    }

    fn seal(&mut self, size: usize, body: &[u8], out: &mut BytesMut) {
        let start = out.len();
        out.put_bytes(0, HEADER_SIZE);
        out.extend_from_slice(body);
        out.put_bytes(0, body.len().next_multiple_of(16) - body.len());
        self.finish(start, size, out);
    }
}
