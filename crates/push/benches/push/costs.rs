//! Processor time of requests and registrations, whole and by their parts.

use std::hint::black_box;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use poste_push::answer::{Answer, AnswerKind};
use poste_push::store::{AnswerId, ClaimEnd, ClaimKey, DeviceId, RegistrationStore};
use poste_wire::status::proto::{PushNotificationReport, PushNotificationRequest, PushNotificationResponse};
use poste_wire::status::{
    ApplicationMessage, Grant, HashedPublicKey, PushMessage, SharedKey, TopicName, frame,
};

use crate::people::{self, NOW, key, receiver, registration_envelope, request_envelope, stored};
use crate::report::{Report, processor_time};
use crate::rig::{Rig, write};

const RUNS: u32 = 5;
/// Messages of a run.
const MESSAGES: u32 = 400;
const RECEIVERS: u32 = 2000;
/// Entries of a long request.
const MANY: u32 = 101;
/// As many messages as the service deals with side by side.
const AT_ONCE: usize = 64;

pub(crate) fn measure(report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let directory = tempfile::tempdir()?;
    let rig = runtime.block_on(Rig::open(directory.path()))?;
    runtime.block_on(write(&rig.store, (0..RECEIVERS).map(|number| stored(receiver(number), number))))?;
    let note = |numbers: std::ops::Range<u32>| {
        let devices = numbers.map(|number| stored(receiver(number), number).device).collect();
        runtime.block_on(rig.store.note_successes(devices, NOW.as_secs()))
    };
    note(0..RECEIVERS)?;
    let owners = (0..RUNS * MESSAGES * 2).map(|number| {
        let owner = HashedPublicKey::of(&key("owner", number).public());
        stored(owner, number)
    });
    runtime.block_on(write(&rig.store, owners))?;

    let mut number = 0;
    let mut requests = |count: u32, entries: u32| -> Vec<Bytes> {
        let requests = number..number + count;
        number += count;
        let receivers = |request: u32| (0..entries).map(move |entry| (request * 7 + entry) % RECEIVERS);
        requests.map(|request| request_envelope(request, receivers(request))).collect()
    };
    let handle = |messages: Vec<Bytes>, at_once: usize| -> Result<f64> {
        let before = processor_time();
        runtime.block_on(rig.handle_all(&messages, at_once))?;
        Ok(micros(processor_time() - before) / messages.len() as f64)
    };
    // So that nothing is measured that happens once.
    handle(requests(100, 1), 1)?;

    for (at_once, how, limit) in
        [(AT_ONCE, "64 side by side", Some((600.0, 60.0))), (1, "one after the other", None)]
    {
        let mut one = Vec::new();
        let mut further = Vec::new();
        for _ in 0..RUNS {
            let single = handle(requests(MESSAGES, 1), at_once)?;
            let long = handle(requests(MESSAGES / 10, MANY), at_once)?;
            one.push(single);
            further.push((long - single) / f64::from(MANY - 1));
        }
        let [of_one, of_further] = [
            format!("a notification request with one entry, {how}: processor time"),
            format!("each further entry of a request, {how}"),
        ];
        match limit {
            Some((limit, further_limit)) => {
                report.at_most(&of_one, limit, "µs", &one);
                report.at_most(&of_further, further_limit, "µs", &further);
            }
            None => {
                report.told(&of_one, "µs", &one);
                report.told(&of_further, "µs", &further);
            }
        }
    }
    // Receivers whom nobody has notified today.
    runtime.block_on(write(
        &rig.store,
        (RECEIVERS..2 * RECEIVERS).map(|number| stored(receiver(number), number)),
    ))?;
    let first_of_a_day: Vec<f64> = (0..RUNS)
        .map(|run| {
            let messages = (0..MESSAGES).map(|message| {
                let number = 1_000_000 + run * MESSAGES + message;
                request_envelope(number, std::iter::once(RECEIVERS + run * MESSAGES + message))
            });
            handle(messages.collect(), AT_ONCE)
        })
        .collect::<Result<_>>()?;
    let what =
        "a request with one entry whose device is notified for the first time in a day, 64 side by side";
    report.told(what, "µs", &first_of_a_day);
    request_parts(report, &runtime, &rig)?;

    let mut first = 0;
    let mut registrations = || -> Vec<Bytes> {
        let owners = first..first + MESSAGES;
        first += MESSAGES;
        owners.map(|owner| registration_envelope(owner, 2)).collect()
    };
    let what = "a registration of 20 contacts, apart from the topic keys";
    let runs: Vec<f64> = (0..RUNS).map(|_| handle(registrations(), AT_ONCE)).collect::<Result<_>>()?;
    report.at_most(&format!("{what}, 64 side by side: processor time"), 1000.0, "µs", &runs);
    // Each then has a commit of its own and wakes every thread from its sleep: what a server does that has time.
    let runs: Vec<f64> = (0..RUNS).map(|_| handle(registrations(), 1)).collect::<Result<_>>()?;
    report.told(&format!("{what}, one after the other: processor time"), "µs", &runs);
    registration_parts(report)?;
    ensure!(rig.around.notifications.load(Ordering::Relaxed) > 1000);
    Ok(())
}

