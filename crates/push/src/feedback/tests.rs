use poste_provider::{FailureReason, NotificationKey, Reference, Service};
use poste_wire::status::proto::push_notification_registration_response::ErrorType;

use super::*;
use crate::server::tests::client::Client;
use crate::server::tests::{NOW, Rig};
use crate::store::RegistrationStore;

const LATER: Duration = Duration::from_secs(NOW.as_secs() + 2);

fn dead(client: &Client, token: &str, sent_at: Duration) -> Feedback {
    Feedback {
        reference: Reference::new(client.hash().as_bytes()).unwrap(),
        sent_at,
        service: Service::Apns,
        token: NotificationKey::new([5; 32]).fingerprint(&DeviceToken::new(token)),
        reason: FailureReason::Unregistered,
        verdict: Verdict::Dead,
    }
}

#[tokio::test]
async fn a_dead_token_is_forgotten_and_the_version_stays() {
    let rig = Rig::new().await;
    let (receiver, sender) = (Client::new(1), Client::new(2));
    receiver.register(&rig, &receiver.registration(7)).await.unwrap();
    assert_eq!(rig.server.take_feedback(&dead(&receiver, "device token", LATER)).await.unwrap(), 1);
    assert_eq!(rig.server.take_feedback(&dead(&receiver, "device token", LATER)).await.unwrap(), 0);
    assert_eq!(sender.notify(&rig, b"id", &[receiver.notification()]).await, [(false, 3)], "NOT_REGISTERED");
    assert!(!rig.server.wants(receiver.query_topic().topic()));
    let refused = receiver.register(&rig, &receiver.registration(7)).await;
    assert_eq!(refused, Err(ErrorType::VersionMismatch));
    assert_eq!(receiver.register(&rig, &receiver.registration(8)).await, Ok(()));
    assert_eq!(sender.notify(&rig, b"id", &[receiver.notification()]).await, [(true, 0)]);
}

#[tokio::test]
async fn a_late_failure_deletes_nothing_newer() {
    let rig = Rig::new().await;
    let receiver = Client::new(1);
    receiver.register(&rig, &receiver.registration(1)).await.unwrap();
    let kept = Feedback { verdict: Verdict::Keep, ..dead(&receiver, "device token", LATER) };
    for feedback in [
        kept,
        dead(&receiver, "an older token", LATER),
        // Registered after the push, if only within the same second.
        dead(&receiver, "device token", NOW - Duration::from_secs(1)),
        dead(&receiver, "device token", NOW + Duration::from_millis(500)),
        dead(&Client::new(3), "device token", LATER),
        // By somebody who knows the token, and not the server's key.
        Feedback {
            token: NotificationKey::new([6; 32]).fingerprint(&DeviceToken::new("device token")),
            ..dead(&receiver, "device token", LATER)
        },
        Feedback { reference: Reference::new(b"?").unwrap(), ..dead(&receiver, "device token", LATER) },
    ] {
        assert_eq!(rig.server.take_feedback(&feedback).await.unwrap(), 0);
    }
    assert!(rig.store.find(vec![receiver.device()]).await.unwrap()[0].is_some());
}

/// An app that was installed again has another installation id and may have the same token.
#[tokio::test]
async fn all_devices_of_the_token_are_forgotten() {
    let rig = Rig::new().await;
    let receiver = Client::new(1);
    let mut again = receiver.registration(1);
    again.installation_id = "00000000-0000-4000-8000-000000000000".into();
    let mut other = receiver.registration(1);
    other.installation_id = "00000000-0000-4000-8000-000000000001".into();
    other.device_token = "another token".into();
    for registration in [receiver.registration(1), again, other] {
        receiver.register(&rig, &registration).await.unwrap();
    }
    assert_eq!(rig.server.take_feedback(&dead(&receiver, "device token", LATER)).await.unwrap(), 2);
    assert!(rig.server.wants(receiver.query_topic().topic()));
    assert_eq!(rig.store.registrations(&receiver.hash()).await.unwrap().len(), 1);
}
