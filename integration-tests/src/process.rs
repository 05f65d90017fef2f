//! A program that prints one JSON object a line on stdout, as `poste` and the foreign peers do.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A running program. It is killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: Arc<Output>,
}

/// What a program has printed so far. Everything is kept: a reader that lags must not stop the program.
#[derive(Debug, Default)]
struct Output {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    events: Vec<Value>,
    stderr: String,
    open: usize,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Every line of its stdout.
    pub events: Vec<Value>,
    /// Whether it exited with 0.
    pub success: bool,
    /// All of its stderr.
    pub stderr: String,
}

impl Process {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// A value of its `/proc/…/status` in KiB, such as `VmRSS`, its resident memory.
    pub fn memory_kib(&self, name: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(value.with_context(|| format!("no {name}"))?.trim().trim_end_matches(" kB").parse()?)
    }

    /// Starts `command`; `name` is what errors call it.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {name}: {command:?}"))?;
        let output = Arc::new(Output::default());
        output.lock().open = 2;
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let (lines, text) = (output.clone(), output.clone());
        let program = name.to_owned();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                match serde_json::from_str(&line) {
                    Ok(event) => lines.change(|state| state.events.push(event)),
                    Err(_) => eprintln!("{program}: {line}"),
                }
            }
            lines.change(|state| state.open -= 1);
        });
        thread::spawn(move || {
            let mut reader = BufReader::new(stderr);
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut chunk) {
                let words = String::from_utf8_lossy(&chunk[..read]).into_owned();
                text.change(|state| state.stderr.push_str(&words));
            }
            text.change(|state| state.open -= 1);
        });
        Ok(Self { name: name.to_owned(), child, output })
    }

    /// Waits until `look`, which sees all events so far, finds something. Fails after `within`, or when the program has
    /// ended without it; `what` names it.
    pub fn wait<T>(
        &self,
        what: &str,
        within: Duration,
        mut look: impl FnMut(&[Value]) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + within;
        let mut state = self.output.lock();
        loop {
            if let Some(found) = look(&state.events) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.open == 0 || left.is_zero() {
                let how = if state.open == 0 { "ended without" } else { "is too slow with" };
                bail!("{} {how} {what}; {}", self.name, state.describe());
            }
            state = self.output.changed.wait_timeout(state, left).expect("no reader panics").0;
        }
    }

    /// Waits for the first event of that name.
    pub fn event(&self, name: &str, within: Duration) -> Result<Value> {
        self.wait(name, within, |events| events.iter().find(|event| event["event"] == name).cloned())
    }

    /// Waits until `count` events satisfy `wanted`.
    pub fn count(
        &self,
        what: &str,
        count: usize,
        within: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<()> {
        let (mut seen, mut found) = (0, 0);
        self.wait(what, within, |events| {
            found += events[seen..].iter().filter(|event| wanted(event)).count();
            seen = events.len();
            (found >= count).then_some(())
        })
    }

    /// Waits for the end of the program.
    pub fn finish(mut self, within: Duration) -> Result<Ended> {
        let deadline = Instant::now() + within;
        let mut state = self.output.lock();
        while state.open > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{} did not end within {within:?}; {}", self.name, state.describe());
            }
            state = self.output.changed.wait_timeout(state, left).expect("no reader panics").0;
        }
        let (events, stderr) = (std::mem::take(&mut state.events), std::mem::take(&mut state.stderr));
        drop(state);
        let status = self.child.wait().with_context(|| format!("wait for {}", self.name))?;
        Ok(Ended { events, success: status.success(), stderr })
    }

    /// Waits for the end of the program, which must be exit code 0.
    pub fn succeed(self, within: Duration) -> Result<Ended> {
        let name = self.name.clone();
        let ended = self.finish(within)?;
        if !ended.success {
            let last = ended.events.last().map(Value::to_string).unwrap_or_default();
            bail!("{name} failed; its last line: {last}; its stderr: {}", tail(&ended.stderr));
        }
        Ok(ended)
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Ends it without a chance to do anything more (SIGKILL), and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("kill {}", self.name))?;
        self.child.wait().with_context(|| format!("wait for {}", self.name))?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a process id")?;
        kill_process(pid, signal).with_context(|| format!("signal {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Output {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no reader panics")
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

impl State {
    fn describe(&self) -> String {
        let last = self.events.last().map(Value::to_string).unwrap_or_default();
        format!("{} lines, the last one: {last}; stderr: {}", self.events.len(), tail(&self.stderr))
    }
}

/// The last lines of a log.
fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
