//! The end of a server between any two steps of a request: the device rings at most once, and whoever asks again is told
//! what is true.
//!
//! Here the whole process is killed; the power cuts are where the store's disks can be cut off.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokio::sync::Notify;

use super::*;
use crate::store::{Options, RedbStore};

const DIR: &str = "POSTE_PUSH_SERVER_TO_KILL";
const POINT: &str = "POSTE_PUSH_KILL_AT";
const REACHED: &str = "reached";

/// Where a server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// The notification is claimed, and nobody was called.
    Claimed,
    /// The provider took it, and its answer did not come.
    Sent,
    /// The claim has ended, and the answer did not leave.
    Ended,
}

impl Point {
    pub(crate) const ALL: [Self; 3] = [Self::Claimed, Self::Sent, Self::Ended];

    /// How often the device has rung, and what is reported from then on: success, error.
    pub(crate) fn outcome(self) -> (usize, (bool, i32)) {
        match self {
            Self::Claimed => (0, (false, 0)),
            Self::Sent => (1, (false, 0)),
            Self::Ended => (1, (true, 0)),
        }
    }
}

/// A provider whose pushes are lines of a file, and who does not come back at one point.
#[derive(Debug)]
pub(crate) struct Stopping {
    pub(crate) pushes: PathBuf,
    pub(crate) at: Option<Point>,
    pub(crate) reached: Notify,
}

impl Stopping {
    pub(crate) fn new(pushes: &Path, at: Option<Point>) -> Arc<Self> {
        Arc::new(Self { pushes: pushes.to_owned(), at, reached: Notify::new() })
    }

    async fn stop_at(&self, point: Point) {
        if self.at == Some(point) {
            self.reached.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

impl PushProvider for Stopping {
    fn send(&self, notification: Notification) -> BoxFuture<'_, Outcome> {
        async move {
            self.stop_at(Point::Claimed).await;
            let mut file = OpenOptions::new().create(true).append(true).open(&self.pushes).unwrap();
            writeln!(file, "{}", notification.token.expose()).unwrap();
            self.stop_at(Point::Sent).await;
            Outcome::Sent
        }
        .boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), Unavailable>> {
        async { Ok(()) }.boxed()
    }
}

pub(crate) fn push_count(pushes: &Path) -> usize {
    std::fs::read_to_string(pushes).map_or(0, |text| text.lines().count())
}

/// Registers, asks for a notification, and comes as far as the point.
pub(crate) async fn go_as_far_as(point: Point, store: Arc<dyn RegistrationStore>, pushes: &Path) {
    let provider = Stopping::new(pushes, Some(point));
    let rig = Rig::on(store, provider.clone()).await;
    let (receiver, sender) = (Client::new(1), Client::new(2));
    receiver.register(&rig, &receiver.registration(1)).await.unwrap();
    rig.world.is_gateway_away.store(true, Ordering::Relaxed);
    let request = client::seal(&sender.request(b"id", &[receiver.notification()]));
    tokio::select! {
        handled = rig.bring(client::partitioned(), request, NOW) => {
            assert!(point == Point::Ended && handled.is_err());
        }
        () = provider.reached.notified() => assert_ne!(point, Point::Ended),
    }
}

/// Asks again, the same and from another key, of a server that found the store.
pub(crate) async fn ask_again(point: Point, store: Arc<dyn RegistrationStore>, pushes: &Path) {
    let rig = Rig::on(store, Stopping::new(pushes, None)).await;
    let requests = [Client::new(1).notification()];
    let (rung, report) = point.outcome();
    for sender in [2, 2, 3] {
        assert_eq!(Client::new(sender).notify(&rig, b"id", &requests).await, [report], "{point:?}");
    }
    assert_eq!(push_count(pushes), rung, "{point:?}");
    assert_eq!(Client::new(2).notify(&rig, b"next", &requests).await, [(true, 0)], "and life goes on");
    assert_eq!(push_count(pushes), rung + 1);
}

fn open(dir: &Path) -> Arc<RedbStore> {
    Arc::new(RedbStore::open(dir, &SERVER.public(), Options::default()).unwrap())
}

#[tokio::test]
async fn a_kill_between_any_two_steps_rings_at_most_once() {
    for point in Point::ALL {
        let dir = tempfile::tempdir().unwrap();
        let pushes = dir.path().join("pushes");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "server::tests::crashes::child", "--ignored", "--nocapture"])
            .env(DIR, dir.path())
            .env(POINT, format!("{point:?}"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let is_reached = lines.map_while(Result::ok).any(|line| line == REACHED);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_reached, "the child did not come as far as {point:?}");
        ask_again(point, open(&dir.path().join("store")), &pushes).await;
    }
}

#[tokio::test]
#[ignore = "the process that another test kills"]
#[allow(clippy::print_stdout)]
async fn child() {
    let (Some(dir), Ok(point)) = (std::env::var_os(DIR), std::env::var(POINT)) else { return };
    let dir = Path::new(&dir);
    let point = Point::ALL.into_iter().find(|known| format!("{known:?}") == point).unwrap();
    // Not closed: it is open when the process ends.
    let store = open(&dir.join("store"));
    go_as_far_as(point, store.clone(), &dir.join("pushes")).await;
    println!("\n{REACHED}");
    std::future::pending::<()>().await;
    drop(store);
}
