//! A cache of what many footers would cost: a summary of each sealed segment, and the distinct topics of each space.
//! Everything in it can be derived again, and it is believed only after a clean close: a file beside it then names
//! every file of sled with its checksum. What does not agree with that is deleted before sled sees it, and what sled
//! does in spite of that, panics included, ends the catalogue and not the store.

mod chunk;
mod clean;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use poste_wire::Topic;
use sled::{Batch, Db, Tree};

use super::topics::TopicSpan;
use crate::record::Space;
use crate::store::Lane;

/// Where sled has its files, in the store's directory.
const SLED_DIR: &str = "catalogue";
const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// The catalogue of a store, or none: then it remembers nothing, and says so when it is asked. It may become absent
/// at any time, so an answer is to be believed only when there is one.
pub(super) struct Catalogue {
    dir: PathBuf,
    sled: Mutex<Option<Sled>>,
}

struct Sled {
    db: Db,
    /// Lane and number of the segment, so that they are in order, to what the caller has put there.
    segments: Tree,
    /// Name of the space, a zero byte and the first byte of the topic, to a chunk.
    topics: Tree,
}

impl Catalogue {
    /// Opens the catalogue in a store's directory. What is in it is believed, and then true is returned, when it was
    /// closed with the same stamp and nothing has touched it since; else it is empty. It never fails: where there can
    /// be none, it is absent. It blocks, to read what there is.
    pub(super) fn open(dir: &Path, stamp: [u8; 16]) -> (Self, bool) {
        match Self::try_open(dir, stamp) {
            Ok((sled, believed)) => (Self { dir: dir.to_path_buf(), sled: Mutex::new(Some(sled)) }, believed),
            Err(reason) => {
                tracing::warn!(dir = %dir.display(), %reason, "going on without the catalogue");
                (Self::absent(), false)
            }
        }
    }

    /// None.
    pub(super) fn absent() -> Self {
        Self { dir: PathBuf::new(), sled: Mutex::new(None) }
    }

    /// The summary of each segment, ordered by lane and number; `None` when the catalogue is absent.
    pub(super) fn segments(&self) -> Option<Vec<(Lane, u32, Vec<u8>)>> {
        self.with(|sled| {
            let all = sled.segments.iter().map(|entry| {
                let (key, summary) = entry?;
                let (lane, number) = segment_of(&key).ok_or_else(damaged)?;
                Ok((lane, number, summary.to_vec()))
            });
            all.collect()
        })
    }

    /// Remembers the summary of a segment, in place of an earlier one.
    pub(super) fn put_segment(&self, lane: Lane, number: u32, summary: &[u8]) {
        self.with(|sled| sled.segments.insert(segment_key(lane, number), summary).map(|_| ()));
    }

    /// Forgets a segment.
    pub(super) fn remove_segment(&self, lane: Lane, number: u32) {
        self.with(|sled| sled.segments.remove(segment_key(lane, number)).map(|_| ()));
    }

    /// The topics of a space, sorted; `None` when the catalogue is absent.
    pub(super) fn load_topics(&self, space: Space) -> Option<Vec<(Topic, TopicSpan)>> {
        self.with(|sled| {
            let mut spans = Vec::new();
            for entry in sled.topics.scan_prefix(chunk_prefix(space)) {
                let (key, chunk) = entry?;
                let first = *key.last().ok_or_else(damaged)?;
                spans.extend(chunk::decode(first, &chunk).ok_or_else(damaged)?);
            }
            Ok(spans)
        })
    }

    /// Remembers spans of topics, in place of earlier ones of the same topics; all of them or none.
    pub(super) fn put_topics(&self, space: Space, changed: impl IntoIterator<Item = (Topic, TopicSpan)>) {
        let mut chunks: BTreeMap<u8, BTreeMap<Topic, TopicSpan>> = BTreeMap::new();
        for (topic, span) in changed {
            chunks.entry(topic.0[0]).or_default().insert(topic, span);
        }
        self.with(|sled| {
            let mut batch = Batch::default();
            for (first, changed) in chunks {
                let key = chunk_key(space, first);
                let mut spans = match sled.topics.get(&key)? {
                    Some(chunk) => chunk::decode(first, &chunk).ok_or_else(damaged)?.into_iter().collect(),
                    None => BTreeMap::new(),
                };
                spans.extend(changed);
                batch.insert(key, chunk::encode(&spans));
            }
            sled.topics.apply_batch(batch)
        });
    }

