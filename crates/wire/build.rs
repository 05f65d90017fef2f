//! Compiles `proto/status/**` without protoc: protox parses, prost-build generates.

use std::path::{Path, PathBuf};
use std::{env, error, fs};

/// What holds a token, a grant, or what the network must not learn: their `Debug` is written by hand.
const REDACTED: [&str; 13] = [
    "status.ApplicationMetadataMessage",
    "status.SegmentMessage",
    "status.ProtocolMessage",
    "status.PushNotificationRegistration",
    "status.PushNotificationRegistrationResponse",
    "status.PushNotificationQuery",
    "status.PushNotificationQueryResponse",
    "status.PushNotificationQueryInfo",
    "status.PushNotification",
    "status.PushNotificationReport",
    "status.PushNotificationRequest",
    "status.PushNotificationResponse",
    "status.ContactCodeAdvertisement",
];

fn main() -> Result<(), Box<dyn error::Error>> {
    let manifest_dir = env::var("CARGO_MANIFEST_DIR")?;
    let root = Path::new(&manifest_dir).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.join("status").display());

    let mut files = Vec::<PathBuf>::new();
    for entry in fs::read_dir(root.join("status"))? {
        files.push(entry?.path());
    }
    files.sort();

    let descriptors = protox::compile(&files, [&root])?;
    // `Bytes`: lists of thousands of hashes share the one buffer that they came in.
    prost_build::Config::new().bytes(["."]).skip_debug(REDACTED).compile_fds(descriptors)?;
    Ok(())
}
