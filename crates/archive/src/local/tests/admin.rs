//! What operators are told: a verification of a disk that does not give everything, and a dry run beside the real one.

use super::*;
use crate::store::Verification;

/// A store whose first segments are sealed and indexed, with something in the open one.
async fn with_sealed_segments(disk: &FaultyDisk) -> LocalStore {
    let store = LocalStore::open(on_disk(disk)).unwrap();
    for first in (0..800).step_by(100) {
        append(&store, records(first..first + 100)).await;
    }
    until(&store, |stats| stats.segments > 3 && store.shared.waiting_parts().is_empty()).await;
    store
}

async fn verify(store: &LocalStore) -> Verification {
    store.verify(Arc::new(|_| true)).await.unwrap()
}

#[tokio::test]
async fn what_the_disk_does_not_give_is_counted_and_the_rest_is_verified() {
    let disk = FaultyDisk::new(7);
    let store = with_sealed_segments(&disk).await;
    let open = disk.list(Path::new("/archive")).unwrap();
    let open = open.iter().filter(|name| name.ends_with(".journal")).count() - 1;
    disk.damage(&segment(&disk, 0), 2000, 0x10).unwrap();
    disk.make_unreadable(&segment(&disk, 1), 2000..2001).unwrap();
    disk.make_unreadable(&segment(&disk, open), 100..101).unwrap();
    let found = verify(&store).await;
    assert_eq!((found.unreadable, found.quarantined, found.complete), (2, 1, true), "{found:?}");
    assert!(found.records > 400 && found.records < 799, "{found:?}");
    for words in [
        "segment 1: ",
        "segment 2: the disk could not read",
        &format!("segment {}: could not read", open + 1),
    ] {
        assert!(found.findings.iter().any(|finding| finding.contains(words)), "{words} {found:?}");
    }
    let again = verify(&store).await;
    assert_eq!((again.unreadable, again.quarantined), (2, 0), "nothing was given up for it: {again:?}");
}

#[tokio::test]
async fn a_segment_without_its_index_is_not_passed_over_in_silence() {
    let disk = FaultyDisk::new(8);
    let store = with_sealed_segments(&disk).await;
    store.close().await.unwrap();
    drop(store);
    // It cannot be indexed for as long as its disk refuses it.
    disk.make_unreadable(&segment(&disk, 0), 2000..2001).unwrap();
    disk.remove(&segment(&disk, 0).with_extension("index")).unwrap();
    let store = LocalStore::open(on_disk(&disk)).unwrap();
    let found = verify(&store).await;
    assert_eq!((found.unindexed, found.complete), (1, false), "{found:?}");
    assert!(found.findings[0].contains("live segment 1: it was passed over"), "{found:?}");
    assert!(found.records > 400, "all others are read: {found:?}");
}

#[tokio::test]
async fn a_dry_run_tells_what_pruning_then_does() {
    let now = Duration::from_secs(1_700_000_000);
    let (store, _) = of_some_hours(&FaultyDisk::new(9), now).await;
    until(&store, |_| store.shared.waiting_parts().is_empty()).await;
    let before = store.stats().await.unwrap();
    for hours in [4, 2, 0] {
        let floor_ns = i64::try_from((now - Duration::from_secs(hours * 3600)).as_nanos()).unwrap();
        let would = store.would_retire(Space::Waku1, floor_ns).await.unwrap();
        let retired = store.retire(Space::Waku1, floor_ns).await.unwrap();
        assert_eq!((would.floor_ns, would.hidden), (retired.floor_ns, retired.hidden));
        assert_eq!(retired.hidden, 20, "whether or not their files can go at once");
        assert!((1..=27).contains(&would.records) && would.bytes > 0, "{would:?}");
        // The store looks around by itself, and may have been quicker with what is below the new floor.
        let removed = (retired.records, retired.bytes);
        assert!(removed == (would.records, would.bytes) || removed == (0, 0), "{retired:?} {would:?}");
    }
    // What was stored last goes when its segment has been sealed.
    until(&store, |stats| stats.spaces.iter().all(|space| space.records == 0)).await;
    assert!(before.spaces[0].records == 60);
}
