//! Reloads and service restarts during an answer: shown text stays, and the rest follows.

use serde_json::{Value, json};

use super::chrome::Chrome;
use super::cutting_proxy::Line;
use super::page_driver::restarts;
use super::test_site::Site;

const QUESTION: &str = "Where do penguins sleep in winter?";

#[tokio::test]
async fn reload_during_an_answer_shows_its_text_at_once() {
    let site = Site::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask(QUESTION).await;
    tab.until_it_says(150).await;
    let text_before = tab.text().await;
    tab.reload().await;
    tab.until("witness.shown.length && witness.frame('welcome')")
        .await;
    let shown = tab.shown().await;
    assert!(
        shown[0].text.starts_with(&text_before),
        "{:?} after {text_before:?}",
        shown[0].text
    );
    let first = "witness.shown[0].at < witness.frames[0].at";
    assert_eq!(
        tab.eval(first).await,
        true,
        "shown before the service responded"
    );

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
async fn drafts_and_answers_survive_a_reload() {
    let site = Site::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask("Hello").await;
    tab.until_done().await;
    tab.ask(QUESTION).await;
    tab.until_it_says(150).await;
    site.fault("aurora", "cut").await;
    tab.until_done().await;
    let answers = "witness.answers().map((el) => [el.rawText, el.dataset.source, el.dataset.state, el.textContent])";
    let before = tab.eval(answers).await;
    tab.reload().await;
    tab.until("witness.answers().length === 2 && witness.frame('welcome')")
        .await;
    assert_eq!(tab.eval(answers).await, before);

    tab.click(r#"[data-role="draft"] summary"#).await;
    let draft = &tab
        .eval("witness.frame('welcome').history[1].drafts[0]")
        .await;
    assert_eq!(draft["provider"], "aurora");
    let unfolded = tab
        .string("document.querySelector('[data-role=\"draft\"]').innerText")
        .await;
    let letters = |text: &str| {
        text.chars()
            .filter(|c| c.is_alphanumeric())
            .collect::<String>()
    };
    assert!(
        letters(&unfolded).ends_with(&letters(draft["text"].as_str().unwrap())),
        "{unfolded} and {draft}"
    );
    tab.is_untroubled().await;
}

#[tokio::test]
async fn killed_service_leaves_the_text_and_answers_a_retry() {
    let mut site = Site::demo().await;
    let proxy = Line::to(site.port()).await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&proxy.address()).await;
    tab.ask(QUESTION).await;
    tab.until_it_says(200).await;
    site.kill().await;
    let text_before = tab.text().await;
    tab.until("witness.part('banner')?.dataset.mode === 'unreachable'")
        .await;
    assert_eq!(tab.text().await, text_before);
    let connection = tab.string("witness.part('connection').innerText").await;
    assert!(
        connection.contains("Next try in") || connection.contains("Connecting"),
        "{connection}"
    );

    site.start_again().await;
    proxy.lead_to(site.port());
    tab.until("witness.answer().dataset.state === 'interrupted' && !witness.part('banner')")
        .await;
    assert_eq!(
        tab.text().await,
        text_before,
        "the text stays even where the service has less of it"
    );
    assert!(
        tab.string("witness.answer().innerText")
            .await
            .contains("Interrupted")
    );
    tab.reload().await;
    tab.until("witness.answer()?.dataset.state === 'interrupted' && witness.frame('welcome')")
        .await;
    assert_eq!(tab.text().await, text_before, "and after a reload");

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
