//! `poste ctl` against servers of their own: what it prints, what it does, and its exit codes.

use std::fs;
use std::path::Path;

use poste_archive::export::{Encoder, Header};
use poste_archive::record::{Derived, Position, Space};
use poste_archive::store::StoreId;
use poste_rpc::archive::v1;
use poste_wire::{Envelope, Topic};
use serde_json::{Value, json};

use super::*;

impl Server {
    pub(crate) fn admin(&self, service: &str) -> String {
        self.ready["admin"][service].as_str().unwrap().to_owned()
    }

    pub(crate) fn grpc(&self) -> String {
        self.ready["grpc"]["archive"].as_str().unwrap().to_owned()
    }
}

/// Runs `poste ctl …` at an address.
pub(crate) fn ctl(address: &str, arguments: &[&str]) -> Output {
    output(&[&["ctl"], arguments, &["--address", address]].concat())
}

/// What a command prints with `--json`, and its exit code.
pub(crate) fn ctl_json(address: &str, arguments: &[&str]) -> (Value, i32) {
    let output = ctl(address, &[arguments, &["--json"]].concat());
    let value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    (value, output.status.code().unwrap())
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// An export file of so many envelopes, a second apart.
fn export_file(path: &Path, count: u32) {
    let mut records: Vec<(Position, Envelope)> = (0..count)
        .map(|n| {
            let envelope =
                Envelope::new(1_700_000_050 + n, 50, Topic([1, 2, 3, n as u8]), &n.to_be_bytes(), 1);
            (Derived::of(Space::Waku1, envelope.rlp()).unwrap().position, envelope)
        })
        .collect();
    records.sort_by_key(|(position, _)| *position);
    let header =
        Header { store_id: StoreId([1; 16]), space: "waku1".into(), from_ns: i64::MIN, to_ns: i64::MAX };
    let mut out = Vec::new();
    let mut encoder = Encoder::begin(&header, &mut out).unwrap();
    for (position, envelope) in &records {
        encoder.record(*position, envelope.rlp(), &mut out).unwrap();
    }
    encoder.end(&mut out);
    fs::write(path, out).unwrap();
}

/// An archive that holds what an export file of so many envelopes says.
fn filled(dir: &tempfile::TempDir, count: u32, more: &[&str]) -> Server {
    let server = archive(dir, more);
    let file = dir.path().join("history");
    export_file(&file, count);
    let import = ["archive", "import", "--input", file.to_str().unwrap()];
    let (imported, code) = ctl_json(&server.admin("archive"), &import);
    assert_eq!((&imported["stored"], code), (&json!(count), 0), "{imported}");
    server
}

#[test]
fn history_is_exported_gone_on_with_and_imported() {
    let dir = tempfile::tempdir().unwrap();
    let server = filled(&dir, 2500, &[]);
    let admin = server.admin("archive");
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();

    let (exported, code) = ctl_json(&admin, &["archive", "export", "--output", &path("whole")]);
    let whole = fs::read(path("whole")).unwrap();
    assert_eq!((code, &exported["records"]), (0, &json!(2500)));
    assert_eq!(exported["file_bytes"], json!(whole.len()));
    assert_eq!(
        keys(&exported),
        [
            "complete",
            "complete_until_ns",
            "file_bytes",
            "floor_ns",
            "quarantined",
            "record_bytes",
            "records",
            "resumed_at_bytes",
            "unclaimed_until_ns"
        ]
    );
    let there = ctl(&admin, &["archive", "export", "--output", &path("whole")]);
    assert_eq!(there.status.code(), Some(1), "it is not overwritten");
    assert!(text(&there.stderr).contains("--resume"), "{there:?}");
    let piped = ctl(&admin, &["archive", "export", "--output", "-"]);
    assert!(piped.status.success() && piped.stdout == whole);
    assert!(text(&piped.stderr).contains("2500 records exported"), "{}", text(&piped.stderr));

    // Cut off in a record, behind the header: nobody knows what the run before may have missed of what it exported.
    for (name, kept, code) in [("half", whole.len() / 2, 5), ("start", 60, 0)] {
        fs::write(path(name), &whole[..kept]).unwrap();
        let resumed = ctl(&admin, &["archive", "export", "--resume", "--output", &path(name)]);
        assert_eq!(resumed.status.code(), Some(code), "{name} {resumed:?}");
        assert_eq!(text(&resumed.stdout).contains("is not known"), code == 5, "{name} {resumed:?}");
        assert!(fs::read(path(name)).unwrap() == whole, "{name}");
    }
    // Cut off in the header, or before anything: the range is to be named again.
    for (name, kept) in [("header", 20), ("empty", 0)] {
        fs::write(path(name), &whole[..kept]).unwrap();
        let resume = ["archive", "export", "--resume", "--output", &path(name)];
        let refused = ctl(&admin, &resume);
        assert_eq!(refused.status.code(), Some(1), "{name} {refused:?}");
        assert_eq!(fs::read(path(name)).unwrap(), whole[..kept], "it was not touched");
        let (resumed, code) = ctl_json(&admin, &[&resume[..], &["--from", "1700000010"]].concat());
        assert_eq!((&resumed["records"], code), (&json!(2490), 0), "{resumed}");
        let other = ctl(&admin, &[&resume[..], &["--from", "1700000020"]].concat());
        assert_eq!(other.status.code(), Some(0), "it is whole: {other:?}");
    }
    fs::write(path("other"), &fs::read(path("empty")).unwrap()[..1000]).unwrap();
    let resume = ["archive", "export", "--resume", "--output", &path("other")];
    let other = ctl(&admin, &[&resume[..], &["--from", "1700000020"]].concat());
    assert_eq!(other.status.code(), Some(2), "{other:?}");
    let same = ctl(&admin, &[&resume[..], &["--from", "1700000010", "--to", "1h"]].concat());
    assert_eq!(same.status.code(), Some(5), "a span is another time each time: {same:?}");
    assert!(fs::read(path("other")).unwrap() == fs::read(path("empty")).unwrap());
    let again = ctl(&admin, &["archive", "export", "--resume", "--output", &path("half")]);
    assert!(again.status.success() && text(&again.stdout).contains("whole export"), "{again:?}");
    let mut damaged = whole.clone();
    damaged[whole.len() / 3] ^= 1;
    fs::write(path("damaged"), &damaged).unwrap();
    let imported = ctl(&admin, &["archive", "import", "--input", &path("damaged")]);
    assert_eq!(imported.status.code(), Some(1));
    let told = text(&imported.stderr);
    assert!(told.contains("at byte ") && told.contains("checksum"), "{told}");
    // What stands behind the damage may be all that is left of it.
    let resume = ["archive", "export", "--resume", "--output", &path("damaged")];
    let refused = ctl(&admin, &resume);
    let told = text(&refused.stderr);
    assert!(refused.status.code() == Some(1) && told.contains("Nothing was changed"), "{told}");
    assert!(fs::read(path("damaged")).unwrap() == damaged, "it was not touched");
    let size = told.split_once("--size=").unwrap().1.split_once(' ').unwrap().0.parse().unwrap();
    fs::write(path("damaged"), &damaged[..size]).unwrap();
    assert_eq!(ctl(&admin, &resume).status.code(), Some(5));
    assert!(fs::read(path("damaged")).unwrap() == whole);
    fs::write(path("foreign"), "something else").unwrap();
    let foreign = ctl(&admin, &["archive", "export", "--resume", "--output", &path("foreign")]);
    assert_eq!(foreign.status.code(), Some(1));
    assert_eq!(fs::read(path("foreign")).unwrap(), b"something else", "it was not touched");

    let bounds = ["--from", "1700000010", "--to", "2023-11-14T22:13:39Z"];
    let some = path("some");
    let export = [&["archive", "export", "--output", &some], &bounds[..]].concat();
    assert_eq!(ctl_json(&admin, &export).0["records"], json!(10));

    // By stdin, into another archive.
    let other_dir = tempfile::tempdir().unwrap();
    let other = archive(&other_dir, &[]);
    let mut import =
        poste(&["ctl", "archive", "import", "--input", "-", "--address", &other.admin("archive")]);
    let imported = import.stdin(fs::File::open(path("whole")).unwrap()).output().unwrap();
    assert!(imported.status.success(), "{imported:?}");
    assert!(text(&imported.stdout).starts_with("2500 records stored, 0 known already"), "{imported:?}");
    assert!(imported.stderr.is_empty(), "no progress where there is no terminal: {imported:?}");
}

#[test]
fn stats_are_a_table_or_json() {
    let dir = tempfile::tempdir().unwrap();
    let server = filled(&dir, 30, &[]);
    let (stats, code) = ctl_json(&server.grpc(), &["archive", "stats"]);
    assert_eq!(code, 0);
    assert_eq!(
        keys(&stats),
        [
            "file_bytes",
            "indexing",
            "quarantined",
            "quarantined_bytes",
            "segments",
            "seq",
            "spaces",
            "store_id",
            "unwritable_reason",
            "writable"
        ]
    );
    let space = &stats["spaces"][0];
    assert_eq!(
        (&space["records"], &space["topics"], &stats["writable"]),
        (&json!(30), &json!(30), &json!(true))
    );
    assert_eq!(space["oldest_ns"], json!(1_700_000_000_000_000_000_i64));

    // The address of the configuration, and words for people.
    let file = dir.path().join("poste.toml");
    fs::write(&file, format!("[archive]\ngrpc_listen = {:?}\n", server.grpc())).unwrap();
    let people = output(&["ctl", "archive", "stats", "--config", file.to_str().unwrap()]);
    let table = text(&people.stdout);
    assert!(people.status.success() && table.contains("takes records  yes"), "{people:?}");
    let row = table.lines().find(|line| line.starts_with("waku1")).unwrap();
    assert!(row.contains(" 30 ") && row.contains("2023-11-14T22:13:20Z"), "{row}");
    assert!(!table.contains('\u{1b}'), "no colour");
}

#[test]
fn retention_is_overridden_over_a_restart_and_reset() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = archive(&dir, &["--archive-max-age", "60d"]);
    let retention = |server: &Server, more: &[&str]| {
        ctl_json(&server.admin("archive"), &[&["archive", "retention"], more].concat())
    };
    let (before, _) = retention(&server, &[]);
    assert_eq!(before["override"], Value::Null);
    let days = |days: u64| json!(days * 86_400_000_000_000);
    assert_eq!(before["configured"], json!({"max_age_ns": days(60), "max_bytes": 0, "min_age_ns": days(1)}));
    let (set, code) = retention(&server, &["--max-age", "30d", "--max-size", "2GiB"]);
    let expected = json!({"max_age_ns": days(30), "max_bytes": 2_u64 << 30, "min_age_ns": days(1)});
    assert_eq!((&set["override"], code), (&expected, 0));
    let refused = ctl(&server.admin("archive"), &["archive", "retention", "--max-size", "1MiB"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("write 1GiB or more"), "{refused:?}");

    server.signal("TERM");
    assert_eq!(server.wait(Duration::from_secs(10)), Some(0));
    let server = archive(&dir, &["--archive-max-age", "60d"]);
    assert_eq!(retention(&server, &[]).0["override"], expected);
    let people = text(&ctl(&server.admin("archive"), &["archive", "retention"]).stdout);
    assert!(people.contains("30d") && people.contains("2.0 GiB") && people.contains("no limit"), "{people}");
    let (reset, _) = retention(&server, &["--reset"]);
    assert_eq!((&reset["override"], &reset["configured"]), (&Value::Null, &before["configured"]));
}

#[test]
fn pruning_can_be_tried_first() {
    let dir = tempfile::tempdir().unwrap();
    let server = filled(&dir, 30, &[]);
    let admin = server.admin("archive");
    let before = ["archive", "prune", "--before", "1700000100"];
    let records = |server: &Server| {
        let stats = ctl_json(&server.grpc(), &["archive", "stats"]).0;
        stats["spaces"][0]["records"].as_u64().unwrap_or(0)
    };
    let (would, code) = ctl_json(&admin, &[&before[..], &["--dry-run"]].concat());
    assert_eq!((&would["dry_run"], code, records(&server)), (&json!(true), 0, 30));
    assert_eq!(
        (&would["hidden"], &would["records"]),
        (&json!(30), &json!(0)),
        "its segment is open: {would}"
    );
    // Nobody sits at a terminal here.
    let unmeant = ctl(&admin, &before);
    assert_eq!((unmeant.status.code(), records(&server)), (Some(2), 30));
    let told = text(&unmeant.stderr);
    assert!(told.contains("before 2023-11-14T22:15:00Z (") && told.contains("30 records"), "{told}");
    assert!(told.contains("write --yes"), "{told}");
    let pruned = ctl(&admin, &[&before[..], &["--yes"]].concat());
    assert_eq!(pruned.status.code(), Some(0));
    let told = "2023-11-14T22:15:00Z is no longer answered: 30 records";
    assert!(text(&pruned.stdout).contains(told), "{pruned:?}");
    let (again, _) = ctl_json(&admin, &[&before[..], &["--yes"]].concat());
    assert_eq!(again["hidden"], json!(0), "nothing more is hidden by it");
    let (exported, _) =
        ctl_json(&admin, &["archive", "export", "--output", dir.path().join("rest").to_str().unwrap()]);
    assert_eq!(
        (&exported["records"], &exported["floor_ns"]),
        (&json!(0), &json!(1_700_000_100_000_000_000_i64))
    );
    let future = ctl(&admin, &["archive", "prune", "--before", "2200-01-01T00:00:00Z", "--yes"]);
    assert_eq!(future.status.code(), Some(2));
    assert!(text(&future.stderr).contains("in the future"), "{future:?}");
}

#[test]
fn a_retention_that_takes_records_away_at_once_has_to_be_meant() {
    let dir = tempfile::tempdir().unwrap();
    let server = filled(&dir, 30, &[]);
    let admin = server.admin("archive");
    let six_months = ["archive", "retention", "--max-age", "6m"];
    let unmeant = ctl(&admin, &six_months);
    assert_eq!(unmeant.status.code(), Some(2), "{unmeant:?}");
    let told = text(&unmeant.stderr);
    assert!(
        told.contains("max age 6m: 30 records of waku1 go for good") && told.contains("write --yes"),
        "{told}"
    );
    assert_eq!(ctl_json(&admin, &["archive", "retention"]).0["override"], Value::Null, "nothing was done");
    let (meant, code) = ctl_json(&admin, &[&six_months[..], &["--yes"]].concat());
    assert_eq!((&meant["override"]["max_age_ns"], code), (&json!(360_000_000_000_u64), 0), "{meant}");
    let (reset, code) = ctl_json(&admin, &["archive", "retention", "--reset"]);
    assert_eq!((&reset["override"], code), (&Value::Null, 0), "that takes nothing away: {reset}");
}

#[test]
fn verify_finds_damage_and_says_so_by_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let server = filled(&dir, 3000, &[]);
    let admin = server.admin("archive");
    let (sound, code) = ctl_json(&admin, &["archive", "verify"]);
    assert_eq!((&sound["sound"], &sound["records"], code), (&json!(true), &json!(3000), 0), "{sound}");
    let people = ctl(&admin, &["archive", "verify"]);
    assert!(text(&people.stdout).ends_with(": no damage\n"), "{people:?}");

    // Rot in a body, below everything that checks when it writes.
    let needle =
        Envelope::new(1_700_000_050 + 1500, 50, Topic([1, 2, 3, 1500_u32 as u8]), &1500_u32.to_be_bytes(), 1);
    let rotten = files(&dir.path().join("archive")).into_iter().find_map(|path| {
        let bytes = fs::read(&path).unwrap();
        let at = bytes.windows(needle.rlp().len()).position(|window| window == &needle.rlp()[..])?;
        Some((path, bytes, at))
    });
    let (path, mut bytes, at) = rotten.expect("a segment holds the envelope");
    bytes[at + 5] ^= 1;
    // In place: the archive has the file open.
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, &bytes))
        .unwrap();
    let damaged = ctl(&admin, &["archive", "verify"]);
    assert_eq!(damaged.status.code(), Some(1), "{damaged:?}");
    assert!(text(&damaged.stdout).contains("quarantine"), "{damaged:?}");
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A writer that connects, and goes without a word.
fn vanished_writer(grpc: &str, writer_id: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let target = poste_rpc::client::Target::lazy(&format!("http://{grpc}")).unwrap();
        let open = v1::AppendOpen { writer_id: writer_id.to_owned(), ..v1::AppendOpen::default() };
        let open = v1::AppendRequest { kind: Some(v1::append_request::Kind::Open(open)) };
        let requests = futures::stream::once(async { open });
        let mut answers =
            poste_rpc::archive::client(target.channel()).append(requests).await.unwrap().into_inner();
        while answers.message().await.unwrap().is_some() {}
    });
}

