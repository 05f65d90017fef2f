use std::any::Any;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use poste_journal::{FaultyDisk, Odds};

use super::*;
use crate::store::ErrorKind;

const DIR: &str = "/archive";

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

fn lock(disk: &(impl Disk + Clone + 'static)) -> DirectoryLock {
    DirectoryLock::acquire(Arc::new(disk.clone()), Path::new(DIR)).unwrap()
}

fn open(disk: &FaultyDisk) -> Result<MetaFile, StoreError> {
    MetaFile::open(&lock(disk))
}

/// Makes a file with these bytes, durably.
fn put(disk: &FaultyDisk, name: &str, bytes: &[u8]) {
    let file = disk.create(&path(name)).unwrap();
    write_all_at(file.as_ref(), bytes, 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new(DIR)).unwrap();
}

fn contents(disk: &FaultyDisk, name: &str) -> Vec<u8> {
    read_settled(disk, &path(name)).unwrap()
}

fn writer(name: &str) -> WriterId {
    name.parse().unwrap()
}

fn place(segment: u32, offset: u64, bytes: u64) -> Quarantine {
    Quarantine { lane: Lane::Live, segment, offset, bytes }
}

fn sample() -> Meta {
    let mut meta = Meta::of(StoreId(std::array::from_fn(|i| i as u8)));
    meta.next_seq = 0x0102;
    meta.retired_seq = 0x55;
    meta.raise_min_number(Lane::Live, 7);
    meta.raise_min_number(Lane::Imported, 3);
    meta.floors.insert(Space::Waku1, -2);
    meta.writers.insert(writer("gw-1"), 99);
    meta.quarantine(Quarantine { lane: Lane::Imported, segment: 9, offset: 64, bytes: 1000 });
    meta.retention = Some(Retention {
        max_age: Some(Duration::new(30 * 86_400, 5)),
        max_bytes: Some(1 << 40),
        min_age: Duration::from_secs(3600),
    });
    meta
}

const SAMPLE_1: &str = "504f53544541524301000000000102030405060708090a0b0c0d0e0f570979a0";
const SAMPLE_3: &str = "504f535445415243030000002a0000000000000083000000f5a6d505000102030405060708090a0b0c0d0e0f02\
    010000000000005500000000000000070000000300000007008d27000000000005000000100e00000000000000\
    000000000000000001000001000577616b7531feffffffffffffff010000000467772d31630000000000000001\
    00000001090000004000000000000000e803000000000000";

/// The head of the same in format 2; what follows is the same.
const SAMPLE_2_HEAD: &str = "504f535445415243020000002a0000000000000083000000791e8a93";

#[test]
fn a_slot_of_format_3_is_frozen() {
    let bytes = slot::encode(42, &sample());
    assert_eq!(hex::encode(&bytes), SAMPLE_3);
    let mut with_rest = hex::decode(SAMPLE_3).unwrap();
    with_rest.extend_from_slice(&[0xee; 100]);
    assert_eq!(slot::decode(&with_rest), Ok((42, sample())));
    let bare = Meta::of(StoreId([9; 16]));
    assert_eq!(slot::decode(&slot::encode(1, &bare)), Ok((1, bare)));
}

#[test]
fn a_store_of_format_2_waits_for_its_writers_from_a_day_earlier() {
    let disk = FaultyDisk::new(10);
    drop(open(&disk).unwrap());
    let bytes = [hex::decode(SAMPLE_2_HEAD).unwrap(), hex::decode(SAMPLE_3).unwrap().split_off(28)].concat();
    disk.remove(&path("meta.1")).unwrap();
    put(&disk, "meta.1", &bytes);
    let mut meta = sample();
    meta.writers.insert(writer("gw-1"), 99 - (24 * 3600 + 600) * 1_000_000_000);
    let file = open(&disk).unwrap();
    assert_eq!(file.get(), meta);
    // Once, however often it is written and read.
    file.update(|meta| meta.next_seq += 1).unwrap();
    drop(file);
    meta.next_seq += 1;
    assert_eq!(open(&disk).unwrap().get(), meta);
}

#[test]
fn a_slot_with_a_flipped_bit_or_too_few_bytes_is_never_believed() {
    let bytes = slot::encode(42, &sample());
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(slot::decode(&flipped), Err(Damage::Torn), "bit {bit}");
    }
    for length in 0..bytes.len() {
        assert_eq!(slot::decode(&bytes[..length]), Err(Damage::Torn), "{length} bytes");
    }
    let format_1 = hex::decode(SAMPLE_1).unwrap();
    for bit in 0..format_1.len() * 8 {
        let mut flipped = format_1.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(slot::decode_format_1(&flipped), Err(Damage::Torn), "bit {bit}");
    }
    assert_eq!(slot::decode_format_1(&format_1[..31]), Err(Damage::Torn));
}

