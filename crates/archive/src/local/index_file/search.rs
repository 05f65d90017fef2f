//! Search where every probe is a read from the disk.

use std::ops::RangeInclusive;

use super::IndexError;

/// Where keys are spread evenly, as hashes and seqs are, so many probes find the place. After them the range is
/// halved: nobody who chooses keys can make a search long.
const GUESSES: u32 = 8;

/// The first of `count` items whose key is not below `target`, or `count`. Keys ascend and lie in `keys`.
pub(super) fn first_not_below(
    count: u32,
    keys: RangeInclusive<u64>,
    target: u64,
    mut key_of: impl FnMut(u32) -> Result<u64, IndexError>,
) -> Result<u32, IndexError> {
    let (mut low, mut high) = (0, count);
    let (mut low_key, mut high_key) = keys.into_inner();
    for probes in 0.. {
        if low >= high {
            break;
        }
        let width = high - low;
        let step = match high_key.checked_sub(low_key) {
            Some(span) if probes < GUESSES && span > 0 => {
                let distance = target.clamp(low_key, high_key) - low_key;
                (u128::from(distance) * u128::from(width) / u128::from(span)) as u32
            }
            _ => width / 2,
        };
        let probe = low + step.min(width - 1);
        let key = key_of(probe)?;
        if key < target {
            (low, low_key) = (probe + 1, key);
        } else {
            (high, high_key) = (probe, key);
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer and how many probes it took.
    fn search(keys: &[u64], range: RangeInclusive<u64>, target: u64) -> (u32, u32) {
        let mut probes = 0;
        let key_of = |index: u32| {
            probes += 1;
            Ok(keys[index as usize])
        };
        let found = first_not_below(keys.len() as u32, range, target, key_of).unwrap();
        (found, probes)
    }

    #[test]
    fn it_finds_the_place_of_every_key_and_gap() {
        let powers: Vec<u64> = (0..64).map(|n| 1 << n).collect();
        let sets: [&[u64]; 6] = [&[], &[5], &[5, 5, 5], &[0, u64::MAX], &powers, &[7, 8, 9, 9, 9, 10, 4000]];
        for keys in sets {
            for target in keys.iter().flat_map(|&key| [key.saturating_sub(1), key, key.saturating_add(1)]) {
                let expected = keys.partition_point(|&key| key < target) as u32;
                assert_eq!(search(keys, 0..=u64::MAX, target).0, expected, "{target} in {keys:?}");
                let exact = keys[0]..=keys[keys.len() - 1];
                assert_eq!(search(keys, exact, target).0, expected, "{target} in {keys:?}");
            }
        }
    }

    #[test]
    fn even_keys_take_few_probes_and_no_keys_take_many() {
        let hash =
            |n: u32| u64::from_be_bytes(poste_wire::Hash::of(&n.to_be_bytes()).0[..8].try_into().unwrap());
        let mut hashes: Vec<u64> = (0..100_000).map(hash).collect();
        hashes.sort_unstable();
        let probes: u32 = hashes.iter().step_by(100).map(|&key| search(&hashes, 0..=u64::MAX, key).1).sum();
        assert!(probes < 8_000, "{probes} for 1,000 searches");
        let seqs: Vec<u64> = (1_000..101_000).collect();
        assert!(search(&seqs, 1_000..=100_999, 77_777).1 <= 3);
        let skewed: Vec<u64> = (0..100_000).map(|n| if n < 99_999 { n } else { u64::MAX }).collect();
        let (found, probes) = search(&skewed, 0..=u64::MAX, 70_000);
        assert_eq!(found, 70_000);
        assert!(probes <= GUESSES + 18, "{probes}");
    }
}
