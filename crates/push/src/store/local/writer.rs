//! The one that writes a database: a thread that gathers what several callers want into one transaction, so that one
//! commit serves them all. While it commits the next group gathers; nobody waits for a timer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use redb::{Database, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::super::StoreError;
use super::open::begin;

/// The most jobs of one transaction.
const GROUP: usize = 256;

/// What has to be done beside a transaction.
pub(super) trait Aside: Send + 'static {
    /// Before the commit: makes durable what the rows of the transaction refer to.
    fn before_commit(&mut self) -> Result<(), StoreError>;
    /// After the commit and before anybody is told: takes away what no row refers to any more.
    fn after_commit(&mut self) -> Result<(), StoreError>;
}

/// For databases that stand alone.
impl Aside for () {
    fn before_commit(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn after_commit(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// How a database is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writing {
    /// The name of its file.
    pub(super) name: &'static str,
    /// How many jobs may wait.
    pub(super) queue: usize,
}

/// The handle of the thread. The thread ends with the handle, when it has written what was handed over.
pub(super) struct Writer<A: Aside> {
    jobs: Mutex<Option<mpsc::Sender<Job<A>>>>,
    failure: Arc<Mutex<Option<StoreError>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Does its part of the transaction, and leaves what tells the caller once that is durable. Also when it fails: the
/// caller wakes when that is dropped.
type Job<A> = Box<dyn FnOnce(&WriteTransaction, &mut A, &mut Vec<Tell>) -> Result<(), StoreError> + Send>;
type Tell = Box<dyn FnOnce()>;

impl<A: Aside> Writer<A> {
    /// Starts the thread.
    pub(super) fn start(writing: Writing, database: Arc<Database>, aside: A) -> Result<Self, StoreError> {
        let (sender, receiver) = mpsc::channel(writing.queue);
        let failure = Arc::new(Mutex::new(None));
        let thread = {
            let failure = Arc::clone(&failure);
            std::thread::Builder::new()
                .name(format!("push {}", writing.name))
                .spawn(move || run(writing, &database, aside, receiver, &failure))
                .map_err(StoreError::io("start the thread that writes", writing.name.as_ref()))?
        };
        Ok(Self { jobs: Mutex::new(Some(sender)), failure, thread: Mutex::new(Some(thread)) })
    }

    /// Runs `work` in a transaction, and returns what it gave once that is durable. When any work of the transaction
    /// fails, all of it does, and the writer takes nothing more.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&WriteTransaction, &mut A) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (tell, told) = oneshot::channel();
        let job: Job<A> = Box::new(move |transaction, aside, tellings| {
            let (done, failed) = match work(transaction, aside) {
                Ok(done) => (Some(done), Ok(())),
                Err(error) => (None, Err(error)),
            };
            // Nobody may be waiting any more.
            tellings.push(Box::new(move || drop(done.map(|done| tell.send(done)))));
            failed
        });
        let jobs = self.jobs.lock().clone();
        let handed_over = match jobs {
            Some(jobs) => jobs.send(job).await.is_ok(),
            None => false,
        };
        let done = if handed_over { told.await.ok() } else { None };
        done.ok_or_else(|| self.failure.lock().clone().unwrap_or(StoreError::Closed))
    }

    /// Takes nothing more, and waits until what was handed over is written. It blocks.
    pub(super) fn close(&self) -> Result<(), StoreError> {
        drop(self.jobs.lock().take());
        if let Some(thread) = self.thread.lock().take() {
            // A panic of the thread was told on its way.
            drop(thread.join());
        }
        self.failure.lock().clone().map_or(Ok(()), Err)
    }
}

impl<A: Aside> Drop for Writer<A> {
    fn drop(&mut self) {
        // Whoever cares for the error calls `close` before.
        drop(self.close());
    }
}

fn run<A: Aside>(
    writing: Writing,
    database: &Database,
    mut aside: A,
    mut jobs: mpsc::Receiver<Job<A>>,
    failure: &Mutex<Option<StoreError>>,
) {
    while let Some(first) = jobs.blocking_recv() {
        let mut group = VecDeque::from([first]);
        while group.len() < GROUP {
            let Ok(job) = jobs.try_recv() else { break };
            group.push_back(job);
        }
        let mut tellings = Vec::with_capacity(group.len());
        match commit(database, &mut aside, &mut group, &mut tellings) {
            Ok(()) => tellings.into_iter().for_each(|tell| tell()),
            Err(error) => {
                tracing::error!(file = writing.name, %error, "nothing is written until the store is opened again");
                // Set while the jobs of the group and of the queue are still there: when they are dropped, their
                // callers find that nobody answers, and look here.
                *failure.lock() = Some(error);
                return;
            }
        }
    }
}

/// One transaction. An error of any part leaves the database as it was, or, from the commit on, in a state that only
/// opening it again can tell.
fn commit<A: Aside>(
    database: &Database,
    aside: &mut A,
    group: &mut VecDeque<Job<A>>,
    tellings: &mut Vec<Tell>,
) -> Result<(), StoreError> {
    let transaction = begin(database)?;
    while let Some(job) = group.pop_front() {
        job(&transaction, aside, tellings)?;
    }
    aside.before_commit()?;
    transaction.commit()?;
    aside.after_commit()
}
