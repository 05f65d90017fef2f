//! The section `rlpx` of the Waku v1 vectors: handshakes, frames, Hello, snappy.

use bytes::BytesMut;
use poste_codec::rlp::{Encoder, Item, Limits};
use poste_codec::{PublicKey, SecretKey, keccak256};
use serde_json::{Value, json};
use sha3::{Digest, Keccak256};
use tokio_util::codec::Decoder;
use zeroize::Zeroizing;

use super::{Checked, Entry, check_all, load, same};
use crate::frame::{self, Frame};
use crate::handshake::{Form, Fresh, Packet, PacketKind, Secrets, Step, handshake_vectors as inside};
use crate::hello::Hello;
use crate::snappy;

fn vectors() -> Value {
    load("waku-v1")["rlpx"].take()
}

fn secret(bytes: &[u8]) -> SecretKey {
    SecretKey::from_bytes(bytes.try_into().unwrap()).unwrap()
}

/// Opens a packet as a stream would deliver it.
fn open(kind: PacketKind, key: &SecretKey, wire: &[u8]) -> Packet {
    match Packet::open(kind, key, wire[..kind.plain_size()].to_vec()).unwrap() {
        Step::Complete(packet) => {
            assert_eq!(wire.len(), kind.plain_size());
            packet
        }
        Step::NeedTotal(total) => {
            assert_eq!(total, wire.len());
            match Packet::open(kind, key, wire.to_vec()).unwrap() {
                Step::Complete(packet) => packet,
                Step::NeedTotal(_) => panic!("asked twice"),
            }
        }
    }
}

/// The version in the content and the number of items behind it; the plain form is version 4 by definition.
fn version_and_extra_items(packet: &Packet, fields: usize) -> (u64, usize) {
    match packet.form() {
        Form::Plain => (4, 0),
        Form::Eip8 => {
            let list = Item::parse_prefix(packet.body(), Limits::default()).unwrap().0.list().unwrap();
            let items: Vec<_> = list.collect();
            (items[fields].u64().unwrap(), items.len() - fields - 1)
        }
    }
}

fn digest(state: &Keccak256) -> [u8; 32] {
    state.clone().finalize().into()
}

/// The keys of the public EIP-8 handshake.
struct Public {
    initiator_static: SecretKey,
    initiator_ephemeral: SecretKey,
    initiator_nonce: Vec<u8>,
    recipient_static: SecretKey,
    recipient_ephemeral: SecretKey,
    recipient_nonce: [u8; 32],
}

impl Public {
    fn read(value: &Value) -> Self {
        let entry = Entry::new(value, None);
        let public = Self {
            initiator_static: secret(&entry.given_bytes("initiator_static_key")),
            initiator_ephemeral: secret(&entry.given_bytes("initiator_ephemeral_key")),
            initiator_nonce: entry.given_bytes("initiator_nonce"),
            recipient_static: secret(&entry.given_bytes("recipient_static_key")),
            recipient_ephemeral: secret(&entry.given_bytes("recipient_ephemeral_key")),
            recipient_nonce: entry.given_array("recipient_nonce"),
        };
        for name in ["auth", "ack", "note"] {
            entry.given(name);
        }
        entry.leftover().unwrap();
        public
    }

    /// The packet of that kind and form.
    fn packet(&self, vectors: &Value, kind: &str, form: &str) -> Vec<u8> {
        let packets = vectors["eip8_public"][kind].as_array().unwrap();
        let packet = packets.iter().find(|packet| packet["form"] == form).unwrap();
        assert_eq!(packet.as_object().unwrap().len(), 2);
        hex::decode(packet["packet"].as_str().unwrap()).unwrap()
    }
}

