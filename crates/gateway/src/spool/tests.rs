//! The spool on a disk that fails on purpose.

use bytes::Bytes;
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
        max_ttl: Duration::from_secs(86_400),
        ready: readiness.add("gateway.spool"),
        version: readiness.add("gateway.spool_version"),
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

/// Opens it and waits for what is read in the background.
fn open_all(disk: &FaultyDisk) -> Opened {
    let opened = open(disk);
    opened.spool.look_through();
    opened
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
        drained.settle(|_| Fate::Settled);
    }
    count
}

fn segment_file(number: u32) -> PathBuf {
    Path::new(DIR).join(format!("segment-{number:010}.journal"))
}

/// Whether the segment's file is kept for people.
fn is_set_aside(disk: &FaultyDisk, number: u32) -> bool {
    let names = disk.list(Path::new(DIR)).unwrap();
    names.contains(&format!("segment-{number:010}.journal.damaged"))
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
        let again = open_all(&disk);
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
    assert!(!part.settle(|number| if number < 20 { Fate::Settled } else { Fate::Again }));
    assert_eq!(first.spool.size().envelopes, 80);
    assert_eq!(read_all(&first.spool)[0], body(20, 3000));
    assert_eq!(settle_all(&first.spool), 80);
    assert_eq!((first.spool.size(), first.spool.oldest()), (SpoolSize::default(), None));
    first.writer.tidy();
    assert!(first.writer.room() > segments + 300_000, "its room is back");
    disk.crash();
    let again = open_all(&disk);
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
    assert!(!second.settle(|_| Fate::Settled), "one of the segment is still on its way");
    writer.tidy();
    assert_eq!(files(), before);
    assert!(first.settle(|_| Fate::Settled));
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
    assert_eq!(drained.bodies.len(), 9);
    assert!(drained.settle(|_| Fate::Settled));
    opened.writer.tidy();
    assert!(is_set_aside(&disk, 1));
    assert_eq!((opened.spool.size(), opened.metrics.lost.get()), (SpoolSize::default(), 1));
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
    let again = open_all(&disk);
    assert_eq!((again.metrics.lost.get(), again.spool.size().envelopes), (0, 7));
    assert_eq!(again.metrics.damaged.get(), 1);
    drop(again);
    let mut again = open_all(&disk);
    assert_eq!(settle_all(&again.spool), 7);
    again.writer.tidy();
    assert_eq!(again.metrics.lost.get(), 2, "two stretches, counted when the file goes");
    assert!(is_set_aside(&disk, 1));
    drop(again);
    let mut again = open_all(&disk);
    again.writer.tidy();
    assert_eq!(again.metrics.lost.get(), 0);
}

#[test]
fn what_the_archive_refuses_for_good_is_counted_and_its_file_kept() {
    let disk = FaultyDisk::new(40);
    let mut opened = open(&disk);
    write(&mut opened.writer, 0..10, 300).unwrap();
    let refused = |number| if number == 3 { Fate::Refused } else { Fate::Settled };
    assert!(opened.spool.lease(100, usize::MAX).unwrap().read().settle(refused));
    opened.writer.tidy();
    assert_eq!((opened.spool.size(), opened.metrics.lost.get()), (SpoolSize::default(), 1));
    assert!(is_set_aside(&disk, 1));
}

#[test]
fn a_disk_that_does_not_give_what_it_has_loses_nothing() {
    let disk = FaultyDisk::new(5);
    let mut opened = open(&disk);
    write(&mut opened.writer, 0..3, 5000).unwrap();
    opened.writer.seal();
    write(&mut opened.writer, 3..4, 5000).unwrap();
    disk.make_unreadable(&segment_file(1), 6000..6001).unwrap();
    assert_eq!(settle_all(&opened.spool), 3, "the others pass");
    for _ in 0..30 {
        assert!(!opened.spool.has_due() && opened.spool.lease(9, usize::MAX).is_none(), "it rests");
        opened.spool.end_pauses();
        assert!(opened.spool.has_due());
        assert_eq!(settle_all(&opened.spool), 0);
        opened.writer.tidy();
    }
    assert_eq!((opened.spool.size().envelopes, opened.metrics.lost.get()), (1, 0));
    assert_eq!((opened.spool.is_empty(), opened.metrics.unreadable.get()), (false, 1));
    disk.make_readable();
    opened.spool.end_pauses();
    assert_eq!(read_all(&opened.spool), [body(1, 5000)]);
    assert_eq!(settle_all(&opened.spool), 1);
    opened.writer.tidy();
    assert_eq!((opened.spool.is_empty(), opened.metrics.lost.get()), (true, 0));
    assert_eq!((opened.metrics.unreadable.get(), is_set_aside(&disk, 1)), (0, false));
}

