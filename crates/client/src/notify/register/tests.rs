mod vectors;

use std::collections::BTreeSet;
use std::convert::Infallible;

use poste_wire::status::{InstallationId, chat_key, find_access_token, segment};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::notify::profile::Device;

const APN: &str = "token of a device";

fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes(&[byte; 32]).unwrap()
}

fn public(byte: u8) -> PublicKey {
    key(byte).public()
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn profile() -> Profile {
    Profile::open_to_all(Device::Apn { token: APN.into(), topic: "app".into() })
}

/// A registrar of key 1 with seeded randomness, and every state that it had kept.
struct Rig {
    registrar: Registrar,
    random: StdRng,
    kept: Vec<ReceiverState>,
}

impl Rig {
    fn new() -> Self {
        let state = ReceiverState::new(InstallationId::from_random([1; 16]));
        Self { registrar: Registrar::new(key(1), state), random: StdRng::seed_from_u64(1), kept: Vec::new() }
    }

    fn registered_at(servers: &[u8]) -> Self {
        let mut rig = Self::new();
        rig.register(profile(), servers);
        rig
    }

    fn register(&mut self, profile: Profile, servers: &[u8]) {
        let servers: Vec<_> = servers.iter().map(|server| public(*server)).collect();
        let (random, kept) = (&mut self.random, &mut self.kept);
        let done = self.registrar.register(profile, &servers, |bytes| random.fill_bytes(bytes), keep(kept));
        let Ok(()) = done;
    }

    fn unregister(&mut self) {
        let Ok(()) = self.registrar.unregister(keep(&mut self.kept));
    }

    fn due(&mut self, now: u64) -> Vec<Sending> {
        let (random, kept) = (&mut self.random, &mut self.kept);
        let Ok(due) = self.registrar.due(at(now), |bytes| random.fill_bytes(bytes), keep(kept));
        for sending in &due {
            let durable = self.kept.last().expect("kept before it is sent").version();
            assert!(durable >= sending.version, "version {} went out, {durable} is kept", sending.version);
        }
        due
    }

    /// The only one that is due.
    fn one(&mut self, now: u64) -> Sending {
        let mut due = self.due(now);
        assert_eq!(due.len(), 1, "at {now} s");
        due.remove(0)
    }

    fn take(&mut self, message: &ApplicationMessage) -> Option<RegistrationAnswer> {
        let Ok(answer) = self.registrar.take(message, 1_000_000, keep(&mut self.kept));
        answer
    }

    fn confirm(&mut self, sending: &Sending, server: u8) -> Option<RegistrationAnswer> {
        self.take(&answer(&key(server), sending, Ok(())))
    }

    /// After a crash: what was kept last is all that is left.
    fn crash(&mut self) {
        self.registrar = Registrar::new(key(1), self.kept.last().unwrap().clone());
    }
}

fn keep(kept: &mut Vec<ReceiverState>) -> impl FnOnce(&ReceiverState) -> Result<(), Infallible> {
    |state| {
        kept.push(state.clone());
        Ok(())
    }
}

/// What a server reads, as its specification has it: the request's id and the registration.
fn read(server: &SecretKey, sending: &Sending) -> (RequestId, PushNotificationRegistration) {
    assert_eq!(sending.topic, TopicName::personal(&server.public()).topic());
    let mut joined = segment::Reassembly::new(segment::ReassemblyBounds::default());
    let whole = sending.frames.iter().find_map(|data| {
        let content = frame::open_asymmetric(server, data).unwrap();
        let plaintext = poste_wire::payload::open_asymmetric(server, data).unwrap();
        assert_eq!(poste_wire::payload::parse(&plaintext).unwrap().signer, Some(public(1)));
        let Some(piece) = segment::Segment::read(&content) else { return Some(content) };
        match joined.accept(piece, 0, 0) {
            segment::Accepted::Complete(whole) => Some(whole),
            _ => None,
        }
    });
    let message = ApplicationMessage::read(whole.expect("all frames together")).unwrap();
    assert_eq!((message.signer, message.kind), (public(1), 16));
    let opened = SharedKey::between(server, &message.signer).open(&message.payload).unwrap();
    (RequestId::of(&message.payload), PushNotificationRegistration::read(opened.to_vec()).unwrap())
}

/// What a server answers.
fn answer(server: &SecretKey, sending: &Sending, outcome: Result<(), ErrorType>) -> ApplicationMessage {
    respond(server, read(server, sending).0.as_bytes(), outcome)
}

fn respond(signer: &SecretKey, request_id: &[u8], outcome: Result<(), ErrorType>) -> ApplicationMessage {
    let response = PushNotificationRegistrationResponse {
        success: outcome.is_ok(),
        error: outcome.err().unwrap_or_default().into(),
        request_id: Bytes::copy_from_slice(request_id),
    };
    let kind = MessageType::PushNotificationRegistrationResponse;
    ApplicationMessage::read(ApplicationMessage::write(kind, response.write(), signer).into()).unwrap()
}

#[test]
fn nothing_is_sent_before_it_is_asked_for() {
    let mut rig = Rig::new();
    assert!(rig.due(0).is_empty());
    assert_eq!(rig.registrar.next_due(), None);
    let Ok(()) = rig.registrar.register_again(|_| (), keep(&mut rig.kept));
    rig.unregister();
    assert!(rig.due(1_000_000).is_empty());
    assert!(rig.registrar.is_settled());
}

#[test]
fn all_servers_get_the_same_but_for_the_grant() {
    let mut rig = Rig::registered_at(&[11, 12, 13]);
    let due = rig.due(5);
    assert_eq!(due.len(), 3);
    let mut seen = Vec::new();
    for server in [11, 12, 13] {
        let sending = due.iter().find(|sending| sending.server == public(server)).unwrap();
        assert_eq!((sending.attempt, sending.version, sending.frames.len()), (1, 1, 1));
        let (_, mut registration) = read(&key(server), sending);
        let grant = Grant::from_bytes(&std::mem::take(&mut registration.grant)).unwrap();
        grant.verify(&public(1), &public(server), &registration.access_token).unwrap();
        seen.push(registration);
    }
    assert!(seen.iter().all(|registration| *registration == seen[0]));
    let first = &seen[0];
    assert_eq!((first.device_token.as_str(), first.apn_topic.as_str()), (APN, "app"));
    assert!(first.enabled && !first.unregister && !first.allow_from_contacts_only);
    assert_eq!((first.token_type, first.version), (1, 1));
    assert!(AccessToken::uuid(&first.access_token).is_ok());
    assert!(rig.due(5).is_empty(), "each is sent once");
}

#[test]
fn one_that_confirms_is_not_sent_again_and_one_that_is_dead_holds_up_nobody() {
    let mut rig = Rig::registered_at(&[11, 12, 13]);
    for sending in rig.due(0) {
        for server in [12, 13] {
            if sending.server == public(server) {
                let answered = rig.confirm(&sending, server);
                assert_eq!(
                    answered,
                    Some(RegistrationAnswer::Registered { server: sending.server, version: 1 })
                );
                assert_eq!(rig.confirm(&sending, server), None, "a second answer tells nothing new");
            }
        }
    }
    let standings: Vec<_> = rig.kept.last().unwrap().servers().collect();
    assert!(standings.contains(&(public(12), Standing::Registered { version: 1 })));
    assert!(standings.contains(&(public(11), Standing::Registering)));
    assert!(!rig.registrar.is_settled());
    assert_eq!(rig.one(100).server, public(11));
}

#[test]
fn attempts_back_off_and_end_and_a_change_begins_anew() {
    let mut rig = Rig::registered_at(&[11]);
    let (mut now, mut times, mut versions) = (0, Vec::new(), Vec::new());
    while let Some(next) = rig.registrar.next_due() {
        let next = next.as_secs();
        if next > now {
            assert!(rig.due(next - 1).is_empty(), "not before its time");
        }
        let sending = rig.one(next);
        assert_eq!(sending.attempt as usize, times.len() + 1);
        times.push(next - now);
        versions.push(sending.version);
        now = next;
    }
    let expected: Vec<u64> = (0..12).map(|sends| 15 * sends * 2_u64.pow(sends as u32)).collect();
    assert_eq!(times, expected);
    assert_eq!(times[..5], [0, 30, 120, 360, 960]);
    assert_eq!(versions, (1..=12).collect::<Vec<u64>>(), "a version is sent once");
    assert_eq!(rig.registrar.given_up().collect::<Vec<_>>(), [public(11)]);
    assert!(rig.due(now + 100_000_000).is_empty());

    rig.register(profile(), &[11]);
    assert_eq!(rig.registrar.given_up().count(), 0);
    let sending = rig.one(now);
    assert_eq!((sending.attempt, sending.version), (1, 13));
}

#[test]
fn servers_that_are_sent_again_together_get_one_version() {
    let mut rig = Rig::registered_at(&[11, 12, 13]);
    let due = rig.due(0);
    rig.confirm(&due.iter().find(|sending| sending.server == public(12)).unwrap().clone(), 12);
    let versions = |due: Vec<Sending>| due.iter().map(|sending| sending.version).collect::<Vec<_>>();
    assert_eq!(versions(rig.due(30)), [2, 2]);
    assert_eq!(versions(rig.due(150)), [3, 3]);
}

/// Contacts' clients drop servers of lower versions: those that others would drop for the one that was asked twice are
/// sent its version, once each.
#[test]
fn all_servers_end_with_one_version() {
    let mut rig = Rig::registered_at(&[11, 12, 13]);
    let versions = |rig: &Rig| {
        let mut versions: Vec<_> =
            rig.registrar.state().servers().map(|(_, standing)| standing.version()).collect();
        versions.sort_unstable();
        versions
    };
    let number = |sending: &Sending| [11, 12, 13].into_iter().find(|n| public(*n) == sending.server).unwrap();
    for sending in rig.due(0).iter().filter(|sending| sending.server != public(13)) {
        rig.confirm(sending, number(sending));
    }
    assert!(rig.registrar.is_level() && !rig.registrar.is_settled());
    let raised = rig.one(30);
    rig.confirm(&raised, 13);
    assert_eq!(versions(&rig), [Some(1), Some(1), Some(2)]);
    assert!(!rig.registrar.is_level() && !rig.registrar.is_settled());
    let due = rig.due(30);
    assert_eq!(
        due.iter().map(|sending| (sending.version, sending.attempt)).collect::<Vec<_>>(),
        [(2, 2), (2, 2)]
    );
    // One answer is lost. That server has no need to be sent a version that it may have: it is sent another, in time.
    rig.confirm(&due[0], number(&due[0]));
    assert_eq!(versions(&rig), [Some(1), Some(2), Some(2)]);
    assert!(rig.due(149).is_empty());
    let raised = rig.one(150);
    assert_eq!((raised.server, raised.version), (due[1].server, 3));
    rig.confirm(&raised, number(&raised));
    for sending in rig.due(150) {
        assert_eq!(sending.version, 3);
        rig.confirm(&sending, number(&sending));
    }
    assert_eq!(versions(&rig), [Some(3); 3]);
    assert!(rig.registrar.is_settled());
    assert_eq!(rig.registrar.next_due(), None);
}

#[test]
fn a_server_that_stays_behind_is_asked_no_more_than_twelve_times() {
    let mut rig = Rig::registered_at(&[11, 12]);
    let due = rig.due(0);
    let [first, second] =
        [11, 12].map(|n| due.iter().find(|sending| sending.server == public(n)).unwrap().clone());
    rig.confirm(&first, 11);
    // Our state was lost before: 12 has a later version.
    rig.take(&answer(&key(12), &second, Err(ErrorType::VersionMismatch)));
    let raised = rig.one(30);
    rig.confirm(&raised, 12);
    let mut sends = 1;
    while let Some(next) = rig.registrar.next_due() {
        assert_eq!(rig.one(next.as_secs()).server, public(11));
        sends += 1;
    }
    assert_eq!(sends, 12);
    assert_eq!(rig.registrar.given_up().count(), 0, "it serves the device all the same");
    // After a crash there is nothing to tell what was sent.
    rig.crash();
    let again = rig.one(0);
    assert!(again.version > raised.version, "{} after {}", again.version, raised.version);
    rig.confirm(&again, 11);
    let other = rig.one(0);
    assert_eq!((other.server, other.version), (public(12), again.version));
    rig.confirm(&other, 12);
    assert!(rig.registrar.is_settled());
}

#[test]
fn a_lost_answer_ends_registered() {
    let mut rig = Rig::registered_at(&[11]);
    let first = rig.one(0);
    // The server takes it, and its answer is lost. From then on it refuses this version.
    let second = rig.one(30);
    assert!(second.version > first.version);
    let answered = rig.confirm(&second, 11);
    assert_eq!(answered, Some(RegistrationAnswer::Registered { server: public(11), version: 2 }));
    // What is late tells nothing new, and a copy that is refused takes nothing away.
    assert_eq!(rig.confirm(&first, 11), None);
    let late = answer(&key(11), &first, Err(ErrorType::VersionMismatch));
    assert_eq!(rig.take(&late), None);
    assert!(rig.registrar.is_settled());
}

#[test]
fn a_late_answer_to_an_earlier_sending_counts() {
    let mut rig = Rig::registered_at(&[11]);
    let (first, second) = (rig.one(0), rig.one(30));
    let late = rig.confirm(&first, 11);
    assert_eq!(late, Some(RegistrationAnswer::Registered { server: public(11), version: 1 }));
    let newer = rig.confirm(&second, 11);
    assert_eq!(newer, Some(RegistrationAnswer::Registered { server: public(11), version: 2 }));
}

#[test]
fn a_server_that_knows_more_than_we_do_is_overtaken() {
    let mut rig = Rig::registered_at(&[11]);
    let first = rig.one(0);
    let mismatch = answer(&key(11), &first, Err(ErrorType::VersionMismatch));
    let error = Refusal::VersionMismatch;
    assert_eq!(rig.take(&mismatch), Some(RegistrationAnswer::Refused { server: public(11), error }));
    let second = rig.one(30);
    assert_eq!(second.version, 1_000_001, "beyond the time of day");
    assert_eq!(rig.kept.last().unwrap().version(), 1_000_001);
    // The answer to a copy came first.
    let success = rig.confirm(&second, 11);
    assert_eq!(success, Some(RegistrationAnswer::Registered { server: public(11), version: 1_000_001 }));
}

#[test]
fn any_other_refusal_is_told_and_the_attempts_go_on() {
    for (said, error) in [
        (ErrorType::MalformedMessage, Refusal::Malformed),
        (ErrorType::UnsupportedTokenType, Refusal::UnsupportedTokenType),
        (ErrorType::InternalError, Refusal::Internal),
        (ErrorType::UnknownErrorType, Refusal::Unknown),
    ] {
        let mut rig = Rig::registered_at(&[11]);
        let refusal = answer(&key(11), &rig.one(0), Err(said));
        assert_eq!(rig.take(&refusal), Some(RegistrationAnswer::Refused { server: public(11), error }));
        assert_eq!(rig.one(30).version, 2);
    }
}

#[test]
fn only_the_server_that_was_asked_can_answer_and_only_what_was_asked() {
    let mut rig = Rig::registered_at(&[11, 12]);
    let due = rig.due(0);
    let to_11 = due.iter().find(|sending| sending.server == public(11)).unwrap();
    let (id, _) = read(&key(11), to_11);
    // Another of our servers, a stranger, and ourselves.
    for signer in [12, 99, 1] {
        assert_eq!(rig.take(&respond(&key(signer), id.as_bytes(), Ok(()))), None);
    }
    for request_id in [&[7; 64][..], &id.as_bytes()[..63], &[]] {
        assert_eq!(rig.take(&respond(&key(11), request_id, Ok(()))), None);
    }
    // The right content as another kind of message, and rubbish as the right kind.
    let right = respond(&key(11), id.as_bytes(), Ok(()));
    for (kind, payload) in [
        (MessageType::PushNotificationResponse, right.payload.clone()),
        (MessageType::PushNotificationRegistrationResponse, Bytes::from_static(b"\xff rubbish")),
    ] {
        let message = ApplicationMessage::write(kind, payload, &key(11));
        assert_eq!(rig.take(&ApplicationMessage::read(message.into()).unwrap()), None);
    }
    assert!(rig.take(&right).is_some());
}

#[test]
fn an_answer_to_what_was_before_a_change_does_not_count() {
    let mut rig = Rig::registered_at(&[11]);
    let before = rig.one(0);
    rig.register(Profile { block_mentions: true, ..profile() }, &[11]);
    assert_eq!(rig.confirm(&before, 11), None);
    let after = rig.one(1);
    let (_, registration) = read(&key(11), &after);
    assert!(registration.block_mentions && registration.version == 2);
    assert!(rig.confirm(&after, 11).is_some());
}

#[test]
fn every_change_raises_the_version_and_the_token_stays_unless_it_must_not() {
    let contacts = |contacts: &[u8]| contacts.iter().map(|contact| public(*contact)).collect();
    let open = |known: &[u8]| Profile { contacts: contacts(known), ..profile() };
    let closed = |known: &[u8]| Profile { contacts_only: true, ..open(known) };
    let mut rig = Rig::new();
    let mut token = String::new();
    for (version, (profile, renewed)) in (1..).zip([
        (open(&[]), true),
        (open(&[]), false),
        (Profile { device: Device::Firebase { token: "other".into() }, ..open(&[]) }, false),
        (Profile { muted: BTreeSet::from(["chat".into()]), ..open(&[2]) }, false),
        (closed(&[2, 3]), true),
        (closed(&[2, 3, 4]), false),
        (closed(&[2, 3]), true),
        (open(&[2, 3]), false),
        (open(&[2]), true),
    ]) {
        rig.register(profile, &[11]);
        let (_, registration) = read(&key(11), &rig.one(0));
        assert_eq!(registration.version, version);
        assert_eq!(registration.access_token != token, renewed, "version {version}");
        token = registration.access_token;
    }
    rig.unregister();
    rig.register(open(&[2]), &[11]);
    assert_ne!(read(&key(11), &rig.one(0)).1.access_token, token, "none of before comes back");
}

#[test]
fn lists_are_what_the_owner_asked_for() {
    let mut rig = Rig::new();
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let wanted = Profile {
        contacts_only: true,
        contacts: BTreeSet::from([public(2), public(3)]),
        blocked: BTreeSet::from([public(4)]),
        muted: texts(&["muted", "joined and muted"]),
        joined: texts(&["joined", "joined and muted"]),
        block_mentions: true,
        ..profile()
    };
    rig.register(wanted, &[11, 12]);
    let due = rig.due(0);
    let [(_, registration), (_, other)] = [11, 12].map(|server| {
        read(&key(server), due.iter().find(|sending| sending.server == public(server)).unwrap())
    });
    assert_eq!(registration.allowed_key_list, other.allowed_key_list);
    assert_eq!(registration.allowed_key_list.len(), 2);
    let entries = || registration.allowed_key_list.iter().map(|entry| &entry[..]);
    for contact in [2, 3] {
        let found = find_access_token(&key(contact), &public(1), entries()).unwrap();
        assert_eq!(found.as_str(), registration.access_token, "the server gets it in clear");
    }
    assert_eq!(find_access_token(&key(4), &public(1), entries()), None);
    let hashes = |texts: &[&str]| -> Vec<Bytes> {
        let hash = |text: &&str| Bytes::copy_from_slice(&poste_wire::status::shake256_64(text.as_bytes()));
        texts.iter().map(hash).collect()
    };
    assert_eq!(registration.blocked_chat_list, hashes(&[&chat_key(&public(4))]));
    assert_eq!(registration.muted_chat_list, hashes(&["joined and muted", "muted"]));
    assert_eq!(registration.allowed_mentions_chat_list, hashes(&["joined"]));
    assert!(registration.block_mentions && registration.allow_from_contacts_only);
}

#[test]
fn unregistering_asks_every_server_until_it_confirms() {
    let mut rig = Rig::registered_at(&[11, 12]);
    for sending in rig.due(0) {
        let server = if sending.server == public(11) { 11 } else { 12 };
        rig.confirm(&sending, server);
    }
    rig.unregister();
    assert_eq!(rig.registrar.state().profile(), None);
    let due = rig.due(0);
    let first = due.iter().find(|sending| sending.server == public(11)).unwrap();
    let (_, wanted) = read(&key(11), first);
    let bare = PushNotificationRegistration {
        installation_id: rig.registrar.state().installation().to_string(),
        version: 2,
        unregister: true,
        ..Default::default()
    };
    assert_eq!(wanted, bare);
    assert_eq!(rig.confirm(first, 11), Some(RegistrationAnswer::Left { server: public(11) }));
    assert_eq!(rig.confirm(first, 11), None);
    assert!(!rig.registrar.is_settled());
    let again = rig.one(30);
    assert_eq!((again.server, again.version), (public(12), 3));
    rig.confirm(&again, 12);
    assert!(rig.registrar.is_settled());
    assert_eq!(rig.kept.last().unwrap().servers().count(), 0);
}

#[test]
fn a_server_that_is_not_wanted_any_more_is_asked_to_forget() {
    let mut rig = Rig::registered_at(&[11, 12]);
    rig.due(0);
    rig.register(profile(), &[12, 13]);
    let due = rig.due(1);
    assert_eq!(due.len(), 3);
    for sending in &due {
        let server = [11, 12, 13].into_iter().find(|server| public(*server) == sending.server).unwrap();
        assert_eq!(read(&key(server), sending).1.unregister, server == 11);
        rig.confirm(sending, server);
    }
    assert!(rig.registrar.is_settled());
    assert_eq!(rig.kept.last().unwrap().servers().count(), 2);
}

#[test]
fn no_version_is_used_again_after_a_crash() {
    let mut rig = Rig::registered_at(&[11]);
    let mut last = 0;
    let mut sent = |sending: Sending| {
        assert!(sending.version > last, "{} after {last}", sending.version);
        last = sending.version;
    };
    sent(rig.one(0));
    rig.crash();
    sent(rig.one(0));
    sent(rig.one(30));
    rig.crash();
    let Ok(()) = rig.registrar.register_again(|bytes| bytes.fill(3), keep(&mut rig.kept));
    sent(rig.one(0));
    rig.unregister();
    rig.crash();
    sent(rig.one(0));
    // Between keeping and sending.
    rig.register(profile(), &[11]);
    rig.crash();
    sent(rig.one(0));
}

#[test]
fn what_cannot_be_kept_is_not_sent() {
    let refuse = |_: &ReceiverState| Err("full");
    let fill = |bytes: &mut [u8]| bytes.fill(3);
    let mut rig = Rig::new();
    assert_eq!(rig.registrar.register(profile(), &[public(11)], fill, refuse), Err("full"));
    assert!(rig.due(0).is_empty());
    rig.register(profile(), &[11]);
    assert_eq!(rig.one(0).version, 1);
    assert_eq!(rig.registrar.due(at(30), fill, refuse), Err("full"));
    let retried = rig.one(31);
    assert_eq!((retried.version, retried.attempt), (2, 2), "no attempt was lost");
    assert_eq!(rig.registrar.unregister(refuse), Err("full"));
    assert!(rig.registrar.state().profile().is_some());
}

#[test]
fn starting_again_registers_again_what_was_registered() {
    let mut rig = Rig::registered_at(&[11, 12]);
    let due = rig.due(0);
    rig.confirm(&due[0], if due[0].server == public(11) { 11 } else { 12 });
    let token =
        read(&key(11), due.iter().find(|sending| sending.server == public(11)).unwrap()).1.access_token;
    rig.crash();
    let Ok(()) = rig.registrar.register_again(|bytes| bytes.fill(3), keep(&mut rig.kept));
    let due = rig.due(0);
    assert_eq!(due.len(), 2);
    let (_, again) = read(&key(11), due.iter().find(|sending| sending.server == public(11)).unwrap());
    assert_eq!((again.access_token, again.device_token.as_str()), (token, APN));
}

#[test]
fn a_registration_for_thousands_of_contacts_goes_in_segments() {
    let muted = (0..2500).map(|number| format!("chat {number}")).collect();
    let mut rig = Rig::new();
    rig.register(Profile { muted, ..profile() }, &[11]);
    let sending = rig.one(0);
    assert!(sending.frames.len() > 1);
    assert!(sending.frames.iter().all(|frame| frame.len() < 150 * 1024));
    assert_eq!(read(&key(11), &sending).1.muted_chat_list.len(), 2500);
    assert!(rig.confirm(&sending, 11).is_some());
}

#[test]
fn servers_are_those_asked_for_or_known_or_three_of_the_list() {
    let mut random = StdRng::seed_from_u64(5);
    let mut choose = |asked_for: &[PublicKey], state: &ReceiverState, list: &[PublicKey]| {
        choose_servers(asked_for, state, list, |bytes| random.fill_bytes(bytes))
    };
    let none = ReceiverState::new(InstallationId::from_random([1; 16]));
    let known = Rig::registered_at(&[11]).registrar.state().clone();
    let list: Vec<_> = (20..30).map(public).collect();
    assert_eq!(choose(&[public(12)], &known, &list), [public(12)]);
    assert_eq!(choose(&[], &known, &list), [public(11)]);
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        let picked = choose(&[], &none, &list);
        let distinct: BTreeSet<_> = picked.iter().copied().collect();
        assert_eq!((picked.len(), distinct.len()), (3, 3));
        seen.extend(distinct);
    }
    assert_eq!(seen.len(), 10, "each is picked some time, with this seed");
    assert_eq!(choose(&[], &none, &[list[0], list[0], list[1]]).len(), 2);
    assert!(choose(&[], &none, &[]).is_empty());
}
