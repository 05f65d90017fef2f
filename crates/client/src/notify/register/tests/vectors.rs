//! What the deployed client sends, byte for byte, from the same key, device, token and version. The vectors are those of
//! `poste-wire`: the full set from the directory that `POSTE_VECTORS` names, without it the few in its `testdata`.

use std::path::{Path, PathBuf};

use poste_wire::SymKey;
use poste_wire::status::proto::{ContactCodeAdvertisement, PushNotificationQueryInfo};
use poste_wire::status::transport;
use serde_json::Value;

use super::*;

fn load() -> Value {
    let directory = std::env::var_os("POSTE_VECTORS").map(PathBuf::from);
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../wire/testdata");
    let text = std::fs::read(directory.unwrap_or_else(own).join("status-push.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().expect("hex digits")).unwrap()
}

fn secret(value: &Value) -> SecretKey {
    SecretKey::from_bytes(&bytes(value).try_into().unwrap()).unwrap()
}

/// The content of a vector's frame, as its receiver opens it.
fn message(amm: &Value) -> ApplicationMessage {
    ApplicationMessage::read(bytes(&amm["bytes"]).into()).unwrap()
}

/// A device that was registered before with this token, one version earlier.
fn device(identity: &SecretKey, registration: &PushNotificationRegistration, profile: Profile) -> Registrar {
    let state = ReceiverState {
        version: registration.version - 1,
        registration: Some(Registration {
            profile,
            token: AccessToken::uuid(&registration.access_token).unwrap(),
        }),
        ..ReceiverState::new(InstallationId::uuid(&registration.installation_id).unwrap())
    };
    Registrar::new(identity.clone(), state)
}

/// The profile of a registration; hashes in lists cannot be turned back.
fn profile_of(registration: &PushNotificationRegistration) -> Profile {
    let token = registration.device_token.clone();
    Profile::open_to_all(match registration.token_type {
        1 => Device::Apn { token, topic: registration.apn_topic.clone() },
        _ => Device::Firebase { token },
    })
}

#[test]
fn registrations_are_the_deployed_clients() {
    let vectors = load();
    let mut compared = 0;
    for entry in vectors["registrations"].as_array().unwrap() {
        let server = PublicKey::from_bytes(&bytes(&entry["server_public"])).unwrap();
        let theirs = PushNotificationRegistration::read(bytes(&entry["plaintext"])).unwrap();
        let lists = [
            &theirs.allowed_key_list,
            &theirs.blocked_chat_list,
            &theirs.muted_chat_list,
            &theirs.allowed_mentions_chat_list,
        ];
        // Nobody who wants notifications says that it wants none.
        if lists.into_iter().any(|list| !list.is_empty()) || !theirs.enabled {
            continue;
        }
        let profile = profile_of(&theirs);
        let mut registrar = device(&secret(&entry["client_private"]), &theirs, profile.clone());
        let nonce = bytes(&entry["nonce"]);
        let fill = |bytes: &mut [u8]| match bytes.len() {
            12 => bytes.copy_from_slice(&nonce),
            _ => bytes.fill(1),
        };
        let kept = |_: &ReceiverState| Ok::<_, Infallible>(());
        registrar.register(profile, &[server], fill, kept).unwrap();
        let sending = registrar.due(at(0), fill, kept).unwrap().remove(0);
        let name = &entry["name"];
        assert_eq!(sending.version, theirs.version, "{name}");
        let (id, amm) = (bytes(&entry["request_id"]), bytes(&entry["amm"]["bytes"]));
        assert_eq!(registrar.requests.keys().next().unwrap().as_bytes()[..], id, "{name}");
        if let Some(private) = vectors["server"]["private"].as_str()
            && secret(&Value::from(private)).public() == server
        {
            let server = secret(&Value::from(private));
            assert_eq!(frame::open_asymmetric(&server, &sending.frames[0]).unwrap(), amm, "{name}");
        }
        compared += 1;
    }
    assert!(compared > 0);
}

fn real_key(vectors: &Value, name: &str) -> SecretKey {
    let keys = vectors["real_client"]["keys"].as_array().unwrap();
    secret(&keys.iter().find(|key| key["name"] == name).unwrap()["private"])
}

/// The first frame of a step, where the vectors have it.
fn real_frame<'v>(vectors: &'v Value, step: &str) -> Option<&'v Value> {
    let steps = vectors["real_client"]["steps"].as_array().unwrap();
    steps.iter().find(|entry| entry["step"] == step).map(|entry| &entry["frames"][0])
}

#[test]
fn advertisements_are_the_real_clients() {
    let vectors = load();
    let (server, contact) = (real_key(&vectors, "server"), real_key(&vectors, "b"));
    let mut compared = 0;
    for (name, step) in [
        ("a", "a advertises in its contact code"),
        ("c", "c advertises in its contact code (allowed key list)"),
    ] {
        let Some(theirs) = real_frame(&vectors, step) else { continue };
        let owner = real_key(&vectors, name);
        let advertisement = ContactCodeAdvertisement::read(message(&theirs["amm"]).payload).unwrap();
        let [info] = &advertisement.push_notification_info[..] else { panic!("one server") };
        let PushNotificationQueryInfo { version, installation_id, access_token, allowed_key_list, .. } =
            info.clone();
        let entries = allowed_key_list.iter().map(|entry| &entry[..]);
        let found = find_access_token(&contact, &owner.public(), entries);
        let access_token = found.map_or(access_token, |token| token.as_str().to_owned());
        let version = version + 1;
        let registration =
            PushNotificationRegistration { version, installation_id, access_token, ..Default::default() };
        let profile = Profile { contacts_only: !allowed_key_list.is_empty(), ..profile() };
        let mut registrar = device(&owner, &registration, profile);
        let standing = Standing::Registered { version: version - 1 };
        registrar.state.servers.insert(server.public(), standing);
        // Theirs: their nonces were random.
        registrar.allowed_key_list = Some(allowed_key_list);
        let key = SymKey::from_bytes(bytes(&theirs["symkey"]).try_into().unwrap()).unwrap();
        let ours = registrar.advertisement(&key, |bytes| bytes.fill(1)).unwrap();
        assert_eq!(theirs["content_topic"], format!("/waku/1/0x{}/rfc26", ours.topic));
        let content = frame::open_symmetric(&key, &ours.frames[0]).unwrap();
        assert_eq!(transport::unwrap(content), bytes(&theirs["amm"]["bytes"]), "{step}");
        compared += 1;
    }
    assert!(compared > 0);
}

#[test]
fn the_end_of_a_registration_is_the_real_clients() {
    let vectors = load();
    let Some(theirs) = real_frame(&vectors, "a unregisters") else { return };
    let shared = SharedKey::between(&real_key(&vectors, "server"), &real_key(&vectors, "a").public());
    let opened = shared.open(&message(&theirs["amm"]).payload).unwrap();
    let mut theirs = PushNotificationRegistration::read(opened.to_vec()).unwrap();
    // Theirs has the grant of an empty token, which no server looks at.
    theirs.grant.clear();
    let mut rig = Rig::registered_at(&[11]);
    rig.registrar.state.installation = InstallationId::uuid(&theirs.installation_id).unwrap();
    rig.registrar.state.version = theirs.version - 1;
    rig.unregister();
    assert_eq!(read(&key(11), &rig.one(0)).1, theirs);
}
