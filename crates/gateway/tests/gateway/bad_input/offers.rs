//! Envelopes that are not taken: each is named in 12, with the code of the dialect, and the others of its batch are
//! stored.

use poste_rlpx::DisconnectReason;
use poste_rpc::gateway::v1::PublishRequest;
use poste_wire::packet::{Messages, code, list_length};
use poste_wire::{Dialect, Envelope, Packet};
use tonic::Code;

use crate::envelopes::{TOPIC, envelope, envelope_at, everything, mined, weak};
use crate::peer::{Peer, in_order};
use crate::stack::{NOW, Stack};
use crate::witness::Watched;

const MIN_POW: f64 = 0.000_1;
const MIB: usize = 1 << 20;

struct Bad {
    reason: &'static str,
    text: &'static str,
    /// Whether it is about clocks.
    time: bool,
    envelope: Envelope,
}

/// Every reason of the protocol, and each bound from its wrong side.
fn bad() -> Vec<Bad> {
    const FUTURE: (&str, &str, bool) = ("future", "envelope from the future: check your clock", true);
    const VERY_OLD: (&str, &str, bool) = ("very_old", "envelope expired long ago: check your clock", true);
    const EXPIRED: (&str, &str, bool) = ("expired", "envelope has expired", true);
    const TTL_ZERO: (&str, &str, bool) = ("ttl_zero", "ttl must not be 0", false);
    const TTL_LONG: (&str, &str, bool) =
        ("ttl_too_long", "ttl is longer than this node keeps envelopes", false);
    const LOW_POW: (&str, &str, bool) = ("low_pow", "proof of work is below this node's minimum", false);
    let at = |sent, ttl| envelope_at(sent, ttl, TOPIC, 30);
    // Of any times at all, without work.
    let of = |expiry, ttl| Envelope::new(expiry, ttl, TOPIC, &envelope(TOPIC, 30).data()[..], 0);
    [
        (FUTURE, at(NOW + 11, 50)),
        (FUTURE, at(NOW + 100_000, 50)),
        (EXPIRED, at(NOW - 51, 50)),
        (EXPIRED, at(NOW - 70, 50)),
        (VERY_OLD, at(NOW - 71, 50)),
        (VERY_OLD, at(0, 50)),
        (VERY_OLD, of(0, 0)),
        (VERY_OLD, of(NOW - 21, 0)),
        (EXPIRED, of(NOW - 1, 0)),
        (TTL_ZERO, of(NOW, 0)),
        (TTL_ZERO, of(NOW + 5, 0)),
        (TTL_LONG, at(NOW, 86_401)),
        // Times that wrap: a ttl above the expiry, and the largest of both.
        (FUTURE, of(NOW, NOW + 1)),
        (FUTURE, of(NOW, u32::MAX - 10)),
        (TTL_LONG, of(NOW, u32::MAX - 9)),
        (FUTURE, of(0, 1)),
        (FUTURE, of(u32::MAX, 0)),
        (FUTURE, of(u32::MAX, 1)),
        (TTL_LONG, of(u32::MAX, u32::MAX)),
        (TTL_LONG, of(u32::MAX, u32::MAX - NOW)),
        (LOW_POW, weak(NOW, 50, TOPIC, 1000, MIN_POW)),
        // Enough for the present, but it has to bear the seconds until then.
        (LOW_POW, ahead_of_its_work()),
    ]
    .into_iter()
    .map(|((reason, text, time), envelope)| Bad { reason, text, time, envelope })
    .collect()
}

