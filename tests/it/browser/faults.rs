//! A provider breaks while it answers, in every way the demo knows: the answer ends whole, and says what happened.

use serde_json::{Value, json};

use super::chrome::Chrome;
use super::page_driver::{Tab, restarts};
use super::test_site::Site;

/// Its answer is plain text, about a hundred words of it.
const QUESTION: &str = "Where do penguins sleep in winter?";

/// Characters of the answer that stand there when its provider breaks.
const SHOWN: usize = 120;

#[tokio::test]
async fn what_cuts_an_answer_ends_in_another_ones() {
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
async fn what_silences_an_answer_ends_in_another_ones() {
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
async fn the_panel_breaks_and_mends_a_provider() {
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
async fn a_slow_answer_just_goes_on() {
    let site = Site::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask(QUESTION).await;
    tab.until_it_says(SHOWN).await;
    site.fault("aurora", "slow").await;
    let before = tab.text().await.chars().count();
    tab.until(&format!("witness.text().length > {}", before + 10))
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
async fn an_answer_that_is_too_slow_ends_in_another_ones() {
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
async fn an_answer_that_nobody_can_finish_ends_in_a_labelled_one() {
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

    // With the others back, the same question is answered.
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

/// Sees an answer of aurora's through to its end, which is not aurora's.
async fn fails_over(tab: &Tab, fault: &str) {
    let done = tab.until_done().await;
    let who = done["provider"].as_str().unwrap();
    assert_eq!(
        (&done["source"], &done["finish"]),
        (&json!("ai"), &json!("stop")),
        "{fault}"
    );
    assert_ne!(who, "aurora", "{fault}");
    let whole = format!("simulated answer from {who}");
    assert!(
        done["text"].as_str().unwrap().contains(&whole),
        "{fault}: {done:#}"
    );
    assert_eq!(done["tried"][0]["provider"], "aurora", "{fault}");
    tab.reads_whole().await;

    let shown = tab.shown().await;
    assert_eq!(restarts(&shown), 1, "{fault}");
    let paused: Vec<_> = shown.iter().filter(|one| one.paused).collect();
    assert!(
        !paused.is_empty(),
        "{fault}: nothing said that another is asked: {shown:#?}"
    );
    let held = &paused.last().unwrap().text;
    assert!(
        held.len() >= SHOWN,
        "{fault}: the text stays while another is asked"
    );
    assert_eq!(
        done["drafts"],
        json!([{ "attempt": 1, "provider": "aurora", "text": held }]),
        "{fault}"
    );

    let words = held.split_whitespace().count();
    let folded: Value = tab
        .eval("[...witness.answer().querySelectorAll('[data-role=\"draft\"]')].map((one) => [one.open, one.innerText])")
        .await;
    let line = format!("Interrupted draft from aurora · {words} words");
    assert_eq!(folded, json!([[false, line]]), "{fault}");
    let chip = tab
        .string("witness.part('chip', witness.answer()).textContent")
        .await;
    assert_eq!(
        chip,
        format!("Answered by {who} · aurora unavailable"),
        "{fault}"
    );
}
