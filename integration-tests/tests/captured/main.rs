//! Sessions between genuine status-go v0.64.6 clients and mailservers, recorded above RLPx, replayed: the clients'
//! packets against our gateway and archive, the servers' against our client. What is compared is the meaning.
//!
//! The full file is read from the directory that `POSTE_VECTORS` names; without it, a few of its sessions in `testdata`,
//! made by running status-go v0.64.6.
//!
//! ```text
//! POSTE_VECTORS=… cargo test -p poste-integration-tests --test captured -- --nocapture
//! ```

mod account;
mod altered;
mod client;
mod compare;
mod gateway;
mod model;
mod peer;
mod permitted;
mod recording;
mod script;
mod stack;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use account::Account;
use anyhow::Context as _;
use client::Compared;
use compare::Difference;
use permitted::Permitted;
use recording::{Recording, Session, Side};
use script::Script;

/// How long anything that has to come may take.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn recorded_clients_against_our_gateway() {
    let Recording { sessions, complete } = recording::load().unwrap();
    let (mut packets, mut permitted, mut wrong) = (0, 0, Vec::new());
    for session in &sessions {
        let began = Instant::now();
        let (found, faults) = match gateway::replay(session).await {
            Ok(found) => sort(found),
            Err(error) => (BTreeMap::new(), vec![format!("{error:#}")]),
        };
        let compared = session.packets.iter().filter(|packet| packet.from == Side::Server).count();
        eprintln!(
            "{}: {compared} packets of the server compared in {} ms, permitted differences: {found:?}",
            session.id,
            began.elapsed().as_millis()
        );
        wrong.extend(faults.into_iter().map(|fault| format!("{}: {fault}", session.id)));
        let listed = permitted::permitted(&session.id);
        if found != listed {
            wrong.push(format!("{}: the differences {listed:?} are listed, {found:?} occur", session.id));
        }
        packets += compared;
        permitted += found.values().sum::<usize>();
    }
    if complete {
        let unknown = permitted::sessions().filter(|id| sessions.iter().all(|session| session.id != *id));
        wrong.extend(unknown.map(|id| format!("{id}: listed, but not among the sessions")));
    }
    let (sessions, faults) = (sessions.len(), wrong.len());
    eprintln!(
        "{sessions} sessions, {packets} packets compared, {permitted} permitted differences, {faults} wrong"
    );
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_servers_against_our_client() {
    let Recording { sessions, complete } = recording::load().unwrap();
    let (mut replayed, mut requests, mut wrong) = (0, 0, Vec::new());
    for session in &sessions {
        let listed = APART.iter().find(|(id, _)| *id == session.id).map(|(_, reason)| *reason);
        match replay_servers(session).await {
            Ok(Some(compared)) => {
                let Compared { posts, requests: asked, envelopes } = compared;
                eprintln!(
                    "{}: {posts} posts, {asked} requests, {envelopes} envelopes as recorded",
                    session.id
                );
                wrong.extend(listed.map(|_| format!("{}: listed, but replayed", session.id)));
                replayed += 1;
                requests += asked;
            }
            Ok(None) if listed.is_some() => {
                eprintln!("{}: not replayed: {}", session.id, listed.unwrap_or_default());
            }
            Ok(None) => wrong.push(format!("{}: not replayed", session.id)),
            Err(error) => wrong.push(format!("{}: {error:#}", session.id)),
        }
    }
    if complete {
        let unknown = APART.iter().filter(|(id, _)| sessions.iter().all(|session| session.id != *id));
        wrong.extend(unknown.map(|(id, _)| format!("{id}: listed, but not among the sessions")));
    }
    let (sessions, faults) = (sessions.len(), wrong.len());
    eprintln!("{replayed} of {sessions} sessions, {requests} requests for mail compared, {faults} wrong");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Sessions in which our client cannot take the place of the recorded one.
const APART: &[(&str, &str)] = &[
    ("silence-undecodable", "our client sends nothing that cannot be read"),
    ("silence-second-status", "our client sends nothing that cannot be read"),
    ("refuse-shh6-request", "our client sends nothing that cannot be read"),
    ("refuse-shh6-messages", "our client sends nothing that cannot be read"),
    ("inject-empty", "our client sends no empty batch"),
    ("several-bundles", "the bytes of the answer are not recorded"),
    ("several-bundles-limit", "the bytes of the answer are not recorded"),
];

/// Our client in the place of every recorded one that does something; none: it cannot take it.
async fn replay_servers(session: &Session) -> anyhow::Result<Option<Compared>> {
    let mut all = Compared::default();
    for client in session.clients() {
        let account = Account::recorded(session, client)?;
        let Ok(script) = Script::new(session, client, &account) else { return Ok(None) };
        if script.steps.is_empty() {
            continue;
        }
        let compared = client::replay(session, client, &script).await;
        let compared = compared.with_context(|| format!("client {client:?}"))?;
        all.posts += compared.posts;
        all.requests += compared.requests;
        all.envelopes += compared.envelopes;
    }
    Ok(Some(all))
}

/// How often each kind of permitted difference occurs, and all others in words.
fn sort(differences: Vec<Difference>) -> (BTreeMap<Permitted, usize>, Vec<String>) {
    let (mut permitted, mut wrong) = (BTreeMap::new(), Vec::new());
    for difference in differences {
        match difference {
            Difference::Permitted(kind) => *permitted.entry(kind).or_default() += 1,
            Difference::Wrong(what) => wrong.push(what),
        }
    }
    (permitted, wrong)
}
