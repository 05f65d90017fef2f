//! Who may still bring what: a model of the writers, and what a page may claim because of them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use poste_service::Clock;
use poste_wire::Topic;
use rand::RngExt;
use rand::rngs::StdRng;

use super::{START, Turns, append, envelope, everything, new_record, one_page, seconds, turn};
use crate::store::{ArchiveStore, Connection, StoreError, WriterId, WriterStatus};

/// The writers of a store as its trait describes them.
#[derive(Default)]
pub(super) struct ModelWriters {
    writers: BTreeMap<WriterId, ModelWriter>,
    /// Connections that were followed by others of the same writer.
    old: Vec<(WriterId, Connection)>,
}

struct ModelWriter {
    connection: Option<Connection>,
    /// Of the last connection.
    max_intake_age_ns: i64,
    held_back_ns: Option<i64>,
    /// What it would hold back if it were away: the store may choose within this.
    away_ns: RangeInclusive<i64>,
    /// It has gone away, and what the store chose is not known yet.
    choice_ns: Option<RangeInclusive<i64>>,
}

const TWO_MINUTES_NS: i64 = 120_000_000_000;

impl ModelWriters {
    pub(super) fn complete_until_ns(&self) -> Option<i64> {
        self.writers.values().filter_map(|writer| writer.held_back_ns).min()
    }

    /// The store was opened again: every writer is away.
    pub(super) fn all_left(&mut self) {
        self.old.clear();
        self.writers.values_mut().for_each(ModelWriter::leave);
    }

    /// One random operation, on the store and here. `latest` is a creation time, in seconds.
    pub(super) async fn operate(&mut self, store: &dyn ArchiveStore, latest: u32, random: &mut StdRng) {
        let id: WriterId = ["a", "b", "c"][random.random_range(0..3)].parse().unwrap();
        let time_ns = seconds(random.random_range(START - 200..latest));
        let connection = self.writers.get(&id).and_then(|writer| writer.connection);
        match random.random_range(0..10) {
            0..3 => {
                let max_intake_age = Duration::from_secs([0, 3600, 86_400][random.random_range(0..3)]);
                let new = store.writer_connected(&id, time_ns, max_intake_age).await.unwrap();
                self.connected(&id, new, time_ns, max_intake_age.as_nanos() as i64);
            }
            3..6 => {
                let held_back_ns = match random.random_range(0..4) {
                    0..2 => Some(time_ns),
                    2 => Some(i64::MAX - 1),
                    _ => None,
                };
                let Some(connection) = connection else { return };
                let before_ns = Clock::system().unix_nanos();
                store.writer_reports(&id, connection, held_back_ns).await.unwrap();
                self.reported(&id, held_back_ns, before_ns..=Clock::system().unix_nanos());
            }
            6 => {
                // What an older connection says is not heard.
                let Some((id, connection)) = self.old.pop() else { return };
                let goodbye: bool = random.random();
                let heard = if random.random() {
                    store.writer_reports(&id, connection, Some(time_ns)).await
                } else {
                    store.writer_left(&id, connection, goodbye).await
                };
                assert!(matches!(heard, Ok(()) | Err(StoreError::Displaced)), "{heard:?}");
            }
            7..9 => {
                let Some(connection) = connection else { return };
                let goodbye: bool = random.random();
                store.writer_left(&id, connection, goodbye).await.unwrap();
                if goodbye {
                    self.writers.remove(&id);
                } else if let Some(writer) = self.writers.get_mut(&id) {
                    writer.leave();
                }
            }
            _ => {
                let is_away = self.writers.contains_key(&id) && connection.is_none();
                assert_eq!(store.forget_writer(&id).await.unwrap(), is_away);
                if is_away {
                    self.writers.remove(&id);
                }
            }
        }
        self.check(store).await;
    }