#[test]
fn a_volume_that_goes_and_comes_back_loses_nothing() {
    let disk = FaultyDisk::new(50);
    let mut opened = open(&disk);
    write(&mut opened.writer, 0..100, 3000).unwrap();
    let half = opened.spool.lease(50, usize::MAX).unwrap().read();
    half.settle(|_| Fate::Settled);
    disk.set_odds(Odds { read_error: 10_000, ..Odds::default() });
    for _ in 0..30 {
        assert_eq!((read_all(&opened.spool).len(), opened.spool.size().envelopes), (0, 50));
        assert!(!opened.spool.has_due());
        opened.spool.end_pauses();
    }
    disk.set_odds(Odds::default());
    // Every file that was open is dead from now on.
    disk.kill();
    assert_eq!(read_all(&opened.spool), (50..100).map(|number| body(number, 3000)).collect::<Vec<_>>());
    assert_eq!(opened.metrics.lost.get(), 0);
}

/// A spool of five files that a killed gateway has left: 0..10, 10..20, … 40..50.
fn left_behind(disk: &FaultyDisk) {
    let mut opened = open(disk);
    for group in 0..5 {
        write(&mut opened.writer, group * 10..group * 10 + 10, 500).unwrap();
        if group < 4 {
            opened.writer.seal();
        }
    }
    disk.kill();
}

#[test]
fn a_start_reads_only_the_last_file_and_the_others_beside_the_work() {
    let disk = FaultyDisk::new(51);
    left_behind(&disk);
    // Nothing but the last can be read: a start that read the others would have to wait for them.
    for segment in 1..=4 {
        disk.make_unreadable(&segment_file(segment), 0..10_000).unwrap();
    }
    let mut again = open(&disk);
    assert!(again.spool.size().envelopes >= 10);
    assert_eq!((again.spool.is_empty(), again.spool.oldest()), (false, Some(0)), "anything may be in them");
    write(&mut again.writer, 50..60, 500).unwrap();
    again.spool.look_through();
    assert_eq!(settle_all(&again.spool), 20);
    assert_eq!((again.spool.is_empty(), again.spool.oldest()), (false, Some(0)));
    again.writer.tidy();
    assert!(again.writer.is_untidy(), "it comes again when they are read");
    drop(again);

    // Their headers are enough to know how old it may be.
    disk.make_readable();
    for segment in 1..=4 {
        disk.make_unreadable(&segment_file(segment), 64..10_000).unwrap();
    }
    let again = open(&disk);
    assert_eq!((again.spool.is_empty(), again.spool.oldest()), (false, Some(NOW - 86_400 - 600)));
    drop(again);

    disk.make_readable();
    let mut again = open(&disk);
    again.spool.look_through();
    assert_eq!((again.spool.size().envelopes, again.spool.oldest()), (40, Some(NOW)));
    assert_eq!(read_all(&again.spool), (0..40).map(|number| body(number, 500)).collect::<Vec<_>>());
    assert_eq!(settle_all(&again.spool), 40);
    again.writer.tidy();
    assert_eq!((again.spool.is_empty(), again.spool.oldest()), (true, None));
    assert_eq!(again.metrics.lost.get(), 0);
}

