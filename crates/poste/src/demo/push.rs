//! The second half of the story: B's phone sleeps, and rings because A asks B's push server to wake it.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use poste_client::notify::known::KnownFile;
use poste_client::notify::send::{Notification, NotificationKind, SendSettings};
use poste_client::notify::{
    Channel, ChannelOptions, Device, Mail, Profile, Receiver, ReceiverEvent, RegistrationAnswer, Sender,
};
use poste_codec::{PublicKey, SecretKey};
use poste_rlpx::Enode;
use poste_service::RunningService;
use poste_wire::status::{MessageId, TopicName, frame};
use rand::Rng;
use serde_json::Value;

use super::{PATIENCE, nobody_is_connected};
use crate::mail;

/// What A has to say. Nobody but B reads it.
const MESSAGE: &[u8] = b"Your post is here. Come and get it!";
/// How far A's and B's clocks may differ, in seconds.
const CLOCK_TOLERANCE_SECONDS: u32 = 60;

/// Tells it. `notifications` is where the push server's provider leaves them.
pub(super) async fn story(
    out: &mut impl Write,
    gateway: &RunningService,
    push: &RunningService,
    notifications: &Path,
) -> anyhow::Result<()> {
    let enode: Enode = gateway.addresses().enode.as_deref().context("the gateway has no enode")?.parse()?;
    let server = push.addresses().push_key.as_deref().context("the push server has no key")?;
    writeln!(out, "\nA push server runs here, too, and clients know it by its key:\n    {server}")?;
    writeln!(
        out,
        "Where phones would ring, by Apple or Google, it writes files: that stands for B's phone here."
    )?;
    let mut key = [0; 33];
    hex::decode_to_slice(server, &mut key).context("the push server's key")?;
    let server = PublicKey::from_compressed(&key)?;

    let [a, b] = [(), ()].map(|()| SecretKey::random(fill));
    let states = tempfile::tempdir().context("no temporary directory")?;
    let began = mail::unix_now().saturating_sub(CLOCK_TOLERANCE_SECONDS);
    let token = hex::encode(rand::random::<[u8; 32]>());
    Box::pin(register(&enode, &b, server, &token, &states.path().join("b"))).await.context("B")?;
    nobody_is_connected(gateway).await?;
    writeln!(out, "B registers a device with it, and leaves. The phone sleeps.")?;

    Box::pin(send(&enode, &a, &b.public(), &states.path().join("a"))).await.context("A")?;
    writeln!(out, "A sends B a message, asks who can wake B, and has it done. The server reports success.")?;

    let ring = ring(notifications, &token)?;
    writeln!(out, "B's device rings, once: {ring:?}. What A wrote is not in it.")?;

    let message = Box::pin(fetch(&enode, &b, began)).await.context("B")?;
    ensure!(message == MESSAGE, "B has fetched another message than A has sent");
    writeln!(out, "B comes back, fetches and opens it: {:?}.", String::from_utf8_lossy(&message))?;
    Ok(())
}

async fn channel(enode: &Enode) -> anyhow::Result<Channel> {
    Ok(Channel::connect(ChannelOptions::new(enode.clone())).await?)
}

/// Has B's device registered, and ends when the server has confirmed that.
async fn register(
    enode: &Enode,
    b: &SecretKey,
    server: PublicKey,
    token: &str,
    state: &Path,
) -> anyhow::Result<()> {
    let mut receiver = Receiver::open(channel(enode).await?, b.clone(), state, None, None).await?;
    let device = Device::Firebase { token: token.to_owned() };
    receiver.register(Profile::open_to_all(device), &[server], &[]).await?;
    let confirmed = async {
        loop {
            match receiver.step().await? {
                ReceiverEvent::Answered(RegistrationAnswer::Registered { .. }) => return Ok(()),
                ReceiverEvent::Answered(RegistrationAnswer::Refused { error, .. }) => {
                    bail!("the push server refuses to register: {error}")
                }
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, confirmed).await.context("the push server does not answer")?
}

/// Leaves a message for B, as people do, and has B's devices notified of it.
async fn send(enode: &Enode, a: &SecretKey, b: &PublicKey, state: &Path) -> anyhow::Result<()> {
    let mut channel = channel(enode).await?;
    let sealed = frame::seal_asymmetric(b, MESSAGE, a, fill)?;
    channel.publish(TopicName::partitioned(b).topic(), sealed).await?;

    let mut sender = Sender::open(channel, a.clone(), KnownFile::new(state, a.public())).await?;
    let message = MessageId::of(&a.public(), MESSAGE);
    let notification = Notification { kind: NotificationKind::OneToOne, message };
    let report = sender.notify(b, notification, SendSettings::default(), PATIENCE).await?;
    match &report.devices[..] {
        [device] => match &device.outcome {
            Ok(_) => Ok(()),
            Err(failure) => bail!("B's device was not notified: {failure}"),
        },
        devices => bail!("{} devices of B are known instead of one", devices.len()),
    }
}

/// The text that B's device shows. It rings exactly once.
fn ring(notifications: &Path, token: &str) -> anyhow::Result<String> {
    let mut rings = Vec::new();
    for entry in fs::read_dir(notifications).with_context(|| notifications.display().to_string())? {
        let entry = entry?;
        // What a provider that was killed has begun to write.
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let notification: Value = serde_json::from_slice(&fs::read(entry.path())?)?;
        // The directory may be that of an earlier story.
        if notification["token"] == token {
            rings.push(notification);
        }
    }
    let [ring] = &rings[..] else { bail!("B's device rang {} times", rings.len()) };
    Ok(ring["message"].as_str().context("the notification has no text")?.to_owned())
}

/// What was sent to B since then, of which there is one that B can open and that is no push server's.
async fn fetch(enode: &Enode, b: &SecretKey, since: u32) -> anyhow::Result<Vec<u8>> {
    let mut channel = channel(enode).await?;
    let topics = [TopicName::partitioned(&b.public()).topic()];
    let mut opened = Vec::new();
    let take = |mail: Mail| opened.extend(frame::open_asymmetric(b, &mail.data).ok());
    if let Some(why) = channel.history(&topics, since, take).await? {
        bail!("the history is not complete: {why}");
    }
    let found = opened.iter().find(|content| **content == MESSAGE);
    Ok(found.context("A's message is not in the history")?.to_vec())
}

fn fill(bytes: &mut [u8]) {
    rand::rng().fill_bytes(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_provider_left_half_written_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".1.unfinished"), r#"{"token": "#).unwrap();
        assert!(ring(dir.path(), "b").unwrap_err().to_string().contains("0 times"));
        fs::write(dir.path().join("1.json"), r#"{"token": "b", "message": "ding"}"#).unwrap();
        fs::write(dir.path().join("2.json"), r#"{"token": "c", "message": "dong"}"#).unwrap();
        assert_eq!(ring(dir.path(), "b").unwrap(), "ding");
    }
}