    fn connected(&mut self, id: &WriterId, new: Connection, at_ns: i64, max_intake_age_ns: i64) {
        let since_ns = at_ns - max_intake_age_ns;
        match self.writers.get_mut(id) {
            Some(writer) => {
                // A connection that another follows may have broken without anybody noticing.
                self.old.extend(writer.connection.map(|old| (id.clone(), old)));
                writer.leave();
                writer.connection = Some(new);
                writer.max_intake_age_ns = max_intake_age_ns;
                writer.away_ns = since_ns.min(*writer.away_ns.start())..=since_ns.min(*writer.away_ns.end());
            }
            None => {
                let writer = ModelWriter {
                    connection: Some(new),
                    max_intake_age_ns,
                    held_back_ns: None,
                    away_ns: since_ns..=since_ns,
                    choice_ns: None,
                };
                self.writers.insert(id.clone(), writer);
            }
        }
    }

    fn reported(&mut self, id: &WriterId, held_back_ns: Option<i64>, at_ns: RangeInclusive<i64>) {
        let writer = self.writers.get_mut(id).expect("it is connected");
        (writer.held_back_ns, writer.choice_ns) = (held_back_ns, None);
        let age_ns = writer.max_intake_age_ns;
        let no_later_than = |at_ns: i64| held_back_ns.unwrap_or(i64::MAX).min(at_ns - age_ns);
        writer.away_ns = no_later_than(*at_ns.start()) - TWO_MINUTES_NS..=no_later_than(*at_ns.end());
    }

    pub(super) async fn check(&mut self, store: &dyn ArchiveStore) {
        let told = store.writers().await.unwrap();
        for (writer, told) in self.writers.values_mut().zip(&told) {
            let Some(choice_ns) = writer.choice_ns.take() else { continue };
            let held_back_ns = told.held_back_ns.expect("a writer that is away is waited for");
            assert!(choice_ns.contains(&held_back_ns), "{told:?} is not within {choice_ns:?}");
            writer.held_back_ns = Some(held_back_ns);
            let away_ns = held_back_ns.min(*writer.away_ns.end());
            writer.away_ns = away_ns..=away_ns;
        }
        let status = |(id, writer): (&WriterId, &ModelWriter)| WriterStatus {
            writer: id.clone(),
            connected: writer.connection.is_some(),
            held_back_ns: writer.held_back_ns,
        };
        assert_eq!(told, self.writers.iter().map(status).collect::<Vec<_>>());
    }
}

impl ModelWriter {
    fn leave(&mut self) {
        if self.connection.take().is_some() {
            self.choice_ns = Some(self.away_ns.clone());
        }
    }
}

async fn complete_until_ns(store: &dyn ArchiveStore) -> Option<i64> {
    store.page(everything()).await.unwrap().complete_until_ns
}

pub(crate) async fn writers_are_waited_for(store: Arc<dyn ArchiveStore>) {
    let store = store.as_ref();
    let (a, b): (WriterId, WriterId) = ("a".parse().unwrap(), "b".parse().unwrap());
    assert_eq!(complete_until_ns(store).await, None, "nobody ever wrote here");
    let first = store.writer_connected(&a, seconds(100), Duration::ZERO).await.unwrap();
    assert_eq!(complete_until_ns(store).await, None, "a new writer has said nothing yet");
    store.writer_reports(&a, first, Some(seconds(70))).await.unwrap();
    let other = store.writer_connected(&b, seconds(50), Duration::ZERO).await.unwrap();
    assert_eq!(complete_until_ns(store).await, Some(seconds(70)));
    store.writer_left(&b, other, false).await.unwrap();
    assert_eq!(complete_until_ns(store).await, Some(seconds(50)), "it never said what it held");
    assert!(!store.forget_writer(&a).await.unwrap(), "it is connected");
    assert!(store.forget_writer(&b).await.unwrap());
    assert_eq!(complete_until_ns(store).await, Some(seconds(70)));
    let second = store.writer_connected(&a, seconds(200), Duration::ZERO).await.unwrap();
    assert_eq!(complete_until_ns(store).await, Some(seconds(70)), "it is back, but has not reported");
    let said = store.writer_reports(&a, first, None).await;
    assert!(matches!(said, Err(StoreError::Displaced)), "{said:?}");
    let said = store.writer_left(&a, first, true).await;
    assert!(matches!(said, Err(StoreError::Displaced)), "{said:?}");
    store.writer_left(&a, first, false).await.unwrap();
    assert_eq!(complete_until_ns(store).await, Some(seconds(70)), "an old connection is not heard");
    store.writer_reports(&a, second, None).await.unwrap();
    assert_eq!(complete_until_ns(store).await, None);
    let reported_ns = Clock::system().unix_nanos();
    store.writer_left(&a, second, false).await.unwrap();
    let away_ns = complete_until_ns(store).await.expect("it may have taken records since its report");
    assert!((reported_ns - TWO_MINUTES_NS..=reported_ns).contains(&away_ns), "{away_ns}");
    let third = store.writer_connected(&a, seconds(300), Duration::ZERO).await.unwrap();
    store.writer_left(&a, third, true).await.unwrap();
    assert_eq!((complete_until_ns(store).await, store.writers().await.unwrap()), (None, Vec::new()));
}

