//! Where the server listens: on its own two topics, and on two query topics for each owner of a registration.
//!
//! Only the topics and the owners' hashed keys are in memory, about 120 bytes for an owner; the topics' keys stay in
//! the store until somebody asks.

mod derive;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZero;
use std::sync::Arc;

use hashbrown::HashTable;
use parking_lot::RwLock;
use poste_wire::Topic;
use poste_wire::status::{HashedPublicKey, TopicName};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::store::{RegistrationStore, StoreError, TopicKeys};

pub(crate) use derive::Derivations;

/// Owners that are read from the store at once.
const PAGE: usize = 10_000;

/// Where messages come from, as far as it must know which are wanted.
#[tonic::async_trait]
pub trait TopicFeed: fmt::Debug + Send + Sync + 'static {
    /// From when this returns on, messages of these topics are not missed. Called before the first owner of a topic is
    /// stored. Every wait inside has a deadline.
    async fn join(&self, topics: &[Topic]) -> Result<(), FeedError>;

    /// Messages of these topics are not wanted any more. It may take effect later, or never.
    async fn leave(&self, topics: &[Topic]);
}

/// Topics cannot be joined now.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the topics cannot be joined: {0}")]
pub struct FeedError(pub String);

/// How the text of a query topic is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueryForm {
    /// The bare hexadecimal hash: the deployed clients.
    Bare,
    /// With `0x` in front: the specification.
    Prefixed,
}

impl QueryForm {
    /// The key of the topic in this form.
    pub(crate) fn key(self, keys: &TopicKeys) -> &[u8; 32] {
        match self {
            Self::Bare => keys.bare(),
            Self::Prefixed => keys.prefixed(),
        }
    }
}

/// The query topics of all owners. Two owners may share a topic: it has four bytes only.
#[derive(Debug)]
pub(crate) struct QueryTopics {
    feed: Arc<dyn TopicFeed>,
    /// The server's own topics, which are never left: a key whose query topic is one of them is quickly found.
    own: [Topic; 2],
    index: Arc<RwLock<Index>>,
    /// One change at a time, so that a topic that two owners share is not left just after it was joined.
    change: Semaphore,
}

#[derive(Default)]
struct Index {
    owners: Vec<Owner>,
    /// Places in `owners` that are free.
    free: Vec<u32>,
    /// Place of an owner times two, and one more for the prefixed form. Found by the topic.
    by_topic: HashTable<u32>,
    hasher: RandomState,
}

#[derive(Clone, Copy)]
struct Owner {
    key: HashedPublicKey,
    /// Bare, prefixed.
    topics: [Topic; 2],
}

impl QueryTopics {
    pub(crate) fn new(feed: Arc<dyn TopicFeed>, own: [Topic; 2]) -> Self {
        Self { feed, own, index: Arc::default(), change: Semaphore::new(1) }
    }

    /// Takes in all owners that a store has, without telling the feed, and says how many.
    pub(crate) async fn load(&self, store: &dyn RegistrationStore) -> Result<usize, StoreError> {
        let mut last = None;
        // Hashing the topics takes longer than reading the owners: it is done on all cores, while the next are read.
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let mut taking_in = JoinSet::new();
        loop {
            let page = store.keys(last.as_ref(), PAGE).await?;
            let is_end = page.len() < PAGE;
            last = page.last().copied().or(last);
            let index = Arc::clone(&self.index);
            taking_in.spawn_blocking(move || {
                let owners: Vec<Owner> = page.into_iter().map(Owner::of).collect();
                let mut index = index.write();
                owners.into_iter().for_each(|owner| index.insert(owner));
            });
            let may_go_on = if is_end { 0 } else { cores };
            while taking_in.len() > may_go_on {
                // It is only cancelled when the whole runtime ends.
                taking_in.join_next().await.transpose().map_err(|_| StoreError::Closed)?;
            }
            if is_end {
                return Ok(self.owner_count());
            }
        }
    }

