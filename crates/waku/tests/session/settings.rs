//! A peer changes its mind, in the words of each dialect.

use std::collections::BTreeSet;

use bytes::Bytes;
use poste_waku::{Event, Session};
use poste_wire::packet::{Interest, Options, RateLimits, Settings, code};
use poste_wire::{Bloom, Dialect, Packet, Topic};

use crate::meeting::Scripted;

const TOPIC: Topic = Topic([1, 2, 3, 4]);

async fn changed(session: &mut Session, dialect: Dialect) -> &Settings {
    let event = session.next().await.unwrap();
    assert!(matches!(event, Event::Settings(lane) if lane == dialect), "{event:?}");
    &session.peer(dialect).unwrap().settings
}

#[tokio::test(start_paused = true)]
async fn waku_says_what_changed_in_one_packet() {
    for dialect in [Dialect::Waku1, Dialect::Waku0] {
        let (peer, mut session) = Scripted::in_session(dialect).await;
        let update = async |options: Options| peer.say(dialect, &Packet::StatusUpdate(options)).await;

        update(Options { pow_requirement: Some(0.5), ..Options::default() }).await;
        let settings = changed(&mut session, dialect).await;
        assert_eq!((settings.pow_requirement, settings.confirmations), (0.5, true));
        assert_eq!(settings.interest, Interest::Bloom(Bloom::FULL));

        update(Options { topic_interest: Some(vec![TOPIC, TOPIC]), light: Some(true), ..Options::default() })
            .await;
        let settings = changed(&mut session, dialect).await;
        assert_eq!(settings.interest, Interest::Topics(BTreeSet::from([TOPIC])));
        assert!(settings.light);

        let bloom = Bloom::of_topics([TOPIC]);
        update(Options { bloom: Some(bloom), ..Options::default() }).await;
        assert_eq!(changed(&mut session, dialect).await.interest, Interest::Bloom(bloom));

        let before = session.peer(dialect).unwrap().clone();
        update(Options::default()).await;
        assert_eq!(changed(&mut session, dialect).await, &before.settings);
    }
}

#[tokio::test(start_paused = true)]
async fn whisper_has_a_packet_for_each_setting() {
    let (peer, mut session) = Scripted::in_session(Dialect::Shh6).await;
    peer.say(Dialect::Shh6, &Packet::PowRequirement(0.25)).await;
    assert_eq!(changed(&mut session, Dialect::Shh6).await.pow_requirement, 0.25);

    let bloom = Bloom::of_topics([TOPIC]);
    peer.say(Dialect::Shh6, &Packet::BloomFilter(bloom)).await;
    let settings = changed(&mut session, Dialect::Shh6).await;
    assert_eq!((&settings.interest, settings.pow_requirement), (&Interest::Bloom(bloom), 0.25));

    let limits = RateLimits { ip: 1, peer: 2, topic: 3 };
    peer.say(Dialect::Shh6, &Packet::RateLimits(limits)).await;
    assert_eq!(changed(&mut session, Dialect::Shh6).await.packet_limits, limits);
}

#[tokio::test(start_paused = true)]
async fn an_update_that_cannot_be_read_changes_nothing() {
    let bloom_of = |length: usize| {
        let mut encoder = poste_codec::rlp::Encoder::new();
        encoder.list(2);
        encoder.list(2).uint(0).uint(9.0f64.to_bits());
        encoder.list(2).uint(1).bytes(&vec![0xff; length]);
        Bytes::from(encoder.finish())
    };
    let raw = |bytes: &'static [u8]| Bytes::from_static(bytes);
    // A bool of 2, an infinite proof of work, a pair of three, a topic of three bytes, and blooms that are none.
    let waku = [
        raw(b"\xc3\xc2\x02\x02"),
        raw(b"\xcb\xca\x80\x88\x7f\xf0\x00\x00\x00\x00\x00\x00"),
        raw(b"\xc4\xc3\x02\x01\x01"),
        raw(b"\xc7\xc6\x05\xc4\x83\x01\x02\x03"),
        bloom_of(0),
        bloom_of(63),
        bloom_of(65),
    ];
    unreadable(Dialect::Waku1, waku.map(|payload| (code::STATUS_UPDATE, payload)).into()).await;
    let bare_bloom = |length: usize| {
        let mut encoder = poste_codec::rlp::Encoder::new();
        encoder.bytes(&vec![0xff; length]);
        (code::BLOOM_FILTER, Bytes::from(encoder.finish()))
    };
    let shh = vec![
        // The bits of -1.0, of infinity, and of a NaN.
        (code::POW_REQUIREMENT, raw(b"\x88\xbf\xf0\x00\x00\x00\x00\x00\x00")),
        (code::POW_REQUIREMENT, raw(b"\x88\x7f\xf0\x00\x00\x00\x00\x00\x00")),
        (code::POW_REQUIREMENT, raw(b"\x88\x7f\xf8\x00\x00\x00\x00\x00\x00")),
        bare_bloom(0),
        bare_bloom(1),
        bare_bloom(63),
        bare_bloom(65),
        (code::RATE_LIMITS, raw(b"\xc2\x01\x02")),
    ];
    unreadable(Dialect::Shh6, shh).await;
}

async fn unreadable(dialect: Dialect, packets: Vec<(u8, Bytes)>) {
    let (peer, mut session) = Scripted::in_session(dialect).await;
    let before = session.peer(dialect).unwrap().clone();
    for (said, payload) in packets {
        peer.say_raw(dialect, said, payload.clone()).await;
        let event = session.next().await.unwrap();
        let expected = matches!(event, Event::Undecodable { dialect: lane, code, .. } if (lane, code) == (dialect, said));
        assert!(expected, "{said} {payload:02x?}: {event:?}");
        assert_eq!(session.peer(dialect).unwrap(), &before);
    }
}
