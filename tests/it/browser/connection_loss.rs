//! The line breaks in mid-answer: what is read in the end is what was answered, and nothing stood there twice or vanished.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::chrome::Chrome;
use super::cutting_proxy::Line;
use super::page_driver::restarts;
use super::test_site::Site;
use crate::binary::ws_client::Visitor;

/// Its answer is about six hundred words and takes twenty seconds.
const LONG: &str = "Write a long text about the sea";

#[tokio::test]
async fn five_cuts_of_the_line_leave_the_answer_whole_in_every_window() {
    let site = Site::demo().await;
    let line = Line::to(site.port()).await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&line.address()).await;
    tab.ask(LONG).await;
    tab.until_it_says(50).await;
    let second = chrome.open(&line.address()).await;
    second.until("witness.text().length > 50").await;
    // Anywhere: at a frame's beginning, in its header, in its middle.
    let mut random = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .subsec_nanos();
    println!("the cuts begin with {random}");
    for _ in 0..5 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let bytes = usize::try_from(random >> 16).unwrap() % 1200;
        let (before, hellos) = (tab.text().await.len(), tab.eval(HELLOS).await);
        line.cut_after(bytes);
        tab.until(&format!(
            "{HELLOS} > {hellos} && witness.text().length > {before} + 100"
        ))
        .await;
    }
    let done = tab.until_done().await;
    assert_eq!(
        (&done["provider"], &done["attempts"]),
        (&json!("aurora"), &json!(1))
    );
    let text = done["text"].as_str().unwrap();
    assert!(text.split_whitespace().count() > 500 && text.matches("## Part 3").count() == 1);
    assert_eq!(restarts(&tab.shown().await), 0);
    tab.reads_whole().await;

    second
        .until("witness.answer().dataset.state === 'done'")
        .await;
    assert_eq!(second.text().await, text);
    assert_eq!(restarts(&second.shown().await), 0);
    let rendered = "witness.answer().querySelector('[data-role=\"text\"]').innerHTML";
    assert_eq!(
        tab.string(rendered).await,
        second.string(rendered).await,
        "cut or not, it looks the same"
    );
    tab.is_untroubled().await;
    second.is_untroubled().await;
}

/// How often the page said hello.
const HELLOS: &str = "witness.sent.filter(({ type }) => type === 'hello').length";

#[tokio::test]
async fn a_line_that_died_without_a_word_is_noticed_on_waking() {
    let site = Site::demo().await;
    let line = Line::to(site.port()).await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&line.address()).await;
    tab.ask(LONG).await;
    tab.until_it_says(50).await;
    line.freeze();
    let before = tab.text().await.len();
    tab.eval("dispatchEvent(new Event('online'))").await;
    tab.until(&format!(
        "{HELLOS} === 2 && witness.text().length > {before} + 100"
    ))
    .await;
    tab.click(r#"[data-role="stop"]"#).await;
    tab.until_done().await;
    assert_eq!(restarts(&tab.shown().await), 0);
}

#[tokio::test]
async fn who_was_away_for_a_switch_and_long_after_it_sees_all_of_it() {
    let site = Site::demo().await;
    let line = Line::to(site.port()).await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&line.address()).await;
    tab.ask(LONG).await;
    tab.until_it_says(200).await;
    let conversation = tab.conversation().await;
    line.sever();
    let read = tab.text().await;
    site.fault("aurora", "cut").await;
    // Someone else sees the answer through to its end meanwhile: hundreds of frames that the page has missed.
    let end = Visitor::back(site.port(), &conversation)
        .await
        .next("done")
        .await;
    line.restore();
    // As a browser says it whose network is back: else the next try may be half a minute away.
    tab.eval("dispatchEvent(new Event('online'))").await;
    tab.until("witness.answer().dataset.state === 'done'").await;
    assert_eq!(tab.text().await, end["text"]);
    assert_eq!(end["provider"], "borealis");
    let draft = end["drafts"][0]["text"].as_str().unwrap();
    assert!(draft.starts_with(&read), "{draft:?} after {read:?}");
    let shown = tab.shown().await;
    assert_eq!((restarts(&shown), shown.last().unwrap().drafts), (1, 1));
    tab.reads_whole().await;
    tab.is_untroubled().await;
}
