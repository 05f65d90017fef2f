//! `poste ctl push` and the push server's key, against servers of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use super::ctl::{ctl, ctl_json, keys, text};
use super::*;

/// A whole stack that is ready.
fn up(dir: &tempfile::TempDir) -> Server {
    let server = start(&["up", "--data", dir.path().to_str().unwrap(), "--ephemeral-ports"]);
    wait_until_ready(&server);
    server
}

#[test]
fn a_push_server_tells_of_itself_and_tests_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = up(&dir);
    let admin = server.admin("push");
    let grpc = server.ready["grpc"]["push"].as_str().unwrap().to_owned();
    let key = server.ready["push_key"].as_str().unwrap().to_owned();
    let (info, code) = ctl_json(&grpc, &["push", "info"]);
    assert_eq!((code, info), (0, json!({ "public_key": key, "topics": 2, "accepting": true })));
    let people = text(&ctl(&grpc, &["push", "info"]).stdout);
    assert!(people.contains(&key) && people.contains("takes messages  yes"), "{people}");

    let (tested, code) = ctl_json(&admin, &["push", "self-test"]);
    assert_eq!((&tested["passed"], code), (&json!(true), 0), "{tested}");
    let (stats, _) = ctl_json(&admin, &["push", "stats"]);
    assert_eq!(keys(&stats), ["feed", "store"]);
    assert_eq!((&stats["store"]["registrations"], &stats["store"]["tombstones"]), (&json!(0), &json!(1)));
    assert_eq!((&stats["feed"]["connected"], &stats["feed"]["paused"]), (&json!(true), &json!(false)));
    let people = text(&ctl(&admin, &["push", "stats"]).stdout);
    assert!(
        people.contains("forgotten devices  1") && people.contains("archive         connected"),
        "{people}"
    );

    let (drained, code) = ctl_json(&admin, &["push", "drain"]);
    assert_eq!((&drained["paused"], &drained["in_progress"], code), (&json!(true), &json!(0), 0));
    let failed = ctl(&admin, &["push", "self-test"]);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let told = text(&failed.stdout);
    assert!(told.contains("feed        failed") && told.contains("it is paused"), "{told}");
    assert!(told.contains("ring        skipped"), "{told}");
    let resumed = ctl(&admin, &["push", "resume"]);
    assert!(text(&resumed.stdout).contains("takes messages  yes"), "{resumed:?}");
    let people = ctl(&admin, &["push", "self-test"]);
    assert_eq!(people.status.code(), Some(0), "{people:?}");
    assert_eq!(text(&people.stdout).lines().filter(|line| line.contains(" passed ")).count(), 7);
    let rung = fs::read_dir(dir.path().join("notifications")).unwrap().count();
    assert_eq!(rung, 0, "no device rings for a test");

    server.signal("TERM");
    assert_eq!(server.wait(Duration::from_secs(10)), Some(0), "{}", server.log());
}

#[test]
fn a_push_server_runs_apart_from_its_neighbours_and_names_the_one_that_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let mut archive = archive(&dir, &[]);
    let at_archive = format!("http://{}", archive.grpc());
    let (at_gateway_data, at_push_data) = (path("gateway"), path("push"));
    let gateway = ["serve", "gateway", "--ephemeral-ports", "--gateway-data", &at_gateway_data];
    let mut gateway = start(&[&gateway[..], &["--gateway-archive", &at_archive]].concat());
    let at_gateway = format!("http://{}", gateway.ready["grpc"]["gateway"].as_str().unwrap());
    let provider = format!("directory://{}", path("notifications"));
    let push = ["serve", "push", "--ephemeral-ports", "--push-data", &at_push_data];
    let neighbours =
        ["--push-archive", &at_archive, "--push-gateways", &at_gateway, "--push-provider", &provider];
    let mut push = start(&[&push[..], &neighbours].concat());
    let parts: Vec<&str> = push.ready.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(parts, ["admin", "event", "feedback", "grpc", "http", "push_key"]);
    wait_until_ready(&push);
    let tested = ctl(&push.admin("push"), &["push", "self-test"]);
    assert_eq!(tested.status.code(), Some(0), "{tested:?}");

    archive.child.kill().unwrap();
    archive.wait(Duration::from_secs(10));
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let health = output(&["health", "--http", push.http()]);
        let report: Value = serde_json::from_slice(&health.stdout).unwrap();
        let checks = report["checks"].as_array().unwrap();
        let away = checks.iter().find(|check| check["ready"] == false);
        if let Some(away) = away {
            assert_eq!((&away["name"], health.status.code()), (&json!("push.archive"), Some(1)), "{report}");
            break;
        }
        assert!(Instant::now() < deadline, "{report}");
        std::thread::sleep(Duration::from_millis(20));
    }
    for server in [&mut push, &mut gateway] {
        server.signal("TERM");
        assert_eq!(server.wait(Duration::from_secs(10)), Some(0), "{}", server.log());
    }
}

