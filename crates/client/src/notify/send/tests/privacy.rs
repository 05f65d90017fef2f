//! What a request tells its server, and who can tell whose it is.

use poste_wire::status::{AuthorHash, HashedChatId, HashedPublicKey, chat_key};

use super::*;
use crate::notify::testing::neighbours;

#[test]
fn every_request_is_by_a_key_of_its_own_inside_and_outside() {
    let known: Vec<_> = (1..=3).map(|n| row(n, 10 + n, n)).collect();
    let mut askers = BTreeSet::new();
    for seed in 0..2 {
        for asked in Lab::seeded(&known, SendSettings::default(), seed).asked() {
            assert_eq!(asked.frame_signer, Some(asked.asker));
            askers.insert(asked.asker);
        }
    }
    assert_eq!(askers.len(), 6);
    assert!(!askers.contains(&own()));
}

#[test]
fn a_request_holds_hashes_and_no_message() {
    let of_chat = |chat: &str| HashedChatId::of(chat).as_bytes().to_vec();
    for (kind, number, chat) in [
        (NotificationKind::OneToOne, 1, of_chat(&chat_key(&own()))),
        (NotificationKind::Group("group".into()), 1, of_chat("group")),
        (NotificationKind::Mention("public".into()), 2, of_chat("public")),
        (NotificationKind::RequestToJoin, 3, of_chat(&chat_key(&contact()))),
    ] {
        let notification = Notification { kind: kind.clone(), message: MESSAGE };
        let entry = notification.entry(&own(), &contact(), &row(1, 11, 5).info);
        let expected = PushNotification {
            access_token: AccessToken::from_random([5; 16]).as_str().to_owned(),
            chat_id: chat.into(),
            public_key: HashedPublicKey::of(&contact()).as_bytes().to_vec().into(),
            installation_id: installation(1).to_string(),
            message: Bytes::new(),
            r#type: number,
            author: AuthorHash::of(&own()).as_bytes().to_vec().into(),
        };
        assert_eq!(entry, expected, "{kind:?}");
    }
}

/// The deployed client listens once for each topic, and so never opens the answer to the second key.
#[test]
fn two_requests_whose_answers_come_on_one_topic_get_both() {
    let known = [row(1, 11, 1), row(2, 12, 2)];
    // The keys of requests are drawn before anything else.
    let mut keys = neighbours().into_iter();
    let mut rest = fill(3);
    let mut lab = Lab::new(&known);
    lab.fill = Box::new(move |bytes| match keys.next() {
        Some(key) => bytes.copy_from_slice(&*key.to_bytes()),
        None => rest(bytes),
    });
    let asked = lab.asked();
    let [first, second] = &asked[..] else { panic!("two servers") };
    assert_eq!(first.answer(true, 0).topic, second.answer(true, 0).topic);
    for asked in [second, first] {
        lab.accept(&asked.answer(true, 0));
    }
    assert_eq!(lab.outcomes(), [Ok(key(11).public()), Ok(key(12).public())]);
}