#[test]
fn what_a_start_cannot_read_is_read_later_and_not_lost() {
    for seed in 0..10 {
        let disk = FaultyDisk::new(60 + seed);
        left_behind(&disk);
        // A header, a stretch that spoils some, a damaged one for comparison, and a part of the last file.
        disk.make_unreadable(&segment_file(1), 0..64).unwrap();
        disk.make_unreadable(&segment_file(2), 4500..4501).unwrap();
        disk.damage(&segment_file(3), 64 + 50, 1).unwrap();
        disk.make_unreadable(&segment_file(5), 4500..4501).unwrap();
        let mut again = open_all(&disk);
        let early = settle_all(&again.spool);
        assert!((19..49).contains(&early), "{early}");
        again.writer.tidy();
        assert_eq!((again.spool.size().envelopes, again.spool.is_empty()), (0, false));
        assert_eq!((again.metrics.unreadable.get(), again.metrics.lost.get()), (3, 1));
        for segment in [1, 2, 5] {
            assert!(disk.open(&segment_file(segment)).is_ok(), "segment {segment} stays");
        }
        disk.make_readable();
        again.spool.end_pauses();
        let deadline = Instant::now() + Duration::from_secs(20);
        while again.spool.index.lock().has_unread() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(early + settle_all(&again.spool), 49);
        again.writer.tidy();
        assert!(again.spool.is_empty());
        assert_eq!((again.metrics.unreadable.get(), again.metrics.lost.get()), (0, 1));
        assert!(is_set_aside(&disk, 3) && ![1, 2, 5].into_iter().any(|segment| is_set_aside(&disk, segment)));
    }
}

#[test]
fn a_torn_tail_is_no_loss_also_when_it_is_read_late() {
    let disk = FaultyDisk::new(80);
    let mut first = open(&disk);
    write(&mut first.writer, 0..20, 500).unwrap();
    disk.kill();
    let end = 64 + 20 * SpoolWriter::file_bytes(&body(0, 500));
    let file = disk.open(&segment_file(1)).unwrap();
    file.write_at(&[1; 300], end).unwrap();
    file.sync_data().unwrap();
    disk.make_unreadable(&segment_file(1), 0..1).unwrap();
    let again = Spool::open(options(&disk, 1 << 30).0);
    assert!(
        matches!(again, Err(SpoolError::Journal(JournalError::Io { .. }))),
        "the header of the last is needed"
    );
    disk.make_readable();
    disk.make_unreadable(&segment_file(1), 5000..5001).unwrap();
    let mut again = open_all(&disk);
    assert_eq!(again.metrics.unreadable.get(), 1);
    disk.make_readable();
    again.spool.end_pauses();
    let deadline = Instant::now() + Duration::from_secs(20);
    while again.spool.index.lock().has_unread() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!((settle_all(&again.spool), again.spool.is_empty()), (20, true));
    again.writer.tidy();
    assert_eq!((again.metrics.lost.get(), is_set_aside(&disk, 1)), (0, false));
    assert!(disk.open(&segment_file(1)).is_err(), "it has gone");
}

#[test]
fn what_is_over_quota_holds_up_nothing() {
    let disk = FaultyDisk::new(52);
    let mut opened = open(&disk);
    write(&mut opened.writer, 0..20, 5000).unwrap();
    write(&mut opened.writer, 20..30, 300).unwrap();
    let mut taken = Vec::new();
    while let Some(lease) = opened.spool.lease(5, usize::MAX) {
        let drained = lease.read();
        let large = drained.bodies[0].len() > 4000;
        taken.extend(drained.bodies.iter().filter(|_| !large).cloned());
        drained.settle(|_| if large { Fate::OverQuota } else { Fate::Settled });
    }
    assert_eq!(taken, (20..30).map(|number| body(number, 300)).collect::<Vec<_>>());
    assert!(!opened.spool.has_due() && !opened.spool.is_empty());
    assert_eq!((opened.spool.size().envelopes, opened.spool.oldest()), (20, Some(NOW)));
    opened.spool.end_pauses();
    assert_eq!(settle_all(&opened.spool), 20);
}

