use super::*;

fn refused(bytes: &[u8]) -> RlpError {
    Item::parse(bytes).expect_err("must be refused")
}

#[test]
fn reads_what_it_wrote() {
    let mut encoder = Encoder::new();
    encoder.list(5).uint(1024).bytes(&[7; 60]).bool(true).raw(&[0xc1, 0x05]).bytes(b"");
    let bytes = encoder.finish();
    let [number, string, flag, list, empty] = Item::parse(&bytes).unwrap().tuple().unwrap();
    assert_eq!(number.u64(), Ok(1024));
    assert_eq!(string.fixed::<60>(), Ok([7; 60]));
    assert_eq!(flag.bool(), Ok(true));
    assert_eq!(list.list().unwrap().next().unwrap().u32(), Ok(5));
    assert_eq!(empty.bytes(), Ok(&[][..]));
    assert_eq!(empty.bool(), Ok(false));
}

#[test]
fn refuses_what_the_reader_behind_the_gate_would_accept() {
    assert_eq!(refused(&[0xb8, 0x01, 0xff]), RlpError::NonCanonical);
    assert_eq!(refused(&[0x05, 0xff]), RlpError::Trailing);
    assert_eq!(refused(&[0xc5, 0x01, 0x02]), RlpError::Truncated);
    assert_eq!(refused(&[0xc2, 0x01, 0x02, 0x09]), RlpError::Trailing);
    assert_eq!(refused(&[0x81, 0x05]), RlpError::NonCanonical);
    assert_eq!(refused(&[0xc1, 0x82]), RlpError::Truncated);
    assert_eq!(refused(&[0xb9, 0x00, 0x40]), RlpError::NonCanonical);
    assert_eq!(refused(&[0xff; 9]), RlpError::Truncated);
    assert_eq!(refused(&[]), RlpError::Truncated);
}

#[test]
fn integers_are_minimal() {
    for bytes in [&[0x00][..], &[0x82, 0x00, 0x01], &[0x89, 1, 0, 0, 0, 0, 0, 0, 0, 0]] {
        assert_eq!(Item::parse(bytes).unwrap().u64(), Err(RlpError::Integer), "{bytes:?}");
    }
    assert_eq!(Item::parse(&[0x85, 1, 0, 0, 0, 0]).unwrap().u32(), Err(RlpError::Integer));
    assert_eq!(Item::parse(&[0x80]).unwrap().u64(), Ok(0));
    assert_eq!(Item::parse(&[0x02]).unwrap().bool(), Err(RlpError::Bool));
}

#[test]
fn nesting_of_ten_thousand_is_refused_without_walking_it() {
    let mut bytes = vec![0xc0];
    for _ in 0..10_000 {
        let mut encoder = Encoder::new();
        encoder.list(1).raw(&bytes);
        bytes = encoder.finish();
    }
    assert_eq!(refused(&bytes), RlpError::TooDeep);
    assert_eq!(refused(&[0xc1; 10_000]), RlpError::Truncated);
}

#[test]
fn items_are_counted() {
    let mut bytes = vec![0xc4];
    bytes.extend([1; 4]);
    assert!(Item::parse_with(&bytes, Limits { depth: 1, items: 5 }).is_ok());
    assert_eq!(Item::parse_with(&bytes, Limits { depth: 1, items: 4 }).unwrap_err(), RlpError::TooMany);
    assert_eq!(Item::parse_with(&bytes, Limits { depth: 0, items: 5 }).unwrap_err(), RlpError::TooDeep);
}

#[test]
fn a_prefix_leaves_the_rest() {
    let (item, rest) = Item::parse_prefix(&[0xc1, 0x01, 0, 0], Limits::default()).unwrap();
    assert_eq!((item.raw(), rest), (&[0xc1, 0x01][..], &[0, 0][..]));
}
