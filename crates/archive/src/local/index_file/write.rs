//! Makes an index file from the entries of a segment.

use std::io;
use std::path::{Path, PathBuf};

use poste_journal::{Disk, DiskFile, write_all_at};
use poste_wire::Topic;

use super::filter::IdFilter;
use super::format::{
    BLOCK_BYTES, CONTENT_BYTES, ENTRIES_PER_BLOCK, Footer, MAGIC, MAX_RECORDS, Seal, Sections, TRAILER_BYTES,
    encode_position, footer_blocks,
};
use super::space::id_head;
use super::{IndexEntry, IndexKey, SpaceSummary, Stretch, Summary};
use crate::local::frame;
use crate::record::Space;

/// What one call of the disk writes, bytes.
const PIECE_BYTES: usize = 1024 * 1024;

/// Writes the index file of a segment: beside its name, fsynced, then renamed to it, durably; what has the
/// name, or is left of an earlier attempt, is replaced. Entries come in any order; of several at one position the
/// first to arrive stays. On an error there is no new file, or the whole new one.
///
/// # Errors
/// Those of the disk; `InvalidInput` for more records, or seqs further apart, than a segment can have.
pub(in crate::local) fn write(
    disk: &dyn Disk,
    path: &Path,
    key: IndexKey,
    segment_bytes: u64,
    spaces: Vec<(Space, Vec<IndexEntry>)>,
    quarantined: &[Stretch],
) -> io::Result<Summary> {
    let new = beside(path);
    match disk.remove(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(&new)?;
    let written = write_file(file.as_ref(), key, segment_bytes, spaces, quarantined).and_then(|summary| {
        file.sync_data()?;
        disk.rename(&new, path)?;
        Ok(summary)
    });
    if written.is_err() {
        // A half of it would only take room; the next attempt removes what stays.
        let _ = disk.remove(&new);
    }
    let summary = written?;
    disk.sync_dir(path.parent().unwrap_or(Path::new("")))?;
    Ok(summary)
}

/// The name of the file while it is written.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

fn write_file(
    file: &dyn DiskFile,
    key: IndexKey,
    segment_bytes: u64,
    spaces: Vec<(Space, Vec<IndexEntry>)>,
    quarantined: &[Stretch],
) -> io::Result<Summary> {
    let mut writer = BlockWriter::new(file, &key);
    let mut summary =
        Summary { segment_bytes, file_bytes: 0, spaces: Vec::new(), quarantined: bounded(quarantined) };
    let mut sections = Vec::new();
    for (space, entries) in spaces.into_iter().filter(|(_, entries)| !entries.is_empty()) {
        let sorted = Sorted::new(space, entries)?;
        sections.push(sorted.write(&mut writer)?);
        summary.spaces.push(sorted.summary);
    }
    let mut footer = Footer { summary, sections };
    // Its length does not depend on the number that is still missing.
    let blocks = writer.blocks + footer_blocks(footer.encode(&key).len());
    footer.summary.file_bytes = u64::from(blocks) * BLOCK_BYTES as u64;
    writer.put_footer(&footer.encode(&key))?;
    writer.flush()?;
    Ok(footer.summary)
}

/// At most as many stretches as a summary holds; the last then has the bytes of all that are left out.
fn bounded(stretches: &[Stretch]) -> Vec<Stretch> {
    let (kept, rest) = stretches.split_at(stretches.len().min(Summary::MAX_QUARANTINED));
    let mut kept = kept.to_vec();
    if let Some(last) = kept.last_mut() {
        last.bytes += rest.iter().map(|stretch| stretch.bytes).sum::<u64>();
    }
    kept
}

/// The entries of a space by position, and what is known of them.
struct Sorted {
    entries: Vec<IndexEntry>,
    summary: SpaceSummary,
    /// With the place of the first rank among [`Sorted::topic_ranks`].
    topics: Vec<(Topic, u32)>,
    topic_ranks: Vec<u32>,
}

impl Sorted {
    /// The entries, of which there is at least one.
    fn new(space: Space, mut entries: Vec<IndexEntry>) -> io::Result<Self> {
        entries.sort_unstable_by(|a, b| a.position.cmp(&b.position).then(a.seq.cmp(&b.seq)));
        entries.dedup_by_key(|entry| entry.position);
        let refused = |reason| io::Error::new(io::ErrorKind::InvalidInput, reason);
        let records = u32::try_from(entries.len()).ok().filter(|records| *records <= MAX_RECORDS);
        let records = records.ok_or_else(|| refused("more records than a segment can have"))?;
        let seqs = entries.iter().map(|entry| entry.seq);
        let (first_seq, last_seq) = (seqs.clone().min().unwrap_or(0), seqs.max().unwrap_or(0));
        if u32::try_from(last_seq - first_seq).is_err() {
            return Err(refused("seqs further apart than a segment can have"));
        }
        let mut topics = Vec::new();
        let topic_ranks = ranks_by(&entries, |entry| u32::from_be_bytes(entry.topic.0));
        for (place, &rank) in topic_ranks.iter().enumerate() {
            let topic = entries[rank as usize].topic;
            if topics.last().is_none_or(|(last, _)| *last != topic) {
                topics.push((topic, place as u32));
            }
        }
        let body_bytes = |entry: &IndexEntry| {
            u64::from(entry.payload_bytes).saturating_sub(frame::head_bytes(space) as u64)
        };
        let summary = SpaceSummary {
            space,
            records,
            body_bytes: entries.iter().map(body_bytes).sum(),
            oldest: entries[0].position,
            newest: entries[entries.len() - 1].position,
            first_seq,
            last_seq,
            topics: topics.len() as u32,
        };
        Ok(Self { entries, summary, topics, topic_ranks })
    }

    fn write(&self, writer: &mut BlockWriter) -> io::Result<Sections> {
        let first_seq = self.summary.first_seq;
        let sections = Sections::new(writer.blocks, self.summary.records, self.summary.topics);
        writer.put_all(self.entries.iter().map(|entry| entry.encode(first_seq)))?;
        writer.put_all(self.topics.iter().map(|(topic, place)| {
            let mut item = [0; 8];
            item[..4].copy_from_slice(&topic.0);
            item[4..].copy_from_slice(&place.to_le_bytes());
            item
        }))?;
        writer.put_all(self.topic_ranks.iter().map(|rank| rank.to_le_bytes()))?;
        writer.put_all(self.id_ranks().iter().map(|rank| rank.to_le_bytes()))?;
        let arrivals = ranks_by(&self.entries, |entry| (entry.seq - first_seq) as u32);
        writer.put_all(arrivals.iter().map(|rank| rank.to_le_bytes()))?;
        let firsts = self.entries.iter().step_by(ENTRIES_PER_BLOCK as usize);
        writer.put_all(firsts.map(|entry| encode_position(&entry.position)))?;
        let mut filter = IdFilter::new(self.summary.records);
        self.entries.iter().for_each(|entry| filter.insert(&entry.position.id));
        writer.put_all(filter.blocks())?;
        debug_assert_eq!(writer.blocks, sections.end);
        Ok(sections)
    }

    fn id_ranks(&self) -> Vec<u32> {
        let id = |rank: u32| self.entries[rank as usize].position.id;
        let heads = self.entries.iter().map(|entry| id_head(&entry.position.id));
        let mut ranks: Vec<(u64, u32)> = heads.zip(0..).collect();
        ranks.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| id(a.1).cmp(&id(b.1))).then(a.1.cmp(&b.1)));
        ranks.into_iter().map(|(_, rank)| rank).collect()
    }
}

