//! What is kept of stored history until it has come as a whole.

use std::collections::BTreeMap;

use super::Mail;

/// The most messages that are looked at, and their bytes. Anybody can post on a topic.
const MAX_HISTORY: usize = 1_000;
const MAX_HISTORY_BYTES: usize = 32 << 20;

/// The newest of many, by the clocks of those who made them.
#[derive(Debug, Default)]
pub(super) struct Newest {
    mails: BTreeMap<(u32, u64), Mail>,
    bytes: usize,
    count: u64,
}

impl Newest {
    pub(super) fn put(&mut self, mail: Mail) {
        self.bytes += mail.data.len();
        self.count += 1;
        self.mails.insert((mail.made_at, self.count), mail);
        while self.mails.len() > MAX_HISTORY || self.bytes > MAX_HISTORY_BYTES {
            let Some((_, oldest)) = self.mails.pop_first() else { return };
            self.bytes -= oldest.data.len();
        }
    }

    /// In the order in which they were made.
    pub(super) fn into_mails(self) -> impl Iterator<Item = Mail> {
        self.mails.into_values()
    }
}

#[cfg(test)]
mod tests {
    use poste_wire::Topic;

    use super::*;

    fn mail(made_at: u32, length: usize) -> Mail {
        Mail { topic: Topic([1; 4]), data: vec![0; length].into(), made_at }
    }

    #[test]
    fn history_is_bounded_and_the_newest_stays_whatever_comes_first() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut newest = Newest::default();
            order.into_iter().for_each(|made_at| newest.put(mail(made_at, MAX_HISTORY_BYTES / 2)));
            assert_eq!(newest.into_mails().map(|mail| mail.made_at).collect::<Vec<_>>(), [1, 2], "{order:?}");
        }
        let mut newest = Newest::default();
        (0..2 * MAX_HISTORY as u32).rev().for_each(|made_at| newest.put(mail(made_at, 1)));
        let kept: Vec<_> = newest.into_mails().map(|mail| mail.made_at).collect();
        assert_eq!(kept, (MAX_HISTORY as u32..2 * MAX_HISTORY as u32).collect::<Vec<_>>());
    }
}
