//! Provider faults during an answer, one test per kind: the page shows a complete answer and names
//! the failover.

use serde_json::{Value, json};

use super::chrome::Chrome;
use super::page_driver::{Tab, restarts};
use super::test_site::Site;

/// Asks for plain text of about a hundred words.
const QUESTION: &str = "Where do penguins sleep in winter?";

/// The number of characters of the answer which the page shows when its provider breaks.
const SHOWN: usize = 120;

#[tokio::test]
async fn broken_streams_fail_over() {
    let site = Site::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    for fault in ["down", "rate_limit", "unauthorized", "garbage"] {
        tab.ask(QUESTION).await;
        tab.until_it_says(SHOWN).await;
        site.fault("aurora", fault).await;
        fails_over(&tab, fault).await;
        site.fault("aurora", "none").await;
    }
    tab.is_untroubled().await;
}

#[tokio::test]
async fn silent_streams_fail_over() {
    let site = Site::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    for fault in ["timeout", "stall"] {
        tab.ask(QUESTION).await;
        tab.until_it_says(SHOWN).await;
        site.fault("aurora", fault).await;
        fails_over(&tab, fault).await;
        site.fault("aurora", "none").await;
    }
}

#[tokio::test]
async fn demo_panel_breaks_and_repairs_a_provider() {
    let site = Site::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    let row = r#"[data-role="demo"][data-provider="aurora"]"#;
    tab.ask(QUESTION).await;
    tab.until_it_says(SHOWN).await;
    tab.click(&format!(r#"{row} option[value="cut"]"#)).await;
    tab.click(&format!(r#"{row} [data-action="break"]"#)).await;
    fails_over(&tab, "cut").await;

    tab.click(&format!(r#"{row} [data-action="mend"]"#)).await;
    tab.until(&format!(
        "!document.querySelector('{row}').innerText.includes('Fault')"
    ))
    .await;
    tab.ask(QUESTION).await;
    assert_eq!(tab.until_done().await["provider"], "aurora");
    tab.is_untroubled().await;
    assert_eq!(chrome.complaints().await, Vec::<String>::new());
}

#[tokio::test]
async fn slow_answer_continues_without_failover() {
    let site = Site::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask(QUESTION).await;
    tab.until_it_says(SHOWN).await;
    site.fault("aurora", "slow").await;
    let length_before = tab.text().await.chars().count();
    tab.until(&format!("witness.text().length > {}", length_before + 10))
        .await;
    assert_eq!(
        tab.string("witness.answer().dataset.state").await,
        "streaming"
    );
    site.fault("aurora", "none").await;
    let done = tab.until_done().await;
    assert_eq!(
        (&done["provider"], &done["attempts"]),
        (&json!("aurora"), &json!(1))
    );
    assert_eq!(restarts(&tab.shown().await), 0);
}

#[tokio::test]
async fn answer_over_the_attempt_timeout_fails_over() {
    let site = Site::configured("[timeouts]\nattempt = \"8s\"\n").await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask(QUESTION).await;
    tab.until_it_says(SHOWN).await;
    site.fault("aurora", "slow").await;
    fails_over(&tab, "slow").await;
    tab.is_untroubled().await;
}

#[tokio::test]
async fn interrupted_answer_without_providers_ends_in_a_labelled_fallback() {
    let site = Site::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask(QUESTION).await;
    tab.until_it_says(SHOWN).await;
    for provider in ["cascade", "borealis", "aurora"] {
        site.fault(provider, "down").await;
    }
    let done = tab.until_done().await;
    assert_eq!(
        (&done["degraded"], &done["provider"]),
        (&json!(true), &json!(null))
    );
    assert_eq!(restarts(&tab.shown().await), 1);
    let label = tab
        .string("witness.part('label', witness.answer()).innerText")
        .await;
    assert!(label.ends_with("AI unavailable"), "{label}");
    let draft = tab
        .string("witness.part('draft', witness.answer()).innerText")
        .await;
    assert!(
        draft.starts_with("Interrupted draft from aurora"),
        "{draft}"
    );
    tab.reads_whole().await;

    // After the other providers are back, a retry answers the same question.
    for provider in ["cascade", "borealis"] {
        site.fault(provider, "none").await;
    }
    tab.click(r#"[data-role="retry"]"#).await;
    assert_eq!(tab.until_done().await["provider"], "borealis");
    assert_eq!(
        tab.eval("document.querySelectorAll('[data-from=\"user\"]').length")
            .await,
        1
    );
    tab.is_untroubled().await;
}

/// Waits for the end of an answer which aurora started, and asserts that another provider gave it.
async fn fails_over(tab: &Tab, fault: &str) {
    let done = tab.until_done().await;
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
    tab.reads_whole().await;

    let shown = tab.shown().await;
    assert_eq!(restarts(&shown), 1, "{fault}");
    let paused: Vec<_> = shown.iter().filter(|answer| answer.paused).collect();
    assert!(
        !paused.is_empty(),
        "{fault}: the page did not show that another provider is asked: {shown:#?}"
    );
    let draft = &paused.last().unwrap().text;
    assert!(
        draft.len() >= SHOWN,
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
        .string("witness.part('chip', witness.answer()).textContent")
        .await;
    assert_eq!(
        chip,
        format!("Answered by {provider} · aurora unavailable"),
        "{fault}"
    );
}
