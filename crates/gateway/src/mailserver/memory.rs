//! A mailserver in memory, for tests of the node alone.

use std::collections::BTreeMap;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use poste_wire::mail::ValidRequest;
use poste_wire::{Cursor, Envelope};

use super::{Delivered, DeliveryError, MailServer, Mailbox, OutboxSize, QueueFull, Receipt, Stored};

/// Envelopes in the order of mail.
#[derive(Debug, Default)]
pub(crate) struct MemoryMailServer(Mutex<BTreeMap<Cursor, Envelope>>);

impl MailServer for MemoryMailServer {
    fn archive(&self, envelope: &Envelope) -> Result<Receipt, QueueFull> {
        self.0.lock().insert(envelope.cursor(), envelope.clone());
        Ok(Receipt::ready(Stored::Yes))
    }

    fn deliver_mail<'a>(
        &'a self,
        peer: &'a dyn Mailbox,
        request: &'a ValidRequest,
    ) -> BoxFuture<'a, Result<Delivered, DeliveryError>> {
        let mut found: Vec<_> = {
            let stored = self.0.lock();
            let matching = stored.iter().filter(|(place, envelope)| {
                (request.lower..=request.upper).contains(&place.sent)
                    && request.cursor.is_none_or(|cursor| **place > cursor)
                    && request.filter.matches(envelope.topic())
            });
            matching.map(|(_, envelope)| envelope.clone()).take(request.limit as usize + 1).collect()
        };
        let more = found.len() > request.limit as usize;
        found.truncate(request.limit as usize);
        async move {
            peer.send(&found).await?;
            let last = found.last();
            Ok(Delivered {
                count: found.len(),
                last: last.map(Envelope::hash),
                cursor: last.filter(|_| more).map(Envelope::cursor),
            })
        }
        .boxed()
    }

    fn waiting(&self) -> OutboxSize {
        OutboxSize { count: 0, bytes: 0, connected: true }
    }
}
