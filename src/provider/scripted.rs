//! A provider client without sockets for tests. It follows a script on a paused clock and records
//! its calls and open connections.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream;
use tokio::time::Instant;

use super::upstream::{Step, Steps, Upstream};
use crate::chat::{Ask, Failure, Fault, Finish, Role, Usage};

#[derive(Clone, Debug)]
pub enum Act {
    Say(String),
    Think,
    /// Reports token usage: input tokens, output tokens.
    Used(u64, u64),
    Wait(Duration),
    /// Sends this text again and again, each time after a pause, without end.
    Forever(String, Duration),
    Hang,
    End(Finish),
    Fail(Failure),
    /// Panics in the code that reads the answer.
    Panic,
}

/// The steps of one call. A script without a final `Finish` or `Fail` violates the contract of
/// [`EventStream`].
pub type Script = Vec<Act>;

pub fn says(text: &str) -> Script {
    vec![Act::Say(text.to_owned()), Act::End(Finish::Stop)]
}

pub fn says_slowly(first: &str, pause: Duration, rest: &str) -> Script {
    vec![
        Act::Say(first.to_owned()),
        Act::Wait(pause),
        Act::Say(rest.to_owned()),
        Act::End(Finish::Stop),
    ]
}

pub fn fails(fault: Fault) -> Script {
    vec![Act::Fail(Failure::of(fault))]
}

pub fn limited(retry_after: Duration) -> Script {
    vec![Act::Fail(Failure {
        retry_after: Some(retry_after),
        ..Failure::of(Fault::RateLimited)
    })]
}

pub fn breaks(text: &str, fault: Fault) -> Script {
    vec![Act::Say(text.to_owned()), Act::Fail(Failure::of(fault))]
}

pub fn silent() -> Script {
    vec![Act::Hang]
}

#[derive(Clone, Debug)]
pub struct Call {
    pub at: Instant,
    pub ask: Ask,
    /// All text sent so far.
    pub said: String,
    pub failure: Option<Failure>,
}

#[derive(Default)]
struct Scripts {
    scripts: VecDeque<Script>,
    calls: Vec<Call>,
}

impl Scripts {
    /// Records a call and returns its index and script. The last script is repeated.
    fn next(&mut self, ask: &Ask, obliging: bool) -> (usize, Script) {
        self.calls.push(Call {
            at: Instant::now(),
            ask: ask.clone(),
            said: String::new(),
            failure: None,
        });
        let script = match self.scripts.len() {
            0 => says("Hello."),
            1 => self.scripts.front().cloned().unwrap_or_default(),
            _ => self.scripts.pop_front().unwrap_or_default(),
        };
        let script = if obliging { go_on(ask, script) } else { script };
        (self.calls.len() - 1, script)
    }
}

/// Adapts a script to a request that continues a partial answer: only the missing rest is sent. If
/// the last line of the last message is the end of the partial answer, the rest repeats it first.
fn go_on(ask: &Ask, script: Script) -> Script {
    let full_text: String = script.iter().filter_map(said).collect();
    let partial = ask
        .messages
        .iter()
        .rev()
        .take(2)
        .find(|message| message.role == Role::Assistant);
    let partial = match partial.map(|message| &*message.text) {
        Some(partial) if !partial.is_empty() && full_text.starts_with(partial) => partial,
        _ => return script,
    };
    let repeat = ask.messages.last().map_or("", |message| {
        message.text.lines().last().unwrap_or_default()
    });
    let repeat = if ask.goes_on || !partial.ends_with(repeat) {
        ""
    } else {
        repeat
    };
    let mut skip = partial.len() - repeat.len();
    let rest = script.into_iter().filter_map(|act| {
        let Act::Say(text) = act else {
            return Some(act);
        };
        let skipped = skip.min(text.len());
        skip -= skipped;
        let rest = text.get(skipped..).unwrap_or_default();
        (!rest.is_empty()).then(|| Act::Say(rest.to_owned()))
    });
    rest.collect()
}

fn said(act: &Act) -> Option<&str> {
    match act {
        Act::Say(text) => Some(text),
        _ => None,
    }
}

/// The scripts and calls of one kind: turns or probes.
#[derive(Default)]
struct Line {
    scripts: Mutex<Scripts>,
    open: AtomicUsize,
    most_open: AtomicUsize,
}

