//! The widget on a third-party site: it mounts once, keeps its look under any styles and policy,
//! and does not slow the site down.

use serde_json::json;

use super::chrome::Chrome;
use super::page_driver::BrowserTab;
use super::test_site::TestSite;
use super::third_party_site::HostSite;

/// Returns the script tag which a site embeds, with these attributes.
pub fn script_tag(site: &TestSite, attributes: &str) -> String {
    format!(
        "<script src=\"{}widget.js\" async {attributes}></script>",
        site.address()
    )
}

/// Starts a host site and a service which allows it.
pub async fn start_host_and_site() -> (HostSite, TestSite) {
    let host = HostSite::start().await;
    let site = TestSite::with_config(&host.allowing_config()).await;
    (host, site)
}

pub const LAUNCHER_ELEMENT: &str = "witness.shadow.querySelector('[data-role=\"launcher\"]')";

/// Waits for the launcher and opens the chat with a click on it.
pub async fn open_chat(tab: &BrowserTab) {
    tab.wait_until("witness.shadow && witness.part('launcher')")
        .await;
    tab.click_on(LAUNCHER_ELEMENT).await;
    tab.wait_until("witness.part('panel') && witness.part('composer') && witness.frame('welcome')")
        .await;
}

#[tokio::test]
async fn repeated_script_tags_mount_one_widget() {
    let (host, site) = start_host_and_site().await;
    let two =
        script_tag(&site, "data-title=\"First\"") + &script_tag(&site, "data-title=\"Second\"");
    let chrome = Chrome::start().await;
    let tab = chrome.open(&host.add_plain_page("/", "", &two)).await;
    open_chat(&tab).await;
    assert_eq!(
        tab.eval("document.querySelectorAll('failsoft-chat').length")
            .await,
        1
    );
    assert_eq!(
        tab.eval("document.querySelector('failsoft-chat').shadowRoot.mode")
            .await,
        "open"
    );
    // A third tag, added later.
    tab.eval(&format!("document.head.append(Object.assign(document.createElement('script'), {{ src: '{}widget.js', onload: () => (window.later = true) }}))", site.address())).await;
    tab.wait_until("window.later").await;
    assert_eq!(
        tab.eval("document.querySelectorAll('failsoft-chat').length")
            .await,
        1
    );
    tab.ask_widget("Hello there").await;
    let done = tab.wait_for_done().await;
    assert_eq!(done["source"], "ai");
    tab.assert_no_errors().await;
    assert_eq!(chrome.console_warnings().await, Vec::<String>::new());
}

#[tokio::test]
async fn widget_works_under_a_strict_content_security_policy() {
    let (host, site) = start_host_and_site().await;
    let us = format!("127.0.0.1:{}", site.port());
    // A policy lists the WebSocket separately from the page which it belongs to.
    let policy =
        format!("default-src 'none'; script-src http://{us}; connect-src http://{us} ws://{us}");
    let chrome = Chrome::start().await;
    let tab = chrome
        .open(&host.add_plain_page("/", &policy, &script_tag(&site, "data-accent=\"#0a7d5a\"")))
        .await;
    open_chat(&tab).await;
    tab.ask_widget("Show me some Rust code").await;
    tab.wait_for_done().await;
    tab.wait_until("witness.answer().querySelector('.hljs-keyword')")
        .await;
    let styled = "(({ width, borderRadius }) => [width, borderRadius])(getComputedStyle(witness.part('panel')))";
    assert_eq!(tab.eval(styled).await, json!(["384px", "12px"]));
    let accent = "getComputedStyle(witness.part('launcher')).backgroundColor";
    assert_eq!(tab.eval(accent).await, "rgb(10, 125, 90)");
    tab.assert_no_errors().await;
    assert_eq!(chrome.console_warnings().await, Vec::<String>::new());
}

/// Returns position, size and look of every visible element in the widget.
const MEASURE_WIDGET: &str = "(() => {
    const seen = [...witness.shadow.querySelectorAll('.fsw *')].filter((el) => el.checkVisibility({ visibilityProperty: true }));
    return seen.map((el) => {
        const { left, top, width, height } = el.getBoundingClientRect();
        const { fontSize, fontFamily, lineHeight, color, backgroundColor, display, textAlign } = getComputedStyle(el);
        return { name: `${el.localName}.${el.getAttribute('class')}`, box: [left, top, width, height],
            look: [fontSize, fontFamily, lineHeight, color, backgroundColor, display, textAlign] };
    });
})()";

