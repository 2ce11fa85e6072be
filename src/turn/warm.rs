//! Warms the answer cache: asks the operator's questions while the providers are healthy and idle.
//!
//! The questions go through the router like any other, so a provider's budget and limits apply.

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

const STEP: Duration = Duration::from_secs(10);

/// The time between two questions after an operator's order to warm all of them.
const PACE: Duration = Duration::from_millis(500);

/// A question is not asked again within this time, whatever the result was.
const AGAIN: Duration = Duration::from_secs(5 * 60);

pub async fn warm(service: Arc<Desk>) {
    // The last time each of the configured questions was asked.
    let mut asked: HashMap<String, Instant> = HashMap::new();
    let mut steps = tokio::time::interval(STEP);
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_ordered = tokio::select! {
            _ = steps.tick() => false,
            () = service.warming.notified() => true,
        };
        let now = service.clock.wall();
        let table = service.table();
        let settings = &table.settings;
        asked.retain(|question, _| settings.cache.warm.contains(question));
        if is_ordered {
            for question in &settings.cache.warm {
                if let Some(renewal) = service.shelf.at_once(question, now).await {
                    asked.insert(question.clone(), Instant::now());
                    ask(&service, settings, question, renewal);
                    tokio::time::sleep(PACE).await;
                }
            }
            continue;
        }
        if !warming::is_time(now, &settings.cache) || !is_quiet(&table, now) {
            continue;
        }
        // Ask the first question that is due. The next tick checks again whether providers are
        // idle.
        for question in &settings.cache.warm {
            if asked
                .get(question)
                .is_some_and(|asked_at| asked_at.elapsed() < AGAIN)
            {
                continue;
            }
            let Some(renewal) = service.shelf.ahead(question, now).await else {
                continue;
            };
            asked.insert(question.clone(), Instant::now());
            ask(&service, settings, question, renewal);
            break;
        }
    }
}

fn ask(service: &Arc<Desk>, settings: &Settings, question: &str, renewal: Renewal) {
    let limits = Shape {
        history_turns: 0,
        max_tokens: settings.chat.max_tokens,
        retry_of: None,
    };
    let request = prompt::ask(
        Arc::clone(&settings.chat.system_prompt),
        &[],
        question,
        limits,
    );
    service.renew(request, renewal);
}

/// Returns `true` if every enabled provider is healthy and none has a call in flight.
fn is_quiet(table: &Table, now: At) -> bool {
    table.backends.iter().all(|backend| {
        let status = backend.vitals.borrow();
        let is_healthy = status.state == ProviderState::Closed
            && status.waits_until().is_none_or(|until| until <= now);
        status.in_flight == 0 && (is_healthy || status.state == ProviderState::Disabled)
    })
}