/// What a writer takes while it is cut off may be as old as it takes records.
pub(crate) async fn what_comes_late_was_never_called_complete(store: Arc<dyn ArchiveStore>) {
    const DAY: Duration = Duration::from_secs(86_400);
    let store = store.as_ref();
    let a: WriterId = "a".parse().unwrap();
    let now_s = u32::try_from(Clock::system().now().as_secs()).unwrap();
    let connection = store.writer_connected(&a, seconds(now_s), DAY).await.unwrap();
    store.writer_reports(&a, connection, None).await.unwrap();
    store.writer_left(&a, connection, false).await.unwrap();
    let page = store.page(everything()).await.unwrap();
    let complete_until_ns = page.complete_until_ns.expect("it may take records");
    assert!(page.records.is_empty());

    // It takes them with a ttl of a day at any time from its report on.
    let late = [now_s - 23 * 3600, now_s - 3600].map(|made| envelope(made, Topic([1; 4]), b"late"));
    let back = store.writer_connected(&a, seconds(now_s + 60), DAY).await.unwrap();
    store.writer_reports(&a, back, Some(seconds(late[0].sent()))).await.unwrap();
    append(store, late.iter().map(new_record).collect()).await;
    store.writer_reports(&a, back, None).await.unwrap();
    let page = store.page(everything()).await.unwrap();
    assert_eq!((page.records.len(), page.complete_until_ns), (2, None));
    for record in page.records {
        assert!(record.position.time_ns >= complete_until_ns, "called complete up to {complete_until_ns}");
    }
    assert!(
        complete_until_ns >= seconds(now_s) - TWO_MINUTES_NS - DAY.as_nanos() as i64,
        "no more than needed"
    );
}

/// A writer hands over what it held back, record by record, and says so, while others read.
pub(crate) async fn no_page_claims_more_than_it_holds(store: Arc<dyn ArchiveStore>) {
    const RECORDS: u32 = 300;
    let id: WriterId = "a".parse().unwrap();
    let connection = store.writer_connected(&id, seconds(START), Duration::ZERO).await.unwrap();
    store.writer_reports(&id, connection, Some(seconds(START))).await.unwrap();
    let (turns, asked) = Turns::new();
    let reader = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            loop {
                turns.give(1);
                let page = store.page(one_page()).await.unwrap();
                let complete = page.complete_until_ns.map_or(RECORDS as usize, |until_ns| {
                    usize::try_from((until_ns - seconds(START)) / 1_000_000_000).unwrap()
                });
                assert!(page.records.len() >= complete, "{} of {complete}", page.records.len());
                if page.complete_until_ns.is_none() {
                    return;
                }
            }
        }
    });
    for n in 0..RECORDS {
        turn(&asked).await;
        append(store.as_ref(), vec![new_record(&envelope(START + n, Topic([1; 4]), b"held back"))]).await;
        let held_back_ns = (n + 1 < RECORDS).then(|| seconds(START + n + 1));
        store.writer_reports(&id, connection, held_back_ns).await.unwrap();
    }
    reader.await.unwrap();
}