#[test]
fn eip8_public_packets_are_opened() {
    let vectors = vectors();
    let public = Public::read(&vectors["eip8_public"]);
    let opened = vectors["eip8_public_opened"].as_array().unwrap();
    let (entries, _) = check_all("eip8_public_opened", opened, |entry| {
        let (kind, form) = (entry.given_text("packet"), entry.given_text("form"));
        let wire = public.packet(&vectors, kind, form);
        let fields = if kind == "auth" { 3 } else { 2 };
        let packet = match kind {
            "auth" => open(PacketKind::Auth, &public.recipient_static, &wire),
            _ => open(PacketKind::Ack, &public.initiator_static, &wire),
        };
        let (version, extra_items) = version_and_extra_items(&packet, fields);
        same("form", &(packet.form() == Form::Plain), &form.starts_with("plain"))?;
        entry.expect("version", version)?;
        entry.expect("extra_items", extra_items)?;
        if kind == "auth" {
            let auth = inside::read_auth(&packet);
            entry.expect("plain", packet.form() == Form::Plain)?;
            entry.expect_bytes("signature", auth.signature)?;
            entry.expect_bytes("initiator_pubkey", auth.initiator.as_bytes())?;
            entry.expect_bytes("nonce", auth.nonce)?;
            same("initiator", &auth.initiator, &public.initiator_static.public())?;
            same("nonce", &&auth.nonce[..], &&public.initiator_nonce[..])?;
            let ephemeral = auth.ephemeral(&public.recipient_static).unwrap();
            same("recovered key", &ephemeral, &public.initiator_ephemeral.public())
        } else {
            let ack = inside::read_ack(&packet);
            entry.expect_bytes("ephemeral_pubkey", ack.ephemeral.as_bytes())?;
            entry.expect_bytes("nonce", ack.nonce)?;
            same("ephemeral", &ack.ephemeral, &public.recipient_ephemeral.public())?;
            same("nonce", &ack.nonce, &public.recipient_nonce)
        }
    });
    let packets = |kind: &str| vectors["eip8_public"][kind].as_array().unwrap().len();
    assert_eq!(entries, packets("auth") + packets("ack"), "every public packet is opened");
}

/// Randomness of which only the ephemeral key and the nonce are known.
fn fresh_of(ephemeral: &SecretKey, nonce: [u8; 32]) -> Fresh {
    Fresh { ephemeral: ephemeral.clone(), nonce, seal_key: ephemeral.clone(), iv: [0; 16], padding: 100 }
}

#[test]
fn eip8_public_secrets_are_derived() {
    let vectors = vectors();
    let public = Public::read(&vectors["eip8_public"]);
    let derived = vectors["eip8_public_derived_by_recipient"].as_array().unwrap();
    check_all("eip8_public_derived_by_recipient", derived, |entry| {
        let form = entry.given_text("form");
        // The recipient answered the auth of version 56 with the ack of version 57.
        let ack_form = form.replace("56", "57");
        let auth = public.packet(&vectors, "auth", form);
        let ack = public.packet(&vectors, "ack", &ack_form);
        let auth = open(PacketKind::Auth, &public.recipient_static, &auth);
        let content = inside::read_auth(&auth);
        let shared = public.recipient_ephemeral.ecdh_x(&content.ephemeral(&public.recipient_static).unwrap());
        entry.expect_bytes("ephemeral_shared_x", *shared)?;
        let secrets =
            inside::derive(shared, content.nonce, public.recipient_nonce, (auth.wire(), &ack), false);
        entry.expect_bytes("aes_secret", *secrets.aes)?;
        entry.expect_bytes("mac_secret", *secrets.mac)?;
        entry.expect_bytes("recipient_egress_mac_digest", digest(&secrets.egress))?;
        entry.expect_bytes("recipient_ingress_mac_digest", digest(&secrets.ingress))?;
        let after_foo = secrets.ingress.clone().chain_update(b"foo");
        entry.expect_bytes("recipient_ingress_mac_digest_after_foo", digest(&after_foo))
    });
}

