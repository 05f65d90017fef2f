//! Sealing, removing, numbers that never come back, and reading one segment from end to end.

use super::*;
use crate::reader::{Reader, ScanReport};

/// Three sealed segments of one frame each, and the open one behind them.
fn three_sealed(disk: &FaultyDisk) -> (Journal, Vec<FrameAt>) {
    let (mut journal, _, _) = open(disk, 0).unwrap();
    let mut places = Vec::new();
    for number in 1..=3_u8 {
        places.extend(append(&mut journal, &[&[number; 500]]));
        assert_eq!(journal.seal(0).unwrap(), Some(u32::from(number)));
    }
    (journal, places)
}

const SEALED_BYTES: u64 = HEADER_BYTES + FRAME_HEADER_BYTES as u64 + 500;

#[test]
fn sealing_makes_durable_and_begins_the_next() {
    for seed in 0..20 {
        let disk = FaultyDisk::new(seed);
        let (journal, places) = three_sealed(&disk);
        assert_eq!(journal.segments(), [(1, SEALED_BYTES), (2, SEALED_BYTES), (3, SEALED_BYTES)]);
        disk.crash();
        drop(journal);
        let (mut journal, recovery, frames) = open(&disk, 0).unwrap();
        assert_eq!(frames.iter().map(|frame| frame.0).collect::<Vec<_>>(), places, "seed {seed}");
        assert_eq!((recovery.cut, recovery.quarantined.len(), journal.open_segment()), (None, 0, 4));
        assert_eq!(journal.seal(0).unwrap(), None, "nothing to seal");
        assert_eq!(journal.open_segment(), 4);
    }
}

#[test]
fn sealing_is_due_by_age_and_only_with_frames() {
    let disk = FaultyDisk::new(30);
    let (mut journal, _, _) = open(&disk, 1000).unwrap();
    assert!(!journal.seal_due(500_000), "no frames");
    append(&mut journal, &[b"frame"]);
    assert!(!journal.seal_due(60_999));
    assert!(journal.seal_due(61_000));
    assert_eq!(journal.seal(61_000).unwrap(), Some(1));
    assert!(!journal.seal_due(500_000));
}

