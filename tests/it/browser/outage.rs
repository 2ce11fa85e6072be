//! Outages which last longer than one answer: banners, automatic recovery and follow-up answers.

use std::time::Duration;

use serde_json::json;

use super::chrome::Chrome;
use super::cutting_proxy::BrowserProxy;
use super::page_driver::BrowserTab;
use super::test_site::TestSite;

const PROVIDERS: [&str; 3] = ["aurora", "borealis", "cascade"];

/// The number of consecutive failures which trips a provider's breaker.
const FAILURES: usize = 5;

/// The longest wait from the end of a fault until the page shows no banner: the breaker's open
/// time, the service's probes, the recovery notice, and some reserve.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// The follow-up answer.
const FOLLOWUP: &str = "document.querySelector('[data-followup]')";

const OUTAGE_BANNER_IS_SHOWN: &str = "witness.part('banner')?.dataset.mode === 'outage'";

/// Returns the banners shown so far without `degraded`: providers neither fail nor recover all at
/// the same moment.
async fn banners_except_degraded(tab: &BrowserTab) -> Vec<String> {
    let mut banners = tab.banners().await;
    banners.retain(|mode| mode != "degraded");
    banners
}

/// Makes the browser believe that it has lost its network, or has it back.
async fn set_offline(tab: &BrowserTab, is_offline: bool) {
    let event = if is_offline { "offline" } else { "online" };
    let script = format!(
        "(Object.defineProperty(navigator, 'onLine', {{ value: {}, configurable: true }}), dispatchEvent(new Event('{event}')))",
        !is_offline
    );
    tab.eval(&script).await;
}

#[tokio::test]
async fn flapping_provider_shows_one_banner() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    let aurora = "witness.frames.findLast(({ frame }) => frame.type === 'status')?.frame.providers.find(({ name }) => name === 'aurora').state";
    for _ in 0..4 {
        site.set_fault("aurora", "unauthorized").await;
        tab.ask("What does it cost?").await;
        tab.wait_for_done().await;
        tab.wait_until(&format!("{aurora} === 'blocked'")).await;
        tab.wait_until("witness.part('banner')?.dataset.mode === 'degraded'")
            .await;
        site.set_fault("aurora", "none").await;
        tab.wait_until(&format!("{aurora} === 'closed'")).await;
    }
    tab.wait_within(RECOVERY_TIMEOUT, "witness.banners.at(-1).mode === ''")
        .await;
    assert_eq!(tab.banners().await, ["degraded", "normal", ""]);
    tab.assert_no_errors().await;
}

#[tokio::test]
async fn outage_and_recovery_are_shown_without_a_question() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    let idle = chrome.open(&site.address()).await;
    for provider in PROVIDERS {
        site.set_fault_for(provider, "down", "8s").await;
    }
    for _ in 0..FAILURES {
        tab.ask("What does it cost?").await;
        let done = tab.wait_for_done().await;
        assert_eq!(
            (&done["degraded"], &done["provider"]),
            (&json!(true), &json!(null))
        );
        let label = tab
            .eval_string("witness.part('label', witness.answer()).innerText")
            .await;
        assert!(label.ends_with("AI unavailable"), "{label}");
    }
    tab.wait_within(Duration::from_secs(4), OUTAGE_BANNER_IS_SHOWN)
        .await;
    idle.wait_within(Duration::from_secs(1), OUTAGE_BANNER_IS_SHOWN)
        .await;
    let hint = tab
        .eval_string("document.querySelector('form').innerText")
        .await;
    assert!(
        hint.contains("No AI can be reached"),
        "the composer warns about the outage: {hint}"
    );

    // Nobody asks anything: the service probes the providers by itself.
    for tab in [&tab, &idle] {
        tab.wait_within(RECOVERY_TIMEOUT, "witness.banners.at(-1)?.mode === ''")
            .await;
        assert_eq!(banners_except_degraded(tab).await, ["outage", "normal", ""]);
        assert_eq!(
            tab.eval("document.querySelectorAll('[data-role=\"banner\"]').length")
                .await,
            0
        );
    }
    tab.ask("What does it cost?").await;
    assert_eq!(tab.wait_for_done().await["provider"], "aurora");
    tab.assert_no_errors().await;
    idle.assert_no_errors().await;
}

