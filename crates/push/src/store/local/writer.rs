//! The one that writes a database: a thread that gathers what several callers want into one transaction, so that one
//! commit serves them all, and each table is opened once for them all. While it commits the next group gathers. A commit
//! costs more processor time than all else that a request needs, so a group waits a moment for more where there was
//! more; who is alone waits for nobody.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use redb::{Database, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::super::{ErrorKind, StoreError};
use super::open::begin;

/// The most jobs of one transaction.
const GROUP: usize = 256;
/// How long a group waits for more, if the last one had more than one job.
const LINGER: Duration = Duration::from_millis(4);

/// Which tables the transactions of a database have, and what has to be done beside them.
pub(super) trait Aside: Send + 'static {
    /// The tables.
    type Tables<'t>;

    /// Opens them, and makes those that there are not.
    fn tables(transaction: &WriteTransaction) -> Result<Self::Tables<'_>, StoreError>;
    /// Before the commit: makes durable what the rows of the transaction refer to.
    fn before_commit(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// After the commit and before anybody is told: takes away what no row refers to any more.
    fn after_commit(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Instead of both: takes back what was done for a transaction that was given up.
    fn abort(&mut self) -> Result<(), StoreError> {
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
    jobs: Mutex<Option<mpsc::Sender<Box<dyn Job<A>>>>>,
    failure: Arc<Mutex<Option<StoreError>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What one caller wants.
trait Job<A: Aside>: Send {
    /// Does its part of a transaction. It is done again if the transaction is given up for the sake of another's part.
    fn run(&mut self, tables: &mut A::Tables<'_>, aside: &mut A) -> Result<(), StoreError>;
    /// Tells the caller what came of it. A caller also wakes when a job is dropped.
    fn tell(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Work<T, W> {
    work: W,
    done: Option<T>,
    teller: oneshot::Sender<Result<T, StoreError>>,
}

impl<A, T, W> Job<A> for Work<T, W>
where
    A: Aside,
    T: Send,
    W: Fn(&mut A::Tables<'_>, &mut A) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, tables: &mut A::Tables<'_>, aside: &mut A) -> Result<(), StoreError> {
        self.done = Some((self.work)(tables, aside)?);
        Ok(())
    }

    fn tell(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Self { done, teller, .. } = *self;
        if let Some(told) = outcome.map(|()| done).transpose() {
            // Nobody may be waiting any more.
            drop(teller.send(told));
        }
    }
}

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

    /// Runs `work` in a transaction, and returns what it gave once that is durable. An error of `work` undoes its part
    /// and concerns nobody else. After an error that leaves in doubt what is on disk the writer takes nothing more.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl Fn(&mut A::Tables<'_>, &mut A) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (teller, told) = oneshot::channel();
        let jobs = self.jobs.lock().clone();
        let handed_over = match jobs {
            Some(jobs) => jobs.send(Box::new(Work { work, done: None, teller })).await.is_ok(),
            None => false,
        };
        let told = if handed_over { told.await.ok() } else { None };
        told.unwrap_or_else(|| Err(self.refusal()))
    }

    /// What is told to those whose change was not made. Not that something is damaged, which sounds as if it were theirs.
    fn refusal(&self) -> StoreError {
        let failure = self.failure.lock().clone();
        failure.filter(|failure| !failure.is_of_one_owner()).unwrap_or(StoreError::Closed)
    }

    /// Why nothing is written, if so: [`StoreError::Damaged`] as long as the tables cannot be read, others for good.
    pub(super) fn failure(&self) -> Option<StoreError> {
        let failure = self.failure.lock().clone();
        failure.or_else(|| {
            let is_open = self.jobs.lock().is_some();
            let has_ended = self.thread.lock().as_ref().is_some_and(JoinHandle::is_finished);
            (is_open && has_ended).then_some(StoreError::Closed)
        })
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
    mut jobs: mpsc::Receiver<Box<dyn Job<A>>>,
    failure: &Mutex<Option<StoreError>>,
) {
    let mut is_busy = false;
    while let Some(first) = jobs.blocking_recv() {
        let mut group = vec![first];
        gather(&mut jobs, &mut group);
        if is_busy && group.len() < GROUP {
            std::thread::sleep(LINGER);
            gather(&mut jobs, &mut group);
        }
        is_busy = group.len() > 1;
        let mut step = Step::Beginning;
        let commit = || commit(writing, database, &mut aside, &mut group, &mut step);
        let outcome = catch_unwind(AssertUnwindSafe(commit))
            .unwrap_or_else(|_| Err(StoreError::corrupt(writing.name, "something in it cannot be read")));
        match outcome {
            Ok(()) => {
                failure.lock().take();
                group.into_iter().for_each(|job| job.tell(Ok(())));
            }
            // Nothing was changed, and it would be the same after a restart.
            Err(error) if step == Step::Beginning && error.kind() == ErrorKind::Corrupt => {
                tracing::error!(file = writing.name, %error, "nothing is written until it can be read");
                *failure.lock() = Some(StoreError::Damaged);
                group.into_iter().for_each(|job| job.tell(Err(StoreError::Damaged)));
            }
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

/// How far a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Its tables are being opened.
    Beginning,
    Changing,
}

/// Takes what waits.
fn gather<A: Aside>(jobs: &mut mpsc::Receiver<Box<dyn Job<A>>>, group: &mut Vec<Box<dyn Job<A>>>) {
    while group.len() < GROUP {
        let Ok(job) = jobs.try_recv() else { return };
        group.push(job);
    }
}

/// A job that panics has met what the database never wrote, and would meet it again after a restart: it is not made,
/// and others are.
fn attempt<A: Aside>(
    job: &mut dyn Job<A>,
    tables: &mut A::Tables<'_>,
    aside: &mut A,
) -> Result<(), StoreError> {
    let done = catch_unwind(AssertUnwindSafe(|| job.run(tables, aside)));
    done.unwrap_or_else(|_| Err(StoreError::corrupt("the store", "something in it cannot be read")))
}

/// One transaction of all jobs that do not fail; those that do are told and taken out. An error leaves the database in a
/// state that only opening it again can tell.
fn commit<A: Aside>(
    writing: Writing,
    database: &Database,
    aside: &mut A,
    group: &mut Vec<Box<dyn Job<A>>>,
    step: &mut Step,
) -> Result<(), StoreError> {
    while !group.is_empty() {
        *step = Step::Beginning;
        let transaction = begin(database)?;
        let failed = {
            let mut tables = A::tables(&transaction)?;
            *step = Step::Changing;
            let mut jobs = group.iter_mut().enumerate();
            jobs.find_map(|(number, job)| Some((number, attempt(job.as_mut(), &mut tables, aside).err()?)))
        };
        let Some((number, error)) = failed else {
            aside.before_commit()?;
            transaction.commit()?;
            return aside.after_commit();
        };
        tracing::warn!(file = writing.name, %error, "a change was not made");
        // What cannot be taken back has the same cause.
        let taken_back = transaction.abort().map_err(StoreError::from).and_then(|()| aside.abort());
        taken_back.map_err(|_| error.clone())?;
        group.remove(number).tell(Err(error));
    }
    Ok(())
}
