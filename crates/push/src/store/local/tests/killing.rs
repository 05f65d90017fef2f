//! kill -9 of a process that registers and claims: the next one opens the directory at once and finds all that was
//! acknowledged.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::*;
use crate::store::conformance::{claim_key, device, registration};

const DIR: &str = "POSTE_PUSH_STORE_TO_KILL";

#[tokio::test]
async fn what_was_acknowledged_outlives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (mut version, device) = (0, device(1, 0));
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::local::tests::killing::child", "--ignored", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let done = lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("done ")?.parse().ok());
        let before = version;
        acknowledged.extend(done.take_while(|done: &u64| *done < before + 10 + round));
        version = acknowledged.last().copied().unwrap_or(0);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(version > before, "the child did not get to acknowledging anything");
        let store = open_dir(dir.path(), Caps::default());
        let stored = store.version(&device).await.unwrap().unwrap_or(0);
        assert!(stored >= version, "{version} was acknowledged, not {stored}");
        // Not of every version: a kill may come between a registration and its claim.
        let claims: Vec<_> =
            acknowledged.iter().map(|message| claim_key(&message.to_be_bytes(), &device)).collect();
        let met = store.claim(claims, 2).await.unwrap();
        assert!(met.iter().all(|claim| matches!(claim, Claim::Sent | Claim::Unknown)), "{met:?}");
        check_slots(&store);
        version = stored;
    }
}

#[tokio::test]
#[ignore = "the process that another test kills"]
#[allow(clippy::print_stdout)]
async fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let store = open_dir(Path::new(&dir), Caps::default());
    let device = device(1, 0);
    let first = store.version(&device).await.unwrap().unwrap_or(0) + 1;
    for version in first.. {
        store.register(registration(&device, version)).await.unwrap();
        let claim = claim_key(&version.to_be_bytes(), &device);
        store.claim(vec![claim.clone()], 1).await.unwrap();
        if version % 2 == 0 {
            store.finish(vec![(claim, ClaimEnd::Sent)], None, 1).await.unwrap();
        }
        println!("done {version}");
    }
}