    /// Joins the topics of an owner, unless they are joined.
    pub(crate) async fn join(&self, key: HashedPublicKey) -> Result<(), FeedError> {
        let owner = Owner::of(key);
        if self.index.read().find(&owner).is_some() {
            return Ok(());
        }
        let _change = self.change.acquire().await;
        self.feed.join(&owner.topics).await?;
        self.index.write().insert(owner);
        Ok(())
    }

    /// Leaves the topics of an owner, except those that another owner or the server shares.
    pub(crate) async fn leave(&self, key: HashedPublicKey) {
        let owner = Owner::of(key);
        let _change = self.change.acquire().await;
        let unused: Vec<_> = {
            let mut index = self.index.write();
            if !index.remove(&owner) {
                return;
            }
            let is_unused =
                |topic: &Topic| !self.own.contains(topic) && index.of_topic(*topic).next().is_none();
            owner.topics.into_iter().filter(is_unused).collect()
        };
        self.feed.leave(&unused).await;
    }

    /// Whose topic it is, and in which form.
    pub(crate) fn of_topic(&self, topic: Topic) -> Vec<(HashedPublicKey, QueryForm)> {
        self.index.read().of_topic(topic).map(|(owner, form)| (owner.key, form)).collect()
    }

    pub(crate) fn has(&self, topic: Topic) -> bool {
        self.index.read().of_topic(topic).next().is_some()
    }

    /// All topics, some perhaps twice.
    pub(crate) fn all(&self) -> Vec<Topic> {
        let index = self.index.read();
        index.by_topic.iter().map(|entry| index.topic(*entry)).collect()
    }

    pub(crate) fn owner_count(&self) -> usize {
        let index = self.index.read();
        index.owners.len() - index.free.len()
    }
}

impl Index {
    fn insert(&mut self, owner: Owner) {
        if self.find(&owner).is_some() {
            return;
        }
        let place = match self.free.pop() {
            Some(place) => {
                self.owners[place as usize] = owner;
                place
            }
            None => {
                self.owners.push(owner);
                u32::try_from(self.owners.len() - 1).expect("half of 2^32 owners do not fit into memory")
            }
        };
        let Self { owners, by_topic, hasher, .. } = self;
        for (form, topic) in (0..).zip(owner.topics) {
            let hash = |entry: &u32| hasher.hash_one(owners[*entry as usize / 2].topics[*entry as usize % 2]);
            by_topic.insert_unique(hasher.hash_one(topic), place * 2 + form, hash);
        }
    }

    fn remove(&mut self, owner: &Owner) -> bool {
        let Some(place) = self.find(owner) else { return false };
        for (form, topic) in (0..).zip(owner.topics) {
            let hash = self.hasher.hash_one(topic);
            if let Ok(entry) = self.by_topic.find_entry(hash, |entry| *entry == place * 2 + form) {
                entry.remove();
            }
        }
        self.free.push(place);
        true
    }

    fn find(&self, owner: &Owner) -> Option<u32> {
        let hash = self.hasher.hash_one(owner.topics[0]);
        let is_it =
            |entry: &u32| entry.is_multiple_of(2) && self.owners[*entry as usize / 2].key == owner.key;
        self.by_topic.find(hash, is_it).map(|entry| entry / 2)
    }

    fn of_topic(&self, topic: Topic) -> impl Iterator<Item = (&Owner, QueryForm)> {
        let same_hash = self.by_topic.iter_hash(self.hasher.hash_one(topic));
        same_hash.filter(move |entry| self.topic(**entry) == topic).map(|entry| {
            let form = if entry.is_multiple_of(2) { QueryForm::Bare } else { QueryForm::Prefixed };
            (&self.owners[*entry as usize / 2], form)
        })
    }

    fn topic(&self, entry: u32) -> Topic {
        self.owners[entry as usize / 2].topics[entry as usize % 2]
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").field("topics", &self.by_topic.len()).finish_non_exhaustive()
    }
}

impl Owner {
    fn of(key: HashedPublicKey) -> Self {
        Self { key, topics: [TopicName::query(&key).topic(), TopicName::query_as_specified(&key).topic()] }
    }
}

#[cfg(test)]
mod tests;
