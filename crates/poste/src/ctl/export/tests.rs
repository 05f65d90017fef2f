//! What an export leaves behind when it ends early, and what it says may be missing.

use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;

use super::*;

fn chunk(bytes: &'static [u8]) -> anyhow::Result<v1::ExportResponse> {
    Ok(v1::ExportResponse { kind: Some(Kind::Chunk(Bytes::from_static(bytes))) })
}

fn failure() -> anyhow::Result<v1::ExportResponse> {
    Err(anyhow::anyhow!("the archive is gone"))
}

#[tokio::test]
async fn a_failure_before_the_first_byte_leaves_no_file_and_a_later_one_what_came() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history");
    for (answers, left, words) in [
        (vec![failure()], None, "the archive is gone"),
        (vec![], None, NO_REPORT),
        (vec![chunk(b""), failure()], None, "nothing was exported"),
        (vec![chunk(b"some"), chunk(b"thing"), failure()], Some(&b"something"[..]), "--resume"),
    ] {
        let mut destination = Destination::new_file(&path);
        let answers = futures::stream::iter(answers);
        let error = write(answers, &mut destination, &ProgressBar::hidden()).await.unwrap_err();
        let error = format!("{:#}", destination.left_unfinished(error));
        assert!(error.contains(words), "{error}");
        assert_eq!(fs::read(&path).ok().as_deref(), left, "{error}");
    }
}

#[tokio::test]
async fn what_is_exported_is_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let [new, resumed] = ["new", "resumed"].map(|name| dir.path().join(name));
    file::Output::create(&new).unwrap().finish().await.unwrap();
    file::Output::resume(&resumed, 0).unwrap().finish().await.unwrap();
    for path in [new, resumed] {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
}

#[test]
fn gaps_are_those_of_the_range_that_was_asked_for() {
    let report = v1::ExportReport { floor_ns: Some(100), ..v1::ExportReport::default() };
    assert!(gaps(&report, i64::MAX).is_empty(), "retention is no gap");
    let writer = v1::ExportReport { complete_until_ns: Some(1000), ..report };
    assert!(gaps(&writer, 999).is_empty());
    assert!(gaps(&writer, 1000)[0].contains("a writer may still bring records"));
    let index = v1::ExportReport { complete_until_ns: Some(i64::MIN), ..report };
    assert!(gaps(&index, 999)[0].contains("an index is being made anew"));
    let resumed = v1::ExportReport { unclaimed_until_ns: Some(500), ..report };
    assert!(gaps(&resumed, 999)[0].contains("is not known"));
    let damaged = v1::ExportReport { quarantined: 2, ..report };
    assert!(gaps(&damaged, 999)[0].contains("2 damaged places"));
}
