//! Which store the archive has. Two stores behind one address would split the history in silence, so the store that is
//! met first is noted beside the spool, in the file `store`, and no other is written to or believed, also after a restart,
//! until a setting names it.
//!
//! ```text
//! poste-store 1
//! store <its id, hexadecimal>
//! check <the first 8 bytes of the Keccak-256 of the lines before, hexadecimal>
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use poste_codec::keccak256;
use poste_journal::{Disk, read_exact_at, write_all_at};
use poste_service::readiness::Check;
use tracing::{info, warn};

use crate::spool::SpoolError;

const FILE_NAME: &str = "store";
const DRAFT_NAME: &str = "store.draft";
const FIRST_LINE: &str = "poste-store 1";
const MAX_BYTES: u64 = 1024;
const CHECK_BYTES: usize = 8;

/// The store that the envelopes of one spool are for. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct KnownStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// The setting named it.
    chosen: bool,
    ready: Check,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// None: no archive was ever met.
    known: Option<Bytes>,
    /// What the file says.
    noted: Option<Bytes>,
    /// An archive with the known store was met in this life.
    met: bool,
    /// A note could not be written, and that was said.
    complained: bool,
}

/// Why the archive is not the one that envelopes are for.
#[derive(Debug, thiserror::Error)]
pub(super) enum OtherStore {
    #[error(
        "the archive has another store than before, {found} instead of {known}: bring back the former one, or, if that is \
         meant, set gateway.archive_store to \"{found}\" and restart the gateway"
    )]
    Noted { found: String, known: String },
    #[error(
        "the archive has another store, {found}, than gateway.archive_store names, {known}: correct one of them"
    )]
    Chosen { found: String, known: String },
}

impl KnownStore {
    /// Reads the note in a spool's directory, whose lock the caller holds. `chosen`: the setting names this store, whatever
    /// the note says. `ready` says whether the archive has the known one. It blocks.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        chosen: Option<Bytes>,
        ready: Check,
    ) -> Result<Self, SpoolError> {
        let noted = match read(disk.as_ref(), &dir.join(FILE_NAME)) {
            Ok(noted) => noted,
            Err(reason) if chosen.is_some() => {
                warn!(cause = reason, "the note of the archive's store is made anew, as the setting says");
                None
            }
            Err(reason) => return Err(SpoolError::Identity { path: dir.join(FILE_NAME), reason }),
        };
        ready.ready();
        let state = State { known: chosen.clone().or(noted.clone()), noted, met: false, complained: false };
        let shared =
            Shared { disk, dir: dir.to_owned(), chosen: chosen.is_some(), ready, state: Mutex::new(state) };
        Ok(Self(Arc::new(shared)))
    }

    /// For another spool, which goes where this one goes unless its own note says otherwise. As [`KnownStore::open`].
    pub(crate) fn for_spool(
        &self,
        disk: Arc<dyn Disk>,
        dir: &Path,
        ready: Check,
    ) -> Result<Self, SpoolError> {
        let known = self.0.state.lock().known.clone();
        let chosen = known.clone().filter(|_| self.0.chosen);
        let store = Self::open(disk, dir, chosen, ready)?;
        let mut state = store.0.state.lock();
        state.known = state.known.take().or(known);
        drop(state);
        Ok(store)
    }

    /// Whether an answer of this store may be believed.
    pub(crate) fn is_known(&self, store: &Bytes) -> bool {
        self.0.state.lock().known.as_ref().is_none_or(|known| known == store)
    }

    /// A stream to this store is open. It is the known one from now on if there was none.
    pub(super) fn meet(&self, store: &Bytes) -> Result<(), OtherStore> {
        let mut state = self.0.state.lock();
        let known = state.known.get_or_insert_with(|| store.clone());
        if known == store {
            state.met = true;
            self.0.ready.ready();
            return Ok(());
        }
        let (found, known) = (hex::encode(store), hex::encode(known));
        let error = if self.0.chosen {
            OtherStore::Chosen { found, known }
        } else {
            OtherStore::Noted { found, known }
        };
        self.0.ready.not_ready(error.to_string());
        Err(error)
    }

    /// Whether the file says what it should.
    pub(super) fn is_noted(&self) -> bool {
        self.0.state.lock().to_note().is_none()
    }

    /// Writes the file if that is due. It blocks.
    pub(super) fn note(&self) {
        let Some(store) = self.0.state.lock().to_note() else { return };
        let written = write(self.0.disk.as_ref(), &self.0.dir, &store);
        let mut state = self.0.state.lock();
        match written {
            Ok(()) => {
                info!(store = hex::encode(&store), "noted the store that envelopes go to");
                state.complained = false;
                state.noted = Some(store);
            }
            Err(error) if !std::mem::replace(&mut state.complained, true) => {
                warn!(cause = %error, "the archive's store cannot be noted in the spool's directory, trying again");
            }
            Err(_) => {}
        }
    }
}

impl State {
    fn to_note(&self) -> Option<Bytes> {
        self.known.clone().filter(|_| self.met && self.known != self.noted)
    }
}

/// What the file says; none when there is none. An error tells what to do.
fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Bytes>, String> {
    let file = match disk.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let bytes = file.len().map_err(|error| error.to_string())?;
    let mut text = vec![0; usize::try_from(bytes.min(MAX_BYTES)).unwrap_or_default()];
    read_exact_at(file.as_ref(), &mut text, 0).map_err(|error| error.to_string())?;
    std::str::from_utf8(&text).ok().and_then(parse).map(Some).ok_or_else(|| {
        "it does not say for which store the envelopes here are: set gateway.archive_store to the id that `poste ctl \
         archive stats` shows, if that archive is the right one"
            .to_owned()
    })
}