/// A provider client that follows one script per call. Turns and breaker probes have their own
/// scripts.
#[derive(Default)]
pub struct Scripted {
    turns: Arc<Line>,
    probes: Arc<Line>,
    /// The scripts of listings, and the number of listings so far.
    listing_scripts: Mutex<(VecDeque<Script>, usize)>,
    obliging: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scripted {
    /// Sets the scripts of turns, one per call. The last one is repeated.
    pub fn follow(&self, scripts: impl IntoIterator<Item = Script>) {
        lock(&self.turns.scripts).scripts = scripts.into_iter().collect();
    }

    pub fn follow_when_probed(&self, scripts: impl IntoIterator<Item = Script>) {
        lock(&self.probes.scripts).scripts = scripts.into_iter().collect();
    }

    /// Makes it continue partial answers that are the start of its own script.
    pub fn oblige(&self, obliging: bool) {
        self.obliging.store(obliging, Ordering::SeqCst);
    }

    /// Sets the scripts of listings. A listing succeeds unless its script fails or hangs.
    pub fn follow_when_listed(&self, scripts: impl IntoIterator<Item = Script>) {
        lock(&self.listing_scripts).0 = scripts.into_iter().collect();
    }

    pub fn listings(&self) -> usize {
        lock(&self.listing_scripts).1
    }

    pub fn calls(&self) -> Vec<Call> {
        lock(&self.turns.scripts).calls.clone()
    }

    pub fn probes(&self) -> Vec<Call> {
        lock(&self.probes.scripts).calls.clone()
    }

    pub fn open(&self) -> usize {
        self.turns.open.load(Ordering::SeqCst)
    }

    pub fn most_probes(&self) -> usize {
        self.probes.most_open.load(Ordering::SeqCst)
    }
}

struct Connection(Arc<Line>);

impl Connection {
    fn open(line: &Arc<Line>) -> Self {
        let open = line.open.fetch_add(1, Ordering::SeqCst) + 1;
        line.most_open.fetch_max(open, Ordering::SeqCst);
        Self(Arc::clone(line))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Upstream for Scripted {
    fn ask(&self, ask: &Ask) -> Steps {
        let is_probe = ask.max_tokens == 1;
        let lane = Arc::clone(if is_probe { &self.probes } else { &self.turns });
        let (index, script) = lock(&lane.scripts).next(ask, self.obliging.load(Ordering::SeqCst));
        let connection = Connection::open(&lane);
        let record = move |event: &Result<Step, Failure>| {
            if let Some(call) = lock(&lane.scripts).calls.get_mut(index) {
                match event {
                    Ok(Step::Text(text)) => call.said.push_str(text),
                    Ok(_) => {}
                    Err(failure) => call.failure = Some(failure.clone()),
                }
            }
        };
        let initial_state = (VecDeque::from(script), record, connection);
        Box::pin(stream::unfold(
            initial_state,
            |(mut script, record, connection)| async move {
                loop {
                    let event = match script.pop_front()? {
                        Act::Wait(pause) => {
                            tokio::time::sleep(pause).await;
                            continue;
                        }
                        Act::Forever(text, pause) => {
                            tokio::time::sleep(pause).await;
                            script.push_front(Act::Forever(text.clone(), pause));
                            Ok(Step::Text(text))
                        }
                        Act::Hang => std::future::pending().await,
                        // Panics without running the panic hook.
                        Act::Panic => std::panic::resume_unwind(Box::new("scripted panic")),
                        Act::Say(text) => Ok(Step::Text(text)),
                        Act::Think => Ok(Step::Thinking),
                        Act::Used(input_tokens, output_tokens) => Ok(Step::Usage(Usage {
                            input_tokens,
                            output_tokens,
                            estimated: false,
                        })),
                        Act::End(finish) => Ok(Step::End(finish)),
                        Act::Fail(failure) => Err(failure),
                    };
                    record(&event);
                    return Some((event, (script, record, connection)));
                }
            },
        ))
    }

    fn list(&self) -> BoxFuture<'static, Result<(), Failure>> {
        let mut listings = lock(&self.listing_scripts);
        listings.1 += 1;
        let script = if listings.0.len() > 1 {
            listings.0.pop_front()
        } else {
            listings.0.front().cloned()
        };
        Box::pin(async move {
            for act in script.unwrap_or_default() {
                match act {
                    Act::Fail(failure) => return Err(failure),
                    Act::Wait(pause) => tokio::time::sleep(pause).await,
                    Act::Hang => std::future::pending().await,
                    _ => {}
                }
            }
            Ok(())
        })
    }
}
