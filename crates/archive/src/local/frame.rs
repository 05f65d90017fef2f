//! What one record is in the journal: `version u8 (1) | seq u64 | length of space u8 | space | body`, integers
//! little-endian. Nothing that can be derived from the body is stored.

use crate::record::Space;

const VERSION: u8 = 1;
const FIXED_BYTES: usize = 10;

/// How many bytes of a payload stand before the body.
pub(super) fn head_bytes(space: Space) -> usize {
    FIXED_BYTES + space.as_str().len()
}

/// The part of a payload before the body.
pub(super) fn encode_head(seq: u64, space: Space) -> Vec<u8> {
    let name = space.as_str();
    let mut head = Vec::with_capacity(head_bytes(space));
    head.push(VERSION);
    head.extend_from_slice(&seq.to_le_bytes());
    head.push(name.len() as u8);
    head.extend_from_slice(name.as_bytes());
    head
}

/// A payload, read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) seq: u64,
    pub(super) space: Space,
    pub(super) body: &'a [u8],
}

/// Why a payload is no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error(
        "records of format {0}, and this program reads only format {VERSION}: a newer program wrote them"
    )]
    Version(u8),
    #[error("a record of a space that this program does not know")]
    Space,
    #[error("a record that ends before its body")]
    Short,
    #[error("a record whose seq is not behind the one before")]
    Seq,
    #[error("a record whose body is not one of its space")]
    Body,
}

pub(super) fn decode(payload: &[u8]) -> Result<Frame<'_>, FrameError> {
    let (&version, rest) = payload.split_first().ok_or(FrameError::Short)?;
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    let (seq, rest) = rest.split_first_chunk().ok_or(FrameError::Short)?;
    let (&length, rest) = rest.split_first().ok_or(FrameError::Short)?;
    let (space, body) = rest.split_at_checked(length.into()).ok_or(FrameError::Short)?;
    let space =
        std::str::from_utf8(space).ok().and_then(|name| name.parse().ok()).ok_or(FrameError::Space)?;
    Ok(Frame { seq: u64::from_le_bytes(*seq), space, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_of_format_1_is_frozen() {
        let mut payload = encode_head(0x0102_0304_0506_0708, Space::Waku1);
        payload.extend_from_slice(b"body");
        assert_eq!(hex::encode(&payload), "0108070605040302010577616b7531626f6479");
        let frame = Frame { seq: 0x0102_0304_0506_0708, space: Space::Waku1, body: b"body" };
        assert_eq!(decode(&payload), Ok(frame));
    }

    #[test]
    fn anything_else_is_an_error() {
        assert_eq!(decode(b""), Err(FrameError::Short));
        assert_eq!(decode(&[2]), Err(FrameError::Version(2)));
        let head = encode_head(1, Space::Waku1);
        for length in 1..head.len() {
            assert_eq!(decode(&head[..length]), Err(FrameError::Short), "{length}");
        }
        let mut other = head.clone();
        other[10] = b'x';
        assert_eq!(decode(&other), Err(FrameError::Space));
        assert_eq!(decode(&head).map(|frame| frame.body.len()), Ok(0));
    }
}
