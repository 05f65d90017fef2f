//! The comparison can fail: a recording with one thing changed in what was read is noticed.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use poste_wire::Hash;

use crate::compare::Difference;
use crate::recording::{self, Read, Session};
use crate::{gateway, replay_servers};

type Change = fn(&mut Read) -> bool;

/// What is changed, in which session, and in which reading: the first that a function changes.
const CHANGES: &[(&str, &str, Change)] = &[
    ("an envelope less in a page", "history-waku1", |read| match read {
        Read::Mail { envelopes } => envelopes.pop().is_some(),
        _ => false,
    }),
    ("another text of a refusal", "refuse-rate", |read| match read {
        Read::Complete { error: Some(error), .. } => std::mem::replace(error, "no".to_owned()) != "no",
        _ => false,
    }),
    ("a fault less in a confirmation", "inject-shh6", |read| match read {
        Read::Response { errors, .. } => errors.pop().is_some(),
        _ => false,
    }),
    ("another cursor", "exact-limit", |read| match read {
        Read::Complete { cursor, .. } if !cursor.is_empty() => {
            *cursor = Bytes::from_static(&[7; 36]);
            true
        }
        _ => false,
    }),
];

/// Changes that only a server can be measured by.
const CHANGES_OF_SERVERS: &[(&str, &str, Change)] = &[
    ("another last hash", "history-waku1", |read| match read {
        Read::Complete { last_hash, .. } => std::mem::take(last_hash) != Hash::default(),
        _ => false,
    }),
    ("another batch acknowledged", "history-waku1", |read| match read {
        Read::Acknowledged { batch_hash } => std::mem::take(batch_hash) != Hash::default(),
        _ => false,
    }),
    ("another proof of work in Status", "silence-undecodable", |read| match read {
        Read::Status(status) => status.pow.replace(0.5) == Some(0.000_002),
        _ => false,
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_recording_is_noticed_by_the_measure_of_our_gateway() {
    for (what, id, change) in CHANGES.iter().chain(CHANGES_OF_SERVERS) {
        let noticed = match gateway::replay(&altered(id, *change).unwrap()).await {
            Ok(differences) => {
                differences.iter().any(|difference| matches!(difference, Difference::Wrong(_)))
            }
            Err(error) => panic!("{what} in {id}: {error:#}"),
        };
        assert!(noticed, "{what} in {id} is not noticed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_recording_is_noticed_by_the_measure_of_our_client() {
    for (what, id, change) in CHANGES {
        assert!(
            replay_servers(&altered(id, *change).unwrap()).await.is_err(),
            "{what} in {id} is not noticed"
        );
    }
}

fn altered(id: &str, change: Change) -> anyhow::Result<Session> {
    let sessions = recording::load()?.sessions;
    let mut session = sessions.into_iter().find(|session| session.id == id).context("no such session")?;
    ensure!(session.reads.iter_mut().any(|read| change(&mut read.read)), "nothing is changed in {id}");
    Ok(session)
}
