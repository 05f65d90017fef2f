use std::fs::OpenOptions;
use std::io::Write;

use tempfile::TempDir;

use super::*;

const STAMP: [u8; 16] = [7; 16];

fn topic(n: u32) -> Topic {
    Topic(n.wrapping_mul(0x9e37_79b1).to_be_bytes())
}

fn span(n: u32) -> TopicSpan {
    TopicSpan { first_day: n as i32 - 3, last_day: n as i32, records: u64::from(n) << 33 }
}

fn spans(of: impl IntoIterator<Item = u32>) -> Vec<(Topic, TopicSpan)> {
    let mut spans: Vec<_> = of.into_iter().map(|n| (topic(n), span(n))).collect();
    spans.sort_unstable_by_key(|(topic, _)| *topic);
    spans
}

/// A store's directory with a catalogue that was closed with `STAMP` and holds this.
fn closed() -> TempDir {
    let dir = TempDir::new().unwrap();
    let (catalogue, believed) = Catalogue::open(dir.path(), STAMP);
    assert!(!believed && !is_absent(&catalogue));
    for number in [256, 1, 70_000] {
        catalogue.put_segment(Lane::Live, number, &number.to_le_bytes());
    }
    catalogue.put_segment(Lane::Imported, 2, &[9; 2000]);
    catalogue.put_topics(Space::Waku1, spans(0..3000));
    catalogue.close(STAMP);
    dir
}

fn assert_full(catalogue: &Catalogue) {
    let live = |number: u32| (Lane::Live, number, number.to_le_bytes().to_vec());
    let segments = [live(1), live(256), live(70_000), (Lane::Imported, 2, vec![9; 2000])];
    assert_eq!(catalogue.segments().unwrap(), segments);
    assert_eq!(catalogue.load_topics(Space::Waku1).unwrap(), spans(0..3000));
}

fn assert_believed(dir: &Path) {
    let (catalogue, believed) = Catalogue::open(dir, STAMP);
    assert!(believed);
    assert_full(&catalogue);
}

fn is_absent(catalogue: &Catalogue) -> bool {
    catalogue.segments().is_none()
}

fn assert_empty(catalogue: &Catalogue) {
    assert_eq!(catalogue.segments(), Some(Vec::new()));
    assert_eq!(catalogue.load_topics(Space::Waku1), Some(Vec::new()));
}

/// It is empty, and can be filled and closed again.
fn assert_begins_anew(dir: &Path) {
    let (catalogue, believed) = Catalogue::open(dir, STAMP);
    assert!(!believed && !is_absent(&catalogue));
    assert_empty(&catalogue);
    catalogue.put_segment(Lane::Live, 3, b"three");
    catalogue.close(STAMP);
    let (catalogue, believed) = Catalogue::open(dir, STAMP);
    assert!(believed);
    assert_eq!(catalogue.segments().unwrap(), [(Lane::Live, 3, b"three".to_vec())]);
}

fn db(dir: &TempDir) -> PathBuf {
    dir.path().join(SLED_DIR).join("db")
}

/// Noise over the whole file, or its first bytes.
fn overwrite(path: &Path, seed: u64, most: usize) {
    let bytes = fs::metadata(path).unwrap().len().min(most as u64) as usize;
    let mut state = seed;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(bytes)
    .collect();
    OpenOptions::new().write(true).open(path).unwrap().write_all(&noise).unwrap();
}

#[test]
fn what_was_closed_is_believed_once() {
    let dir = closed();
    assert_believed(dir.path());
    // That one was not closed.
    assert_begins_anew(dir.path());
}

#[test]
fn what_is_put_replaces_and_what_is_removed_is_gone() {
    let dir = closed();
    let (catalogue, _) = Catalogue::open(dir.path(), STAMP);
    catalogue.remove_segment(Lane::Live, 256);
    catalogue.remove_segment(Lane::Live, 5);
    catalogue.put_segment(Lane::Imported, 2, b"new");
    let changed = [(topic(17), span(4000)), (topic(5000), span(5000))];
    catalogue.put_topics(Space::Waku1, changed);
    let mut wanted = spans((0..3000).filter(|n| *n != 17));
    wanted.extend(changed);
    wanted.sort_unstable_by_key(|(topic, _)| *topic);
    assert_eq!(catalogue.load_topics(Space::Waku1).unwrap(), wanted);
    catalogue.close(STAMP);
    let (catalogue, believed) = Catalogue::open(dir.path(), STAMP);
    assert!(believed);
    assert_eq!(catalogue.load_topics(Space::Waku1).unwrap(), wanted);
    let segments = catalogue.segments().unwrap();
    let numbers: Vec<_> = segments.iter().map(|(lane, number, _)| (*lane, *number)).collect();
    assert_eq!(numbers, [(Lane::Live, 1), (Lane::Live, 70_000), (Lane::Imported, 2)]);
    assert_eq!(segments[2].2, b"new");
    catalogue.clear_topics(Space::Waku1);
    assert!(catalogue.load_topics(Space::Waku1).unwrap().is_empty());
    assert_eq!(catalogue.segments().unwrap().len(), 3);
}

#[test]
fn another_stamp_is_not_believed() {
    let dir = closed();
    let (catalogue, believed) = Catalogue::open(dir.path(), [8; 16]);
    assert!(!believed);
    assert_empty(&catalogue);
}

