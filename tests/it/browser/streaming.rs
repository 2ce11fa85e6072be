//! A question and its streamed answer.

use super::chrome::Chrome;
use super::page_driver::restarts;
use super::test_site::Site;

#[tokio::test]
async fn answer_streams_and_renders_as_markdown() {
    let site = Site::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask("Show me some Rust code").await;
    let done = tab.until_done().await;
    assert_eq!(done["provider"], "aurora");

    let shown = tab.shown().await;
    let lengths: std::collections::BTreeSet<_> =
        shown.iter().map(|answer| answer.text.len()).collect();
    assert!(
        lengths.len() > 20,
        "the text must arrive gradually: {lengths:?}"
    );
    assert_eq!(restarts(&shown), 0);

    tab.reads_whole().await;
    let rendered = "witness.answer().querySelector('[data-role=\"text\"] pre code').textContent";
    assert!(
        tab.string(rendered).await.contains("fn backoff"),
        "Markdown must be rendered"
    );
    let below = "witness.part('chip', witness.answer()).getBoundingClientRect().top
        >= witness.answer().querySelector('[data-role=\"text\"]').getBoundingClientRect().bottom";
    assert_eq!(tab.eval(below).await, true);
    assert_eq!(
        tab.string("witness.part('chip', witness.answer()).textContent")
            .await,
        "Answered by aurora"
    );
    tab.is_untroubled().await;
    assert_eq!(chrome.complaints().await, Vec::<String>::new());
}