#[test]
fn the_commands_are_listed() {
    let help = text(&output(&["ctl", "push", "--help"]).stdout);
    for command in ["info", "stats", "registration", "forget", "drain", "resume", "self-test"] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(command)), "{command} in\n{help}");
    }
    let help = text(&output(&["up", "--help"]).stdout);
    assert!(help.contains("--push-provider <VALUE>") && !help.contains("--push-archive "), "{help}");
}

#[test]
fn nobody_is_shown_and_forgotten_who_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let server = up(&dir);
    let admin = server.admin("push");
    let person = server.ready["push_key"].as_str().unwrap();
    for command in [&["push", "registration", person][..], &["push", "forget", person, "--yes"]] {
        let unknown = ctl(&admin, command);
        assert_eq!(unknown.status.code(), Some(3), "{unknown:?}");
    }
    for usage in [&["push", "registration"][..], &["push", "registration", "02ab"], &["push", "forget", "x"]]
    {
        assert_eq!(ctl(&admin, usage).status.code(), Some(2), "{usage:?}");
    }
    drop(server);
    for command in ["info", "stats", "drain", "resume", "self-test"] {
        let away = ctl(&admin, &["push", command]);
        assert_eq!(away.status.code(), Some(4), "{away:?}");
    }
}

#[test]
fn a_person_is_shown_without_tokens_and_forgotten_when_that_is_meant() {
    let dir = tempfile::tempdir().unwrap();
    let server = up(&dir);
    let admin = server.admin("push");
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let made = output(&["key", "new", "--file", &path("b.key"), "--data", &path("")]);
    let made = text(&made.stdout);
    let public = made.split_once("enode://").unwrap().1.split_once('@').unwrap().0;
    let person = format!("0x04{public}");
    let enode = server.ready["enode"].as_str().unwrap();
    let push_key = server.ready["push_key"].as_str().unwrap();
    let token = "token-of-a-device-that-is-nobodys";
    let state = path("state");
    let register = ["notify", "register", "--enode", enode, "--key", &path("b.key"), "--state", &state];
    let registered =
        output(&[&register[..], &["--server", push_key, "--token", token, "--firebase"]].concat());
    assert!(registered.status.success(), "{registered:?}");

    let (shown, code) = ctl_json(&admin, &["push", "registration", &person]);
    let device = &shown["devices"][0];
    assert_eq!((&device["token_type"], &device["reached_ns"], code), (&json!("firebase"), &Value::Null, 0));
    assert_eq!(
        keys(device),
        ["data_bytes", "installation_id", "reached_ns", "registered_ns", "token_type", "version"]
    );
    let installation = device["installation_id"].as_str().unwrap();
    let people = text(&ctl(&admin, &["push", "registration", &person]).stdout);
    assert!(people.contains(installation) && !people.contains(token), "{people}");

    let forget = ["push", "forget", &person, "--installation", installation];
    let unmeant = ctl(&admin, &forget);
    assert_eq!(unmeant.status.code(), Some(2), "{unmeant:?}");
    let told = text(&unmeant.stderr);
    assert!(told.contains(&format!("this forgets {installation} (firebase)")), "{told}");
    assert!(told.contains("write --yes"), "{told}");
    let (forgotten, code) = ctl_json(&admin, &[&forget[..], &["--yes"]].concat());
    assert_eq!((&forgotten["forgotten"], code), (&json!(1), 0));
    let gone = ctl(&admin, &["push", "registration", &person]);
    assert_eq!(gone.status.code(), Some(3), "{gone:?}");
}

#[test]
fn a_second_server_says_at_once_what_it_waits_for() {
    let dir = tempfile::tempdir().unwrap();
    let _first = up(&dir);
    let data = dir.path().join("push");
    let arguments = ["serve", "push", "--push-data", data.to_str().unwrap(), "--ephemeral-ports"];
    let mut command = poste(&[&arguments[..], &["--log-level", "warn"]].concat());
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut second = Server { child, ready: Value::Null };
    let mut lines = BufReader::new(second.child.stderr.as_mut().unwrap()).lines();
    let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    let told = line["message"].as_str().unwrap();
    assert!(told.contains("another process uses push.data"), "{line}");
    assert_eq!(line["directory"], Value::from(data.to_str().unwrap()));
}

