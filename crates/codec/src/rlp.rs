//! Strict RLP: one canonical item, exactly as long as its input, bounded in depth and in number of items.
//!
//! The crate `rlp` reads and writes, but it accepts what nobody may send (long forms of short lengths, lists that
//! run past their input, trailing bytes). So nothing reaches it from outside before the gate of this module
//! has walked the bytes once; [`Item`] can only be made through that gate.

mod encode;
mod gate;

pub use encode::Encoder;
pub use gate::Limits;

use thiserror::Error;

/// Why bytes are no acceptable RLP, or not of the form that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RlpError {
    /// An item ends behind its input or behind the list that holds it.
    #[error("an RLP item runs past its end")]
    Truncated,
    /// A length or a single byte is not in its shortest form.
    #[error("an RLP item is not in its canonical form")]
    NonCanonical,
    /// Bytes follow the item.
    #[error("bytes follow the RLP item")]
    Trailing,
    /// Lists are nested deeper than the limit.
    #[error("RLP lists are nested too deeply")]
    TooDeep,
    /// More items than the limit.
    #[error("too many RLP items")]
    TooMany,
    /// A string was expected.
    #[error("expected an RLP string, found a list")]
    ExpectedString,
    /// A list was expected.
    #[error("expected an RLP list, found a string")]
    ExpectedList,
    /// An integer has leading zeros or does not fit.
    #[error("not a canonical RLP integer of the expected width")]
    Integer,
    /// A bool is neither 0x80 nor 0x01.
    #[error("not an RLP bool")]
    Bool,
    /// A string or a list has another length than its type.
    #[error("an RLP item has the wrong length")]
    Length,
}

/// One item that has passed the gate: everything inside it is canonical and within limits.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    raw: &'a [u8],
}

impl<'a> Item<'a> {
    /// Reads bytes that hold exactly one item, within [`Limits::default`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RlpError> {
        Self::parse_with(bytes, Limits::default())
    }

    /// Reads bytes that hold exactly one item.
    pub fn parse_with(bytes: &'a [u8], limits: Limits) -> Result<Self, RlpError> {
        match Self::parse_prefix(bytes, limits)? {
            (item, []) => Ok(item),
            _ => Err(RlpError::Trailing),
        }
    }

    /// Reads the first item, and gives back what follows it (EIP-8 handshake packets end in padding).
    pub fn parse_prefix(bytes: &'a [u8], limits: Limits) -> Result<(Self, &'a [u8]), RlpError> {
        let (raw, rest) = bytes.split_at(gate::check(bytes, limits)?);
        Ok((Self { raw }, rest))
    }

    /// Whether this is a list.
    pub fn is_list(&self) -> bool {
        self.raw[0] >= 0xc0
    }

    /// The whole encoding, header included.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The content of a string.
    pub fn bytes(&self) -> Result<&'a [u8], RlpError> {
        if self.is_list() {
            return Err(RlpError::ExpectedString);
        }
        rlp::Rlp::new(self.raw).data().map_err(|_| RlpError::Truncated)
    }

    /// The content of a string of exactly `N` bytes.
    pub fn fixed<const N: usize>(&self) -> Result<[u8; N], RlpError> {
        self.bytes()?.try_into().map_err(|_| RlpError::Length)
    }

    /// An unsigned integer, at most 8 bytes, without leading zeros.
    pub fn u64(&self) -> Result<u64, RlpError> {
        let bytes = self.bytes()?;
        if bytes.len() > 8 || bytes.first() == Some(&0) {
            return Err(RlpError::Integer);
        }
        Ok(bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// An unsigned integer below 2^32.
    pub fn u32(&self) -> Result<u32, RlpError> {
        u32::try_from(self.u64()?).map_err(|_| RlpError::Integer)
    }

    /// 0x80 is false, 0x01 is true, everything else an error, as in Go.
    pub fn bool(&self) -> Result<bool, RlpError> {
        match self.raw {
            [0x80] => Ok(false),
            [0x01] => Ok(true),
            _ => Err(RlpError::Bool),
        }
    }

    /// The items of a list.
    pub fn list(&self) -> Result<List<'a>, RlpError> {
        if !self.is_list() {
            return Err(RlpError::ExpectedList);
        }
        let header = rlp::PayloadInfo::from(self.raw).map_err(|_| RlpError::Truncated)?.header_len;
        Ok(List { rest: &self.raw[header..] })
    }

    /// The items of a list of exactly `N` items.
    pub fn tuple<const N: usize>(&self) -> Result<[Item<'a>; N], RlpError> {
        let mut list = self.list()?;
        let mut items = [*self; N];
        for item in &mut items {
            *item = list.next().ok_or(RlpError::Length)?;
        }
        if list.next().is_some() {
            return Err(RlpError::Length);
        }
        Ok(items)
    }
}

impl std::fmt::Debug for Item<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.is_list() { "list" } else { "string" };
        write!(f, "Item({kind}, {} bytes)", self.raw.len())
    }
}

/// The items of a list, in order.
#[derive(Clone)]
pub struct List<'a> {
    rest: &'a [u8],
}

impl List<'_> {
    /// How many items are left; walks over their headers.
    pub fn len(&self) -> usize {
        self.clone().count()
    }

    /// Whether no item is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

impl<'a> Iterator for List<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let total = rlp::PayloadInfo::from(self.rest).ok()?.total();
        let (raw, rest) = self.rest.split_at_checked(total)?;
        self.rest = rest;
        Some(Item { raw })
    }
}

impl std::fmt::Debug for List<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "List({} items left)", self.len())
    }
}

#[cfg(test)]
mod tests;
