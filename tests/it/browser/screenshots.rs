//! Generates the README's screenshots from the current pages: `tests/screenshots.sh`.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::chrome::Chrome;
use super::page_driver::BrowserTab;
use super::test_site::TestSite;

const MAX_PNG_BYTES: usize = 200_000;

async fn save_screenshot(tab: &BrowserTab, name: &str) {
    // No blinking caret, no hover effects.
    tab.eval("document.activeElement.blur()").await;
    tab.wait_until("document.fonts.status === 'loaded' && !document.getAnimations().some((one) => one instanceof CSSTransition)").await;
    let shot = tab
        .cdp(
            "Page.captureScreenshot",
            json!({ "format": "png", "optimizeForSpeed": false }),
        )
        .await;
    let png = STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
    assert!(png.len() < MAX_PNG_BYTES, "{name} has {} bytes", png.len());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pictures");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), png).unwrap();
}

#[tokio::test]
#[ignore = "writes into docs/pictures; run by tests/screenshots.sh"]
async fn screenshots() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.resize(1280, 800, false).await;
    tab.set_color_scheme("light").await;
    tab.ask("How does a circuit breaker work?").await;
    tab.wait_for_partial_answer(300).await;
    let row = r#"[data-role="demo"][data-provider="aurora"]"#;
    tab.click(&format!(r#"{row} option[value="down"]"#)).await;
    tab.click(&format!(r#"{row} [data-action="break"]"#)).await;
    tab.wait_until("witness.part('draft') && witness.text().includes('no reader notices')")
        .await;
    let aside = json!({ "type": "mouseMoved", "x": 1100, "y": 600 });
    tab.cdp("Input.dispatchMouseEvent", aside).await;
    save_screenshot(&tab, "failover.png").await;
    tab.wait_for_done().await;

    let shop = chrome.open(&format!("{}embed", site.address())).await;
    shop.resize(1280, 800, false).await;
    shop.set_color_scheme("light").await;
    site.set_fault("aurora", "none").await;
    shop.eval("(localStorage.clear(), Failsoft.open())").await;
    shop.wait_until("witness.part('empty')").await;
    shop.ask_widget("What are your opening hours?").await;
    shop.wait_for_done().await;
    save_screenshot(&shop, "widget.png").await;

    let phone = chrome.open("about:blank").await;
    // A higher density would only make the file larger: the picture is shown small.
    let screen = json!({ "width": 390, "height": 844, "deviceScaleFactor": 1.5, "mobile": true });
    phone
        .cdp("Emulation.setDeviceMetricsOverride", screen)
        .await;
    phone
        .cdp(
            "Emulation.setTouchEmulationEnabled",
            json!({ "enabled": true }),
        )
        .await;
    phone.set_color_scheme("dark").await;
    site.set_fault("aurora", "unauthorized").await;
    phone.open(&site.address()).await;
    // A new conversation without a click, which would leave a button highlighted.
    phone.eval("localStorage.clear()").await;
    phone.reload().await;
    phone.ask("What are your opening hours?").await;
    phone.wait_for_done().await;
    phone
        .wait_until("witness.part('banner')?.dataset.mode === 'degraded'")
        .await;
    save_screenshot(&phone, "phone.png").await;

    let page = chrome.open("about:blank").await;
    page.resize(1280, 800, false).await;
    page.set_color_scheme("light").await;
    page.open(&format!("{}status", site.address())).await;
    page.wait_until(
        "document.querySelector('[data-role=\"provider\"][data-name=\"borealis\"][data-active=\"true\"]')",
    )
    .await;
    page.wait_until("document.querySelector('[data-role=\"age\"]').textContent === 'Live.'")
        .await;
    save_screenshot(&page, "status.png").await;
}
