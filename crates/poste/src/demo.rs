//! `poste demo`: the story on real parts. A posts over a real connection and leaves; B arrives and fetches. Then B's
//! phone sleeps, and a message of A wakes it.

mod push;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Arg, ArgMatches, Command, value_parser};
use poste_archive::ArchiveConfig;
use poste_client::{ConnectOptions, Fetch, Post};
use poste_gateway::GatewayConfig;
use poste_push::{ProviderUrl, PushConfig};
use poste_rlpx::Enode;
use poste_rpc::client::Target;
use poste_rpc::gateway::v1::NodeInfoRequest;
use poste_service::config::Sources;
use poste_service::{Context, RunningService};
use poste_wire::{Hash, Topic};

use crate::{mail, settings, up};

const ENVELOPES: usize = 20;
const ENVELOPE_BYTES: usize = 304;
/// Less than all, so that B has to follow cursors.
const PAGE: u32 = 8;
/// How long any step may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Envelopes by hash, as bytes.
type Mail = BTreeMap<Hash, Vec<u8>>;

/// `poste demo`.
pub fn command() -> Command {
    Command::new("demo")
        .about("Shows a message that waits for an offline reader, and one that wakes a phone; exit code 0 when all went well")
        .arg(
            Arg::new("data")
                .long("data")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .help("where everything is kept [default: a temporary directory]"),
        )
}

/// Runs it.
pub async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    mail::log_warnings("demo")?;
    let temporary;
    let data = match matches.get_one::<PathBuf>("data") {
        Some(data) => data.as_path(),
        None => {
            temporary = tempfile::tempdir().context("no temporary directory; name one by --data")?;
            temporary.path()
        }
    };
    let start = async |config: ArchiveConfig, context| Ok(poste_archive::start(config, context).await?);
    tell(&mut io::stdout(), data, start).await?;
    Ok(ExitCode::SUCCESS)
}

/// Tells the story on `out`, with an archive that `start_archive` starts. An error says what went wrong in it.
pub async fn tell<F>(out: &mut impl Write, data: &Path, start_archive: F) -> anyhow::Result<()>
where
    F: AsyncFnOnce(ArchiveConfig, Context) -> anyhow::Result<RunningService>,
{
    let sources = Sources { presets: up::presets(data)?, ephemeral_ports: true, ..Sources::default() };
    let config = settings::all().load(&sources)?;
    let push: PushConfig = config.section()?;
    let ProviderUrl::Directory(notifications) = push.provider.clone() else {
        bail!("notifications are files in a demo");
    };
    let context = Context::new(Duration::from_secs(5));
    let archive = start_archive(config.section()?, context.for_service()).await?;
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let gateway = GatewayConfig { rlpx_listen: loopback, ..config.section()? };
    let gateway = up::gateway_on(&archive, gateway, &context).await?;
    let push = up::push_on(&archive, &gateway, push, &context).await?;

    let told = async {
        story(out, &gateway).await?;
        push::story(out, &gateway, &push, &notifications).await
    };
    let told = Box::pin(told).await;
    let stopped = push.stop(PATIENCE).await;
    let stopped = stopped.and(gateway.stop(PATIENCE).await).and(archive.stop(PATIENCE).await);
    told?;
    stopped.map_err(anyhow::Error::from_boxed)
}

async fn story(out: &mut impl Write, gateway: &RunningService) -> anyhow::Result<()> {
    let enode = gateway.addresses().enode.as_deref().context("the gateway has no enode")?;
    writeln!(out, "A gateway and an archive run in this process, on real sockets:\n    {enode}")?;
    let enode: Enode = enode.parse()?;

    // Another for every demo: a directory may hold the story of an earlier one.
    let [a, b, c, d, ..] = ConnectOptions::quiet().key.public().node_id();
    let topic = Topic([a, b, c, d]);
    let posted = post(&enode, topic).await.context("A")?;
    writeln!(out, "A connects and posts {} envelopes. Each is confirmed: it is on disk.", posted.len())?;
    nobody_is_connected(gateway).await?;
    writeln!(out, "A leaves. Nobody is connected.")?;

    let (fetched, pages) = fetch(&enode, topic).await.context("B")?;
    writeln!(out, "B arrives and asks for the history: {} envelopes in {pages} pages.", fetched.len())?;
    let missing = posted.keys().filter(|hash| !fetched.contains_key(*hash)).count();
    ensure!(missing == 0, "{missing} of {} confirmed envelopes did not come back", posted.len());
    ensure!(fetched == posted, "B got other envelopes than A posted");
    writeln!(out, "They are A's, byte for byte.")?;
    Ok(())
}

async fn post(enode: &Enode, topic: Topic) -> anyhow::Result<Mail> {
    let mut session = Box::pin(poste_client::connect(enode, &ConnectOptions::quiet())).await?;
    let post = Post { topic, count: ENVELOPES, size: ENVELOPE_BYTES, ttl: 60, patience: PATIENCE };
    let mut posted = Mail::new();
    let summary = Box::pin(poste_client::post(&mut session, &post, |one| {
        posted.insert(one.envelope.hash(), one.envelope.rlp().to_vec());
    }));
    let confirmed = summary.await?.confirmed;
    ensure!(confirmed == ENVELOPES, "only {confirmed} of {ENVELOPES} envelopes were confirmed");
    Ok(posted)
}

async fn fetch(enode: &Enode, topic: Topic) -> anyhow::Result<(Mail, usize)> {
    let options = ConnectOptions::quiet();
    let password = GatewayConfig::default().mail_password;
    let now = mail::unix_now();
    let fetch = Fetch {
        sealer: mail::sealer(password.expose().to_owned(), &options).await?,
        topics: vec![topic],
        since: now.saturating_sub(300),
        until: now.saturating_add(60),
        page_size: PAGE,
        silence: PATIENCE,
    };
    let mut session = Box::pin(poste_client::connect(enode, &options)).await?;
    let mut fetched = Mail::new();
    let walk = Box::pin(poste_client::fetch(&mut session, &fetch, |envelope| {
        fetched.insert(envelope.hash(), envelope.rlp().to_vec());
    }));
    let outcome = walk.await?;
    ensure!(outcome.complete, "the history is not complete: {}", outcome.reason);
    Ok((fetched, outcome.pages))
}

/// Asks the gateway's administration until it has seen A go.
async fn nobody_is_connected(gateway: &RunningService) -> anyhow::Result<()> {
    let address = gateway.addresses().admin.context("the gateway has no administration")?;
    let target = Target::lazy(&format!("http://{}", up::reachable(address)))?;
    let mut admin = poste_rpc::gateway::admin_client(target.channel());
    let gone = async {
        loop {
            let info = admin.node_info(NodeInfoRequest {}).await.map_err(|status| target.error(&status))?;
            if info.into_inner().peers == 0 {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.context("the gateway has not noticed that A left")?
}
