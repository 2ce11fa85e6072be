//! Layout on phone and desktop, in the light and the dark scheme: no overflow, readable contrast.

use serde_json::json;

use super::chrome::Chrome;
use super::page_driver::BrowserTab;
use super::test_site::TestSite;
use crate::harness::ScriptedProvider;

/// A JavaScript function which returns the layout problems of a page.
pub const LAYOUT_CHECK: &str = include_str!("layout.js");

/// Width, height, and `true` for a touch screen.
const SCREENS: [(u32, u32, bool); 2] = [(360, 740, true), (1280, 800, false)];

/// An answer made of parts which are wider than a phone.
const WIDE_ANSWER: &str = "# Everything-that-is-wide\n\nhttps://example.com/an/address/that/goes/on/and/on/without/a/single/place/to/break/it/anywhere/at/all\n\n\
    Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichenverwaltungsvorschriftensammlungsverzeichnisse\n\n\
    | a | table | with | many | columns | none | of | which | may | push | the | page | aside |\n\
    |---|---|---|---|---|---|---|---|---|---|---|---|---|\n\
    | somewhat | longer | words | bench | in | every | one | of | these | cells | here | as | well |\n\n\
    ```rust\nfn a_line_that_is_longer_than_any_screen_that_this_will_be_shown_on(and: Its, arguments: Too, so: That, it: Scrolls) -> bool;\n```\n\n\
    > A quote,\n> with `a_code_span_that_is_far_too_long_for_a_phone_but_must_not_make_the_page_wider_than_it` in it.\n\n\
    1. One\n   1. Two\n      1. Three\n         1. Four\n            1. Five-levels-deep-and-still-going\n\n\
    שלום, זה טקסט מימין לשמאל עם English באמצע.\n\nAnd a [link](https://example.com/x), **strong words** and *others*.";

/// Asserts that the page has no layout problems, on every screen and in both schemes.
async fn assert_good_layout(tab: &BrowserTab, state: &str) {
    for (width, height, phone) in SCREENS {
        tab.resize(width, height, phone).await;
        for scheme in ["light", "dark"] {
            tab.set_color_scheme(scheme).await;
            // A desktop's scroll bar takes some of the width.
            let narrow = width - 20;
            let wide = width;
            let settled = format!("document.documentElement.clientWidth >= {narrow} && document.documentElement.clientWidth <= {wide}
                && matchMedia('(prefers-color-scheme: {scheme})').matches && !document.getAnimations().some((one) => one instanceof CSSTransition)");
            tab.wait_until(&settled).await;
            let problems = tab.eval(&format!("({LAYOUT_CHECK})({width})")).await;
            assert_eq!(problems, json!([]), "{state}, {width} px, {scheme}");
            let is_dark = "getComputedStyle(document.querySelector('.fs')).backgroundColor.match(/[\\d.]+/g).slice(0, 3).every((part) => part < 64)";
            assert_eq!(
                tab.eval(is_dark).await,
                scheme == "dark",
                "{state}: the background in the {scheme} scheme"
            );
        }
    }
}

/// Brings the demo's chat page into each of its states and runs `check` there.
///
/// `drawn` is a condition which must also hold once `question` is answered.
pub async fn in_every_state(
    site: &TestSite,
    tab: &BrowserTab,
    question: &str,
    drawn: &str,
    check: impl AsyncFn(&BrowserTab, &str),
) {
    tab.wait_until("witness.part('empty') && document.querySelector('[data-role=\"demo\"]')")
        .await;
    check(tab, "empty").await;

    tab.ask(question).await;
    tab.wait_for_partial_answer(100).await;
    site.set_fault("aurora", "unauthorized").await;
    tab.wait_for_done().await;
    tab.click("[data-role=\"draft\"] summary").await;
    tab.ask("Hello").await;
    tab.wait_for_done().await;
    tab.wait_until(&format!(
        "witness.part('banner')?.dataset.mode === 'degraded' && {drawn}"
    ))
    .await;
    check(tab, "an answer with a draft, degraded").await;

    for provider in ["borealis", "cascade"] {
        site.set_fault(provider, "unauthorized").await;
    }
    tab.ask("What does it cost?").await;
    tab.wait_for_done().await;
    tab.wait_until("witness.part('banner')?.dataset.mode === 'outage'")
        .await;
    check(tab, "a labelled answer, outage").await;
}

#[tokio::test]
async fn demo_page_has_no_layout_problems_in_any_state() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    in_every_state(
        &site,
        &tab,
        "Where do penguins sleep in winter?",
        "true",
        assert_good_layout,
    )
    .await;
    tab.assert_no_errors().await;
    assert_eq!(chrome.console_warnings().await, Vec::<String>::new());
}

#[tokio::test]
async fn wide_content_does_not_widen_the_page() {
    let provider = ScriptedProvider::answering(WIDE_ANSWER).await;
    let tables = format!(
        "[chat]\ntitle = \"A-title-that-is-much-too-long-for-the-header-of-a-telephone\"\n\
         [[providers]]\nname = \"a-provider-with-a-name-that-nobody-would-give-it\"\ndialect = \"openai\"\nmodel = \"m\"\n\
         base_url = \"{}\"\napi_key = \"k\"\n",
        provider.base_url()
    );
    let site = TestSite::with_config(&tables).await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask(
        "Isthereanythingthatislongerthanthisquestionwhichhasnospacesinitandgoesonandonandonandonandonandon?",
    )
    .await;
    tab.wait_for_done().await;
    assert_good_layout(&tab, "a wide answer").await;
    tab.assert_no_errors().await;
    assert_eq!(chrome.console_warnings().await, Vec::<String>::new());
}
