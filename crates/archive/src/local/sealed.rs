//! Which records of a sealed segment answer a question, by its index file. Everything goes by ranks, the places of the
//! records by position: a question by topics merges the runs of those topics; where they hold a good part of all
//! records, a walk by time that skips the others is cheaper. Both give the same answer.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::Arc;

use super::index_file::{IndexEntry, IndexError, IndexFile, Run, RunCursor, SpaceIndex};
use super::part::{Part, PartError, SealedPart};
use super::question::{Candidate, Question, TailQuestion, Wanted};
use crate::record::{Position, Space};

/// What things cost, in steps of a walk by time: to find the place in one topic's run, and to read one entry far from
/// the one before.
const STEPS_PER_SEEK: u64 = 50;
const STEPS_PER_ENTRY: u64 = 40;
/// Records of an order of arrival that one question looks at.
const TAIL_STEPS: usize = 50_000;
/// So many records are read and sorted rather than looked for in order of arrival.
const TAIL_RUNS: u64 = 2048;
/// Candidates that are taken from the index file at a time, unless a merge has to be set up for them.
const BATCH: usize = 256;

/// The records of one segment that are wanted, in order.
pub(super) struct SealedCursor {
    part: Arc<Part>,
    file: Arc<IndexFile>,
    question: Arc<Question>,
    /// Ranks that are not looked at yet.
    ranks: Range<u32>,
    way: Way,
    /// How many candidates a merge is set up for.
    count: usize,
    /// The next ones, the first one last.
    batch: Vec<Candidate>,
}

/// How the wanted records are found.
enum Way {
    /// All are wanted.
    All,
    /// A walk by time that takes what is wanted; after so many steps it was not cheaper after all.
    Skip { runs: Vec<Run>, steps_left: u64 },
    /// The runs of the wanted topics, merged.
    Runs(Vec<Run>),
}

impl SealedCursor {
    /// The part is a sealed one. `count` records are expected to be taken.
    pub(super) fn open(part: Arc<Part>, question: Arc<Question>, count: usize) -> Result<Self, PartError> {
        let sealed = sealed(&part);
        let file = sealed.file()?;
        let ask = || -> Result<_, IndexError> {
            let Some(index) = file.space(question.space) else { return Ok((0..0, Way::All)) };
            let way = Way::of(index, &question.wanted, count)?;
            let nothing = matches!(&way, Way::Runs(runs) if runs.is_empty());
            let ranks = if nothing { 0..0 } else { ranks(index, &question)? };
            Ok((ranks, way))
        };
        let (ranks, way) = ask().map_err(|error| PartError { id: part.id(), error })?;
        Ok(Self { part, file, question, ranks, way, count, batch: Vec::new() })
    }

    pub(super) fn next(&mut self) -> Result<Option<Candidate>, PartError> {
        loop {
            if let Some(candidate) = self.batch.pop() {
                return Ok(Some(candidate));
            }
            if self.ranks.is_empty() {
                return Ok(None);
            }
            self.refill().map_err(|error| PartError { id: self.part.id(), error })?;
        }
    }

    /// Takes the next batch out of the ranks that are left.
    fn refill(&mut self) -> Result<(), IndexError> {
        let file = Arc::clone(&self.file);
        let Some(index) = file.space(self.question.space) else {
            self.ranks = 0..0;
            return Ok(());
        };
        let entries = match &mut self.way {
            Way::All => {
                let mut steps_left = u64::MAX;
                walk(index, &mut self.ranks, self.question.descending, &mut steps_left, BATCH, |_| true)?
            }
            Way::Skip { runs, steps_left } => {
                let wanted = |entry: &IndexEntry| self.question.wanted.matches(entry.topic);
                let descending = self.question.descending;
                let entries = walk(index, &mut self.ranks, descending, steps_left, BATCH, wanted)?;
                if *steps_left == 0 {
                    self.way = Way::Runs(std::mem::take(runs));
                }
                entries
            }
            Way::Runs(runs) => {
                let count = if runs.len() == 1 { self.count.min(BATCH) } else { self.count.max(64) };
                merge(index, runs, &mut self.ranks, self.question.descending, count.saturating_add(1))?
            }
        };
        let sealed = sealed(&self.part);
        let check = sealed.has_quarantined();
        let sound = |entry: &IndexEntry| !check || !sealed.is_quarantined(entry.offset);
        self.batch =
            entries.iter().filter(|&entry| sound(entry)).map(|entry| sealed.candidate(entry)).collect();
        self.batch.reverse();
        Ok(())
    }
}

