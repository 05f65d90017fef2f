use poste_wire::payload;
use poste_wire::status::proto::PushNotificationQueryResponse;
use poste_wire::status::segment;

use super::*;
use crate::notify::testing::{fill, key, neighbours};

fn answer(query: &Query, server: &SecretKey) -> Vec<u8> {
    let message_id = Bytes::copy_from_slice(query.id.as_bytes());
    let response = PushNotificationQueryResponse { message_id, success: true, ..Default::default() }.write();
    ApplicationMessage::write(MessageType::PushNotificationQueryResponse, response, server)
}

fn sealed(query: &Query, content: &[u8]) -> Mail {
    let data = frame::seal_asymmetric(&query.mailbox.public(), content, &key(9), fill(5)).unwrap();
    Mail { topic: query.answer_topic(), data: data.into(), made_at: 0 }
}

#[test]
fn a_query_is_by_a_key_of_its_own_inside_and_outside() {
    let contact = key(1).public();
    let mut fill = fill(1);
    let (first, second) = (Query::new(&contact, &mut fill), Query::new(&contact, &mut fill));
    assert_ne!(first.mailbox.public(), second.mailbox.public());
    let [deployed, specified] = Query::topics(&contact);
    let hash = HashedPublicKey::of(&contact).to_string();
    assert_eq!((deployed.as_str(), specified.as_str()), (&hash[..], &format!("0x{hash}")[..]));

    let symkey = deployed.derive_key();
    let data = first.seal(&symkey, &mut fill).unwrap();
    let plaintext = payload::open_symmetric(&symkey, &data).unwrap();
    let parsed = payload::parse(&plaintext).unwrap();
    assert_eq!(parsed.signer, Some(first.mailbox.public()));
    let message = ApplicationMessage::read(Bytes::copy_from_slice(parsed.payload)).unwrap();
    assert_eq!((message.signer, message.id), (first.mailbox.public(), first.id));
    assert_eq!(message.message_type(), Some(MessageType::PushNotificationQuery));
    let asked = PushNotificationQuery::read(message.payload).unwrap().public_keys;
    assert_eq!(asked, [HashedPublicKey::of(&contact).as_bytes()[..].to_vec()]);
}

#[test]
fn an_answer_names_the_query_and_may_come_in_segments() {
    let mut query = Query::new(&key(1).public(), fill(1));
    let mut other = Query::new(&key(1).public(), fill(2));
    let whole = answer(&query, &key(3));
    let message = query.open(&sealed(&query, &whole), 0).unwrap();
    assert_eq!(message.signer, key(3).public());
    assert!(query.read(&key(7), &message).is_some());
    assert!(other.read(&key(7), &message).is_none());
    assert!(other.open(&sealed(&query, &whole), 0).is_none());

    let pieces = segment::split(whole, 40);
    let opened: Vec<_> = pieces.iter().map(|piece| query.open(&sealed(&query, piece), 0)).collect();
    let (last, others) = opened.split_last().unwrap();
    assert!(others.len() > 1 && others.iter().all(Option::is_none));
    assert!(query.read(&key(7), last.as_ref().unwrap()).is_some());
}

/// The deployed client listens once for each topic, and so never opens the answer to the second key.
#[test]
fn two_queries_on_one_topic_get_both_their_answers() {
    let [first, second] = neighbours()
        .map(|asker| Query::new(&key(1).public(), |bytes| bytes.copy_from_slice(&*asker.to_bytes())));
    assert_eq!(first.answer_topic(), second.answer_topic());
    let mails = [&first, &second].map(|query| sealed(query, &answer(query, &key(3))));
    let mut queries = [first, second];
    for (to, mail) in mails.iter().enumerate() {
        for (at, query) in queries.iter_mut().enumerate() {
            assert_eq!(query.open(mail, 0).is_some(), at == to);
        }
    }
}
