//! The composer: sending without a connection, stopping an answer, rate limits and feedback.

use serde_json::{Value, json};

use super::chrome::Chrome;
use super::cutting_proxy::BrowserProxy;
use super::page_driver::count_restarts;
use super::test_site::TestSite;

/// `true` while a message shows that it waits for a connection.
const WAITING_NOTE_IS_SHOWN: &str =
    "document.querySelector('[data-role=\"log\"]').innerText.includes('Waiting to send')";

/// Returns the number of turns with this question.
async fn count_turns(question: &str, site: &TestSite, conversation: &str) -> usize {
    let history = site.history(conversation).await;
    history
        .iter()
        .filter(|turn| turn["question"] == question)
        .count()
}

#[tokio::test]
async fn offline_messages_are_sent_once_after_reconnect() {
    let site = TestSite::demo().await;
    let proxy = BrowserProxy::in_front_of(site.port()).await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&proxy.address()).await;
    tab.wait_until("witness.frame('welcome')").await;
    let conversation = tab.conversation_id().await;
    let second = chrome.open(&proxy.address()).await;
    second.wait_until("witness.frame('welcome')").await;
    proxy.sever();
    tab.wait_until("witness.part('banner')?.dataset.mode === 'unreachable'")
        .await;
    let asked = ["First, a story", "Then a list"];
    for question in asked {
        tab.ask(question).await;
    }
    tab.wait_until(WAITING_NOTE_IS_SHOWN).await;
    proxy.restore();
    for tab in [&tab, &second] {
        tab.wait_until(
            "witness.answers().filter((el) => el.dataset.state === 'done').length === 2",
        )
        .await;
        tab.wait_until(&format!("!{WAITING_NOTE_IS_SHOWN}")).await;
        let questions =
            "[...document.querySelectorAll('[data-from=\"user\"]')].map((el) => el.rawText)";
        assert_eq!(tab.eval(questions).await, json!(asked));
        tab.assert_no_errors().await;
    }
    for question in asked {
        assert_eq!(
            count_turns(question, &site, &conversation).await,
            1,
            "{question}"
        );
    }
}

#[tokio::test]
async fn message_during_an_answer_waits_for_its_end() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask("First, a story").await;
    tab.wait_for_partial_answer(50).await;
    tab.ask("Then a list").await;
    tab.wait_until(
        "document.querySelector('[data-role=\"log\"]').innerText.includes('Waiting for the current answer')",
    )
    .await;
    tab.wait_until("witness.answers().filter((el) => el.dataset.state === 'done').length === 2")
        .await;
    let refused = "witness.frames.filter(({ frame }) => frame.type === 'error').length";
    assert_eq!(
        tab.eval(refused).await,
        0,
        "the message was held back, not refused"
    );
    let history = site.history(&tab.conversation_id().await).await;
    let questions: Vec<_> = history.iter().map(|turn| &turn["question"]).collect();
    assert_eq!(questions, ["First, a story", "Then a list"]);
    tab.assert_no_errors().await;
}

#[tokio::test]
async fn unacknowledged_message_is_resent_as_the_same_turn() {
    let site = TestSite::demo().await;
    let proxy = BrowserProxy::in_front_of(site.port()).await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&proxy.address()).await;
    tab.wait_until("witness.frame('welcome')").await;
    let conversation = tab.conversation_id().await;
    // The service receives the question, but its acknowledgement never reaches the page.
    proxy.hold_responses();
    tab.ask("What does it cost?").await;
    let is_received = async || count_turns("What does it cost?", &site, &conversation).await == 1;
    while !is_received().await {}
    proxy.sever();
    tab.wait_until(WAITING_NOTE_IS_SHOWN).await;
    proxy.restore();
    tab.wait_until("witness.answer()?.dataset.state === 'done'")
        .await;
    assert_eq!(
        tab.eval("document.querySelectorAll('[data-from=\"user\"]').length")
            .await,
        1
    );
    assert_eq!(
        count_turns("What does it cost?", &site, &conversation).await,
        1
    );
    tab.assert_no_errors().await;
}

#[tokio::test]
async fn waiting_message_survives_a_reload() {
    let site = TestSite::demo().await;
    let proxy = BrowserProxy::in_front_of(site.port()).await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&proxy.address()).await;
    tab.wait_until("witness.frame('welcome')").await;
    let conversation = tab.conversation_id().await;
    proxy.sever();
    tab.wait_until("witness.part('connection')").await;
    tab.ask("What does it cost?").await;
    tab.wait_until(WAITING_NOTE_IS_SHOWN).await;
    proxy.restore();
    tab.reload().await;
    tab.wait_until("witness.frame('done')").await;
    assert_eq!(
        tab.eval_string("document.querySelector('[data-from=\"user\"]').rawText")
            .await,
        "What does it cost?"
    );
    assert_eq!(
        count_turns("What does it cost?", &site, &conversation).await,
        1
    );
    tab.assert_no_errors().await;
}

