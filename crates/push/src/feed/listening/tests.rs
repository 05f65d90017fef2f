//! Listening to a model of the archive's `Tail`, with streams that end at any moment.

use std::collections::{BTreeMap, VecDeque};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

const MAX_TOPICS: usize = 6;
const ALL_TOPICS: u8 = 10;

fn topic(number: u8) -> Topic {
    Topic([number, 0, 0, 0])
}

/// What the archive sends.
#[derive(Debug)]
enum Sent {
    Record(Topic, u64),
    Progress(u64),
    Live(Vec<Topic>),
}

/// One stream as the archive runs it.
#[derive(Debug)]
struct Tail {
    everything: bool,
    live: HashMap<Topic, u64>,
    catching_up: VecDeque<(HashSet<Topic>, u64)>,
    seq: u64,
    requests: VecDeque<Change>,
    sent: VecDeque<Sent>,
}

impl Tail {
    fn open(opening: Opening, records: &[Topic]) -> Self {
        let Opening { after, topics } = opening;
        let everything = topics.is_none();
        let requests = topics.map(|topics| Change::Add { topics, after }).into_iter().collect();
        let seq = if everything { after } else { records.len() as u64 };
        let (live, catching_up, sent) = Default::default();
        Self { everything, live, catching_up, seq, requests, sent }
    }

    /// A little of what it does: a request, a page of those who catch up, a page of the others, a checkpoint.
    fn step(&mut self, records: &[Topic], page: u64) {
        let head = records.len() as u64;
        match self.requests.pop_front() {
            Some(Change::Add { mut topics, after }) => {
                assert!(after <= head);
                topics.retain(|topic| {
                    !self.live.contains_key(topic)
                        && !self.catching_up.iter().any(|(group, _)| group.contains(topic))
                });
                if !topics.is_empty() {
                    self.catching_up.push_back((topics.into_iter().collect(), after));
                }
            }
            Some(Change::Drop { topics }) => {
                for topic in topics {
                    self.live.remove(&topic);
                    for (group, _) in &mut self.catching_up {
                        group.remove(&topic);
                    }
                }
                self.catching_up.retain(|(group, _)| !group.is_empty());
            }
            None => {}
        }
        if self.live.is_empty() && !self.everything {
            self.seq = self.seq.max(head);
        }
        if let Some((group, seq)) = self.catching_up.front_mut() {
            let until = self.seq.min(*seq + page).max(*seq);
            for at in *seq + 1..=until {
                let of = records[at as usize - 1];
                if group.contains(&of) {
                    self.sent.push_back(Sent::Record(of, at));
                }
            }
            *seq = until;
            if *seq >= self.seq {
                let (group, seq) = self.catching_up.pop_front().unwrap();
                self.live.extend(group.iter().map(|topic| (*topic, seq)));
                self.sent.push_back(Sent::Live(group.into_iter().collect()));
            }
        }
        if self.everything || !self.live.is_empty() {
            let until = head.min(self.seq + page);
            for at in self.seq + 1..=until {
                let of = records[at as usize - 1];
                if self.everything || self.live.get(&of).is_some_and(|after| at > *after) {
                    self.sent.push_back(Sent::Record(of, at));
                }
            }
            self.seq = until;
            if page.is_multiple_of(2) {
                self.sent.push_back(Sent::Progress(until));
            }
        }
    }
}

#[derive(Debug, Default)]
struct World {
    listening: Listening,
    tail: Option<Tail>,
    records: Vec<Topic>,
    /// How many records there were when a topic was joined.
    joined: BTreeMap<Topic, u64>,
    taken: HashSet<u64>,
}

impl World {
    fn open(&mut self) {
        self.listening.close();
        let opening = self.listening.open(MAX_TOPICS);
        self.tail = Some(Tail::open(opening, &self.records));
    }

    fn deliver(&mut self) {
        let Some(sent) = self.tail.as_mut().and_then(|tail| tail.sent.pop_front()) else { return };
        match sent {
            Sent::Record(topic, seq) => {
                if self.listening.take(topic, seq) {
                    assert!(self.taken.insert(seq), "{seq} was taken twice");
                }
            }
            Sent::Progress(seq) => self.listening.progress(seq),
            Sent::Live(topics) => self.listening.caught_up(topics),
        }
    }