/// Made 10 s from now, with just enough work for the time from then on.
fn ahead_of_its_work() -> Envelope {
    (0..)
        .map(|nonce| Envelope::new(NOW + 15, 5, TOPIC, &envelope(TOPIC, 1000).data()[..], nonce))
        .find(|envelope| envelope.pow() >= MIN_POW && envelope.pow_at(NOW) < MIN_POW)
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn envelopes_expired_future_under_the_pow_of_ttl_0_and_of_wrapping_times() {
    let watched = Watched::over(Stack::with(|config| config.min_pow = MIN_POW).await).await;
    let mut good = Vec::new();
    for (round, dialect) in [(1, Dialect::Waku1), (2, Dialect::Shh6)] {
        let bad = bad();
        let mut peer = Peer::quiet(&watched.stack, dialect).await;
        // Good ones at both ends, at the very bounds: 10 s ahead, in the last second, of the longest ttl.
        let bounds = [(NOW + 10, 50), (NOW - 50, 50), (NOW, 86_400)]
            .map(|(sent, ttl)| mined(sent + ttl, ttl, TOPIC, 30, 2.0 * MIN_POW));
        let mut batch = vec![bounds[0].clone()];
        batch.extend(bad.iter().map(|bad| bad.envelope.clone()));
        batch.extend_from_slice(&bounds[1..]);
        let hash = peer.post(&batch).await;
        let faults = peer.confirmation(hash).await;
        assert_eq!(faults.len(), bad.len());
        for (fault, bad) in faults.iter().zip(&bad) {
            let code = match (dialect, bad.time) {
                (Dialect::Shh6, true) => 37,
                (Dialect::Shh6, false) => 38,
                (_, true) => 21,
                (_, false) => 22,
            };
            let expected = (bad.envelope.hash(), code, bad.text);
            assert_eq!((fault.hash, fault.code, &fault.description[..]), expected, "{:?}", bad.envelope);
        }
        for reason in ["future", "very_old", "expired", "ttl_zero", "ttl_too_long", "low_pow"] {
            let each = bad.iter().filter(|bad| bad.reason == reason).count() as u64;
            assert!(each > 0);
            let label = format!("reason=\"{reason}\"");
            assert_eq!(watched.stack.metric("refused_envelopes", &label), round * each, "{reason}");
        }
        good.extend(bounds);
        let stored = peer.fetch(&everything().with_topics(vec![TOPIC])).await;
        assert_eq!(stored, in_order(&good));
        peer.assert_nothing_else();
    }
    watched.end().await;
}

/// As large as an envelope may be: its packet, list header included, has 1 MiB, or as much as the length of the nonce
/// happens to leave.
fn largest() -> Envelope {
    let packet = |envelope: &Envelope| list_length(envelope.rlp().len());
    let sizes = (MIB - 30..MIB).rev();
    let largest = sizes.map(|size| envelope(TOPIC, size)).find(|envelope| packet(envelope) <= MIB).unwrap();
    assert!(MIB - packet(&largest) < 4);
    largest
}

#[tokio::test(flavor = "multi_thread")]
async fn envelopes_oversized() {
    let watched = Watched::start().await;
    let mut peer = Peer::quiet(&watched.stack, Dialect::Waku1).await;
    let largest = largest();
    peer.post_confirmed(std::slice::from_ref(&largest)).await;
    let (page, _) = peer.page(&everything().with_topics(vec![TOPIC])).await;
    assert_eq!(page, [largest]);

    // From a peer an envelope above the limit is a packet above the limit, and costs the connection.
    for (count, dialect) in [(1, Dialect::Waku1), (2, Dialect::Shh6)] {
        let mut peer = Peer::quiet(&watched.stack, dialect).await;
        let too_large = Packet::Messages(Messages::new(vec![envelope(TOPIC, MIB)]));
        let (_, payload) = too_large.encode(dialect).unwrap();
        assert!(payload.len() > MIB);
        peer.say_raw(code::MESSAGES, payload).await;
        peer.expect_disconnect(DisconnectReason::SubprotocolError).await;
        watched.stack.counted("ended_sessions", "reason=\"too_large\"", count).await;
    }
    // From inside it is refused by name.
    let mut publisher = poste_rpc::gateway::client(watched.stack.grpc().channel());
    for (count, size) in [(1, MIB), (2, 4 * MIB)] {
        let envelope = envelope(TOPIC, size).rlp().clone();
        let request = PublishRequest { envelope, mine_to_pow: None };
        let status = publisher.publish(request).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "envelope is too large"));
        assert_eq!(watched.stack.metric("refused_envelopes", "reason=\"oversized\""), count);
    }
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_packet_of_envelopes_is_confirmed_as_any() {
    let watched = Watched::start().await;
    let mut peer = Peer::quiet(&watched.stack, Dialect::Waku1).await;
    peer.post_confirmed(&[]).await;
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_envelope_many_times_in_a_packet_is_one() {
    let watched = Watched::start().await;
    let mut peer = Peer::quiet(&watched.stack, Dialect::Waku1).await;
    let one = envelope(TOPIC, 30);
    peer.post_confirmed(&vec![one.clone(); 10_000]).await;
    assert_eq!(peer.fetch(&everything().with_topics(vec![TOPIC])).await, [one]);
    assert_eq!(watched.stack.metric("known_envelopes", ""), 9_999);
    watched.end().await;
}
