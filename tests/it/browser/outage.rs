//! Outages which last longer than one answer: banners, automatic recovery and follow-up answers.

use std::time::Duration;

use serde_json::json;

use super::chrome::Chrome;
use super::cutting_proxy::Line;
use super::page_driver::Tab;
use super::test_site::Site;

const PROVIDERS: [&str; 3] = ["aurora", "borealis", "cascade"];

/// The number of consecutive failures which trips a provider's breaker.
const FAILURES: usize = 5;

/// The longest wait from the end of a fault until the page shows no banner: the breaker's open
/// time, the service's probes, the recovery notice, and some reserve.
const RECOVERED: Duration = Duration::from_secs(60);

/// The follow-up answer.
const LATE: &str = "document.querySelector('[data-followup]')";

const OUTAGE: &str = "witness.part('banner')?.dataset.mode === 'outage'";

/// Returns the banners shown so far without `degraded`: providers neither fail nor recover all at
/// the same moment.
async fn told(tab: &Tab) -> Vec<String> {
    let mut banners = tab.banners().await;
    banners.retain(|mode| mode != "degraded");
    banners
}

/// Makes the browser believe that it has lost its network, or has it back.
async fn offline(tab: &Tab, is_offline: bool) {
    let event = if is_offline { "offline" } else { "online" };
    let script = format!(
        "(Object.defineProperty(navigator, 'onLine', {{ value: {}, configurable: true }}), dispatchEvent(new Event('{event}')))",
        !is_offline
    );
    tab.eval(&script).await;
}

#[tokio::test]
async fn flapping_provider_shows_one_banner() {
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
async fn outage_and_recovery_are_shown_without_a_question() {
    let site = Site::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    let idle = chrome.open(&site.address()).await;
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
        "the composer warns about the outage: {hint}"
    );

    // Nobody asks anything: the service probes the providers by itself.
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
async fn backup_provider_and_recovery_are_shown() {
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
        "the switch is invisible"
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

    // After a reload the page has seen no trouble and shows none.
    tab.reload().await;
    tab.until("witness.answer() && witness.frame('welcome')")
        .await;
    tab.ask("What does it cost?").await;
    assert_eq!(tab.until_done().await["provider"], "aurora");
    assert_eq!(tab.banners().await, Vec::<String>::new());
    tab.is_untroubled().await;
}

#[tokio::test]
async fn only_the_most_severe_banner_is_shown() {
    let site = Site::demo().await;
    let proxy = Line::to(site.port()).await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&proxy.address()).await;
    for provider in PROVIDERS {
        site.fault(provider, "unauthorized").await;
    }
    tab.ask("Hello").await;
    tab.until_done().await;
    tab.until(OUTAGE).await;
    // A browser which claims to be offline while frames arrive is not believed.
    offline(&tab, true).await;
    tab.ask("Hello").await;
    tab.until_done().await;
    assert_eq!(told(&tab).await, ["outage"]);
    proxy.sever();
    tab.until("witness.part('banner')?.dataset.mode === 'offline'")
        .await;
    offline(&tab, false).await;
    tab.until("witness.part('banner')?.dataset.mode === 'unreachable'")
        .await;
    proxy.restore();
    tab.until(OUTAGE).await;
    assert_eq!(
        told(&tab).await,
        ["outage", "offline", "unreachable", "outage"]
    );
    assert_eq!(
        tab.eval("witness.crowded").await,
        false,
        "two banners at once"
    );

    // A dismissed banner stays away for the rest of the incident.
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
async fn followup_answer_appears_on_every_tab() {
    let site = Site::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    for provider in PROVIDERS {
        site.fault_for(provider, "down", "8s").await;
    }
    tab.ask("What does it cost?").await;
    assert_eq!(tab.until_done().await["degraded"], true);
    let fallback_text = tab.text().await;
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
    // The labelled fallback answer stays where it was.
    assert_eq!(tab.text().await, fallback_text);
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