#[test]
fn the_slots_are_written_in_turn_and_each_is_the_other_ones_reserve() {
    let disk = FaultyDisk::new(1);
    let file = open(&disk).unwrap();
    for seq in 10..14 {
        file.update(|meta| meta.next_seq = seq).unwrap();
    }
    let newest = slot::decode(&contents(&disk, "meta.0")).unwrap();
    let older = slot::decode(&contents(&disk, "meta.1")).unwrap();
    let (newest, older, name) =
        if newest.0 > older.0 { (newest, older, "meta.0") } else { (older, newest, "meta.1") };
    assert_eq!((newest.1.next_seq, older.1.next_seq), (13, 12));
    assert_eq!(newest.0, older.0 + 1);
    drop(file);
    assert_eq!(open(&disk).unwrap().get(), newest.1);
    let bytes = slot::encode(newest.0, &newest.1).len() as u64;
    for bit in 0..bytes * 8 {
        disk.damage(&path(name), bit / 8, 1 << (bit % 8)).unwrap();
        assert_eq!(open(&disk).unwrap().get(), older.1, "bit {bit}");
        disk.damage(&path(name), bit / 8, 1 << (bit % 8)).unwrap();
    }
    disk.damage(&path(name), 30, 1).unwrap();
    let file = open(&disk).unwrap();
    file.update(|_| ()).unwrap();
    assert_eq!(slot::decode(&contents(&disk, name)).unwrap().1, older.1, "the damaged slot is mended");
}

#[test]
fn a_meta_that_is_gone_is_not_made_anew_over_records() {
    for journal in ["0000000001.journal", "imported/0000000001.journal"] {
        let disk = FaultyDisk::new(2);
        let store_id = open(&disk).unwrap().get().store_id;
        put(&disk, journal, b"records");
        assert_eq!(open(&disk).unwrap().get().store_id, store_id);
        for slot in SLOT_NAMES {
            disk.damage(&path(slot), 15, 1).unwrap();
        }
        let error = open(&disk).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("neither meta.0 nor meta.1 is whole: restore both"), "{error}");
        for slot in SLOT_NAMES {
            disk.remove(&path(slot)).unwrap();
        }
        let error = open(&disk).unwrap_err();
        assert!(error.to_string().contains("but neither meta.0 nor meta.1: restore both"), "{error}");
    }
}

#[test]
fn one_slot_alone_is_enough() {
    for slot in SLOT_NAMES {
        let disk = FaultyDisk::new(3);
        let meta = open(&disk).unwrap().get();
        put(&disk, "0000000001.journal", b"records");
        disk.remove(&path(slot)).unwrap();
        assert_eq!(open(&disk).unwrap().get(), meta, "without {slot}");
        assert_eq!(contents(&disk, slot).len(), ROOM_BYTES, "{slot} is made anew");
    }
}

#[test]
fn what_a_newer_program_wrote_is_left_alone() {
    let mut bytes = slot::encode(1000, &sample());
    bytes[8] = 4;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..24]), &bytes[28..]);
    bytes[24..28].copy_from_slice(&crc.to_le_bytes());
    let disk = FaultyDisk::new(4);
    drop(open(&disk).unwrap());
    disk.remove(&path("meta.1")).unwrap();
    put(&disk, "meta.1", &bytes);
    let error = open(&disk).unwrap_err();
    assert!(error.to_string().contains("meta.1 has a format that this program does not know"), "{error}");

    let mut bytes = hex::decode(SAMPLE_1).unwrap();
    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..28]);
    bytes[28..].copy_from_slice(&crc.to_le_bytes());
    let disk = FaultyDisk::new(4);
    put(&disk, "meta", &bytes);
    assert!(open(&disk).unwrap_err().to_string().contains("meta has a format"));
}

