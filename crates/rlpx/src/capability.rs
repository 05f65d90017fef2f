//! Capabilities and the ranges of message ids that they share on one connection (devp2p, capability
//! messaging).
//!
//! Common are the capabilities that both sides name with the same version; of each name the highest common
//! version counts; sorted by name they get consecutive ranges from id 16 on. The length of a range is fixed
//! by the implementations and not on the wire.

use std::borrow::Cow;
use std::fmt;

use crate::BASE_PROTOCOL_LENGTH;

/// A sub-protocol by name and version, such as `waku/1`. Sorted by name (as bytes), then by version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability {
    /// The name, such as `waku`.
    pub name: Cow<'static, str>,
    /// The version.
    pub version: u32,
}

impl Capability {
    /// A capability by a name known at compile time.
    pub const fn new(name: &'static str, version: u32) -> Self {
        Self { name: Cow::Borrowed(name), version }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.version)
    }
}

/// A capability that this node serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// Name and version.
    pub capability: Capability,
    /// How many message ids it registers, at most 256: 128 for `waku/0`, `waku/1` and `shh/6`.
    pub length: u16,
}

/// A capability that both sides serve, and where its messages are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// Name and version.
    pub capability: Capability,
    /// The message id on the wire of its code 0.
    pub offset: u32,
    /// How many message ids it has.
    pub length: u16,
}

/// The common capabilities of a connection in the order of their ranges; empty when the peer is useless to
/// us.
pub fn common(offered: &[Offered], theirs: &[Capability]) -> Vec<Shared> {
    let mut matching: Vec<&Offered> =
        offered.iter().filter(|ours| theirs.contains(&ours.capability)).collect();
    matching.sort_by(|a, b| a.capability.cmp(&b.capability));
    let mut shared: Vec<Shared> = Vec::with_capacity(matching.len());
    for Offered { capability, length } in matching {
        let next = Shared { capability: capability.clone(), offset: 0, length: *length };
        match shared.last_mut() {
            Some(last) if last.capability.name == capability.name => *last = next,
            _ => shared.push(next),
        }
    }
    let mut offset = BASE_PROTOCOL_LENGTH;
    for range in &mut shared {
        range.offset = offset;
        offset += u32::from(range.length);
    }
    shared
}

/// Which capability (its index in `shared`) a message id on the wire belongs to, and its code there. None for
/// base protocol ids and for ids beyond all ranges.
pub fn locate(shared: &[Shared], id: u32) -> Option<(usize, u8)> {
    let (index, code) = shared.iter().enumerate().find_map(|(index, range)| {
        let code = id.checked_sub(range.offset)?;
        (code < u32::from(range.length)).then_some((index, code))
    })?;
    Some((index, u8::try_from(code).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offer(name: &'static str, version: u32) -> Offered {
        Offered { capability: Capability::new(name, version), length: 128 }
    }

    fn offsets(offered: &[Offered], theirs: &[Capability]) -> Vec<(String, u32)> {
        common(offered, theirs).iter().map(|range| (range.capability.to_string(), range.offset)).collect()
    }

    #[test]
    fn waku_alone_begins_at_16_and_behind_shh_at_144() {
        let ours = [offer("waku", 1), offer("waku", 0), offer("shh", 6)];
        let waku = [Capability::new("waku", 0), Capability::new("waku", 1)];
        assert_eq!(offsets(&ours, &waku), [("waku/1".into(), 16)]);
        let both = [Capability::new("waku", 1), Capability::new("shh", 6), Capability::new("waku", 0)];
        assert_eq!(offsets(&ours, &both), [("shh/6".into(), 16), ("waku/1".into(), 144)]);
        assert_eq!(offsets(&ours, &[Capability::new("waku", 0)]), [("waku/0".into(), 16)]);
        assert_eq!(offsets(&ours, &[Capability::new("waku", 2), Capability::new("eth", 63)]), []);
    }

    #[test]
    fn p2p_request_on_waku_alone_is_142() {
        let shared = common(&[offer("waku", 1)], &[Capability::new("waku", 1)]);
        assert_eq!(locate(&shared, 142), Some((0, 126)));
        assert_eq!(locate(&shared, 143), Some((0, 127)));
        assert_eq!(locate(&shared, 144), None);
        assert_eq!(locate(&shared, 15), None);
    }

    proptest! {
        #[test]
        fn ranges_are_disjoint_sorted_and_the_same_on_both_sides(
            ours in proptest::collection::vec((0usize..5, 0u32..4), 0..12),
            theirs in proptest::collection::vec((0usize..5, 0u32..4), 0..12),
        ) {
            const NAMES: [(&str, u16); 5] = [("a", 17), ("eth", 8), ("shh", 128), ("waku", 128), ("zz", 256)];
            let side = |list: &[(usize, u32)]| -> Vec<Offered> {
                list.iter().map(|(n, version)| Offered {
                    capability: Capability::new(NAMES[*n].0, *version), length: NAMES[*n].1,
                }).collect()
            };
            let names = |list: &[Offered]| -> Vec<Capability> {
                list.iter().map(|offered| offered.capability.clone()).collect()
            };
            let (ours, theirs) = (side(&ours), side(&theirs));
            let shared = common(&ours, &names(&theirs));
            prop_assert_eq!(&shared, &common(&theirs, &names(&ours)));
            prop_assert!(shared.windows(2).all(|w| w[0].capability.name < w[1].capability.name));
            let mut id = 16;
            for (index, range) in shared.iter().enumerate() {
                prop_assert_eq!(range.offset, id);
                prop_assert!(ours.iter().any(|o| o.capability == range.capability));
                prop_assert!(!ours.iter().any(|o| o.capability.name == range.capability.name
                    && o.capability.version > range.capability.version
                    && names(&theirs).contains(&o.capability)));
                for code in 0..u32::from(range.length) {
                    prop_assert_eq!(locate(&shared, id + code), Some((index, u8::try_from(code).unwrap())));
                }
                id += u32::from(range.length);
            }
            prop_assert_eq!(locate(&shared, id), None);
        }
    }
}