/// The parts of a request with one entry, each alone.
fn request_parts(report: &mut Report, runtime: &tokio::runtime::Runtime, rig: &Rig) -> Result<()> {
    let (server, asker) = (people::server(), key("asker", u32::MAX));
    let envelope = request_envelope(u32::MAX, 0..1);
    let content = frame::open_asymmetric(&server, &envelope)?;
    let message = ApplicationMessage::read(content.clone())?;
    let request = PushNotificationRequest::read(message.payload.clone())?;
    let asked = request.requests.first().context("an entry")?;
    let response = PushNotificationResponse {
        message_id: request.message_id.clone(),
        reports: vec![PushNotificationReport {
            success: true,
            error: 0,
            public_key: asked.public_key.clone(),
            installation_id: asked.installation_id.clone(),
        }],
    };
    let devices: Vec<DeviceId> =
        (0..RECEIVERS).map(|number| stored(receiver(number), number).device).collect();
    let claim = |number: u32| ClaimKey {
        message_id: number.to_be_bytes().to_vec(),
        device: devices[number as usize % devices.len()].clone(),
    };
    let part = |report: &mut Report, what: &str, work: &mut dyn FnMut(u32)| {
        let runs: Vec<f64> = (0..RUNS)
            .map(|run| {
                let before = processor_time();
                (run * MESSAGES..(run + 1) * MESSAGES).for_each(&mut *work);
                micros(processor_time() - before) / f64::from(MESSAGES)
            })
            .collect();
        report.told(what, "µs", &runs);
    };
    let asker_key = asker.public();
    part(report, "for comparison, one multiplication of a point (Diffie-Hellman)", &mut |_| {
        black_box(server.ecdh_x(black_box(&asker_key)));
    });
    part(report, "of it: opening the envelope (ECIES, the frame)", &mut |_| {
        black_box(frame::open_asymmetric(&server, black_box(&envelope)).ok());
    });
    part(report, "of it: recovering the signer", &mut |_| {
        black_box(ApplicationMessage::read(black_box(content.clone())).ok());
    });
    part(report, "of it: reading the request", &mut |_| {
        black_box(PushNotificationRequest::read(black_box(message.payload.clone())).ok());
    });
    part(report, "of it: store: an earlier answer, and the device", &mut |number| {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let device = devices[number as usize % devices.len()].clone();
        black_box(runtime.block_on(rig.store.look_up(&AnswerId(id), vec![device])).ok());
    });
    let together = |work: &(dyn Fn(u32) -> futures::future::BoxFuture<'static, ()> + Sync), first: u32| {
        let all = futures::future::join_all((first..first + AT_ONCE as u32).map(work));
        runtime.block_on(all);
    };
    for (what, ends) in
        [("store: claiming, 64 together", false), ("store: ending and remembering, 64 together", true)]
    {
        let runs: Vec<f64> = (0..RUNS)
            .map(|run| {
                let before = processor_time();
                for group in 0..MESSAGES / AT_ONCE as u32 {
                    let work = |number: u32| -> futures::future::BoxFuture<'static, ()> {
                        let (store, claim, payload) = (rig.store.clone(), claim(number), response.write());
                        let at_unix_s = Rig::time(number.into()).as_secs();
                        Box::pin(async move {
                            let done = if ends {
                                let mut id = [1; 32];
                                id[..4].copy_from_slice(&number.to_be_bytes());
                                let answer = Some((AnswerId(id), payload));
                                store.finish(vec![(claim, ClaimEnd::Sent)], answer, at_unix_s).await
                            } else {
                                store.claim(vec![claim], at_unix_s).await.map(drop)
                            };
                            black_box(done.ok());
                        })
                    };
                    together(&work, run * MESSAGES + group * AT_ONCE as u32);
                }
                let groups = f64::from(MESSAGES / AT_ONCE as u32) * AT_ONCE as f64;
                micros(processor_time() - before) / groups
            })
            .collect();
        report.told(&format!("of it: {what}"), "µs", &runs);
    }
    part(report, "of it: signing and sealing the answer", &mut |_| {
        let to = asker.public();
        let sealed = Answer::seal(&server, &to, AnswerKind::Request, response.write(), |bytes| {
            rand::Rng::fill_bytes(&mut rand::rng(), bytes);
        });
        black_box(sealed.ok());
    });
    Ok(())
}

/// The parts of a registration that a request does not have.
fn registration_parts(report: &mut Report) -> Result<()> {
    let (server, owner) = (people::server(), key("owner", 0));
    let shared = SharedKey::between(&server, &owner.public());
    let sealed = shared.seal([1; 12], &[7; 1700]);
    let grant = Grant::sign(&owner, &server.public(), "5c0fb5e9-3f71-4a6f-8e0c-1f7fbe6c1e11");
    let hash = HashedPublicKey::of(&owner.public());
    let mut part = |what: &str, times: u32, work: &dyn Fn()| {
        let runs: Vec<f64> = (0..RUNS)
            .map(|_| {
                let before = processor_time();
                (0..times).for_each(|_| work());
                micros(processor_time() - before) / f64::from(times)
            })
            .collect();
        report.told(what, "µs", &runs);
    };
    part("of it: opening what the signer sealed (ECDH, AES-GCM)", MESSAGES, &|| {
        black_box(SharedKey::between(&server, &owner.public()).open(&sealed).ok());
    });
    part("of it: verifying the grant", MESSAGES, &|| {
        black_box(
            grant.verify(&owner.public(), &server.public(), "5c0fb5e9-3f71-4a6f-8e0c-1f7fbe6c1e11").ok(),
        );
    });
    part("the keys of a new owner's two topics, on threads of their own", 10, &|| {
        black_box(TopicName::query(&hash).derive_key());
        black_box(TopicName::query_as_specified(&hash).derive_key());
    });
    Ok(())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
