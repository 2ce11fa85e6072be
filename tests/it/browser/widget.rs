//! The widget on somebody else's site: it shows, it looks the same whatever that site does, it talks to its page, and it does no harm.

use serde_json::json;

use super::chrome::Chrome;
use super::page_driver::Tab;
use super::test_site::Site;
use super::third_party_site::Host;

/// The tag that a site embeds, with these attributes.
pub fn tag(site: &Site, attributes: &str) -> String {
    format!(
        "<script src=\"{}widget.js\" async {attributes}></script>",
        site.address()
    )
}

/// A service that allows a host, and the host.
pub async fn pair() -> (Host, Site) {
    let host = Host::start().await;
    let site = Site::configured(&host.allowed()).await;
    (host, site)
}

pub const LAUNCHER: &str = "witness.shadow.querySelector('[data-role=\"launcher\"]')";

/// Waits for the launcher, and opens the chat with a click on it.
pub async fn open(tab: &Tab) {
    tab.until("witness.shadow && witness.part('launcher')")
        .await;
    tab.click_on(LAUNCHER).await;
    tab.until("witness.part('panel') && witness.part('composer') && witness.frame('welcome')")
        .await;
}

#[tokio::test]
async fn one_tag_in_the_head_shows_the_launcher_and_a_second_mounts_nothing_more() {
    let (host, site) = pair().await;
    let two = tag(&site, "data-title=\"First\"") + &tag(&site, "data-title=\"Second\"");
    let chrome = Chrome::start().await;
    let tab = chrome.open(&host.plain("/", "", &two)).await;
    open(&tab).await;
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
    // And one that comes later still.
    tab.eval(&format!("document.head.append(Object.assign(document.createElement('script'), {{ src: '{}widget.js', onload: () => (window.later = true) }}))", site.address())).await;
    tab.until("window.later").await;
    assert_eq!(
        tab.eval("document.querySelectorAll('failsoft-chat').length")
            .await,
        1
    );
    tab.ask_widget("Hello there").await;
    let done = tab.until_done().await;
    assert_eq!(done["source"], "ai");
    tab.is_untroubled().await;
    assert_eq!(chrome.complaints().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_strict_policy_of_the_site_forbids_nothing_it_needs() {
    let (host, site) = pair().await;
    let us = format!("127.0.0.1:{}", site.port());
    // To a browser a WebSocket is another address than the page it belongs to.
    let policy =
        format!("default-src 'none'; script-src http://{us}; connect-src http://{us} ws://{us}");
    let chrome = Chrome::start().await;
    let tab = chrome
        .open(&host.plain("/", &policy, &tag(&site, "data-accent=\"#0a7d5a\"")))
        .await;
    open(&tab).await;
    tab.ask_widget("Show me some Rust code").await;
    tab.until_done().await;
    tab.until("witness.answer().querySelector('.hljs-keyword')")
        .await;
    let styled = "(({ width, borderRadius }) => [width, borderRadius])(getComputedStyle(witness.part('panel')))";
    assert_eq!(tab.eval(styled).await, json!(["384px", "12px"]));
    let accent = "getComputedStyle(witness.part('launcher')).backgroundColor";
    assert_eq!(tab.eval(accent).await, "rgb(10, 125, 90)");
    tab.is_untroubled().await;
    assert_eq!(chrome.complaints().await, Vec::<String>::new());
}

/// Where everything in the widget is, how large it is and what it looks like; but for the site's own colour scheme, which both have.
const MEASURE: &str = "(() => {
    const seen = [...witness.shadow.querySelectorAll('.fsw *')].filter((el) => el.checkVisibility({ visibilityProperty: true }));
    return seen.map((el) => {
        const { left, top, width, height } = el.getBoundingClientRect();
        const { fontSize, fontFamily, lineHeight, color, backgroundColor, display, textAlign } = getComputedStyle(el);
        return { name: `${el.localName}.${el.getAttribute('class')}`, box: [left, top, width, height],
            look: [fontSize, fontFamily, lineHeight, color, backgroundColor, display, textAlign] };
    });
})()";

