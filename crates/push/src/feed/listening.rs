//! Which topics are listened to, and how far each was received. Pure: the stream tells what came, and asks what to say.
//!
//! A topic is wanted from the place on that was received when it was joined. The archive keeps all records, so nothing of
//! it can be missed from then on, whether there is a stream at the moment or not: the place that is called received never
//! passes what the archive has not sent. So joining waits for nobody.
//!
//! On a stream that is open a joined topic is *joining* until the archive says that it has caught up with the others.
//! All that are joined meanwhile go out together, behind it. A stream that is opened anew asks for all topics from the
//! lowest place of any; what was received before is told by its number, and is not taken twice.

use std::collections::{HashMap, HashSet};

use poste_wire::Topic;

/// All topics, and the place of each.
#[derive(Debug, Default)]
pub(super) struct Listening {
    /// Everything up to here was received of the topics that are not joining.
    received: u64,
    live: HashSet<Topic>,
    joining: HashMap<Topic, Joining>,
    /// Joining, to be left as soon as they have caught up.
    leaving: HashSet<Topic>,
    /// What the archive is to be told.
    to_add: Vec<Topic>,
    to_drop: Vec<Topic>,
    /// Topics that were added to the stream and have not caught up.
    asked: HashSet<Topic>,
    stream: Option<Stream>,
}

#[derive(Debug)]
struct Joining {
    /// Everything up to here was received.
    received: u64,
    /// It was asked for when the stream was opened, with all others.
    is_carried: bool,
}

#[derive(Debug)]
struct Stream {
    everything: bool,
    /// What was asked for at its beginning has caught up.
    has_caught_up: bool,
    /// It began below the place where most topics were, for those that are carried.
    is_carrying: bool,
}

/// What to ask of a stream at its beginning.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opening {
    /// Everything behind this is wanted.
    pub(super) after: u64,
    /// Of these topics, or of all if there is none.
    pub(super) topics: Option<Vec<Topic>>,
}

/// What to tell a stream that is open.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Add { topics: Vec<Topic>, after: u64 },
    Drop { topics: Vec<Topic> },
}

impl Listening {
    /// Nothing, received up to a place.
    pub(super) fn from(received: u64) -> Self {
        Self { received, ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.live.len() + self.joining.len()
    }

    pub(super) fn contains(&self, topic: Topic) -> bool {
        self.live.contains(&topic) || (self.joining.contains_key(&topic) && !self.leaving.contains(&topic))
    }

    /// Everything up to here was received, of all topics.
    pub(super) fn received(&self) -> u64 {
        self.joining.values().map(|joining| joining.received).min().unwrap_or(u64::MAX).min(self.received)
    }

    /// From now on nothing of these topics is missed.
    pub(super) fn join(&mut self, topics: impl IntoIterator<Item = Topic>) {
        for topic in topics {
            if self.live.contains(&topic) || self.leaving.remove(&topic) || self.joining.contains_key(&topic)
            {
                continue;
            }
            if let Some(at) = self.to_drop.iter().position(|dropped| *dropped == topic) {
                // The archive has not heard that it was left.
                self.to_drop.swap_remove(at);
                self.live.insert(topic);
                continue;
            }
            match &self.stream {
                Some(Stream { everything: false, .. }) => {
                    self.joining.insert(topic, Joining { received: self.received, is_carried: false });
                    self.to_add.push(topic);
                }
                _ => {
                    self.live.insert(topic);
                }
            }
        }
    }

    /// These are not wanted any more.
    pub(super) fn leave(&mut self, topics: impl IntoIterator<Item = Topic>) {
        for topic in topics {
            if self.live.remove(&topic) {
                self.note_left(topic);
            } else if self.joining.contains_key(&topic) {
                self.leaving.insert(topic);
            }
        }
    }

    fn note_left(&mut self, topic: Topic) {
        if matches!(self.stream, Some(Stream { everything: false, .. })) {
            self.to_drop.push(topic);
        }
    }

    /// No place means anything any more: everything is wanted from the beginning.
    pub(super) fn begin_again(&mut self) {
        self.received = 0;
        self.live.extend(self.joining.drain().map(|(topic, _)| topic));
        self.close();
    }

    /// A stream is about to be opened. It brings everything if there are more topics than `max_topics`.
    pub(super) fn open(&mut self, max_topics: usize) -> Opening {
        let after = self.received();
        for topic in self.leaving.drain() {
            self.joining.remove(&topic);
        }
        for joining in self.joining.values_mut() {
            joining.is_carried = true;
        }
        if after == self.received {
            self.live.extend(self.joining.drain().map(|(topic, _)| topic));
        }
        (self.to_add, self.to_drop, self.asked) = Default::default();
        let everything = self.len() > max_topics;
        let is_carrying = !self.joining.is_empty();
        self.stream = Some(Stream { everything, has_caught_up: everything, is_carrying });
        let topics = (!everything).then(|| self.live.iter().chain(self.joining.keys()).copied().collect());
        Opening { after, topics }
    }

    /// The stream has ended.
    pub(super) fn close(&mut self) {
        self.stream = None;
    }

    /// Whether the open stream brings everything.
    pub(super) fn is_everything(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.everything)
    }

