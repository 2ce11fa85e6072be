//! Providers are gone for longer than one answer, and then they are back: what the page says, with nobody asking.

use std::time::Duration;

use serde_json::json;

use super::chrome::Chrome;
use super::cutting_proxy::Line;
use super::page_driver::Tab;
use super::test_site::Site;

const PROVIDERS: [&str; 3] = ["aurora", "borealis", "cascade"];

/// So many failures in a row tell a provider that is down from one that had bad luck.
const FAILURES: usize = 5;

/// From the end of a fault until the page has stopped to say that all is well: the breaker's rest, the service making sure, the
/// notice itself, and some more.
const RECOVERED: Duration = Duration::from_secs(60);

/// The late answer.
const LATE: &str = "document.querySelector('[data-followup]')";

const OUTAGE: &str = "witness.part('banner')?.dataset.mode === 'outage'";

/// The banners there were but for `degraded`: providers neither go nor come back all in one moment.
async fn told(tab: &Tab) -> Vec<String> {
    let mut told = tab.banners().await;
    told.retain(|mode| mode != "degraded");
    told
}

/// Has the browser believe that it has no network, or that it has it back.
async fn offline(tab: &Tab, is: bool) {
    let event = if is { "offline" } else { "online" };
    let say = format!(
        "(Object.defineProperty(navigator, 'onLine', {{ value: {}, configurable: true }}), dispatchEvent(new Event('{event}')))",
        !is
    );
    tab.eval(&say).await;
}

#[tokio::test]
async fn a_provider_that_comes_and_goes_is_told_of_once() {
    let site = Site::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    let aurora = "witness.frames.findLast(({ frame }) => frame.type === 'status')?.frame.providers.find(({ name }) => name === 'aurora').state";
    for _ in 0..4 {
        site.fault("aurora", "unauthorized").await;
        tab.ask("What does it cost?").await;
        tab.until_done().await;
        tab.until(&format!("{aurora} === 'blocked'")).await;
        tab.until("witness.part('banner')?.dataset.mode === 'degraded'")
            .await;
        site.fault("aurora", "none").await;
        tab.until(&format!("{aurora} === 'closed'")).await;
    }
    tab.within(RECOVERED, "witness.banners.at(-1).mode === ''")
        .await;
    assert_eq!(tab.banners().await, ["degraded", "normal", ""]);
    tab.is_untroubled().await;
}

#[tokio::test]
async fn an_outage_is_told_and_so_is_its_end() {
    let site = Site::demo().await;
    let chrome = Chrome::start().await;
    let (tab, idle) = (
        chrome.open(&site.address()).await,
        chrome.open(&site.address()).await,
    );
    for provider in PROVIDERS {
        site.fault_for(provider, "down", "8s").await;
    }
    for _ in 0..FAILURES {
        tab.ask("What does it cost?").await;
        let done = tab.until_done().await;
        assert_eq!(
            (&done["degraded"], &done["provider"]),
            (&json!(true), &json!(null))
        );
        let label = tab
            .string("witness.part('label', witness.answer()).innerText")
            .await;
        assert!(label.ends_with("AI unavailable"), "{label}");
    }
    tab.within(Duration::from_secs(4), OUTAGE).await;
    idle.within(Duration::from_secs(1), OUTAGE).await;
    let hint = tab.string("document.querySelector('form').innerText").await;
    assert!(
        hint.contains("No AI can be reached"),
        "the composer is honest about it: {hint}"
    );

    // Nobody asks anything: the providers are tried by the service itself.
    for tab in [&tab, &idle] {
        tab.within(RECOVERED, "witness.banners.at(-1)?.mode === ''")
            .await;
        assert_eq!(told(tab).await, ["outage", "normal", ""]);
        assert_eq!(
            tab.eval("document.querySelectorAll('[data-role=\"banner\"]').length")
                .await,
            0
        );
    }
    tab.ask("What does it cost?").await;
    assert_eq!(tab.until_done().await["provider"], "aurora");
    tab.is_untroubled().await;
    idle.is_untroubled().await;
}

