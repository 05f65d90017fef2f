//! Envelopes made from numbers: the same number of a set is the same envelope, byte for byte, whenever it is made. So
//! that a test that stored a million of them needs to remember only their numbers.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use poste_codec::rlp::Encoder;
use poste_wire::Topic;

/// Seconds for which the envelopes are relayed: their expiry is that much behind their creation.
const TTL: u32 = 50;
/// What stands around the data of an envelope of 256 bytes and more.
const AROUND_DATA: usize = 18;

/// A set of envelopes.
#[derive(Clone, Debug)]
pub struct Set {
    /// Whatever is random in the set follows from it.
    pub seed: u64,
    /// Bytes of data of each envelope.
    pub data_bytes: RangeInclusive<usize>,
    /// Creation time of the first, unix seconds.
    pub begin: u32,
    /// How many of them share a second.
    pub per_second: f64,
    /// By how many seconds one may be later than its turn.
    pub jitter: u32,
    /// The topics and how often each occurs.
    pub topics: Zipf,
}

impl Set {
    /// The data bytes that make a body of that many bytes, which is the RLP of the whole envelope.
    pub fn data_for_body(body_bytes: usize) -> RangeInclusive<usize> {
        let data = body_bytes.checked_sub(AROUND_DATA).filter(|data| *data > 255);
        let data = data.expect("a body of a size at which lengths take two bytes");
        data..=data
    }

    /// The RLP of an envelope.
    pub fn body(&self, number: u64) -> Bytes {
        let mut random = self.random(number);
        let sent = self.time_of(number, &mut random);
        let topic = self.topics.topic(self.topics.pick(random.next()));
        let (least, most) = (*self.data_bytes.start() as u64, *self.data_bytes.end() as u64);
        let mut data = vec![0; (least + random.next() % (most - least + 1)) as usize];
        for chunk in data.chunks_mut(8) {
            chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
        }
        let mut encoder = Encoder::new();
        let times = [sent + TTL, TTL].map(u64::from);
        encoder.list(5).uint(times[0]).uint(times[1]).bytes(&topic.0).bytes(&data).uint(0);
        encoder.finish().into()
    }

    /// Its creation time, unix seconds.
    pub fn time(&self, number: u64) -> u32 {
        self.time_of(number, &mut self.random(number))
    }

    /// Its topic.
    pub fn topic(&self, number: u64) -> Topic {
        let mut random = self.random(number);
        self.time_of(number, &mut random);
        self.topics.topic(self.topics.pick(random.next()))
    }

    fn time_of(&self, number: u64, random: &mut Random) -> u32 {
        let late = random.next() % (u64::from(self.jitter) + 1);
        self.begin + (number as f64 / self.per_second) as u32 + late as u32
    }

    fn random(&self, number: u64) -> Random {
        Random(self.seed ^ number.wrapping_mul(0xd134_2543_de82_ef95))
    }
}

/// Topics of which the one of rank `n` occurs a share of `1/n` as often as the first (exponent 1.0).
#[derive(Clone, Debug)]
pub struct Zipf(Arc<[Column]>);

/// A column of an alias table (Vose): all columns are as likely, and each stands for at most two ranks.
#[derive(Clone, Copy, Debug)]
struct Column {
    /// The part of the column, of 2^32, that stands for its own rank.
    own: u64,
    /// What the rest stands for.
    other: u32,
}

impl Zipf {
    /// That many topics.
    pub fn new(topics: u32) -> Self {
        let sum: f64 = (1..=topics).map(|rank| 1.0 / f64::from(rank)).sum();
        let mut share: Vec<f64> =
            (1..=topics).map(|rank| f64::from(topics) / (f64::from(rank) * sum)).collect();
        let mut columns = vec![Column { own: 1 << 32, other: 0 }; topics as usize];
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..share.len()).partition(|rank| share[*rank] < 1.0);
        while let (Some(less), Some(more)) = (small.pop(), large.last().copied()) {
            columns[less] = Column { own: (share[less] * 4_294_967_296.0) as u64, other: more as u32 };
            share[more] -= 1.0 - share[less];
            if share[more] < 1.0 {
                large.pop();
                small.push(more);
            }
        }
        Self(columns.into())
    }

    /// How many topics there are.
    pub fn len(&self) -> u32 {
        self.0.len() as u32
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The topic of a rank, which counts from 0.
    pub fn topic(&self, rank: u32) -> Topic {
        Topic((rank + 1).wrapping_mul(0x9e37_79b1).to_be_bytes())
    }

    /// A rank by 64 random bits.
    fn pick(&self, bits: u64) -> u32 {
        let column = ((bits >> 32) * self.0.len() as u64) >> 32;
        let Column { own, other } = self.0[column as usize];
        if bits & 0xffff_ffff < own { column as u32 } else { other }
    }
}

/// SplitMix64: fast, and the same numbers for the same seed for ever.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use poste_wire::Envelope;

    use super::*;

    fn set(body_bytes: usize) -> Set {
        Set {
            seed: 1,
            data_bytes: Set::data_for_body(body_bytes),
            begin: 1_700_000_000,
            per_second: 100.0,
            jitter: 20,
            topics: Zipf::new(50_000),
        }
    }

    #[test]
    fn bodies_are_envelopes_of_the_size_time_and_topic() {
        for size in [304, 1024] {
            let set = set(size);
            for number in 0..1000 {
                let body = set.body(number);
                assert_eq!((body.len(), &body), (size, &set.body(number)));
                let envelope = Envelope::decode(body).unwrap();
                assert_eq!((envelope.sent(), envelope.topic()), (set.time(number), set.topic(number)));
                let turn = 1_700_000_000 + (number / 100) as u32;
                assert!((turn..=turn + 20).contains(&envelope.sent()));
            }
        }
    }

    #[test]
    fn topics_occur_as_often_as_their_rank_says() {
        let set = set(304);
        let mut counts: HashMap<Topic, u32> = HashMap::new();
        const DRAWN: u32 = 200_000;
        for number in 0..DRAWN {
            *counts.entry(set.topic(number.into())).or_default() += 1;
        }
        for rank in [0, 1, 9, 99] {
            let expected = f64::from(DRAWN) / (f64::from(rank + 1) * 11.397);
            let count = f64::from(counts[&set.topics.topic(rank)]);
            assert!((count - expected).abs() < 6.0 * expected.sqrt(), "{rank}: {count}, not {expected}");
        }
    }
}
