//! The built binary as people and containers run it: ready line, health, drain, exit codes.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not take for tests")]

mod ctl;
mod notify;
mod push;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// A server process; killed when the test ends.
struct Server {
    child: Child,
    ready: serde_json::Value,
}

fn poste(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_poste"));
    command.args(arguments);
    // Nothing of the surrounding environment may configure the process under test.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("POSTE_")) {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG");
    command
}

fn output(arguments: &[&str]) -> Output {
    poste(arguments).output().unwrap()
}

fn start(arguments: &[&str]) -> Server {
    let mut child = poste(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    if line.is_empty() {
        let mut log = String::new();
        child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        panic!("no ready line: {log}");
    }
    Server { child, ready: serde_json::from_str(&line).unwrap() }
}

impl Server {
    fn http(&self) -> &str {
        self.ready["http"].as_str().unwrap()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// The exit code, once it has ended.
    fn wait(&mut self, within: Duration) -> Option<i32> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "still running after {within:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&mut self) -> String {
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        log
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has usually ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn archive(dir: &tempfile::TempDir, more: &[&str]) -> Server {
    let store = format!("local://{}/archive", dir.path().display());
    let mut arguments = vec!["serve", "archive", "--ephemeral-ports", "--store", &store];
    arguments.extend(more);
    start(&arguments)
}

#[test]
fn an_archive_tells_its_addresses_is_healthy_and_stops_on_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = archive(&dir, &[]);
    let ready = server.ready.as_object().unwrap();
    let parts: Vec<&str> = ready.keys().map(String::as_str).collect();
    assert_eq!(parts, ["admin", "event", "grpc", "http"], "absent parts are left out");
    assert_eq!(ready["event"], "ready");
    let grpc = ready["grpc"]["archive"].as_str().unwrap();
    assert!(grpc.starts_with("127.0.0.1:") && !grpc.ends_with(":0"), "{grpc}");
    assert!(ready["admin"]["archive"].as_str().unwrap().starts_with("127.0.0.1:"), "{ready:?}");

    let health = output(&["health", "--http", server.http()]);
    assert_eq!(health.status.code(), Some(0), "{health:?}");
    let report: serde_json::Value = serde_json::from_slice(&health.stdout).unwrap();
    assert_eq!(report["ready"], true);

    server.signal("TERM");
    assert_eq!(server.wait(Duration::from_secs(10)), Some(0));
    for line in server.log().lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("a log line is one JSON object");
        assert_eq!(line["service"], "archive");
        assert!(line["instance"].as_str().is_some_and(|host| !host.is_empty()), "{line}");
    }
}

#[test]
fn a_stderr_that_takes_nothing_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("local://{}/archive", dir.path().display());
    for format in ["json", "text"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let arguments = [
            "serve",
            "archive",
            "--ephemeral-ports",
            "--store",
            &store,
            "--log-level",
            "trace",
            "--log-format",
            format,
        ];
        let child = poste(&arguments).stdout(Stdio::piped()).stderr(full).spawn().unwrap();
        let mut server = Server { child, ready: serde_json::Value::Null };
        let mut line = String::new();
        BufReader::new(server.child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        server.ready = serde_json::from_str(&line).expect("a ready line");
        let health = output(&["health", "--http", server.http()]);
        assert_eq!(health.status.code(), Some(0), "{health:?}");
        server.signal("TERM");
        assert_eq!(server.wait(Duration::from_secs(10)), Some(0), "{format}");
    }
}

#[test]
fn a_server_raises_its_limit_of_open_files_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("local://{}/archive", dir.path().display());
    let script =
        "ulimit -S -n 100 && ulimit -H -n 300 && exec \"$0\" serve archive --ephemeral-ports --store \"$1\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_poste"), &store]);
    command.env_clear();
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut server = Server { child, ready: serde_json::Value::Null };
    let mut line = String::new();
    BufReader::new(server.child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.child.id())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<&str> = files.split_whitespace().filter(|word| word.parse::<u64>().is_ok()).collect();
    assert_eq!(numbers, ["300", "300"], "{files}");
    server.signal("TERM");
    assert_eq!(server.wait(Duration::from_secs(10)), Some(0));
    assert!(server.log().contains("\"limit\":\"300\""));
}

