//! Connection loss during an answer: the page ends with the complete answer, and no text was
//! repeated or lost on the way.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::chrome::Chrome;
use super::cutting_proxy::BrowserProxy;
use super::page_driver::count_restarts;
use super::test_site::TestSite;
use crate::binary::ws_client::Visitor;

/// Asks for an answer of about six hundred words, which takes twenty seconds.
const LONG_QUESTION: &str = "Write a long text about the sea";

#[tokio::test]
async fn answer_stays_complete_after_five_cuts_in_every_window() {
    let site = TestSite::demo().await;
    let proxy = BrowserProxy::in_front_of(site.port()).await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&proxy.address()).await;
    tab.ask(LONG_QUESTION).await;
    tab.wait_for_partial_answer(50).await;
    let second = chrome.open(&proxy.address()).await;
    second.wait_until("witness.text().length > 50").await;
    // Cut anywhere: at the start of a frame, in its header, in its middle.
    let mut seed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .subsec_nanos();
    println!("seed of the cuts: {seed}");
    for _ in 0..5 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let bytes = usize::try_from(seed >> 16).unwrap() % 1200;
        let length_before = tab.answer_text().await.len();
        let hellos = tab.eval(HELLO_COUNT).await;
        proxy.cut_after(bytes);
        tab.wait_until(&format!(
            "{HELLO_COUNT} > {hellos} && witness.text().length > {length_before} + 100"
        ))
        .await;
    }
    let done = tab.wait_for_done().await;
    assert_eq!(
        (&done["provider"], &done["attempts"]),
        (&json!("aurora"), &json!(1))
    );
    let text = done["text"].as_str().unwrap();
    assert!(text.split_whitespace().count() > 500 && text.matches("## Part 3").count() == 1);
    assert_eq!(count_restarts(&tab.answer_changes().await), 0);
    tab.assert_readable().await;

    second
        .wait_until("witness.answer().dataset.state === 'done'")
        .await;
    assert_eq!(second.answer_text().await, text);
    assert_eq!(count_restarts(&second.answer_changes().await), 0);
    let rendered = "witness.answer().querySelector('[data-role=\"text\"]').innerHTML";
    assert_eq!(
        tab.eval_string(rendered).await,
        second.eval_string(rendered).await,
        "cuts make no visible difference"
    );
    tab.assert_no_errors().await;
    second.assert_no_errors().await;
}

/// The number of `hello` frames which the page sent.
const HELLO_COUNT: &str = "witness.sent.filter(({ type }) => type === 'hello').length";

#[tokio::test]
async fn dead_connection_is_noticed_when_the_browser_comes_online() {
    let site = TestSite::demo().await;
    let proxy = BrowserProxy::in_front_of(site.port()).await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&proxy.address()).await;
    tab.ask(LONG_QUESTION).await;
    tab.wait_for_partial_answer(50).await;
    proxy.freeze();
    let length_before = tab.answer_text().await.len();
    tab.eval("dispatchEvent(new Event('online'))").await;
    tab.wait_until(&format!(
        "{HELLO_COUNT} === 2 && witness.text().length > {length_before} + 100"
    ))
    .await;
    tab.click(r#"[data-role="stop"]"#).await;
    tab.wait_for_done().await;
    assert_eq!(count_restarts(&tab.answer_changes().await), 0);
}

#[tokio::test]
async fn page_that_missed_a_failover_shows_the_complete_answer() {
    let site = TestSite::demo().await;
    let proxy = BrowserProxy::in_front_of(site.port()).await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&proxy.address()).await;
    tab.ask(LONG_QUESTION).await;
    tab.wait_for_partial_answer(200).await;
    let conversation = tab.conversation_id().await;
    proxy.sever();
    let read = tab.answer_text().await;
    site.set_fault("aurora", "cut").await;
    // Another client follows the answer to its end meanwhile: the page misses hundreds of frames.
    let end = Visitor::back(site.port(), &conversation)
        .await
        .next("done")
        .await;
    proxy.restore();
    // The event of a browser whose network is back. Otherwise the next try may be half a minute
    // away.
    tab.eval("dispatchEvent(new Event('online'))").await;
    tab.wait_until("witness.answer().dataset.state === 'done'")
        .await;
    assert_eq!(tab.answer_text().await, end["text"]);
    assert_eq!(end["provider"], "borealis");
    let draft = end["drafts"][0]["text"].as_str().unwrap();
    assert!(draft.starts_with(&read), "{draft:?} after {read:?}");
    let shown = tab.answer_changes().await;
    assert_eq!(
        (count_restarts(&shown), shown.last().unwrap().drafts),
        (1, 1)
    );
    tab.assert_readable().await;
    tab.assert_no_errors().await;
}
