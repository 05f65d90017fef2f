//! One page of mail against a mailserver that says exactly what a test wants.

use std::time::Duration;

use poste_codec::SecretKey;
use poste_rlpx::Closed;
use poste_waku::mail::{self, MailError, Page, PageEnd, Sealer};
use poste_waku::{Session, SessionError};
use poste_wire::mail::{MailRequest, MailRequestPacket, RequestForm, RequestKeys, open_request};
use poste_wire::packet::{Completion, Messages, code};
use poste_wire::{Bloom, Cursor, Dialect, Envelope, Hash, Packet, SymKey, Topic};
use tokio::time::{Instant, sleep};

use crate::meeting::{Scripted, envelope, key, open};

const NOW: u32 = 1_600_000_000;
const SILENCE: Duration = Duration::from_secs(10);
const POW: f64 = 0.002;

fn sealer() -> Sealer {
    Sealer { key: SymKey::from_bytes([7; 32]).unwrap(), signer: key(3) }
}

fn request(plain_go_ethereum: bool) -> Envelope {
    let request = MailRequest::between(NOW - 100, NOW).with_limit(5);
    let mut byte = 0;
    let random = |bytes: &mut [u8]| {
        byte += 1;
        bytes.fill(byte);
    };
    mail::seal(&sealer(), &request, POW, plain_go_ethereum, NOW, random, || false).unwrap()
}

/// Asks for a page of at most five while the mailserver follows `script`, and keeps what came.
async fn page(
    peer: &mut Scripted,
    session: &mut Session,
    dialect: Dialect,
    script: impl AsyncFnOnce(&mut Scripted, Hash),
) -> (Result<Page, MailError>, Vec<Envelope>) {
    let request = request(mail::ends_by_silence(session));
    let mut taken = Vec::new();
    let (page, ()) =
        tokio::join!(mail::page(session, &request, SILENCE, 5, |envelope| taken.push(envelope)), async {
            let asked = peer.hear(dialect).await;
            assert_eq!(asked, Packet::MailRequest(MailRequestPacket::Sealed(request.clone())));
            script(peer, request.hash()).await;
        });
    (page, taken)
}

fn mail_of(numbers: impl IntoIterator<Item = u8>) -> Packet {
    Packet::MailMessages(numbers.into_iter().map(envelope).collect())
}

fn done(request_id: Hash, last: Option<&Envelope>, cursor: Option<Cursor>) -> Packet {
    let last_hash = last.map(Envelope::hash).unwrap_or_default();
    Packet::MailComplete(Completion::Done { request_id, last_hash, cursor })
}

