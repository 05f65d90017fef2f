//! Reads a whole index file and checks that all its parts tell of the same records.

use poste_wire::Hash;

use super::format::{ENTRIES_PER_BLOCK, ENTRY_BYTES, RANK_BYTES};
use super::space::id_head;
use super::{IndexEntry, IndexError, IndexFile, SpaceIndex, invalid};
use crate::local::frame;

pub(super) fn verify(file: &IndexFile) -> Result<(), IndexError> {
    // What is resident may have been read before the damage.
    file.forget_resident();
    let footer = file.blocks.footer(&file.key)?;
    check(footer.summary == file.summary, "the footer has changed")?;
    for space in file.spaces() {
        let facts = verify_entries(space)?;
        verify_topics(space, &facts)?;
        verify_ids(space, &facts)?;
        verify_arrivals(space, &facts)?;
    }
    Ok(())
}

/// What the ranks are sorted by, of one entry.
struct Facts {
    id_head: u64,
    topic: u32,
    seq: u32,
}

/// Checks the entries, the first positions, the filter and the summary.
fn verify_entries(space: SpaceIndex) -> Result<Vec<Facts>, IndexError> {
    let summary = space.summary();
    let (firsts, filter) = (space.firsts()?, space.filter()?);
    let head_bytes = frame::head_bytes(summary.space) as u64;
    let mut facts = Vec::with_capacity(space.len() as usize);
    let (mut body_bytes, mut first_seq, mut last_seq) = (0, u64::MAX, 0);
    let mut before = None;
    space.blocks().scan_items(space.sections().entries, space.len(), |bytes: &[u8; ENTRY_BYTES]| {
        let entry = IndexEntry::decode(bytes, summary.first_seq);
        let position = entry.position;
        check(before < Some(position), "entries out of order")?;
        let (block, place) =
            (facts.len() / ENTRIES_PER_BLOCK as usize, facts.len() % ENTRIES_PER_BLOCK as usize);
        check(place > 0 || firsts.get(block) == Some(&position), "a first position that is not the first")?;
        check(before.is_some() || position == summary.oldest, "another oldest record than told")?;
        check(filter.may_contain(&position.id), "an id that its filter does not know")?;
        before = Some(position);
        body_bytes += u64::from(entry.payload_bytes).saturating_sub(head_bytes);
        (first_seq, last_seq) = (first_seq.min(entry.seq), last_seq.max(entry.seq));
        let seq = (entry.seq - summary.first_seq) as u32;
        let topic = u32::from_be_bytes(entry.topic.0);
        facts.push(Facts { id_head: id_head(&position.id), topic, seq });
        Ok(())
    })?;
    check(before == Some(summary.newest), "another newest record than told")?;
    check(body_bytes == summary.body_bytes, "bodies that are not as long as told")?;
    check((first_seq, last_seq) == (summary.first_seq, summary.last_seq), "seqs that are not as told")?;
    Ok(facts)
}

/// Checks that the ranks are grouped as the topic table tells, and that each is of its topic.
fn verify_topics(space: SpaceIndex, facts: &[Facts]) -> Result<(), IndexError> {
    let table = space.topics()?;
    let mut topics = table.iter().flat_map(|(topic, run)| {
        let topic = u32::from_be_bytes(topic.0);
        std::iter::repeat_n(topic, run.count as usize)
    });
    let mut before = None;
    each_rank(space, space.sections().topic_ranks, facts, |rank, facts| {
        check(topics.next() == Some(facts.topic), "a record under another topic")?;
        let ascends = before < Some((facts.topic, rank));
        before = Some((facts.topic, rank));
        check(ascends, "a topic's records out of order")
    })
}

fn verify_ids(space: SpaceIndex, facts: &[Facts]) -> Result<(), IndexError> {
    let mut reader = space.reader();
    // Few ids begin alike: only those are read in full.
    let mut whole =
        |rank: u32| -> Result<(Hash, u32), IndexError> { Ok((reader.entry(rank)?.position.id, rank)) };
    let mut before: Option<(u64, u32)> = None;
    each_rank(space, space.sections().id_ranks, facts, |rank, facts| {
        let ascends = match before {
            Some((head, other)) if head == facts.id_head => whole(other)? < whole(rank)?,
            Some((head, _)) => head < facts.id_head,
            None => true,
        };
        before = Some((facts.id_head, rank));
        check(ascends, "ids out of order")
    })
}

fn verify_arrivals(space: SpaceIndex, facts: &[Facts]) -> Result<(), IndexError> {
    let mut before = None;
    each_rank(space, space.sections().arrival_ranks, facts, |rank, facts| {
        let ascends = before < Some((facts.seq, rank));
        before = Some((facts.seq, rank));
        check(ascends, "arrivals out of order")
    })
}

/// Reads a section of ranks. Where they ascend strictly by what they are sorted by, each is there once.
fn each_rank(
    space: SpaceIndex,
    section: u32,
    facts: &[Facts],
    mut each: impl FnMut(u32, &Facts) -> Result<(), IndexError>,
) -> Result<(), IndexError> {
    space.blocks().scan_items(section, space.len(), |bytes: &[u8; RANK_BYTES]| {
        let rank = u32::from_le_bytes(*bytes);
        each(rank, facts.get(rank as usize).ok_or_else(|| invalid("a rank that no entry has"))?)
    })
}

fn check(good: bool, what: &str) -> Result<(), IndexError> {
    good.then_some(()).ok_or_else(|| invalid(what))
}
