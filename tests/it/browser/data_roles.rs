//! The `data-role` hooks for the scripts of site owners: each is present where it is documented.

use serde_json::{Value, json};

use super::chrome::Chrome;
use super::page_driver::BrowserTab;
use super::test_site::TestSite;
use super::widget::{open_chat, script_tag, start_host_and_site};

/// Returns the distinct values of these attributes on the elements with this role.
async fn attributes_of(tab: &BrowserTab, role: &str, names: &[&str]) -> Value {
    let names = json!(names);
    let each = format!(
        "[...new Set([...witness.root().querySelectorAll('[data-role=\"{role}\"]')].map((el) => {names}.map((name) => el.getAttribute(name) ?? '-').join(' ')))]"
    );
    tab.eval(&each).await
}

#[tokio::test]
async fn chat_page_has_every_data_role() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask("Where do penguins sleep in winter?").await;
    tab.wait_for_partial_answer(120).await;
    let turn = tab.eval_string("witness.answer().dataset.turn").await;
    let message = ["data-from", "data-turn", "data-state"];
    let messages = attributes_of(&tab, "message", &message).await;
    assert_eq!(
        messages,
        json!([
            format!("user {turn} done"),
            format!("assistant {turn} streaming")
        ])
    );
    assert!(
        tab.eval("witness.visible(witness.part('stop')) && !witness.part('send')")
            .await
            == true
    );
    site.set_fault("aurora", "cut").await;
    tab.wait_for_done().await;
    let answer = "witness.answer().dataset";
    assert_eq!(
        tab.eval(&format!("[{answer}.state, {answer}.source]"))
            .await,
        json!(["done", "ai"])
    );
    for role in [
        "log", "text", "chip", "draft", "composer", "send", "retry", "up", "down", "status",
    ] {
        let is_present = format!("Boolean(document.querySelector('[data-role=\"{role}\"]'))");
        assert_eq!(tab.eval(&is_present).await, true, "{role}");
    }
    assert_eq!(
        attributes_of(&tab, "demo", &["data-provider"]).await,
        json!(["aurora", "borealis", "cascade"])
    );

    tab.ask("Write a long text about the sea").await;
    tab.wait_for_partial_answer(50).await;
    tab.click("[data-role=\"stop\"]").await;
    tab.wait_for_done().await;
    assert_eq!(tab.eval(&format!("{answer}.state")).await, "stopped");

    for provider in ["aurora", "borealis", "cascade"] {
        site.set_fault(provider, "unauthorized").await;
    }
    tab.ask("What does it cost?").await;
    tab.wait_for_done().await;
    assert_eq!(tab.eval(&format!("{answer}.source")).await, "template");
    assert_eq!(
        tab.eval("Boolean(witness.part('label', witness.answer()))")
            .await,
        true
    );
    tab.wait_until("witness.part('banner')?.dataset.mode === 'outage'")
        .await;
    assert_eq!(
        attributes_of(&tab, "connection", &["data-state"]).await,
        json!(["open"])
    );
}

#[tokio::test]
async fn widget_and_status_page_have_every_data_role() {
    let (host, site) = start_host_and_site().await;
    let chrome = Chrome::start().await;
    let tab = chrome
        .open(&host.add_plain_page("/", "", &script_tag(&site, "")))
        .await;
    open_chat(&tab).await;
    let within = "document.querySelector('failsoft-chat').shadowRoot.querySelector";
    for role in [
        "launcher",
        "panel",
        "log",
        "composer",
        "send",
        "stop",
        "connection",
        "status",
    ] {
        assert_eq!(
            tab.eval(&format!("Boolean({within}('[data-role=\"{role}\"]'))"))
                .await,
            true,
            "{role}"
        );
    }
    site.set_fault("aurora", "unauthorized").await;
    site.post("/api/chat", &json!({ "message": "Well?" })).await;
    let page = chrome.open(&format!("{}status", site.address())).await;
    page.wait_until("document.querySelector('[data-role=\"incident\"]')")
        .await;
    let providers = [
        "aurora blocked false",
        "borealis closed true",
        "cascade closed false",
    ];
    assert_eq!(
        attributes_of(
            &page,
            "provider",
            &["data-name", "data-state", "data-active"]
        )
        .await,
        json!(providers)
    );
    let status = site.get("/status.json").await.json();
    assert_eq!(
        attributes_of(&page, "incident", &["data-id"]).await,
        json!([status["incident"]])
    );
    assert_eq!(
        page.eval("document.querySelectorAll('[data-role=\"timeline\"]').length")
            .await,
        2
    );
}
