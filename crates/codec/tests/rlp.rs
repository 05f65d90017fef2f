//! The gate of the RLP reader: properties on any input, and the same verdicts as alloy-rlp's strict reader.

use alloy_rlp::{Decodable, Header};
use poste_codec::rlp::{Encoder, Item, Limits, RlpError};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// An item as a tree: what alloy-rlp is made to read, recursively.
#[derive(Debug, Clone, PartialEq)]
enum Tree {
    String(Vec<u8>),
    List(Vec<Tree>),
}

impl Tree {
    fn of(item: &Item<'_>) -> Self {
        if item.is_list() {
            Self::List(item.list().expect("it is a list").map(|item| Self::of(&item)).collect())
        } else {
            Self::String(item.bytes().expect("it is a string").to_vec())
        }
    }

    fn write(&self, encoder: &mut Encoder) {
        match self {
            Self::String(bytes) => _ = encoder.bytes(bytes),
            Self::List(items) => {
                encoder.list(items.len());
                items.iter().for_each(|item| item.write(encoder));
            }
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        self.write(&mut encoder);
        encoder.finish()
    }
}

impl alloy_rlp::Encodable for Tree {
    fn encode(&self, out: &mut dyn alloy_rlp::BufMut) {
        match self {
            Self::String(bytes) => alloy_rlp::Encodable::encode(&bytes[..], out),
            Self::List(items) => alloy_rlp::Encodable::encode(items, out),
        }
    }
}

impl Decodable for Tree {
    fn decode(input: &mut &[u8]) -> alloy_rlp::Result<Self> {
        let header = Header::decode(input)?;
        if input.len() < header.payload_length {
            return Err(alloy_rlp::Error::InputTooShort);
        }
        let (mut payload, rest) = input.split_at(header.payload_length);
        *input = rest;
        if !header.list {
            return Ok(Self::String(payload.to_vec()));
        }
        let mut items = Vec::new();
        while !payload.is_empty() {
            items.push(Self::decode(&mut payload)?);
        }
        Ok(Self::List(items))
    }
}

fn tree() -> impl Strategy<Value = Tree> {
    let bytes = prop_oneof![vec(any::<u8>(), 0..4), vec(any::<u8>(), 50..60), vec(any::<u8>(), 250..260),];
    bytes.prop_map(Tree::String).prop_recursive(7, 40, 6, |item| vec(item, 0..6).prop_map(Tree::List))
}

/// Bytes that look like RLP: mostly headers.
fn headers() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        Just(0u8),
        Just(1),
        Just(0x37),
        Just(0x38),
        Just(0x7f),
        0x80..=0x83u8,
        0xb6..=0xbau8,
        0xc0..=0xc6u8,
        0xf6..=0xfau8,
        any::<u8>(),
    ];
    vec(byte, 0..24)
}

fn agree(bytes: &[u8]) -> Result<(), TestCaseError> {
    let theirs = alloy_rlp::decode_exact::<Tree>(bytes);
    match (Item::parse(bytes), theirs) {
        (Ok(item), Ok(tree)) => prop_assert_eq!(Tree::of(&item), tree),
        (Err(_), Err(_)) => {}
        (Err(RlpError::TooDeep), Ok(_)) => {}
        (ours, theirs) => prop_assert!(false, "{bytes:02x?}: ours {ours:?}, alloy-rlp {theirs:?}"),
    }
    Ok(())
}

/// Failing cases are kept beside this file: proptest does not find that place by itself for integration tests.
fn config() -> ProptestConfig {
    let persistence = FileFailurePersistence::WithSource("regressions");
    ProptestConfig {
        cases: 4096,
        failure_persistence: Some(Box::new(persistence)),
        ..ProptestConfig::default()
    }
}

/// `depth` lists, each the only item of the one around it.
fn nested(depth: usize) -> Vec<u8> {
    let mut bytes = vec![0xc0];
    for _ in 1..depth {
        let mut encoder = Encoder::new();
        encoder.list(1).raw(&bytes);
        bytes = encoder.finish();
    }
    bytes
}

