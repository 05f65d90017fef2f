//! The 512-bit bloom filter over topics (EIP-627, 6/WAKU1), in the two projections that the deployed network needs.
//!
//! A topic names three bits. Deployed nodes *assign* the byte that holds a bit instead of or-ing the bit into it, so
//! when two bits fall into one byte only the later survives (4 topics in 100). That form is a subset of the other:
//! test envelopes with the assigned form ([`Bloom::sample`]), build filters with the or-ed form ([`Bloom::of_topics`]);
//! then a filter built either way covers the sample.

use std::fmt;

use thiserror::Error;

use crate::Topic;

/// Bytes that are no bloom filter, because there are not 64 of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a bloom filter has 64 bytes, not {0}")]
pub struct BloomLengthError(
    /// How many bytes there are.
    pub usize,
);

/// A set of topics, as 64 bytes; it may hold more than was put into it, never less.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bloom(pub [u8; 64]);

impl Bloom {
    /// How many bytes it has.
    pub const LENGTH: usize = 64;
    /// Holds every topic: what a full node advertises.
    pub const FULL: Self = Self([0xff; 64]);
    /// Holds no topic.
    pub const EMPTY: Self = Self([0; 64]);

    /// What an envelope of this topic is tested with: the assigning projection of deployed nodes.
    pub fn sample(topic: Topic) -> Self {
        let mut bloom = Self::EMPTY;
        for (byte, bit) in bits(topic) {
            bloom.0[byte] = bit;
        }
        bloom
    }

    /// A filter that holds `topics`, for sending to peers.
    pub fn of_topics(topics: impl IntoIterator<Item = Topic>) -> Self {
        let mut bloom = Self::EMPTY;
        for topic in topics {
            bloom.insert(topic);
        }
        bloom
    }

    /// Adds a topic to a filter.
    pub fn insert(&mut self, topic: Topic) {
        for (byte, bit) in bits(topic) {
            self.0[byte] |= bit;
        }
    }

    /// Whether every bit of `sample` is in this filter.
    pub fn covers(&self, sample: &Self) -> bool {
        self.0.iter().zip(&sample.0).all(|(filter, sample)| sample & !filter == 0)
    }

    /// Whether an envelope of this topic passes this filter.
    pub fn matches(&self, topic: Topic) -> bool {
        let [a, b, c] = bits(topic);
        let has = |(byte, bit): (usize, u8)| self.0[byte] & bit != 0;
        // Of two bits in the same byte only the later survives assignment. Without branches: archives ask this of
        // tens of thousands of topics at once.
        has(c) & (has(b) | (b.0 == c.0)) & (has(a) | (a.0 == b.0) | (a.0 == c.0))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }

    fn count_ones(&self) -> u32 {
        self.0.iter().map(|byte| byte.count_ones()).sum()
    }
}

impl TryFrom<&[u8]> for Bloom {
    type Error = BloomLengthError;

    fn try_from(bytes: &[u8]) -> Result<Self, BloomLengthError> {
        bytes.try_into().map(Self).map_err(|_| BloomLengthError(bytes.len()))
    }
}

impl fmt::Debug for Bloom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bloom({} of 512 bits)", self.count_ones())
    }
}

/// The three bits of a topic as (byte, bit in it): bit `n` of 512, where `n` is a byte of the topic, plus 256 if the
/// last byte of the topic says so.
fn bits(Topic([a, b, c, high]): Topic) -> [(usize, u8); 3] {
    let mut j = 0;
    [a, b, c].map(|low| {
        let n = usize::from(low) + if high >> j & 1 == 1 { 256 } else { 0 };
        j += 1;
        (n / 8, 1 << (n % 8))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn two_bits_in_one_byte_differ_between_the_projections() {
        let topic = Topic([1, 2, 3, 4]);
        let (sample, filter) = (Bloom::sample(topic), Bloom::of_topics([topic]));
        assert_eq!((sample.0[0], sample.0[32]), (0x04, 0x08));
        assert_eq!((filter.0[0], filter.0[32]), (0x06, 0x08));
        assert!(filter.covers(&sample) && !sample.covers(&filter));
    }

    #[test]
    fn about_four_topics_in_a_hundred_differ() {
        let mut differ = 0;
        for n in 0..65_536u32 {
            let [_, a, b, c] = n.wrapping_mul(0x9e37_79b1).to_be_bytes();
            for high in 0..8 {
                let topic = Topic([a, b, c, high]);
                differ += u32::from(Bloom::sample(topic) != Bloom::of_topics([topic]));
            }
        }
        let share = f64::from(differ) / (65_536.0 * 8.0);
        assert!((0.040..0.042).contains(&share), "{share}");
    }

    #[test]
    fn any_length_but_64_is_refused() {
        for length in [0, 1, 63, 65, 128] {
            assert_eq!(Bloom::try_from(&vec![0xff; length][..]), Err(BloomLengthError(length)));
        }
        assert_eq!(Bloom::try_from(&[0xff; 64][..]), Ok(Bloom::FULL));
    }

    #[test]
    fn debug_prints_no_filter() {
        assert_eq!(format!("{:?}", Bloom::FULL), "Bloom(512 of 512 bits)");
    }

    proptest! {
        #[test]
        fn matching_a_topic_is_covering_its_sample(topic: [u8; 4], filter: [u8; 64], dense: bool) {
            let filter = if dense { Bloom(filter.map(|byte| byte | 0x77)) } else { Bloom(filter) };
            let topic = Topic(topic);
            prop_assert_eq!(filter.matches(topic), filter.covers(&Bloom::sample(topic)));
        }

        #[test]
        fn a_filter_holds_what_was_put_into_it(topics: Vec<[u8; 4]>) {
            let filter = Bloom::of_topics(topics.iter().copied().map(Topic));
            prop_assert!(topics.iter().all(|topic| filter.matches(Topic(*topic))));
            prop_assert!(Bloom::FULL.covers(&filter) && filter.covers(&Bloom::EMPTY));
        }
    }
}