#[test]
fn a_file_that_cannot_be_removed_keeps_no_other() {
    let disk = FaultyDisk::new(53);
    left_behind(&disk);
    let mut again = open_all(&disk);
    for _ in 0..4 {
        again.spool.lease(10, usize::MAX).unwrap().read().settle(|_| Fate::Settled);
    }
    disk.fail_next_removals(1);
    again.writer.tidy();
    let files: Vec<bool> = (1..=5).map(|segment| disk.open(&segment_file(segment)).is_ok()).collect();
    assert_eq!(files, [true, false, false, false, true]);
    assert!(again.writer.is_untidy());
    again.writer.tidy();
    assert!(disk.open(&segment_file(1)).is_err() && !again.writer.is_untidy());
}

#[test]
fn a_full_disk_does_not_keep_what_is_drained() {
    let disk = FaultyDisk::new(54);
    left_behind(&disk);
    let mut again = open_all(&disk);
    assert_eq!(settle_all(&again.spool), 50);
    // Not even the header of a new segment finds room before something goes.
    disk.set_capacity(Some(0));
    again.writer.tidy();
    for segment in 1..=4 {
        assert!(disk.open(&segment_file(segment)).is_err(), "segment {segment} has gone");
    }
}

#[test]
fn a_full_spool_takes_nothing_before_what_waits_fits() {
    const MIB: usize = 1 << 20;
    let disk = FaultyDisk::new(55);
    let (options, _) = options(&disk, 4 * MIB as u64);
    let (spool, mut writer) = Spool::open(options).unwrap();
    for number in 0..33 {
        write(&mut writer, number..number + 1, 100 * 1024).unwrap();
    }
    let large = SpoolWriter::file_bytes(&body(0, MIB));
    assert!(writer.room() < large && writer.room() > 4 * MIB as u64 / 10);
    spool.set_fault(Some(Fault::Full { needed: large }));
    writer.maintain();
    assert!(spool.is_faulty(), "it would be full again at once");
    let mut drained = 0;
    while spool.is_faulty() {
        drained += 1;
        assert!(writer.room() < large, "{drained} drained");
        spool.lease(1, usize::MAX).unwrap().read().settle(|_| Fate::Settled);
        writer.maintain();
    }
    assert!(writer.room() >= large && drained < 20, "{drained}");
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
    let again = open_all(&disk);
    assert_eq!(read_all(&again.spool), (0..20).map(|number| body(number, 300)).collect::<Vec<_>>());
}

/// Writes something that only a newer program knows, as the last or, `sealed`, as the last but one file.
fn write_something_newer(disk: &FaultyDisk, sealed: bool) {
    let lock = DirectoryLock::acquire(Arc::new(disk.clone()), Path::new(DIR)).unwrap();
    let identity = Identity::open(&lock, "other").unwrap();
    let (mut journal, _) =
        Journal::open(lock, Options::new(identity.journal_id), 0, &mut |_, _: &[u8]| {}).unwrap();
    let mut group = Group::new();
    group.push(&[b"\x02something new"]).unwrap();
    journal.append(&mut group, 0).unwrap();
    if sealed {
        journal.seal(0).unwrap();
    }
    journal.close().unwrap();
}

#[test]
fn a_record_of_a_newer_program_is_not_thrown_away() {
    let disk = FaultyDisk::new(7);
    drop(open(&disk));
    write_something_newer(&disk, false);
    let error = Spool::open(options(&disk, 1 << 20).0).unwrap_err();
    assert!(matches!(error, SpoolError::Version { version: 2, .. }), "{error}");

    let disk = FaultyDisk::new(70);
    drop(open(&disk));
    write_something_newer(&disk, true);
    let mut opened = open_all(&disk);
    opened.writer.tidy();
    assert_eq!((opened.spool.is_empty(), opened.metrics.unreadable.get()), (false, 0));
    assert!(!opened.spool.has_due());
    let report = opened.readiness.report();
    let check = report.checks.iter().find(|check| check.name == "gateway.spool_version").unwrap();
    assert!(
        check.reason.as_ref().is_some_and(|reason| reason.contains("use the newer program")),
        "{check:?}"
    );
    drop(opened);
    assert!(disk.open(&segment_file(1)).is_ok());
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
