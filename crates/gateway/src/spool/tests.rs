//! The spool on a disk that fails on purpose.

use std::collections::BTreeSet;

use poste_journal::{FaultyDisk, Group, Odds};
use poste_service::readiness::Readiness;
use poste_wire::{Envelope, Topic};

use super::*;
use crate::metrics::{Metrics, SpoolMetrics};

const DIR: &str = "/spool";
const NOW: u32 = 1_600_000_000;

struct Opened {
    spool: Arc<Spool>,
    writer: SpoolWriter,
    readiness: Readiness,
    metrics: SpoolMetrics,
}

fn options(disk: &FaultyDisk, max_bytes: u64) -> (SpoolOptions, Readiness) {
    let readiness = Readiness::new();
    let options = SpoolOptions {
        disk: Arc::new(disk.clone()),
        dir: PathBuf::from(DIR),
        max_bytes,
        writer_id: "c0ffee".to_owned(),
        clock: Clock::manual(Duration::from_secs(NOW.into())).0,
        ready: readiness.add("gateway.spool"),
        metrics: Metrics::new(&poste_service::metrics::Metrics::new().scope("gateway")).spool,
    };
    (options, readiness)
}

fn open(disk: &FaultyDisk) -> Opened {
    let (options, readiness) = options(disk, 1 << 30);
    let metrics = options.metrics.clone();
    let (spool, writer) = Spool::open(options).unwrap();
    Opened { spool, writer, readiness, metrics }
}

/// The encoding of the envelope with this number, made that many seconds after [`NOW`].
fn body(number: u32, size: usize) -> Bytes {
    Envelope::new(NOW + number + 50, 50, Topic([7; 4]), &vec![number as u8; size], number.into())
        .rlp()
        .clone()
}

fn write(
    writer: &mut SpoolWriter,
    numbers: impl Iterator<Item = u32>,
    size: usize,
) -> Result<(), JournalError> {
    let bodies: Vec<(Bytes, u32)> = numbers.map(|number| (body(number, size), NOW + number)).collect();
    writer.write(bodies.iter().map(|(body, sent)| (body, *sent)))
}

/// Everything that can be drained, in order, without settling it.
fn read_all(spool: &Arc<Spool>) -> Vec<Bytes> {
    let mut leased = Vec::new();
    while let Some(lease) = spool.lease(10, usize::MAX) {
        leased.push(lease.read());
    }
    leased.iter().flat_map(|drained| drained.bodies.clone()).collect()
}

fn settle_all(spool: &Arc<Spool>) -> usize {
    let mut count = 0;
    while let Some(lease) = spool.lease(10, usize::MAX) {
        let drained = lease.read();
        count += drained.bodies.len();
        drained.settle(|_| true);
    }
    count
}

fn segment_file(number: u32) -> PathBuf {
    Path::new(DIR).join(format!("segment-{number:010}.journal"))
}

#[test]
fn what_is_written_survives_a_power_cut_and_is_drained_in_order() {
    for seed in 0..30 {
        let disk = FaultyDisk::new(seed);
        disk.set_odds(Odds { short_write: 2000, ..Odds::default() });
        let mut first = open(&disk);
        write(&mut first.writer, 0..40, 300).unwrap();
        write(&mut first.writer, 40..50, 5000).unwrap();
        disk.crash();
        let again = open(&disk);
        assert_eq!(again.spool.writer_id(), "c0ffee");
        let all: Vec<Bytes> = (0..40).map(|n| body(n, 300)).chain((40..50).map(|n| body(n, 5000))).collect();
        let bytes = all.iter().map(|body| body.len() as u64).sum();
        assert_eq!(again.spool.size(), SpoolSize { envelopes: 50, bytes }, "seed {seed}");
        assert_eq!(again.spool.oldest(), Some(NOW));
        assert_eq!(read_all(&again.spool), all, "seed {seed}");
        assert_eq!(read_all(&again.spool), all, "what is not settled goes back");
        assert_eq!(again.metrics.lost.get(), 0);
    }
}

#[test]
fn what_is_settled_does_not_come_back() {
    let disk = FaultyDisk::new(1);
    let mut first = open(&disk);
    write(&mut first.writer, 0..100, 3000).unwrap();
    let segments = first.writer.room();
    let part = first.spool.lease(30, usize::MAX).unwrap().read();
    assert!(!part.settle(|number| number < 20));
    assert_eq!(first.spool.size().envelopes, 80);
    assert_eq!(read_all(&first.spool)[0], body(20, 3000));
    assert_eq!(settle_all(&first.spool), 80);
    assert_eq!((first.spool.size(), first.spool.oldest()), (SpoolSize::default(), None));
    first.writer.tidy();
    assert!(first.writer.room() > segments + 300_000, "its room is back");
    disk.crash();
    let again = open(&disk);
    assert_eq!(again.spool.size().envelopes, 0);
    assert_eq!(
        disk.list(Path::new(DIR)).unwrap().iter().filter(|name| name.starts_with("segment")).count(),
        1
    );
}

#[test]
fn a_segment_goes_when_everything_in_it_is_settled() {
    let disk = FaultyDisk::new(2);
    let (options, _) = options(&disk, 1 << 20);
    let (spool, mut writer) = Spool::open(options).unwrap();
    for group in 0..10 {
        write(&mut writer, group * 10..group * 10 + 10, 5000).unwrap();
    }
    let files =
        || disk.list(Path::new(DIR)).unwrap().into_iter().filter(|name| name.starts_with("segment")).count();
    let before = files();
    assert!(before > 5, "{before} segments");
    let first = spool.lease(1, usize::MAX).unwrap().read();
    let second = spool.lease(10_000, usize::MAX).unwrap().read();
    assert!(!second.settle(|_| true), "one of the segment is still on its way");
    writer.tidy();
    assert_eq!(files(), before);
    assert!(first.settle(|_| true));
    writer.tidy();
    assert_eq!(files(), before - 1);
}

