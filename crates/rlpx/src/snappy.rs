//! Compression of message payloads (devp2p version 5): snappy's block format, a varint of the decompressed
//! length and the body.

use bytes::{Bytes, BytesMut};

use crate::error::Breach;

/// The longest message that devp2p allows, decompressed.
pub const MAX_MESSAGE_SIZE: usize = (16 << 20) - 1;

/// No block expands by more: three bytes of input stand for at most 64 of output.
const MAX_EXPANSION: usize = 22;

/// How long a message of `length` bytes can get by compression.
pub fn max_compressed_len(length: usize) -> usize {
    snap::raw::max_compress_len(length.min(MAX_MESSAGE_SIZE))
}

/// Compresses messages; keeps its tables between them.
pub struct Compressor(Box<snap::raw::Encoder>);

impl Default for Compressor {
    fn default() -> Self {
        Self(Box::new(snap::raw::Encoder::new()))
    }
}

impl Compressor {
    /// Appends the compressed form of `payload`, which may be at most [`MAX_MESSAGE_SIZE`] long, to `out`.
    pub fn append(&mut self, payload: &[u8], out: &mut BytesMut) {
        let start = out.len();
        out.resize(start + snap::raw::max_compress_len(payload.len()), 0);
        let length = self
            .0
            .compress(payload, &mut out[start..])
            .expect("the output has the room that snappy asks for");
        out.truncate(start + length);
    }
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Compressor")
    }
}

/// Decompresses a payload of at most `limit` bytes. The length that it declares is checked before memory is
/// taken.
pub fn decompress(compressed: &[u8], limit: usize) -> Result<Bytes, Breach> {
    let size = snap::raw::decompress_len(compressed).map_err(|_| Breach::Snappy)?;
    if size > limit.min(MAX_MESSAGE_SIZE) {
        return Err(Breach::TooLarge { size, limit });
    }
    if size > compressed.len() * MAX_EXPANSION {
        return Err(Breach::Snappy);
    }
    let mut payload = BytesMut::zeroed(size);
    let length =
        snap::raw::Decoder::new().decompress(compressed, &mut payload).map_err(|_| Breach::Snappy)?;
    payload.truncate(length);
    Ok(payload.freeze())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compress(payload: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        Compressor::default().append(payload, &mut out);
        out
    }

    #[test]
    fn a_declared_length_above_the_limit_is_refused_before_anything_is_read() {
        let bomb = compress(&vec![0; 1 << 20]);
        assert!(bomb.len() < 1 << 16);
        assert_eq!(decompress(&bomb, 1 << 20).unwrap().len(), 1 << 20);
        assert_eq!(
            decompress(&bomb, (1 << 20) - 1),
            Err(Breach::TooLarge { size: 1 << 20, limit: (1 << 20) - 1 })
        );
        let sixteen_mib = [0x80, 0x80, 0x80, 0x08];
        assert_eq!(
            decompress(&sixteen_mib, usize::MAX),
            Err(Breach::TooLarge { size: 16 << 20, limit: usize::MAX })
        );
    }

    #[test]
    fn a_length_that_the_input_cannot_hold_is_refused() {
        assert_eq!(decompress(&[0xff, 0xff, 0x03, 0x00, 0x61], 1 << 20), Err(Breach::Snappy));
        assert_eq!(decompress(&[], 10), Err(Breach::Snappy));
        assert_eq!(decompress(&[0x00], 10), Ok(Bytes::new()));
        assert_eq!(decompress(&[0x00, 0x00], 10), Err(Breach::Snappy));
    }

    #[test]
    fn the_longest_repetition_stays_within_the_expansion() {
        for length in [1usize, 64, 1000, 65_536, 1 << 20] {
            assert_eq!(decompress(&compress(&vec![7; length]), 1 << 20).unwrap().len(), length);
        }
    }

    proptest! {
        #[test]
        fn survives(payload in proptest::collection::vec(0u8..4, 0..5000)) {
            prop_assert_eq!(&decompress(&compress(&payload), 5000).unwrap()[..], &payload[..]);
        }

        #[test]
        fn no_input_panics(input in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decompress(&input, 1 << 20);
        }
    }
}
