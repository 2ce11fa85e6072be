//! Warms the answer cache: asks the operator's questions while the providers are healthy and idle.
//!
//! The questions go through the router like any other, so a provider's budget and limits apply.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::prompt::{self, PromptLimits};
use super::service::TurnService;
use crate::answer_cache::RefreshJob;
use crate::answer_cache::policy;
use crate::config::Settings;
use crate::domain::{ProviderState, Timestamp};
use crate::router::runtime_config::RuntimeConfig;

const QUESTION_INTERVAL: Duration = Duration::from_secs(10);

/// The time between two questions after an operator's order to warm all of them.
const ORDERED_INTERVAL: Duration = Duration::from_millis(500);

/// A question is not asked again within this time, whatever the result was.
const REASK_AFTER: Duration = Duration::from_secs(5 * 60);

pub async fn run_warmer(service: Arc<TurnService>) {
    // The last time each of the configured questions was asked.
    let mut asked: HashMap<String, Instant> = HashMap::new();
    let mut steps = tokio::time::interval(QUESTION_INTERVAL);
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_ordered = tokio::select! {
            _ = steps.tick() => false,
            () = service.warm_now.notified() => true,
        };
        let now = service.clock.wall();
        let table = service.config();
        let settings = &table.settings;
        asked.retain(|question, _| settings.cache.warm.contains(question));
        if is_ordered {
            for question in &settings.cache.warm {
                if let Some(renewal) = service.answer_cache.warming_job(question, now, true).await {
                    asked.insert(question.clone(), Instant::now());
                    ask_question(&service, settings, question, renewal);
                    tokio::time::sleep(ORDERED_INTERVAL).await;
                }
            }
            continue;
        }
        if !policy::is_in_warm_window(now, &settings.cache) || !are_providers_idle(&table, now) {
            continue;
        }
        // Ask the first question that is due. The next tick checks again whether providers are
        // idle.
        for question in &settings.cache.warm {
            if asked
                .get(question)
                .is_some_and(|asked_at| asked_at.elapsed() < REASK_AFTER)
            {
                continue;
            }
            let Some(renewal) = service.answer_cache.warming_job(question, now, false).await else {
                continue;
            };
            asked.insert(question.clone(), Instant::now());
            ask_question(&service, settings, question, renewal);
            break;
        }
    }
}

fn ask_question(
    service: &Arc<TurnService>,
    settings: &Settings,
    question: &str,
    renewal: RefreshJob,
) {
    let limits = PromptLimits {
        history_turns: 0,
        max_tokens: settings.chat.max_tokens,
        retry_of: None,
    };
    let request = prompt::build_request(
        Arc::clone(&settings.chat.system_prompt),
        &[],
        question,
        limits,
    );
    service.refresh_cached_answer(request, renewal);
}

/// Returns `true` if every enabled provider is healthy and none has a call in flight.
fn are_providers_idle(table: &RuntimeConfig, now: Timestamp) -> bool {
    table.providers.iter().all(|provider| {
        let status = provider.status.borrow();
        let is_healthy = status.state == ProviderState::Closed
            && status.unavailable_until().is_none_or(|until| until <= now);
        status.in_flight == 0 && (is_healthy || status.state == ProviderState::Disabled)
    })
}
