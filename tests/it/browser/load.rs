//! Much text at once, a page that slept, a line that stays away: the page keeps up.

use std::time::Duration;

use serde_json::{Value, json};

use super::chrome::Chrome;
use super::cutting_proxy::Line;
use super::page_driver::{Tab, restarts};
use super::test_site::Site;
use super::xss::site;
use crate::binary::ws_client::Visitor;
use crate::harness::{Act, ScriptedProvider, finish, head, say, word};

/// So many tokens a second.
const RATE: usize = 300;

/// For so long.
const SECONDS: usize = 30;

/// Three words each hundredth of a second, in paragraphs, with some Markdown.
fn quick() -> Vec<Act> {
    let mut script = vec![say(&head())];
    for step in 0..RATE * SECONDS / 3 {
        let end = if step % 40 == 39 { ".\n\n" } else { " " };
        let words = format!(
            "{}{}{}",
            word("some "),
            word("**words** "),
            word(&format!("number{step}{end}"))
        );
        script.extend([Act::Wait(Duration::from_millis(10)), say(&words)]);
    }
    script.push(say(&finish()));
    script
}

/// Seconds of the processor that the page's thread has spent so far.
async fn spent(tab: &Tab) -> f64 {
    let metrics = tab.cdp("Performance.getMetrics", json!({})).await;
    let all = metrics["metrics"].as_array().unwrap();
    all.iter()
        .find(|one| one["name"] == "TaskDuration")
        .unwrap()["value"]
        .as_f64()
        .unwrap()
}

#[tokio::test]
async fn three_hundred_tokens_a_second_hold_up_nothing_and_are_drawn_once_a_frame() {
    let provider = ScriptedProvider::start(quick()).await;
    let site = site(&[&provider], "Quick").await;
    let chrome = Chrome::start().await;
    let effort = chrome.effort();
    let tab = chrome.open(&site.address()).await;
    tab.until("witness.frame('welcome')").await;
    // Counts the changes of the answer between one frame of the screen and the next.
    tab.eval(
        "(() => {
            witness.rest();
            witness.held.length = 0;
            window.pace = { draws: 0, most: 0, last: performance.now(), now: 0 };
            new MutationObserver(() => { pace.draws++; pace.now++; })
                .observe(document.querySelector('[data-role=\"log\"]'), { subtree: true, childList: true, characterData: true });
            const frame = () => {
              const at = performance.now();
              // Where the screen stood still for long the page draws by its timer, so that what it shows is true.
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
    let all = RATE * SECONDS;
    let mut costs = Vec::new();
    tab.until(&shown(all / 10)).await;
    for part in [4, 7, 10] {
        let begun = spent(&tab).await;
        tab.within(Duration::from_secs(120), &shown(all * part / 10 - all / 20))
            .await;
        costs.push(spent(&tab).await - begun);
    }
    tab.until_done().await;
    let pace = tab.eval("pace").await;
    println!("{costs:?} s of the processor for each 2700 tokens; {pace}");
    assert!(pace["draws"].as_u64() > Some(100), "{pace}");
    assert!(
        pace["most"].as_u64() <= Some(1),
        "more than one change between two frames: {pace}"
    );
    assert_eq!(effort.own(&tab).await, []);
    assert!(
        costs[2] < 3.0 * costs[0] + 0.1,
        "it costs more the longer the answer is: {costs:?}"
    );
    tab.is_untroubled().await;
}

/// A word every quarter of a second, for so many seconds.
fn slow(seconds: u32) -> Vec<Act> {
    let mut script = vec![say(&head())];
    for number in 0..seconds * 4 {
        script.extend([
            say(&word(&format!("word{number} "))),
            Act::Wait(Duration::from_millis(250)),
        ]);
    }
    script.push(say(&finish()));
    script
}

#[tokio::test]
async fn a_page_that_slept_for_a_minute_catches_up_on_waking() {
    let provider = ScriptedProvider::start(slow(62)).await;
    let site = site(&[&provider], "Slow").await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask("Slowly!").await;
    tab.until_it_says(20).await;
    let conversation = tab.conversation().await;
    tab.cdp("Page.setWebLifecycleState", json!({ "state": "frozen" }))
        .await;
    // Another window reads on for the minute that is left of the answer; the page sees none of it.
    let end = Visitor::back(site.port(), &conversation)
        .await
        .next("done")
        .await;
    tab.cdp("Page.setWebLifecycleState", json!({ "state": "active" }))
        .await;
    tab.within(
        Duration::from_secs(10),
        "witness.answer().dataset.state === 'done'",
    )
    .await;
    assert_eq!(tab.text().await, end["text"]);
    let took = tab
        .eval("witness.shown.findLast(({ state }) => state === 'done').at - witness.woke")
        .await;
    assert!(took.as_f64().unwrap() < 2000.0, "it took {took} ms");
    assert_eq!(restarts(&tab.shown().await), 0);
    tab.is_untroubled().await;
}

#[tokio::test]
async fn tries_to_come_back_grow_apart_and_can_be_hastened() {
    let site = Site::demo().await;
    let line = Line::to(site.port()).await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&line.address()).await;
    tab.until("witness.frame('welcome')").await;
    line.sever();
    // How much they grow is chance's affair within a doubling bound: see the tests of the page's own functions.
    tab.until("witness.opened.length >= 5").await;
    tab.until("/Next try in \\d+ s/.test(witness.part('connection')?.innerText)")
        .await;
    let tries = tab.eval("witness.opened.length").await.as_u64().unwrap();
    line.restore();
    tab.click(r#"[data-role="retry-now"]"#).await;
    tab.until("witness.frames.filter(({ frame }) => frame.type === 'welcome').length === 2")
        .await;
    let opened: Vec<f64> = serde_json::from_value(tab.eval("witness.opened").await).unwrap();
    assert!(opened.len() as u64 >= tries, "{opened:?}");
    // Those after it may have been hastened.
    let apart: Vec<f64> = opened[..5].windows(2).map(|two| two[1] - two[0]).collect();
    assert!(
        apart.iter().skip(1).all(|pause| *pause >= 200.0),
        "no tight loop: {apart:?}"
    );
    tab.until("!witness.part('banner')").await;
    assert_eq!(tab.eval("witness.trouble").await, Value::Array(vec![]));
}
