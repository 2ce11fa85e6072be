//! The page comes back in mid-answer, or the service does: what was read stays, and the rest follows.

use serde_json::{Value, json};

use super::chrome::Chrome;
use super::cutting_proxy::Line;
use super::page_driver::restarts;
use super::test_site::Site;

const QUESTION: &str = "Where do penguins sleep in winter?";

#[tokio::test]
async fn a_reload_in_mid_answer_shows_at_once_what_was_read() {
    let site = Site::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask(QUESTION).await;
    tab.until_it_says(150).await;
    let read = tab.text().await;
    tab.reload().await;
    tab.until("witness.shown.length && witness.frame('welcome')")
        .await;
    let shown = tab.shown().await;
    assert!(
        shown[0].text.starts_with(&read),
        "{:?} after {read:?}",
        shown[0].text
    );
    let first = "witness.shown[0].at < witness.frames[0].at";
    assert_eq!(tab.eval(first).await, true, "before the service was heard");

    tab.until("witness.answer().dataset.state === 'done'").await;
    let text = tab.text().await;
    assert_eq!(tab.eval("witness.frame('done').text").await, text);
    assert_eq!(restarts(&tab.shown().await), 0);
    let asked = "witness.answer().closest('section').querySelector('[data-from=\"user\"]').rawText";
    assert_eq!(tab.string(asked).await, QUESTION);
    assert_eq!(tab.eval("witness.answers().length").await, 1);

    let history = site.history(&tab.conversation().await).await;
    assert_eq!(history.len(), 1);
    assert_eq!(history[0]["text"], text);
    tab.is_untroubled().await;
}

#[tokio::test]
async fn drafts_and_answers_are_there_after_a_reload() {
    let site = Site::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask("Hello").await;
    tab.until_done().await;
    tab.ask(QUESTION).await;
    tab.until_it_says(150).await;
    site.fault("aurora", "cut").await;
    tab.until_done().await;
    let whole = "witness.answers().map((el) => [el.rawText, el.dataset.source, el.dataset.state, el.textContent])";
    let before = tab.eval(whole).await;
    tab.reload().await;
    tab.until("witness.answers().length === 2 && witness.frame('welcome')")
        .await;
    assert_eq!(tab.eval(whole).await, before);

    tab.click(r#"[data-role="draft"] summary"#).await;
    let draft = &tab
        .eval("witness.frame('welcome').history[1].drafts[0]")
        .await;
    assert_eq!(draft["provider"], "aurora");
    let opened = tab
        .string("document.querySelector('[data-role=\"draft\"]').innerText")
        .await;
    let letters = |text: &str| {
        text.chars()
            .filter(|c| c.is_alphanumeric())
            .collect::<String>()
    };
    assert!(
        letters(&opened).ends_with(&letters(draft["text"].as_str().unwrap())),
        "{opened} and {draft}"
    );
    tab.is_untroubled().await;
}

#[tokio::test]
async fn a_killed_service_leaves_what_was_read_and_answers_anew() {
    let mut site = Site::demo().await;
    let line = Line::to(site.port()).await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&line.address()).await;
    tab.ask(QUESTION).await;
    tab.until_it_says(200).await;
    site.kill().await;
    let read = tab.text().await;
    tab.until("witness.part('banner')?.dataset.mode === 'unreachable'")
        .await;
    assert_eq!(tab.text().await, read);
    let connection = tab.string("witness.part('connection').innerText").await;
    assert!(
        connection.contains("Next try in") || connection.contains("Connecting"),
        "{connection}"
    );

    site.start_again().await;
    line.lead_to(site.port());
    tab.until("witness.answer().dataset.state === 'interrupted' && !witness.part('banner')")
        .await;
    assert_eq!(
        tab.text().await,
        read,
        "what was read stays, also where the service has less of it"
    );
    assert!(
        tab.string("witness.answer().innerText")
            .await
            .contains("Interrupted")
    );
    tab.reload().await;
    tab.until("witness.answer()?.dataset.state === 'interrupted' && witness.frame('welcome')")
        .await;
    assert_eq!(tab.text().await, read, "and after a reload");

    tab.click(r#"[data-role="retry"]"#).await;
    let done = tab.until_done().await;
    assert_eq!(
        (&done["source"], &done["finish"]),
        (&json!("ai"), &json!("stop"))
    );
    let history = site.history(&tab.conversation().await).await;
    let states: Vec<_> = history
        .iter()
        .map(|turn| (turn["state"].as_str().unwrap(), &turn["retry_of"]))
        .collect();
    assert_eq!(
        states,
        [("interrupted", &Value::Null), ("done", &history[0]["turn"])]
    );
    tab.is_untroubled().await;
}
