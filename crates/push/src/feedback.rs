//! What the provider learns later: that a push which it took has failed, and perhaps that the token is dead.

use std::time::Duration;

use poste_provider::{DeviceToken, Feedback, Verdict};
use poste_wire::status::HashedPublicKey;

use crate::device::Device;
use crate::server::PushServer;
use crate::store::{DeviceId, Registration, StoreError};

impl PushServer {
    /// Forgets the registrations of a dead token, and says how many there were. Those whose token is another one, or
    /// was registered after the push that failed, stay; so do the versions of all, so that the device can come back
    /// with its next registration and nobody with an older one. Senders are then told NOT_REGISTERED.
    ///
    /// # Errors
    /// When the store fails: the next push to the token will fail again.
    pub async fn take_feedback(&self, feedback: &Feedback) -> Result<usize, StoreError> {
        if feedback.verdict == Verdict::Keep {
            self.metrics.feedback("kept");
            return Ok(0);
        }
        let Ok(owner) = HashedPublicKey::try_from(feedback.reference.as_bytes()) else {
            self.metrics.feedback("unknown_reference");
            return Ok(0);
        };
        let _turn = self.turns.take(owner).await;
        let mut forgotten = 0;
        for row in self.store.registrations(&owner).await.inspect_err(|error| self.store_failed(error))? {
            if self.is_condemned(feedback, &row) {
                forgotten +=
                    usize::from(self.forget_in_turn(&row.device, Some(row.version), feedback.sent_at).await?);
            }
        }
        self.metrics.feedback(if forgotten > 0 { "forgotten" } else { "too_late" });
        Ok(forgotten)
    }

    fn is_condemned(&self, feedback: &Feedback, row: &Registration) -> bool {
        let Some(device) = Device::read(&row.data) else { return false };
        // Times of registrations are whole seconds, and it may have come at the end of its second.
        let registered_at = Duration::from_secs(row.registered_unix_s) + Duration::from_millis(999);
        feedback.condemns(
            &self.notification_key,
            &DeviceToken::new(device.registration.device_token),
            registered_at,
        )
    }

    /// Forgets a registration and leaves its topics if it was the owner's last; to be called in the owner's turn. `now`
    /// is a time since 1970.
    pub(crate) async fn forget_in_turn(
        &self,
        device: &DeviceId,
        only_version: Option<u64>,
        now: Duration,
    ) -> Result<bool, StoreError> {
        let forgotten = self.store.forget(device, only_version, now.as_secs()).await;
        let Some(owner) = forgotten.inspect_err(|error| self.store_failed(error))? else { return Ok(false) };
        self.metrics.devices_forgotten.inc();
        if owner.registrations == 0 {
            self.leave(device.key).await;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