#[test]
fn sealing_that_fails_poisons_and_loses_nothing_that_was_durable() {
    let disk = FaultyDisk::new(31);
    let (mut journal, _, _) = open(&disk, 0).unwrap();
    append(&mut journal, &[b"kept"]);
    journal.sync().unwrap();
    disk.fail_next_dir_syncs(1);
    assert_eq!(journal.seal(0).unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(matches!(journal.seal(0), Err(JournalError::Poisoned)));
    assert_eq!(journal.reopen(0).unwrap().sealed, Some(1));
    disk.crash();
    let (_journal, _, frames) = open(&disk, 0).unwrap();
    assert_eq!(frames[0].1, b"kept");
}

#[test]
fn a_removed_segment_is_gone_after_a_power_cut_and_its_number_too() {
    for seed in 0..50 {
        let disk = FaultyDisk::new(seed);
        let (mut journal, places) = three_sealed(&disk);
        let reader = journal.reader();
        reader.read(places[1]).unwrap();
        let before = journal.file_bytes();
        assert_eq!(journal.remove(2).unwrap(), SEALED_BYTES);
        assert_eq!(journal.file_bytes(), before - SEALED_BYTES);
        assert!(matches!(reader.read(places[1]), Err(JournalError::Io { .. })), "the handle is closed");
        assert_eq!(journal.remove(2).unwrap(), 0, "a missing file is fine");
        for segment in [1, 3] {
            journal.remove(segment).unwrap();
        }
        assert_eq!((journal.segments(), journal.file_bytes()), (vec![], HEADER_BYTES));
        disk.crash();
        drop(journal);
        let (mut journal, recovery, frames) = open(&disk, 0).unwrap();
        assert_eq!((frames.len(), recovery.quarantined.len()), (0, 0), "seed {seed}");
        assert_eq!(append(&mut journal, &[b"next"])[0].segment, 4, "seed {seed}");
    }
}

#[test]
fn a_removal_that_fails_does_not_poison_and_can_be_tried_again() {
    let disk = FaultyDisk::new(32);
    let (mut journal, places) = three_sealed(&disk);
    let before = journal.file_bytes();
    disk.fail_next_removals(1);
    assert_eq!(journal.remove(1).unwrap_err().kind(), ErrorKind::Unavailable);
    journal.reader().read(places[0]).unwrap();
    disk.fail_next_dir_syncs(1);
    assert_eq!(journal.remove(1).unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(!journal.is_poisoned());
    assert_eq!(journal.file_bytes(), before, "it may come back: it counts");
    assert_eq!(journal.remove(1).unwrap(), SEALED_BYTES);
    append(&mut journal, &[b"goes on"]);
    journal.sync().unwrap();
}

#[test]
fn the_open_segment_is_never_removed() {
    let disk = FaultyDisk::new(33);
    let (mut journal, _) = three_sealed(&disk);
    let error = journal.remove(4).unwrap_err();
    assert!(matches!(error, JournalError::StillOpen { segment: 4 }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn a_segment_that_is_set_aside_stays_on_disk_outside_the_journal() {
    let disk = FaultyDisk::new(38);
    let (mut journal, places) = three_sealed(&disk);
    let before = journal.file_bytes();
    assert_eq!(journal.set_aside(2).unwrap(), SEALED_BYTES);
    assert_eq!(journal.file_bytes(), before - SEALED_BYTES);
    assert!(matches!(journal.set_aside(4), Err(JournalError::StillOpen { .. })));
    disk.crash();
    drop(journal);
    let (_journal, _, frames) = open(&disk, 0).unwrap();
    assert_eq!(frames.iter().map(|frame| frame.0).collect::<Vec<_>>(), [places[0], places[2]]);
    let names = disk.list(Path::new(DIR)).unwrap();
    assert!(names.contains(&format!("{}.damaged", file_name(2))), "{names:?}");
}

#[test]
fn removing_makes_room_on_a_full_disk() {
    let disk = FaultyDisk::new(34);
    let (mut journal, _) = three_sealed(&disk);
    let used = journal.file_bytes();
    disk.set_capacity(Some(used + 100));
    assert_eq!(disk.free_bytes(Path::new(DIR)).unwrap(), 100);
    assert_eq!(journal.append(&mut group(&[vec![9; 500]]), 0).unwrap_err().kind(), ErrorKind::Full);
    assert!(journal.is_poisoned());
    assert_eq!(journal.remove(1).unwrap(), SEALED_BYTES);
    journal.reopen(0).unwrap();
    append(&mut journal, &[&[9; 500]]);
    journal.sync().unwrap();
}

#[test]
fn numbers_go_on_where_the_owner_says() {
    let disk = FaultyDisk::new(35);
    let begin = |min_number| {
        let lock = DirectoryLock::acquire(Arc::new(disk.clone()), Path::new(DIR)).unwrap();
        let options = Options { min_number, ..options() };
        Journal::open(lock, options, 0, &mut |_, _: &[u8]| {}).unwrap().0
    };
    let mut journal = begin(17);
    assert_eq!(append(&mut journal, &[b"first"])[0].segment, 17);
    journal.close().unwrap();
    let mut journal = begin(3);
    assert_eq!(append(&mut journal, &[b"same"])[0].segment, 17, "what is open goes on");
    assert_eq!(journal.seal(0).unwrap(), Some(17));
    assert_eq!(journal.open_segment(), 18, "found is above the smallest allowed");
    drop(journal);
    let mut journal = begin(40);
    append(&mut journal, &[b"last of 18"]);
    journal.seal(0).unwrap();
    assert_eq!(journal.open_segment(), 40);
}

#[test]
fn lengths_are_known_without_reading() {
    struct Unwanted;
    impl Replay for Unwanted {
        fn wanted(&mut self, _segment: u32) -> bool {
            false
        }
        fn frame(&mut self, _at: FrameAt, _payload: &[u8]) {}
    }
    let disk = FaultyDisk::new(36);
    let (journal, _) = three_sealed(&disk);
    let bytes = journal.file_bytes();
    journal.close().unwrap();
    disk.make_unreadable(&segment_path(2), 0..SEALED_BYTES).unwrap();
    let lock = DirectoryLock::acquire(Arc::new(disk), Path::new(DIR)).unwrap();
    let (journal, recovery) = Journal::open(lock, options(), 0, &mut Unwanted).unwrap();
    assert_eq!(journal.segments(), [(1, SEALED_BYTES), (2, SEALED_BYTES), (3, SEALED_BYTES)]);
    assert_eq!((journal.file_bytes(), recovery.quarantined.len()), (bytes, 0));
}

#[test]
fn a_scan_gives_every_frame_and_every_damage() {
    let disk = FaultyDisk::new(37);
    let (mut journal, _, _) = open(&disk, 0).unwrap();
    let payloads: Vec<Vec<u8>> = (1..20_u8).map(|number| vec![number; 100 * usize::from(number)]).collect();
    let mut all = group(&payloads);
    let places = journal.append(&mut all, 0).unwrap().frames;
    journal.seal(0).unwrap();
    let len = journal.segments()[0].1;
    drop(journal);
    let reader = Reader::new(Arc::new(disk.clone()), Path::new(DIR).to_path_buf(), [7; 16]);
    let read = || {
        let mut frames = Frames::new();
        let report = reader.scan(1, |at, payload| frames.push((at, payload.to_vec()))).unwrap();
        (report, frames)
    };
    let (report, frames) = read();
    assert_eq!(report, ScanReport { frames: 19, bytes: len, ..ScanReport::default() });
    assert_eq!(frames, places.iter().copied().zip(payloads).collect::<Frames>());

    let asked = std::cell::Cell::new(0);
    let once = || asked.replace(asked.get() + 1) < 1;
    assert_eq!(reader.scan_while(1, |_, _| {}, &once).unwrap().map(|report| report.frames), Some(19));
    assert_eq!(
        (reader.scan_while(1, |_, _| panic!("it was ended"), &|| false).unwrap(), asked.get()),
        (None, 1)
    );
    assert_eq!(reader.created_ms(1).unwrap(), Some(0));

    disk.damage(&segment_path(1), 3, 1).unwrap();
    assert_eq!(reader.created_ms(1).unwrap(), None);
    disk.damage(&segment_path(1), u64::from(places[7].offset) + 20, 1).unwrap();
    let (report, frames) = read();
    let header = Damage { segment: 1, offset: 0, bytes: HEADER_BYTES };
    let frame = Damage {
        segment: 1,
        offset: u64::from(places[7].offset),
        bytes: u64::from(places[8].offset - places[7].offset),
    };
    assert_eq!((report.damaged, report.unreadable, frames.len()), (vec![header, frame], false, 18));

    disk.make_unreadable(&segment_path(1), 0..10).unwrap();
    assert!(matches!(reader.created_ms(1), Err(JournalError::Io { .. })));
    let (report, frames) = read();
    assert_eq!((report.damaged[0], report.unreadable, frames.len()), (header, true, 18));
    disk.make_unreadable(&segment_path(1), 9000..9001).unwrap();
    let (report, frames) = read();
    assert!(report.unreadable && frames.len() < 18, "nothing of the block with the bad sector can be read");
    assert!(matches!(reader.scan(9, |_, _| {}), Err(JournalError::Io { .. })), "no such segment");
    let stranger = Reader::new(Arc::new(disk.clone()), Path::new(DIR).to_path_buf(), [8; 16]);
    assert!(matches!(stranger.scan(2, |_, _| {}), Err(JournalError::Foreign { .. })));
}

#[test]
fn the_real_disk_removes_and_knows_its_room() {
    let dir = tempfile::tempdir().unwrap();
    let lock = DirectoryLock::acquire(Arc::new(RealDisk), dir.path()).unwrap();
    let (mut journal, _) = Journal::open(lock, options(), 0, &mut |_, _: &[u8]| {}).unwrap();
    append(&mut journal, &[b"one"]);
    journal.seal(0).unwrap();
    assert!(dir.path().join(file_name(1)).exists());
    journal.remove(1).unwrap();
    assert!(!dir.path().join(file_name(1)).exists());
    assert!(RealDisk.free_bytes(dir.path()).unwrap() > 0);
    assert!(RealDisk.free_bytes(&dir.path().join("missing")).is_err());
}

/// A measurement, not a check of behaviour: run it alone, in a release build, to see bytes per second.
#[test]
#[ignore = "a measurement: cargo test --release -p poste-journal --lib -- --ignored --nocapture scan_speed"]
fn scan_speed() {
    let dir = tempfile::tempdir().unwrap();
    let lock = DirectoryLock::acquire(Arc::new(RealDisk), dir.path()).unwrap();
    let (mut journal, _) = Journal::open(lock, Options::new([7; 16]), 0, &mut |_, _: &[u8]| {}).unwrap();
    let mut thousand = group(&vec![vec![0x5a; 300]; 1000]);
    while journal.file_bytes() + thousand.file_bytes() as u64 <= 256 * 1024 * 1024 {
        journal.append(&mut thousand, 0).unwrap();
    }
    journal.seal(0).unwrap();
    for _ in 0..3 {
        let begun = Instant::now();
        let report = journal.reader().scan(1, |_, _| {}).unwrap();
        let rate = report.bytes as f64 / begun.elapsed().as_secs_f64() / 1e9;
        assert!(report.damaged.is_empty());
        println!("{} frames, {} bytes: {rate:.2} GB/s", report.frames, report.bytes);
    }
}
