//! Frames: garbage never passes the MAC, and whatever is framed comes out as it went in, in pieces of any size.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use poste_codec::SecretKey;
use poste_rlpx::frame::codec;
use poste_rlpx::handshake::{Fresh, Initiator, Packet, PacketKind, Secrets, Step, answer};
use tokio_util::codec::Decoder;

fn both() -> (Secrets, Secrets) {
    let mut next = 1;
    let mut fresh = || {
        Fresh::draw(|bytes| {
            bytes.fill_with(|| {
                next = next % 251 + 1;
                next
            })
        })
    };
    let key = |byte| SecretKey::from_bytes(&[byte; 32]).expect("a key");
    let (ours, theirs) = (key(1), key(3));
    let open = |kind: PacketKind, key: &SecretKey, wire: &[u8]| match Packet::open(
        kind,
        key,
        wire[..kind.plain_size()].to_vec(),
    ) {
        Ok(Step::Complete(packet)) => packet,
        Ok(Step::NeedTotal(_)) => match Packet::open(kind, key, wire.to_vec()) {
            Ok(Step::Complete(packet)) => packet,
            _ => unreachable!("a packet of ours"),
        },
        Err(error) => unreachable!("a packet of ours: {error}"),
    };
    let initiator = Initiator::new(&ours, &theirs.public(), fresh());
    let auth = open(PacketKind::Auth, &theirs, initiator.auth());
    let answer = answer(&theirs, &auth, fresh()).expect("a packet of ours");
    let ack = open(PacketKind::Ack, &ours, &answer.ack);
    (initiator.finish(&ack).expect("a packet of ours"), answer.secrets)
}

fuzz_target!(|input: (u8, u16, &[u8])| {
    let (id, cut, payload) = input;
    let (ours, theirs) = both();
    let (mut encoder, _) = codec(ours);
    let (_, mut decoder) = codec(theirs);
    let mut wire = BytesMut::new();
    assert!(encoder.encode(u32::from(id), payload, &mut wire));
    let mut rest = wire.split_off(usize::from(cut).min(wire.len()));
    let mut got = decoder.decode(&mut wire).expect("a frame of ours");
    if got.is_none() {
        wire.unsplit(std::mem::take(&mut rest));
        got = decoder.decode(&mut wire).expect("a frame of ours");
    }
    let frame = got.expect("all of it is there");
    assert_eq!((frame.id, &frame.payload[..]), (u32::from(id), payload));
    let mut garbage = BytesMut::from(payload);
    if payload.len() >= 32 {
        assert!(decoder.decode(&mut garbage).is_err());
    }
});
