//! The small twin: a store in memory, for the tests of whatever uses one. It answers from ordered maps, so its answers
//! are easy to believe, and forgets everything when it is dropped. Clones are the same store.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use poste_wire::status::HashedPublicKey;

use super::{
    AnswerId, Caps, Checkpoint, Claim, ClaimEnd, ClaimKey, Counts, DeviceData, DeviceId, Expired,
    MAX_ANSWER_BYTES, MAX_DEVICE_DATA_BYTES, MAX_FOUND_BYTES, NewRegistration, OwnerState, Registered,
    Registration, RegistrationStore, Retention, StoreError, TopicKeys,
};

const DAY_S: u64 = 24 * 60 * 60;

/// A store that forgets everything when it is dropped.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    caps: Caps,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    is_closed: bool,
    devices: BTreeMap<DeviceId, Device>,
    claims: BTreeMap<ClaimKey, (Claim, u64)>,
    answers: BTreeMap<AnswerId, (Vec<u8>, u64)>,
    checkpoint: Option<Checkpoint>,
    #[cfg(test)]
    looked_up: usize,
    #[cfg(test)]
    damaged: std::collections::BTreeSet<HashedPublicKey>,
}

#[derive(Debug)]
struct Device {
    version: u64,
    /// When it was last heard of, of a tombstone.
    heard_of_unix_s: u64,
    live: Option<(Registration, TopicKeys)>,
}

impl MemoryStore {
    /// An empty store with these caps.
    #[must_use]
    pub fn new(caps: Caps) -> Self {
        Self { caps, state: Arc::default() }
    }

    /// What a restart does: open claims become unknown.
    pub fn restart(&self) {
        let mut state = self.state.lock();
        state.is_closed = false;
        for (claim, _) in state.claims.values_mut().filter(|(claim, _)| *claim == Claim::Open) {
            *claim = Claim::Unknown;
        }
    }

    /// How many devices [`RegistrationStore::find`] has looked up.
    #[cfg(test)]
    pub(crate) fn devices_looked_up(&self) -> usize {
        self.state.lock().looked_up
    }

    /// Nothing of this owner's can be read from now on.
    #[cfg(test)]
    pub(crate) fn damage(&self, owner: HashedPublicKey) {
        self.state.lock().damaged.insert(owner);
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> Result<T, StoreError> {
        let mut state = self.state.lock();
        if state.is_closed { Err(StoreError::Closed) } else { Ok(change(&mut state)) }
    }
}

impl Device {
    fn last_sign_unix_s(&self) -> u64 {
        let live =
            self.live.as_ref().map(|(live, _)| live.registered_unix_s.max(live.reached_unix_s.unwrap_or(0)));
        live.unwrap_or(self.heard_of_unix_s)
    }

    fn bury(&mut self, at_unix_s: u64) {
        self.heard_of_unix_s = self.last_sign_unix_s().max(at_unix_s);
        self.live = None;
    }
}

impl State {
    #[cfg(test)]
    fn check<'k>(&self, mut owners: impl Iterator<Item = &'k HashedPublicKey>) -> Result<(), StoreError> {
        match owners.any(|owner| self.damaged.contains(owner)) {
            true => Err(StoreError::corrupt("the store", "a row is damaged")),
            false => Ok(()),
        }
    }

    #[cfg(not(test))]
    fn check<'k>(&self, _owners: impl Iterator<Item = &'k HashedPublicKey>) -> Result<(), StoreError> {
        Ok(())
    }

    fn of<'s>(&'s self, key: &HashedPublicKey) -> impl Iterator<Item = &'s Device> + use<'s> {
        let key = *key;
        self.devices.iter().filter(move |(id, _)| id.key == key).map(|(_, device)| device)
    }

    fn owner(&self, key: &HashedPublicKey) -> OwnerState {
        OwnerState { registrations: self.of(key).filter(|device| device.live.is_some()).count() }
    }

    /// Why a device may not get this version, if so.
    fn refusal(&self, id: &DeviceId, version: u64, caps: Caps, is_live: bool) -> Option<Registered> {
        match self.devices.get(id) {
            Some(device) if device.version >= version => {
                return Some(Registered::VersionMismatch { stored: device.version });
            }
            None if self.of(&id.key).count() >= caps.devices => return Some(Registered::TooManyDevices),
            Some(Device { live: Some(_), .. }) => return None,
            _ => {}
        }
        let is_full = is_live && self.owner(&id.key).registrations >= caps.registrations;
        is_full.then_some(Registered::TooManyDevices)
    }
}

