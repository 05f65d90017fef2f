//! Requests as long as they may be: what they may cost.

use poste_wire::status::proto::PushNotificationRegistration;
use poste_wire::status::{DedupeKey, InstallationId};

use super::*;
use crate::device::Device;
use crate::store::{DeviceId, NewRegistration, TokenType, TopicKeys};

const ENTRIES: u32 = 1000;
const SUCCESS: (bool, i32) = (true, 0);
const WRONG_TOKEN: (bool, i32) = (false, 1);
const NOT_REGISTERED: (bool, i32) = (false, 3);

fn installation(number: u32) -> String {
    format!("{number:08x}-3f39-4c0a-8f1e-64ad6f4a2e01")
}

async fn put(rig: &Rig, owner: &Client, registration: PushNotificationRegistration) {
    let installation = InstallationId::uuid(&registration.installation_id).unwrap();
    let new = NewRegistration {
        device: DeviceId { key: owner.hash(), installation },
        version: 1,
        token_type: TokenType::Apn,
        data: Device { came_in: DedupeKey([0; 32]), registration }.write(),
        topic_keys: TopicKeys::new(&[1; 32], &[2; 32]),
        at_unix_s: NOW.as_secs(),
    };
    rig.store.register(new).await.unwrap();
}

/// A stranger registers as much as fits, and names it a thousand times.
#[tokio::test]
async fn one_long_registration_is_opened_once() {
    let rig = Rig::new().await;
    let owner = Client::new(1);
    let mut registration = owner.registration(1);
    registration.blocked_chat_list = vec![Bytes::from_static(&[11; 64]); 10_000];
    registration.muted_chat_list = vec![Bytes::from_static(&[12; 64]); 10_000];
    registration.allowed_mentions_chat_list = vec![Bytes::from_static(&[13; 64]); 10_000];
    put(&rig, &owner, registration).await;
    let mut mention = owner.notification();
    mention.r#type = 2;
    let mut wrong = owner.notification();
    wrong.access_token.clear();
    let kinds = [(owner.notification(), SUCCESS), (mention, SUCCESS), (wrong, WRONG_TOKEN)];
    let asked = (0..ENTRIES as usize).map(|number| kinds[number % 3].clone());
    let (requests, expected): (Vec<_>, Vec<_>) = asked.unzip();
    assert_eq!(Client::new(2).notify(&rig, b"id", &requests).await, expected);
    assert_eq!((rig.world.sent_count(), rig.store.devices_looked_up()), (1, 1));
}

/// The first time nobody knows how long each is.
#[tokio::test]
async fn one_query_has_few_owners_read_who_are_known_to_be_long() {
    let rig = Rig::new().await;
    let owners = [1, 2, 3, 4, 5, 6].map(Client::new);
    for owner in &owners {
        let mut registration = owner.registration(1);
        registration.blocked_chat_list = vec![Bytes::from_static(&[11; 64]); 10_000];
        registration.muted_chat_list = vec![Bytes::from_static(&[12; 64]); 10_000];
        put(&rig, owner, registration).await;
    }
    let rig = rig.restarted().await;
    let about: Vec<_> = owners.iter().collect();
    for (asker, named) in [(10, 6), (11, 4)] {
        let asker = Client::new(asker);
        let query = asker.query_message(&about);
        assert_eq!(rig.bring_sealed(&query).await, Handled::Answered(AnswerKind::Query));
        assert_eq!(asker.read_query_answer(&rig, &query).len(), named);
    }
}

#[tokio::test]
async fn a_thousand_devices_are_reported_in_their_order() {
    let rig = Rig::new().await;
    let (owner, sender) = (Client::new(1), Client::new(2));
    for number in 0..32 {
        let registration =
            PushNotificationRegistration { installation_id: installation(number), ..owner.registration(1) };
        put(&rig, &owner, registration).await;
    }
    // Every other entry is of a device that nobody has; the devices that there are come again and again.
    let requests: Vec<_> = (0..ENTRIES)
        .map(|number| {
            let device = if number % 2 == 0 { number / 2 % 32 } else { ENTRIES + number };
            let mut asked = owner.notification();
            asked.installation_id = installation(device);
            asked
        })
        .collect();
    let request = sender.request(b"id", &requests);
    assert_eq!(rig.bring_sealed(&request).await, Handled::Answered(AnswerKind::Request));
    let reports = sender.read_reports(&rig, b"id");
    assert_eq!(reports.len(), requests.len());
    for (number, (report, asked)) in reports.iter().zip(&requests).enumerate() {
        let expected = if number % 2 == 0 { SUCCESS } else { NOT_REGISTERED };
        assert_eq!((report.success, report.error), expected, "{number}");
        assert_eq!(report.installation_id, asked.installation_id);
        assert_eq!(report.public_key, asked.public_key);
    }
    assert_eq!((rig.world.sent_count(), rig.store.devices_looked_up()), (32, 32 + 500), "each once");
    assert_eq!(rig.bring_sealed(&request).await, Handled::Answered(AnswerKind::Request));
    assert_eq!(sender.read_reports(&rig, b"id"), reports, "from memory");
    assert_eq!(rig.store.devices_looked_up(), 32 + 500);
}

/// The answer is of the length of the request, whatever the names in it: nobody can make a server say more than they
/// said themselves.
#[tokio::test]
async fn an_answer_is_no_longer_than_its_request() {
    let rig = Rig::new().await;
    let (owner, sender) = (Client::new(1), Client::new(2));
    let requests: Vec<_> = (0..ENTRIES)
        .map(|number| {
            let mut asked = owner.notification();
            asked.installation_id = format!("{number:0128}");
            asked.public_key = Bytes::from_static(&[7; 128]);
            asked
        })
        .collect();
    let request = sender.request(b"id", &requests);
    let pieces = split(request.clone(), segment::SEGMENT_LENGTH);
    for piece in &pieces {
        rig.bring_sealed(piece).await;
    }
    let answers = rig.world.take_answers();
    let bytes: usize = answers.iter().flat_map(|answer| &answer.frames).map(Vec::len).sum();
    assert!(pieces.len() > 1 && answers.len() > 1);
    assert!(bytes > 200_000 && bytes < request.len(), "{bytes} bytes for {}", request.len());
    assert_eq!(rig.store.counts().await.unwrap().answers, 0, "and it takes no place on disk");
}
