//! Provider faults during an answer, one test per kind: the page shows a complete answer and names
//! the failover.

use serde_json::{Value, json};

use super::chrome::Chrome;
use super::page_driver::{BrowserTab, count_restarts};
use super::test_site::TestSite;

/// Asks for plain text of about a hundred words.
const QUESTION: &str = "Where do penguins sleep in winter?";

/// The number of characters of the answer which the page shows when its provider breaks.
const CHARS_BEFORE_FAULT: usize = 120;

#[tokio::test]
async fn broken_streams_fail_over() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    for fault in ["down", "rate_limit", "unauthorized", "garbage"] {
        tab.ask(QUESTION).await;
        tab.wait_for_partial_answer(CHARS_BEFORE_FAULT).await;
        site.set_fault("aurora", fault).await;
        assert_failover(&tab, fault).await;
        site.set_fault("aurora", "none").await;
    }
    tab.assert_no_errors().await;
}

#[tokio::test]
async fn silent_streams_fail_over() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    for fault in ["timeout", "stall"] {
        tab.ask(QUESTION).await;
        tab.wait_for_partial_answer(CHARS_BEFORE_FAULT).await;
        site.set_fault("aurora", fault).await;
        assert_failover(&tab, fault).await;
        site.set_fault("aurora", "none").await;
    }
}

#[tokio::test]
async fn demo_panel_breaks_and_repairs_a_provider() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    let row = r#"[data-role="demo"][data-provider="aurora"]"#;
    tab.ask(QUESTION).await;
    tab.wait_for_partial_answer(CHARS_BEFORE_FAULT).await;
    tab.click(&format!(r#"{row} option[value="cut"]"#)).await;
    tab.click(&format!(r#"{row} [data-action="break"]"#)).await;
    assert_failover(&tab, "cut").await;

    tab.click(&format!(r#"{row} [data-action="mend"]"#)).await;
    tab.wait_until(&format!(
        "!document.querySelector('{row}').innerText.includes('Fault')"
    ))
    .await;
    tab.ask(QUESTION).await;
    assert_eq!(tab.wait_for_done().await["provider"], "aurora");
    tab.assert_no_errors().await;
    assert_eq!(chrome.console_warnings().await, Vec::<String>::new());
}

#[tokio::test]
async fn slow_answer_continues_without_failover() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask(QUESTION).await;
    tab.wait_for_partial_answer(CHARS_BEFORE_FAULT).await;
    site.set_fault("aurora", "slow").await;
    let length_before = tab.answer_text().await.chars().count();
    tab.wait_until(&format!("witness.text().length > {}", length_before + 10))
        .await;
    assert_eq!(
        tab.eval_string("witness.answer().dataset.state").await,
        "streaming"
    );
    site.set_fault("aurora", "none").await;
    let done = tab.wait_for_done().await;
    assert_eq!(
        (&done["provider"], &done["attempts"]),
        (&json!("aurora"), &json!(1))
    );
    assert_eq!(count_restarts(&tab.answer_changes().await), 0);
}

#[tokio::test]
async fn answer_over_the_attempt_timeout_fails_over() {
    let site = TestSite::with_config("[timeouts]\nattempt = \"8s\"\n").await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask(QUESTION).await;
    tab.wait_for_partial_answer(CHARS_BEFORE_FAULT).await;
    site.set_fault("aurora", "slow").await;
    assert_failover(&tab, "slow").await;
    tab.assert_no_errors().await;
}

#[tokio::test]
async fn interrupted_answer_without_providers_ends_in_a_labelled_fallback() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask(QUESTION).await;
    tab.wait_for_partial_answer(CHARS_BEFORE_FAULT).await;
    for provider in ["cascade", "borealis", "aurora"] {
        site.set_fault(provider, "down").await;
    }
    let done = tab.wait_for_done().await;
    assert_eq!(
        (&done["degraded"], &done["provider"]),
        (&json!(true), &json!(null))
    );
    assert_eq!(count_restarts(&tab.answer_changes().await), 1);
    let label = tab
        .eval_string("witness.part('label', witness.answer()).innerText")
        .await;
    assert!(label.ends_with("AI unavailable"), "{label}");
    let draft = tab
        .eval_string("witness.part('draft', witness.answer()).innerText")
        .await;
    assert!(
        draft.starts_with("Interrupted draft from aurora"),
        "{draft}"
    );
    tab.assert_readable().await;

    // After the other providers are back, a retry answers the same question.
    for provider in ["cascade", "borealis"] {
        site.set_fault(provider, "none").await;
    }
    tab.click(r#"[data-role="retry"]"#).await;
    assert_eq!(tab.wait_for_done().await["provider"], "borealis");
    assert_eq!(
        tab.eval("document.querySelectorAll('[data-from=\"user\"]').length")
            .await,
        1
    );
    tab.assert_no_errors().await;
}

/// Waits for the end of an answer which aurora started, and asserts that another provider gave it.
async fn assert_failover(tab: &BrowserTab, fault: &str) {
    let done = tab.wait_for_done().await;
    let provider = done["provider"].as_str().unwrap();
    assert_eq!(
        (&done["source"], &done["finish"]),
        (&json!("ai"), &json!("stop")),
        "{fault}"
    );
    assert_ne!(provider, "aurora", "{fault}");
    let marker = format!("simulated answer from {provider}");
    assert!(
        done["text"].as_str().unwrap().contains(&marker),
        "{fault}: {done:#}"
    );
    assert_eq!(done["tried"][0]["provider"], "aurora", "{fault}");
    tab.assert_readable().await;

    let shown = tab.answer_changes().await;
    assert_eq!(count_restarts(&shown), 1, "{fault}");
    let paused: Vec<_> = shown.iter().filter(|answer| answer.paused).collect();
    assert!(
        !paused.is_empty(),
        "{fault}: the page did not show that another provider is asked: {shown:#?}"
    );
    let draft = &paused.last().unwrap().text;
    assert!(
        draft.len() >= CHARS_BEFORE_FAULT,
        "{fault}: the text was gone while another provider was asked"
    );
    assert_eq!(
        done["drafts"],
        json!([{ "attempt": 1, "provider": "aurora", "text": draft }]),
        "{fault}"
    );

    let words = draft.split_whitespace().count();
    let summaries: Value = tab
        .eval("[...witness.answer().querySelectorAll('[data-role=\"draft\"]')].map((el) => [el.open, el.innerText])")
        .await;
    let line = format!("Interrupted draft from aurora · {words} words");
    assert_eq!(summaries, json!([[false, line]]), "{fault}");
    let chip = tab
        .eval_string("witness.part('chip', witness.answer()).textContent")
        .await;
    assert_eq!(
        chip,
        format!("Answered by {provider} · aurora unavailable"),
        "{fault}"
    );
}