#[test]
fn deleted_files_make_it_begin_anew() {
    let dir = closed();
    fs::remove_dir_all(dir.path().join(SLED_DIR)).unwrap();
    assert_begins_anew(dir.path());
    let dir = closed();
    fs::remove_file(db(&dir)).unwrap();
    assert_begins_anew(dir.path());
    let dir = closed();
    fs::remove_file(dir.path().join("catalogue.clean")).unwrap();
    assert_begins_anew(dir.path());
}

#[test]
fn truncated_or_overwritten_files_make_it_begin_anew() {
    for seed in 0..4 {
        let dir = closed();
        overwrite(&db(&dir), seed, usize::MAX);
        assert_begins_anew(dir.path());
        let dir = closed();
        let length = fs::metadata(db(&dir)).unwrap().len();
        let file = OpenOptions::new().write(true).open(db(&dir)).unwrap();
        file.set_len(length * seed / 4).unwrap();
        assert_begins_anew(dir.path());
    }
}

#[test]
fn any_file_and_any_bit_of_the_proof_counts() {
    let dir = closed();
    let proof = dir.path().join("catalogue.clean");
    let bytes = fs::read(&proof).unwrap();
    for bit in (0..bytes.len() * 8).step_by(37) {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&proof, flipped).unwrap();
        assert!(clean::take(dir.path(), STAMP).unwrap().is_err(), "bit {bit}");
        assert!(!proof.exists(), "the proof is taken away");
    }
    for cut in [0, 3, bytes.len() - 1] {
        fs::write(&proof, &bytes[..cut]).unwrap();
        assert!(clean::take(dir.path(), STAMP).unwrap().is_err(), "{cut} bytes");
    }
    fs::write(&proof, &bytes).unwrap();
    assert!(clean::take(dir.path(), STAMP).unwrap().is_ok());

    for extra in ["more", "blobs/1"] {
        let dir = closed();
        fs::write(dir.path().join(SLED_DIR).join(extra), b"").unwrap();
        assert_begins_anew(dir.path());
    }
    let dir = closed();
    let conf = dir.path().join(SLED_DIR).join("conf");
    let mut bytes = fs::read(&conf).unwrap();
    bytes[0] ^= 1;
    fs::write(&conf, bytes).unwrap();
    assert_begins_anew(dir.path());
    let dir = closed();
    std::os::unix::fs::symlink("db", dir.path().join(SLED_DIR).join("link")).unwrap();
    assert_begins_anew(dir.path());
    let dir = closed();
    fs::remove_dir_all(dir.path().join(SLED_DIR)).unwrap();
    fs::write(dir.path().join(SLED_DIR), b"not a directory").unwrap();
    assert_begins_anew(dir.path());
}

#[test]
fn a_process_that_was_killed_leaves_nothing_to_believe() {
    let dir = closed();
    let (catalogue, believed) = Catalogue::open(dir.path(), STAMP);
    assert!(believed);
    catalogue.put_segment(Lane::Live, 4, b"four");
    // As after kill -9: its files are as they are now, and nobody closes it.
    let copy = TempDir::new().unwrap();
    fs::create_dir(copy.path().join(SLED_DIR)).unwrap();
    for entry in fs::read_dir(dir.path().join(SLED_DIR)).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, copy.path().join(SLED_DIR).join(path.file_name().unwrap())).unwrap();
        }
    }
    assert_begins_anew(copy.path());
}

#[test]
fn noise_that_sled_is_made_to_open_costs_the_catalogue_and_nothing_else() {
    for seed in 0..6 {
        let dir = closed();
        overwrite(&db(&dir), seed, [40, 4096, usize::MAX][seed as usize % 3]);
        // A proof that speaks for the noise: the last line of defence is left.
        clean::write(dir.path(), STAMP).unwrap();
        let (catalogue, _) = Catalogue::open(dir.path(), STAMP);
        catalogue.segments();
        catalogue.put_segment(Lane::Live, 3, b"three");
        catalogue.put_topics(Space::Waku1, spans(0..10));
        catalogue.load_topics(Space::Waku1);
        catalogue.close(STAMP);
    }
}

#[test]
fn a_panic_inside_sled_ends_the_catalogue() {
    let dir = closed();
    let (catalogue, _) = Catalogue::open(dir.path(), STAMP);
    assert_full(&catalogue);
    assert!(catalogue.with(|_| -> sled::Result<()> { panic!("as the test wants it") }).is_none());
    assert!(is_absent(&catalogue));
    catalogue.put_segment(Lane::Live, 3, b"three");
    catalogue.remove_segment(Lane::Live, 1);
    catalogue.put_topics(Space::Waku1, spans(0..10));
    catalogue.clear_topics(Space::Waku1);
    assert_eq!((catalogue.segments(), catalogue.load_topics(Space::Waku1)), (None, None));
    catalogue.close(STAMP);
    assert_begins_anew(dir.path());
}

#[test]
fn an_entry_that_says_nothing_ends_the_catalogue() {
    let dir = closed();
    let (catalogue, _) = Catalogue::open(dir.path(), STAMP);
    catalogue.with(|sled| sled.topics.insert(chunk_key(Space::Waku1, 3), &[1; 20])).unwrap();
    assert_eq!(catalogue.load_topics(Space::Waku1), None);
    assert!(is_absent(&catalogue));
}

#[test]
fn where_there_can_be_none_it_is_absent() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let (catalogue, believed) = Catalogue::open(&file, STAMP);
    assert!(!believed && is_absent(&catalogue));
    let (first, _) = Catalogue::open(dir.path(), STAMP);
    assert!(!is_absent(&first));
    let absent = Catalogue::absent();
    absent.put_segment(Lane::Live, 1, b"one");
    assert_eq!(absent.segments(), None);
    absent.close(STAMP);
}