    /// All that was asked for at the beginning has caught up.
    pub(super) fn has_caught_up(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.has_caught_up)
    }

    /// The open stream is of the wrong kind for so many topics. Some fewer do not count, so that it does not change to
    /// and fro.
    pub(super) fn is_wrong_kind(&self, max_topics: usize) -> bool {
        match &self.stream {
            Some(Stream { everything: true, .. }) => self.len() <= max_topics - max_topics / 4,
            Some(Stream { everything: false, .. }) => self.len() > max_topics,
            None => false,
        }
    }

    /// Topics wait for a stream that has not caught up, perhaps for hours: a new one would have them from its beginning.
    pub(super) fn is_held_up(&self) -> bool {
        !self.to_add.is_empty() && !self.has_caught_up()
    }

    /// There is a [`Self::change`].
    pub(super) fn has_change(&self) -> bool {
        !self.to_drop.is_empty() || (self.may_add() && !self.to_add.is_empty())
    }

    /// What the open stream is to be told next.
    pub(super) fn change(&mut self) -> Option<Change> {
        if !self.to_drop.is_empty() {
            return Some(Change::Drop { topics: std::mem::take(&mut self.to_drop) });
        }
        if !self.may_add() || self.to_add.is_empty() {
            return None;
        }
        let topics = std::mem::take(&mut self.to_add);
        let places =
            topics.iter().filter_map(|topic| self.joining.get(topic)).map(|joining| joining.received);
        let after = places.min().unwrap_or(self.received);
        self.asked = topics.iter().copied().collect();
        Some(Change::Add { topics, after })
    }

    /// One addition at a time, so that those behind it go together.
    fn may_add(&self) -> bool {
        self.has_caught_up() && self.asked.is_empty()
    }

    /// A record of the open stream. True if it is wanted and was not received before.
    pub(super) fn take(&mut self, topic: Topic, seq: u64) -> bool {
        if seq > self.received && self.stream.as_ref().is_some_and(|stream| stream.is_carrying) {
            // The stream has passed the place where the others were.
            self.settle_carried();
        }
        if let Some(joining) = self.joining.get_mut(&topic) {
            let is_new = seq > joining.received;
            joining.received = joining.received.max(seq);
            return is_new;
        }
        let is_new = seq > self.received;
        self.received = self.received.max(seq);
        is_new && self.live.contains(&topic)
    }

    /// The archive has sent everything up to a place, of all topics that have caught up.
    pub(super) fn progress(&mut self, seq: u64) {
        if seq >= self.received {
            self.received = seq;
            self.settle_carried();
        }
    }

    /// The archive says that these have caught up.
    pub(super) fn caught_up(&mut self, topics: impl IntoIterator<Item = Topic>) {
        if let Some(stream) = &mut self.stream {
            stream.has_caught_up = true;
        }
        for topic in topics {
            self.asked.remove(&topic);
            if let Some(joining) = self.joining.remove(&topic) {
                // The archive is where the others are, and so beyond this.
                self.received = self.received.max(joining.received);
                if self.leaving.remove(&topic) {
                    self.note_left(topic);
                } else {
                    self.live.insert(topic);
                }
            }
        }
    }

    fn settle_carried(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        if !std::mem::replace(&mut stream.is_carrying, false) {
            return;
        }
        let carried: Vec<Topic> =
            self.joining.iter().filter(|(_, joining)| joining.is_carried).map(|(topic, _)| *topic).collect();
        for topic in carried {
            self.joining.remove(&topic);
            if self.leaving.remove(&topic) {
                self.note_left(topic);
            } else {
                self.live.insert(topic);
            }
        }
    }
}

#[cfg(test)]
mod tests;
