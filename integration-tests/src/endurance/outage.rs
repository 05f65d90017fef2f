//! The archive is away while peers post to a gateway: it goes on confirming, from its spool, says that history is not
//! complete, and brings everything later. And a gateway that is killed with a full spool is waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use poste_client::{ConnectOptions, Fetch, Fetched, Post, connect, fetch, post};
use poste_rlpx::Enode;
use poste_rpc::archive::v1::{ListWritersRequest, Writer};
use poste_waku::mail::Sealer;
use poste_wire::{Hash, Topic, password_key};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{readiness, recovered, set, unix_seconds};
use crate::archive::{Archive, Program};
use crate::audit::{Client, Tally, place, question, walk};
use crate::load::{Ledger, Stream};
use crate::process::Process;
use crate::stack::{poste, start};

const PEERS: u8 = 4;
/// Bytes of data of what they post, and of what soon fills a spool.
const SMALL: usize = 304;
const LARGE: usize = 3000;
/// Envelopes that a peer posts at a time, and its rest after they are confirmed.
const AT_A_TIME: usize = 20;
const REST: Duration = Duration::from_millis(100);
/// How long a gateway may take to confirm, whether its archive is there or not.
const CONFIRMATION: Duration = Duration::from_secs(10);
/// How long it may take until everything that was held back is in the archive.
const CATCH_UP: Duration = Duration::from_secs(120);
/// A spool that is soon full.
const SMALL_SPOOL: [&str; 2] = ["--gateway-spool-size", "4MiB"];

/// Takes the archive away for that time, then kills a gateway with a full spool: once it comes back, once it is forgotten.
pub async fn outage(seed: u64, away: Duration) -> Result<Tally> {
    let directory = tempfile::tempdir()?;
    let mut archive = Archive::new(Program::Poste, &directory.path().join("archive"), &[]);
    archive.start()?;
    let address = archive.address()?.to_owned();
    archive.arguments = vec!["--archive-grpc-listen".to_owned(), address.clone()];
    let mut gateway = Gateway::new(&directory.path().join("gateway"), &address);
    gateway.start(&[])?;
    let book = Arc::new(Book::default());

    let peers = Peers::start(&gateway.enode()?, &book, SMALL)?;
    book.grow_by(500).await?;
    archive.kill()?;
    let confirmed_before = book.count();
    let end = Instant::now() + away;
    while Instant::now() < end {
        book.grow_by(50).await.context("while the archive is away nothing is confirmed")?;
        let fetched = mail(&gateway.enode()?, &book).await?.0;
        ensure!(!fetched.complete, "the archive is away, but history is called complete: {fetched:?}");
        sleep(end.saturating_duration_since(Instant::now()).min(away / 10)).await;
    }
    println!("{} confirmed while the archive was away for {away:?}", book.count() - confirmed_before);
    archive.start()?;
    complete_history(&gateway, &book).await?;
    peers.stop().await?;
    complete_history(&gateway, &book).await?;
    gateway.stop()?;

    for forgotten in [false, true] {
        gateway.start(&SMALL_SPOOL)?;
        let oldest = strand(&mut archive, &mut gateway, &book).await?;
        archive.start()?;
        let mut client = archive.client()?;
        recovered(&mut client).await?;
        stands_still(&mut client, seed, oldest).await?;
        if forgotten {
            forget_who_is_away(&archive).await?;
            let until = complete_until(&mut client).await?;
            ensure!(until.is_none(), "forgotten, but waited for: complete until {until:?}");
        }
        gateway.start(&SMALL_SPOOL)?;
        nothing_held_back(&mut client).await?;
        complete_history(&gateway, &book).await?;
        gateway.stop()?;
    }
    let tally = book.audit(&mut archive.client()?).await?;
    archive.stop()?;
    Ok(tally)
}

/// Fills the gateway's spool while the archive is away, and kills the gateway. Returns the creation time of the oldest
/// envelope that only the spool can have, nanoseconds.
async fn strand(archive: &mut Archive, gateway: &mut Gateway, book: &Arc<Book>) -> Result<i64> {
    let peers = Peers::start(&gateway.enode()?, book, LARGE)?;
    book.grow_by(100).await?;
    archive.kill()?;
    let (oldest, before) = (i64::from(unix_seconds()?) * 1_000_000_000, book.count());
    let mut refused = book.refused.subscribe();
    let refused_before = *refused.borrow_and_update();
    let full = refused.wait_for(|count| *count > refused_before);
    timeout(CATCH_UP, full).await.context("the spool does not fill up")??;
    let reason = book.reason();
    ensure!(reason.contains("full"), "refused for another reason: {reason}");
    readiness(gateway.ready()?, 503).await?;
    gateway.kill()?;
    peers.stop().await?;
    println!("{} confirmed from the spool until it was full ({reason})", book.count() - before);
    Ok(oldest)
}

