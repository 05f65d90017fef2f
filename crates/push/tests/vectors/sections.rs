//! The lists of the vectors, each with the check of its entries.

use bytes::Bytes;
use poste_codec::SecretKey;
use poste_doubles::gorush::{Fault, Settings as DoubleSettings};
use poste_push::answer::AnswerKind;
use poste_push::server::{Handled, Unanswered};
use poste_push::store::{DeviceId, RegistrationStore};
use poste_wire::payload;
use poste_wire::status::proto::push_notification_registration_response::ErrorType;
use poste_wire::status::proto::{
    PushNotificationQueryResponse, PushNotificationRegistration, PushNotificationRegistrationResponse,
    PushNotificationRequest, PushNotificationResponse,
};
use poste_wire::status::{
    ApplicationMessage, HashedPublicKey, InstallationId, MessageType, PushMessage, SharedKey, TopicName,
};
use serde_json::Value;

use crate::differences::Ours;
use crate::entry::{Entry, Outcome, same};
use crate::rig::{Rig, in_order};
use crate::{leave, secret_key, topic};

/// A registration that the deployed server accepted or refused.
pub(crate) async fn registration(rig: &Rig, entry: &Entry<'_>, ours: Option<&Ours>) -> Outcome {
    leave(entry);
    entry.text("name")?;
    let client = secret_key(entry.value("client_private")?);
    let other = match entry.has("server_private") {
        true => Some(Rig::new(secret_key(entry.value("server_private")?)).await),
        false => None,
    };
    let rig = other.as_ref().unwrap_or(rig);
    let handled = bring(rig, entry).await?;
    let answer = rig.take_answer(&client)?;
    let request_id = entry.bytes("request_id")?;
    let recorded = recorded_payload(entry)?;
    if let Some(Ours::Silent) = ours {
        same("handled", handled, Handled::Unanswered(Unanswered::Unsealed))?;
        return same("answered", answer.is_some(), false).and_then(|()| entry.finish());
    }
    same("handled", handled, Handled::Answered(AnswerKind::Registration))?;
    let answer = answer.ok_or("no answer")?;
    same("kind", answer.message_type(), Some(MessageType::PushNotificationRegistrationResponse))?;
    let response = PushNotificationRegistrationResponse::read(answer.payload.clone())
        .map_err(|error| error.to_string())?;
    same("request id", &response.request_id[..], &request_id[..])?;
    let (success, error) = match ours {
        Some(Ours::Registered) => (true, ErrorType::UnknownErrorType),
        Some(Ours::Refused(error)) => (false, *error),
        Some(Ours::Tombstone) | None => {
            if matches!(ours, Some(Ours::Tombstone)) {
                let installation = entry.value("registration")?["installation_id"].as_str();
                let installation = InstallationId::uuid(installation.ok_or("no installation")?);
                let key = HashedPublicKey::of(&client.public());
                let device = DeviceId { key, installation: installation.map_err(|error| error.to_string())? };
                let version = rig.store.version(&device).await.map_err(|error| error.to_string())?;
                same("version kept", version, entry.value("registration")?["version"].as_u64())?;
            }
            same("answer", Some(&answer.payload[..]), recorded.as_deref())?;
            return entry.finish();
        }
        Some(other) => return Err(format!("{other:?} is nothing for a registration")),
    };
    differs(&answer, recorded.as_deref())?;
    same("success", response.success, success)?;
    same("error", response.error, error.into())?;
    entry.finish()
}

