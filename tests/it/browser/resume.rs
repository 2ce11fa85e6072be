//! Reloads and service restarts during an answer: shown text stays, and the rest follows.

use serde_json::{Value, json};

use super::chrome::Chrome;
use super::cutting_proxy::BrowserProxy;
use super::page_driver::count_restarts;
use super::test_site::TestSite;

const QUESTION: &str = "Where do penguins sleep in winter?";

#[tokio::test]
async fn reload_during_an_answer_shows_its_text_at_once() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask(QUESTION).await;
    tab.wait_for_partial_answer(150).await;
    let text_before = tab.answer_text().await;
    tab.reload().await;
    tab.wait_until("witness.shown.length && witness.frame('welcome')")
        .await;
    let shown = tab.answer_changes().await;
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

    tab.wait_until("witness.answer().dataset.state === 'done'")
        .await;
    let text = tab.answer_text().await;
    assert_eq!(tab.eval("witness.frame('done').text").await, text);
    assert_eq!(count_restarts(&tab.answer_changes().await), 0);
    let asked = "witness.answer().closest('section').querySelector('[data-from=\"user\"]').rawText";
    assert_eq!(tab.eval_string(asked).await, QUESTION);
    assert_eq!(tab.eval("witness.answers().length").await, 1);

    let history = site.history(&tab.conversation_id().await).await;
    assert_eq!(history.len(), 1);
    assert_eq!(history[0]["text"], text);
    tab.assert_no_errors().await;
}

#[tokio::test]
async fn drafts_and_answers_survive_a_reload() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask("Hello").await;
    tab.wait_for_done().await;
    tab.ask(QUESTION).await;
    tab.wait_for_partial_answer(150).await;
    site.set_fault("aurora", "cut").await;
    tab.wait_for_done().await;
    let answers = "witness.answers().map((el) => [el.rawText, el.dataset.source, el.dataset.state, el.textContent])";
    let before = tab.eval(answers).await;
    tab.reload().await;
    tab.wait_until("witness.answers().length === 2 && witness.frame('welcome')")
        .await;
    assert_eq!(tab.eval(answers).await, before);

    tab.click(r#"[data-role="draft"] summary"#).await;
    let draft = &tab
        .eval("witness.frame('welcome').history[1].drafts[0]")
        .await;
    assert_eq!(draft["provider"], "aurora");
    let unfolded = tab
        .eval_string("document.querySelector('[data-role=\"draft\"]').innerText")
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
    tab.assert_no_errors().await;
}

#[tokio::test]
async fn killed_service_leaves_the_text_and_answers_a_retry() {
    let mut site = TestSite::demo().await;
    let proxy = BrowserProxy::in_front_of(site.port()).await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&proxy.address()).await;
    tab.ask(QUESTION).await;
    tab.wait_for_partial_answer(200).await;
    site.kill().await;
    let text_before = tab.answer_text().await;
    tab.wait_until("witness.part('banner')?.dataset.mode === 'unreachable'")
        .await;
    assert_eq!(tab.answer_text().await, text_before);
    let connection = tab
        .eval_string("witness.part('connection').innerText")
        .await;
    assert!(
        connection.contains("Next try in") || connection.contains("Connecting"),
        "{connection}"
    );

    site.restart().await;
    proxy.set_target(site.port());
    tab.wait_until("witness.answer().dataset.state === 'interrupted' && !witness.part('banner')")
        .await;
    assert_eq!(
        tab.answer_text().await,
        text_before,
        "the text stays even where the service has less of it"
    );
    assert!(
        tab.eval_string("witness.answer().innerText")
            .await
            .contains("Interrupted")
    );
    tab.reload().await;
    tab.wait_until("witness.answer()?.dataset.state === 'interrupted' && witness.frame('welcome')")
        .await;
    assert_eq!(tab.answer_text().await, text_before, "and after a reload");

    tab.click(r#"[data-role="retry"]"#).await;
    let done = tab.wait_for_done().await;
    assert_eq!(
        (&done["source"], &done["finish"]),
        (&json!("ai"), &json!("stop"))
    );
    let history = site.history(&tab.conversation_id().await).await;
    let states: Vec<_> = history
        .iter()
        .map(|turn| (turn["state"].as_str().unwrap(), &turn["retry_of"]))
        .collect();
    assert_eq!(
        states,
        [("interrupted", &Value::Null), ("done", &history[0]["turn"])]
    );
    tab.assert_no_errors().await;
}