#[tokio::test]
async fn a_backup_is_told_and_so_is_the_return() {
    let site = Site::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    site.fault("aurora", "unauthorized").await;
    tab.ask("What does it cost?").await;
    let done = tab.until_done().await;
    assert_eq!(
        (&done["provider"], &done["drafts"]),
        (&json!("borealis"), &json!([]))
    );
    assert_eq!(
        tab.eval("witness.shown.some(({ paused }) => paused)").await,
        false,
        "nobody noticed"
    );
    let chip = tab
        .string("witness.part('chip', witness.answer()).textContent")
        .await;
    assert_eq!(chip, "Answered by borealis · aurora unavailable");

    tab.until("witness.part('banner')?.dataset.mode === 'degraded'")
        .await;
    let banner = tab.string("witness.part('banner').innerText").await;
    assert!(
        banner.contains("Answers come from a backup model"),
        "{banner}"
    );
    site.fault("aurora", "none").await;
    tab.within(RECOVERED, "witness.banners.at(-1).mode === ''")
        .await;
    assert_eq!(tab.banners().await, ["degraded", "normal", ""]);

    // Who comes later saw no trouble, and is told of none.
    tab.reload().await;
    tab.until("witness.answer() && witness.frame('welcome')")
        .await;
    tab.ask("What does it cost?").await;
    assert_eq!(tab.until_done().await["provider"], "aurora");
    assert_eq!(tab.banners().await, Vec::<String>::new());
    tab.is_untroubled().await;
}

#[tokio::test]
async fn the_worst_is_told_and_only_that() {
    let site = Site::demo().await;
    let line = Line::to(site.port()).await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&line.address()).await;
    for provider in PROVIDERS {
        site.fault(provider, "unauthorized").await;
    }
    tab.ask("Hello").await;
    tab.until_done().await;
    tab.until(OUTAGE).await;
    // A browser that calls itself offline while frames arrive is not believed.
    offline(&tab, true).await;
    tab.ask("Hello").await;
    tab.until_done().await;
    assert_eq!(told(&tab).await, ["outage"]);
    line.sever();
    tab.until("witness.part('banner')?.dataset.mode === 'offline'")
        .await;
    offline(&tab, false).await;
    tab.until("witness.part('banner')?.dataset.mode === 'unreachable'")
        .await;
    line.restore();
    tab.until(OUTAGE).await;
    assert_eq!(
        told(&tab).await,
        ["outage", "offline", "unreachable", "outage"]
    );
    assert_eq!(tab.eval("witness.crowded").await, false, "never two");

    // Who has read it puts it away, for this incident.
    tab.click("[data-role=\"banner\"] button").await;
    tab.until("!witness.part('banner')").await;
    tab.reload().await;
    tab.until("witness.frame('welcome')?.status.mode === 'outage'")
        .await;
    tab.ask("Hello").await;
    tab.until_done().await;
    assert_eq!(tab.banners().await, Vec::<String>::new());
    tab.is_untroubled().await;
}

#[tokio::test]
async fn what_no_ai_answered_is_answered_late_on_every_tab() {
    let site = Site::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    for provider in PROVIDERS {
        site.fault_for(provider, "down", "8s").await;
    }
    tab.ask("What does it cost?").await;
    assert_eq!(tab.until_done().await["degraded"], true);
    let said = tab.text().await;
    let other = chrome.open(&site.address()).await;
    assert_eq!(other.conversation().await, tab.conversation().await);
    for tab in [&tab, &other] {
        tab.within(RECOVERED, &format!("Boolean({LATE})")).await;
        let label = tab
            .string(&format!(
                "{LATE}.querySelector('[data-role=\"label\"]').innerText"
            ))
            .await;
        assert!(label.contains("Later AI answer · "), "{label}");
        assert_ne!(
            tab.string(&format!(
                "{LATE}.querySelector('[data-role=\"text\"]').innerText"
            ))
            .await,
            ""
        );
    }
    // The labelled answer stands where it stood.
    assert_eq!(tab.text().await, said);
    let label = tab
        .string("witness.part('label', witness.answer()).innerText")
        .await;
    assert!(label.ends_with("AI unavailable"), "{label}");
    tab.reload().await;
    tab.until(&format!("Boolean({LATE})")).await;
    assert_eq!(
        tab.eval("document.querySelectorAll('[data-followup]').length")
            .await,
        1
    );
    tab.is_untroubled().await;
    other.is_untroubled().await;
}
