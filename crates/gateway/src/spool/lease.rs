//! Envelopes on their way out of a spool: a few of one segment are leased, read, handed to the archive, and settled by
//! what it says. Whatever becomes of a lease, what is not settled goes back.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use poste_journal::{FrameAt, JournalError};

use super::index::Place;
use super::{Spool, record, say_lost, say_unreadable};

/// Envelopes on their way out of the spool. What is not settled goes back when this is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    spool: Arc<Spool>,
    segment: u32,
    places: Vec<Place>,
}

/// Envelopes of a lease, read.
#[derive(Debug)]
pub(crate) struct Drained {
    lease: Lease,
    /// One for each place that is left of the lease.
    pub(crate) bodies: Vec<Bytes>,
}

/// What becomes of an envelope that was on its way out of the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is done with.
    Settled,
    /// It goes out again as soon as it can.
    Again,
    /// It goes out again after a pause: the archive has no quota for it.
    OverQuota,
    /// It waited until retention had taken away what is as old: it is gone like that, and nobody misses its file.
    Retired,
    /// No archive will ever take it: it is lost, and its file is kept.
    Refused,
}

impl Lease {
    pub(super) fn new(spool: Arc<Spool>, segment: u32, places: Vec<Place>) -> Self {
        Self { spool, segment, places }
    }

    /// Reads the bodies. What is damaged is lost, counted, and said; what the disk does not give now stays in the spool.
    /// It blocks.
    pub(crate) fn read(mut self) -> Drained {
        let frames: Vec<FrameAt> = self.places.iter().map(|place| place.frame(self.segment)).collect();
        let (mut bodies, mut read, mut lost, mut again) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut why_lost, mut why_again) = (String::new(), String::new());
        for (payload, place) in self.spool.reader.read_many(&frames).into_iter().zip(self.places.drain(..)) {
            match payload.map(|payload| record::body(&payload)) {
                Ok(Some(body)) => {
                    bodies.push(body);
                    read.push(place);
                }
                Ok(None) => {
                    "it is no record".clone_into(&mut why_lost);
                    lost.push(place);
                }
                Err(error @ JournalError::Damaged { .. }) => {
                    why_lost = error.to_string();
                    lost.push(place);
                }
                Err(error) => {
                    why_again = error.to_string();
                    again.push(place);
                }
            }
        }
        self.places = read;
        self.give_up(lost, &why_lost);
        self.put_off(again, &why_again);
        Drained { lease: self, bodies }
    }

    fn give_up(&self, lost: Vec<Place>, why: &str) {
        if lost.is_empty() {
            return;
        }
        let count = lost.len() as u64;
        let mut index = self.spool.index.lock();
        index.damaged(self.segment, count);
        index.settle(self.segment, lost);
        drop(index);
        say_lost(self.segment, count, &why);
    }

    fn put_off(&self, unread: Vec<Place>, why: &str) {
        if unread.is_empty() {
            return;
        }
        let nothing = self.places.is_empty();
        let pause = self.spool.index.lock().unreadable(self.segment, unread, nothing, Instant::now());
        say_unreadable(self.segment, pause, &why);
        self.spool.measure();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.places.is_empty() {
            self.spool.index.lock().put_back(self.segment, self.places.drain(..));
        }
    }
}

impl Drained {
    /// Does with each, by its number, what its fate is. Returns whether the segment has nothing left.
    pub(crate) fn settle(mut self, fate: impl Fn(usize) -> Fate) -> bool {
        let (mut settled, mut again, mut over_quota) = (Vec::new(), Vec::new(), Vec::new());
        let mut refused = 0;
        for (number, place) in self.lease.places.drain(..).enumerate() {
            match fate(number) {
                Fate::Settled | Fate::Retired => settled.push(place),
                Fate::Again => again.push(place),
                Fate::OverQuota => over_quota.push(place),
                Fate::Refused => {
                    refused += 1;
                    settled.push(place);
                }
            }
        }
        // They go back when the lease is dropped.
        self.lease.places = again;
        let (spool, segment) = (Arc::clone(&self.lease.spool), self.lease.segment);
        let finished = {
            let mut index = spool.index.lock();
            if refused > 0 {
                index.damaged(segment, refused);
            }
            if !over_quota.is_empty() {
                index.over_quota(segment, over_quota, Instant::now());
            }
            index.settle(segment, settled)
        };
        drop(self);
        if refused > 0 {
            say_lost(segment, refused, &"the archive refuses them for good");
        }
        spool.measure();
        finished
    }
}
