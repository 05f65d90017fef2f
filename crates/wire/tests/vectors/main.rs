//! Every entry of the vectors that concerns this crate, and every member of each entry.
//!
//! The vectors were made by running status-go v0.64.6. The full file is read from the directory that `POSTE_VECTORS`
//! names; without it the representative copy in `testdata/` is used. The count for the record:
//!
//! ```text
//! POSTE_VECTORS=… cargo test -p poste-wire --test vectors -- --nocapture
//! ```
//!
//! A member that no check reads fails the test, and so does a member whose value may be altered without any check
//! noticing ([`every_member_matters`]).

mod envelopes;
mod mailserver;
mod packets;
mod payloads;

use poste_vectors::plan::Plan;
use poste_vectors::{entry, plan};

fn plan() -> Plan {
    let mut plan = Plan::new();
    let root = plan::load(env!("CARGO_MANIFEST_DIR"));
    let mut sections = plan::Section::new("", &root);
    sections.each("envelopes", &mut plan, envelopes::envelope);
    payloads::add(&mut sections.inside("payloads"), &mut plan);
    sections.each("password_to_symkey", &mut plan, payloads::password);
    sections.each("topics", &mut plan, envelopes::topic);
    mailserver::add(&mut sections.inside("mailserver"), &mut plan);
    packets::add(&mut sections.inside("packets"), &mut plan);
    sections.leave("about", &mut plan, "a sentence about the file's origin");
    sections.leave("generated", &mut plan, "the date on which the file was made");
    sections.leave(
        "rlpx",
        &mut plan,
        "the transport: checked by poste-rlpx, its ECIES and node id by poste-codec",
    );
    sections.finish();
    plan
}

#[test]
fn every_entry_and_every_member() {
    let plan = plan();
    let (mut members, mut failures) = (0, Vec::new());
    for case in &plan.cases {
        members += entry::count_members(&case.value);
        if let Err(failure) = case.run(&case.value) {
            failures.push(format!("{}: {failure}", case.path));
        }
    }
    for (path, reason) in &plan.left {
        println!("not checked here: {path}: {reason}");
    }
    for difference in mailserver::differences().chain(packets::differences()) {
        println!("differs on purpose: {difference}");
    }
    println!("checked {} entries, {members} members", plan.cases.len());
    assert!(failures.is_empty(), "{} entries fail:\n{}", failures.len(), failures.join("\n"));
}

/// Alters each member in turn, and wants the check of its entry to fail.
#[test]
fn every_member_matters() {
    let plan = plan();
    let (mut alterations, mut unnoticed) = (0, Vec::new());
    for case in &plan.cases {
        for (member, altered) in entry::alterations(&case.value) {
            alterations += 1;
            if case.run(&altered).is_ok() {
                unnoticed.push(format!("{}.{member}", case.path));
            }
        }
    }
    println!("altered {alterations} values, each was noticed but {}", unnoticed.len());
    assert!(unnoticed.is_empty(), "altered without being noticed:\n{}", unnoticed.join("\n"));
}