#[test]
fn sigint_drains_too_and_readyz_says_so_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = archive(&dir, &["--drain-delay", "1h"]);
    server.signal("INT");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let health = output(&["health", "--http", server.http()]);
        if health.status.code() == Some(1) {
            assert!(String::from_utf8_lossy(&health.stdout).contains("\"phase\":\"draining\""), "{health:?}");
            break;
        }
        assert!(Instant::now() < deadline, "never draining");
    }
    // The delay would last an hour; a second signal ends it at once, and is not a clean stop.
    server.signal("INT");
    assert_eq!(server.wait(Duration::from_secs(5)), Some(1));
}

#[tokio::test]
async fn every_service_says_that_it_does_not_serve_while_the_drain_is_delayed() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let server = start(&[
        "up",
        "--ephemeral-ports",
        "--gateway-rlpx-listen",
        "127.0.0.1:0",
        "--data",
        data,
        "--drain-delay",
        "1h",
    ]);
    let listeners: Vec<String> = ["grpc", "admin"]
        .iter()
        .flat_map(|kind| server.ready[kind].as_object().unwrap().values())
        .map(|address| format!("http://{}", address.as_str().unwrap()))
        .collect();
    assert_eq!(listeners.len(), 6, "{listeners:?}");
    let mut watched = Vec::new();
    for listener in listeners {
        let target = poste_rpc::client::Target::lazy(&listener).unwrap();
        let request = HealthCheckRequest { service: String::new() };
        let mut health = HealthClient::new(target.channel()).watch(request).await.unwrap().into_inner();
        assert_eq!(health.message().await.unwrap().unwrap().status(), ServingStatus::Serving, "{listener}");
        watched.push((listener, health));
    }
    server.signal("TERM");
    for (listener, mut health) in watched {
        let said = tokio::time::timeout(Duration::from_secs(10), health.message()).await.expect("it says so");
        assert_eq!(said.unwrap().unwrap().status(), ServingStatus::NotServing, "{listener}");
    }
}

#[test]
fn an_error_neither_steers_the_terminal_nor_begins_lines() {
    let failed = output(&["key", "show", "--file", "no\u{1b}[2K\nsuch"]);
    let told = String::from_utf8(failed.stderr).unwrap();
    assert_eq!(failed.status.code(), Some(1), "{told}");
    assert!(told.starts_with("poste: no\\u{1b}[2K\\nsuch: "), "{told:?}");
}

#[test]
fn health_of_nobody_is_a_failure() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let health = output(&["health", "--http", &free]);
    assert_eq!(health.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&health.stderr).contains(&free), "{health:?}");
}

#[test]
fn a_port_in_use_is_named_with_its_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let outcome = output(&["serve", "archive", "--ephemeral-ports", "--http-listen", &address]);
    assert_eq!(outcome.status.code(), Some(1));
    let log = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert!(log.contains(&format!("http.listen: {address} is in use")), "{log}");
}

