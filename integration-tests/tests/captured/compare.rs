//! The recorded answers beside ours. Envelopes are compared by their hash, which is made of all their bytes.

use std::collections::BTreeMap;

use anyhow::Context as _;
use poste_wire::packet::Completion;
use poste_wire::{Cursor, Dialect, Hash};

use crate::account::{Account, Answer, Fault, Sent};
use crate::model::{self, Store};
use crate::peer::Gone;
use crate::permitted::Permitted;
use crate::recording::{Client, EnvelopeRead, Read, SealedRead, Session, Side};

/// The largest packet that deployed nodes take.
const MAX_PACKET: usize = 1024 * 1024;
/// Expired for longer than this, an envelope is "very old" to deployed nodes; made further ahead, it is "from future".
const LATE_SECONDS: u32 = 20;
const AHEAD_SECONDS: u32 = 10;
/// The longest ttl that our gateway takes by default.
const MAX_TTL: u32 = 24 * 60 * 60;
/// A deployed node relays once in so many milliseconds.
const RELAY_TICK: f64 = 300.0;

/// Something that is not as it was recorded.
#[derive(Debug)]
pub(crate) enum Difference {
    Permitted(Permitted),
    /// In words.
    Wrong(String),
}

use Difference::Wrong;

/// Compares a whole session.
pub(crate) fn session(
    session: &Session,
    recorded: &BTreeMap<Client, Account>,
    ours: &BTreeMap<Client, Gone>,
) -> anyhow::Result<Vec<Difference>> {
    let mut differences = Vec::new();
    let mut store = Store::default();
    for stored in &session.archive {
        store.add(stored.sent, stored.hash, stored.topic);
    }
    let mut places = BTreeMap::new();
    for (index, packet, read) in session.read_packets().filter(|(_, packet, _)| packet.from == Side::Client) {
        let place: &mut usize = places.entry(packet.client).or_default();
        let theirs = recorded.get(&packet.client).and_then(|account| account.sent.get(*place));
        let our = ours.get(&packet.client).and_then(|gone| gone.account.sent.get(*place));
        *place += 1;
        let (theirs, our) = theirs.zip(our).context("a packet of the client was not sent")?;
        let found = match read {
            Read::Messages { envelopes } => {
                let now = u32::try_from(session.at(packet.ms).as_secs())?;
                let found = confirmation(session.capability, envelopes, now, theirs, our);
                let refused =
                    |hash: &Hash| our.faults.as_ref().is_some_and(|faults| faults.contains_key(hash));
                for envelope in envelopes.iter().filter(|envelope| !refused(&envelope.hash)) {
                    store.add(envelope.sent, envelope.hash, envelope.topic);
                }
                found
            }
            Read::Request(sealed) => mail(session.capability, sealed, &store, theirs, our)?,
            _ if our.faults.is_some() || our.acknowledged || our.answer.is_some() => {
                vec![Wrong("it is answered".to_owned())]
            }
            _ => Vec::new(),
        };
        differences.extend(found.into_iter().map(|difference| match difference {
            Wrong(what) => Wrong(format!("packet {index} ({}): {what}", packet.code)),
            permitted => permitted,
        }));
    }
    for (client, theirs) in recorded {
        let gone = ours.get(client).context("a client never connected")?;
        differences.extend(connection(session, *client, theirs, gone)?.into_iter().map(|difference| {
            match difference {
                Wrong(what) => Wrong(format!("client {client:?}: {what}")),
                permitted => permitted,
            }
        }));
    }
    Ok(differences)
}

/// Packets 12 and 11.
fn confirmation(
    dialect: Dialect,
    envelopes: &[EnvelopeRead],
    now: u32,
    theirs: &Sent,
    ours: &Sent,
) -> Vec<Difference> {
    if theirs.acknowledged != ours.acknowledged {
        return vec![Wrong(format!(
            "recorded confirmed: {}, ours: {}",
            theirs.acknowledged, ours.acknowledged
        ))];
    }
    let (Some(theirs), Some(ours)) = (&theirs.faults, &ours.faults) else { return Vec::new() };
    let mut differences = Vec::new();
    for hash in theirs.keys().filter(|hash| !ours.contains_key(hash)) {
        differences.push(Wrong(format!("no entry for {hash}, which was refused")));
    }
    for (hash, fault) in ours {
        match envelopes.iter().find(|envelope| envelope.hash == *hash) {
            Some(envelope) => {
                differences.extend(entry(dialect, envelope, now, theirs.get(hash), fault));
            }
            None => differences.push(Wrong(format!("an entry for {hash}, which is not in the batch"))),
        }
    }
    differences
}

