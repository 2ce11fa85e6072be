//! Performance: a fast answer, a page which was frozen, and reconnection pauses.

use std::time::Duration;

use serde_json::{Value, json};

use super::chrome::Chrome;
use super::cutting_proxy::BrowserProxy;
use super::page_driver::{BrowserTab, count_restarts};
use super::test_site::TestSite;
use super::xss::site_with_providers;
use crate::binary::ws_client::Visitor;
use crate::harness::{
    ScriptStep, ScriptedProvider, send_text, stream_end, stream_head, token_event,
};

const TOKENS_PER_SECOND: usize = 300;

const ANSWER_SECONDS: usize = 30;

/// Sends three words every 10 ms, in paragraphs, with some Markdown.
fn fast_script() -> Vec<ScriptStep> {
    let mut script = vec![send_text(&stream_head())];
    for step in 0..TOKENS_PER_SECOND * ANSWER_SECONDS / 3 {
        let end = if step % 40 == 39 { ".\n\n" } else { " " };
        let words = format!(
            "{}{}{}",
            token_event("some "),
            token_event("**words** "),
            token_event(&format!("number{step}{end}"))
        );
        script.extend([
            ScriptStep::Pause(Duration::from_millis(10)),
            send_text(&words),
        ]);
    }
    script.push(send_text(&stream_end()));
    script
}

/// Returns the CPU time in seconds which the page's thread has used so far.
async fn cpu_seconds(tab: &BrowserTab) -> f64 {
    let metrics = tab.cdp("Performance.getMetrics", json!({})).await;
    let metrics = metrics["metrics"].as_array().unwrap();
    metrics
        .iter()
        .find(|metric| metric["name"] == "TaskDuration")
        .unwrap()["value"]
        .as_f64()
        .unwrap()
}

#[tokio::test]
async fn fast_answer_is_drawn_once_per_frame_without_long_tasks() {
    let provider = ScriptedProvider::start(fast_script()).await;
    let site = site_with_providers(&[&provider], "Quick").await;
    let chrome = Chrome::start().await;
    let effort = chrome.watch_cpu_time();
    let tab = chrome.open(&site.address()).await;
    tab.wait_until("witness.frame('welcome')").await;
    // Counts the answer's DOM changes per animation frame.
    tab.eval(
        "(() => {
            witness.rest();
            witness.held.length = 0;
            window.pace = { draws: 0, most: 0, last: performance.now(), now: 0 };
            new MutationObserver(() => { pace.draws++; pace.now++; })
                .observe(document.querySelector('[data-role=\"log\"]'), { subtree: true, childList: true, characterData: true });
            const frame = () => {
              const at = performance.now();
              // After a long gap between frames the page draws by its timer instead: not counted.
              if (at - pace.last < 300) pace.most = Math.max(pace.most, pace.now);
              Object.assign(pace, { last: at, now: 0 });
              requestAnimationFrame(frame);
            };
            requestAnimationFrame(frame);
        })()",
    )
    .await;
    tab.cdp("Performance.enable", json!({ "timeDomain": "threadTicks" }))
        .await;
    tab.ask("Quick!").await;
    // Three tokens are 24 to 27 characters.
    let shown = |tokens: usize| format!("witness.text().length > {}", tokens * 8);
    let total = TOKENS_PER_SECOND * ANSWER_SECONDS;
    let mut costs = Vec::new();
    tab.wait_until(&shown(total / 10)).await;
    for part in [4, 7, 10] {
        let cost_before = cpu_seconds(&tab).await;
        tab.wait_within(
            Duration::from_secs(120),
            &shown(total * part / 10 - total / 20),
        )
        .await;
        costs.push(cpu_seconds(&tab).await - cost_before);
    }
    tab.wait_for_done().await;
    let pace = tab.eval("pace").await;
    println!("{costs:?} s of CPU time per 2700 tokens; {pace}");
    assert!(pace["draws"].as_u64() > Some(100), "{pace}");
    assert!(
        pace["most"].as_u64() <= Some(1),
        "more than one change between two frames: {pace}"
    );
    assert_eq!(effort.long_tasks(&tab).await, []);
    assert!(
        costs[2] < 3.0 * costs[0] + 0.1,
        "the cost per token grows with the length of the answer: {costs:?}"
    );
    tab.assert_no_errors().await;
}

/// Sends a word every 250 ms for this many seconds.
fn slow_script(seconds: u32) -> Vec<ScriptStep> {
    let mut script = vec![send_text(&stream_head())];
    for number in 0..seconds * 4 {
        script.extend([
            send_text(&token_event(&format!("word{number} "))),
            ScriptStep::Pause(Duration::from_millis(250)),
        ]);
    }
    script.push(send_text(&stream_end()));
    script
}

#[tokio::test]
async fn page_frozen_for_a_minute_catches_up_when_resumed() {
    let provider = ScriptedProvider::start(slow_script(62)).await;
    let site = site_with_providers(&[&provider], "Slow").await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask("Slowly!").await;
    tab.wait_for_partial_answer(20).await;
    let conversation = tab.conversation_id().await;
    tab.cdp("Page.setWebLifecycleState", json!({ "state": "frozen" }))
        .await;
    // Another client follows the remaining minute of the answer, of which the page sees nothing.
    let end = Visitor::back(site.port(), &conversation)
        .await
        .next("done")
        .await;
    tab.cdp("Page.setWebLifecycleState", json!({ "state": "active" }))
        .await;
    tab.wait_within(
        Duration::from_secs(10),
        "witness.answer().dataset.state === 'done'",
    )
    .await;
    assert_eq!(tab.answer_text().await, end["text"]);
    let took = tab
        .eval("witness.shown.findLast(({ state }) => state === 'done').at - witness.woke")
        .await;
    assert!(took.as_f64().unwrap() < 2000.0, "it took {took} ms");
    assert_eq!(count_restarts(&tab.answer_changes().await), 0);
    tab.assert_no_errors().await;
}

#[tokio::test]
async fn reconnect_pauses_grow_and_can_be_skipped() {
    let site = TestSite::demo().await;
    let proxy = BrowserProxy::in_front_of(site.port()).await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&proxy.address()).await;
    tab.wait_until("witness.frame('welcome')").await;
    proxy.sever();
    // Only a lower bound is checked here: the pauses are random. The JavaScript tests cover the
    // rest.
    tab.wait_until("witness.opened.length >= 5").await;
    tab.wait_until("/Next try in \\d+ s/.test(witness.part('connection')?.innerText)")
        .await;
    let tries = tab.eval("witness.opened.length").await.as_u64().unwrap();
    proxy.restore();
    tab.click(r#"[data-role="retry-now"]"#).await;
    tab.wait_until("witness.frames.filter(({ frame }) => frame.type === 'welcome').length === 2")
        .await;
    let opened: Vec<f64> = serde_json::from_value(tab.eval("witness.opened").await).unwrap();
    assert!(opened.len() as u64 >= tries, "{opened:?}");
    // The pauses after the fifth may have been skipped by the click.
    let pauses: Vec<f64> = opened[..5]
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .collect();
    assert!(
        pauses.iter().skip(1).all(|pause| *pause >= 200.0),
        "no tight loop: {pauses:?}"
    );
    tab.wait_until("!witness.part('banner')").await;
    assert_eq!(tab.eval("witness.trouble").await, Value::Array(vec![]));
}