#[test]
fn fresh_handshakes_are_repeated_in_both_roles() {
    let vectors = vectors();
    let handshakes = vectors["fresh_handshakes"].as_array().unwrap();
    check_all("fresh_handshakes", handshakes, |entry| {
        let key = |name| secret(&entry.given_bytes(name));
        let (initiator, recipient) = (key("InitiatorStatic"), key("RecipientStatic"));
        let (initiator_ephemeral, recipient_ephemeral) =
            (key("InitiatorEphemeral"), key("RecipientEphemeral"));
        let auth = open(PacketKind::Auth, &recipient, &entry.given_bytes("Auth"));
        let ack = open(PacketKind::Ack, &initiator, &entry.given_bytes("Ack"));
        let (auth_content, ack_content) = (inside::read_auth(&auth), inside::read_ack(&ack));

        entry.expect_bytes("InitiatorNonce", auth_content.nonce)?;
        entry.expect_bytes("RecipientNonce", ack_content.nonce)?;
        entry.expect("AuthPlain", auth.form() == Form::Plain)?;
        entry.expect("AuthVersion", version_and_extra_items(&auth, 3).0)?;
        entry.expect("AckVersion", version_and_extra_items(&ack, 2).0)?;
        same("form of the ack", &ack.form(), &auth.form())?;
        same("initiator", &auth_content.initiator, &initiator.public())?;
        let recovered = auth_content.ephemeral(&recipient).unwrap();
        same("initiator's ephemeral key", &recovered, &initiator_ephemeral.public())?;
        same("recipient's ephemeral key", &ack_content.ephemeral, &recipient_ephemeral.public())?;
        let fresh = fresh_of(&initiator_ephemeral, auth_content.nonce);
        let signature = inside::sign_auth(&initiator, &recipient.public(), &fresh);
        same("a signature of our own", &signature, &auth_content.signature)?;

        let derive = |ephemeral: &SecretKey, theirs: &PublicKey, is_initiator| {
            let packets = (auth.wire(), ack.wire());
            inside::derive(
                ephemeral.ecdh_x(theirs),
                auth_content.nonce,
                ack_content.nonce,
                packets,
                is_initiator,
            )
        };
        let of_initiator = derive(&initiator_ephemeral, &ack_content.ephemeral, true);
        let of_recipient = derive(&recipient_ephemeral, &recovered, false);
        for secrets in [&of_initiator, &of_recipient] {
            entry.expect_bytes("AESSecret", *secrets.aes)?;
            entry.expect_bytes("MACSecret", *secrets.mac)?;
        }
        entry.expect_bytes("InitiatorEgressDigest", digest(&of_initiator.egress))?;
        entry.expect_bytes("InitiatorIngressDigest", digest(&of_initiator.ingress))?;
        same("recipient's ingress", &digest(&of_recipient.ingress), &digest(&of_initiator.egress))?;
        same("recipient's egress", &digest(&of_recipient.egress), &digest(&of_initiator.ingress))
    });
}

#[test]
fn frames_are_written_and_read_one_after_another() {
    let vectors = vectors();
    let frames = &vectors["frames"];
    let secrets = Entry::new(frames, None);
    let seed = Keccak256::new_with_prefix(secrets.given_bytes("egress_mac_initial_input"));
    let (aes, mac) = (secrets.given_array("aes_secret"), secrets.given_array("mac_secret"));
    let list = secrets.given("one_after_another").as_array().unwrap();
    secrets.leftover().unwrap();
    let codec = || {
        frame::codec(Secrets {
            aes: Zeroizing::new(aes),
            mac: Zeroizing::new(mac),
            egress: seed.clone(),
            ingress: seed.clone(),
        })
    };
    // Each frame depends on those before it, so an entry is checked at the end of its predecessors.
    let entries: Vec<Value> = list.iter().enumerate().map(|(n, v)| with_index(v, n)).collect();
    check_all("frames", &entries, |entry| {
        let index = usize::try_from(entry.given("index").as_u64().unwrap()).unwrap();
        let (mut writer, mut reader) = codec();
        for earlier in &list[..index] {
            let wire = hex::decode(earlier["frame"].as_str().unwrap()).unwrap();
            let (id, payload, snappy) = message(earlier);
            assert_eq!(write(&mut writer, id, &payload, snappy, &wire), wire);
            reader.decode(&mut BytesMut::from(&wire[..])).unwrap().unwrap();
        }
        let wire = entry.given_bytes("frame");
        let frame = reader.decode(&mut BytesMut::from(&wire[..])).unwrap().unwrap();
        entry.expect("code", frame.id)?;
        let (id, payload, snappy) = message(entry.value);
        let read = if snappy { snappy::decompress(&frame.payload, 1 << 20).unwrap() } else { frame.payload };
        if entry.given_text("payload").starts_with("rlp string") {
            same("payload", &&read[..], &&payload[..])?;
        } else {
            entry.expect_bytes("payload", read)?;
        }
        // A payload that was not compressed is longer, or no snappy block, when read the other way.
        let as_snappy = snappy::decompress(&raw(&codec, list, index), 1 << 20);
        entry.expect("snappy", as_snappy.is_ok_and(|other| other == payload))?;
        entry.expect_bytes("frame", write(&mut writer, id, &payload, snappy, &wire))
    });
}

