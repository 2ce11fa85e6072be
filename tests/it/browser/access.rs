//! Accessibility: axe-core findings, screen reader announcements, keyboard and reduced motion.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::process::Command;
use tokio::sync::OnceCell;

use super::chrome::Chrome;
use super::layout::in_every_state;
use super::page_driver::BrowserTab;
use super::test_site::TestSite;
use super::widget::{open_chat, script_tag, start_host_and_site};

/// Long enough for npm to install axe-core over a slow network.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(300);

async fn axe_script() -> &'static str {
    static AXE: OnceCell<String> = OnceCell::const_new();
    let install = || async {
        // Outside the temporary folder, so that it is kept between runs.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("axe");
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/axe/install.sh");
        let ran = tokio::time::timeout(
            INSTALL_TIMEOUT,
            Command::new(program)
                .arg(folder)
                .kill_on_drop(true)
                .output(),
        )
        .await;
        let ran = ran.expect("axe-core was not installed in time").unwrap();
        assert!(
            ran.status.success(),
            "axe-core was not installed: {}",
            String::from_utf8_lossy(&ran.stderr)
        );
        std::fs::read_to_string(String::from_utf8(ran.stdout).unwrap().trim()).unwrap()
    };
    AXE.get_or_init(install).await
}

/// Asserts that axe-core finds nothing, in the light and in the dark scheme.
pub async fn assert_accessible(tab: &BrowserTab, what: &str) {
    // Over the debug protocol: the page's policy does not allow a foreign script.
    tab.cdp(
        "Runtime.evaluate",
        json!({ "expression": axe_script().await }),
    )
    .await;
    for scheme in ["light", "dark"] {
        tab.set_color_scheme(scheme).await;
        tab.wait_until(&format!(
            "matchMedia('(prefers-color-scheme: {scheme})').matches && !witness.root().getAnimations().some((one) => one instanceof CSSTransition)"
        ))
        .await;
        let run = "axe.run().then(({ violations }) => violations.flatMap(({ id, nodes }) =>
            nodes.map(({ html, failureSummary }) => `${id}: ${html.slice(0, 160)} ${failureSummary.slice(0, 300)}`)))";
        let found = tab
            .cdp(
                "Runtime.evaluate",
                json!({ "expression": run, "awaitPromise": true, "returnByValue": true }),
            )
            .await;
        assert_eq!(found["result"]["value"], json!([]), "{what}, {scheme}");
    }
}

const CODE_QUESTION: &str = "Show me some Rust code";

#[tokio::test]
async fn chat_page_has_no_axe_findings() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    let coloured = "document.querySelector('.hljs-keyword')";
    in_every_state(&site, &tab, CODE_QUESTION, coloured, assert_accessible).await;
}

#[tokio::test]
async fn status_page_has_no_axe_findings() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&format!("{}status", site.address())).await;
    tab.wait_until("document.querySelector('[data-role=\"age\"]').textContent === 'Live.'")
        .await;
    assert_accessible(&tab, "all is well").await;
    site.set_fault("aurora", "unauthorized").await;
    site.post("/api/chat", &json!({ "message": "Well?" })).await;
    tab.wait_until("document.querySelector('[data-role=\"incident\"]')")
        .await;
    assert_accessible(&tab, "an incident").await;
}

#[tokio::test]
async fn widget_has_no_axe_findings() {
    let (host, site) = start_host_and_site().await;
    let chrome = Chrome::start().await;
    for (path, attributes) in [
        ("/", "data-locale=\"en\""),
        ("/ar", "data-locale=\"ar\" data-accent=\"#ffd400\""),
    ] {
        let tab = chrome
            .open(&host.add_plain_page(path, "", &script_tag(&site, attributes)))
            .await;
        tab.wait_until("witness.shadow && witness.part('launcher')")
            .await;
        assert_accessible(&tab, "closed").await;
        open_chat(&tab).await;
        assert_accessible(&tab, "open").await;
        tab.ask_widget(CODE_QUESTION).await;
        tab.wait_for_done().await;
        tab.wait_until("witness.answer().querySelector('.hljs-keyword')")
            .await;
        assert_accessible(&tab, "with an answer").await;
        tab.eval("localStorage.clear()").await;
    }
}

