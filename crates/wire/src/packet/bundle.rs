//! How many envelopes fit into one packet. Deployed nodes cut off a peer that sends more than 1 MiB at once, list
//! header included, and themselves send bursts that cost them the connection.

use crate::Envelope;

/// The length of an RLP list whose items take `items` bytes, header included.
pub fn list_length(items: usize) -> usize {
    let header = match items {
        0..=55 => 1,
        _ => 1 + (usize::BITS - items.leading_zeros()).div_ceil(8) as usize,
    };
    header + items
}

/// Cuts `envelopes` into runs, in order, each of which makes a Messages (1) or mail (127) packet of at most `max_bytes`.
/// An envelope that does not fit into a packet by itself is in none of them.
pub fn bundles(envelopes: &[Envelope], max_bytes: usize) -> Vec<&[Envelope]> {
    let mut runs = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, envelope) in envelopes.iter().enumerate() {
        let length = envelope.rlp().len();
        if list_length(bytes + length) > max_bytes {
            runs.push(&envelopes[start..index]);
            (start, bytes) = (index, 0);
            if list_length(length) > max_bytes {
                start = index + 1;
                continue;
            }
        }
        bytes += length;
    }
    runs.push(&envelopes[start..]);
    runs.retain(|run| !run.is_empty());
    runs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{Dialect, Packet};
    use crate::{Topic, packet::Messages};

    fn envelope(size: usize) -> Envelope {
        Envelope::new(1_600_000_050, 50, Topic([1, 2, 3, 4]), &vec![0; size], 0)
    }

    #[test]
    fn what_fits_into_no_packet_is_left_out() {
        let envelopes = [envelope(10), envelope(2000), envelope(20)];
        let runs = bundles(&envelopes, 500);
        assert_eq!(runs, [&envelopes[..1], &envelopes[2..]]);
        assert!(bundles(&[], 500).is_empty());
    }

    proptest! {
        #[test]
        fn packets_are_as_full_as_they_may_be(sizes in prop::collection::vec(0..400usize, 0..60), max in 450..2000usize) {
            let envelopes: Vec<_> = sizes.into_iter().map(envelope).collect();
            let runs = bundles(&envelopes, max);
            prop_assert_eq!(&runs.concat(), &envelopes);
            for (index, run) in runs.iter().enumerate() {
                let bytes: usize = run.iter().map(|envelope| envelope.rlp().len()).sum();
                let packet = Packet::Messages(Messages::new(run.to_vec())).encode(Dialect::Waku1).unwrap().1;
                prop_assert_eq!(packet.len(), list_length(bytes));
                prop_assert!(packet.len() <= max);
                if let Some(next) = runs.get(index + 1) {
                    prop_assert!(list_length(bytes + next[0].rlp().len()) > max);
                }
            }
        }
    }
}
