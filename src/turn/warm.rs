//! Answers ahead of time: the operator's questions are asked while the providers are well and nobody else asks them anything.
//!
//! One question a step; it goes through the router as any other, so what bars a provider (its budget, its limits) bars it here too.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::desk::Desk;
use super::prompt::{self, Shape};
use crate::chat::{At, ProviderState};
use crate::degradation::cache::warming;
use crate::degradation::shelf::Renewal;
use crate::router::table::Table;
use crate::settings::Settings;

/// The time from one question to the next.
const STEP: Duration = Duration::from_secs(10);

/// The time from one question to the next where the operator ordered all of them to be asked.
const PACE: Duration = Duration::from_millis(500);

/// A question that was asked is left alone for so long, whatever came of it.
const AGAIN: Duration = Duration::from_secs(5 * 60);

/// Asks what is due, for ever.
pub async fn warm(desk: Arc<Desk>) {
    // When each was asked, of those that are to be asked now.
    let mut asked: HashMap<String, Instant> = HashMap::new();
    let mut steps = tokio::time::interval(STEP);
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let ordered = tokio::select! {
            _ = steps.tick() => false,
            () = desk.warming.notified() => true,
        };
        let (now, table) = (desk.clock.wall(), desk.table());
        let settings = &table.settings;
        asked.retain(|question, _| settings.cache.warm.contains(question));
        if ordered {
            for question in &settings.cache.warm {
                if let Some(renewal) = desk.shelf.at_once(question, now).await {
                    asked.insert(question.clone(), Instant::now());
                    ask(&desk, settings, question, renewal);
                    tokio::time::sleep(PACE).await;
                }
            }
            continue;
        }
        if !warming::is_time(now, &settings.cache) || !is_quiet(&table, now) {
            continue;
        }
        for question in &settings.cache.warm {
            if asked
                .get(question)
                .is_some_and(|asked| asked.elapsed() < AGAIN)
            {
                continue;
            }
            let Some(renewal) = desk.shelf.ahead(question, now).await else {
                continue;
            };
            asked.insert(question.clone(), Instant::now());
            ask(&desk, settings, question, renewal);
            break;
        }
    }
}

fn ask(desk: &Arc<Desk>, settings: &Settings, question: &str, renewal: Renewal) {
    let shape = Shape {
        history_turns: 0,
        max_tokens: settings.chat.max_tokens,
        retry_of: None,
    };
    let ask = prompt::ask(
        Arc::clone(&settings.chat.system_prompt),
        &[],
        question,
        shape,
    );
    desk.renew(ask, renewal);
}

/// Whether every provider that is in use is well, and none is asked anything.
fn is_quiet(table: &Table, now: At) -> bool {
    table.backends.iter().all(|backend| {
        let vitals = backend.vitals.borrow();
        let well = vitals.state == ProviderState::Closed
            && vitals.waits_until().is_none_or(|until| until <= now);
        vitals.in_flight == 0 && (well || vitals.state == ProviderState::Disabled)
    })
}
