//! A store that loses a record and says that it kept it: to see that whoever checks an archive notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use poste_wire::Hash;
use tokio::sync::watch;

use super::{
    ArchiveStore, Connection, Lane, NewRecord, Outcome, Page, Pending, ProgressFn, Query, Retention,
    Retentions, Retired, StoreError, StoreId, StoreStats, TailPage, TailQuery, Verification, Writable,
    WriterId, WriterStatus,
};
use crate::record::{Record, Space};

/// Passes everything on, but for one record that it acknowledges and drops.
#[derive(Debug)]
pub struct DroppingStore {
    inner: Arc<dyn ArchiveStore>,
    /// Which record of all that come is dropped, counted from 1.
    dropped: u64,
    seen: AtomicU64,
}

impl DroppingStore {
    /// Drops the `dropped`-th record, counted from 1, on its way into `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn ArchiveStore>, dropped: u64) -> Self {
        Self { inner, dropped, seen: AtomicU64::new(0) }
    }
}

#[tonic::async_trait]
impl ArchiveStore for DroppingStore {
    fn store_id(&self) -> StoreId {
        self.inner.store_id()
    }

    async fn append(&self, mut batch: Vec<NewRecord>, lane: Lane) -> Result<Pending, StoreError> {
        let before = self.seen.fetch_add(batch.len() as u64, Ordering::Relaxed);
        let lost = (before + 1..).take(batch.len()).position(|number| number == self.dropped);
        if let Some(index) = lost {
            batch.remove(index);
        }
        let pending = self.inner.append(batch, lane).await?;
        Ok(Pending::new(async move {
            let mut outcomes = pending.await;
            if let Some(index) = lost {
                outcomes.insert(index, Outcome::Stored);
            }
            outcomes
        }))
    }

    async fn page(&self, query: Query) -> Result<Page, StoreError> {
        self.inner.page(query).await
    }

    async fn tail(&self, query: TailQuery) -> Result<TailPage, StoreError> {
        self.inner.tail(query).await
    }

    fn head(&self) -> watch::Receiver<u64> {
        self.inner.head()
    }

    fn retired_seq(&self) -> u64 {
        self.inner.retired_seq()
    }

    fn writable(&self) -> watch::Receiver<Writable> {
        self.inner.writable()
    }

    async fn lookup(
        &self,
        space: Space,
        ids: Vec<Hash>,
        with_bodies: bool,
    ) -> Result<Vec<Option<Record>>, StoreError> {
        self.inner.lookup(space, ids, with_bodies).await
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        self.inner.stats().await
    }

    async fn writer_connected(
        &self,
        writer: &WriterId,
        at_ns: i64,
        max_intake_age: Duration,
    ) -> Result<Connection, StoreError> {
        self.inner.writer_connected(writer, at_ns, max_intake_age).await
    }

    async fn writer_reports(
        &self,
        writer: &WriterId,
        connection: Connection,
        held_back_ns: Option<i64>,
    ) -> Result<(), StoreError> {
        self.inner.writer_reports(writer, connection, held_back_ns).await
    }

    async fn writer_left(
        &self,
        writer: &WriterId,
        connection: Connection,
        goodbye: bool,
    ) -> Result<(), StoreError> {
        self.inner.writer_left(writer, connection, goodbye).await
    }

    async fn forget_writer(&self, writer: &WriterId) -> Result<bool, StoreError> {
        self.inner.forget_writer(writer).await
    }

    async fn writers(&self) -> Result<Vec<WriterStatus>, StoreError> {
        self.inner.writers().await
    }

    async fn retire(&self, space: Space, floor_ns: i64) -> Result<Retired, StoreError> {
        self.inner.retire(space, floor_ns).await
    }

    async fn would_retire(&self, space: Space, floor_ns: i64) -> Result<Retired, StoreError> {
        self.inner.would_retire(space, floor_ns).await
    }

    async fn set_retention(&self, retention: Retention, durable: bool) -> Result<(), StoreError> {
        self.inner.set_retention(retention, durable).await
    }

    async fn reset_retention(&self) -> Result<(), StoreError> {
        self.inner.reset_retention().await
    }

    fn retention(&self) -> Retentions {
        self.inner.retention()
    }

    async fn verify(&self, progress: ProgressFn) -> Result<Verification, StoreError> {
        self.inner.verify(progress).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}
