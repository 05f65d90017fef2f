//! The self-test: a client of its own registers, asks who it is, makes its device ring, and unregisters, all of it over the
//! gateway, the archive and the feed, as the network's clients do. Only the last step of a notification, from here to
//! Apple or Google, is not gone: the provider is asked whether it is there.

use std::time::Duration;

use bytes::Bytes;
use poste_provider::PushProvider;
use poste_rpc::push::v1;
use poste_wire::status::ApplicationMessage;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout};
use tonic::Status;

use super::client::{Client, Said};
use super::loopback::LoopbackDevice;
use super::{Inside, store_failed};
use crate::running::LoopbackMail;
use crate::server::PushServer;
use crate::store::StoreError;

/// How long one step may take: it goes over the gateway, the archive and the feed, there and back.
const STEP: Duration = Duration::from_secs(20);
/// Its steps, in their order.
const STEPS: usize = 7;

/// Where the outcome of each step goes. There is room for all of them, so that nobody who does not read holds it up.
pub(super) type Told = mpsc::Receiver<Result<v1::SelfTestResponse, Status>>;

/// Begins a self-test as one of the service's tasks. It ends by itself, when the service stops, or after the step at work
/// when nobody listens any more.
pub(super) fn begin(inside: Inside, permit: OwnedSemaphorePermit) -> Told {
    let (tell, told) = mpsc::channel(STEPS);
    let tasks = inside.tasks.clone();
    tasks.spawn(async move {
        let _permit = permit;
        let stop = inside.stop.clone();
        let client = Client::of(&inside.server.identity);
        let version = match inside.store.version(&client.device()).await {
            Ok(version) => version,
            Err(error) => {
                let _ = tell.try_send(Err(store_failed(error)));
                return;
            }
        };
        let client = client.behind(version);
        let mut test =
            SelfTest { inside: inside.clone(), client, tell, has_failed: false, may_be_registered: false };
        tokio::select! {
            () = test.run() => {}
            () = stop.cancelled() => {
                // Full only when all is told.
                let _ = test.tell.try_send(Err(Status::unavailable("the push server is stopping")));
            }
        }
        if test.may_be_registered {
            // Whatever was said over the network may not have arrived, or may still arrive.
            let device = test.client.device();
            let now = inside.clock.now();
            let version = test.client.last_version();
            if let Err(error) = inside.server.unregister_device(&device, version, now).await {
                tracing::warn!(%error, "the device of a self-test could not be unregistered");
            }
        }
    });
    told
}

/// Forgets the device of a self-test that was cut off by the end of the process. `now` is the time, since 1970.
///
/// # Errors
/// When the store fails.
pub(crate) async fn clear_up(server: &PushServer, now: Duration) -> Result<(), StoreError> {
    let client = Client::of(&server.identity);
    if server.forget_owner(&client.hash(), now).await? > 0 {
        tracing::info!("forgot the device of a self-test that had no end");
    }
    Ok(())
}

struct SelfTest {
    inside: Inside,
    client: Client,
    tell: mpsc::Sender<Result<v1::SelfTestResponse, Status>>,
    /// What comes then makes no sense.
    has_failed: bool,
    /// Its registration is on its way, or has arrived.
    may_be_registered: bool,
}

impl SelfTest {
    async fn run(&mut self) {
        let inside = self.inside.clone();
        let check = async |_: &Client| inside.provider.check().await.map_err(|error| error.to_string());
        self.step("provider", check).await;
        // The others do not need it.
        self.has_failed = false;
        self.step("feed", async |_| feed(&inside)).await;

        let mut mail = inside.feed.listen(self.client.inbox().topic());
        let token = format!("poste-self-test-{}", hex::encode(rand::random::<[u8; 16]>()));
        let mut device = inside.provider.device(token);
        self.may_be_registered = !self.has_failed;
        let registered = self
            .step("register", async |client| {
                let said = client.registration(device.token())?;
                exchange(&inside, client, &mut mail, said, Client::registered).await
            })
            .await;
        let access_token = self
            .step("query", async |client| {
                let topic = client.query_topic();
                let key = tokio::task::spawn_blocking(move || topic.derive_key()).await;
                let said = client.query(&key.map_err(|_| "the process is stopping")?)?;
                exchange(&inside, client, &mut mail, said, Client::found).await
            })
            .await;
        self.step("notify", async |client| {
            let said = client.request(access_token.unwrap_or_default())?;
            exchange(&inside, client, &mut mail, said, Client::notified).await
        })
        .await;
        self.step("ring", async |client| ring(client, &mut device).await).await;
        self.has_failed = registered.is_none();
        self.step("unregister", async |client| {
            let said = client.unregistration()?;
            exchange(&inside, client, &mut mail, said, Client::registered).await
        })
        .await;
    }

    /// Takes a step and tells how it ended. What it brings, if it passed.
    async fn step<T>(
        &mut self,
        name: &'static str,
        step: impl AsyncFnOnce(&Client) -> Result<T, String>,
    ) -> Option<T> {
        let began = Instant::now();
        let ended = if self.has_failed {
            None
        } else {
            let late = || Err(format!("nothing came within {} s", STEP.as_secs()));
            Some(timeout(STEP, step(&self.client)).await.unwrap_or_else(|_| late()))
        };
        let (outcome, problem) = match &ended {
            Some(Ok(_)) => (v1::StepOutcome::Passed, String::new()),
            Some(Err(problem)) => (v1::StepOutcome::Failed, problem.clone()),
            None => (v1::StepOutcome::Skipped, "a step before it failed".to_owned()),
        };
        let took_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let told = v1::SelfTestResponse { step: name.to_owned(), outcome: outcome.into(), took_ns, problem };
        let is_heard = self.tell.try_send(Ok(told)).is_ok();
        let brought = ended.and_then(Result::ok);
        self.has_failed |= brought.is_none() || !is_heard;
        brought
    }
}

fn feed(inside: &Inside) -> Result<(), String> {
    let status = inside.feed.status();
    if status.paused {
        return Err("it is paused: `poste ctl push resume` first".to_owned());
    }
    if !status.connected {
        let why = status.last_error.unwrap_or_else(|| "no connection yet".to_owned());
        return Err(format!("no messages come from the archive: {why}"));
    }
    Ok(())
}

/// Says something to the server over the network, and waits for the answer to it.
async fn exchange<Id, Brought>(
    inside: &Inside,
    client: &Client,
    mail: &mut LoopbackMail,
    said: Said<Id>,
    judge: impl Fn(&Client, &ApplicationMessage, &Id) -> Option<Result<Brought, String>>,
) -> Result<Brought, String> {
    inside.publisher.publish(said.envelopes).await.map_err(|error| error.to_string())?;
    loop {
        let data: Bytes = mail.next().await.ok_or("the feed has ended")?;
        let answer = client.hear(&data);
        if let Some(brought) = answer.and_then(|answer| judge(client, &answer, &said.id)) {
            return brought;
        }
    }
}

async fn ring(client: &Client, device: &mut LoopbackDevice) -> Result<(), String> {
    let rung = device.ring().await;
    let chat = format!("0x{}", client.chat());
    match rung.data.iter().find(|(name, _)| name == "chatId") {
        Some((_, told)) if *told == chat => Ok(()),
        _ => Err("the notification is about another chat".to_owned()),
    }
}
