//! A store that loses a record and says that it kept it: to see that whoever checks an archive notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use poste_wire::Hash;
use tokio::sync::watch;

use super::{
    ArchiveStore, NewRecord, Outcome, Page, Pending, Query, StoreError, StoreId, StoreStats, TailPage,
    TailQuery,
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

    async fn append(&self, mut batch: Vec<NewRecord>) -> Result<Pending, StoreError> {
        let before = self.seen.fetch_add(batch.len() as u64, Ordering::Relaxed);
        let lost = (before + 1..).take(batch.len()).position(|number| number == self.dropped);
        if let Some(index) = lost {
            batch.remove(index);
        }
        let pending = self.inner.append(batch).await?;
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

    fn writable(&self) -> watch::Receiver<bool> {
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

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}
