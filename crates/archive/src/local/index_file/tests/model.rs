//! What an index file must answer, in sorted vectors.

use std::collections::BTreeMap;

use poste_wire::Hash;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::local::frame;

/// What a file must answer: the entries by position.
pub(super) struct Model {
    pub(super) entries: Vec<IndexEntry>,
    seed: u64,
}

impl Model {
    /// Few times, so that many are equal; a few topics that have most records, and many that have one; ids of
    /// which some begin alike.
    pub(super) fn random(records: u32, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut seq = random.random_range(0..u64::from(u32::MAX) * 3);
        let mut entries = Vec::new();
        for n in 0..records {
            seq += if random.random_range(0..10) == 0 { random.random_range(1..100_000) } else { 1 };
            let mut id = Hash(random.random());
            if random.random_range(0..20) == 0 {
                id.0[..8].fill(random.random_range(0..3));
            }
            // Arrival follows time only roughly.
            let time_ns = i64::from(n) / 5 + random.random_range(-50..50);
            let topic = match random.random_range(0..4) {
                0 => Topic(random.random()),
                1 => Topic([0, 0, 0, random.random_range(0..20)]),
                _ => Topic([9; 4]),
            };
            let payload_bytes = random.random_range(15..2000);
            entries.push(IndexEntry {
                position: Position { time_ns, id },
                topic,
                seq,
                offset: n,
                payload_bytes,
            });
        }
        entries.sort_by_key(|entry| entry.position);
        Self { entries, seed }
    }

    pub(super) fn write(&self, disk: &dyn Disk) -> io::Result<Summary> {
        let mut shuffled = self.entries.clone();
        shuffled.sort_by_key(|entry| entry.position.id.0[13]);
        let quarantined = [Stretch { offset: 64, bytes: 100 }];
        write(disk, path(), key(), SEGMENT_BYTES, vec![(SPACE, shuffled)], &quarantined)
    }

    pub(super) fn topics(&self) -> BTreeMap<Topic, Vec<u32>> {
        let mut topics: BTreeMap<Topic, Vec<u32>> = BTreeMap::new();
        for (entry, rank) in self.entries.iter().zip(0..) {
            topics.entry(entry.topic).or_default().push(rank);
        }
        topics
    }

    /// Asks for everything in every way. Fails the test for a wrong answer, and returns the first error.
    pub(super) fn compare(&self, file: &IndexFile) -> Result<(), IndexError> {
        let random = &mut StdRng::seed_from_u64(!self.seed);
        self.compare_summary(file.summary());
        let Some(space) = file.space(SPACE) else {
            assert!(self.entries.is_empty());
            return Ok(());
        };
        self.compare_positions(space, random)?;
        self.compare_topics(space, random)?;
        self.compare_ids(space, random)?;
        self.compare_arrivals(space, random)
    }

    fn compare_summary(&self, summary: &Summary) {
        assert_eq!(summary.segment_bytes, SEGMENT_BYTES);
        assert_eq!(summary.quarantined, [Stretch { offset: 64, bytes: 100 }]);
        let seqs = || self.entries.iter().map(|entry| entry.seq);
        let body = |entry: &IndexEntry| u64::from(entry.payload_bytes) - frame::head_bytes(SPACE) as u64;
        let expected = self.entries.first().map(|first| SpaceSummary {
            space: SPACE,
            records: self.entries.len() as u32,
            body_bytes: self.entries.iter().map(body).sum(),
            oldest: first.position,
            newest: self.entries.last().unwrap().position,
            first_seq: seqs().min().unwrap(),
            last_seq: seqs().max().unwrap(),
            topics: self.topics().len() as u32,
        });
        assert_eq!(summary.spaces.first(), expected.as_ref(), "seed {}", self.seed);
    }

