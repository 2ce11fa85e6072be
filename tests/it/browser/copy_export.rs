//! Copying an answer, copying a code block, and exporting the conversation.

use serde_json::json;

use super::chrome::Chrome;
use super::test_site::TestSite;

#[tokio::test]
async fn copy_and_export_give_answer_code_and_conversation() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask("Show me some Rust code").await;
    let done = tab.wait_for_done().await;
    tab.wait_until("witness.answer().querySelector('.fs-code')")
        .await;
    // Records what the page puts on the clipboard: reading the real one needs a permission.
    tab.eval("(window.taken = [], navigator.clipboard.writeText = async (text) => { taken.push(text); })")
        .await;
    tab.click("[data-role=\"copy\"]").await;
    tab.wait_until("taken.length === 1 && document.querySelector('[data-role=\"copy\"].is-done')")
        .await;
    assert_eq!(tab.eval("taken[0]").await, done["text"]);
    assert_eq!(
        tab.eval("witness.root().querySelector('[data-role=\"status\"]').textContent")
            .await,
        "Copied"
    );
    tab.click("[data-copy]").await;
    tab.wait_until("taken.length === 2").await;
    let code = tab
        .eval_string("document.querySelector('.fs-code code').textContent")
        .await;
    assert!(code.contains("fn backoff"), "{code}");
    assert_eq!(tab.eval("taken[1]").await, code);

    // The exported file, as the browser receives it.
    tab.eval(
        "(window.file = null, URL.createObjectURL = (blob) => (blob.text().then((text) => (window.file = { text, name })), '#'),
          HTMLAnchorElement.prototype.click = function click() { window.name = this.download; }, null)",
    )
    .await;
    tab.click("[data-role=\"export\"]").await;
    tab.wait_until("file").await;
    let name = tab.eval_string("file.name").await;
    let text = tab.eval_string("file.text").await;
    assert!(
        name.starts_with("conversation-20") && name.ends_with(".md"),
        "{name}"
    );
    assert!(
        text.contains("Show me some Rust code") && text.contains(done["text"].as_str().unwrap()),
        "{text}"
    );
    assert!(text.contains("Answered by aurora"), "{text}");
    assert_eq!(tab.eval("witness.trouble").await, json!([]));
}
