//! One lane and several: which one a packet comes on, which one is the best, and what has no lane at all.

use poste_rlpx::{Capability, Closed, DisconnectReason, Offered};
use poste_waku::{Event, SendError, Session, SessionError, mail};
use poste_wire::packet::{Messages, PacketError, Status, code};
use poste_wire::{Dialect, Packet};

use crate::meeting::{PATIENCE, Scripted, connect, envelope, offers, open, options, packet};

const BOTH: [Dialect; 2] = [Dialect::Shh6, Dialect::Waku1];

fn messages(number: u8) -> Packet {
    Packet::Messages(Messages::new(vec![envelope(number)]))
}

#[tokio::test(start_paused = true)]
async fn both_roles_meet_on_one_lane() {
    for dialect in Dialect::ALL {
        let (dialled, accepted) = connect(offers(&[dialect]), offers(&[dialect])).await;
        let (near, far) = tokio::join!(open(dialled), open(accepted));
        let (mut near, mut far) = (near.unwrap(), far.unwrap());
        for session in [&near, &far] {
            let (lane, peer) = session.best().unwrap();
            assert_eq!(lane, dialect);
            assert_eq!(peer.settings.pow_requirement, 0.002);
            assert!(peer.settings.confirmations);
            assert!(!peer.plain_go_ethereum);
        }
        near.outbound().send(dialect, &messages(1)).await.unwrap();
        assert_eq!(packet(&mut far).await, (dialect, messages(1)));
        far.outbound().send(dialect, &messages(2)).await.unwrap();
        assert_eq!(packet(&mut near).await, (dialect, messages(2)));
    }
}

#[tokio::test(start_paused = true)]
async fn two_lanes_have_a_status_and_packets_of_their_own() {
    let (dialled, accepted) = connect(offers(&BOTH), offers(&BOTH)).await;
    let (near, far) = tokio::join!(open(dialled), open(accepted));
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    for session in [&mut near, &mut far] {
        let first = session.best().unwrap().0;
        let Event::Ready(second) = session.next().await.unwrap() else { panic!("two lanes, two statuses") };
        assert_ne!(first, second);
        assert_eq!(session.best().unwrap().0, Dialect::Waku1);
        assert!(BOTH.iter().all(|lane| session.peer(*lane).is_some()));
    }
    for (number, lane) in [(1, Dialect::Shh6), (2, Dialect::Waku1), (3, Dialect::Shh6)] {
        near.outbound().send(lane, &messages(number)).await.unwrap();
        assert_eq!(packet(&mut far).await, (lane, messages(number)));
    }
}

