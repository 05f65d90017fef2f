use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes(&[byte; 32]).unwrap()
}

#[test]
fn a_size_field_has_one_to_three_bytes() {
    for (length, expected) in [(0, 1), (255, 1), (256, 2), (65_535, 2), (65_536, 3), (16_777_215, 3)] {
        assert_eq!(size_field_length(length), expected, "{length}");
    }
    assert_eq!(build(&vec![0; 1 << 24], &[], None), Err(PayloadError::TooLong(1 << 24)));
}

#[test]
fn padding_is_never_absent() {
    assert_eq!(padding_length(254, false), 256);
    assert_eq!(padding_length(253, false), 1);
    assert_eq!(padding_length(0, true), 189);
}

#[test]
fn a_signature_needs_room_beside_the_payload() {
    let mut plaintext = vec![SIGNED_FLAG; 66];
    assert_eq!(parse(&plaintext), Err(PayloadError::NoRoomForSignature));
    plaintext.push(0);
    assert!(!matches!(parse(&plaintext), Err(PayloadError::NoRoomForSignature)));
    // A payload of 60 bytes that would have to overlap the signature.
    let mut plaintext = vec![0; 100];
    plaintext[..2].copy_from_slice(&[SIGNED_FLAG | 1, 60]);
    assert_eq!(parse(&plaintext), Err(PayloadError::Truncated));
}

#[test]
fn signatures_count_from_0_or_from_27() {
    let plaintext = build(b"payload", b"padding", Some(&key(1))).unwrap();
    let mut specified = plaintext.to_vec();
    *specified.last_mut().unwrap() += 27;
    for plaintext in [&plaintext[..], &specified] {
        assert_eq!(parse(plaintext).unwrap().signer, Some(key(1).public()));
    }
    *specified.last_mut().unwrap() = 9;
    assert_eq!(parse(&specified), Err(PayloadError::Signature));
    assert_eq!(content(&specified), Ok(&b"payload"[..]));
}

#[test]
fn the_zero_key_is_refused() {
    assert_eq!(SymKey::from_bytes([0; 32]), Err(ZeroKeyError));
    assert_eq!(format!("{:?}", SymKey::from_bytes([1; 32]).unwrap()), "SymKey(redacted)");
}

#[test]
fn data_too_short_for_its_overhead_is_refused() {
    let symmetric = SymKey::from_bytes([1; 32]).unwrap();
    for length in 0..=SYMMETRIC_OVERHEAD {
        assert_eq!(open_symmetric(&symmetric, &vec![0; length]), Err(OpenError::Symmetric), "{length}");
    }
    assert!(open_asymmetric(&key(1), &[4; 50]).is_err());
}

#[test]
fn nothing_of_a_payload_is_printed() {
    let plaintext = build(b"secret", b"", None).unwrap();
    let printed = format!("{:?}", parse(&plaintext).unwrap());
    assert_eq!(printed, "Plaintext { payload: 6 bytes, padding: 0 bytes, signed: false, .. }");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn plaintexts_are_read_as_they_were_built(payload: Vec<u8>, padding: Vec<u8>, signed: bool) {
        let signer = signed.then(|| key(7));
        let plaintext = build(&payload, &padding, signer.as_ref()).unwrap();
        let read = parse(&plaintext).unwrap();
        prop_assert_eq!((read.payload, read.padding), (&payload[..], &padding[..]));
        prop_assert_eq!(read.signer, signer.map(|signer| signer.public()));
        let length = plaintext.len() - padding.len() + padding_length(payload.len(), signed);
        prop_assert_eq!(length % 256, 0);
    }

    #[test]
    fn sealed_data_is_opened_by_its_key_only(plaintext: Vec<u8>, nonce: [u8; 12], flip: u16) {
        let symmetric = SymKey::from_bytes([1; 32]).unwrap();
        let mut data = seal_symmetric(&symmetric, nonce, &plaintext);
        prop_assert_eq!(&open_symmetric(&symmetric, &data).unwrap()[..], &plaintext[..]);
        prop_assert!(open_symmetric(&SymKey::from_bytes([2; 32]).unwrap(), &data).is_err());
        let length = data.len();
        data[usize::from(flip) % length] ^= 1;
        prop_assert!(open_symmetric(&symmetric, &data).is_err());
        let data = seal_asymmetric(&key(1).public(), &key(2), [3; 16], &plaintext);
        prop_assert_eq!(&open_asymmetric(&key(1), &data).unwrap()[..], &plaintext[..]);
        prop_assert!(open_asymmetric(&key(3), &data).is_err());
    }

    #[test]
    fn reading_never_panics(flags: u8, rest in vec(any::<u8>(), 0..300)) {
        let _ = parse(&rest);
        let _ = parse(&[vec![flags], rest].concat());
    }
}
