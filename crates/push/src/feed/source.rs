//! Which archive is read, and from where. Places mean nothing in another store, so the one that the checkpoint is of is
//! read and no other, until the operator names another one.

use std::time::Duration;

use crate::store::Checkpoint;

use super::caught_up::CaughtUp;

/// Messages that were made earlier than this before the former archive was last read to its end are no news. Clocks
/// differ, and a gateway may have held some back.
const OVERLAP: Duration = Duration::from_secs(60 * 60);

/// The archive as far as it is known.
#[derive(Debug)]
pub(super) struct Source {
    /// None: none was ever met.
    store_id: Option<[u8; 16]>,
    /// The setting names it.
    is_chosen: bool,
    begins_after: u64,
    /// When the archive, or a former one, was last read to its end.
    caught_up: Option<CaughtUp>,
    /// Messages made before this are no news. Seconds since 1970.
    skip_before_unix_s: Option<u64>,
    /// The checkpoint is beyond what the store has, and has to be taken back before anything is read.
    is_reset_due: bool,
    /// Up to where it was told that records were retired before they were read.
    told_retired: u64,
}

/// Why an archive is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum WrongStore {
    #[error(
        "the archive has another store than before, {found} instead of {known}: bring back the former one, or, if that is \
         meant, set push.archive_store to \"{found}\" and restart the push server"
    )]
    Other { found: String, known: String },
    #[error(
        "the archive has another store, {found}, than push.archive_store names, {known}: correct one of them"
    )]
    NotChosen { found: String, known: String },
    #[error(
        "the archive's store {store} was put back to an earlier state than what was read of it: bring back the newer one, \
         or, if that is meant, set push.archive_store to \"{store}\" and restart the push server"
    )]
    PutBack { store: String },
}

/// A hole in what can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    /// How many records, of whatever topic, at most.
    pub(super) records: u64,
}

impl Source {
    pub(super) fn new(
        checkpoint: Option<Checkpoint>,
        chosen: Option<[u8; 16]>,
        caught_up: Option<CaughtUp>,
    ) -> Self {
        let store_id = chosen.or(checkpoint.map(|checkpoint| checkpoint.archive_store_id));
        let ours = checkpoint.filter(|checkpoint| Some(checkpoint.archive_store_id) == store_id);
        let mut source = Self {
            store_id,
            is_chosen: chosen.is_some(),
            begins_after: ours.map_or(0, |checkpoint| checkpoint.seq),
            caught_up,
            skip_before_unix_s: None,
            is_reset_due: false,
            told_retired: 0,
        };
        // Another one was read to its end, and this one never was. Whoever has no checkpoint has lost everything, and
        // needs all there is.
        let is_news_to_us = caught_up.is_some_and(|caught_up| Some(caught_up.store_id) != store_id);
        // Nobody notes the beginning but for a store that was put back.
        let was_put_back = ours.is_some_and(|checkpoint| checkpoint.seq == 0);
        if checkpoint.is_some() && (is_news_to_us || was_put_back) {
            source.skip_old();
        }
        source
    }

    fn skip_old(&mut self) {
        self.skip_before_unix_s =
            self.caught_up.map(|caught_up| caught_up.unix_s.saturating_sub(OVERLAP.as_secs()));
    }

    pub(super) fn store_id(&self) -> Option<[u8; 16]> {
        self.store_id
    }

    /// Where the first stream begins.
    pub(super) fn begins_after(&self) -> u64 {
        self.begins_after
    }

    /// Whether a message that was made then, seconds since 1970, is no news.
    pub(super) fn is_old(&self, made_unix_s: u64) -> bool {
        self.skip_before_unix_s.is_some_and(|before| made_unix_s < before)
    }

    /// An archive has this store. It is the one to read from now on if there was none.
    pub(super) fn meet(&mut self, found: &[u8]) -> Result<[u8; 16], WrongStore> {
        let text = hex::encode(found);
        let known = match (self.store_id, <[u8; 16]>::try_from(found)) {
            (None, Ok(found)) => *self.store_id.insert(found),
            (Some(known), Ok(found)) if known == found => known,
            (known, _) => {
                let known = known.map(hex::encode).unwrap_or_default();
                return Err(match self.is_chosen {
                    true => WrongStore::NotChosen { found: text, known },
                    false => WrongStore::Other { found: text, known },
                });
            }
        };
        Ok(known)
    }

