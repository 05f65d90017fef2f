//! Handshake packets: as they come, and with a body that was sealed to us by whoever wanted to.
#![no_main]

use libfuzzer_sys::fuzz_target;
use poste_codec::{SecretKey, ecies};
use poste_rlpx::handshake::{Fresh, Initiator, Packet, PacketKind, Step, answer};

fn fresh() -> Fresh {
    let mut next = 1;
    Fresh::draw(|bytes| {
        bytes.fill_with(|| {
            next = next % 251 + 1;
            next
        })
    })
}

fn sealed(key: &SecretKey, kind: PacketKind, body: &[u8]) -> Option<Packet> {
    let ephemeral = SecretKey::from_bytes(&[2; 32]).expect("a key");
    let size = u16::try_from(body.len() + ecies::OVERHEAD).ok()?.to_be_bytes();
    let wire = [&size[..], &ecies::encrypt(&key.public(), &ephemeral, [0; 16], body, &size)].concat();
    match Packet::open(kind, key, wire) {
        Ok(Step::Complete(packet)) => Some(packet),
        _ => None,
    }
}

fuzz_target!(|bytes: &[u8]| {
    let key = SecretKey::from_bytes(&[1; 32]).expect("a key");
    for kind in [PacketKind::Auth, PacketKind::Ack] {
        let _ = Packet::open(kind, &key, bytes.to_vec());
    }
    if let Some(auth) = sealed(&key, PacketKind::Auth, bytes) {
        let _ = answer(&key, &auth, fresh());
    }
    if let Some(ack) = sealed(&key, PacketKind::Ack, bytes) {
        let remote = SecretKey::from_bytes(&[3; 32]).expect("a key").public();
        let _ = Initiator::new(&key, &remote, fresh()).finish(&ack);
    }
});
