use proptest::prelude::*;

use super::*;

fn envelope(ttl: u32, data: &[u8], nonce: u64) -> Envelope {
    Envelope::new(1_600_000_050, ttl, Topic([1, 2, 3, 4]), data, nonce)
}

#[test]
fn decoding_copies_nothing() {
    let rlp = envelope(50, b"twelve bytes", 300).rlp().clone();
    let read = Envelope::decode(rlp.clone()).unwrap();
    assert_eq!(read.rlp().as_ptr(), rlp.as_ptr());
    assert!(rlp.as_ptr_range().contains(&read.data().as_ptr()));
    assert_ne!(read.detached().rlp().as_ptr(), rlp.as_ptr());
}

#[test]
fn an_item_of_another_packet_is_copied() {
    let rlp = envelope(50, b"data", 1).rlp().clone();
    let read = Envelope::decode_item(&Item::parse(&rlp).unwrap(), &Bytes::from_static(b"other")).unwrap();
    assert_eq!(*read.rlp(), rlp);
}

#[test]
fn creation_time_wraps() {
    let envelope = Envelope::new(10, 20, Topic::default(), b"", 0);
    assert_eq!(envelope.sent(), u32::MAX - 9);
    assert!(envelope.pow_at(1_600_000_000) < envelope.pow());
}

#[test]
fn ttl_zero_is_infinite_work_only_in_its_own_second() {
    let envelope = Envelope::new(1_600_000_005, 0, Topic::default(), b"data", 0);
    assert_eq!(envelope.pow(), f64::INFINITY);
    assert_eq!(envelope.pow_at(1_600_000_005), f64::INFINITY);
    assert_eq!(envelope.pow_at(1_600_000_000), envelope.pow_with_ttl(6));
}

#[test]
fn work_counts_from_the_second_of_creation_on() {
    let envelope = envelope(50, b"data", 7);
    assert_eq!(envelope.pow_at(1_600_000_000), envelope.pow());
    assert_eq!(envelope.pow_at(1_600_000_049), envelope.pow());
    assert_eq!(envelope.pow_at(1_599_999_990), envelope.pow_with_ttl(61));
}

#[test]
fn non_canonical_and_misshapen_envelopes_are_refused() {
    let good = envelope(50, b"data", 1).rlp().to_vec();
    assert!(Envelope::decode(good.clone().into()).is_ok());
    let with = |change: &dyn Fn(&mut Encoder)| {
        let mut encoder = Encoder::new();
        change(&mut encoder);
        Envelope::decode(encoder.finish().into()).unwrap_err().0
    };
    assert_eq!(with(&|e| _ = e.list(4).uint(9).uint(1).bytes(&[0; 4]).bytes(b"")), RlpError::Length);
    assert_eq!(
        with(&|e| _ = e.list(6).uint(9).uint(1).bytes(&[0; 4]).bytes(b"").uint(1).uint(1)),
        RlpError::Length
    );
    assert_eq!(with(&|e| _ = e.list(5).uint(9).uint(1).bytes(&[0; 3]).bytes(b"").uint(1)), RlpError::Length);
    assert_eq!(
        with(&|e| _ = e.list(5).uint(1 << 32).uint(1).bytes(&[0; 4]).bytes(b"").uint(1)),
        RlpError::Integer
    );
    assert_eq!(
        with(&|e| _ = e.list(5).uint(9).bytes(&[0, 1]).bytes(&[0; 4]).bytes(b"").uint(1)),
        RlpError::Integer
    );
    assert_eq!(
        with(&|e| _ = e.list(5).uint(9).uint(1).bytes(&[0; 4]).bytes(b"").bytes(&[1; 9])),
        RlpError::Integer
    );
    assert_eq!(
        with(&|e| _ = e.list(5).uint(9).uint(1).bytes(&[0; 4]).list(0).uint(1)),
        RlpError::ExpectedString
    );
    let mut trailing = good;
    trailing.push(0);
    assert_eq!(Envelope::decode(trailing.into()).unwrap_err().0, RlpError::Trailing);
}

proptest! {
    #[test]
    fn reads_what_it_made(expiry: u32, ttl: u32, topic: [u8; 4], data: Vec<u8>, nonce: u64, shift in 0..64u32) {
        let nonce = nonce >> shift;
        let made = Envelope::new(expiry, ttl, Topic(topic), &data, nonce);
        for read in [Envelope::decode(made.rlp().clone()).unwrap(), made.detached()] {
            prop_assert_eq!(&read, &made);
            prop_assert_eq!((read.expiry(), read.ttl(), read.topic().0, read.nonce()), (expiry, ttl, topic, nonce));
            prop_assert_eq!(read.data(), &data);
            prop_assert_eq!(made.data(), &data);
            prop_assert_eq!(read.hash(), made.hash());
        }
    }

    #[test]
    fn never_panics(bytes: Vec<u8>, flip: u16, value: u8) {
        let _ = Envelope::decode(bytes.into());
        let mut rlp = envelope(50, &[9; 60], 1 << 20).rlp().to_vec();
        let position = usize::from(flip) % rlp.len();
        rlp[position] = value;
        if let Ok(read) = Envelope::decode(rlp.clone().into()) {
            let again = Envelope::new(read.expiry(), read.ttl(), read.topic(), read.data(), read.nonce());
            prop_assert_eq!(again.rlp(), &rlp);
            let _ = (read.pow(), read.pow_at(0), read.pow_at(u32::MAX), read.sent());
        }
    }
}
