//! Reading while an answer streams: automatic scrolling, text direction, small screens, reduced
//! motion.

use serde_json::json;

use super::chrome::Chrome;
use super::layout::LAYOUT_CHECK;
use super::test_site::TestSite;
use super::widget::{open_chat, script_tag, start_host_and_site};
use crate::harness::{
    ScriptGate, ScriptedProvider, send_text, stream_end, stream_head, token_event,
};

const LOG_ELEMENT: &str = "document.querySelector('[data-role=\"log\"]')";

fn provider_config(provider: &ScriptedProvider) -> String {
    format!(
        "[timeouts]\nstall = \"60s\"\n[[providers]]\nname = \"p\"\ndialect = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\napi_key = \"k\"\n",
        provider.base_url()
    )
}

#[tokio::test]
async fn page_follows_new_text_only_while_scrolled_to_the_end() {
    let paragraph = "A paragraph of some words, and some more of them.\n\n".repeat(40);
    let gate = ScriptGate::default();
    let mut script = vec![send_text(&stream_head())];
    for _ in 0..4 {
        script.extend([send_text(&token_event(&paragraph)), gate.wait_step()]);
    }
    script.push(send_text(&stream_end()));
    let provider = ScriptedProvider::start(script).await;
    let site = TestSite::with_config(&provider_config(&provider)).await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask("Tell me a lot").await;
    let length = |parts: usize| format!("witness.text().length === {}", parts * paragraph.len());
    let below = format!(
        "{LOG_ELEMENT}.scrollHeight - {LOG_ELEMENT}.scrollTop - {LOG_ELEMENT}.clientHeight"
    );
    tab.wait_until(&length(1)).await;
    tab.wait_until(&format!("{LOG_ELEMENT}.scrollTop > 0 && {below} < 2"))
        .await;
    gate.let_one_through();
    tab.wait_until(&length(2)).await;
    tab.wait_until(&format!("{below} < 2")).await;
    assert_eq!(
        tab.eval("witness.root().querySelector('.fs-jump').hidden")
            .await,
        true
    );

    // Scrolled up by hand, the page stays there whatever arrives.
    let wheel = json!({ "type": "mouseWheel", "x": 400, "y": 400, "deltaX": 0, "deltaY": -300 });
    tab.cdp("Input.dispatchMouseEvent", wheel).await;
    tab.wait_until(&format!(
        "{below} > 200 && !document.querySelector('.fs-jump').hidden"
    ))
    .await;
    let top = tab.eval(&format!("{LOG_ELEMENT}.scrollTop")).await;
    gate.let_one_through();
    tab.wait_until(&length(3)).await;
    assert_eq!(tab.eval(&format!("{LOG_ELEMENT}.scrollTop")).await, top);
    tab.click(".fs-jump").await;
    tab.wait_until(&format!("{below} < 2")).await;
    gate.let_one_through();
    tab.wait_until(&length(4)).await;
    tab.wait_until(&format!("{below} < 2")).await;
    gate.let_one_through();
    tab.wait_for_done().await;
    tab.assert_no_errors().await;
}

#[tokio::test]
async fn text_runs_in_its_own_direction() {
    let text = "English first.\n\nשלום, זה טקסט מימין לשמאל.\n\n- مرحبا بكم\n\n`code()`";
    let provider = ScriptedProvider::answering(text).await;
    let site = TestSite::with_config(&provider_config(&provider)).await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask("مرحبا").await;
    tab.wait_for_done().await;
    tab.wait_until("witness.answer().querySelector('li')").await;
    let directions = "[...witness.answer().querySelectorAll('p, ul')].filter((el) => el.closest('[data-role=\"text\"]')).map((el) => getComputedStyle(el).direction)";
    assert_eq!(
        tab.eval(directions).await,
        json!(["ltr", "rtl", "rtl", "ltr"])
    );
    let asked = "getComputedStyle(document.querySelector('[data-from=\"user\"] [data-role=\"text\"]')).direction";
    assert_eq!(tab.eval(asked).await, "rtl");
}

#[tokio::test]
async fn smallest_screens_fit_every_control() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask("Show me some Rust code").await;
    tab.wait_for_done().await;
    // An old phone, and a desktop of 1280 by 1024 at 400 % zoom.
    for (width, height) in [(320, 568), (320, 256)] {
        tab.resize(width, height, false).await;
        tab.wait_until(&format!(
            "innerWidth === {width} && innerHeight === {height}"
        ))
        .await;
        assert_eq!(
            tab.eval(&format!("({LAYOUT_CHECK})({width})")).await,
            json!([]),
            "{width} by {height}"
        );
        let reachable = "[...document.querySelectorAll('textarea, .fs-go, .fs-head button')].filter(witness.visible).every((el) => {
            el.scrollIntoView({ block: 'nearest' });
            const { left, right, top, bottom } = el.getBoundingClientRect();
            return left >= 0 && right <= innerWidth && top >= 0 && bottom <= innerHeight;
        })";
        assert_eq!(tab.eval(reachable).await, true, "{width} by {height}");
        assert!(
            tab.eval(&format!("{LOG_ELEMENT}.clientHeight"))
                .await
                .as_u64()
                .unwrap()
                >= 100
        );
    }
}

#[tokio::test]
async fn nothing_moves_when_reduced_motion_is_preferred() {
    let (host, site) = start_host_and_site().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open("about:blank").await;
    let reduced = json!({ "features": [{ "name": "prefers-reduced-motion", "value": "reduce" }] });
    tab.cdp("Emulation.setEmulatedMedia", reduced).await;
    tab.open(&host.add_plain_page("/", "", &script_tag(&site, "")))
        .await;
    tab.wait_until("witness.shadow").await;
    // Records every animation and transition which starts.
    tab.eval(
        "(window.moved = [], ['animationstart', 'transitionrun'].forEach((type) =>
            witness.shadow.addEventListener(type, ({ target }) => moved.push(`${type} ${target.className}`), true)))",
    )
    .await;
    open_chat(&tab).await;
    tab.ask_widget("Hello").await;
    tab.wait_for_done().await;
    tab.eval("(Failsoft.close(), Failsoft.open())").await;
    assert_eq!(
        tab.eval("[moved, witness.shadow.getAnimations().length]")
            .await,
        json!([[], 0])
    );
    // Without the preference there is a transition.
    let no_preference =
        json!({ "features": [{ "name": "prefers-reduced-motion", "value": "no-preference" }] });
    tab.cdp("Emulation.setEmulatedMedia", no_preference).await;
    tab.eval("(Failsoft.close(), witness.part('launcher').offsetWidth, Failsoft.open())")
        .await;
    tab.wait_until("moved.includes('transitionrun fsw-panel')")
        .await;
}