#[tokio::test(start_paused = true)]
async fn a_page_ends_with_its_own_completion_and_no_other() {
    for dialect in [Dialect::Waku1, Dialect::Shh6] {
        let (mut peer, mut session) = Scripted::in_session(dialect).await;
        let cursor = envelope(3).cursor();
        let (page, taken) = page(&mut peer, &mut session, dialect, async |peer, id| {
            peer.say(dialect, &done(Hash([9; 32]), None, None)).await;
            peer.say(dialect, &mail_of([1, 2])).await;
            let error = "not yours".to_owned();
            let failed = Completion::Failed { request_id: Hash([9; 32]), error };
            peer.say(dialect, &Packet::MailComplete(failed)).await;
            peer.say(dialect, &mail_of([3])).await;
            peer.say(dialect, &done(id, Some(&envelope(3)), Some(cursor))).await;
        })
        .await;
        let end = PageEnd::Done { last_hash: envelope(3).hash(), cursor: Some(cursor) };
        assert_eq!(page.unwrap(), Page { received: 3, end });
        assert_eq!(taken, [envelope(1), envelope(2), envelope(3)]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_page_names_nothing() {
    let (mut peer, mut session) = Scripted::in_session(Dialect::Waku1).await;
    let (page, taken) = page(&mut peer, &mut session, Dialect::Waku1, async |peer, id| {
        peer.say(Dialect::Waku1, &done(id, None, None)).await;
    })
    .await;
    let end = PageEnd::Done { last_hash: Hash::default(), cursor: None };
    assert_eq!((page.unwrap(), taken), (Page { received: 0, end }, vec![]));
}

#[tokio::test(start_paused = true)]
async fn the_error_form_is_told_word_for_word() {
    let (mut peer, mut session) = Scripted::in_session(Dialect::Waku1).await;
    let (page, taken) = page(&mut peer, &mut session, Dialect::Waku1, async |peer, id| {
        peer.say(Dialect::Waku1, &mail_of([1])).await;
        let error = "rate limit exceeded".to_owned();
        peer.say(Dialect::Waku1, &Packet::MailComplete(Completion::Failed { request_id: id, error })).await;
    })
    .await;
    let end = PageEnd::Failed("rate limit exceeded".to_owned());
    assert_eq!(page.unwrap(), Page { received: 1, end });
    assert_eq!(taken.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn silence_counts_from_the_last_mail() {
    let (mut peer, mut session) = Scripted::in_session(Dialect::Waku1).await;
    let began = Instant::now();
    let (page, taken) = page(&mut peer, &mut session, Dialect::Waku1, async |peer, _| {
        for number in [1, 2] {
            sleep(SILENCE - Duration::from_secs(1)).await;
            peer.say(Dialect::Waku1, &mail_of([number])).await;
        }
    })
    .await;
    assert_eq!(page.unwrap(), Page { received: 2, end: PageEnd::Silence });
    assert_eq!(taken.len(), 2);
    assert_eq!(began.elapsed().as_secs(), 3 * SILENCE.as_secs() - 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_relayed_meanwhile_is_no_mail_and_no_sign_of_life() {
    let (mut peer, mut session) = Scripted::in_session(Dialect::Waku1).await;
    let began = Instant::now();
    let (page, taken) = page(&mut peer, &mut session, Dialect::Waku1, async |peer, id| {
        for number in 10..30 {
            let relayed = Packet::Messages(Messages::new(vec![envelope(number)]));
            peer.say(Dialect::Waku1, &relayed).await;
            peer.say(Dialect::Waku1, &Packet::BatchAcknowledged(id)).await;
            if number == 12 {
                peer.say(Dialect::Waku1, &mail_of([1])).await;
            }
            sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
    assert_eq!(page.unwrap(), Page { received: 1, end: PageEnd::Silence });
    assert_eq!(taken, [envelope(1)]);
    assert!(began.elapsed() < Duration::from_secs(21));
}

#[tokio::test(start_paused = true)]
async fn more_than_was_asked_for_is_too_much() {
    let (mut peer, mut session) = Scripted::in_session(Dialect::Waku1).await;
    let (page, taken) = page(&mut peer, &mut session, Dialect::Waku1, async |peer, _| {
        peer.say(Dialect::Waku1, &mail_of(1..=5)).await;
        peer.say(Dialect::Waku1, &mail_of([6])).await;
    })
    .await;
    assert_eq!(page.unwrap(), Page { received: 6, end: PageEnd::TooMuch });
    assert_eq!(taken.len(), 5);
}

/// What cannot be read may have been mail: a completion behind it would be believed wrongly.
#[tokio::test(start_paused = true)]
async fn mail_that_cannot_be_read_is_not_passed_over() {
    for (dialect, payload) in [
        (Dialect::Waku1, &b"\xc1\xc5"[..]),
        // A bare envelope is none in Waku.
        (Dialect::Waku1, &envelope(2).rlp()[..]),
        (Dialect::Shh6, b"\xc2\x01\x02"),
    ] {
        let (mut peer, mut session) = Scripted::in_session(dialect).await;
        let (page, taken) = page(&mut peer, &mut session, dialect, async |peer, id| {
            peer.say(dialect, &mail_of([1])).await;
            peer.say_raw(dialect, code::MAIL_MESSAGES, payload.to_vec()).await;
            peer.say(dialect, &done(id, Some(&envelope(1)), None)).await;
        })
        .await;
        assert_eq!(page.unwrap(), Page { received: 1, end: PageEnd::Unreadable });
        assert_eq!(taken, [envelope(1)]);
    }
}

#[tokio::test(start_paused = true)]
async fn other_packets_that_cannot_be_read_are_passed_over() {
    let (mut peer, mut session) = Scripted::in_session(Dialect::Waku1).await;
    let (page, _) = page(&mut peer, &mut session, Dialect::Waku1, async |peer, id| {
        peer.say_raw(Dialect::Waku1, code::MESSAGES, &b"\xff"[..]).await;
        peer.say_raw(Dialect::Waku1, code::MAIL_COMPLETE, &b"\x80"[..]).await;
        peer.say(Dialect::Waku1, &done(id, None, None)).await;
    })
    .await;
    assert!(matches!(page.unwrap().end, PageEnd::Done { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_mailserver_that_leaves_ends_the_page_with_an_error() {
    let (mut peer, mut session) = Scripted::in_session(Dialect::Waku1).await;
    let request = request(false);
    let mut taken = 0;
    let (page, ()) =
        tokio::join!(mail::page(&mut session, &request, SILENCE, 5, |_| taken += 1), async move {
            peer.hear(Dialect::Waku1).await;
            peer.say(Dialect::Waku1, &mail_of([1])).await;
            sleep(Duration::from_secs(1)).await;
            drop(peer);
        });
    assert!(matches!(page, Err(MailError::Session(SessionError::Closed(Closed::Eof)))), "{page:?}");
    assert_eq!(taken, 1);
}

#[tokio::test(start_paused = true)]
async fn a_go_ethereum_is_asked_in_its_own_layout_and_ends_by_silence() {
    let (mut peer, connection) = Scripted::sharing(&[Dialect::Shh6]).await;
    let four_items = [&b"\xf8\x45\x06\x80\xb8\x40"[..], &[0xff; 64], b"\x80"].concat();
    peer.say_raw(Dialect::Shh6, code::STATUS, four_items).await;
    let mut session = open(connection).await.unwrap();
    assert!(matches!(peer.hear(Dialect::Shh6).await, Packet::Status(_)));
    assert!(mail::ends_by_silence(&session));
    let (page, taken) = page(&mut peer, &mut session, Dialect::Shh6, async |peer, _| {
        for number in 1..=3 {
            peer.say_raw(Dialect::Shh6, code::MAIL_MESSAGES, envelope(number).rlp().clone()).await;
        }
    })
    .await;
    assert_eq!(page.unwrap(), Page { received: 3, end: PageEnd::Silence });
    assert_eq!(taken, [envelope(1), envelope(2), envelope(3)]);
}

#[test]
fn requests_are_sealed_in_the_layout_that_the_peer_reads() {
    let Sealer { key, signer } = sealer();
    for (plain, form) in [(false, RequestForm::Deployed), (true, RequestForm::Binary)] {
        let envelope = request(plain);
        assert_eq!((envelope.topic(), envelope.ttl(), envelope.sent()), (Topic::default(), 50, NOW));
        let keys = RequestKeys { password: Some(&key), node: None };
        let opened = open_request(&envelope, keys, POW).unwrap();
        assert_eq!(opened.signer, signer.public());
        let (read, read_form) = MailRequest::decode(&opened.payload).unwrap();
        assert_eq!(read_form, form);
        assert_eq!((read.lower, read.upper, read.limit), (NOW - 100, NOW, 5));
        assert_eq!(&read.bloom[..], Bloom::FULL.as_bytes());
        assert_eq!(read.batch, !plain);
    }
}

#[test]
fn a_request_has_more_work_than_the_mailserver_asks_for_at_least_that_of_deployed_clients() {
    let seal = |pow| {
        let random = |bytes: &mut [u8]| bytes.fill(1);
        mail::seal(&sealer(), &MailRequest::between(0, NOW), pow, false, NOW, random, || false).unwrap()
    };
    assert!(seal(0.0).pow() >= 0.002);
    assert!(seal(0.02).pow() >= 0.02);
    let stopped =
        mail::seal(&sealer(), &MailRequest::between(0, NOW), 1e6, false, NOW, |bytes| bytes.fill(1), || true);
    assert!(stopped.is_err());
}

#[test]
fn debug_tells_no_key() {
    let text = format!("{:?}", Sealer { signer: SecretKey::from_bytes(&[0xab; 32]).unwrap(), ..sealer() });
    assert!(!text.contains("abab") && !text.contains("171"), "{text}");
    assert!(!text.contains("[7"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_session_can_ask_again() {
    let (mut peer, mut session) = Scripted::in_session(Dialect::Waku1).await;
    for number in 1..=3 {
        let (page, taken) = page(&mut peer, &mut session, Dialect::Waku1, async |peer, id| {
            peer.say(Dialect::Waku1, &mail_of([number])).await;
            peer.say(Dialect::Waku1, &done(id, Some(&envelope(number)), None)).await;
        })
        .await;
        assert_eq!(page.unwrap().received, 1);
        assert_eq!(taken, [envelope(number)]);
    }
}