    fn compare_positions(&self, space: SpaceIndex, random: &mut StdRng) -> Result<(), IndexError> {
        let seed = self.seed;
        let mut cursor = space.entries(0);
        for entry in &self.entries {
            assert_eq!(cursor.next()?.as_ref(), Some(entry), "seed {seed}");
        }
        assert_eq!(cursor.next()?, None);
        for entry in self.entries.iter().rev() {
            assert_eq!(cursor.previous()?.as_ref(), Some(entry), "seed {seed}");
        }
        assert_eq!(cursor.previous()?, None);
        for _ in 0..50 {
            let rank = random.random_range(0..self.entries.len());
            let entry = &self.entries[rank];
            assert_eq!(&space.entry(rank as u32)?, entry, "seed {seed}");
            assert_eq!(space.find(&entry.position)?.as_ref(), Some(entry), "seed {seed}");
            let mut position = match random.random_range(0..3) {
                0 => Position::first_of(entry.position.time_ns),
                1 => Position::last_of(entry.position.time_ns),
                _ => entry.position,
            };
            position.id.0[31] ^= random.random_range(0..2_u8);
            let expected = self.entries.partition_point(|entry| entry.position < position);
            assert_eq!(space.rank_of(&position)? as usize, expected, "seed {seed}");
            let at = self.entries.get(expected).filter(|entry| entry.position == position);
            assert_eq!(space.find(&position)?.as_ref(), at, "seed {seed}");
            let mut cursor = space.entries(random.random_range(0..space.len() + 2));
            cursor.seek(&position)?;
            let below = expected.checked_sub(1).map(|rank| self.entries[rank]);
            assert_eq!(cursor.previous()?, below, "seed {seed}");
        }
        assert!(matches!(space.entry(space.len()), Err(IndexError::Invalid(_))));
        Ok(())
    }

    fn compare_topics(&self, space: SpaceIndex, random: &mut StdRng) -> Result<(), IndexError> {
        let (seed, topics, table) = (self.seed, self.topics(), space.topics()?);
        let counts = table.iter().map(|(topic, run)| (topic, run.count as usize));
        assert!(counts.eq(topics.iter().map(|(topic, ranks)| (*topic, ranks.len()))), "seed {seed}");
        assert_eq!(table.len(), topics.len());
        for (topic, ranks) in &topics {
            let run = table.find(topic).unwrap();
            let mut cursor = space.run(run);
            for rank in ranks {
                assert_eq!(cursor.next()?, Some(*rank), "seed {seed}");
            }
            assert_eq!(cursor.next()?, None);
            for rank in ranks.iter().rev() {
                assert_eq!(cursor.previous()?, Some(*rank), "seed {seed}");
            }
            assert_eq!(cursor.previous()?, None);
            for _ in 0..(ranks.len() / 10).clamp(2, 40) {
                let rank = random.random_range(0..space.len() + 2);
                cursor.seek(rank)?;
                let expected = ranks.partition_point(|other| *other < rank);
                let next = ranks.get(expected).copied();
                assert_eq!(cursor.next()?, next, "seed {seed}, from {rank}");
                if next.is_some() {
                    assert_eq!(cursor.previous()?, next);
                }
                let below = expected.checked_sub(1).map(|place| ranks[place]);
                assert_eq!(cursor.previous()?, below, "seed {seed}, from {rank}");
            }
        }
        assert_eq!(table.find(&Topic([9, 9, 9, 8])), None);
        Ok(())
    }

    fn compare_ids(&self, space: SpaceIndex, random: &mut StdRng) -> Result<(), IndexError> {
        for entry in self.entries.iter().step_by(1 + self.entries.len() / 100) {
            assert_eq!(space.find_id(&entry.position.id)?.as_ref(), Some(entry), "seed {}", self.seed);
            let mut near = entry.position.id;
            near.0[31] ^= 1;
            assert_eq!(space.find_id(&near)?, None);
            assert_eq!(space.find_id(&Hash(random.random()))?, None);
        }
        Ok(())
    }

    fn compare_arrivals(&self, space: SpaceIndex, random: &mut StdRng) -> Result<(), IndexError> {
        let mut arrivals = self.entries.clone();
        arrivals.sort_by_key(|entry| entry.seq);
        let (first, last) = (arrivals[0].seq, arrivals[arrivals.len() - 1].seq);
        for after in [0, first.saturating_sub(1), first, last - 1, last, u64::MAX]
            .into_iter()
            .chain((0..20).map(|_| random.random_range(first..=last)))
        {
            let expected = arrivals.partition_point(|entry| entry.seq <= after);
            let mut cursor = space.arrivals(after)?;
            for entry in &arrivals[expected..arrivals.len().min(expected + 300)] {
                assert_eq!(cursor.next()?.as_ref(), Some(entry), "seed {}, after {after}", self.seed);
            }
        }
        let mut cursor = space.arrivals(0)?;
        for entry in &arrivals {
            assert_eq!(cursor.next()?.as_ref(), Some(entry), "seed {}", self.seed);
        }
        assert_eq!(cursor.next()?, None);
        Ok(())
    }
}