    /// Forgets the topics of a space.
    pub(super) fn clear_topics(&self, space: Space) {
        self.with(|sled| {
            let mut batch = Batch::default();
            for key in sled.topics.scan_prefix(chunk_prefix(space)).keys() {
                batch.remove(key?);
            }
            sled.topics.apply_batch(batch)
        });
    }

    /// Closes it, so that what it remembers is believed when it is opened with the same stamp. From then on it is
    /// absent. It blocks for fsyncs.
    pub(super) fn close(&self, stamp: [u8; 16]) {
        let Some(sled) = self.sled.lock().take() else { return };
        let close = || -> io::Result<()> {
            sled.db.flush()?;
            drop(sled);
            clean::write(&self.dir, stamp)
        };
        if let Err(reason) = guarded(close) {
            tracing::warn!(dir = %self.dir.display(), %reason, "the catalogue was not closed: it will be made anew");
        }
    }

    fn try_open(dir: &Path, stamp: [u8; 16]) -> io::Result<(Sled, bool)> {
        let reason = match clean::take(dir, stamp)? {
            Ok(()) => match Sled::open(&dir.join(SLED_DIR)) {
                Ok(sled) => return Ok((sled, true)),
                Err(reason) => reason.to_string(),
            },
            Err(reason) => reason.to_owned(),
        };
        if fs::symlink_metadata(dir.join(SLED_DIR)).is_ok() {
            tracing::info!(dir = %dir.display(), reason, "making the catalogue anew");
        }
        clean::delete(dir)?;
        Ok((Sled::open(&dir.join(SLED_DIR))?, false))
    }

    /// Asks sled, or tells it something. `None` when there is none, or none any more.
    fn with<T>(&self, ask: impl FnOnce(&Sled) -> sled::Result<T>) -> Option<T> {
        let mut sled = self.sled.lock();
        let open = sled.as_ref()?;
        match guarded(|| Ok(ask(open)?)) {
            Ok(answer) => Some(answer),
            Err(reason) => {
                tracing::warn!(dir = %self.dir.display(), %reason, "going on without the catalogue");
                let _ = guarded(|| {
                    drop(sled.take());
                    Ok(())
                });
                None
            }
        }
    }
}

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalogue").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Sled {
    fn open(dir: &Path) -> io::Result<Self> {
        guarded(|| {
            let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None);
            let db = config.mode(sled::Mode::LowSpace).open()?;
            let (segments, topics) = (db.open_tree("segments")?, db.open_tree("topics")?);
            Ok(Self { db, segments, topics })
        })
    }
}

/// Runs what calls sled, and makes an error of a panic.
fn guarded<T>(run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result,
        // What it says was logged by the hook.
        Err(_) => Err(io::Error::other("sled panicked")),
    }
}

fn damaged() -> sled::Error {
    sled::Error::Corruption { at: None, bt: () }
}

fn segment_key(lane: Lane, number: u32) -> [u8; 5] {
    let mut key = [0; 5];
    key[0] = match lane {
        Lane::Live => 0,
        Lane::Imported => 1,
    };
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

fn segment_of(key: &[u8]) -> Option<(Lane, u32)> {
    let (lane, number) = key.split_first()?;
    let lane = match lane {
        0 => Lane::Live,
        1 => Lane::Imported,
        _ => return None,
    };
    Some((lane, u32::from_be_bytes(number.try_into().ok()?)))
}

fn chunk_prefix(space: Space) -> Vec<u8> {
    [space.as_str().as_bytes(), &[0]].concat()
}

fn chunk_key(space: Space, first: u8) -> Vec<u8> {
    [space.as_str().as_bytes(), &[0, first]].concat()
}