impl State {
    /// Why a device may not get so many bytes, if so.
    fn refusal_of_bytes(&self, id: &DeviceId, bytes: usize, caps: Caps) -> Option<Registered> {
        let bytes_of = |device: &Device| device.live.as_ref().map_or(0, |(live, _)| sealed_bytes(&live.data));
        let old = self.devices.get(id).map_or(0, bytes_of);
        let new = (bytes + TAG_BYTES) as u64;
        if new <= old {
            return None;
        }
        if self.of(&id.key).map(bytes_of).sum::<u64>() - old + new > caps.data_bytes as u64 {
            return Some(Registered::TooManyDevices);
        }
        let all = self.devices.values().map(bytes_of).sum::<u64>() - old + new;
        let rows = self.devices.values().filter(|device| device.live.is_some()).count() as u64;
        let is_full = match self.owner(&id.key).registrations {
            0 => all > caps.all_data_bytes / 2 || rows >= caps.all_registrations,
            _ => all > caps.all_data_bytes,
        };
        is_full.then_some(Registered::StoreFull)
    }
}

/// What a seal adds where there is one: both stores are full at the same moment.
const TAG_BYTES: usize = 16;

fn sealed_bytes(data: &DeviceData) -> u64 {
    (data.as_bytes().len() + TAG_BYTES) as u64
}

#[tonic::async_trait]
impl RegistrationStore for MemoryStore {
    async fn register(&self, new: NewRegistration) -> Result<Registered, StoreError> {
        let bytes = new.data.as_bytes().len();
        if bytes > MAX_DEVICE_DATA_BYTES {
            return Err(StoreError::TooLarge { what: "device data", bytes, max: MAX_DEVICE_DATA_BYTES });
        }
        self.change(|state| {
            if let Some(refusal) = state.refusal(&new.device, new.version, self.caps, true) {
                return refusal;
            }
            if let Some(refusal) = state.refusal_of_bytes(&new.device, bytes, self.caps) {
                return refusal;
            }
            let registration = Registration {
                device: new.device.clone(),
                version: new.version,
                token_type: new.token_type,
                data: new.data,
                registered_unix_s: new.at_unix_s,
                reached_unix_s: None,
            };
            let owner = new.device.key;
            let live = Some((registration, new.topic_keys));
            let device = Device { version: new.version, heard_of_unix_s: new.at_unix_s, live };
            state.devices.insert(new.device, device);
            Registered::Done(state.owner(&owner))
        })
    }

    async fn unregister(
        &self,
        device: &DeviceId,
        version: u64,
        at_unix_s: u64,
    ) -> Result<Registered, StoreError> {
        self.change(|state| {
            if let Some(refusal) = state.refusal(device, version, self.caps, false) {
                return refusal;
            }
            let tombstones = state.devices.values().filter(|device| device.live.is_none()).count();
            if state.of(&device.key).count() == 0 && tombstones as u64 >= self.caps.all_tombstones {
                return Registered::StoreFull;
            }
            let tombstone = Device { version, heard_of_unix_s: at_unix_s, live: None };
            state.devices.insert(device.clone(), tombstone);
            Registered::Done(state.owner(&device.key))
        })
    }

    async fn forget(
        &self,
        device: &DeviceId,
        only_version: Option<u64>,
        at_unix_s: u64,
    ) -> Result<Option<OwnerState>, StoreError> {
        self.change(|state| {
            let found = state.devices.get_mut(device)?;
            if found.live.is_none() || only_version.is_some_and(|version| version != found.version) {
                return None;
            }
            found.bury(at_unix_s);
            Some(state.owner(&device.key))
        })
    }

    async fn version(&self, device: &DeviceId) -> Result<Option<u64>, StoreError> {
        let state = self.state.lock();
        state.check([&device.key].into_iter())?;
        Ok(state.devices.get(device).map(|device| device.version))
    }

    async fn registrations(&self, key: &HashedPublicKey) -> Result<Vec<Registration>, StoreError> {
        let state = self.state.lock();
        state.check([key].into_iter())?;
        Ok(state.of(key).filter_map(|device| device.live.as_ref()).map(|(live, _)| live.clone()).collect())
    }

    async fn find(&self, devices: Vec<DeviceId>) -> Result<Vec<Option<Registration>>, StoreError> {
        let state = self.state.lock();
        state.check(devices.iter().map(|device| &device.key))?;
        let live = |id: &DeviceId| Some(state.devices.get(id)?.live.as_ref()?.0.clone());
        let mut opened = BTreeMap::new();
        let mut found = Vec::new();
        for id in &devices {
            if !opened.contains_key(id) && opened.values().sum::<usize>() >= MAX_FOUND_BYTES {
                break;
            }
            let live = live(id);
            opened.insert(id, live.as_ref().map_or(0, |live| live.data.as_bytes().len()));
            found.push(live);
        }
        #[cfg(test)]
        {
            let looked_up = opened.len();
            drop(state);
            self.state.lock().looked_up += looked_up;
        }
        Ok(found)
    }

    async fn topic_keys(&self, key: &HashedPublicKey) -> Result<Option<TopicKeys>, StoreError> {
        let state = self.state.lock();
        Ok(state.of(key).find_map(|device| device.live.as_ref()).map(|(_, keys)| keys.clone()))
    }

    async fn keys(
        &self,
        after: Option<&HashedPublicKey>,
        max: usize,
    ) -> Result<Vec<HashedPublicKey>, StoreError> {
        let state = self.state.lock();
        let live = state.devices.iter().filter(|(_, device)| device.live.is_some()).map(|(id, _)| id.key);
        let mut owners: Vec<_> = live.filter(|key| after.is_none_or(|after| key > after)).collect();
        owners.dedup();
        owners.truncate(max);
        Ok(owners)
    }

