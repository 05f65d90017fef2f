//! Random operations on a store and on ordered maps; every answer must be equal.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::*;

const DAY_S: u64 = 24 * 60 * 60;

/// Runs one seed after the other.
pub(crate) async fn model<S: RegistrationStore, A>(
    open: impl Fn(Caps) -> (S, A),
    reopen: impl AsyncFn(S, &A) -> S,
) {
    const OPERATIONS: usize = 600;
    let number =
        |name| std::env::var(name).ok().map(|text: String| text.parse::<u64>().expect("it is a number"));
    let wanted = number("POSTE_MODEL_OPERATIONS").map_or(OPERATIONS, |wanted| wanted as usize);
    let mut seed = number("POSTE_SEED").unwrap_or_else(|| u64::from(rand::rng().next_u32()));
    let mut operations = 0;
    while operations < wanted {
        println!("POSTE_SEED={seed}");
        operations += Run::new(seed).operate(&open, &reopen, 300).await;
        seed += 1;
    }
}

#[derive(Default)]
struct Model {
    /// By device: version, and the registration if there is one.
    devices: BTreeMap<DeviceId, (u64, Option<Registration>)>,
    /// By device without a registration: when it was last heard of.
    heard_of: BTreeMap<DeviceId, u64>,
    claims: BTreeMap<ClaimKey, (Claim, u64)>,
    answers: BTreeMap<AnswerId, (Vec<u8>, u64)>,
    checkpoint: Option<Checkpoint>,
}