impl Way {
    fn of(index: SpaceIndex<'_>, wanted: &Wanted, count: usize) -> Result<Self, IndexError> {
        let table = index.topics()?;
        let runs: Vec<Run> = match wanted {
            Wanted::Everything => return Ok(Self::All),
            Wanted::Topics(topics) | Wanted::Bloom { topics: Some(topics), .. } => {
                if topics.len() * 16 < table.len() {
                    topics.iter().filter_map(|topic| table.find(topic)).collect()
                } else {
                    let mut topics = topics.iter().peekable();
                    let wanted = |topic| {
                        while topics.next_if(|&&other| other.0 < topic).is_some() {}
                        topics.peek().is_some_and(|other| other.0 == topic)
                    };
                    let mut wanted = wanted;
                    table.iter().filter(|(topic, _)| wanted(topic.0)).map(|(_, run)| run).collect()
                }
            }
            Wanted::Bloom { bloom, topics: None } => {
                table.iter().filter(|(topic, _)| bloom.matches(*topic)).map(|(_, run)| run).collect()
            }
        };
        if runs.len() == table.len() {
            return Ok(Self::All);
        }
        let matching: u64 = runs.iter().map(|run| u64::from(run.count)).sum();
        if runs.len() < 2 || matching == 0 {
            return Ok(Self::Runs(runs));
        }
        let taken = (count as u64).min(matching);
        let walk = taken.saturating_mul(index.len().into()) / matching;
        let merge = runs.len() as u64 * STEPS_PER_SEEK + taken * STEPS_PER_ENTRY;
        if walk < merge {
            Ok(Self::Skip { runs, steps_left: merge.saturating_mul(4) })
        } else {
            Ok(Self::Runs(runs))
        }
    }
}

/// The ranks within the bounds of a question.
fn ranks(index: SpaceIndex<'_>, question: &Question) -> Result<Range<u32>, IndexError> {
    let bounds = &question.bounds;
    let at = |position: &Position, behind_it: bool| {
        let rank = index.rank_of(position)?;
        let behind = behind_it && rank < index.len() && index.entry(rank)?.position == *position;
        Ok::<_, IndexError>(rank + u32::from(behind))
    };
    let low = if bounds.below(&index.summary().oldest) { at(&bounds.low, !bounds.low_included)? } else { 0 };
    let high = if bounds.above(&index.summary().newest) {
        at(&bounds.high, bounds.high_included)?
    } else {
        index.len()
    };
    Ok(low..high.max(low))
}

