//! Push notifications over real connections: the story of 71/STATUS-PUSH-NOTIFICATION-SERVER from end to end, with two servers of
//! which one is killed, through kill -9, and through a power cut.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use poste_codec::SecretKey;
use poste_doubles::gorush::Fault;
use poste_integration_tests::endurance::seed;
use poste_integration_tests::filesystem::FileSystem;
use poste_integration_tests::process::Process;
use poste_integration_tests::push::person::{PATIENCE, Person, device_token, installation};
use poste_integration_tests::push::services::{PushService, Services};
use poste_integration_tests::requirement;
use poste_integration_tests::stack::poste;
use poste_wire::status::proto::PushNotificationReport;
use poste_wire::status::{Grant, TopicName};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::time::timeout;

const VERSION_MISMATCH: i32 = 2;

const SUCCESS: (bool, i32) = (true, 0);
const UNKNOWN: (bool, i32) = (false, 0);
const WRONG_TOKEN: (bool, i32) = (false, 1);
const INTERNAL_ERROR: (bool, i32) = (false, 2);
const NOT_REGISTERED: (bool, i32) = (false, 3);

/// A registers, B asks and notifies, the device rings once; with a wrong token, again, and after A has gone it does not.
#[tokio::test(flavor = "multi_thread")]
async fn the_whole_story_over_rlpx() -> Result<()> {
    let services = Services::start().await?;
    let mut push = services.push("push", &[])?;
    let server = push.key;
    let mut a = Person::connect(services.enode()?).await?;
    let mut b = Person::connect(services.enode()?).await?;

    let registration = a.sealed(&server, &a.registration(&server, 1, 1));
    ensure!(a.register(&server, &registration).await? == Ok(()));

    let topic = TopicName::query(&a.hash());
    let info = b.ask(&server, &topic, &b.query(&a.hash())).await?;
    ensure!(info.len() == 1, "{} devices", info.len());
    ensure!(info[0].public_key == a.hash().as_bytes()[..] && info[0].installation_id == installation(1));
    Grant::from_bytes(&info[0].grant)?.verify(&a.key.public(), &server, &info[0].access_token)?;

    let mut notification = Person::notification(&a.hash(), 1);
    notification.access_token.clone_from(&info[0].access_token);
    let request = b.request(b"chat message", vec![notification.clone()]);
    ensure!(codes(&b.notify(&server, b"chat message", &request).await?) == [SUCCESS]);
    let pushes = timeout(PATIENCE, services.gorush.wait_for_pushes(1)).await?;
    ensure!(pushes[0].token == device_token(1) && pushes[0].platform == 1 && pushes[0].has_rung);
    let rang = &pushes[0].notification;
    ensure!(rang["message"] == "You have a new message" && rang["topic"] == "im.status.ethereum", "{rang}");
    let hash = format!("0x{}", hex::encode(a.hash().as_bytes()));
    ensure!(rang["data"]["publicKey"] == hash && rang["data"]["encryptedMessage"] == "0x", "{rang}");

    // The same message again is answered, and rings nowhere.
    ensure!(codes(&b.notify(&server, b"chat message", &request).await?) == [SUCCESS]);
    let wrong = {
        let mut wrong = notification.clone();
        wrong.access_token = "00000000-0000-4000-8000-000000000000".into();
        b.request(b"a guess", vec![wrong])
    };
    ensure!(codes(&b.notify(&server, b"a guess", &wrong).await?) == [WRONG_TOKEN]);

    // While gorush is away nothing is sent, and the sender hears it; the same request is sent when it is back, once.
    services.gorush.go_down().await;
    let later = b.request(b"while it was down", vec![notification.clone()]);
    ensure!(codes(&b.notify(&server, b"while it was down", &later).await?) == [INTERNAL_ERROR]);
    services.gorush.come_back().await?;
    ensure!(codes(&b.notify(&server, b"while it was down", &later).await?) == [SUCCESS]);
    ensure!(codes(&b.notify(&server, b"while it was down", &later).await?) == [SUCCESS]);
    timeout(PATIENCE, services.gorush.wait_for_pushes(2)).await?;

    let gone = a.sealed(&server, &a.unregistration(1, 2));
    ensure!(a.register(&server, &gone).await? == Ok(()));
    let after = b.request(b"after A went", vec![notification]);
    ensure!(codes(&b.notify(&server, b"after A went", &after).await?) == [NOT_REGISTERED]);
    let old = a.sealed(&server, &a.registration(&server, 1, 1));
    ensure!(a.register(&server, &old).await? == Err(VERSION_MISMATCH));

    // Nobody answers a query about A any more; what comes behind it in the stream is answered.
    let mut c = Person::connect(services.enode()?).await?;
    c.send_query(&topic, &c.query(&a.hash())).await?;
    let behind = b.request(b"behind it", Vec::new());
    ensure!(b.notify(&server, b"behind it", &behind).await?.is_empty());
    c.hears_nothing(Duration::from_millis(300)).await?;

    services.gorush.settle().await;
    ensure!(services.gorush.pushes().len() == 2, "{:?}", services.gorush.pushes());
    push.service.stop()
}