#[test]
fn a_store_of_format_1_goes_on_with_its_identity() {
    let disk = FaultyDisk::new(5);
    put(&disk, "meta", &hex::decode(SAMPLE_1).unwrap());
    put(&disk, "meta.new", b"left over");
    put(&disk, "0000000001.journal", b"records");
    let meta = open(&disk).unwrap().get();
    assert_eq!(meta, Meta::of(sample().store_id));
    disk.crash();
    let mut names = disk.list(Path::new(DIR)).unwrap();
    names.sort_unstable();
    assert_eq!(names, ["0000000001.journal", "meta.0", "meta.1"]);
    assert_eq!(open(&disk).unwrap().get(), meta);

    let disk = FaultyDisk::new(5);
    put(&disk, "meta", &hex::decode(SAMPLE_1).unwrap());
    disk.damage(&path("meta"), 20, 4).unwrap();
    assert!(open(&disk).unwrap_err().to_string().contains("meta is damaged: restore it"));
}

#[test]
fn an_upgrade_can_be_cut_off_anywhere() {
    cut_everywhere(|seed, cut| {
        let disk = FaultyDisk::new(seed);
        put(&disk, "meta", &hex::decode(SAMPLE_1).unwrap());
        put(&disk, "0000000001.journal", b"records");
        let done = MetaFile::open(&lock(&Cut::after(&disk, cut))).is_ok();
        disk.crash();
        let again = open(&disk).unwrap_or_else(|error| panic!("seed {seed}, cut {cut}: {error}"));
        assert_eq!(again.get(), Meta::of(sample().store_id), "seed {seed}, cut {cut}");
        assert!(!disk.list(Path::new(DIR)).unwrap().contains(&"meta".to_owned()));
        done
    });
}

#[test]
fn a_store_can_be_cut_off_while_it_is_made() {
    cut_everywhere(|seed, cut| {
        let disk = FaultyDisk::new(seed);
        let made = MetaFile::open(&lock(&Cut::after(&disk, cut)));
        disk.crash();
        let again = open(&disk).unwrap_or_else(|error| panic!("seed {seed}, cut {cut}: {error}"));
        if let Ok(made) = &made {
            assert_eq!(again.get(), made.get(), "seed {seed}, cut {cut}");
        }
        made.is_ok()
    });
}

#[test]
fn an_update_can_be_cut_off_anywhere() {
    cut_everywhere(|seed, cut| {
        let disk = FaultyDisk::new(seed);
        drop(open(&disk).unwrap());
        put(&disk, "0000000001.journal", b"records");
        let limited = Cut::after(&disk, i64::MAX);
        let file = MetaFile::open(&lock(&limited)).unwrap();
        limited.left.store(cut, Ordering::Relaxed);
        let mut acknowledged = file.get();
        let mut tried = None;
        for step in 0..6 {
            let wanted = grown(&acknowledged, step);
            match file.update(|meta| *meta = wanted.clone()) {
                Ok(()) => acknowledged = wanted,
                Err(_) => {
                    tried = Some(wanted);
                    break;
                }
            }
            assert_eq!(file.get(), acknowledged);
        }
        assert_eq!(file.get(), acknowledged, "what failed is not seen");
        disk.crash();
        let after = open(&disk).unwrap().get();
        assert!(after == acknowledged || Some(&after) == tried.as_ref(), "seed {seed}, cut {cut}");
        tried.is_none()
    });
}

/// Another meta, every third one with more writers than fit the room that a slot begins with.
fn grown(meta: &Meta, step: u64) -> Meta {
    let mut meta = meta.clone();
    meta.next_seq += 1 + step;
    if step % 3 == 1 {
        meta.writers.extend((0..500).map(|n| (writer(&format!("{n:0>120}-{}", step % 2)), n)));
    }
    meta
}