#[tokio::test]
async fn site_styles_do_not_affect_the_widget() {
    let (host, site) = start_host_and_site().await;
    let hostile = "<style>:root { overflow: hidden !important; font-size: 30px !important; direction: rtl; line-height: 3 } * { all: unset !important }
        button { display: none !important } failsoft-chat { visibility: hidden !important; opacity: 0 !important; zoom: 2 !important }
        body, body * { font: 30px/2 fantasy !important; color: red !important; text-transform: uppercase !important; letter-spacing: 9px !important }
        section, div, p, textarea, svg { width: 7px !important; float: left !important; position: static !important; }
        .fs, .fsw, .fs-turn { display: none !important } [hidden] { display: block !important }</style>";
    let chrome = Chrome::start().await;
    let mut measured = Vec::new();
    for (path, style) in [
        ("/neutral", "<style>:root { overflow: hidden }</style>"),
        ("/hostile", hostile),
    ] {
        let tab = chrome
            .open(&host.add_plain_page(
                path,
                "",
                &format!("{style}{}", script_tag(&site, "data-theme=\"light\"")),
            ))
            .await;
        tab.wait_until("witness.shadow && document.readyState === 'complete'")
            .await;
        tab.eval("Failsoft.open()").await;
        tab.wait_until(
            "witness.part('panel') && witness.part('empty') && witness.frame('welcome')",
        )
        .await;
        tab.wait_until("!witness.shadow.getAnimations().length")
            .await;
        tab.eval("(document.activeElement.blur(), witness.shadow.activeElement?.blur())")
            .await;
        measured.push(tab.eval(MEASURE_WIDGET).await);
        tab.assert_no_errors().await;
        tab.eval("Failsoft.destroy()").await;
    }
    let [neutral, hostile] = measured.try_into().unwrap();
    let [neutral, hostile] =
        [neutral, hostile].map(|elements| elements.as_array().unwrap().clone());
    assert!(neutral.len() > 30, "{} parts", neutral.len());
    assert_eq!(neutral.len(), hostile.len());
    for (neutral, hostile) in neutral.iter().zip(&hostile) {
        assert_eq!(
            (&neutral["name"], &neutral["look"]),
            (&hostile["name"], &hostile["look"])
        );
        let boxes = [neutral, hostile]
            .map(|element| serde_json::from_value::<[f64; 4]>(element["box"].clone()).unwrap());
        let moved = boxes[0]
            .iter()
            .zip(&boxes[1])
            .any(|(a, b)| (a - b).abs() > 1.0);
        assert!(!moved, "{}: {boxes:?}", neutral["name"]);
    }
}

#[tokio::test]
async fn chat_code_loads_on_hover_and_the_launcher_is_light() {
    let (host, site) = start_host_and_site().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open("about:blank").await;
    tab.cdp("Performance.enable", json!({ "timeDomain": "threadTicks" }))
        .await;
    tab.open(&host.add_plain_page("/", "", &script_tag(&site, "")))
        .await;
    tab.wait_until("witness.shadow && document.readyState === 'complete'")
        .await;
    let metrics = tab.cdp("Performance.getMetrics", json!({})).await;
    let metric = |name: &str| {
        let metrics = metrics["metrics"].as_array().unwrap();
        metrics
            .iter()
            .find(|metric| metric["name"] == name)
            .unwrap()["value"]
            .as_f64()
            .unwrap()
    };
    // The CPU seconds of all scripts together, so no single task took longer.
    assert!(
        metric("ScriptDuration") < 0.05,
        "{}",
        metric("ScriptDuration")
    );
    let fetched = format!(
        "performance.getEntriesByType('resource').map(({{ name }}) => new URL(name))
            .filter(({{ port }}) => port === '{}').map(({{ pathname }}) => pathname)",
        site.port()
    );
    assert_eq!(tab.eval(&fetched).await, json!(["/widget.js"]));
    tab.hover(LAUNCHER_ELEMENT).await;
    tab.wait_until(&format!(
        "{fetched}.includes('/static/chat.js') && {fetched}.includes('/static/style.css')"
    ))
    .await;
    assert_eq!(
        tab.eval("witness.frames.length").await,
        0,
        "no session before the chat is opened"
    );
    // The panel opens at the call, before anything has arrived.
    assert_eq!(
        tab.eval("(Failsoft.open(), Boolean(witness.part('panel')))")
            .await,
        true
    );
    tab.assert_no_errors().await;
}

#[tokio::test]
async fn loading_causes_no_long_tasks() {
    let (host, site) = start_host_and_site().await;
    let chrome = Chrome::start().await;
    let effort = chrome.watch_cpu_time();
    let tab = chrome
        .open(&host.add_plain_page("/", "", &script_tag(&site, "")))
        .await;
    open_chat(&tab).await;
    tab.ask_widget("Show me some Rust code").await;
    tab.wait_for_done().await;
    tab.wait_until("witness.answer().querySelector('.hljs-keyword')")
        .await;
    assert_eq!(effort.long_tasks(&tab).await, []);
    // The same for the service's own chat page.
    let page = chrome.open(&site.address()).await;
    page.wait_until("witness.part('empty')").await;
    assert_eq!(effort.long_tasks(&page).await, []);
}
