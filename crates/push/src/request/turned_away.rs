//! Requests for which there is no time.

use poste_wire::status::proto::{PushNotificationRequest, PushNotificationResponse};
use poste_wire::status::{ApplicationMessage, PushMessage};

use super::deliver::Delivery;
use super::{Entry, Report};
use crate::server::{Decision, PushServer, Unanswered};

impl PushServer {
    /// INTERNAL_ERROR for whatever a request asks for. Nothing is looked up, so that it tells nothing and costs little;
    /// nothing is remembered, so that the same may be asked for again.
    pub(crate) fn turned_away(&self, message: &ApplicationMessage) -> Decision {
        let request =
            PushNotificationRequest::read(message.payload.clone()).map_err(|_| Unanswered::Unreadable)?;
        if request.message_id.is_empty() {
            return Err(Unanswered::NoMessageId);
        }
        let entries = request.requests.into_iter().filter_map(Entry::read);
        let refused = Report::Delivery(Delivery::Refused);
        let reports = entries.map(|entry| self.report(&entry, refused)).collect();
        Ok(PushNotificationResponse { message_id: request.message_id, reports }.write())
    }
}