struct Run {
    random: StdRng,
    model: Model,
    caps: Caps,
    now: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let caps = Caps {
            registrations: random.random_range(1..6),
            devices: random.random_range(3..10),
            ..Caps::default()
        };
        Self { random, model: Model::default(), caps, now: START }
    }

    async fn operate<S: RegistrationStore, A>(
        mut self,
        open: &impl Fn(Caps) -> (S, A),
        reopen: &impl AsyncFn(S, &A) -> S,
        operations: usize,
    ) -> usize {
        let (mut store, alive) = open(self.caps);
        for _ in 0..operations {
            self.now += self.random.random_range(0..DAY_S / 4);
            match self.random.random_range(0..100) {
                0..30 => self.register(&store).await,
                30..40 => self.unregister(&store).await,
                40..48 => self.forget(&store).await,
                48..55 => self.note(&store).await,
                55..70 => self.claim(&store).await,
                70..82 => self.finish(&store).await,
                82..86 => self.checkpoint(&store).await,
                86..91 => self.expire(&store).await,
                91..96 => self.compare(&store).await,
                _ => {
                    if self.random.random() {
                        store.close().await.unwrap();
                    }
                    store = reopen(store, &alive).await;
                    for (claim, _) in
                        self.model.claims.values_mut().filter(|(claim, _)| *claim == Claim::Open)
                    {
                        *claim = Claim::Unknown;
                    }
                    self.compare(&store).await;
                }
            }
        }
        self.compare(&store).await;
        operations
    }

    fn device(&mut self) -> DeviceId {
        let owner = [0, 1, 2, 4, 255][self.random.random_range(0..5)];
        device(owner, self.random.random_range(0..12))
    }

    fn devices(&mut self) -> Vec<DeviceId> {
        (0..self.random.random_range(0..6)).map(|_| self.device()).collect()
    }

    /// A version around the stored one.
    fn version(&mut self, device: &DeviceId) -> u64 {
        let stored = self.model.devices.get(device).map_or(0, |(version, _)| *version);
        (stored + self.random.random_range(0..4)).saturating_sub(1)
    }

    fn count(&self, owner: &HashedPublicKey, counts: impl Fn(&Option<Registration>) -> bool) -> usize {
        self.model.devices.iter().filter(|(id, (_, live))| id.key == *owner && counts(live)).count()
    }

    fn owner_state(&self, owner: &HashedPublicKey) -> OwnerState {
        OwnerState { registrations: self.count(owner, Option::is_some) }
    }

    fn refusal(&self, device: &DeviceId, version: u64, is_registration: bool) -> Option<Registered> {
        let known = self.model.devices.get(device);
        if let Some((stored, _)) = known
            && version <= *stored
        {
            return Some(Registered::VersionMismatch { stored: *stored });
        }
        let adds_device = known.is_none();
        let adds_registration = is_registration && known.is_none_or(|(_, live)| live.is_none());
        let is_full = adds_device && self.count(&device.key, |_| true) >= self.caps.devices
            || adds_registration && self.count(&device.key, Option::is_some) >= self.caps.registrations;
        is_full.then_some(Registered::TooManyDevices)
    }

    async fn register(&mut self, store: &dyn RegistrationStore) {
        let device = self.device();
        let version = self.version(&device);
        let mut new = registration(&device, version);
        let bytes = if self.random.random_range(0..10) == 0 { 20_000 } else { 200 };
        let mut data = vec![0; self.random.random_range(0..bytes)];
        self.random.fill_bytes(&mut data);
        (new.data, new.at_unix_s) = (DeviceData::new(data), self.now);
        let expected = self.refusal(&device, version, true).unwrap_or_else(|| {
            self.model.devices.insert(device.clone(), (version, Some(found(&new, None))));
            Registered::Done(self.owner_state(&device.key))
        });
        assert_eq!(store.register(new).await.unwrap(), expected);
    }

    async fn unregister(&mut self, store: &dyn RegistrationStore) {
        let device = self.device();
        let version = self.version(&device);
        let expected = self.refusal(&device, version, false).unwrap_or_else(|| {
            self.model.devices.insert(device.clone(), (version, None));
            self.model.heard_of.insert(device.clone(), self.now);
            Registered::Done(self.owner_state(&device.key))
        });
        assert_eq!(store.unregister(&device, version, self.now).await.unwrap(), expected);
    }

    async fn forget(&mut self, store: &dyn RegistrationStore) {
        let device = self.device();
        let only = if self.random.random() { Some(self.version(&device)) } else { None };
        let is_meant = |version: u64| only.is_none_or(|only| only == version);
        let expected = match self.model.devices.get_mut(&device) {
            Some((version, live)) if live.is_some() && is_meant(*version) => {
                let now = self.now;
                let heard_of = live.take().map(|live| (device.clone(), last_sign(&live).max(now)));
                self.model.heard_of.extend(heard_of);
                Some(self.owner_state(&device.key))
            }
            _ => None,
        };
        assert_eq!(store.forget(&device, only, self.now).await.unwrap(), expected);
    }

    async fn note(&mut self, store: &dyn RegistrationStore) {
        let devices = self.devices();
        for device in &devices {
            if let Some((_, Some(live))) = self.model.devices.get_mut(device)
                && live.reached_unix_s.is_none_or(|noted| noted + DAY_S <= self.now)
            {
                live.reached_unix_s = Some(self.now);
            }
        }
        store.note_successes(devices, self.now).await.unwrap();
    }

    fn claim_keys(&mut self) -> Vec<ClaimKey> {
        let devices = self.devices();
        devices.iter().map(|device| claim_key(&[self.random.random_range(0..3)], device)).collect()
    }

    async fn claim(&mut self, store: &dyn RegistrationStore) {
        let keys = self.claim_keys();
        let mut expected = Vec::new();
        for key in &keys {
            expected.push(self.model.claims.get(key).map_or(Claim::Won, |(claim, _)| *claim));
            self.model.claims.entry(key.clone()).or_insert((Claim::Open, self.now));
        }
        assert_eq!(store.claim(keys, self.now).await.unwrap(), expected);
    }

    async fn finish(&mut self, store: &dyn RegistrationStore) {
        let mut keys = self.claim_keys();
        let open = self.model.claims.iter().filter(|(_, (claim, _))| *claim == Claim::Open);
        keys.extend(open.map(|(key, _)| key.clone()).take(self.random.random_range(0..4)));
        let ends = [ClaimEnd::Sent, ClaimEnd::Refused, ClaimEnd::Unknown];
        let ends: Vec<_> = keys.into_iter().map(|key| (key, ends[self.random.random_range(0..3)])).collect();
        for (key, end) in &ends {
            let entry = self.model.claims.get(key);
            if entry.is_some_and(|(claim, _)| *claim == Claim::Open) {
                match end {
                    ClaimEnd::Sent => self.model.claims.insert(key.clone(), (Claim::Sent, self.now)),
                    ClaimEnd::Refused => self.model.claims.remove(key),
                    ClaimEnd::Unknown => self.model.claims.insert(key.clone(), (Claim::Unknown, self.now)),
                };
            }
        }
        let answer = self.random.random::<bool>().then(|| {
            let id = AnswerId([self.random.random_range(0..20); 32]);
            let text = vec![self.random.random(); self.random.random_range(0..500)];
            self.model.answers.insert(id, (text.clone(), self.now));
            (id, text)
        });
        store.finish(ends, answer, self.now).await.unwrap();
    }

    async fn checkpoint(&mut self, store: &dyn RegistrationStore) {
        let archive_store_id = [u8::from(self.random.random_range(0..10) == 0); 16];
        let given = Checkpoint { archive_store_id, seq: self.random.random_range(0..1000) };
        self.model.checkpoint = Some(match self.model.checkpoint {
            Some(stored) if stored.archive_store_id == archive_store_id && stored.seq > given.seq => stored,
            _ => given,
        });
        if self.random.random_range(0..10) == 0 {
            store.reset_checkpoint(given).await.unwrap();
            self.model.checkpoint = Some(given);
        } else {
            store.set_checkpoint(given).await.unwrap();
        }
        assert_eq!(store.checkpoint().await.unwrap(), self.model.checkpoint);
    }

    async fn expire(&mut self, store: &dyn RegistrationStore) {
        let mut before = || match self.random.random_range(0..3) {
            0 => 0,
            _ => self.now - self.random.random_range(0..20 * DAY_S),
        };
        let retention = Retention {
            claims_before_unix_s: before(),
            answers_before_unix_s: before(),
            registrations_before_unix_s: before(),
            tombstones_before_unix_s: before(),
        };
        let (claims, answers) = (self.model.claims.len(), self.model.answers.len());
        self.model.claims.retain(|_, (_, at)| *at >= retention.claims_before_unix_s);
        self.model.answers.retain(|_, (_, at)| *at >= retention.answers_before_unix_s);
        let mut forgotten = Vec::new();
        for (id, (_, live)) in &mut self.model.devices {
            let is_stale = |live: &Registration| last_sign(live) < retention.registrations_before_unix_s;
            if live.as_ref().is_some_and(is_stale) {
                self.model.heard_of.extend(live.take().map(|live| (id.clone(), last_sign(&live))));
                forgotten.push(id.clone());
            }
        }
        let devices = self.model.devices.len();
        let heard_of = &self.model.heard_of;
        self.model
            .devices
            .retain(|id, (_, live)| live.is_some() || heard_of[id] >= retention.tombstones_before_unix_s);
        let budget = self.random.random_range(1..30);
        let (mut expired_claims, mut expired_answers, mut expired) = (0, 0, Vec::new());
        let mut expired_tombstones = 0;
        loop {
            let piece = store.expire(&retention, budget).await.unwrap();
            expired_claims += piece.claims;
            expired_answers += piece.answers;
            expired.extend(piece.registrations);
            expired_tombstones += piece.tombstones;
            if piece.is_done {
                break;
            }
        }
        assert_eq!(expired_claims as usize, claims - self.model.claims.len());
        assert_eq!(expired_answers as usize, answers - self.model.answers.len());
        assert_eq!(expired, forgotten);
        assert_eq!(expired_tombstones as usize, devices - self.model.devices.len());
    }

    async fn compare(&mut self, store: &dyn RegistrationStore) {
        let model = &self.model;
        let live = |id: &DeviceId| model.devices.get(id).and_then(|(_, live)| live.clone());
        for owner_number in [0, 1, 2, 3, 4, 255] {
            let all: Vec<DeviceId> = (0..12).map(|number| device(owner_number, number)).collect();
            let expected: Vec<_> = all.iter().map(live).collect();
            assert_eq!(store.find(all.clone()).await.unwrap(), expected);
            for id in &all {
                let version = model.devices.get(id).map(|(version, _)| *version);
                assert_eq!(store.version(id).await.unwrap(), version);
            }
            let mut expected: Vec<_> = expected.into_iter().flatten().collect();
            expected.sort_by(|a, b| a.device.cmp(&b.device));
            assert_eq!(store.registrations(&owner(owner_number)).await.unwrap(), expected);
            let topic_keys = store.topic_keys(&owner(owner_number)).await.unwrap();
            let is_registered = !expected.is_empty();
            let last = owner(owner_number).as_bytes()[HashedPublicKey::LENGTH - 1];
            assert_eq!(topic_keys, is_registered.then(|| TopicKeys::new(&[last; 32], &[!last; 32])));
        }
        let mut owners: Vec<_> =
            model.devices.iter().filter(|(_, (_, live))| live.is_some()).map(|(id, _)| id.key).collect();
        owners.dedup();
        assert_eq!(all_owners(store, self.random.random_range(1..8)).await, owners);
        for number in 0..20 {
            let id = AnswerId([number; 32]);
            let expected = model.answers.get(&id).map(|(text, _)| text.clone());
            assert_eq!(store.answer(&id).await.unwrap(), expected);
        }
        assert_eq!(store.checkpoint().await.unwrap(), model.checkpoint);
        let registrations = model.devices.values().filter(|(_, live)| live.is_some()).count();
        let open = model.claims.values().filter(|(claim, _)| *claim == Claim::Open).count();
        let counts = store.counts().await.unwrap();
        let found = [
            counts.registrations,
            counts.tombstones,
            counts.open_claims,
            counts.ended_claims,
            counts.answers,
        ];
        let expected = [
            registrations,
            model.devices.len() - registrations,
            open,
            model.claims.len() - open,
            model.answers.len(),
        ];
        assert_eq!(found.map(|count| count as usize), expected);
        assert_eq!(counts.unreadable, 0);
    }
}

fn last_sign(live: &Registration) -> u64 {
    live.registered_unix_s.max(live.reached_unix_s.unwrap_or(0))
}
