//! The demo tells the truth: it ends well on real parts, and badly when the archive loses an envelope.

use std::process::Command;
use std::sync::Arc;

use poste_archive::store::{DroppingStore, MemoryStore, StoreId};
use poste_archive::{ArchiveConfig, start_with_store};

#[test]
fn the_demo_exits_with_0() {
    let output = Command::new(env!("CARGO_BIN_EXE_poste")).arg("demo").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("They are A's, byte for byte.\n"), "{text}");
    assert!(text.contains("B's device rings, once: \"You have a new message\""), "{text}");
    assert!(text.ends_with("opens it: \"Your post is here. Come and get it!\".\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_notices_one_envelope_that_the_archive_drops() {
    let data = tempfile::tempdir().unwrap();
    let mut told = Vec::new();
    let dropping = async |config: ArchiveConfig, context| {
        let store = DroppingStore::new(Arc::new(MemoryStore::new(StoreId([7; 16]))), 7);
        Ok(start_with_store(Arc::new(store), config, context).await?)
    };
    let error = poste::demo::tell(&mut told, data.path(), dropping).await.unwrap_err().to_string();
    assert_eq!(error, "1 of 20 confirmed envelopes did not come back");
    let told = String::from_utf8(told).unwrap();
    assert!(told.contains("19 envelopes in"), "{told}");
}