#[test]
fn random_faults_and_power_cuts_leave_the_last_state_or_one_that_was_tried() {
    for seed in 0..8 {
        let disk = FaultyDisk::new(seed);
        let mut acknowledged = open(&disk).unwrap().get();
        put(&disk, "0000000001.journal", b"records");
        for round in 0..4 {
            let file = open(&disk).unwrap();
            let found = file.get();
            assert_eq!(found, acknowledged, "seed {seed}, round {round}");
            disk.set_odds(Odds { short_write: 3000, write_error: 1500, sync_error: 1500, read_error: 0 });
            // Tried since the last success: each of them may turn up.
            let mut tried: Vec<Meta> = Vec::new();
            for step in 0..20 {
                let wanted = grown(&acknowledged, step + 3 * tried.len() as u64);
                match file.update(|meta| *meta = wanted.clone()) {
                    Ok(()) => {
                        acknowledged = wanted;
                        tried.clear();
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Unavailable);
                        tried.push(wanted);
                    }
                }
                assert_eq!(file.get(), acknowledged);
            }
            disk.set_odds(Odds::default());
            if (seed + round) % 3 == 0 {
                disk.kill();
            } else {
                disk.crash();
            }
            let after = open(&disk).unwrap().get();
            assert!(
                after == acknowledged || tried.contains(&after),
                "seed {seed}, round {round}: {} after {}",
                after.next_seq,
                acknowledged.next_seq
            );
            // What was seen once is seen after a power cut too.
            disk.crash();
            acknowledged = after;
        }
    }
}

#[test]
fn the_test_of_power_cuts_sees_a_disk_that_lies() {
    let lost = (0..50).any(|seed| {
        let disk = FaultyDisk::new(seed);
        let file = open(&disk).unwrap();
        disk.lose_syncs();
        file.update(|meta| meta.next_seq = 77).unwrap();
        disk.crash();
        open(&disk).unwrap().get().next_seq != 77
    });
    assert!(lost);
}

