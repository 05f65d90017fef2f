//! Opening and making a store. Its files are made first, and the text file `store` is named last: a directory with that
//! file holds a whole store.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use poste_codec::PublicKey;
use rand::Rng;
use redb::backends::FileBackend;
use redb::{Builder, Database, Durability, ReadableDatabase, StorageBackend, WriteTransaction};

use super::claims::{Requests, end_open_claims};
use super::damage::Damage;
use super::slots::{self, Keys, Slots};
use super::writer::{Aside, Writer, Writing};
use super::{Backends, Files, Inner, KEYS, META, Options, REGISTRATIONS, REQUESTS, RedbStore, STORE};
use crate::store::StoreError;

const LOCK: &str = "LOCK";
/// Of the file `store`, while the others are made.
const DRAFT: &str = "store.draft";
const FIRST_LINE: &str = "poste-push 1";
const MAX_STORE_BYTES: u64 = 1024;

/// In the `META` of both databases: to which store it belongs, 16 bytes.
const STORE_ID: &str = "store_id";
/// In the `META` of the requests: 32 random bytes.
const SALT: &str = "salt";

/// Of the databases' files.
const PAGE_BYTES: u64 = 4096;

const REGISTRATIONS_WRITING: Writing = Writing { name: REGISTRATIONS, queue: 64 };
const REQUESTS_WRITING: Writing = Writing { name: REQUESTS, queue: 1024 };

/// Whether a push server has ever had its store in this directory.
#[must_use]
pub fn is_store(dir: &Path) -> bool {
    [STORE, REGISTRATIONS, KEYS].iter().any(|name| dir.join(name).exists()) && !dir.join(DRAFT).exists()
}

pub(super) fn open(dir: &Path, identity: &PublicKey, options: Options) -> Result<RedbStore, StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(StoreError::io("make", dir))?;
    let lock = lock(dir)?;
    let whose = match read_whose(dir)? {
        Some(whose) => whose,
        None => create(dir, identity, options)?,
    };
    if whose.identity != *identity {
        return Err(StoreError::OtherIdentity { dir: dir.to_owned() });
    }
    let paths = [REGISTRATIONS, REQUESTS, KEYS].map(|name| dir.join(name));
    let sizes = move || paths.iter().filter_map(|path| Some(path.metadata().ok()?.len())).sum();
    open_files(backends(dir, false)?, &whose.store_id, options, Box::new(sizes), Some(lock))
}

/// Opens the files of a store.
pub(super) fn open_files<B: StorageBackend>(
    files: Backends<B>,
    store_id: &[u8; 16],
    options: Options,
    sizes: Box<dyn Fn() -> u64 + Send + Sync>,
    lock: Option<File>,
) -> Result<RedbStore, StoreError> {
    let registrations = database(files.registrations, options)?;
    let requests = database(files.requests, options)?;
    check_store(&registrations, REGISTRATIONS, store_id)?;
    check_store(&requests, REQUESTS, store_id)?;
    let keys = Keys(Arc::new(files.keys));
    let slots = Slots::open(keys.clone(), store_id, &registrations)?;
    let transaction = begin(&requests)?;
    let unknown = end_open_claims(&mut Requests::tables(&transaction)?)?;
    transaction.commit()?;
    if unknown > 0 {
        tracing::warn!(count = unknown, "nobody knows of these notifications whether they were sent");
    }
    let salt = {
        let meta = requests.begin_read()?.open_table(META)?;
        let salt = meta.get(SALT)?.and_then(|salt| salt.value().try_into().ok());
        salt.ok_or_else(|| StoreError::corrupt(REQUESTS, "it lacks its salt: bring it back from a backup"))?
    };
    let (registrations, requests) = (Arc::new(registrations), Arc::new(requests));
    let inner = Inner {
        registrations: Writer::start(REGISTRATIONS_WRITING, Arc::clone(&registrations), slots)?,
        requests: Writer::start(REQUESTS_WRITING, Arc::clone(&requests), Requests)?,
        files: Arc::new(Files { registrations, requests, keys, salt, unreadable: AtomicU64::new(0), sizes }),
        caps: options.caps,
        expiry: Mutex::default(),
        read_failure: Mutex::default(),
        registrations_damage: Damage::default(),
        requests_damage: Damage::default(),
        _lock: lock,
    };
    Ok(RedbStore(Arc::new(inner)))
}

/// Fills the empty files of a new store.
pub(super) fn create_files<B: StorageBackend>(
    files: Backends<B>,
    store_id: &[u8; 16],
    options: Options,
) -> Result<(), StoreError> {
    slots::create(&files.keys, store_id)?;
    let registrations = database(files.registrations, options)?;
    let transaction = begin(&registrations)?;
    Slots::tables(&transaction)?.meta.insert(STORE_ID, store_id.as_slice())?;
    transaction.commit()?;
    let requests = database(files.requests, options)?;
    let transaction = begin(&requests)?;
    {
        let mut salt = [0_u8; 32];
        rand::rng().fill_bytes(&mut salt);
        let mut meta = Requests::tables(&transaction)?.meta;
        meta.insert(STORE_ID, store_id.as_slice())?;
        meta.insert(SALT, salt.as_slice())?;
    }
    transaction.commit()?;
    Ok(())
}