#[test]
fn writers_are_listed_and_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let server = archive(&dir, &[]);
    let admin = server.admin("archive");
    vanished_writer(&server.grpc(), "gone-for-good");
    let (listed, _) = ctl_json(&admin, &["archive", "writers", "list"]);
    let writer = &listed["writers"][0];
    assert_eq!((&writer["writer_id"], &writer["connected"]), (&json!("gone-for-good"), &json!(false)));
    assert!(writer["held_back_ns"].is_i64(), "{writer}");
    let people = text(&ctl(&admin, &["archive", "writers", "list"]).stdout);
    assert!(people.contains("gone-for-good  away"), "{people}");
    let forgotten = ctl(&admin, &["archive", "writers", "forget", "gone-for-good"]);
    assert_eq!(forgotten.status.code(), Some(0), "{forgotten:?}");
    assert_eq!(ctl_json(&admin, &["archive", "writers", "list"]).0, json!({"writers": []}));
    let unknown = ctl(&admin, &["archive", "writers", "forget", "gone-for-good"]);
    assert_eq!(unknown.status.code(), Some(3), "{unknown:?}");
}

#[test]
fn a_service_that_is_away_or_silent_is_exit_code_4() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let late = ctl(&address, &["archive", "stats", "--timeout", "300ms"]);
    assert_eq!(late.status.code(), Some(4), "{late:?}");
    assert!(text(&late.stderr).contains("no end within 300ms"), "{late:?}");
    drop(silent);
    for command in [&["archive", "stats"][..], &["archive", "verify"], &["gateway", "info"]] {
        let away = ctl(&address, command);
        assert_eq!(away.status.code(), Some(4), "{away:?}");
        assert!(text(&away.stderr).contains(&address), "{away:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("export");
    let export = ["archive", "export", "--output", file.to_str().unwrap()];
    assert_eq!(ctl(&address, &export).status.code(), Some(4));
    assert!(!file.exists(), "nothing is left behind");
    for usage in
        [&["archive", "nonsense"][..], &["archive", "prune"], &["archive", "prune", "--before", "soon"]]
    {
        assert_eq!(ctl(&address, usage).status.code(), Some(2), "{usage:?}");
    }
    assert_eq!(ctl("https://archive:7201", &["archive", "verify"]).status.code(), Some(2));
}

#[test]
fn a_gateway_tells_of_itself_and_its_peers() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(&["up", "--data", dir.path().to_str().unwrap(), "--ephemeral-ports"]);
    let enode = server.ready["enode"].as_str().unwrap();
    let admin = server.admin("gateway");
    let mut listener =
        poste(&["mail", "listen", "--from", enode, "--json"]).stdout(Stdio::null()).spawn().unwrap();
    wait_for_peers(&admin, 1);
    let (info, code) = ctl_json(&admin, &["gateway", "info"]);
    assert_eq!((&info["enode"], &info["peers"], code), (&json!(enode), &json!(1), 0));
    let people = text(&ctl(&admin, &["gateway", "info"]).stdout);
    assert!(people.contains("peers            1 of at most 500"), "{people}");
    let (peers, _) = ctl_json(&admin, &["gateway", "peers"]);
    let peer = &peers["peers"][0];
    assert_eq!((&peer["inbound"], &peer["capability"]), (&json!(true), &json!("waku/1")), "{peers}");
    let people = text(&ctl(&admin, &["gateway", "peers"]).stdout);
    assert!(people.lines().nth(1).is_some_and(|row| row.starts_with("127.0.0.1:")), "{people}");
    listener.kill().unwrap();
    listener.wait().unwrap();
}