    async fn note_successes(&self, devices: Vec<DeviceId>, at_unix_s: u64) -> Result<(), StoreError> {
        self.change(|state| {
            for id in devices {
                let live = state.devices.get_mut(&id).and_then(|device| device.live.as_mut());
                if let Some((live, _)) = live
                    && live.reached_unix_s.is_none_or(|noted| noted + DAY_S <= at_unix_s)
                {
                    live.reached_unix_s = Some(at_unix_s);
                }
            }
        })
    }

    async fn claims(&self, keys: Vec<ClaimKey>) -> Result<Vec<Option<Claim>>, StoreError> {
        let state = self.state.lock();
        Ok(keys.iter().map(|key| state.claims.get(key).map(|(claim, _)| *claim)).collect())
    }

    async fn claim(&self, claims: Vec<ClaimKey>, at_unix_s: u64) -> Result<Vec<Claim>, StoreError> {
        self.change(|state| {
            let mut met = Vec::new();
            for key in claims {
                met.push(state.claims.get(&key).map_or(Claim::Won, |(claim, _)| *claim));
                state.claims.entry(key).or_insert((Claim::Open, at_unix_s));
            }
            met
        })
    }

    async fn finish(
        &self,
        ends: Vec<(ClaimKey, ClaimEnd)>,
        answer: Option<(AnswerId, Vec<u8>)>,
        at_unix_s: u64,
    ) -> Result<(), StoreError> {
        let bytes = answer.as_ref().map_or(0, |(_, text)| text.len());
        if bytes > MAX_ANSWER_BYTES {
            return Err(StoreError::TooLarge { what: "an answer", bytes, max: MAX_ANSWER_BYTES });
        }
        self.change(|state| {
            for (key, end) in ends {
                if state.claims.get(&key).is_none_or(|(claim, _)| *claim != Claim::Open) {
                    continue;
                }
                match end {
                    ClaimEnd::Refused => state.claims.remove(&key),
                    ClaimEnd::Sent => state.claims.insert(key, (Claim::Sent, at_unix_s)),
                    ClaimEnd::Unknown => state.claims.insert(key, (Claim::Unknown, at_unix_s)),
                };
            }
            state.answers.extend(answer.map(|(id, text)| (id, (text, at_unix_s))));
        })
    }

    async fn answer(&self, id: &AnswerId) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.state.lock().answers.get(id).map(|(text, _)| text.clone()))
    }

    async fn checkpoint(&self) -> Result<Option<Checkpoint>, StoreError> {
        Ok(self.state.lock().checkpoint)
    }

    async fn set_checkpoint(&self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        self.change(|state| match &mut state.checkpoint {
            Some(stored) if stored.archive_store_id == checkpoint.archive_store_id => {
                stored.seq = stored.seq.max(checkpoint.seq);
            }
            stored => *stored = Some(checkpoint),
        })
    }

    async fn reset_checkpoint(&self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        self.change(|state| state.checkpoint = Some(checkpoint))
    }

    fn health(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn expire(&self, retention: &Retention, _budget: usize) -> Result<Expired, StoreError> {
        self.change(|state| {
            let (claims, answers) = (state.claims.len(), state.answers.len());
            state.claims.retain(|_, (_, at)| *at >= retention.claims_before_unix_s);
            state.answers.retain(|_, (_, at)| *at >= retention.answers_before_unix_s);
            let mut registrations = Vec::new();
            for (id, device) in &mut state.devices {
                let sign = device.last_sign_unix_s();
                if device.live.is_some() && sign < retention.registrations_before_unix_s {
                    device.bury(0);
                    registrations.push(id.clone());
                }
            }
            let devices = state.devices.len();
            state.devices.retain(|_, device| {
                device.live.is_some() || device.heard_of_unix_s >= retention.tombstones_before_unix_s
            });
            Expired {
                claims: (claims - state.claims.len()) as u64,
                answers: (answers - state.answers.len()) as u64,
                registrations,
                tombstones: (devices - state.devices.len()) as u64,
                is_done: true,
            }
        })
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        let state = self.state.lock();
        let registrations = state.devices.values().filter(|device| device.live.is_some()).count();
        let open = state.claims.values().filter(|(claim, _)| *claim == Claim::Open).count();
        Ok(Counts {
            registrations: registrations as u64,
            tombstones: (state.devices.len() - registrations) as u64,
            open_claims: open as u64,
            ended_claims: (state.claims.len() - open) as u64,
            answers: state.answers.len() as u64,
            unreadable: 0,
            file_bytes: 0,
        })
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.state.lock().is_closed = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(caps: Caps) -> (MemoryStore, ()) {
        (MemoryStore::new(caps), ())
    }

    async fn reopen(store: MemoryStore, _alive: &()) -> MemoryStore {
        store.restart();
        store
    }

    crate::store::conformance::suite!(open, reopen);
}