/// A transaction that is durable when its commit returns. The commit also saves which pages are free: without that a
/// start after a crash reads the whole file.
pub(super) fn begin(database: &Database) -> Result<WriteTransaction, StoreError> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_quick_repair(true);
    Ok(transaction)
}

fn database(file: impl StorageBackend, options: Options) -> Result<Database, StoreError> {
    // A power cut while a file grows may leave a piece of a page at its end. The database never uses that, and
    // refuses the file for it.
    let length = file.len().map_err(redb::StorageError::from)?;
    let whole_pages = length - length % PAGE_BYTES;
    if whole_pages != length {
        file.set_len(whole_pages).map_err(redb::StorageError::from)?;
    }
    Ok(Builder::new().set_cache_size(options.cache_bytes).create_with_backend(file)?)
}

fn check_store(database: &Database, name: &str, store_id: &[u8; 16]) -> Result<(), StoreError> {
    let foreign = || {
        let reason = "it belongs to another store: bring all files of the store back from one backup";
        StoreError::corrupt(name, reason)
    };
    let meta = database.begin_read()?.open_table(META).map_err(|_| foreign())?;
    let is_ours = meta.get(STORE_ID)?.is_some_and(|id| id.value() == store_id);
    if is_ours { Ok(()) } else { Err(foreign()) }
}

/// What the file `store` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Whose {
    pub(super) store_id: [u8; 16],
    pub(super) identity: PublicKey,
}

impl Whose {
    pub(super) fn text(&self) -> String {
        format!("{FIRST_LINE}\nstore {}\nidentity {}\n", hex::encode(self.store_id), self.identity)
    }

    /// `None` for what this program does not write.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let known = lines.next()? == FIRST_LINE;
        let mut store_id = [0; 16];
        hex::decode_to_slice(lines.next()?.strip_prefix("store ")?, &mut store_id).ok()?;
        let mut identity = [0; 64];
        hex::decode_to_slice(lines.next()?.strip_prefix("identity ")?, &mut identity).ok()?;
        let identity = PublicKey::from_bytes(&identity).ok()?;
        (known && lines.next().is_none()).then_some(Self { store_id, identity })
    }
}

/// `None` when there is no store here, or one that was not made to its end.
fn read_whose(dir: &Path) -> Result<Option<Whose>, StoreError> {
    let path = dir.join(STORE);
    let mut text = String::new();
    match File::open(&path).and_then(|file| file.take(MAX_STORE_BYTES).read_to_string(&mut text)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let has_registrations = dir.join(REGISTRATIONS).exists() || dir.join(KEYS).exists();
            return match has_registrations && !dir.join(DRAFT).exists() {
                true => Err(StoreError::Missing { path }),
                false => Ok(None),
            };
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
        Err(error) => return Err(StoreError::io("read", &path)(error)),
    }
    if let Some(name) = [REGISTRATIONS, REQUESTS, KEYS].into_iter().find(|name| !dir.join(name).exists()) {
        return Err(StoreError::Missing { path: dir.join(name) });
    }
    let whose = Whose::parse(&text).ok_or_else(|| StoreError::Corrupt {
        name: path.display().to_string(),
        reason: "it does not say whose registrations these are in a form that this version knows: use the version \
                 that wrote it, or bring the file back from a backup"
            .to_owned(),
    })?;
    Ok(Some(whose))
}

fn create(dir: &Path, identity: &PublicKey, options: Options) -> Result<Whose, StoreError> {
    let mut store_id = [0; 16];
    rand::rng().fill_bytes(&mut store_id);
    let whose = Whose { store_id, identity: *identity };
    let draft = dir.join(DRAFT);
    let make = |action| StoreError::io(action, &draft);
    // What a stop left while a store was being made: nothing was ever acknowledged from it.
    let written = new_file(&draft, true).and_then(|mut file| {
        file.write_all(whose.text().as_bytes())?;
        file.sync_all()
    });
    written.map_err(make("write"))?;
    sync_dir(dir)?;
    create_files(backends(dir, true)?, &store_id, options)?;
    sync_dir(dir)?;
    fs::rename(&draft, dir.join(STORE)).map_err(make("rename"))?;
    sync_dir(dir)?;
    Ok(whose)
}

fn backends(dir: &Path, is_new: bool) -> Result<Backends<FileBackend>, StoreError> {
    let file = |name: &str| {
        let path = dir.join(name);
        let opened = if is_new {
            new_file(&path, true)
        } else {
            OpenOptions::new().read(true).write(true).open(&path)
        };
        let file = opened.map_err(StoreError::io("open", &path))?;
        Ok::<_, StoreError>(FileBackend::new(file)?)
    };
    Ok(Backends { registrations: file(REGISTRATIONS)?, requests: file(REQUESTS)?, keys: file(KEYS)? })
}

/// A file that only its owner may read, emptied if it is there.
fn new_file(path: &Path, truncate: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(truncate).mode(0o600).open(path)
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let path: PathBuf = dir.join(LOCK);
    let file = new_file(&path, false).map_err(StoreError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(StoreError::io("lock", &path)(error)),
    }
}

fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(StoreError::io("sync", dir))
}
