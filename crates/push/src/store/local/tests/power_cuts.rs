//! The power goes between any two steps of a request: what the next server says and does is told beside the kills of
//! whole processes.

use std::sync::Arc;

use poste_journal::FaultyDisk;

use super::faults::{Fuse, make, reopened};
use crate::server::tests::crashes::{Point, ask_again, go_as_far_as};

#[tokio::test]
async fn a_power_cut_between_any_two_steps_rings_at_most_once() {
    for point in Point::ALL {
        for seed in 0..2 {
            let dir = tempfile::tempdir().unwrap();
            let pushes = dir.path().join("pushes");
            let (disk, fuse) = (FaultyDisk::new(seed), Fuse::default());
            let store = Arc::new(make(&disk, &fuse));
            go_as_far_as(point, store.clone(), &pushes).await;
            fuse.burn();
            disk.crash();
            drop(store);
            ask_again(point, Arc::new(reopened(&disk)), &pushes).await;
        }
    }
}
