//! What a frame of the spool holds: `version u8 = 1 | length of the space u8 | space | body`.

use bytes::Bytes;
use poste_codec::rlp::Item;

/// The space that envelopes are filed in.
pub(crate) const SPACE: &str = "waku1";

/// Version of the record format.
pub(super) const VERSION: u8 = 1;

const HEADER: [u8; 2] = [VERSION, SPACE.len() as u8];
/// What a record takes besides its body.
pub(super) const OVERHEAD_BYTES: usize = HEADER.len() + SPACE.len();

/// Why a frame is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordError {
    /// It was written by a newer program.
    Version(u8),
    /// It does not read as a record.
    Form,
}

/// The parts of a record, to be joined.
pub(super) fn parts(body: &[u8]) -> [&[u8]; 3] {
    [&HEADER, SPACE.as_bytes(), body]
}

/// The envelope in a record.
pub(super) fn body(payload: &Bytes) -> Option<Bytes> {
    split(payload).ok().map(|body| payload.slice_ref(body))
}

/// When the envelope in a record was made, unix seconds. Reads its first fields and hashes nothing.
pub(super) fn sent(payload: &[u8]) -> Result<u32, RecordError> {
    let read = || {
        let [expiry, ttl, ..] = Item::parse(split(payload).ok()?).ok()?.tuple::<5>().ok()?;
        Some(expiry.u32().ok()?.wrapping_sub(ttl.u32().ok()?))
    };
    split(payload)?;
    read().ok_or(RecordError::Form)
}

fn split(payload: &[u8]) -> Result<&[u8], RecordError> {
    match payload {
        [VERSION, space, rest @ ..] => match rest.split_at_checked(usize::from(*space)) {
            Some((space, body)) if space == SPACE.as_bytes() => Ok(body),
            _ => Err(RecordError::Form),
        },
        [version, ..] => Err(RecordError::Version(*version)),
        [] => Err(RecordError::Form),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use poste_wire::{Envelope, Topic};

    /// Frozen sample of version 1: expiry 1,600,000,050, ttl 50, topic a1b2c3d4, data "hello", nonce 7.
    const SAMPLE: &str = "010577616b7531d2845f5e10323284a1b2c3d48568656c6c6f07";

    #[test]
    fn version_1_is_frozen() {
        let envelope = Envelope::new(1_600_000_050, 50, Topic([0xa1, 0xb2, 0xc3, 0xd4]), b"hello", 7);
        let record = parts(envelope.rlp()).concat();
        assert_eq!(hex::encode(&record), SAMPLE);
        let read = Bytes::from(hex::decode(SAMPLE).unwrap());
        assert_eq!(body(&read).unwrap(), envelope.rlp());
        assert_eq!(sent(&read), Ok(1_600_000_000));
        assert_eq!(OVERHEAD_BYTES + envelope.rlp().len(), record.len());
    }

    #[test]
    fn what_is_no_record_is_told_from_what_is_too_new() {
        let sample = hex::decode(SAMPLE).unwrap();
        assert_eq!(sent(&[]), Err(RecordError::Form));
        assert_eq!(sent(&[2, 0, 0]), Err(RecordError::Version(2)));
        assert_eq!(sent(&[1, 200, 0]), Err(RecordError::Form));
        assert_eq!(sent(b"\x01\x05waku2"), Err(RecordError::Form));
        for end in 0..sample.len() {
            assert!(sent(&sample[..end]).is_err(), "{end}");
        }
    }
}