/// A registers at two servers with the program that people use; one is killed; B, who knows both from A's advertisement and their
/// answers, has A's device notified all the same, once; and not through the other one when B sends the same again.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_servers_the_one_that_lives_is_asked() -> Result<()> {
    let services = Services::start().await?;
    let mut servers = [services.push("first", &[])?, services.push("second", &[])?];
    let home = tempfile::tempdir()?;
    let [a, b] = ["a", "b"].map(|name| home.path().join(format!("{name}.key")));
    for key in [&a, &b] {
        poste()?.args(["key", "new", "--file"]).arg(key).output()?;
    }
    let name = |server: &PushService| hex::encode(server.key.to_compressed());
    let notify = |what: &str, key: &Path, arguments: &[&str]| {
        let mut command = poste()?;
        command.args(["notify", what, "--json", "--enode", services.enode()?, "--key"]).arg(key);
        command.arg("--state").arg(key.with_extension("state")).args(arguments);
        Process::start(what, &mut command)?.finish(5 * PATIENCE)
    };
    let [first, second] = [name(&servers[0]), name(&servers[1])];
    let registration = ["--token", "a token", "--apn-topic", "im.status.ethereum"];
    let both = [&registration[..], &["--server", &first, "--server", &second]].concat();
    let registered = notify("register", &a, &both)?;
    ensure!(registered.success, "{:?}: {}", registered.events, registered.stderr);
    for server in [&first, &second] {
        let has_it = |event: &&Value| event["event"] == "registered" && event["server"] == server[..];
        ensure!(registered.events.iter().any(|event| has_it(&event)), "{:?}", registered.events);
    }

    // Which of the two is asked first is chance: each is the dead one once.
    let receiver = hex::encode(key_of(&a)?.public().to_compressed());
    for dead in [0, 1] {
        servers[dead].service.kill()?;
        let before = services.gorush.pushes().len();
        let id = hex::encode([u8::try_from(dead)? + 1; 32]);
        let sent = notify("send", &b, &["--to", &receiver, "--message-id", &id])?;
        ensure!(sent.success, "with a dead server: {:?}: {}", sent.events, sent.stderr);
        timeout(PATIENCE, services.gorush.wait_for_pushes(before + 1)).await?;
        services.gorush.settle().await;
        let pushes = services.gorush.pushes();
        ensure!(pushes.len() == before + 1, "one message rang {} times", pushes.len() - before);
        ensure!(pushes.iter().all(|push| push.token == "a token"), "{pushes:?}");
        // What was asked of it while it was dead it finds in the archive; that the other one has notified, it cannot know.
        servers[dead].restart()?;
        servers[dead].caught_up().await?;
        services.gorush.settle().await;
        let rang = services.gorush.pushes().len() - before;
        ensure!(rang <= 2, "one message rang {rang} times through two servers");
        let again = notify("send", &b, &["--to", &receiver, "--message-id", &id])?;
        ensure!(again.success && again.events[0]["devices"][0]["earlier"] == true, "{:?}", again.events);
        services.gorush.settle().await;
        ensure!(services.gorush.pushes().len() == before + rang, "what was notified has rung again");
    }
    Ok(())
}

