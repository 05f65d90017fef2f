//! Everything that real clients sent to the real server, sent to ours. What it answers is compared with what the real one
//! answered, where the receiver's key was recorded; elsewhere only where the answer went.

use poste_codec::SecretKey;
use poste_push::answer::AnswerKind;
use poste_push::server::Handled;
use poste_wire::Topic;
use poste_wire::status::proto::push_notification_registration_response::ErrorType;
use poste_wire::status::proto::{PushNotificationRegistration, PushNotificationRegistrationResponse};
use poste_wire::status::{PushMessage, SharedKey};
use serde_json::Value;

use crate::entry::{Entry, Outcome, same};
use crate::rig::Rig;
use crate::sections::recorded_pushes;
use crate::{leave, topic};

const CONTACT_CODE: u64 = 15;
const REGISTRATION: u64 = 16;
/// Registrations, queries and requests.
const ASKED: [u64; 3] = [REGISTRATION, 18, 20];

/// What a client sent, by kind, and where ours answered.
struct Asked {
    kind: u64,
    answered_on: Topic,
    payload: Option<Vec<u8>>,
    /// A registration without a version.
    is_empty: bool,
}

pub(crate) async fn step(rig: &Rig, clients: &[SecretKey], entry: &Entry<'_>) -> Outcome {
    leave(entry);
    let frames = entry.list("frames")?;
    let calls = rig.gorush.calls().len();
    let mut asked = Vec::new();
    for frame in frames {
        let kind = frame["amm"]["type"].as_u64().ok_or("no type")?;
        let data = hex(&frame["payload"])?;
        if ASKED.contains(&kind) {
            asked.push(ask(rig, clients, frame, kind, data).await?);
        } else if kind == CONTACT_CODE {
            let handled = rig.bring(topic(&frame["content_topic"])?, data).await;
            same("a contact code is answered", matches!(handled, Handled::Answered(_)), false)?;
        }
    }
    let recorded = frames.iter().filter(|frame| {
        let kind = frame["amm"]["type"].as_u64();
        kind.is_some_and(|kind| !ASKED.contains(&kind) && kind != CONTACT_CODE)
    });
    for frame in recorded {
        // Each answer's kind follows that of its question.
        let kind = frame["amm"]["type"].as_u64().ok_or("no type")? - 1;
        let answered_on = topic(&frame["content_topic"])?;
        let recorded = hex(&frame["amm"]["payload"])?;
        let matching = asked.iter().position(|asked| {
            let same_request = match (&asked.payload, kind) {
                (Some(payload), REGISTRATION) => {
                    request_id(payload).is_some_and(|id| request_id(&recorded) == Some(id))
                }
                _ => true,
            };
            asked.kind == kind && asked.answered_on == answered_on && same_request
        });
        let asked = asked.remove(matching.ok_or("no answer of ours for a recorded one")?);
        compare(&asked, &recorded)?;
    }
    same("answers that were not recorded", asked.len(), 0)?;
    same("pushes", rig.pushed_since(calls).1, recorded_pushes(entry)?)?;
    entry.finish()
}

async fn ask(
    rig: &Rig,
    clients: &[SecretKey],
    frame: &Value,
    kind: u64,
    data: Vec<u8>,
) -> Result<Asked, String> {
    let expected = match kind {
        REGISTRATION => AnswerKind::Registration,
        18 => AnswerKind::Query,
        _ => AnswerKind::Request,
    };
    let handled = rig.bring(topic(&frame["content_topic"])?, data).await;
    same("handled", handled, Handled::Answered(expected))?;
    let signer = hex(&frame["amm"]["signer"])?;
    let client = clients.iter().find(|key| key.public().to_sec1()[..] == signer[..]);
    let Some(client) = client else {
        let answers = rig.take_answers();
        let [answer] = &answers[..] else { return Err("not one answer".into()) };
        return Ok(Asked { kind, answered_on: answer.topic, payload: None, is_empty: false });
    };
    let answer = rig.take_answer(client)?.ok_or("no answer")?;
    let answered_on = poste_wire::status::TopicName::partitioned(&client.public()).topic();
    let is_empty = kind == REGISTRATION && {
        let opened =
            SharedKey::between(&rig.identity, &client.public()).open(&hex(&frame["amm"]["payload"])?);
        let opened = opened.map_err(|error| error.to_string())?.to_vec();
        PushNotificationRegistration::read(opened).map_err(|error| error.to_string())?.version == 0
    };
    Ok(Asked { kind, answered_on, payload: Some(answer.payload.to_vec()), is_empty })
}

fn compare(asked: &Asked, recorded: &[u8]) -> Outcome {
    match &asked.payload {
        None => Ok(()),
        Some(payload) if asked.is_empty => {
            // Version 0 is malformed, not a mismatch (C9); the real client treats all refusals alike.
            let read = |bytes: &[u8]| PushNotificationRegistrationResponse::read(bytes.to_vec());
            let (ours, recorded) = (read(payload).map_err(text)?, read(recorded).map_err(text)?);
            same("recorded error", recorded.error, ErrorType::VersionMismatch.into())?;
            same("our error", ours.error, ErrorType::MalformedMessage.into())?;
            same("success", ours.success, false)
        }
        Some(payload) => same("answer", &payload[..], recorded),
    }
}

fn request_id(payload: &[u8]) -> Option<Vec<u8>> {
    Some(PushNotificationRegistrationResponse::read(payload.to_vec()).ok()?.request_id.to_vec())
}

fn hex(value: &Value) -> Result<Vec<u8>, String> {
    hex::decode(value.as_str().ok_or("no text")?).map_err(text)
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