/// One entry of packet 12 of ours.
fn entry(
    dialect: Dialect,
    envelope: &EnvelopeRead,
    now: u32,
    theirs: Option<&Fault>,
    ours: &Fault,
) -> Option<Difference> {
    let (time, other) = if dialect.is_waku() { (21, 22) } else { (37, 38) };
    let expiry = envelope.sent.wrapping_add(envelope.ttl);
    let of_time = envelope.sent > now + AHEAD_SECONDS || expiry < now;
    if ours.code != if of_time { time } else { other } {
        return Some(Wrong(format!("{} has code {} ({})", envelope.hash, ours.code, ours.text)));
    }
    match theirs {
        Some(theirs) if theirs.code == ours.code => None,
        Some(_) => Some(Difference::Permitted(Permitted::FaultCode)),
        None if (now.saturating_sub(LATE_SECONDS)..now).contains(&expiry) => {
            Some(Difference::Permitted(Permitted::ExpiredIsReported))
        }
        None if !of_time && !(1..=MAX_TTL).contains(&envelope.ttl) => {
            Some(Difference::Permitted(Permitted::TtlRefused))
        }
        None => Some(Wrong(format!("{} is refused: {}", envelope.hash, ours.text))),
    }
}

/// Packets 127 and 125.
fn mail(
    dialect: Dialect,
    sealed: &SealedRead,
    store: &Store,
    theirs: &Sent,
    ours: &Sent,
) -> anyhow::Result<Vec<Difference>> {
    let id = ours.id;
    let (theirs, ours) = match (&theirs.answer, &ours.answer) {
        (Some(theirs), Some(ours)) => (theirs, ours),
        (None, None) => return Ok(Vec::new()),
        (theirs, ours) => {
            return Ok(vec![Wrong(format!(
                "recorded answer: {}, ours: {}",
                theirs.is_some(),
                ours.is_some()
            ))]);
        }
    };
    let mut differences = packets(dialect, ours);
    if theirs.envelopes() == ours.envelopes() && theirs.end == ours.end {
        differences.extend(partition(theirs, ours));
        return Ok(differences);
    }
    let request = match (&sealed.request, &sealed.payload) {
        (Some(request), _) => Some(request.clone()),
        (None, Some(payload)) => model::older_form(payload).ok(),
        (None, None) => None,
    };
    let wrong = || {
        format!(
            "recorded {:?} and {:?}, ours {:?} and {:?}",
            theirs.envelopes(),
            theirs.end,
            ours.envelopes(),
            ours.end
        )
    };
    let Some(request) = request else {
        differences.push(Wrong(wrong()));
        return Ok(differences);
    };
    if store.answer(&request, id)? != (ours.envelopes(), ours.end.clone()) {
        differences.push(Wrong(wrong()));
        return Ok(differences);
    }
    // Ours is what we have to answer: now which of the reasons is it?
    let cursor = Cursor::try_from(&request.cursor[..]).ok();
    let subset = ours.envelopes().iter().all(|hash| theirs.envelopes().contains(hash));
    let kind = match (&theirs.end, &ours.end) {
        (Completion::Failed { error, .. }, Completion::Done { .. }) if sealed.request.is_none() => {
            error.starts_with("failed to decode data").then_some(Permitted::OlderFormAnswered)
        }
        (Completion::Failed { error, .. }, Completion::Done { .. }) => {
            let by_topics =
                error == "request is invalid: bloom filter is empty" && !request.topics.is_empty();
            by_topics.then_some(Permitted::ByTopics)
        }
        (Completion::Done { .. }, Completion::Failed { .. }) => {
            (cursor.is_none() && !request.cursor.is_empty()).then_some(Permitted::CursorRefused)
        }
        (
            Completion::Done { last_hash: theirs_last, cursor: Some(next), .. },
            Completion::Done { last_hash, cursor: None, .. },
        ) if theirs_last == last_hash
            && next.hash == *last_hash
            && theirs.envelopes() == ours.envelopes() =>
        {
            differences.extend(partition(theirs, ours));
            Some(Permitted::CursorAtEnd)
        }
        _ if cursor.is_some_and(|cursor| !store.has(&cursor)) => Some(Permitted::NoneSkipped),
        _ if !request.topics.is_empty() && subset => Some(Permitted::ByTopics),
        _ => None,
    };
    differences.push(kind.map_or_else(|| Wrong(wrong()), Difference::Permitted));
    Ok(differences)
}