/// Walks by time and takes what is wanted, until enough is found or no step is left.
fn walk(
    index: SpaceIndex<'_>,
    ranks: &mut Range<u32>,
    descending: bool,
    steps_left: &mut u64,
    count: usize,
    wanted: impl Fn(&IndexEntry) -> bool,
) -> Result<Vec<IndexEntry>, IndexError> {
    let mut entries = Vec::new();
    let mut cursor = index.entries(if descending { ranks.end } else { ranks.start });
    while ranks.start < ranks.end && entries.len() < count && *steps_left > 0 {
        let entry = if descending { cursor.previous()? } else { cursor.next()? };
        let Some(entry) = entry else {
            *ranks = 0..0;
            break;
        };
        if descending {
            ranks.end -= 1;
        } else {
            ranks.start += 1;
        }
        *steps_left -= 1;
        if wanted(&entry) {
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// The first `count` entries of several runs.
fn merge(
    index: SpaceIndex<'_>,
    runs: &[Run],
    ranks: &mut Range<u32>,
    descending: bool,
    count: usize,
) -> Result<Vec<IndexEntry>, IndexError> {
    let step = |cursor: &mut RunCursor<'_>| if descending { cursor.previous() } else { cursor.next() };
    // The greatest comes first, so ascending ranks are turned around.
    let key = |rank: u32| if descending { (rank, Reverse(0)) } else { (0, Reverse(rank)) };
    let mut cursors = Vec::with_capacity(runs.len());
    let mut heads = BinaryHeap::with_capacity(runs.len());
    for &run in runs {
        let mut cursor = index.run(run);
        cursor.seek(if descending { ranks.end } else { ranks.start })?;
        if let Some(rank) = step(&mut cursor)?.filter(|rank| ranks.contains(rank)) {
            heads.push((key(rank), rank, cursors.len()));
            cursors.push(cursor);
        }
    }
    let mut entries = Vec::new();
    let mut reader = index.reader();
    while entries.len() < count {
        let Some((_, rank, number)) = heads.pop() else {
            *ranks = 0..0;
            break;
        };
        entries.push(reader.entry(rank)?);
        if descending {
            ranks.end = rank;
        } else {
            ranks.start = rank + 1;
        }
        if let Some(rank) = step(&mut cursors[number])?.filter(|rank| ranks.contains(rank)) {
            heads.push((key(rank), rank, number));
        }
    }
    Ok(entries)
}

/// At most `count` records behind a seq in order of arrival, and the seq up to which everything was looked at.
pub(super) fn select_tail(
    part: &SealedPart,
    tail: &TailQuestion,
    count: usize,
) -> Result<(Vec<Candidate>, u64), PartError> {
    part.ask(|file| {
        let Some(index) = file.space(tail.space) else { return Ok((Vec::new(), tail.until)) };
        if let Some(topics) = &tail.topics {
            let table = index.topics()?;
            let runs: Vec<Run> = topics.iter().filter_map(|topic| table.find(topic)).collect();
            let matching: u64 = runs.iter().map(|run| u64::from(run.count)).sum();
            if matching <= TAIL_RUNS {
                return tail_of_runs(part, index, &runs, tail, count);
            }
        }
        let mut candidates = Vec::new();
        let mut scanned = tail.after;
        let mut arrivals = index.arrivals(tail.after)?;
        for _ in 0..TAIL_STEPS {
            if candidates.len() == count {
                return Ok((candidates, scanned));
            }
            let Some(entry) = arrivals.next()?.filter(|entry| entry.seq <= tail.until) else {
                return Ok((candidates, tail.until));
            };
            let candidate = part.candidate(&entry);
            if tail.wants(&candidate) && !part.is_quarantined(entry.offset) {
                candidates.push(candidate);
            }
            scanned = entry.seq;
        }
        Ok((candidates, scanned))
    })
}

/// The same, where few records are of the wanted topics: all of them are read and sorted.
fn tail_of_runs(
    part: &SealedPart,
    index: SpaceIndex<'_>,
    runs: &[Run],
    tail: &TailQuestion,
    count: usize,
) -> Result<(Vec<Candidate>, u64), IndexError> {
    let mut candidates = Vec::new();
    let mut reader = index.reader();
    for &run in runs {
        let mut cursor = index.run(run);
        while let Some(rank) = cursor.next()? {
            let entry = reader.entry(rank)?;
            let candidate = part.candidate(&entry);
            let in_range = entry.seq > tail.after && entry.seq <= tail.until;
            if in_range && tail.wants(&candidate) && !part.is_quarantined(entry.offset) {
                candidates.push(candidate);
            }
        }
    }
    candidates.sort_unstable_by_key(|candidate| candidate.seq);
    if candidates.len() > count {
        candidates.truncate(count);
        return Ok((candidates.clone(), candidates.last().map_or(tail.until, |last| last.seq)));
    }
    Ok((candidates, tail.until))
}

/// The highest seq of a record between two creation times, the second excluded; 0 when there is none.
pub(super) fn last_seq_below(
    part: &SealedPart,
    space: Space,
    from_ns: i64,
    floor_ns: i64,
) -> Result<u64, PartError> {
    part.ask(|file| {
        let Some(index) = file.space(space) else { return Ok(0) };
        let mut cursor = index.entries(0);
        cursor.seek(&Position::first_of(from_ns))?;
        let mut last_seq = 0;
        while let Some(entry) = cursor.next()?.filter(|entry| entry.position.time_ns < floor_ns) {
            last_seq = last_seq.max(entry.seq);
        }
        Ok(last_seq)
    })
}

/// How many records there are between two creation times, the second excluded.
pub(super) fn count_between(
    part: &SealedPart,
    space: Space,
    from_ns: i64,
    floor_ns: i64,
) -> Result<u64, PartError> {
    part.ask(|file| {
        let Some(index) = file.space(space) else { return Ok(0) };
        let low = index.rank_of(&Position::first_of(from_ns))?;
        let high = index.rank_of(&Position::first_of(floor_ns))?;
        Ok(u64::from(high.saturating_sub(low)))
    })
}

/// The distinct topics of a space in a segment, with their numbers of records.
pub(super) fn topic_counts(
    part: &SealedPart,
    space: Space,
) -> Result<Vec<(poste_wire::Topic, u64)>, PartError> {
    part.ask(|file| {
        let Some(index) = file.space(space) else { return Ok(Vec::new()) };
        Ok(index.topics()?.iter().map(|(topic, run)| (topic, u64::from(run.count))).collect())
    })
}

fn sealed(part: &Part) -> &SealedPart {
    match part {
        Part::Sealed(sealed) => sealed,
        Part::Open(_) => unreachable!("a cursor over an index file is opened for sealed parts only"),
    }
}