#[tokio::test]
async fn the_sites_own_styles_change_nothing() {
    let (host, site) = pair().await;
    let hostile = "<style>:root { overflow: hidden !important; font-size: 30px !important; direction: rtl; line-height: 3 } * { all: unset !important }
        button { display: none !important } failsoft-chat { visibility: hidden !important; opacity: 0 !important; zoom: 2 !important }
        body, body * { font: 30px/2 fantasy !important; color: red !important; text-transform: uppercase !important; letter-spacing: 9px !important }
        section, div, p, textarea, svg { width: 7px !important; float: left !important; position: static !important; }
        .fs, .fsw, .fs-turn { display: none !important } [hidden] { display: block !important }</style>";
    let chrome = Chrome::start().await;
    let mut measured = Vec::new();
    for (path, style) in [
        ("/kind", "<style>:root { overflow: hidden }</style>"),
        ("/hostile", hostile),
    ] {
        let tab = chrome
            .open(&host.plain(
                path,
                "",
                &format!("{style}{}", tag(&site, "data-theme=\"light\"")),
            ))
            .await;
        tab.until("witness.shadow && document.readyState === 'complete'")
            .await;
        tab.eval("Failsoft.open()").await;
        tab.until("witness.part('panel') && witness.part('empty') && witness.frame('welcome')")
            .await;
        tab.until("!witness.shadow.getAnimations().length").await;
        tab.eval("(document.activeElement.blur(), witness.shadow.activeElement?.blur())")
            .await;
        measured.push(tab.eval(MEASURE).await);
        tab.is_untroubled().await;
        tab.eval("Failsoft.destroy()").await;
    }
    let [kind, hostile] = measured.try_into().unwrap();
    let [kind, hostile] = [kind, hostile].map(|all| all.as_array().unwrap().clone());
    assert!(kind.len() > 30, "{} parts", kind.len());
    assert_eq!(kind.len(), hostile.len());
    for (kind, hostile) in kind.iter().zip(&hostile) {
        assert_eq!(
            (&kind["name"], &kind["look"]),
            (&hostile["name"], &hostile["look"])
        );
        let boxes = [kind, hostile]
            .map(|one| serde_json::from_value::<[f64; 4]>(one["box"].clone()).unwrap());
        let moved = boxes[0]
            .iter()
            .zip(&boxes[1])
            .any(|(one, other)| (one - other).abs() > 1.0);
        assert!(!moved, "{}: {boxes:?}", kind["name"]);
    }
}

#[tokio::test]
async fn it_is_fetched_when_it_is_wanted_and_the_launcher_is_light() {
    let (host, site) = pair().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open("about:blank").await;
    tab.cdp("Performance.enable", json!({ "timeDomain": "threadTicks" }))
        .await;
    tab.go(&host.plain("/", "", &tag(&site, ""))).await;
    tab.until("witness.shadow && document.readyState === 'complete'")
        .await;
    let metrics = tab.cdp("Performance.getMetrics", json!({})).await;
    let metric = |name: &str| {
        let all = metrics["metrics"].as_array().unwrap();
        all.iter().find(|one| one["name"] == name).unwrap()["value"]
            .as_f64()
            .unwrap()
    };
    // All script of the page together, in seconds of the processor: so no task of it was longer.
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
    tab.hover(LAUNCHER).await;
    tab.until(&format!(
        "{fetched}.includes('/static/chat.js') && {fetched}.includes('/static/style.css')"
    ))
    .await;
    assert_eq!(
        tab.eval("witness.frames.length").await,
        0,
        "no session before it is opened"
    );
    // It opens at the click, not when something has arrived.
    assert_eq!(
        tab.eval("(Failsoft.open(), Boolean(witness.part('panel')))")
            .await,
        true
    );
    tab.is_untroubled().await;
}

#[tokio::test]
async fn nothing_holds_up_the_site_while_it_loads() {
    let (host, site) = pair().await;
    let chrome = Chrome::start().await;
    let effort = chrome.effort();
    let tab = chrome.open(&host.plain("/", "", &tag(&site, ""))).await;
    open(&tab).await;
    tab.ask_widget("Show me some Rust code").await;
    tab.until_done().await;
    tab.until("witness.answer().querySelector('.hljs-keyword')")
        .await;
    assert_eq!(effort.own(&tab).await, []);
    // The page of its own as well.
    let page = chrome.open(&site.address()).await;
    page.until("witness.part('empty')").await;
    assert_eq!(effort.own(&page).await, []);
}