/// Kill -9 at random moments while requests come: every request is answered, before or after, no message rings twice, and
/// what was reported as sent was sent.
#[tokio::test(flavor = "multi_thread")]
async fn requests_outlive_kill_9() -> Result<()> {
    const ROUNDS: usize = 6;
    const DEVICES: u32 = 8;
    let mut random = StdRng::seed_from_u64(seed(None)?);
    let services = Services::start().await?;
    let mut push = services.push("push", &[])?;
    let server = push.key;
    let mut a = Person::connect(services.enode()?).await?;
    let mut b = Person::connect(services.enode()?).await?;
    for device in 0..DEVICES {
        let registration = a.sealed(&server, &a.registration(&server, device, 1));
        ensure!(a.register(&server, &registration).await? == Ok(()));
    }

    let mut reported: BTreeMap<String, (bool, i32)> = BTreeMap::new();
    for round in 0..ROUNDS {
        let sent: Vec<_> = (0..random.random_range(10..40))
            .map(|number| {
                let id = format!("round {round}, message {number}");
                let mut notification = Person::notification(&a.hash(), random.random_range(0..DEVICES));
                // What tells in gorush which message it was.
                notification.chat_id = chat(&id).to_vec().into();
                let message = b.request(id.as_bytes(), vec![notification]);
                (id, message)
            })
            .collect();
        let killed_before = random.random_range(0..sent.len());
        for (number, (_, message)) in sent.iter().enumerate() {
            if number == killed_before {
                tokio::time::sleep(Duration::from_micros(random.random_range(0..30_000))).await;
                push.service.kill()?;
            }
            b.send_request(&server, message).await?;
        }
        // The rest came while nobody was there.
        push.restart()?;
        for (id, message) in &sent {
            // Asked again: the answer to the first one may have come before this asks.
            let reports = b.notify(&server, id.as_bytes(), message).await?;
            ensure!(reports.len() == 1, "{id}: {reports:?}");
            reported.insert(id.clone(), codes(&reports)[0]);
        }
        // A device that registers now finds a server that remembers versions and listens.
        let old = a.sealed(&server, &a.registration(&server, 0, 1));
        ensure!(a.register(&server, &old).await? == Err(VERSION_MISMATCH), "round {round}");
        let devices = b.ask(&server, &TopicName::query(&a.hash()), &b.query(&a.hash())).await?;
        ensure!(devices.len() == DEVICES as usize, "{} devices in round {round}", devices.len());
    }

    services.gorush.settle().await;
    let pushes = services.gorush.pushes();
    let mut unknown = 0;
    for (id, report) in &reported {
        let chat = format!("0x{}", hex::encode(chat(id)));
        let rang = pushes.iter().filter(|push| push.notification["data"]["chatId"] == chat).count();
        let is_true = match *report {
            SUCCESS => rang == 1,
            UNKNOWN => rang <= 1,
            _ => false,
        };
        ensure!(is_true, "{id}: reported {report:?}, and rang {rang} times");
        unknown += usize::from(*report == UNKNOWN);
    }
    println!("{} requests, {unknown} of them unknown; {} rang", reported.len(), pushes.len());
    Ok(())
}

/// The power is cut between the claim and the answer of gorush: nobody knows whether the device rang, the sender is told so,
/// and it does not ring again.
#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_between_claim_and_answer_rings_no_device_twice() -> Result<()> {
    if requirement::skipped("loop") {
        return Ok(());
    }
    let services = Services::start().await?;
    let mut disk = FileSystem::new(64 << 20)?;
    let mut push = services.push_in(&disk.path().join("push"), &[])?;
    let server = push.key;
    let mut a = Person::connect(services.enode()?).await?;
    let mut b = Person::connect(services.enode()?).await?;
    let registration = a.sealed(&server, &a.registration(&server, 1, 1));
    ensure!(a.register(&server, &registration).await? == Ok(()));

    services.gorush.set_fault(Some(Fault::Slow(Duration::from_secs(3))));
    let request = b.request(b"id", vec![Person::notification(&a.hash(), 1)]);
    b.send_request(&server, &request).await?;
    let arrived = async {
        while services.gorush.calls().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, arrived).await.context("gorush was not called")?;
    disk.cut(|| ())?;
    push.service.kill()?;
    disk.unmount()?;
    disk.mount()?;
    services.gorush.set_fault(None);

    push.restart()?;
    ensure!(codes(&b.notify(&server, b"id", &request).await?) == [UNKNOWN]);
    // The registration was answered, so it is there; and so is the version.
    let next = b.request(b"next", vec![Person::notification(&a.hash(), 1)]);
    ensure!(codes(&b.notify(&server, b"next", &next).await?) == [SUCCESS]);
    let again = a.sealed(&server, &a.registration(&server, 1, 1));
    ensure!(a.register(&server, &again).await? == Err(VERSION_MISMATCH));
    services.gorush.settle().await;
    let rang = services.gorush.calls().iter().map(|call| call.notifications().len()).sum::<usize>();
    ensure!(rang == 2, "{rang} notifications for two messages");
    push.service.stop()
}

/// The key in a file of 64 hexadecimal digits.
fn key_of(file: &Path) -> Result<SecretKey> {
    let bytes = hex::decode(std::fs::read_to_string(file)?.trim())?;
    Ok(SecretKey::from_bytes(bytes.as_slice().try_into()?)?)
}

/// A chat that only this message is in.
fn chat(id: &str) -> [u8; 64] {
    let mut chat = [0; 64];
    chat[..id.len()].copy_from_slice(id.as_bytes());
    chat
}

/// Success and error of each report.
fn codes(reports: &[PushNotificationReport]) -> Vec<(bool, i32)> {
    reports.iter().map(|report| (report.success, report.error)).collect()
}
