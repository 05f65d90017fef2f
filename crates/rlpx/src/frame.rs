//! RLPx frames: `header(16) | header-mac(16) | body, padded to 16 | frame-mac(16)`, both parts encrypted with
//! one continuous AES-256-CTR stream for each direction.
//!
//! The header holds the size of the body in three bytes; the body is the message id as an RLP integer and the
//! payload. Frames are encrypted, checked and decrypted in place. The MAC is checked before anything is
//! decrypted, and a size above the limit is refused from the header alone.

mod mac;

use std::io;

use aes::cipher::{KeyIvInit, StreamCipher};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use poste_codec::rlp::{Encoder, Item, Limits};
use thiserror::Error;
use tokio_util::codec::Decoder;

use crate::error::Breach;
use crate::handshake::Secrets;
use crate::snappy::Compressor;
use mac::{MacState, TAG};

/// Boxed, as the other large states are: connections move through futures while they are made.
type Cipher = Box<ctr::Ctr128BE<aes::Aes256>>;

/// The largest body that a header can announce.
pub const MAX_BODY_SIZE: usize = 0xff_ffff;

/// What precedes the body.
const HEADER_SIZE: usize = 16 + TAG;

/// The RLP of `[0, 0]` that every header holds behind the size.
const HEADER_DATA: [u8; 3] = [0xc2, 0x80, 0x80];

/// How much memory is taken ahead for a body that is still on its way.
const READ_AHEAD: usize = 64 * 1024;

/// A message as it lies in a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The message id.
    pub id: u32,
    /// The payload, compressed where the connection compresses.
    pub payload: Bytes,
}

/// Why no frame can be read any more.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The peer breached the protocol.
    #[error(transparent)]
    Breach(#[from] Breach),
    /// The stream broke.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The writing and the reading half of a connection's frames.
pub fn codec(secrets: Secrets) -> (FrameEncoder, FrameDecoder) {
    let Secrets { aes, mac, egress, ingress } = secrets;
    let cipher = || Box::new(ctr::Ctr128BE::new((&*aes).into(), &[0; 16].into()));
    let encoder = FrameEncoder { cipher: cipher(), mac: MacState::new(&mac, egress), compressor: None };
    let decoder = FrameDecoder {
        cipher: cipher(),
        mac: MacState::new(&mac, ingress),
        limit: MAX_BODY_SIZE,
        part: Part::Header,
    };
    (encoder, decoder)
}

/// Writes frames.
pub struct FrameEncoder {
    cipher: Cipher,
    mac: MacState,
    compressor: Option<Compressor>,
}

impl FrameEncoder {
    /// From now on payloads are compressed.
    pub fn enable_snappy(&mut self) {
        self.compressor.get_or_insert_default();
    }

    /// Appends the frame of a message. False, and nothing written, when no frame can carry it.
    #[must_use]
    pub fn encode(&mut self, id: u32, payload: &[u8], out: &mut BytesMut) -> bool {
        if payload.len() > MAX_BODY_SIZE {
            return false;
        }
        let header = out.len();
        out.put_bytes(0, HEADER_SIZE);
        let body = out.len();
        put_id(id, out);
        match &mut self.compressor {
            Some(compressor) => compressor.append(payload, out),
            None => out.extend_from_slice(payload),
        }
        let size = out.len() - body;
        if size > MAX_BODY_SIZE {
            out.truncate(header);
            return false;
        }
        out.put_bytes(0, size.next_multiple_of(16) - size);

        self.finish(header, size, out);
        true
    }

    /// Encrypts and authenticates what lies in `out` from `start` on: room for a header, and a padded body.
    fn finish(&mut self, start: usize, size: usize, out: &mut BytesMut) {
        let (head, body) = out[start..].split_at_mut(HEADER_SIZE);
        let (head, head_tag) = head.split_at_mut(16);
        head[..3].copy_from_slice(&(size as u32).to_be_bytes()[1..]);
        head[3..6].copy_from_slice(&HEADER_DATA);
        self.cipher.apply_keystream(head);
        head_tag.copy_from_slice(&self.mac.header(head));
        self.cipher.apply_keystream(body);
        self.mac.absorb(body);
        out.extend_from_slice(&self.mac.body());
    }
}

impl std::fmt::Debug for FrameEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameEncoder").field("snappy", &self.compressor.is_some()).finish_non_exhaustive()
    }
}

