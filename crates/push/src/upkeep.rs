//! What is done without a message: forgetting on an operator's word, and for age.

use std::time::Duration;

use poste_wire::status::HashedPublicKey;
use thiserror::Error;

use crate::server::PushServer;
use crate::store::{DeviceId, Expired, Registered, Retention, StoreError};

/// Why a device was not unregistered.
#[derive(Debug, Error)]
pub(crate) enum NotUnregistered {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the store has no room for its version: a registration that is still on its way will stay")]
    Full,
}

impl PushServer {
    /// Forgets all registrations of an owner, and says how many there were. Their versions are kept, so that messages
    /// of the past do not bring them back. `now` is the time, since 1970.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn forget_owner(&self, owner: &HashedPublicKey, now: Duration) -> Result<usize, StoreError> {
        let _turn = self.turns.take(*owner).await;
        let mut forgotten = 0;
        for row in self.store.registrations(owner).await.inspect_err(|error| self.store_failed(error))? {
            forgotten += usize::from(self.forget_in_turn(&row.device, None, now).await?);
        }
        Ok(forgotten)
    }

    /// Forgets one registration, and says whether there was one. Its version is kept. `now` is the time, since
    /// 1970.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn forget_device(&self, device: &DeviceId, now: Duration) -> Result<bool, StoreError> {
        let _turn = self.turns.take(device.key).await;
        self.forget_in_turn(device, None, now).await
    }

    /// Unregisters a device with this version, as a message of its owner does. Registrations of lower versions that are
    /// still on their way stay rejected.
    ///
    /// # Errors
    /// When the store fails, or has no room to keep the version.
    pub(crate) async fn unregister_device(
        &self,
        device: &DeviceId,
        version: u64,
        now: Duration,
    ) -> Result<(), NotUnregistered> {
        let _turn = self.turns.take(device.key).await;
        let unregistered = self.store.unregister(device, version, now.as_secs()).await;
        match unregistered.inspect_err(|error| self.store_failed(error))? {
            Registered::Done(owner) if owner.registrations == 0 => self.leave(device.key).await,
            Registered::Done(_) | Registered::VersionMismatch { .. } => {}
            Registered::TooManyDevices | Registered::StoreFull => return Err(NotUnregistered::Full),
        }
        Ok(())
    }

    /// Forgets a piece of what is older than its retention, as [`crate::store::RegistrationStore::expire`] does, and
    /// leaves the topics of owners who have nothing left.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn expire(&self, retention: &Retention, budget: usize) -> Result<Expired, StoreError> {
        let expired = self.store.expire(retention, budget).await;
        let expired = expired.inspect_err(|error| self.store_failed(error))?;
        self.metrics.devices_forgotten.inc_by(expired.registrations.len() as u64);
        self.metrics.versions_forgotten.inc_by(expired.tombstones);
        for device in &expired.registrations {
            let _turn = self.turns.take(device.key).await;
            self.leave_unless_registered(device.key).await;
        }
        Ok(expired)
    }
}