#[test]
fn a_damaged_place_is_counted_and_the_others_are_drained() {
    let disk = FaultyDisk::new(3);
    let mut opened = open(&disk);
    write(&mut opened.writer, 0..10, 300).unwrap();
    // In the payload of the third frame: frames follow the header of 64 bytes.
    let frame = SpoolWriter::file_bytes(&body(0, 300));
    disk.damage(&segment_file(1), 64 + 2 * frame + 50, 1).unwrap();
    let drained = opened.spool.lease(100, usize::MAX).unwrap().read();
    assert_eq!((drained.bodies.len(), opened.metrics.lost.get()), (9, 1));
    assert!(drained.settle(|_| true));
    opened.writer.tidy();
    let names: BTreeSet<String> = disk.list(Path::new(DIR)).unwrap().into_iter().collect();
    assert!(names.contains("segment-0000000001.journal.damaged"), "kept for people: {names:?}");
    assert_eq!(opened.spool.size(), SpoolSize::default());
}

#[test]
fn damage_that_a_start_finds_is_counted_too() {
    let disk = FaultyDisk::new(4);
    let mut first = open(&disk);
    write(&mut first.writer, 0..10, 300).unwrap();
    first.writer.close();
    let frame = SpoolWriter::file_bytes(&body(0, 300));
    for place in [2, 3, 7] {
        disk.damage(&segment_file(1), 64 + place * frame + 50, 1).unwrap();
    }
    let mut again = open(&disk);
    assert_eq!((again.metrics.lost.get(), again.spool.size().envelopes), (2, 7), "two stretches");
    assert_eq!(settle_all(&again.spool), 7);
    again.writer.tidy();
    drop(again);
    assert_eq!(open(&disk).metrics.lost.get(), 0, "said once");
}

#[test]
fn what_cannot_be_read_is_tried_again_before_it_counts_as_lost() {
    let disk = FaultyDisk::new(5);
    let mut opened = open(&disk);
    write(&mut opened.writer, 0..3, 5000).unwrap();
    disk.set_odds(Odds { read_error: 10_000, ..Odds::default() });
    let drained = opened.spool.lease(100, usize::MAX).unwrap().read();
    assert!(drained.bodies.is_empty());
    drained.settle(|_| true);
    assert_eq!((opened.spool.size().envelopes, opened.metrics.lost.get()), (3, 0));
    assert!(opened.spool.rests() && opened.spool.lease(1, 1).is_none());
    disk.set_odds(Odds::default());
    opened.spool.rest(Duration::ZERO);
    assert_eq!(read_all(&opened.spool).len(), 3);

    disk.make_unreadable(&segment_file(1), 6000..6001).unwrap();
    for _ in 0..=MAX_READ_FAILURES {
        opened.spool.rest(Duration::ZERO);
        drop(read_all(&opened.spool));
    }
    opened.spool.rest(Duration::ZERO);
    assert_eq!((settle_all(&opened.spool), opened.metrics.lost.get()), (2, 1));
}

#[test]
fn a_disk_that_refuses_is_tried_until_it_takes_something() {
    let disk = FaultyDisk::new(6);
    let mut opened = open(&disk);
    write(&mut opened.writer, 0..10, 300).unwrap();
    disk.fail_next_syncs(1);
    let error = write(&mut opened.writer, 10..20, 300).unwrap_err();
    opened.spool.set_fault(Some(Fault::of(&error)));
    assert!(opened.spool.is_faulty());
    let reason = opened.readiness.report().checks[0].reason.clone().unwrap();
    assert!(reason.contains("the spool takes nothing"), "{reason}");
    assert_eq!(opened.metrics.full_state.get(), 1);
    disk.set_capacity(Some(5_000));
    opened.writer.maintain();
    let reason = opened.readiness.report().checks[0].reason.clone().unwrap();
    assert!(reason.contains("its disk is full"), "{reason}");
    disk.set_capacity(None);
    opened.writer.maintain();
    assert!(!opened.spool.is_faulty() && opened.readiness.report().checks[0].ready);
    assert_eq!(opened.metrics.full_state.get(), 0);
    write(&mut opened.writer, 10..20, 300).unwrap();
    disk.crash();
    let again = open(&disk);
    assert_eq!(read_all(&again.spool), (0..20).map(|number| body(number, 300)).collect::<Vec<_>>());
}

#[test]
fn a_record_of_a_newer_program_is_not_thrown_away() {
    let disk = FaultyDisk::new(7);
    drop(open(&disk));
    let lock = DirectoryLock::acquire(Arc::new(disk.clone()), Path::new(DIR)).unwrap();
    let identity = Identity::open(&lock, "other").unwrap();
    let (mut journal, _) =
        Journal::open(lock, Options::new(identity.journal_id), 0, &mut |_, _: &[u8]| {}).unwrap();
    let mut group = Group::new();
    group.push(&[b"\x02something new"]).unwrap();
    journal.append(&mut group, 0).unwrap();
    journal.close().unwrap();
    let error = Spool::open(options(&disk, 1 << 20).0).unwrap_err();
    assert!(matches!(error, SpoolError::Version { version: 2, .. }), "{error}");
}

#[test]
fn a_second_owner_is_refused() {
    let disk = FaultyDisk::new(8);
    let opened = open(&disk);
    let error = Spool::open(options(&disk, 1 << 20).0).unwrap_err();
    assert!(matches!(error, SpoolError::Journal(JournalError::Locked { .. })), "{error}");
    opened.writer.close();
    drop(open(&disk));
}