#[test]
fn mistakes_are_told_with_the_nearest_name_and_exit_code_2() {
    let unknown_flag = output(&["serve", "archive", "--archive-stroe", "x"]);
    assert_eq!(unknown_flag.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown_flag.stderr).contains("--archive-store"), "{unknown_flag:?}");

    let elsewhere = output(&["up", "--gateway-archive", "http://127.0.0.1:7200"]);
    assert_eq!(elsewhere.status.code(), Some(2), "up has an archive of its own: {elsewhere:?}");

    let unknown_variable = poste(&["config", "check"]).env("POSTE_ARCHIVE_STORE", "x").output().unwrap();
    assert_eq!(unknown_variable.status.code(), Some(2));
    let text = String::from_utf8_lossy(&unknown_variable.stderr).into_owned();
    assert!(text.contains("POSTE_ARCHIVE__STORE"), "{text}");

    for (service, variable, value, told) in [
        ("archive", "POSTE_ARCHIVE__QUEUE_RECORDS", "0", "queue_records is 0: write 4096 to 1000000"),
        ("archive", "POSTE_ARCHIVE__GRPC_LISTEN", "0.0.0.0:0", "archive.insecure = true"),
        ("archive", "POSTE_ARCHIVE__ADMIN_LISTEN", "0.0.0.0:0", "archive.insecure = true"),
        ("archive", "POSTE_ARCHIVE__MAX_SIZE", "1MiB", "max_size is 1MiB: write 1GiB or more"),
        ("gateway", "POSTE_GATEWAY__ARCHIVE", "nowhere", "gateway.archive"),
        ("gateway", "POSTE_GATEWAY__POOL_BYTES", "1MiB", "pool_bytes is 1MiB: write 4MiB or more"),
    ] {
        for command in [&["serve", service][..], &["up"], &["config", "check"]] {
            let outcome = poste(command).env(variable, value).output().unwrap();
            assert_eq!(outcome.status.code(), Some(2), "{command:?} {outcome:?}");
            let text = String::from_utf8_lossy(&outcome.stderr).into_owned();
            assert!(text.contains(told), "{command:?} {text}");
        }
    }

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("poste.toml");
    std::fs::write(&file, "[http]\nlisten = \"nowhere\"\n").unwrap();
    let bad_value = poste(&["config", "check"]).env("POSTE_CONFIG", &file).output().unwrap();
    assert_eq!(bad_value.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&bad_value.stderr).contains("http.listen"), "{bad_value:?}");
}