#[test]
fn an_identity_is_made_shown_backed_up_and_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let of_push = ["--of", "push", "--data", data];
    let key = |command: &str| output(&[&["key", command], &of_push[..]].concat());
    let missing = key("show");
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
    let made = key("new");
    assert!(made.status.success(), "{made:?}");
    let file = dir.path().join("push/identity.key");
    let secret = fs::read_to_string(&file).unwrap();
    let shown = key("show");
    assert_eq!((shown.status.code(), &shown.stdout), (Some(0), &made.stdout));
    assert!(!text(&shown.stdout).contains(secret.trim()), "the secret was shown");
    let public =
        text(&shown.stdout).lines().find_map(|line| Some(line.strip_prefix("public key  ")?.to_owned()));
    let public = public.unwrap();
    assert_eq!(key("new").status.code(), Some(1), "a key is never overwritten");

    let backup = dir.path().join("elsewhere/copy");
    let back_up = ["key", "backup", "--data", data, backup.to_str().unwrap()];
    let nowhere = output(&back_up);
    assert_eq!(
        nowhere.status.code(),
        Some(1),
        "a disk that is not mounted is no directory to make: {nowhere:?}"
    );
    assert!(text(&nowhere.stderr).contains("is not there"), "{nowhere:?}");
    fs::create_dir(dir.path().join("elsewhere")).unwrap();
    let backed_up = output(&back_up);
    assert!(backed_up.status.success(), "{backed_up:?}");
    let told = text(&backed_up.stdout);
    assert!(told.contains(&public) && told.contains("Lost, it takes all of them"), "{told}");
    assert!(!told.contains(secret.trim()), "the secret was shown");
    assert_eq!(fs::read_to_string(&backup).unwrap(), secret);
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(output(&back_up).status.code(), Some(1), "a copy is never overwritten");

    // A server has the key that was made beforehand, and the same one as a setting.
    let up = ["up", "--data", data, "--ephemeral-ports"];
    let mut server = start(&up);
    assert_eq!(server.ready["push_key"], Value::from(public.clone()));
    server.signal("TERM");
    assert_eq!(server.wait(Duration::from_secs(10)), Some(0), "{}", server.log());
    fs::remove_file(&file).unwrap();
    let lost = key("new");
    assert_eq!(lost.status.code(), Some(1));
    assert!(text(&lost.stderr).contains("there are registrations for it"), "{lost:?}");
    let shown = poste(&[&["key", "show"], &of_push[..]].concat())
        .env("POSTE_PUSH__IDENTITY_FILE", &backup)
        .output()
        .unwrap();
    assert_eq!(text(&shown.stdout), format!("public key  {public}\n"));

    // And back again: where it was, and on a machine that has nothing.
    let restore =
        |data: &str, from: &Path| output(&["key", "restore", "--data", data, from.to_str().unwrap()]);
    let elsewhere = dir.path().join("other");
    let other_backup = elsewhere.join("push/identity.key");
    assert!(output(&["key", "new", "--of", "push", "--data", elsewhere.to_str().unwrap()]).status.success());
    let wrong = restore(data, &other_backup);
    assert_eq!((wrong.status.code(), file.exists()), (Some(1), false), "{wrong:?}");
    assert!(text(&wrong.stderr).contains("belongs to another identity"), "{wrong:?}");
    for again in [false, true] {
        let restored = restore(data, &backup);
        assert!(restored.status.success(), "{restored:?}");
        let told = text(&restored.stdout);
        assert!(told.contains(&public) && !told.contains(secret.trim()), "{told}");
        assert_eq!(told.contains("It was there already."), again);
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), secret);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let refused = restore(elsewhere.to_str().unwrap(), &backup);
    assert!(text(&refused.stderr).contains("has another identity"), "{refused:?}");
    assert_ne!(fs::read_to_string(&other_backup).unwrap(), secret);
    let new_machine = dir.path().join("new");
    assert!(restore(new_machine.to_str().unwrap(), &backup).status.success());
    assert_eq!(fs::read_to_string(new_machine.join("push/identity.key")).unwrap(), secret);
    let mut server = start(&up);
    assert_eq!(server.ready["push_key"], Value::from(public));
    server.signal("TERM");
    assert_eq!(server.wait(Duration::from_secs(10)), Some(0), "{}", server.log());
}