#[test]
fn depth_ten_thousand_is_refused() {
    let bytes = nested(10_000);
    assert_eq!(Item::parse(&bytes).unwrap_err(), RlpError::TooDeep);
    let deepest = Limits { depth: usize::MAX, items: usize::MAX };
    assert_eq!(Item::parse_with(&bytes, deepest).unwrap_err(), RlpError::TooDeep);
}

#[test]
fn depth_is_counted_in_lists() {
    let limits = Limits { depth: 5, items: 100 };
    assert!(Item::parse_with(&nested(5), limits).is_ok());
    assert_eq!(Item::parse_with(&nested(6), limits).unwrap_err(), RlpError::TooDeep);
}

#[test]
fn lengths_that_overflow_are_refused() {
    for first in [0xbf, 0xff] {
        for length in [u64::MAX, u64::MAX - 8, 1 << 63, 1 << 32] {
            let bytes = [vec![first], length.to_be_bytes().to_vec(), vec![0; 64]].concat();
            assert!(Item::parse(&bytes).is_err(), "{bytes:02x?}");
        }
    }
}

#[test]
fn an_empty_input_is_no_item() {
    assert_eq!(Item::parse(&[]).unwrap_err(), RlpError::Truncated);
    assert!(alloy_rlp::decode_exact::<Tree>(&[]).is_err());
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_bytes_are_judged_as_by_alloy_rlp(bytes in vec(any::<u8>(), 0..40)) {
        agree(&bytes)?;
    }

    #[test]
    fn bytes_full_of_headers_are_judged_as_by_alloy_rlp(bytes in headers()) {
        agree(&bytes)?;
    }

    #[test]
    fn what_is_written_is_what_alloy_rlp_writes(tree in tree()) {
        let bytes = tree.encode();
        prop_assert_eq!(&bytes, &alloy_rlp::encode(&tree));
        prop_assert_eq!(Tree::of(&Item::parse(&bytes).unwrap()), tree);
    }

    #[test]
    fn altered_items_are_judged_as_by_alloy_rlp(tree in tree(), position: u16, value: u8, cut: bool) {
        let mut bytes = tree.encode();
        let position = usize::from(position) % bytes.len();
        if cut {
            bytes.truncate(position);
        } else {
            bytes[position] = value;
        }
        agree(&bytes)?;
    }

    #[test]
    fn trailing_bytes_are_refused(tree in tree(), trailing in vec(any::<u8>(), 1..4)) {
        let bytes = [tree.encode(), trailing.clone()].concat();
        prop_assert_eq!(Item::parse(&bytes).unwrap_err(), RlpError::Trailing);
        let (item, rest) = Item::parse_prefix(&bytes, Limits::default()).unwrap();
        prop_assert_eq!((Tree::of(&item), rest), (tree, &trailing[..]));
    }

    #[test]
    fn longer_forms_of_a_length_are_refused(content in vec(any::<u8>(), 0..56)) {
        let mut string = vec![0xb8, content.len() as u8];
        string.extend(&content);
        prop_assert_eq!(Item::parse(&string).unwrap_err(), RlpError::NonCanonical);
        let mut list = vec![0xf9, 0, 60];
        list.extend([1; 60]);
        prop_assert_eq!(Item::parse(&list).unwrap_err(), RlpError::NonCanonical);
    }

    #[test]
    fn integers_go_there_and_back(value: u64, shift in 0..64u32) {
        let value = value >> shift;
        let mut encoder = Encoder::new();
        encoder.uint(value);
        let bytes = encoder.finish();
        prop_assert_eq!(Item::parse(&bytes).unwrap().u64(), Ok(value));
        prop_assert_eq!(alloy_rlp::decode_exact::<u64>(&bytes), Ok(value));
        prop_assert_eq!(Item::parse(&bytes).unwrap().u32().ok(), u32::try_from(value).ok());
    }

    #[test]
    fn integers_are_judged_as_by_alloy_rlp(bytes in vec(any::<u8>(), 0..11)) {
        let ours = Item::parse(&bytes).and_then(|item| item.u64());
        prop_assert_eq!(ours.ok(), alloy_rlp::decode_exact::<u64>(&bytes).ok());
    }
}
