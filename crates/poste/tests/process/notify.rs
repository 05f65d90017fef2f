//! `poste notify`, against a stack of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use super::ctl::{ctl_json, text};
use super::*;

/// A key that nobody has: the generator of the curve.
const NOBODY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

/// Somebody with a stack, a key file and a state directory.
struct Owner {
    server: Server,
    dir: tempfile::TempDir,
}

impl Owner {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let server = start(&["up", "--data", data.to_str().unwrap(), "--ephemeral-ports"]);
        wait_until_ready(&server);
        let owner = Self { server, dir };
        assert!(output(&["key", "new", "--file", &owner.path("key")]).status.success());
        owner
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn push_key(&self) -> &str {
        self.server.ready["push_key"].as_str().unwrap()
    }

    fn notify(&self, command: &str, arguments: &[&str]) -> Output {
        let (state, enode) = (self.path("state"), self.server.ready["enode"].as_str().unwrap());
        let common = ["notify", command, "--enode", enode, "--state", &state];
        output(&[&common[..], arguments].concat())
    }

    /// With the key of the key file, and what it printed as JSON.
    fn events(&self, command: &str, arguments: &[&str]) -> (Vec<Value>, Option<i32>) {
        let key = self.path("key");
        let done = self.notify(command, &[&["--key", &key, "--json"], arguments].concat());
        let lines = text(&done.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (lines, done.status.code())
    }
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

#[test]
fn a_device_is_registered_advertised_and_forgotten() {
    let owner = Owner::new();
    let (server, contact) = (owner.push_key(), NOBODY);
    let device = ["--token", "token", "--apn-topic", "app", "--contacts-only", "--contact", contact];
    let (events, code) = owner.events("register", &[&device[..], &["--server", server]].concat());
    assert_eq!(names(&events), ["registering", "sent", "registered", "advertised", "summary"]);
    assert_eq!(code, Some(0));
    assert_eq!(events[2], json!({ "event": "registered", "server": server, "version": 1 }));
    assert_eq!(events[4], json!({ "event": "summary", "confirmed": 1, "asked": 1 }));
    let state = fs::metadata(Path::new(&owner.path("state")).join("receiver.json")).unwrap();
    assert_eq!(state.permissions().mode() & 0o777, 0o600);

    let (stats, _) = ctl_json(&owner.server.admin("push"), &["push", "stats"]);
    assert_eq!(stats["store"]["registrations"], json!(1));

    // The server is known by now, and the version grows.
    let token = owner.path("token");
    fs::write(&token, "other\n").unwrap();
    let (again, code) = owner.events("register", &["--token-file", &token, "--firebase"]);
    assert_eq!((&again[2]["version"], code), (&json!(2), Some(0)), "{again:?}");
    assert_eq!(again[0]["installation"], events[0]["installation"]);

    let (told, code) = owner.events("advertise", &[]);
    assert_eq!((names(&told), code), (vec!["advertised"], Some(0)));

    let (events, code) = owner.events("unregister", &[]);
    assert_eq!((names(&events), code), (vec!["sent", "unregistered", "summary"], Some(0)));
    let (stats, _) = ctl_json(&owner.server.admin("push"), &["push", "stats"]);
    assert_eq!((&stats["store"]["registrations"], &stats["store"]["tombstones"]), (&json!(0), &json!(1)));
    let (events, code) = owner.events("advertise", &[]);
    assert_eq!((events.len(), code), (0, Some(1)));
}

#[test]
fn some_servers_are_better_than_none_but_not_all() {
    let owner = Owner::new();
    let servers = ["--server", owner.push_key(), "--server", NOBODY];
    let device = ["--anonymous", "--token", "token", "--firebase", "--timeout", "3s"];
    let partly = owner.notify("register", &[&device[..], &servers].concat());
    let told = text(&partly.stdout);
    assert_eq!(partly.status.code(), Some(1), "{told}");
    assert!(told.ends_with("1 of 2 servers confirmed\n"), "{told}");
    assert!(told.contains("contacts were told; servers: 1"), "{told}");
    let hints = text(&partly.stderr);
    assert!(hints.starts_with(&format!("poste: no answer from {NOBODY}\n")), "{hints}");
    assert!(hints.contains("poste key show --of push") && hints.contains("/readyz"), "{hints}");
    let files = fs::read_dir(Path::new(&owner.path("state")).join("anonymous")).unwrap().count();
    assert_eq!(files, 3, "a key of its own, its state, and the lock of that");

    let left = owner.notify("unregister", &["--anonymous", "--timeout", "3s"]);
    assert!(text(&left.stdout).ends_with("1 of 2 servers have forgotten the device\n"), "{left:?}");
    assert_eq!(left.status.code(), Some(1));
    assert!(text(&left.stderr).contains(&format!("no answer from {NOBODY}")), "{left:?}");
}

#[test]
fn what_only_the_contact_says_is_told_apart_from_what_its_server_says() {
    let owner = Owner::new();
    let device = ["--token", "token", "--firebase", "--server", owner.push_key()];
    let (events, _) = owner.events("register", &device);
    let contact = events[0]["chat_key"].as_str().unwrap();
    let (key, state) = (owner.path("other"), owner.path("other-state"));
    assert!(output(&["key", "new", "--file", &key]).status.success());
    let query = || {
        let enode = owner.server.ready["enode"].as_str().unwrap();
        let common = ["notify", "query", "--enode", enode, "--key", &key, "--state", &state, "--json"];
        output(&[&common[..], &["--contact", contact]].concat())
    };
    let said = |done: &Output| -> Value {
        let answer: Value = serde_json::from_slice(&done.stdout).unwrap();
        answer["devices"][0]["servers"][0].clone()
    };

    let (_, code) = ctl_json(&owner.server.admin("push"), &["push", "drain"]);
    assert_eq!(code, 0);
    let silent = query();
    assert_eq!(silent.status.code(), Some(4), "{silent:?}");
    assert_eq!(
        (&said(&silent)["server_says"], &said(&silent)["advertised"]),
        (&json!("nothing"), &json!(true))
    );
    let hints = text(&silent.stderr);
    assert!(hints.starts_with(&format!("poste: no answer from {}", owner.push_key())), "{hints}");

    let (_, code) = ctl_json(&owner.server.admin("push"), &["push", "resume"]);
    assert_eq!(code, 0);
    let confirmed = query();
    assert_eq!((confirmed.status.code(), &said(&confirmed)["server_says"]), (Some(0), &json!("confirmed")));
    assert!(confirmed.stderr.is_empty(), "{confirmed:?}");
}

#[test]
fn what_cannot_be_registered_is_told_before_anything_is_sent() {
    let owner = Owner::new();
    let key = owner.path("key");
    let register = |arguments: &[&str]| {
        let done = owner.notify("register", &[&["--key", &key, "--firebase"], arguments].concat());
        (done.status.code(), text(&done.stderr))
    };
    let four = ["--token", "t", "--server", NOBODY].into_iter().chain(["--server", NOBODY].repeat(3));
    for (arguments, code, expected) in [
        (vec!["--token", "t"], 1, "by --server KEY"),
        (four.collect(), 1, "at most 3 servers"),
        (vec!["--token", "", "--server", NOBODY], 1, "device token is empty"),
        // There is nothing on the standard input.
        (vec!["--token-file", "-", "--server", NOBODY], 1, "device token is empty"),
        (vec!["--token", "t", "--server", "key"], 2, "66 hex digits"),
        (vec!["--token", "t", "--installation", "phone"], 2, "--installation"),
    ] {
        let (exit, told) = register(&arguments);
        assert_eq!(exit, Some(code), "{arguments:?}: {told}");
        assert!(told.contains(expected), "{arguments:?}: {told}");
    }
    fs::remove_dir_all(owner.path("state")).unwrap();
    for command in ["unregister", "advertise"] {
        let done = owner.notify(command, &["--anonymous"]);
        assert!(text(&done.stderr).contains("no registration is kept here"), "{done:?}");
        assert_eq!((done.status.code(), Path::new(&owner.path("state")).exists()), (Some(1), false));
    }
    let (stats, _) = ctl_json(&owner.server.admin("push"), &["push", "stats"]);
    assert_eq!(stats["store"]["registrations"], json!(0));
}
