//! The entries of the vectors that this crate alone can check: ECIES samples and a node id, made by running the
//! go-ethereum of status-go v0.64.6. Every member is compared; altering any of them must be noticed.

use poste_codec::{PublicKey, SecretKey, ecies};
use poste_vectors::entry::{self, Entry, Outcome, same};
use poste_vectors::plan::{self, Plan, Section};

fn plan() -> Plan {
    let mut plan = Plan::new();
    let root = plan::load(env!("CARGO_MANIFEST_DIR"));
    let mut rlpx = Section::new("rlpx", &root["rlpx"]);
    rlpx.each("ecies", &mut plan, ecies_sample);
    rlpx.one("node_id_hash", &mut plan, node_id);
    plan
}

#[test]
fn every_entry_and_every_member() {
    let plan = plan();
    let mut members = 0;
    for case in &plan.cases {
        members += entry::count_members(&case.value);
        case.run(&case.value).unwrap_or_else(|failure| panic!("{}: {failure}", case.path));
    }
    println!("checked {} entries, {members} members", plan.cases.len());
}

#[test]
fn every_member_matters() {
    for case in plan().cases {
        for (member, altered) in entry::alterations(&case.value) {
            assert!(case.run(&altered).is_err(), "{}.{member} was altered without being noticed", case.path);
        }
    }
}

/// Opened, with the length that sealing gives.
fn ecies_sample(entry: &Entry<'_>) -> Outcome {
    let secret = SecretKey::from_bytes(&entry.array("private_key")?).map_err(|error| error.to_string())?;
    let (ciphertext, s2) = (entry.bytes("ciphertext")?, entry.bytes("shared_mac_data")?);
    let opened = ecies::decrypt(&secret, &ciphertext, &s2).map_err(|error| error.to_string())?;
    let plaintext = entry.bytes("plaintext")?;
    same("plaintext", &opened, &plaintext)?;
    same("length", ciphertext.len(), plaintext.len() + ecies::OVERHEAD)
}

fn node_id(entry: &Entry<'_>) -> Outcome {
    let key = PublicKey::from_bytes(&entry.bytes("pubkey")?).map_err(|error| error.to_string())?;
    same("node id", key.node_id(), entry.array("keccak256")?)
}
