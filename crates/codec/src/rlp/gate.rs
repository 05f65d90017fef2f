//! The gate: walks an item once, without recursion or allocation that grows with the input.

use super::RlpError;

/// What an item may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How deep lists may be nested; 0 allows only a string, 1 a flat list. At most [`Limits::MAX_DEPTH`].
    pub depth: usize,
    /// How many items there may be in all, lists included.
    pub items: usize,
}

impl Limits {
    /// The deepest nesting that can be allowed. The formats of devp2p and Waku need 5.
    pub const MAX_DEPTH: usize = 16;
}

impl Default for Limits {
    /// Depth 8, and 262,144 items: more than a Messages packet of 1 MiB can hold that is worth reading.
    fn default() -> Self {
        Self { depth: 8, items: 262_144 }
    }
}

/// The length of the first item of `bytes`, if it is canonical throughout and within `limits`.
pub(super) fn check(bytes: &[u8], limits: Limits) -> Result<usize, RlpError> {
    let mut open = [0usize; Limits::MAX_DEPTH];
    let mut depth = 0;
    let mut position = 0;
    let mut items = 0;
    loop {
        items += 1;
        if items > limits.items {
            return Err(RlpError::TooMany);
        }
        let end = if depth == 0 { bytes.len() } else { open[depth - 1] };
        let header = Header::read(&bytes[position..end])?;
        position += header.length;
        if header.content > end - position {
            return Err(RlpError::Truncated);
        }
        if header.list {
            if depth == limits.depth.min(Limits::MAX_DEPTH) {
                return Err(RlpError::TooDeep);
            }
            open[depth] = position + header.content;
            depth += 1;
        } else {
            position += header.content;
        }
        while depth > 0 && position == open[depth - 1] {
            depth -= 1;
        }
        if depth == 0 {
            return Ok(position);
        }
    }
}

struct Header {
    list: bool,
    length: usize,
    content: usize,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, RlpError> {
        let first = *bytes.first().ok_or(RlpError::Truncated)?;
        match first {
            0..=0x7f => Ok(Self { list: false, length: 0, content: 1 }),
            0x80..=0xb7 => {
                let content = usize::from(first - 0x80);
                if content == 1 && *bytes.get(1).ok_or(RlpError::Truncated)? < 0x80 {
                    return Err(RlpError::NonCanonical);
                }
                Ok(Self { list: false, length: 1, content })
            }
            0xb8..=0xbf => Self::long(bytes, usize::from(first - 0xb7), false),
            0xc0..=0xf7 => Ok(Self { list: true, length: 1, content: usize::from(first - 0xc0) }),
            0xf8..=0xff => Self::long(bytes, usize::from(first - 0xf7), true),
        }
    }

    fn long(bytes: &[u8], width: usize, list: bool) -> Result<Self, RlpError> {
        let digits = bytes.get(1..1 + width).ok_or(RlpError::Truncated)?;
        if digits[0] == 0 {
            return Err(RlpError::NonCanonical);
        }
        let content = digits.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        if content < 56 {
            return Err(RlpError::NonCanonical);
        }
        let content = usize::try_from(content).map_err(|_| RlpError::Truncated)?;
        Ok(Self { list, length: 1 + width, content })
    }
}
