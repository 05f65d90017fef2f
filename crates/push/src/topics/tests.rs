use std::collections::BTreeSet;

use parking_lot::Mutex;

use super::*;

const OWN: [Topic; 2] = [Topic([1; 4]), Topic([2; 4])];

/// The topics that are joined; may refuse to join any.
#[derive(Debug, Default)]
struct Feed {
    joined: Mutex<BTreeSet<Topic>>,
    refuses: bool,
}

#[tonic::async_trait]
impl TopicFeed for Feed {
    async fn join(&self, topics: &[Topic]) -> Result<(), FeedError> {
        if self.refuses {
            return Err(FeedError("away".into()));
        }
        self.joined.lock().extend(topics);
        Ok(())
    }

    async fn leave(&self, topics: &[Topic]) {
        let mut joined = self.joined.lock();
        assert!(topics.iter().all(|topic| joined.remove(topic)), "only what was joined is left");
    }
}

fn owner(number: u32) -> HashedPublicKey {
    let mut key = [0; 64];
    key[..4].copy_from_slice(&number.to_be_bytes());
    HashedPublicKey(key)
}

#[tokio::test]
async fn owners_come_and_go_in_any_order() {
    let feed = Arc::new(Feed::default());
    let topics = QueryTopics::new(feed.clone(), OWN);
    for number in 0..100 {
        topics.join(owner(number)).await.unwrap();
        topics.join(owner(number)).await.unwrap();
    }
    for number in (0..100).filter(|number| number % 3 == 0) {
        topics.leave(owner(number)).await;
        topics.leave(owner(number)).await;
    }
    topics.join(owner(3)).await.unwrap();
    assert_eq!(topics.owner_count(), 67);
    for number in 0..100 {
        let is_in = number % 3 != 0 || number == 3;
        let bare = TopicName::query(&owner(number)).topic();
        let prefixed = TopicName::query_as_specified(&owner(number)).topic();
        assert_eq!(topics.of_topic(bare).contains(&(owner(number), QueryForm::Bare)), is_in);
        assert_eq!(topics.of_topic(prefixed).contains(&(owner(number), QueryForm::Prefixed)), is_in);
        assert_eq!(feed.joined.lock().contains(&bare), is_in);
    }
    assert_eq!(topics.all().into_iter().collect::<BTreeSet<_>>(), *feed.joined.lock());
}

/// Topics have four bytes: among a million owners some share one.
#[test]
fn a_shared_topic_stays_while_one_of_its_owners_does() {
    let mut index = Index::default();
    let shared = Topic([1, 2, 3, 4]);
    let owners =
        [1, 2].map(|number| Owner { key: owner(number), topics: [shared, Topic([number as u8; 4])] });
    owners.iter().for_each(|owner| index.insert(*owner));
    assert_eq!(index.of_topic(shared).count(), 2);
    assert!(index.remove(&owners[0]));
    let left: Vec<_> = index.of_topic(shared).map(|(owner, _)| owner.key).collect();
    assert_eq!(left, [owner(2)]);
    assert!(index.remove(&owners[1]) && !index.remove(&owners[1]));
    assert_eq!(index.of_topic(shared).count(), 0);
}

#[tokio::test]
async fn what_could_not_be_joined_is_not_listened_to() {
    let topics = QueryTopics::new(Arc::new(Feed { refuses: true, ..Feed::default() }), OWN);
    assert!(topics.join(owner(1)).await.is_err());
    assert_eq!(topics.owner_count(), 0);
}

/// A topic has four bytes: whoever tries keys for an hour has one whose query topic is a server's own.
#[tokio::test]
async fn the_servers_own_topics_are_never_left() {
    let feed = Arc::new(Feed::default());
    let (shared, other) =
        (TopicName::query(&owner(1)).topic(), TopicName::query_as_specified(&owner(1)).topic());
    let topics = QueryTopics::new(feed.clone(), [OWN[0], shared]);
    feed.joined.lock().insert(shared);
    for _ in 0..2 {
        topics.join(owner(1)).await.unwrap();
        assert_eq!(*feed.joined.lock(), BTreeSet::from([shared, other]));
        topics.leave(owner(1)).await;
        assert_eq!(*feed.joined.lock(), BTreeSet::from([shared]));
    }
}
