//! The section `disconnects` of the recorded sessions: base protocol packets of nine short connections of genuine nodes.

use bytes::BytesMut;
use serde_json::{Value, json};

use super::{Checked, Entry, check_all, load, same};
use crate::disconnect::DisconnectReason;
use crate::hello::Hello;
use crate::{base_id, snappy};

/// What a packet's payload is when it is written anew.
fn rewritten(id: u32, payload: &[u8]) -> Vec<u8> {
    match id {
        base_id::HELLO => Hello::decode(payload).unwrap().encode(),
        base_id::DISCONNECT => DisconnectReason::decode(payload).encode(),
        base_id::PING | base_id::PONG => vec![0xc0],
        id => panic!("base protocol id {id}"),
    }
}

fn check_packet(entry: &Entry) -> Checked {
    let id = u32::try_from(entry.given("id").as_u64().unwrap()).unwrap();
    let payload = entry.given_bytes("payload");
    let snappy = entry.given("snappy").as_bool().unwrap();
    entry.expect_bytes("payload", rewritten(id, &payload))?;
    let mut wire = BytesMut::new();
    if snappy {
        snappy::Compressor::default().append(&payload, &mut wire);
        same(
            "decompressed",
            &&snappy::decompress(&entry.given_bytes("wire"), 2048).unwrap()[..],
            &&payload[..],
        )?;
    } else {
        wire.extend_from_slice(&payload);
    }
    entry.expect_bytes("wire", wire)?;
    // Compressed is what follows both Hellos; a connection that is refused in place of Hello has none of it.
    entry.expect("snappy", entry.given("both_hellos_before").as_bool().unwrap())?;
    if id == base_id::DISCONNECT {
        entry.expect("reason", DisconnectReason::decode(&payload).code())?;
    }
    // Who sent it, and when, binds nobody.
    entry.given("from");
    entry.given("ms");
    Ok(())
}

#[test]
fn recorded_base_packets_are_what_we_would_write() {
    let sessions = load("waku-v1-captured")["disconnects"].take();
    let sessions = sessions.as_array().unwrap();
    let mut packets = Vec::new();
    for session in sessions {
        let entry = Entry::new(session, None);
        let (_, _) = (entry.given_text("id"), entry.given_text("what"));
        let list = entry.given("packets").as_array().unwrap();
        let mut reasons = Vec::new();
        let mut hellos = 0;
        for packet in list {
            let mut packet = packet.clone();
            packet["both_hellos_before"] = json!(hellos == 2);
            hellos += usize::from(packet["id"] == base_id::HELLO);
            if packet["id"] == base_id::DISCONNECT {
                let payload = hex::decode(packet["payload"].as_str().unwrap()).unwrap();
                reasons.push(json!([packet["from"], DisconnectReason::decode(&payload).code()]));
            }
            packets.push(packet);
        }
        assert_eq!(entry.given("reasons"), &Value::from(reasons), "{}", session["id"]);
        entry.leftover().unwrap();
    }
    println!("disconnects: {} connections", sessions.len());
    check_all("packets of disconnects", &packets, check_packet);
}
