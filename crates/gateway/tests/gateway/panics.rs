//! Panics of the services. Tokio swallows them, so a hook remembers them and the tests ask.

use std::panic;
use std::sync::{Mutex, Once};
use std::thread;

use tokio::runtime::{Handle, Id};

static HOOK: Once = Once::new();
static SEEN: Mutex<Vec<(Option<Id>, String)>> = Mutex::new(Vec::new());

/// From now on panics on tokio's threads are remembered: there the services run. (Tests themselves run on threads of
/// their own, and fail by themselves.)
pub(crate) async fn watch() {
    HOOK.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if on_tokio() {
                SEEN.lock().unwrap().push((runtime(), info.to_string()));
            }
            print(info);
        }));
    });
    let workers_are_told_apart = tokio::spawn(async { on_tokio() && runtime().is_some() }).await.unwrap();
    assert!(workers_are_told_apart && !on_tokio(), "run these tests with the multi_thread flavor");
}

/// Nothing has panicked so far in the runtime of this test, nor in none that could be told.
pub(crate) fn assert_none() {
    let ours = runtime();
    let seen = SEEN.lock().unwrap();
    let seen: Vec<_> = seen.iter().filter(|(runtime, _)| runtime.is_none() || *runtime == ours).collect();
    assert!(seen.is_empty(), "a service panicked: {seen:#?}");
}

fn on_tokio() -> bool {
    thread::current().name().is_some_and(|name| name.starts_with("tokio"))
}

fn runtime() -> Option<Id> {
    Handle::try_current().ok().map(|handle| handle.id())
}