    /// What is called received was.
    fn check(&self, received: u64) {
        for (topic, head) in &self.joined {
            for seq in *head + 1..=received.min(self.records.len() as u64) {
                let is_of_topic = self.records[seq as usize - 1] == *topic;
                assert!(!is_of_topic || self.taken.contains(&seq), "{seq} of {topic:?} is missed");
            }
        }
    }

    fn act(&mut self, random: &mut StdRng) {
        let any = topic(random.random_range(0..ALL_TOPICS));
        match random.random_range(0..100) {
            0..25 => self.records.push(any),
            25..29 => {
                self.listening.join([any]);
                let head = self.records.len() as u64;
                self.joined.entry(any).or_insert(head);
            }
            29..32 => {
                self.listening.leave([any]);
                self.joined.remove(&any);
            }
            32..34 => {
                self.tail = None;
                self.listening.close();
            }
            34..37 if self.tail.is_none() => self.open(),
            37..55 => {
                let page = random.random_range(1..6);
                if let Some(tail) = &mut self.tail {
                    tail.step(&self.records, page);
                }
            }
            55..60 => {
                if let Some(tail) = &mut self.tail
                    && self.listening.has_change()
                {
                    let change = self.listening.change().unwrap();
                    tail.requests.push_back(change);
                }
            }
            60..62 if self.listening.is_wrong_kind(MAX_TOPICS) || self.listening.is_held_up() => self.open(),
            _ => self.deliver(),
        }
    }

    fn settle(&mut self) {
        if self.tail.is_none() {
            self.open();
        }
        for _ in 0..200 {
            if self.listening.is_wrong_kind(MAX_TOPICS) || self.listening.is_held_up() {
                self.open();
            }
            let change = self.listening.change();
            let tail = self.tail.as_mut().unwrap();
            tail.requests.extend(change);
            tail.step(&self.records, 100);
            while !self.tail.as_ref().unwrap().sent.is_empty() {
                self.deliver();
            }
        }
    }
}

#[test]
fn nothing_is_missed_or_taken_twice_whenever_streams_end() {
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut world = World::default();
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..400 {
                world.act(&mut random);
                world.check(world.listening.received());
            }
            world.settle();
            world.check(u64::MAX);
            assert!(!world.listening.has_change());
            assert_eq!(world.listening.len(), world.joined.len());
        }));
        assert!(ran.is_ok(), "seed {seed}");
    }
}

#[test]
fn a_stream_fits_the_number_of_topics() {
    let mut listening = Listening::from(7);
    listening.join((0..6).map(topic));
    let opening = listening.open(6);
    assert_eq!((opening.after, opening.topics.map(|topics| topics.len())), (7, Some(6)));
    listening.caught_up((0..6).map(topic));
    assert!(!listening.is_wrong_kind(6));
    listening.join([topic(6)]);
    assert!(listening.is_wrong_kind(6));
    listening.close();
    assert_eq!(listening.open(6), Opening { after: 7, topics: None });
    assert!(listening.is_everything());
    listening.leave([topic(6)]);
    assert!(!listening.is_wrong_kind(6), "it does not change to and fro");
    listening.leave([topic(5)]);
    assert!(listening.is_wrong_kind(6));
}

#[test]
fn topics_that_are_joined_meanwhile_go_out_together() {
    let mut listening = Listening::from(3);
    listening.join([topic(0)]);
    listening.open(10);
    listening.join([topic(1)]);
    assert!(!listening.has_change() && listening.is_held_up(), "the stream has not caught up");
    listening.caught_up([topic(0)]);
    assert!(!listening.is_held_up());
    assert_eq!(listening.change(), Some(Change::Add { topics: vec![topic(1)], after: 3 }));
    listening.join([topic(2)]);
    listening.join([topic(3)]);
    assert!(!listening.has_change());
    listening.caught_up([topic(1)]);
    assert_eq!(listening.change(), Some(Change::Add { topics: vec![topic(2), topic(3)], after: 3 }));
    listening.leave([topic(3)]);
    assert!(!listening.contains(topic(3)) && !listening.has_change(), "when it has caught up");
    listening.caught_up([topic(2), topic(3)]);
    assert_eq!(listening.change(), Some(Change::Drop { topics: vec![topic(3)] }));
}
