//! A question and its streamed answer.

use super::chrome::Chrome;
use super::page_driver::count_restarts;
use super::test_site::TestSite;

#[tokio::test]
async fn answer_streams_and_renders_as_markdown() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask("Show me some Rust code").await;
    let done = tab.wait_for_done().await;
    assert_eq!(done["provider"], "aurora");

    let shown = tab.answer_changes().await;
    let lengths: std::collections::BTreeSet<_> =
        shown.iter().map(|answer| answer.text.len()).collect();
    assert!(
        lengths.len() > 20,
        "the text must arrive gradually: {lengths:?}"
    );
    assert_eq!(count_restarts(&shown), 0);

    tab.assert_readable().await;
    let rendered = "witness.answer().querySelector('[data-role=\"text\"] pre code').textContent";
    assert!(
        tab.eval_string(rendered).await.contains("fn backoff"),
        "Markdown must be rendered"
    );
    let below = "witness.part('chip', witness.answer()).getBoundingClientRect().top
        >= witness.answer().querySelector('[data-role=\"text\"]').getBoundingClientRect().bottom";
    assert_eq!(tab.eval(below).await, true);
    assert_eq!(
        tab.eval_string("witness.part('chip', witness.answer()).textContent")
            .await,
        "Answered by aurora"
    );
    tab.assert_no_errors().await;
    assert_eq!(chrome.console_warnings().await, Vec::<String>::new());
}