#[tokio::test]
async fn sample_page_has_no_axe_findings_and_builds_the_snippet() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&format!("{}embed", site.address())).await;
    tab.wait_until(
        "witness.shadow && document.querySelector('[data-role=\"snippet\"]').textContent",
    )
    .await;
    assert_accessible(&tab, "the sample page").await;
    let policy = tab
        .eval("fetch(location.href).then(({ headers }) => headers.get('content-security-policy'))")
        .await;
    let policy = policy.as_str().unwrap();
    assert!(
        policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    // The form builds the snippet, and the widget on the page follows it.
    let set = "((name, value) => { const { elements } = document.querySelector('form'); elements[name].value = value;
        for (const type of ['input', 'change']) elements[name].dispatchEvent(new Event(type, { bubbles: true })); })";
    tab.eval(&format!("{set}('title', 'Say \"hi\" & <more>')"))
        .await;
    tab.eval(&format!("{set}('locale', 'fr')")).await;
    let snippet = tab
        .eval_string("document.querySelector('[data-role=\"snippet\"]').textContent")
        .await;
    let expected = format!(
        "<script src=\"{}widget.js\" async\n  data-title=\"Say &#34;hi&#34; &#38; &#60;more&#62;\"\n  data-locale=\"fr\"></script>",
        site.address()
    );
    assert_eq!(snippet, expected);
    tab.wait_until("witness.part('launcher')?.getAttribute('aria-label') === 'Ouvrir le chat'")
        .await;
    assert_eq!(
        tab.eval("document.querySelectorAll('failsoft-chat').length")
            .await,
        1
    );
    tab.click("[data-ask]").await;
    tab.wait_until(
        "witness.part('panel') && witness.frame('start')?.text === 'Tell me about the stovetop kettle.'",
    )
    .await;
    tab.assert_no_errors().await;
    assert_eq!(chrome.console_warnings().await, Vec::<String>::new());
}

#[tokio::test]
async fn answer_is_announced_at_most_three_times() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.wait_until("witness.frame('welcome')").await;
    let live = "document.querySelectorAll('[aria-live]:not([aria-live=\"off\"]), [role=\"status\"], [role=\"alert\"]')";
    assert_eq!(
        tab.eval(&format!("{live}.length")).await,
        1,
        "exactly one live region"
    );
    tab.eval(&format!(
        "(window.spoken = [], new MutationObserver(() => spoken.push({live}[0].textContent)).observe({live}[0], {{ childList: true, characterData: true, subtree: true }}))"
    ))
    .await;
    tab.ask("Where do penguins sleep in winter?").await;
    tab.wait_for_partial_answer(150).await;
    site.set_fault("aurora", "cut").await;
    tab.wait_for_done().await;
    let spoken: Vec<String> = serde_json::from_value(tab.eval("spoken").await).unwrap();
    assert!(spoken.len() <= 3, "{spoken:#?}");
    assert!(
        spoken.last().unwrap().contains("aurora unavailable"),
        "{spoken:#?}"
    );

    // A switch before the first token is announced too, once.
    site.set_fault("aurora", "unauthorized").await;
    tab.eval("(spoken.length = 0)").await;
    tab.ask("What does it cost?").await;
    tab.wait_for_done().await;
    tab.wait_until("spoken.some((words) => words.includes('aurora unavailable'))")
        .await;
    let spoken: Vec<String> = serde_json::from_value(tab.eval("spoken").await).unwrap();
    assert_eq!(
        spoken
            .iter()
            .filter(|words| words.contains("unavailable"))
            .count(),
        1,
        "{spoken:#?}"
    );
}

#[tokio::test]
async fn every_control_is_reachable_and_usable_by_keyboard() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask("Where do penguins sleep in winter?").await;
    tab.wait_for_partial_answer(120).await;
    site.set_fault("aurora", "unauthorized").await;
    tab.wait_for_done().await;
    tab.ask("Hello").await;
    tab.wait_for_done().await;
    tab.wait_until("witness.part('banner')").await;
    // One round through the page: the name of each stop, and whether it shows the focus.
    let stop = "((el) => [el.dataset.role ?? el.dataset.action ?? `${el.localName}.${el.className}`, getComputedStyle(el).outlineStyle !== 'none' || el.localName === 'textarea'])(document.activeElement)";
    let mut stops = Vec::new();
    tab.eval("document.activeElement.blur()").await;
    for _ in 0..50 {
        tab.press("Tab").await;
        let [name, shows_focus]: [serde_json::Value; 2] =
            serde_json::from_value(tab.eval(stop).await).unwrap();
        let name = name.as_str().unwrap().to_owned();
        assert!(
            shows_focus == true || name.starts_with("body"),
            "{name} does not show the focus"
        );
        stops.push(name);
    }
    for wanted in [
        "a.fs-status",
        "export",
        "new",
        "a.fs-link",
        "button.fs-tool",
        "log",
        "copy",
        "retry",
        "up",
        "down",
        "summary.",
        "textarea.",
        "select.",
        "break",
        "mend",
    ] {
        assert!(
            stops.iter().any(|stop| stop == wanted),
            "{wanted} is not among {stops:?}"
        );
    }
    // Reached controls can be activated.
    let press_enter_on = async |role: &str| {
        for _ in 0..50 {
            if tab.eval("document.activeElement.dataset.role ?? ''").await == role {
                return tab.press("Enter").await;
            }
            tab.press("Tab").await;
        }
        panic!("{role} was not reached");
    };
    press_enter_on("up").await;
    tab.wait_until("witness.root().querySelector('[data-role=\"up\"][aria-pressed=\"true\"]')")
        .await;
    let answers = tab.eval("witness.answers().length").await.as_u64().unwrap();
    press_enter_on("retry").await;
    tab.wait_until(&format!("witness.answers().length === {}", answers + 1))
        .await;
    assert_eq!(
        tab.eval("document.activeElement.localName").await,
        "textarea",
        "the composer has the focus again"
    );
    tab.wait_for_done().await;
    tab.assert_no_errors().await;
}