    /// The known store is behind what was read of it. Ok if the operator has consented to begin again.
    pub(super) fn put_back(&mut self) -> Result<(), WrongStore> {
        if self.is_chosen {
            self.is_reset_due = true;
            self.skip_old();
            return Ok(());
        }
        Err(WrongStore::PutBack { store: self.store_id.map(hex::encode).unwrap_or_default() })
    }

    /// Whether it has to be noted that nothing of the store was read, before anything is.
    pub(super) fn is_reset_due(&self) -> bool {
        self.is_reset_due
    }

    /// That was noted.
    pub(super) fn was_reset(&mut self) {
        self.is_reset_due = false;
    }

    /// The archive has retired everything up to a place. A gap is told once.
    pub(super) fn retired(&mut self, retired: u64, received: u64) -> Option<Gap> {
        // Whoever begins at the beginning had no place that something could be missed behind.
        let is_gap = received > 0 && retired > received.max(self.told_retired);
        self.told_retired = self.told_retired.max(retired);
        is_gap.then(|| Gap { records: retired - received })
    }

    /// All of it was dealt with at this time. What there is to note.
    pub(super) fn at_the_end(&mut self, unix_s: u64) -> Option<CaughtUp> {
        self.skip_before_unix_s = None;
        let caught_up = CaughtUp { store_id: self.store_id?, unix_s };
        self.caught_up = Some(caught_up);
        Some(caught_up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 16] = [0xa; 16];
    const B: [u8; 16] = [0xb; 16];

    fn read(seq: u64) -> Option<Checkpoint> {
        Some(Checkpoint { archive_store_id: A, seq })
    }

    #[test]
    fn the_first_archive_is_read_from_its_beginning() {
        let mut source = Source::new(None, None, None);
        assert_eq!((source.begins_after(), source.store_id()), (0, None));
        assert_eq!(source.retired(50, 0), None);
        assert!(!Source::new(None, None, Some(CaughtUp { store_id: A, unix_s: 10_000 })).is_old(0));
        assert_eq!(source.meet(&A), Ok(A));
        assert!(source.meet(&B).is_err());
        assert!(source.meet(&[1, 2]).is_err());
    }

    #[test]
    fn another_archive_needs_consent_and_old_messages_are_no_news() {
        let caught_up = Some(CaughtUp { store_id: A, unix_s: 10_000 });
        let mut source = Source::new(read(7), None, caught_up);
        assert_eq!((source.begins_after(), source.is_old(0)), (7, false));
        let error = source.meet(&B).unwrap_err().to_string();
        assert!(error.contains(&format!("set push.archive_store to \"{}\"", hex::encode(B))), "{error}");
        let mut source = Source::new(read(7), Some(B), caught_up);
        assert_eq!(source.begins_after(), 0);
        assert!(source.is_old(6399) && !source.is_old(6400));
        let error = source.meet(&A).unwrap_err().to_string();
        assert!(error.contains("than push.archive_store names"), "{error}");
        assert_eq!(source.meet(&B), Ok(B));
        // A restart within it.
        let within = Some(Checkpoint { archive_store_id: B, seq: 3 });
        let mut source = Source::new(within, None, caught_up);
        assert_eq!((source.begins_after(), source.is_old(6399)), (3, true));
        assert_eq!(source.at_the_end(20_000), Some(CaughtUp { store_id: B, unix_s: 20_000 }));
        assert!(!source.is_old(6399));
    }

    #[test]
    fn a_store_that_was_put_back_needs_consent() {
        let caught_up = Some(CaughtUp { store_id: A, unix_s: 10_000 });
        let error = Source::new(read(7), None, caught_up).put_back().unwrap_err().to_string();
        assert!(error.contains("was put back") && error.contains("push.archive_store"), "{error}");
        let mut source = Source::new(read(7), Some(A), caught_up);
        assert_eq!((source.begins_after(), source.is_old(0)), (7, false));
        source.put_back().unwrap();
        assert!(source.is_old(6399) && source.is_reset_due());
        source.was_reset();
        assert!(!source.is_reset_due());
        // A restart before the first checkpoint since, with the consent or without it.
        for chosen in [Some(A), None] {
            let source = Source::new(read(0), chosen, caught_up);
            assert_eq!((source.begins_after(), source.store_id(), source.is_old(6399)), (0, Some(A), true));
        }
    }

    #[test]
    fn a_gap_is_told_once() {
        let mut source = Source::new(read(7), None, None);
        assert_eq!(source.retired(7, 7), None);
        assert_eq!(source.retired(10, 7), Some(Gap { records: 3 }));
        assert_eq!(source.retired(10, 8), None);
        assert_eq!(source.retired(12, 9), Some(Gap { records: 3 }));
    }
}