/// A message in an unusual envelope. All but the last stand for one registration of one client.
pub(crate) async fn envelope_case(rig: &Rig, entry: &Entry<'_>, at: usize, ours: Option<&Ours>) -> Outcome {
    leave(entry);
    let name = entry.text("name")?;
    let message =
        hex::decode(entry.value("amm")?.as_str().ok_or("no message")?).map_err(|e| e.to_string())?;
    let server = rig.identity.public();
    let handled = if name == "unsigned envelope" {
        let padding = vec![1; payload::padding_length(message.len(), false)];
        let plaintext = payload::build(&message, &padding, None).map_err(|error| error.to_string())?;
        let ephemeral = SecretKey::from_bytes(&[98; 32]).expect("a key");
        let data = payload::seal_asymmetric(&server, &ephemeral, [2; 16], &plaintext);
        rig.bring(TopicName::partitioned(&server).topic(), data).await
    } else {
        rig.bring_message(&message).await
    };
    let topics: Vec<_> = rig.take_answers().iter().map(|answer| answer.topic).collect();
    let recorded = if entry.has("answered") { Some(entry.flag("answered")?) } else { None };
    let expected = match ours {
        Some(Ours::Answered) => true,
        Some(Ours::Silent) => false,
        // What was not segmented is no segment, and is dealt with like any other message.
        None => recorded.unwrap_or(true),
        Some(other) => return Err(format!("{other:?} is nothing for an envelope")),
    };
    same("differs", recorded.is_some_and(|recorded| recorded != expected), ours.is_some())?;
    let is_answered = handled == Handled::Answered(AnswerKind::Registration);
    same(&format!("case {at} is answered ({handled:?})"), is_answered, expected)?;
    if is_answered {
        let signer = ApplicationMessage::read(message.into()).map_err(|error| error.to_string())?.signer;
        same("topics of the answer", topics, vec![TopicName::partitioned(&signer).topic()])?;
        for member in ["answer_to", "inner_signer"] {
            if entry.has(member) {
                same(member, entry.bytes(member)?, signer.to_sec1().to_vec())?;
            }
        }
    }
    entry.finish()
}

pub(crate) async fn query(rig: &Rig, entry: &Entry<'_>, ours: Option<&Ours>) -> Outcome {
    leave(entry);
    entry.text("name")?;
    let asker = secret_key(entry.value("ephemeral_private")?);
    bring(rig, entry).await?;
    let answer = rig.take_answer(&asker)?;
    let recorded = recorded_payload(entry)?;
    match ours {
        Some(Ours::Silent) => same("answered", answer.is_some(), false)?,
        Some(Ours::OwnerOfTheTopic) => {
            let read = |bytes: &[u8]| {
                let answer = PushNotificationQueryResponse::read(Bytes::copy_from_slice(bytes));
                answer.map_err(|error| error.to_string())
            };
            let mut expected = read(&recorded.ok_or("no recorded answer")?)?;
            let owner = entry.text("topic_string")?;
            expected.info.retain(|info| hex::encode(&info.public_key) == owner);
            same("is about somebody", expected.info.is_empty(), false)?;
            same("answer", read(&answer.ok_or("no answer")?.payload)?, expected)?;
        }
        None => {
            let answer = answer.ok_or("no answer")?;
            same("kind", answer.message_type(), Some(MessageType::PushNotificationQueryResponse))?;
            same("answer", Some(&answer.payload[..]), recorded.as_deref())?;
        }
        Some(other) => return Err(format!("{other:?} is nothing for a query")),
    }
    entry.finish()
}

/// A request for notifications: what is reported, and what gorush is asked for.
pub(crate) async fn notification(rig: &mut Rig, entry: &Entry<'_>, ours: Option<&Ours>) -> Outcome {
    leave(entry);
    let name = entry.text("name")?;
    if !["dedupe-2", "dedupe-3", "gorush-down-2"].iter().any(|later| name.starts_with(later)) {
        rig.forget_requests().await;
    }
    let own_gorush;
    let mut rig = &*rig;
    match name {
        "gorush-answers-500" => rig.gorush.set_fault(Some(Fault::ServerError)),
        "gorush-reports-failure" => {
            let dead_prefix = "device-a".to_owned();
            let settings = DoubleSettings { is_sync: true, dead_prefix, ..DoubleSettings::default() };
            own_gorush = rig.with_gorush(settings).await;
            rig = &own_gorush;
        }
        "gorush-down-1" => rig.gorush.go_down().await,
        _ => {}
    }
    let asker = secret_key(entry.value("ephemeral_private")?);
    let calls = rig.gorush.calls().len();
    let handled = bring(rig, entry).await?;
    rig.gorush.set_fault(None);
    if name == "gorush-down-1" {
        rig.gorush.come_back().await.map_err(|error| error.to_string())?;
    }
    let answer = rig.take_answer(&asker)?;
    let (_, pushed) = rig.pushed_since(calls);
    let recorded_pushes = recorded_pushes(entry)?;
    let recorded = recorded_payload(entry)?;
    let Some(ours) = ours else {
        same("pushes", pushed, recorded_pushes)?;
        same("answer", answer.as_ref().map(|answer| &answer.payload[..]), recorded.as_deref())?;
        let without_id = recorded.is_none() && handled == Handled::Unanswered(Unanswered::NoMessageId);
        same("answered", answer.is_some(), !without_id)?;
        return entry.finish();
    };
    let Ours::Reports(reports, pushes) = ours else {
        return Err(format!("{ours:?} is nothing for a request"));
    };
    let answer = answer.ok_or("no answer")?;
    differs(&answer, recorded.as_deref()).or_else(|error| {
        // Only what is pushed is different.
        if pushed == recorded_pushes { Err(error) } else { Ok(()) }
    })?;
    let response = PushNotificationResponse::read(answer.payload).map_err(|error| error.to_string())?;
    let found: Vec<_> = response.reports.iter().map(|report| (report.success, report.error)).collect();
    same("reports", &found[..], *reports)?;
    same("number of pushes", pushed.len(), *pushes)?;
    let request = entry.bytes("request")?;
    let request = PushNotificationRequest::read(request).map_err(|error| error.to_string())?;
    same("message id", response.message_id, request.message_id)?;
    entry.finish()
}

