//! The sender among servers that are only keys: what each is asked, and what follows from its answer.

mod again;
mod failover;
mod privacy;
mod tokens;

use std::collections::BTreeSet;

use bytes::Bytes;
use poste_codec::SecretKey;
use poste_wire::status::proto::{
    PushNotification, PushNotificationReport, PushNotificationRequest, PushNotificationResponse,
};
use poste_wire::status::{
    AccessToken, ApplicationMessage, MessageId, MessageType, PushMessage, TopicName, frame,
};

use super::*;
use crate::notify::testing::{fill, key};

const WRONG_TOKEN: i32 = 1;
const INTERNAL_ERROR: i32 = 2;
const NOT_REGISTERED: i32 = 3;
const MESSAGE: MessageId = MessageId([6; 32]);

fn own() -> PublicKey {
    key(1).public()
}

fn contact() -> PublicKey {
    key(2).public()
}

fn installation(number: u8) -> InstallationId {
    InstallationId::from_random([number; 16])
}

/// Device `device` at server `server`, with token number `token`.
fn row(device: u8, server: u8, token: u8) -> KnownInfo {
    let token = AccessToken::from_random([token; 16]);
    let (installation, server) = (installation(device), key(server).public());
    let info = PushInfo { installation, server, token, version: 1 };
    KnownInfo { info, since: 0, as_of: 1, is_advertised: false }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A request as its server reads it.
#[derive(Debug, Clone)]
struct Asked {
    server: SecretKey,
    /// Who signed it, and gets the answer.
    asker: PublicKey,
    frame_signer: Option<PublicKey>,
    raw: Bytes,
    request: PushNotificationRequest,
}

impl Asked {
    fn installations(&self) -> BTreeSet<InstallationId> {
        let ids =
            self.request.requests.iter().map(|entry| InstallationId::any(&entry.installation_id).unwrap());
        ids.collect()
    }

    /// What the server would answer: the same for every entry.
    fn answer(&self, success: bool, error: i32) -> Mail {
        self.answer_each(|_| Some((success, error)))
    }

    fn answer_each(&self, report: impl Fn(&PushNotification) -> Option<(bool, i32)>) -> Mail {
        let reports = self.request.requests.iter().filter_map(|entry| {
            let (success, error) = report(entry)?;
            let (public_key, installation_id) = (entry.public_key.clone(), entry.installation_id.clone());
            Some(PushNotificationReport { success, error, public_key, installation_id })
        });
        let response = PushNotificationResponse {
            message_id: self.request.message_id.clone(),
            reports: reports.collect(),
        };
        self.mail(&response, &self.server)
    }

    fn mail(&self, response: &PushNotificationResponse, signer: &SecretKey) -> Mail {
        let kind = MessageType::PushNotificationResponse;
        let message = ApplicationMessage::write(kind, response.write(), signer);
        let data = frame::seal_asymmetric(&self.asker, &message, signer, fill(3)).unwrap();
        Mail { topic: TopicName::partitioned(&self.asker).topic(), data: data.into(), made_at: 0 }
    }
}

type Fill = Box<dyn FnMut(&mut [u8])>;

/// A sending, and its clock.
struct Lab {
    sending: Sending,
    fill: Fill,
    now: Duration,
}

impl Lab {
    fn new(known: &[KnownInfo]) -> Self {
        Self::seeded(known, SendSettings::default(), 1)
    }

    fn seeded(known: &[KnownInfo], settings: SendSettings, seed: u64) -> Self {
        Self::after(&[], known, settings, seed)
    }

    /// When the same message was sent before.
    fn after(
        earlier: &[(InstallationId, Attempt)],
        known: &[KnownInfo],
        settings: SendSettings,
        seed: u64,
    ) -> Self {
        let mut fill = Box::new(fill(seed));
        let notification = Notification { kind: NotificationKind::OneToOne, message: MESSAGE };
        let sending =
            Sending::new(own(), contact(), notification, known, earlier, settings, &mut fill).unwrap();
        Self { sending, fill, now: seconds(1000) }
    }

    fn step(&mut self) -> Step {
        self.sending.step(self.now, &mut self.fill).unwrap()
    }

    /// What servers are asked now.
    fn asked(&mut self) -> Vec<Asked> {
        match self.step() {
            Step::Publish(outgoing) => outgoing.iter().map(read).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// The one request that is made now.
    fn asked_one(&mut self) -> Asked {
        let asked = self.asked();
        assert_eq!(asked.len(), 1);
        asked[0].clone()
    }

    fn accept(&mut self, mail: &Mail) {
        self.sending.accept(mail, self.now);
    }

    /// Nothing happens for so long, and then it does.
    fn wait(&mut self, expected: Duration) {
        match self.step() {
            Step::Wait(until) => assert_eq!(until - self.now, expected),
            other => panic!("{other:?}"),
        }
        self.now += expected;
    }

    fn assert_query(&mut self) {
        assert!(matches!(self.step(), Step::Query));
    }

    /// The outcomes when all is done.
    fn outcomes(&mut self) -> Vec<Result<PublicKey, Failure>> {
        assert!(matches!(self.step(), Step::Done));
        self.sending.reports().into_iter().map(|report| report.outcome).collect()
    }
}

/// Opens a request with the key of the server that it is for.
fn read(outgoing: &Outgoing) -> Asked {
    let server = (1..=255).map(key).find(|server| frame::open_asymmetric(server, &outgoing.frame).is_ok());
    let server = server.expect("it is sealed to one of the keys");
    assert_eq!(outgoing.topic, TopicName::partitioned(&server.public()).topic());
    let plaintext = poste_wire::payload::open_asymmetric(&server, &outgoing.frame).unwrap();
    let parsed = poste_wire::payload::parse(&plaintext).unwrap();
    let raw = Bytes::copy_from_slice(parsed.payload);
    let message = ApplicationMessage::read(raw.clone()).unwrap();
    assert_eq!(message.message_type(), Some(MessageType::PushNotificationRequest));
    assert_eq!(outgoing.answer_topic, TopicName::partitioned(&message.signer).topic());
    let request = PushNotificationRequest::read(message.payload).unwrap();
    assert_eq!(request.message_id, MESSAGE.as_bytes()[..]);
    Asked { server, asker: message.signer, frame_signer: parsed.signer, raw, request }
}

#[test]
fn one_request_a_server_and_one_server_a_device() {
    // Three devices at both servers, one at the first only.
    let known: Vec<_> = [(20, 11), (20, 12), (21, 11), (21, 12), (22, 11), (22, 12), (23, 11)]
        .map(|(device, server)| row(device, server, device))
        .into();
    let mut splits = BTreeSet::new();
    for seed in 0..40 {
        let mut lab = Lab::seeded(&known, SendSettings::default(), seed);
        let asked = lab.asked();
        let servers: BTreeSet<_> = asked.iter().map(|asked| asked.server.public()).collect();
        assert_eq!(servers.len(), asked.len(), "seed {seed}: one request for each server");
        let devices: Vec<_> = asked.iter().flat_map(Asked::installations).collect();
        assert_eq!(devices.len(), 4, "seed {seed}: each device once");
        assert_eq!(devices.iter().collect::<BTreeSet<_>>().len(), 4);
        for asked in &asked {
            for entry in &asked.request.requests {
                let device = (20..24).find(|n| installation(*n).as_str() == entry.installation_id).unwrap();
                assert_eq!(entry.access_token, AccessToken::from_random([device; 16]).as_str());
            }
            lab.accept(&asked.answer(true, 0));
        }
        let outcomes = lab.outcomes();
        assert!(outcomes.iter().all(Result::is_ok));
        splits.insert(outcomes.into_iter().map(Result::unwrap).collect::<Vec<_>>());
    }
    // Three devices choose between two servers: eight ways.
    assert_eq!(splits.len(), 8, "which server is asked is random");
}

#[test]
fn the_contact_s_own_servers_come_first_and_of_these_the_latest() {
    // By the server, whether the contact has named it, and as of which version it is.
    let known = [(11, false, u64::MAX), (12, true, 2), (13, true, 1), (14, false, 7)];
    let known = known.map(|(server, is_advertised, as_of)| KnownInfo {
        is_advertised,
        as_of,
        ..row(1, server, server)
    });
    for seed in 0..8 {
        let mut lab = Lab::seeded(&known, SendSettings::default(), seed);
        for server in [12, 13, 11, 14] {
            let asked = lab.asked_one();
            assert_eq!(asked.server.public(), key(server).public(), "seed {seed}");
            lab.accept(&asked.answer(false, NOT_REGISTERED));
        }
    }
}

#[test]
fn devices_are_all_or_the_latest_or_those_that_are_named() {
    let known: Vec<_> = (20..26).map(|device| row(device, 11, 1)).collect();
    let chosen = |devices: Devices| {
        let settings = SendSettings { devices, ..SendSettings::default() };
        let mut lab = Lab::seeded(&known, settings, 1);
        let asked = lab.asked_one().installations();
        lab.sending.give_up();
        (asked, lab.sending.reports().len())
    };
    let set = |numbers: &[u8]| numbers.iter().map(|number| installation(*number)).collect::<BTreeSet<_>>();
    assert_eq!(chosen(Devices::All), (set(&[20, 21, 22, 23, 24, 25]), 6));
    assert_eq!(chosen(Devices::Latest(4)), (set(&[20, 21, 22, 23]), 4));
    assert_eq!(chosen(Devices::Latest(1)), (set(&[20, 21, 22]), 3), "at least three");
    let these = [21, 24, 24, 99].map(installation).to_vec();
    assert_eq!(chosen(Devices::These(these)), (set(&[21, 24]), 3));
}

#[test]
fn a_device_of_which_nothing_is_known_is_reported() {
    let settings = SendSettings { devices: Devices::These(vec![installation(9)]), ..SendSettings::default() };
    let mut lab = Lab::seeded(&[row(1, 11, 1)], settings, 1);
    assert_eq!(lab.outcomes(), [Err(Failure::NoServer)]);
    assert_eq!(Lab::new(&[]).outcomes(), []);
}

#[test]
fn own_devices_are_not_notified() {
    let notification = Notification { kind: NotificationKind::OneToOne, message: MESSAGE };
    let sending =
        Sending::new(own(), own(), notification, &[row(1, 11, 1)], &[], SendSettings::default(), fill(1));
    assert_eq!(sending.unwrap_err(), OwnDevicesError);
}

#[test]
fn an_answer_counts_from_the_server_that_was_asked_about_this_message_and_device() {
    let mut lab = Lab::new(&[row(1, 11, 1), row(2, 11, 2)]);
    let asked = lab.asked_one();
    let success = |entry: &PushNotification| PushNotificationReport {
        success: true,
        error: 0,
        public_key: entry.public_key.clone(),
        installation_id: entry.installation_id.clone(),
    };
    let reports: Vec<_> = asked.request.requests.iter().map(success).collect();
    let message_id = asked.request.message_id.clone();
    let good = PushNotificationResponse { message_id: message_id.clone(), reports: reports.clone() };
    let other_message = PushNotificationResponse { message_id: Bytes::from_static(&[7; 32]), ..good.clone() };
    lab.accept(&asked.mail(&good, &key(12)));
    lab.accept(&asked.mail(&other_message, &asked.server));
    let as_other_kind =
        ApplicationMessage::write(MessageType::PushNotificationQueryResponse, good.write(), &asked.server);
    let data = frame::seal_asymmetric(&asked.asker, &as_other_kind, &asked.server, fill(3)).unwrap();
    lab.accept(&Mail { data: data.into(), ..asked.answer(true, 0) });
    lab.accept(&Mail { topic: Topic([0; 4]), ..asked.answer(true, 0) });
    assert!(matches!(lab.step(), Step::Wait(_)), "none of these counts");

    let mut strange = reports;
    strange[0].public_key = Bytes::from_static(&[1; 64]);
    strange
        .push(PushNotificationReport { installation_id: installation(3).to_string(), ..strange[1].clone() });
    lab.accept(&asked.mail(&PushNotificationResponse { message_id, reports: strange }, &asked.server));
    let outcomes = lab.outcomes();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    assert!(outcomes.contains(&Err(Failure::LeftOut)));
}