fn with_index(value: &Value, index: usize) -> Value {
    let mut value = value.clone();
    value["index"] = json!(index);
    value
}

/// What a frame of the file holds.
fn message(value: &Value) -> (u32, Vec<u8>, bool) {
    let payload = match value["payload"].as_str().unwrap() {
        "rlp string of 'waku' repeated 5000 times" => {
            let mut encoder = Encoder::new();
            encoder.bytes(&b"waku".repeat(5000));
            encoder.finish()
        }
        hex => hex::decode(hex).unwrap(),
    };
    let id = u32::try_from(value["code"].as_u64().unwrap()).unwrap();
    (id, payload, value["snappy"].as_bool().unwrap())
}

fn write(
    writer: &mut frame::FrameEncoder,
    id: u32,
    payload: &[u8],
    snappy: bool,
    expected: &[u8],
) -> Vec<u8> {
    let mut out = BytesMut::new();
    let mut payload_on_wire = BytesMut::new();
    if snappy {
        snappy::Compressor::default().append(payload, &mut payload_on_wire);
    } else {
        payload_on_wire.extend_from_slice(payload);
    }
    assert!(writer.encode(id, &payload_on_wire, &mut out));
    assert_eq!(out.len(), expected.len(), "snappy writes what Go's snappy writes");
    out.to_vec()
}

/// The payload of a frame as it is on the wire.
fn raw(
    codec: &impl Fn() -> (frame::FrameEncoder, frame::FrameDecoder),
    list: &[Value],
    index: usize,
) -> bytes::Bytes {
    let mut reader = codec().1;
    let mut last = None;
    for value in &list[..=index] {
        let wire = hex::decode(value["frame"].as_str().unwrap()).unwrap();
        last = reader.decode(&mut BytesMut::from(&wire[..])).unwrap();
    }
    let Some(Frame { payload, .. }) = last else { panic!("no frame") };
    payload
}

#[test]
fn hello_is_read_and_written() {
    let vectors = vectors();
    let entry = json!({ "hello_rlp": vectors["hello_rlp"] });
    check_all("hello_rlp", &[entry], |entry| {
        let hello = Hello::decode(&entry.given_bytes("hello_rlp")).unwrap();
        let capabilities: Vec<_> = hello.capabilities.iter().map(ToString::to_string).collect();
        same("capabilities", &capabilities, &["shh/6", "waku/0", "waku/1"].map(String::from).to_vec())?;
        same(
            "version, name, port",
            &(hello.version, &hello.client_name[..], hello.listen_port),
            &(5, "vector/v1", 30303),
        )?;
        same("node id", &hello.node_id, &hex::decode(node_id(&vectors)).unwrap())?;
        entry.expect_bytes("hello_rlp", hello.encode())
    });
}

/// The key of the Hello stands in its own entry too.
fn node_id(vectors: &Value) -> &str {
    vectors["node_id_hash"]["pubkey"].as_str().unwrap()
}

#[test]
fn snappy_blocks() {
    let vectors = vectors();
    check_all("snappy", vectors["snappy"].as_array().unwrap(), |entry| {
        let (input, output) = (entry.given_bytes("in"), entry.given_bytes("out"));
        let mut compressed = BytesMut::new();
        snappy::Compressor::default().append(&input, &mut compressed);
        entry.expect_bytes("out", compressed)?;
        entry.expect_bytes("in", snappy::decompress(&output, 1 << 20).unwrap())
    });
}

#[test]
fn every_entry_of_the_section_is_checked_here_or_by_the_codec() {
    let vectors = vectors();
    let here = [
        "eip8_public",
        "eip8_public_derived_by_recipient",
        "eip8_public_opened",
        "frames",
        "fresh_handshakes",
        "hello_rlp",
        "snappy",
    ];
    let in_codec = ["ecies", "node_id_hash"];
    for name in vectors.as_object().unwrap().keys() {
        assert!(here.contains(&&name[..]) || in_codec.contains(&&name[..]), "{name} is not checked");
    }
    let hash: Checked = same(
        "node id hash",
        &hex::encode(keccak256(&hex::decode(node_id(&vectors)).unwrap())),
        &vectors["node_id_hash"]["keccak256"].as_str().unwrap().to_owned(),
    );
    hash.unwrap();
}