/// The ranks of the entries by a key, and those of one key ascending.
fn ranks_by(entries: &[IndexEntry], key: impl Fn(&IndexEntry) -> u32) -> Vec<u32> {
    let mut keys: Vec<u64> =
        entries.iter().zip(0_u64..).map(|(entry, rank)| u64::from(key(entry)) << 32 | rank).collect();
    keys.sort_unstable();
    keys.into_iter().map(|key| key as u32).collect()
}

/// Fills blocks with items and seals them.
struct BlockWriter<'a> {
    file: &'a dyn DiskFile,
    seal: Seal,
    /// Whole blocks, and the content of one that is not full.
    buffer: Vec<u8>,
    /// Content of the one that is not full, bytes.
    filled: usize,
    /// How many blocks are full.
    blocks: u32,
    /// Length of the file, bytes.
    written: u64,
}

impl<'a> BlockWriter<'a> {
    fn new(file: &'a dyn DiskFile, key: &IndexKey) -> Self {
        let buffer = Vec::with_capacity(PIECE_BYTES);
        Self { file, seal: Seal::of(key), buffer, filled: 0, blocks: 0, written: 0 }
    }

    /// A section: items that each fit a block.
    fn put_all(&mut self, items: impl IntoIterator<Item: AsRef<[u8]>>) -> io::Result<()> {
        for item in items {
            let item = item.as_ref();
            if self.filled + item.len() > CONTENT_BYTES {
                self.end_block()?;
            }
            self.buffer.extend_from_slice(item);
            self.filled += item.len();
        }
        self.end_block()
    }

    fn put_footer(&mut self, footer: &[u8]) -> io::Result<()> {
        let mut bytes = footer.to_vec();
        bytes.resize(footer_blocks(footer.len()) as usize * CONTENT_BYTES - TRAILER_BYTES, 0);
        bytes.extend_from_slice(&(footer.len() as u32).to_le_bytes());
        bytes.extend_from_slice(MAGIC);
        self.put_all(bytes.chunks(CONTENT_BYTES))
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.filled == 0 {
            return Ok(());
        }
        self.buffer.resize(self.buffer.len() + CONTENT_BYTES - self.filled, 0);
        let content = &self.buffer[self.buffer.len() - CONTENT_BYTES..];
        let crc = self.seal.crc(self.blocks, content);
        self.buffer.extend_from_slice(&crc.to_le_bytes());
        self.filled = 0;
        self.blocks += 1;
        if self.buffer.len() >= PIECE_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes the blocks that are full; none may be begun.
    fn flush(&mut self) -> io::Result<()> {
        write_all_at(self.file, &self.buffer, self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}