/// The vectors have client u unregistered at the end, but not the message for it.
pub(crate) async fn unregister_client_u(rig: &Rig, root: &Value) {
    let cases = root["registration_cases"].as_array().expect("a list");
    let last = cases.iter().find(|case| case["name"] == "sequence-u-5-register-again").expect("client u");
    let client = secret_key(&last["client_private"]);
    let installation = last["registration"]["installation_id"].as_str().expect("a text");
    let key = HashedPublicKey::of(&client.public());
    let device = DeviceId { key, installation: InstallationId::uuid(installation).expect("a UUID") };
    let version = rig.store.version(&device).await.expect("the store answers").expect("a version") + 1;
    let registration = PushNotificationRegistration {
        installation_id: installation.to_owned(),
        version,
        unregister: true,
        ..Default::default()
    };
    let sealed = SharedKey::between(&client, &rig.identity.public()).seal([4; 12], &registration.write());
    let message = ApplicationMessage::write(MessageType::PushNotificationRegistration, sealed, &client);
    assert_eq!(rig.bring_message(&message).await, Handled::Answered(AnswerKind::Registration));
    rig.take_answers();
    assert_eq!(rig.store.find(vec![device]).await.expect("the store answers"), [None]);
}

/// Brings the recorded frame.
async fn bring(rig: &Rig, entry: &Entry<'_>) -> Result<Handled, String> {
    let frame = entry.value("frame")?;
    let data =
        hex::decode(frame["payload"].as_str().ok_or("no payload")?).map_err(|error| error.to_string())?;
    Ok(rig.bring(topic(&frame["content_topic"])?, data).await)
}

/// The payload that the deployed server answered with, if it did.
fn recorded_payload(entry: &Entry<'_>) -> Result<Option<Vec<u8>>, String> {
    let response = entry.value("response")?;
    match response["amm"]["payload"].as_str() {
        Some(payload) => hex::decode(payload).map(Some).map_err(|error| error.to_string()),
        None if response.is_null() => Ok(None),
        None => Err("a response without a payload".into()),
    }
}

/// What the deployed server asked of gorush.
pub(crate) fn recorded_pushes(entry: &Entry<'_>) -> Result<Vec<String>, String> {
    let mut objects = Vec::new();
    for call in entry.list("gorush")? {
        let body = call["body"].as_str().ok_or("no body")?;
        let body: Value = serde_json::from_str(body).map_err(|error| error.to_string())?;
        objects.extend(body["notifications"].as_array().ok_or("no notifications")?.iter().cloned());
    }
    Ok(in_order(objects))
}

/// A difference that is listed must be one.
fn differs(answer: &ApplicationMessage, recorded: Option<&[u8]>) -> Outcome {
    if recorded == Some(&answer.payload[..]) { Err("the answer does not differ".into()) } else { Ok(()) }
}
