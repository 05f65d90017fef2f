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
mod compare;
mod gateway;
mod model;
mod peer;
mod permitted;
mod recording;
mod stack;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use compare::Difference;
use permitted::Permitted;
use recording::{Recording, Side};

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