fn write(disk: &dyn Disk, dir: &Path, store: &[u8]) -> io::Result<()> {
    let draft = dir.join(DRAFT_NAME);
    match disk.remove(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(&draft)?;
    write_all_at(file.as_ref(), text(store).as_bytes(), 0)?;
    file.sync_data()?;
    disk.rename(&draft, &dir.join(FILE_NAME))?;
    disk.sync_dir(dir)
}

fn text(store: &[u8]) -> String {
    let lines = format!("{FIRST_LINE}\nstore {}\n", hex::encode(store));
    let check = hex::encode(&keccak256(lines.as_bytes())[..CHECK_BYTES]);
    format!("{lines}check {check}\n")
}

fn parse(read: &str) -> Option<Bytes> {
    let line = read.lines().nth(1)?.strip_prefix("store ")?;
    let store = hex::decode(line).ok().filter(|store| !store.is_empty())?;
    // Whatever else it says is not what was written.
    (text(&store) == read).then(|| store.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use poste_journal::FaultyDisk;
    use poste_service::readiness::Readiness;

    const DIR: &str = "/spool";
    const A: Bytes = Bytes::from_static(&[0xa; 16]);
    const B: Bytes = Bytes::from_static(&[0xb; 16]);

    fn open(disk: &FaultyDisk, chosen: Option<Bytes>) -> KnownStore {
        let ready = Readiness::new().add("store");
        KnownStore::open(Arc::new(disk.clone()), Path::new(DIR), chosen, ready).unwrap()
    }

    fn disk(seed: u64) -> FaultyDisk {
        let disk = FaultyDisk::new(seed);
        disk.create_dir(Path::new(DIR)).unwrap();
        disk
    }

    #[test]
    fn version_1_is_frozen() {
        let sample = "poste-store 1\nstore 0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b\ncheck 41b8988a2838af5f\n";
        assert_eq!(text(&B), sample);
        assert_eq!(parse(sample), Some(B));
        for at in 0..sample.len() {
            let mut damaged = sample.as_bytes().to_vec();
            damaged[at] ^= 1;
            assert_eq!(parse(std::str::from_utf8(&damaged).unwrap()), None, "{at}");
        }
        assert_eq!(parse(&format!("{sample}\n")), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn a_restart_is_no_consent_to_another_store() {
        for seed in 0..20 {
            let disk = disk(seed);
            let store = open(&disk, None);
            assert!(store.is_known(&A) && store.is_known(&B) && store.is_noted(), "none was met");
            store.meet(&A).unwrap();
            assert!(!store.is_noted() && !store.is_known(&B));
            store.note();
            assert!(store.is_noted());
            disk.crash();
            let store = open(&disk, None);
            assert!(!store.is_known(&B), "seed {seed}");
            let error = store.meet(&B).unwrap_err().to_string();
            assert!(
                error.contains(&format!("set gateway.archive_store to \"{}\"", "0b".repeat(16))),
                "{error}"
            );
            store.note();
            store.meet(&A).unwrap();
            assert!(store.is_noted());
        }
    }

    #[test]
    fn a_setting_names_the_store_to_go_on_with() {
        let disk = disk(1);
        let store = open(&disk, None);
        store.meet(&A).unwrap();
        store.note();
        let store = open(&disk, Some(B));
        let error = store.meet(&A).unwrap_err().to_string();
        assert!(error.contains("than gateway.archive_store names"), "{error}");
        assert!(store.is_noted(), "it was not met yet");
        store.meet(&B).unwrap();
        store.note();
        assert!(!open(&disk, None).is_known(&A), "and the setting is not needed any more");
    }

    #[test]
    fn a_note_that_cannot_be_read_is_an_error_that_the_setting_mends() {
        let disk = disk(1);
        let store = open(&disk, None);
        store.meet(&A).unwrap();
        store.note();
        disk.damage(&Path::new(DIR).join(FILE_NAME), 20, 1).unwrap();
        let ready = Readiness::new().add("store");
        let error = KnownStore::open(Arc::new(disk.clone()), Path::new(DIR), None, ready).unwrap_err();
        assert!(error.to_string().contains("set gateway.archive_store"), "{error}");
        let store = open(&disk, Some(B));
        store.meet(&B).unwrap();
        store.note();
        assert!(open(&disk, None).is_known(&B));
    }

    #[test]
    fn a_note_that_cannot_be_written_is_tried_again() {
        let disk = disk(1);
        let store = open(&disk, None);
        store.meet(&A).unwrap();
        disk.set_capacity(Some(0));
        store.note();
        assert!(!store.is_noted());
        disk.set_capacity(None);
        store.note();
        assert!(store.is_noted());
    }

    #[test]
    fn an_adopted_spool_goes_where_its_own_note_says() {
        let (own, other) = (disk(1), disk(2));
        let store = open(&own, None);
        store.meet(&B).unwrap();
        let adopt = |own: &KnownStore| {
            let ready = Readiness::new().add("store");
            own.for_spool(Arc::new(other.clone()), Path::new(DIR), ready).unwrap()
        };
        assert!(!adopt(&store).is_known(&A), "without a note where the adopting one goes");
        let noted = open(&other, None);
        noted.meet(&A).unwrap();
        noted.note();
        assert!(adopt(&store).meet(&B).is_err());
        adopt(&open(&own, Some(B))).meet(&B).unwrap();
    }
}
