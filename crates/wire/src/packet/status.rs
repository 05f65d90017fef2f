//! Status (0), the first packet of both sides: positional in shh/6, a list of options in Waku (6/WAKU1, section
//! "Status"; 5/WAKU0; EIP-627).

use bytes::Bytes;
use poste_codec::rlp::{Encoder, Item, List};

use super::{Dialect, Options, PacketError, RateLimits, options};
use crate::Bloom;

/// The version that a shh/6 Status carries.
const SHH_VERSION: u64 = 6;

/// What a node says about itself when it meets another.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Status {
    /// What it said. What it did not say has the defaults of [`super::Settings::of_status`].
    pub options: Options,
    /// In shh/6 how many items were received; 0 in Waku. Four tell a plain go-ethereum, which knows no completion, no
    /// confirmations and no lists of mail.
    pub items: usize,
}

impl Status {
    /// How many items a plain go-ethereum puts into a shh/6 Status.
    pub const GO_ETHEREUM_ITEMS: usize = 4;

    /// A Status for sending.
    pub fn new(options: Options) -> Self {
        Self { options, items: 0 }
    }

    /// Whether this shh/6 Status is that of a plain go-ethereum.
    pub fn is_plain_go_ethereum(&self) -> bool {
        self.items == Self::GO_ETHEREUM_ITEMS
    }

    pub(super) fn decode(dialect: Dialect, payload: &Bytes) -> Result<Self, PacketError> {
        let item = Item::parse(payload)?;
        match dialect {
            Dialect::Waku1 => Ok(Self::new(Options::decode(dialect, &item)?)),
            Dialect::Waku0 => {
                let [version, options] = item.tuple()?;
                match version.u64()? {
                    0 => Ok(Self::new(Options::decode(dialect, &options)?)),
                    version => Err(PacketError::Version(version)),
                }
            }
            Dialect::Shh6 => decode_shh(item.list()?),
        }
    }

    pub(super) fn encode(&self, dialect: Dialect) -> Bytes {
        let mut encoder = Encoder::new();
        match dialect {
            Dialect::Waku1 => self.options.encode(dialect, &mut encoder),
            Dialect::Waku0 => self.options.encode(dialect, encoder.list(2).uint(0)),
            Dialect::Shh6 => encode_shh(&self.options, &mut encoder),
        }
        encoder.finish().into()
    }
}

/// Only the version must be there. An item of another form than its place asks for counts as not said.
fn decode_shh(mut list: List<'_>) -> Result<Status, PacketError> {
    let items = list.len();
    let version = list.next().map_or(Ok(0), |item| item.u64())?;
    if version != SHH_VERSION {
        return Err(PacketError::Version(version));
    }
    let mut options = Options::default();
    if let Some(item) = list.next()
        && item.u64().is_ok()
    {
        options.pow_requirement = Some(options::pow(&item)?);
    }
    if let Some(bloom) = list.next().and_then(|item| item.bytes().ok())
        && !bloom.is_empty()
    {
        options.bloom = Some(Bloom::try_from(bloom)?);
    }
    options.light = list.next().and_then(|item| item.bool().ok());
    options.confirmations = list.next().and_then(|item| item.bool().ok());
    options.packet_limits = list.next().and_then(|item| RateLimits::decode(&item).ok());
    Ok(Status { options, items })
}

/// All six items, as status-im sends them; go-ethereum reads the first four.
fn encode_shh(options: &Options, encoder: &mut Encoder) {
    encoder.list(6).uint(SHH_VERSION).uint(options.pow_requirement.unwrap_or(0.0).to_bits());
    encoder.bytes(&options.bloom.unwrap_or(Bloom::FULL).0);
    encoder.bool(options.light.unwrap_or(false)).bool(options.confirmations.unwrap_or(false));
    options.packet_limits.unwrap_or_default().encode(encoder);
}
