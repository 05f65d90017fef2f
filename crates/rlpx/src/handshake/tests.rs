use poste_codec::ecies;
use poste_codec::rlp::Encoder;
use proptest::prelude::*;
use sha3::Digest;

use super::packet::seal_plain;
use super::*;

fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes(&[byte; 32]).unwrap()
}

fn fresh(seed: u8) -> Fresh {
    let mut counter = seed;
    Fresh::draw(|bytes| {
        for byte in bytes {
            counter = counter.wrapping_mul(31).wrapping_add(7);
            *byte = counter;
        }
    })
}

/// Reads a packet as a stream would deliver it.
fn open(kind: PacketKind, key: &SecretKey, wire: &[u8]) -> Result<Packet, HandshakeError> {
    match Packet::open(kind, key, wire[..kind.plain_size()].to_vec())? {
        Step::Complete(packet) => Ok(packet),
        Step::NeedTotal(total) if total == wire.len() => match Packet::open(kind, key, wire.to_vec())? {
            Step::Complete(packet) => Ok(packet),
            Step::NeedTotal(_) => panic!("asked twice"),
        },
        Step::NeedTotal(_) => Err(HandshakeError::NotForUs),
    }
}

fn assert_mirrored(initiator: &Secrets, recipient: &Secrets) {
    assert_eq!(initiator.aes, recipient.aes);
    assert_eq!(initiator.mac, recipient.mac);
    assert_eq!(initiator.egress.clone().finalize(), recipient.ingress.clone().finalize());
    assert_eq!(initiator.ingress.clone().finalize(), recipient.egress.clone().finalize());
}

#[test]
fn both_sides_derive_the_same_secrets() {
    let (dialler, listener) = (key(1), key(2));
    let initiator = Initiator::new(&dialler, &listener.public(), fresh(3));
    let auth = open(PacketKind::Auth, &listener, initiator.auth()).unwrap();
    assert_eq!(auth.form(), Form::Eip8);
    let answer = answer(&listener, &auth, fresh(4)).unwrap();
    assert_eq!(answer.remote, dialler.public());
    let ack = open(PacketKind::Ack, &dialler, &answer.ack).unwrap();
    assert_eq!(ack.form(), Form::Eip8);
    assert_mirrored(&initiator.finish(&ack).unwrap(), &answer.secrets);
}

#[test]
fn a_plain_auth_gets_a_plain_ack() {
    let (dialler, listener) = (key(1), key(2));
    let mut initiator = Initiator::new(&dialler, &listener.public(), fresh(3));
    let auth = Auth::sign(&dialler, &listener.public(), &initiator.fresh);
    let hash = poste_codec::keccak256(initiator.fresh.ephemeral.public().as_bytes());
    let body = [&auth.signature[..], &hash, auth.initiator.as_bytes(), &auth.nonce, &[0]].concat();
    initiator.auth = seal_plain(&body, &listener.public(), &initiator.fresh);
    assert_eq!(initiator.auth.len(), 307);
    let auth = open(PacketKind::Auth, &listener, initiator.auth()).unwrap();
    assert_eq!(auth.form(), Form::Plain);
    let answer = answer(&listener, &auth, fresh(4)).unwrap();
    assert_eq!(answer.ack.len(), 210);
    let ack = open(PacketKind::Ack, &dialler, &answer.ack).unwrap();
    assert_eq!(ack.form(), Form::Plain);
    assert_mirrored(&initiator.finish(&ack).unwrap(), &answer.secrets);
}

#[test]
fn a_size_below_the_plain_form_is_refused_and_a_large_one_is_bounded() {
    let mut wire = vec![0x55; 307];
    wire[..2].copy_from_slice(&[0x01, 0x32]);
    assert!(matches!(Packet::open(PacketKind::Auth, &key(1), wire.clone()), Err(HandshakeError::NotForUs)));
    wire[..2].copy_from_slice(&[0x01, 0x33]);
    assert!(matches!(Packet::open(PacketKind::Auth, &key(1), wire.clone()), Ok(Step::NeedTotal(309))));
    wire[..2].copy_from_slice(&[0xff, 0xff]);
    assert!(matches!(Packet::open(PacketKind::Auth, &key(1), wire), Ok(Step::NeedTotal(65_537))));
}

#[test]
fn every_changed_byte_of_a_packet_is_noticed() {
    let (dialler, listener) = (key(1), key(2));
    let initiator = Initiator::new(&dialler, &listener.public(), fresh(3));
    for at in (0..initiator.auth().len()).step_by(7) {
        let mut wire = initiator.auth().to_vec();
        wire[at] ^= 0x10;
        assert!(open(PacketKind::Auth, &listener, &wire).is_err(), "byte {at}");
    }
    assert!(open(PacketKind::Auth, &key(9), initiator.auth()).is_err());
}

#[test]
fn content_that_is_no_auth_is_refused() {
    let listener = key(2);
    let read = |body: Vec<u8>| {
        let wire = packet::seal_eip8(body, &listener.public(), &fresh(5));
        answer(&listener, &open(PacketKind::Auth, &listener, &wire).unwrap(), fresh(6)).map(|_| ())
    };
    let fields = |signature: &[u8], public: &[u8], nonce: &[u8]| {
        let mut body = Encoder::new();
        body.list(3).bytes(signature).bytes(public).bytes(nonce);
        body.finish()
    };
    let public = *key(1).public().as_bytes();
    assert_eq!(read(vec![0x80; 200]), Err(HandshakeError::Malformed));
    assert_eq!(read(fields(&[0; 64], &public, &[0; 32])), Err(HandshakeError::Malformed));
    assert_eq!(read(fields(&[0; 65], &public, &[0; 31])), Err(HandshakeError::Malformed));
    assert_eq!(read(fields(&[0; 65], &[7; 64], &[0; 32])), Err(HandshakeError::Key));
    assert_eq!(read(fields(&[0; 65], &public, &[0; 32])), Err(HandshakeError::Signature));
    assert_eq!(read(fields(&[0xff; 65], &public, &[0; 32])), Err(HandshakeError::Signature));
}

proptest! {
    #[test]
    fn no_bytes_panic(wire in proptest::collection::vec(any::<u8>(), 307), more in 309usize..600) {
        let mut longer = wire.clone();
        longer.resize(more, 0);
        let _ = Packet::open(PacketKind::Auth, &key(1), wire);
        let _ = Packet::open(PacketKind::Auth, &key(1), longer);
    }

    #[test]
    fn no_content_panics(body in proptest::collection::vec(any::<u8>(), 194..400)) {
        for prefix in [&[][..], &[0xf8, 0xa0, 0xb8, 0x41]] {
            let body = [prefix, &body].concat();
            let wire = packet::seal_eip8(body, &key(2).public(), &fresh(5));
            let auth = open(PacketKind::Auth, &key(2), &wire).unwrap();
            let _ = answer(&key(2), &auth, fresh(6));
            let _ = Initiator::new(&key(1), &key(2).public(), fresh(1)).finish(&auth);
        }
        let plain = ecies::encrypt(&key(2).public(), &key(3), [0; 16], &body[..194], &[]);
        let auth = open(PacketKind::Auth, &key(2), &plain).unwrap();
        let _ = answer(&key(2), &auth, fresh(6));
    }
}