#[test]
fn a_full_disk_stops_no_update_that_has_room() {
    let disk = FaultyDisk::new(6);
    let file = open(&disk).unwrap();
    disk.set_capacity(Some(0));
    for n in 1..20 {
        file.update(|meta| {
            meta.floors.insert(Space::Waku1, n);
            meta.writers.insert(writer(&format!("gw-{n}")), n);
        })
        .unwrap();
    }
    let before = file.get();
    let error = file.update(|meta| *meta = grown(meta, 1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    assert_eq!(file.get(), before);
    for n in 20..24 {
        file.update(|meta| meta.floors.insert(Space::Waku1, n)).unwrap();
    }
    disk.crash();
    assert_eq!(open(&disk).unwrap().get(), file.get());

    disk.set_capacity(None);
    let file = open(&disk).unwrap();
    file.update(|meta| *meta = grown(meta, 1)).unwrap();
    disk.set_capacity(Some(0));
    for n in 24..28 {
        file.update(|meta| meta.floors.insert(Space::Waku1, n)).unwrap();
    }
    disk.crash();
    assert_eq!(open(&disk).unwrap().get(), file.get());
}

#[test]
fn a_failed_fsync_is_not_repaired_by_one_that_has_nothing_to_write() {
    for seed in 0..50 {
        let disk = FaultyDisk::new(seed);
        let file = open(&disk).unwrap();
        let before = file.get();
        disk.fail_next_syncs(1);
        file.update(|meta| meta.next_seq = 50).unwrap_err();
        assert_eq!(file.get(), before);
        file.update(|_| ()).unwrap();
        disk.crash();
        assert_eq!(open(&disk).unwrap().get(), before, "seed {seed}: what failed was written over");
    }
}

#[test]
fn seqs_floors_and_the_identity_do_not_sink_or_change() {
    let disk = FaultyDisk::new(7);
    let file = open(&disk).unwrap();
    file.update(|meta| *meta = Meta { store_id: meta.store_id, ..sample() }).unwrap();
    let before = file.get();
    file.update(|meta| *meta = Meta::of(StoreId([1; 16]))).unwrap();
    let after = file.get();
    assert_eq!(after.store_id, before.store_id);
    assert_eq!((after.next_seq, after.retired_seq), (before.next_seq, before.retired_seq));
    assert_eq!(after.floors, before.floors);
    assert_eq!((after.min_number(Lane::Live), after.min_number(Lane::Imported)), (7, 3));
    assert!(after.writers.is_empty() && after.quarantines.is_empty() && after.retention.is_none());
    let seen = file.with(|meta| meta.next_seq);
    assert_eq!(file.update(|meta| meta.next_seq).unwrap(), seen, "an update can answer");
}

#[test]
fn writers_are_bounded() {
    let disk = FaultyDisk::new(8);
    let file = open(&disk).unwrap();
    let longest = |n: usize| (writer(&format!("{n:0>128}")), n as i64);
    file.update(|meta| meta.writers.extend((0..Writers::MAX).map(longest))).unwrap();
    let error = file.update(|meta| meta.writers.extend([longest(Writers::MAX)])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(file.with(|meta| meta.writers.len()), Writers::MAX);
    drop(file);
    assert_eq!(open(&disk).unwrap().with(|meta| meta.writers.len()), Writers::MAX);
}

#[test]
fn many_damaged_places_become_damaged_segments() {
    let disk = FaultyDisk::new(9);
    let file = open(&disk).unwrap();
    file.update(|meta| meta.writers.extend((0..Writers::MAX).map(|n| (writer(&format!("{n:0>128}")), 1))))
        .unwrap();
    let fill = |meta: &mut Meta| {
        (0..100).for_each(|n| meta.quarantine(place(n, 64, 10)));
        (0..Meta::MAX_QUARANTINES as u64 - 100).for_each(|n| meta.quarantine(place(500, 1000 * n, 10)));
    };
    file.update(fill).unwrap();
    assert_eq!(file.with(|meta| meta.quarantines.len()), Meta::MAX_QUARANTINES);
    let bytes = slot::encode(1, &file.get()).len();
    assert!(bytes <= slot::MAX_BYTES, "{bytes}");
    file.update(|meta| meta.quarantine(place(7, 5000, 10))).unwrap();
    let meta = file.get();
    assert_eq!(meta.quarantines.len(), 102);
    let whole: Vec<_> = meta.quarantines_of(Lane::Live, 500).copied().collect();
    assert_eq!(whole, [place(500, 0, 1000 * 9899 + 10)]);
    assert_eq!(meta.quarantines_of(Lane::Live, 7).count(), 2);
    assert_eq!(meta.quarantines_of(Lane::Imported, 7).count(), 0);

    let mut known = meta.clone();
    known.quarantine(place(500, 70_000, 10));
    assert_eq!(known, meta, "part of what is known");
    known.forget_segment(Lane::Live, 500);
    assert_eq!(known.quarantines.len(), 101);

    let each = |meta: &mut Meta| (1000..11_001).for_each(|n| meta.quarantine(place(n, 64, 10)));
    assert_eq!(file.update(each).unwrap_err().kind(), ErrorKind::Invalid);
    drop(file);
    assert_eq!(open(&disk).unwrap().get(), meta);
}

/// Runs `test` with 5 seeds and every cut until it says that the cut came too late.
fn cut_everywhere(test: impl Fn(u64, i64) -> bool) {
    for seed in 0..5 {
        let cuts = (0..1000).take_while(|&cut| !test(seed, cut)).count();
        assert!((3..900).contains(&cuts), "seed {seed}: {cuts} cuts");
    }
}

/// A disk that answers only so many calls.
#[derive(Debug, Clone)]
struct Cut {
    disk: FaultyDisk,
    left: Arc<AtomicI64>,
}

impl Cut {
    fn after(disk: &FaultyDisk, calls: i64) -> Self {
        // Taking the lock takes two.
        Self { disk: disk.clone(), left: Arc::new(AtomicI64::new(calls.saturating_add(2))) }
    }

    fn call<T>(&self, call: impl FnOnce(&FaultyDisk) -> io::Result<T>) -> io::Result<T> {
        if self.left.fetch_sub(1, Ordering::Relaxed) <= 0 {
            return Err(io::Error::other("the power is cut"));
        }
        call(&self.disk)
    }

    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(CutFile { file, cut: self.clone() })
    }
}

impl Disk for Cut {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.call(|disk| disk.create_dir(dir))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.call(|disk| Ok(self.file(disk.create(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.call(|disk| Ok(self.file(disk.open(path)?)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.call(|disk| disk.list(dir))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(|disk| disk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(|disk| disk.remove(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.call(|disk| disk.sync_dir(dir))
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.call(|disk| disk.free_bytes(dir))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.call(|disk| disk.lock(path))
    }
}

#[derive(Debug)]
struct CutFile {
    file: Arc<dyn DiskFile>,
    cut: Cut,
}

impl DiskFile for CutFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.cut.call(|_| self.file.write_at(bytes, offset))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.cut.call(|_| self.file.read_at(buffer, offset))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.cut.call(|_| self.file.sync_data())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.cut.call(|_| self.file.truncate(len))
    }

    fn len(&self) -> io::Result<u64> {
        self.cut.call(|_| self.file.len())
    }

    fn forget_cached(&self) -> io::Result<()> {
        self.cut.call(|_| self.file.forget_cached())
    }
}