/// While a gateway is away with what it confirmed, history is complete up to that and no further, whatever others write.
async fn stands_still(client: &mut Client, seed: u64, oldest: i64) -> Result<()> {
    let until = complete_until(client).await?.context("a writer is away, but history is complete")?;
    ensure!(until <= oldest, "complete until {until}, but from {oldest} on a spool holds what was confirmed");
    // Never a mail: other topics, other bytes.
    let others = Ledger::new(set(seed)?);
    for _ in 0..3 {
        let mut stream = Stream::open(client.clone(), "another").await?;
        stream.append(&others, 100).await?;
        stream.hold_back(None).await?;
        stream.goodbye().await?;
        let now = complete_until(client).await?;
        ensure!(now == Some(until), "complete until {until}, and a moment later until {now:?}");
    }
    Ok(())
}

async fn forget_who_is_away(archive: &Archive) -> Result<()> {
    let writers = archive.admin()?.list_writers(ListWritersRequest {}).await?.into_inner().writers;
    let away: Vec<_> = writers.iter().filter(|writer| !writer.connected).collect();
    let [Writer { writer_id, .. }] = away[..] else { bail!("not one writer is away: {writers:?}") };
    let admin = archive.ready()?.pointer("/admin/archive").and_then(Value::as_str);
    let admin = admin.context("an admin listener")?;
    let mut command = poste()?;
    command.args(["ctl", "archive", "writers", "forget", writer_id, "--address", admin]);
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "poste ctl archive writers forget: {said}");
    Ok(())
}

async fn complete_until(client: &mut Client) -> Result<Option<i64>> {
    Ok(walk(client, question(), 1000).await?.complete_until_ns)
}

async fn nothing_held_back(client: &mut Client) -> Result<()> {
    let deadline = Instant::now() + CATCH_UP;
    while let Some(until) = complete_until(client).await? {
        ensure!(Instant::now() < deadline, "still complete only until {until}");
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Asks for mail until the gateway calls it complete. Whenever it does, everything that was confirmed before the question
/// must be there.
async fn complete_history(gateway: &Gateway, book: &Book) -> Result<()> {
    let deadline = Instant::now() + CATCH_UP;
    loop {
        let confirmed: Vec<Hash> = book.confirmed().keys().copied().collect();
        let (fetched, mail) = mail(&gateway.enode()?, book).await?;
        if fetched.complete {
            let missing = confirmed.iter().filter(|hash| !mail.contains(*hash)).count();
            ensure!(
                missing == 0,
                "called complete, but {missing} of {} confirmed are missing",
                confirmed.len()
            );
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "history is still not complete: {}", fetched.reason);
        sleep(Duration::from_millis(200)).await;
    }
}

/// Everything since the first envelope.
async fn mail(enode: &Enode, book: &Book) -> Result<(Fetched, BTreeSet<Hash>)> {
    let options = ConnectOptions::quiet();
    let mut session = connect(enode, &options).await?;
    let request = Fetch {
        sealer: Sealer { key: password_key("status-offline-inbox"), signer: options.key },
        topics: Vec::new(),
        since: book.begin,
        until: unix_seconds()? + 60,
        page_size: 1000,
        silence: Duration::from_secs(15),
    };
    let mut mail = BTreeSet::new();
    let fetched = fetch(&mut session, &request, |envelope| {
        mail.insert(envelope.hash());
    })
    .await?;
    Ok((fetched, mail))
}

/// A `poste serve gateway` and its data directory.
struct Gateway {
    data: PathBuf,
    archive: String,
    running: Option<(Process, Value)>,
}

impl Gateway {
    fn new(data: &Path, archive: &str) -> Self {
        let archive = format!("http://{archive}");
        Self { data: data.to_owned(), archive, running: None }
    }

    fn start(&mut self, arguments: &[&str]) -> Result<()> {
        let mut command = poste()?;
        command.args(["serve", "gateway", "--ephemeral-ports", "--gateway-rlpx-listen", "127.0.0.1:0"]);
        command.args(["--gateway-archive", &self.archive, "--gateway-data"]).arg(&self.data).args(arguments);
        self.running = Some(start("poste serve gateway", &mut command)?);
        Ok(())
    }

    fn enode(&self) -> Result<Enode> {
        Ok(self.ready()?["enode"].as_str().context("an enode")?.parse()?)
    }

    fn ready(&self) -> Result<&Value> {
        Ok(&self.running.as_ref().context("it runs")?.1)
    }

    fn kill(&mut self) -> Result<()> {
        self.running.take().map_or(Ok(()), |(mut process, _)| process.kill())
    }

    fn stop(&mut self) -> Result<()> {
        let (process, _) = self.running.take().context("it runs")?;
        process.terminate()?;
        process.succeed(Duration::from_secs(60)).map(drop)
    }
}

/// What peers were told.
#[derive(Debug)]
struct Book {
    begin: u32,
    confirmed: Mutex<BTreeMap<Hash, bytes::Bytes>>,
    count: watch::Sender<usize>,
    refused: watch::Sender<usize>,
    reason: Mutex<String>,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            begin: unix_seconds().unwrap_or_default() - 60,
            confirmed: Mutex::default(),
            count: watch::Sender::new(0),
            refused: watch::Sender::new(0),
            reason: Mutex::default(),
        }
    }
}