/// What every packet of mail has to keep to.
fn packets(dialect: Dialect, answer: &Answer) -> Vec<Difference> {
    let bad = answer.packets.iter().filter(|packet| {
        let bare = dialect == Dialect::Shh6 && packet.envelopes.len() == 1;
        packet.envelopes.is_empty() || packet.size > MAX_PACKET || packet.bare != bare
    });
    bad.map(|packet| Wrong(format!("a packet of mail of another form: {packet:?}"))).collect()
}

/// The same envelopes, in packets of their own.
fn partition(theirs: &Answer, ours: &Answer) -> Option<Difference> {
    if theirs.counts() != ours.counts() {
        return Some(Difference::Permitted(Permitted::Partition));
    }
    (theirs.sizes() != ours.sizes()).then(|| {
        Wrong(format!("packets of {:?} bytes were recorded, ours have {:?}", theirs.sizes(), ours.sizes()))
    })
}

/// Status, what is relayed, and the end.
fn connection(
    session: &Session,
    client: Client,
    theirs: &Account,
    gone: &Gone,
) -> anyhow::Result<Vec<Difference>> {
    let ours = &gone.account;
    let mut differences: Vec<_> =
        ours.strays().map(|stray| Wrong(format!("nothing asked for {stray}"))).collect();
    differences.extend(theirs.strays().map(|stray| Wrong(format!("the recording has no place for {stray}"))));
    if theirs.status != ours.status {
        differences
            .push(Wrong(format!("Status {:?} was recorded, ours is {:?}", theirs.status, ours.status)));
    }
    let posted_by = |hash: &Hash| {
        session.read_packets().find_map(|(_, packet, read)| match read {
            Read::Messages { envelopes } if packet.from == Side::Client => {
                envelopes.iter().any(|envelope| envelope.hash == *hash).then_some(packet)
            }
            _ => None,
        })
    };
    for hash in theirs.relayed.iter().filter(|hash| !ours.relayed.contains(hash)) {
        let echo = session.echo && posted_by(hash).is_some_and(|packet| packet.client == client);
        differences.push(match echo {
            true => Difference::Permitted(Permitted::NoEcho),
            false => Wrong(format!("{hash} is not relayed")),
        });
    }
    let end = session.ends.iter().find(|end| end.client == client).context("no end is recorded")?;
    for (place, hash) in ours.relayed.iter().enumerate() {
        if ours.relayed[..place].contains(hash) {
            differences.push(Wrong(format!("{hash} is relayed twice")));
        } else if !theirs.relayed.contains(hash) {
            let connected = session.packets.iter().find(|packet| packet.client == client);
            let sooner = posted_by(hash).zip(connected).is_some_and(|(post, connected)| {
                post.client != client && end.ms - post.ms.max(connected.ms) < RELAY_TICK
            });
            differences.push(match sooner {
                true => Difference::Permitted(Permitted::RelayedSooner),
                false => Wrong(format!("{hash} is relayed")),
            });
        }
    }
    match (end.client_left(), &gone.ended) {
        (true, None) => {}
        (true, Some(closed)) => {
            differences.push(Wrong(format!("the gateway ended the connection: {closed}")));
        }
        (false, None) if session.capability == Dialect::Shh6 => {
            differences.push(Difference::Permitted(Permitted::StaysUp));
        }
        (false, _) if gone.ended_by_the_server() => {}
        (false, ended) => {
            differences.push(Wrong(format!("the genuine server ended the connection, ours: {ended:?}")));
        }
    }
    Ok(differences)
}
