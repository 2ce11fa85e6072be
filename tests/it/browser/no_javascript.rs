//! Pages without JavaScript: each shows what it can.

use serde_json::json;

use super::chrome::Chrome;
use super::page_driver::BrowserTab;
use super::test_site::TestSite;

/// Returns the visible text of the main content, from the accessibility tree, since no script runs.
async fn visible_text(tab: &BrowserTab) -> String {
    let tree = tab.cdp("Accessibility.getFullAXTree", json!({})).await;
    let nodes = tree["nodes"].as_array().unwrap().iter();
    let texts =
        nodes.filter(|node| node["ignored"] == false && node["role"]["value"] == "StaticText");
    texts
        .filter_map(|node| node["name"]["value"].as_str())
        .collect::<Vec<_>>()
        .join("\n")
}

#[tokio::test]
async fn pages_without_scripts_show_a_notice_or_their_content() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open("about:blank").await;
    tab.cdp(
        "Emulation.setScriptExecutionDisabled",
        json!({ "value": true }),
    )
    .await;
    tab.cdp("Network.enable", json!({})).await;
    for (path, language, words) in [
        ("", "en-US", "This chat needs JavaScript"),
        ("", "de-AT,en;q=0.5", "Dieser Chat braucht JavaScript"),
        ("embed", "en-US", "needs JavaScript"),
        ("status", "en-US", "Everything works"),
        ("status", "fr,en;q=0.5", "Tout fonctionne"),
        ("status?lang=es", "fr", "Todo funciona"),
    ] {
        let headers = json!({ "headers": { "accept-language": language } });
        tab.cdp("Network.setExtraHTTPHeaders", headers).await;
        tab.open(&format!("{}{path}", site.address())).await;
        let seen = visible_text(&tab).await;
        assert!(seen.contains(words), "{path}, {language}: {seen}");
        assert!(path != "status" || seen.contains("aurora"), "{seen}");
    }
}

#[tokio::test]
async fn page_whose_scripts_do_not_load_says_so_after_a_while() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open("about:blank").await;
    tab.cdp("Network.enable", json!({})).await;
    tab.cdp(
        "Network.setBlockedURLs",
        json!({ "urls": ["*/static/*.js*"] }),
    )
    .await;
    tab.open(&site.address()).await;
    let visibility =
        "(({ visibility }) => visibility)(getComputedStyle(document.querySelector('.fs-late')))";
    assert_eq!(
        tab.eval(visibility).await,
        "hidden",
        "the notice waits until the chat had time to load"
    );
    tab.wait_until(&format!("{visibility} === 'visible'")).await;
    assert!(visible_text(&tab).await.contains("The chat does not load."));
}