#[test]
fn a_post_is_confirmed_and_fetched_by_pages() {
    let dir = tempfile::tempdir().unwrap();
    let up = ["up", "--data", dir.path().to_str().unwrap(), "--ephemeral-ports"];
    let mut server = start(&up);
    let enode = server.ready["enode"].as_str().unwrap().to_owned();
    assert!(enode.contains("@127.0.0.1:"), "{enode}");

    // The listener is there before anything is posted, and relayed to.
    let relayed = ["mail", "listen", "--from", &enode, "--topic", "a1b2c3d4", "--json"];
    let mut listener = poste(&relayed).stdout(Stdio::piped()).spawn().unwrap();
    let admin = server.ready["admin"]["gateway"].as_str().unwrap().to_owned();
    wait_for_peers(&admin, 1);

    let post = output(&[
        "mail", "post", "--to", &enode, "--topic", "a1b2c3d4", "--count", "25", "--size", "300", "--json",
    ]);
    assert_eq!(post.status.code(), Some(0), "{post:?}");
    let posted = lines(&post.stdout);
    assert_eq!(posted.last().unwrap()["confirmed"], 25);
    let hashes = |lines: &[serde_json::Value], event: &str| -> std::collections::BTreeSet<String> {
        lines.iter().filter(|line| line["event"] == event).map(|line| line["hash"].to_string()).collect()
    };
    assert!(posted.iter().filter(|line| line["event"] == "posted").all(|line| line["confirmed"] == true));
    let other = output(&["mail", "post", "--to", &enode, "--topic", "0xa1b2c3d5"]);
    assert_eq!(other.status.code(), Some(0), "{other:?}");

    let fetch =
        output(&["mail", "fetch", "--from", &enode, "--topic", "a1b2c3d4", "--limit", "10", "--json"]);
    assert_eq!(fetch.status.code(), Some(0), "{fetch:?}");
    let fetched = lines(&fetch.stdout);
    assert_eq!(hashes(&fetched, "envelope"), hashes(&posted, "posted"));
    let complete = fetched.last().unwrap();
    assert_eq!((&complete["event"], &complete["complete"]), (&"complete".into(), &true.into()));
    assert_eq!((&complete["count"], &complete["pages"]), (&25.into(), &3.into()));
    for envelope in fetched.iter().filter(|line| line["event"] == "envelope") {
        // The size is the network's (data and 20), the data is the RLP.
        assert_eq!(envelope["size"], 320);
        let data = envelope["data"].as_str().unwrap();
        assert!(data.starts_with("f9") && data.len() > 2 * 300, "{data}");
        assert_eq!(envelope["topic"], "a1b2c3d4");
    }

    let people = output(&["mail", "fetch", "--from", &enode]);
    let text = String::from_utf8(people.stdout).unwrap();
    assert!(text.contains("a1b2c3d4") && text.contains("26 envelopes fetched in 1 pages"), "{text}");

    let wrong =
        output(&["mail", "fetch", "--from", &enode, "--password", "other", "--timeout", "1s", "--json"]);
    assert_eq!(wrong.status.code(), Some(1), "an unreadable request is not answered");
    let complete = lines(&wrong.stdout).pop().unwrap();
    assert_eq!((&complete["complete"], &complete["count"]), (&false.into(), &0.into()));

    let pid = listener.id().to_string();
    assert!(Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
    let mut heard = Vec::new();
    listener.stdout.take().unwrap().read_to_end(&mut heard).unwrap();
    assert_eq!(listener.wait().unwrap().code(), Some(0));
    assert_eq!(hashes(&lines(&heard), "envelope"), hashes(&posted, "posted"));

    server.signal("TERM");
    assert_eq!(server.wait(Duration::from_secs(10)), Some(0), "{}", server.log());
}

#[test]
fn a_post_to_nobody_ends_with_a_summary_and_exit_code_1() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let key = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798\
               483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8";
    let enode = format!("enode://{key}@{free}");
    let post = output(&["mail", "post", "--to", &enode, "--topic", "a1b2c3d4", "--json"]);
    assert_eq!(post.status.code(), Some(1), "{post:?}");
    let summary = lines(&post.stdout).pop().unwrap();
    assert_eq!((&summary["event"], &summary["posted"]), (&"summary".into(), &0.into()));
    assert!(summary["reason"].as_str().is_some_and(|reason| reason.contains(&free.to_string())), "{summary}");
}

#[test]
fn up_says_that_it_ignores_other_services() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = poste(&["up", "--data", dir.path().to_str().unwrap(), "--ephemeral-ports"])
        .env("POSTE_GATEWAY__ARCHIVE", "http://10.0.0.1:7200")
        .env("POSTE_PUSH__GATEWAYS", "http://10.0.0.1:7100,http://10.0.0.2:7100")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let mut server = Server { child, ready: serde_json::from_str(&line).unwrap() };
    server.signal("TERM");
    assert_eq!(server.wait(Duration::from_secs(10)), Some(0));
    let log = server.log();
    assert!(log.contains("gateway.archive (from POSTE_GATEWAY__ARCHIVE) is ignored"), "{log}");
    assert!(log.contains("push.gateways (from POSTE_PUSH__GATEWAYS) is ignored"), "{log}");
}