#[tokio::test(start_paused = true)]
async fn of_waku_only_the_highest_common_version_is_a_lane() {
    let (dialled, accepted) = connect(offers(&Dialect::ALL), offers(&[Dialect::Waku0, Dialect::Waku1])).await;
    let (near, far) = tokio::join!(open(dialled), open(accepted));
    let (near, _far) = (near.unwrap(), far.unwrap());
    assert_eq!(near.best().unwrap().0, Dialect::Waku1);
    let error = near.outbound().send(Dialect::Waku0, &messages(1)).await.unwrap_err();
    assert!(matches!(error, SendError::NoLane(Dialect::Waku0)), "{error:?}");
    assert!(matches!(
        near.outbound().send(Dialect::Shh6, &messages(1)).await.unwrap_err(),
        SendError::NoLane(Dialect::Shh6)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_lane_without_status_does_not_hold_up_the_other() {
    let (mut peer, connection) = Scripted::sharing(&BOTH).await;
    peer.say(Dialect::Shh6, &Packet::Status(Status::new(options()))).await;
    let mut session = open(connection).await.unwrap();
    assert_eq!(session.best().unwrap().0, Dialect::Shh6);
    assert!(session.peer(Dialect::Waku1).is_none());
    for lane in BOTH {
        assert!(matches!(peer.hear(lane).await, Packet::Status(_)));
    }
    peer.say(Dialect::Shh6, &messages(1)).await;
    assert_eq!(packet(&mut session).await, (Dialect::Shh6, messages(1)));

    peer.say(Dialect::Waku1, &Packet::Status(Status::new(options()))).await;
    assert!(matches!(session.next().await.unwrap(), Event::Ready(Dialect::Waku1)));
    assert_eq!(session.best().unwrap().0, Dialect::Waku1);
}

#[tokio::test(start_paused = true)]
async fn a_packet_on_a_lane_without_status_ends_the_session() {
    let (mut peer, connection) = Scripted::sharing(&BOTH).await;
    peer.say(Dialect::Waku1, &Packet::Status(Status::new(options()))).await;
    let mut session = open(connection).await.unwrap();
    peer.say(Dialect::Shh6, &messages(1)).await;
    let error = session.next().await.unwrap_err();
    assert!(matches!(error, SessionError::ExpectedStatus { dialect: Dialect::Shh6, code: 1 }), "{error:?}");
    assert_eq!(peer.hear_the_end().await, Closed::Disconnected(DisconnectReason::SubprotocolError));
    let Err(SessionError::Closed(closed)) = session.next().await else { panic!("the session is over") };
    assert_eq!(closed.reason(), Some(DisconnectReason::SubprotocolError));
}

#[tokio::test(start_paused = true)]
async fn a_bridge_is_no_plain_go_ethereum_on_its_waku_lane() {
    let (peer, connection) = Scripted::sharing(&BOTH).await;
    let four_items = [&b"\xf8\x45\x06\x80\xb8\x40"[..], &[0xff; 64], b"\x80"].concat();
    peer.say_raw(Dialect::Shh6, code::STATUS, four_items).await;
    let mut session = open(connection).await.unwrap();
    assert!(mail::ends_by_silence(&session));
    peer.say(Dialect::Waku1, &Packet::Status(Status::new(options()))).await;
    session.next().await.unwrap();
    assert!(session.peer(Dialect::Shh6).unwrap().plain_go_ethereum);
    assert!(!mail::ends_by_silence(&session));
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_foreign_capability_are_skipped() {
    let eth = Offered { capability: Capability::new("eth", 63), length: 17 };
    let with_eth = || [offers(&[Dialect::Waku1]), vec![eth.clone()]].concat();
    let (peer, connection) = Scripted::offering(with_eth(), with_eth()).await;
    peer.say_on(peer.lane_of(&eth.capability), 5, &b"whatever"[..]).await;
    peer.say(Dialect::Waku1, &Packet::Status(Status::new(options()))).await;
    let mut session = open(connection).await.unwrap();
    peer.say_on(peer.lane_of(&eth.capability), 0, &b"\xff"[..]).await;
    peer.say(Dialect::Waku1, &messages(1)).await;
    assert_eq!(packet(&mut session).await, (Dialect::Waku1, messages(1)));
}

#[tokio::test(start_paused = true)]
async fn nothing_in_common_but_foreign_capabilities_is_no_session() {
    let eth = || vec![Offered { capability: Capability::new("eth", 63), length: 17 }];
    let (dialled, _accepted) = connect(eth(), eth()).await;
    let error = Session::open(dialled, options(), PATIENCE).await.unwrap_err();
    assert!(matches!(error, SessionError::NoDialect), "{error:?}");
    assert_eq!(error.label(), "no_dialect");
}

#[tokio::test(start_paused = true)]
async fn packets_of_another_dialect_are_not_sent_and_are_ignored_when_they_come() {
    let (peer, mut session) = Scripted::in_session(Dialect::Waku1).await;
    let error = session.outbound().send(Dialect::Waku1, &Packet::PowRequirement(1.0)).await.unwrap_err();
    assert!(matches!(error, SendError::Packet(PacketError::NotInDialect(Dialect::Waku1))), "{error:?}");
    for unknown in (2..=10).chain(13..=21).chain(23..=124) {
        peer.say_raw(Dialect::Waku1, unknown, &b"\xff\xff"[..]).await;
        let event = session.next().await.unwrap();
        let ignored = matches!(event, Event::Ignored { dialect: Dialect::Waku1, code } if code == unknown);
        assert!(ignored, "{unknown}: {event:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_session_ends_the_connection() {
    let (mut peer, session) = Scripted::in_session(Dialect::Waku1).await;
    let outbound = session.outbound().clone();
    drop(session);
    assert_eq!(peer.hear_the_end().await, Closed::Eof);
    let error = outbound.send(Dialect::Waku1, &messages(1)).await.unwrap_err();
    assert!(matches!(error, SendError::Closed(Closed::Dropped)), "{error:?}");
}