#[tokio::test]
async fn backup_provider_and_recovery_are_shown() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    site.set_fault("aurora", "unauthorized").await;
    tab.ask("What does it cost?").await;
    let done = tab.wait_for_done().await;
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
        .eval_string("witness.part('chip', witness.answer()).textContent")
        .await;
    assert_eq!(chip, "Answered by borealis · aurora unavailable");

    tab.wait_until("witness.part('banner')?.dataset.mode === 'degraded'")
        .await;
    let banner = tab.eval_string("witness.part('banner').innerText").await;
    assert!(
        banner.contains("Answers come from a backup model"),
        "{banner}"
    );
    site.set_fault("aurora", "none").await;
    tab.wait_within(RECOVERY_TIMEOUT, "witness.banners.at(-1).mode === ''")
        .await;
    assert_eq!(tab.banners().await, ["degraded", "normal", ""]);

    // After a reload the page has seen no trouble and shows none.
    tab.reload().await;
    tab.wait_until("witness.answer() && witness.frame('welcome')")
        .await;
    tab.ask("What does it cost?").await;
    assert_eq!(tab.wait_for_done().await["provider"], "aurora");
    assert_eq!(tab.banners().await, Vec::<String>::new());
    tab.assert_no_errors().await;
}

#[tokio::test]
async fn only_the_most_severe_banner_is_shown() {
    let site = TestSite::demo().await;
    let proxy = BrowserProxy::in_front_of(site.port()).await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&proxy.address()).await;
    for provider in PROVIDERS {
        site.set_fault(provider, "unauthorized").await;
    }
    tab.ask("Hello").await;
    tab.wait_for_done().await;
    tab.wait_until(OUTAGE_BANNER_IS_SHOWN).await;
    // A browser which claims to be offline while frames arrive is not believed.
    set_offline(&tab, true).await;
    tab.ask("Hello").await;
    tab.wait_for_done().await;
    assert_eq!(banners_except_degraded(&tab).await, ["outage"]);
    proxy.sever();
    tab.wait_until("witness.part('banner')?.dataset.mode === 'offline'")
        .await;
    set_offline(&tab, false).await;
    tab.wait_until("witness.part('banner')?.dataset.mode === 'unreachable'")
        .await;
    proxy.restore();
    tab.wait_until(OUTAGE_BANNER_IS_SHOWN).await;
    assert_eq!(
        banners_except_degraded(&tab).await,
        ["outage", "offline", "unreachable", "outage"]
    );
    assert_eq!(
        tab.eval("witness.crowded").await,
        false,
        "two banners at once"
    );

    // A dismissed banner stays away for the rest of the incident.
    tab.click("[data-role=\"banner\"] button").await;
    tab.wait_until("!witness.part('banner')").await;
    tab.reload().await;
    tab.wait_until("witness.frame('welcome')?.status.mode === 'outage'")
        .await;
    tab.ask("Hello").await;
    tab.wait_for_done().await;
    assert_eq!(tab.banners().await, Vec::<String>::new());
    tab.assert_no_errors().await;
}

#[tokio::test]
async fn followup_answer_appears_on_every_tab() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    for provider in PROVIDERS {
        site.set_fault_for(provider, "down", "8s").await;
    }
    tab.ask("What does it cost?").await;
    assert_eq!(tab.wait_for_done().await["degraded"], true);
    let fallback_text = tab.answer_text().await;
    let other = chrome.open(&site.address()).await;
    assert_eq!(other.conversation_id().await, tab.conversation_id().await);
    for tab in [&tab, &other] {
        tab.wait_within(RECOVERY_TIMEOUT, &format!("Boolean({FOLLOWUP})"))
            .await;
        let label = tab
            .eval_string(&format!(
                "{FOLLOWUP}.querySelector('[data-role=\"label\"]').innerText"
            ))
            .await;
        assert!(label.contains("Later AI answer · "), "{label}");
        assert_ne!(
            tab.eval_string(&format!(
                "{FOLLOWUP}.querySelector('[data-role=\"text\"]').innerText"
            ))
            .await,
            ""
        );
    }
    // The labelled fallback answer stays where it was.
    assert_eq!(tab.answer_text().await, fallback_text);
    let label = tab
        .eval_string("witness.part('label', witness.answer()).innerText")
        .await;
    assert!(label.ends_with("AI unavailable"), "{label}");
    tab.reload().await;
    tab.wait_until(&format!("Boolean({FOLLOWUP})")).await;
    assert_eq!(
        tab.eval("document.querySelectorAll('[data-followup]').length")
            .await,
        1
    );
    tab.assert_no_errors().await;
    other.assert_no_errors().await;
}