fn lines(stdout: &[u8]) -> Vec<serde_json::Value> {
    let text = std::str::from_utf8(stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits until the gateway whose administration is there has so many peers.
fn wait_for_peers(admin: &str, count: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let target = poste_rpc::client::Target::lazy(&format!("http://{admin}")).unwrap();
        let mut admin = poste_rpc::gateway::admin_client(target.channel());
        let deadline = Instant::now() + Duration::from_secs(10);
        while admin.node_info(poste_rpc::gateway::v1::NodeInfoRequest {}).await.unwrap().into_inner().peers
            != count
        {
            assert!(Instant::now() < deadline, "never {count} peers");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn config_show_tells_origins_and_masks_secrets() {
    let shown = poste(&["config", "show", "--archive-insecure", "--drain-timeout", "7s"])
        .env("POSTE_GATEWAY__MAIL_PASSWORD", "hunter2")
        .env("POSTE_PUSH__IDENTITY", "11".repeat(32))
        .output()
        .unwrap();
    assert!(shown.status.success(), "{shown:?}");
    let text = String::from_utf8(shown.stdout).unwrap();
    let line = |start: &str| {
        let line = text.lines().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("{start} in\n{text}")).to_owned()
    };
    assert!(line("timeout = \"7s\"").ends_with("# --drain-timeout"));
    assert!(line("insecure = true").ends_with("# --archive-insecure"));
    assert!(line("delay = \"0s\"").ends_with("# default"));
    assert!(line("mail_password = \"********\"").ends_with("# POSTE_GATEWAY__MAIL_PASSWORD"));
    assert!(line("identity = \"********\"").ends_with("# POSTE_PUSH__IDENTITY"));
    assert!(line("provider = \"http://127.0.0.1:8088\"").ends_with("# default"));
    assert!(!text.contains("hunter2") && !text.contains("1111"));
}

#[test]
fn a_key_is_made_once_and_shown_without_its_secret() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let made = output(&["key", "new", "--data", data]);
    assert!(made.status.success(), "{made:?}");
    let secret = std::fs::read_to_string(dir.path().join("gateway/node.key")).unwrap();
    let shown = output(&["key", "show", "--data", data]);
    assert_eq!((shown.status.code(), &shown.stdout), (Some(0), &made.stdout));
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.contains("enode    enode://") && text.contains("@127.0.0.1:30303\n"), "{text}");
    assert!(!text.contains(secret.trim()), "the secret was shown");
    let everywhere = poste(&["key", "show", "--data", data])
        .env("POSTE_GATEWAY__RLPX_LISTEN", "[::]:30303")
        .output()
        .unwrap();
    let everywhere = String::from_utf8(everywhere.stdout).unwrap();
    assert_eq!(everywhere, text, "a gateway says 127.0.0.1 for [::] too");

    let again = output(&["key", "new", "--data", data]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("never overwritten"), "{again:?}");
    assert_eq!(std::fs::read_to_string(dir.path().join("gateway/node.key")).unwrap(), secret);
}

#[test]
fn up_runs_all_services_and_stops_all() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let up = ["up", "--data", data, "--ephemeral-ports", "--gateway-rlpx-listen", "127.0.0.1:0"];
    let mut server = start(&up);
    let ready = server.ready.clone();
    let enode = ready["enode"].as_str().unwrap();
    assert!(enode.starts_with("enode://") && enode.contains("@127.0.0.1:"), "{enode}");
    let (grpc, admin) = (&ready["grpc"], &ready["admin"]);
    for service in ["gateway", "archive", "push"] {
        for address in [&grpc[service], &admin[service]] {
            assert!(address.as_str().is_some_and(|address| address.starts_with("127.0.0.1:")), "{ready}");
        }
    }
    wait_until_ready(&server);
    server.signal("TERM");
    assert_eq!(server.wait(Duration::from_secs(10)), Some(0), "{}", server.log());

    // Another life on the same data keeps the keys.
    let mut again = start(&up);
    let key = |enode: &str| enode.split('@').next().unwrap().to_owned();
    assert_eq!(key(again.ready["enode"].as_str().unwrap()), key(enode));
    assert!(ready["push_key"].as_str().is_some_and(|key| key.len() == 66), "{ready}");
    assert_eq!(again.ready["push_key"], ready["push_key"]);
    again.signal("TERM");
    assert_eq!(again.wait(Duration::from_secs(10)), Some(0), "{}", again.log());
}

/// The gateway is not ready before it has seen its archive, nor the push server before it has seen both.
fn wait_until_ready(server: &Server) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let health = output(&["health", "--http", server.http()]);
        if health.status.success() {
            return;
        }
        assert!(Instant::now() < deadline, "not ready: {health:?}");
    }
}