#[tokio::test]
async fn stop_ends_the_answer_at_once_and_after_a_reload() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask("Write a long text about the sea").await;
    tab.wait_for_partial_answer(200).await;
    tab.click(r#"[data-role="stop"]"#).await;
    let done = tab.wait_for_done().await;
    assert_eq!(done["finish"], "stopped");
    assert_eq!(
        tab.eval_string("witness.answer().dataset.state").await,
        "stopped"
    );
    let clicked = tab
        .eval("witness.clicks.find(({ role }) => role === 'stop').at")
        .await
        .as_f64()
        .unwrap();
    let shown = tab.answer_changes().await;
    let last_growth = shown
        .windows(2)
        .rfind(|pair| pair[0].text != pair[1].text)
        .unwrap()[1]
        .at;
    assert!(
        last_growth - clicked <= 200.0,
        "the answer grew for {} ms after the click",
        last_growth - clicked
    );
    assert_eq!(count_restarts(&shown), 0);
    assert!(
        tab.eval_string("witness.answer().innerText")
            .await
            .contains("Stopped")
    );

    // The answer stays stopped, in this page and in any other.
    let text = tab.answer_text().await;
    tab.ask("Hello").await;
    tab.wait_for_done().await;
    tab.reload().await;
    tab.wait_until("witness.answers().length === 2 && witness.frame('welcome')")
        .await;
    assert_eq!(tab.eval_string("witness.answers()[0].rawText").await, text);
    assert_eq!(
        tab.eval_string("witness.answers()[0].dataset.state").await,
        "stopped"
    );
    let history = site.history(&tab.conversation_id().await).await;
    assert_eq!(
        (&history[0]["text"], &history[0]["finish"]),
        (&Value::from(text), &json!("stopped"))
    );
}

#[tokio::test]
async fn leaving_the_page_does_not_stop_the_answer() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask("Where do penguins sleep in winter?").await;
    tab.wait_for_partial_answer(50).await;
    tab.open("about:blank").await;
    tab.open(&site.address()).await;
    tab.wait_until("witness.answer()?.dataset.state === 'done' && witness.frame('welcome')")
        .await;
    let history = site.history(&tab.conversation_id().await).await;
    assert_eq!(
        (&history[0]["text"], &history[0]["finish"]),
        (&Value::from(tab.answer_text().await), &json!("stop"))
    );
}

#[tokio::test]
async fn offline_stop_reaches_the_service_after_reconnect() {
    let site = TestSite::demo().await;
    let proxy = BrowserProxy::in_front_of(site.port()).await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&proxy.address()).await;
    tab.ask("Write a long text about the sea").await;
    tab.wait_for_partial_answer(200).await;
    proxy.sever();
    tab.click(r#"[data-role="stop"]"#).await;
    let text = tab.answer_text().await;
    tab.wait_until("witness.part('banner')?.dataset.mode === 'unreachable'")
        .await;
    assert_eq!(
        tab.answer_text().await,
        text,
        "the text is frozen meanwhile"
    );
    proxy.restore();
    tab.wait_until("witness.answer().dataset.state === 'stopped'")
        .await;
    assert_eq!(count_restarts(&tab.answer_changes().await), 0);
    let history = site.history(&tab.conversation_id().await).await;
    assert_eq!(
        (&history[0]["text"], &history[0]["finish"]),
        (&Value::from(tab.answer_text().await), &json!("stopped"))
    );
    tab.assert_no_errors().await;
}

#[tokio::test]
async fn one_window_stops_the_answer_of_another() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask("Write a long text about the sea").await;
    tab.wait_for_partial_answer(50).await;
    let second = chrome.open(&site.address()).await;
    second.wait_until("witness.text().length > 50").await;
    second.click(r#"[data-role="stop"]"#).await;
    let done = tab.wait_for_done().await;
    assert_eq!(done["finish"], "stopped");
    second
        .wait_until("witness.answer().dataset.state === 'stopped'")
        .await;
    assert_eq!(done["text"], second.answer_text().await);
}

#[tokio::test]
async fn messages_over_the_rate_limit_wait_and_are_sent_once() {
    let site = TestSite::with_config("[limits]\nmessages_per_minute = 6\n").await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    for provider in ["aurora", "borealis", "cascade"] {
        // The fallback answers at once.
        site.set_fault(provider, "unauthorized").await;
    }
    let asked: Vec<_> = (1..=7)
        .map(|number| format!("What costs number {number}?"))
        .collect();
    for question in &asked {
        tab.ask(question).await;
    }
    tab.wait_until(
        "document.querySelector('[data-role=\"log\"]').innerText.includes('Too many messages at once')",
    )
    .await;
    tab.wait_until("witness.answers().filter((el) => el.dataset.state === 'done').length === 7")
        .await;
    let history = site.history(&tab.conversation_id().await).await;
    let questions: Vec<_> = history
        .iter()
        .map(|turn| turn["question"].as_str().unwrap())
        .collect();
    assert_eq!(questions, asked);
    tab.assert_no_errors().await;
}

#[tokio::test]
async fn feedback_survives_a_reload_and_new_conversation_is_empty() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask("Hello").await;
    tab.wait_for_done().await;
    let conversation = tab.conversation_id().await;
    tab.click(r#"[data-role="up"]"#).await;
    tab.reload().await;
    tab.wait_until("witness.part('up')?.ariaPressed === 'true' && witness.frame('welcome')")
        .await;
    assert_eq!(site.history(&conversation).await[0]["feedback"], "up");

    tab.click(r#"[data-role="new"]"#).await;
    tab.wait_until("witness.part('empty') && witness.answers().length === 0")
        .await;
    tab.wait_until(&format!(
        "witness.frame('welcome').conversation !== '{conversation}'"
    ))
    .await;
    tab.click(r#"[data-role="suggestion"]"#).await;
    tab.wait_for_done().await;
    assert_eq!(tab.eval("witness.answers().length").await, 1);
    assert_eq!(site.history(&conversation).await.len(), 1);
    tab.assert_no_errors().await;
}