/// Reads frames.
pub struct FrameDecoder {
    cipher: Cipher,
    mac: MacState,
    limit: usize,
    part: Part,
}

/// What is read next.
#[derive(Debug, Clone, Copy)]
enum Part {
    Header,
    /// The body of `size` bytes; the first `absorbed` bytes of its padded form have gone into the MAC.
    Body {
        size: usize,
        absorbed: usize,
    },
}

impl FrameDecoder {
    /// The largest body, in bytes with the message id, that is read from now on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit.min(MAX_BODY_SIZE);
    }

    fn read_header(&mut self, head: &mut [u8]) -> Result<usize, Breach> {
        let (head, tag) = head.split_at_mut(16);
        if !self.mac.header_is(head, tag) {
            return Err(Breach::WrongMac);
        }
        self.cipher.apply_keystream(head);
        let size = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        if size > self.limit {
            return Err(Breach::TooLarge { size, limit: self.limit });
        }
        Ok(size)
    }
}

impl Decoder for FrameDecoder {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        if let Part::Header = self.part {
            if input.len() < HEADER_SIZE {
                return Ok(None);
            }
            let size = self.read_header(&mut input[..HEADER_SIZE])?;
            input.advance(HEADER_SIZE);
            self.part = Part::Body { size, absorbed: 0 };
        }
        let Part::Body { size, absorbed } = &mut self.part else { return Ok(None) };
        let padded = size.next_multiple_of(16);
        let available = input.len().min(padded);
        self.mac.absorb(&input[*absorbed..available]);
        *absorbed = available;
        if input.len() < padded + TAG {
            input.reserve((padded + TAG - input.len()).min(READ_AHEAD));
            return Ok(None);
        }
        let size = *size;
        self.part = Part::Header;
        if !self.mac.body_is(&input[padded..padded + TAG]) {
            return Err(Breach::WrongMac.into());
        }
        let mut body = input.split_to(padded);
        input.advance(TAG);
        self.cipher.apply_keystream(&mut body);
        body.truncate(size);
        let body = body.freeze();
        let (id, length) = read_id(&body)?;
        Ok(Some(Frame { id, payload: body.slice(length..) }))
    }

    /// A stream that ends within a frame has ended: what is left is no message.
    fn decode_eof(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let frame = self.decode(input)?;
        if frame.is_none() {
            input.clear();
            self.part = Part::Header;
        }
        Ok(frame)
    }
}

impl std::fmt::Debug for FrameDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameDecoder")
            .field("limit", &self.limit)
            .field("part", &self.part)
            .finish_non_exhaustive()
    }
}

/// The longest message id in a frame: four bytes and their RLP prefix.
pub const MAX_ID_SIZE: usize = 5;

fn put_id(id: u32, out: &mut BytesMut) {
    match id {
        1..=0x7f => out.put_u8(id as u8),
        id => {
            let mut encoder = Encoder::new();
            encoder.uint(u64::from(id));
            out.extend_from_slice(&encoder.finish());
        }
    }
}

/// The message id and its length.
fn read_id(body: &[u8]) -> Result<(u32, usize), Breach> {
    match body.first() {
        Some(&id @ 1..=0x7f) => Ok((u32::from(id), 1)),
        _ => {
            let limits = Limits { depth: 0, items: 1 };
            let (id, _) = Item::parse_prefix(body, limits).map_err(|_| Breach::MessageId)?;
            Ok((id.u32().map_err(|_| Breach::MessageId)?, id.raw().len()))
        }
    }
}

#[cfg(test)]
mod tests;
