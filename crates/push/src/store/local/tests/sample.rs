//! The frozen sample of format 1: a whole directory as this format has been written since its first day. Each version
//! that says it knows the format must open it, find everything, and go on from there.
//!
//! The sample is text, so that it can be kept beside the code: a line `file NAME LENGTH` for each file, and below it
//! its pieces of 32 bytes that are not zeros, each as `OFFSET HEX`.

use std::fmt::Write;
use std::fs;

use super::*;
use crate::store::conformance::{START, claim_key, device, found, owner, registration};
use crate::store::{AnswerId, Registered};

const SAMPLE: &str = include_str!("../../../../testdata/format-1.txt");
const PIECE: usize = 32;
const FILES: [&str; 5] = [identity::FILE_NAME, STORE, REGISTRATIONS, REQUESTS, KEYS];

#[tokio::test]
async fn format_1_is_frozen() {
    let dir = tempfile::tempdir().unwrap();
    unpack(SAMPLE, dir.path());
    let store = open_dir(dir.path(), Caps::default());
    let expected = [
        found(&registration(&device(1, 0), 2), Some(1_700_000_500)),
        found(&registration(&device(1, 1), 1), None),
    ];
    assert_eq!(store.registrations(&owner(1)).await.unwrap(), expected);
    assert_eq!(store.keys(None, 10).await.unwrap(), [owner(1), owner(2)]);
    let topic_keys = store.topic_keys(&owner(2)).await.unwrap();
    assert_eq!(topic_keys, Some(registration(&device(2, 0), 1).topic_keys));
    assert_eq!(store.version(&device(1, 2)).await.unwrap(), Some(9));
    assert_eq!(store.answer(&AnswerId([5; 32])).await.unwrap().as_deref(), Some(b"an answer".as_slice()));
    let checkpoint = Checkpoint { archive_store_id: [6; 16], seq: 77 };
    assert_eq!(store.checkpoint().await.unwrap(), Some(checkpoint));
    let claims = ["sent", "unknown", "open"].map(|message| claim_key(message.as_bytes(), &device(1, 0)));
    assert_eq!(store.claim(claims.to_vec(), 1).await.unwrap(), [Claim::Sent, Claim::Unknown, Claim::Unknown]);
    check_slots(&store);
    let more = store.register(registration(&device(1, 2), 10)).await.unwrap();
    assert_eq!(more, Registered::Done(OwnerState { registrations: 3 }));
    let retention =
        Retention { claims_before_unix_s: u64::MAX, answers_before_unix_s: u64::MAX, ..Retention::default() };
    let expired = store.expire(&retention, 100).await.unwrap();
    assert_eq!((expired.claims, expired.answers), (3, 1));
    assert_eq!(store.counts().await.unwrap().unreadable, 0);
}

/// Writes the sample of a new format; an old one is never written again.
#[tokio::test]
#[ignore = "it writes a sample, when there is a new format"]
async fn write_sample() {
    let (store, (dir, _)) = open(Caps::default());
    for (device, version) in [(device(1, 0), 1), (device(1, 0), 2), (device(1, 1), 1), (device(2, 0), 1)] {
        store.register(registration(&device, version)).await.unwrap();
    }
    store.unregister(&device(1, 2), 9, START).await.unwrap();
    store.note_successes(vec![device(1, 0)], 1_700_000_500).await.unwrap();
    let claims = ["sent", "unknown", "open"].map(|message| claim_key(message.as_bytes(), &device(1, 0)));
    store.claim(claims.to_vec(), 1_700_000_400).await.unwrap();
    let [sent, unknown, _] = claims;
    let ends = vec![(sent, ClaimEnd::Sent), (unknown, ClaimEnd::Unknown)];
    store.finish(ends, Some((AnswerId([5; 32]), b"an answer".to_vec())), 1_700_000_401).await.unwrap();
    store.set_checkpoint(Checkpoint { archive_store_id: [6; 16], seq: 77 }).await.unwrap();
    drop(store);
    for name in [REGISTRATIONS, REQUESTS] {
        // Without the pages that earlier transactions freed.
        Database::open(dir.path().join(name)).unwrap().compact().unwrap();
    }
    let path = std::env::var_os("POSTE_SAMPLE").expect("POSTE_SAMPLE names the file to write");
    fs::write(path, pack(dir.path())).unwrap();
}

fn pack(dir: &Path) -> String {
    let mut text = String::new();
    for name in FILES {
        let bytes = fs::read(dir.join(name)).unwrap();
        writeln!(text, "file {name} {}", bytes.len()).unwrap();
        for (number, piece) in
            bytes.chunks(PIECE).enumerate().filter(|(_, piece)| piece.iter().any(|byte| *byte != 0))
        {
            writeln!(text, "{} {}", number * PIECE, hex::encode(piece)).unwrap();
        }
    }
    text
}

fn unpack(text: &str, dir: &Path) {
    let mut files: Vec<(&str, Vec<u8>)> = Vec::new();
    for line in text.lines() {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["file", name, length] => files.push((name, vec![0; length.parse().unwrap()])),
            [offset, piece] => {
                let piece = hex::decode(piece).unwrap();
                let offset: usize = offset.parse().unwrap();
                files.last_mut().unwrap().1[offset..offset + piece.len()].copy_from_slice(&piece);
            }
            _ => panic!("{line}"),
        }
    }
    for (name, bytes) in files {
        fs::write(dir.join(name), bytes).unwrap();
    }
}