impl Book {
    fn note(&self, posted: poste_client::Posted) {
        if posted.confirmed {
            let count = {
                let mut confirmed = self.confirmed();
                confirmed.insert(posted.envelope.hash(), posted.envelope.rlp().clone());
                confirmed.len()
            };
            self.count.send_replace(count);
        } else if let Some(fault) = posted.fault {
            *self.reason.lock().expect("no peer panics") = fault;
            self.refused.send_modify(|count| *count += 1);
        }
    }

    fn confirmed(&self) -> std::sync::MutexGuard<'_, BTreeMap<Hash, bytes::Bytes>> {
        self.confirmed.lock().expect("no peer panics")
    }

    fn count(&self) -> usize {
        *self.count.borrow()
    }

    fn reason(&self) -> String {
        self.reason.lock().expect("no peer panics").clone()
    }

    async fn grow_by(&self, more: usize) -> Result<()> {
        let mut count = self.count.subscribe();
        let wanted = *count.borrow_and_update() + more;
        timeout(CONFIRMATION * 2, count.wait_for(|count| *count >= wanted))
            .await
            .context("no confirmations")??;
        Ok(())
    }

    /// Compares what was confirmed with what the archive has.
    async fn audit(&self, client: &mut Client) -> Result<Tally> {
        let walked = walk(client, question(), 1000).await?;
        let mut found = 0;
        let confirmed = self.confirmed();
        for record in &walked.records {
            let (_, id) = place(record.position.as_ref())?;
            if let Some(body) = confirmed.get(&id) {
                ensure!(record.body == body, "other bytes for {id}");
                found += 1;
            }
        }
        let acknowledged = confirmed.len() as u64;
        let lost = acknowledged - found;
        Ok(Tally { acknowledged, found, lost, duplicates: walked.repeated, ..Tally::default() })
    }
}

/// Peers that post until they are stopped.
struct Peers {
    stop: CancellationToken,
    peers: JoinSet<Result<()>>,
}

impl Peers {
    fn start(enode: &Enode, book: &Arc<Book>, size: usize) -> Result<Self> {
        let stop = CancellationToken::new();
        let mut peers = JoinSet::new();
        for peer in 0..PEERS {
            let (enode, book, stop) = (enode.clone(), Arc::clone(book), stop.clone());
            let request = Post {
                topic: Topic([0xee, 0, 0, peer]),
                count: AT_A_TIME,
                size,
                ttl: 50,
                patience: CONFIRMATION,
            };
            // A session cannot move between threads, so each has one of its own.
            let runtime = Handle::current();
            peers.spawn_blocking(move || {
                runtime.block_on(async {
                    let mut session = connect(&enode, &ConnectOptions::quiet()).await?;
                    while !stop.is_cancelled() {
                        // A gateway that is killed ends the session; what it had confirmed is noted.
                        if post(&mut session, &request, |posted| book.note(posted)).await.is_err() {
                            break;
                        }
                        sleep(REST).await;
                    }
                    Ok(())
                })
            });
        }
        Ok(Self { stop, peers })
    }

    async fn stop(mut self) -> Result<()> {
        self.stop.cancel();
        while let Some(ended) = timeout(CONFIRMATION * 2, self.peers.join_next()).await? {
            match ended {
                Ok(ended) => ended?,
                Err(error) => bail!("a peer panicked: {error}"),
            }
        }
        Ok(())
    }
}
