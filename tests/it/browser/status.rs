//! The status page: correct, live, and consistent with the banner and `/status.json`.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::chrome::Chrome;
use super::layout::LAYOUT_CHECK;
use super::page_driver::BrowserTab;
use super::test_site::TestSite;

const PROVIDERS: [&str; 3] = ["aurora", "borealis", "cascade"];

/// The max_delays wait for a change. The page polls every two seconds; the rest is for a busy
/// machine.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns an expression for the part of the page with this role and this additional selector.
fn select_part(role: &str, selector: &str) -> String {
    format!("document.querySelector('[data-role=\"{role}\"]{selector}')")
}

async fn open_status_page(chrome: &Chrome, site: &TestSite) -> BrowserTab {
    chrome.open(&format!("{}status", site.address())).await
}

/// Asks a question in a conversation of its own.
async fn ask_once(site: &TestSite) {
    let answer = site
        .post("/api/chat", &serde_json::json!({ "message": "Well?" }))
        .await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn providers_and_the_last_switch_are_shown_with_reasons() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    ask_once(&site).await;
    let tab = open_status_page(&chrome, &site).await;
    tab.wait_within(
        CHANGE_TIMEOUT,
        "document.querySelector('[data-role=\"age\"]').textContent === 'Live.'",
    )
    .await;
    for name in PROVIDERS {
        let card = select_part("provider", &format!("[data-name=\"{name}\"]"));
        let dataset = tab
            .eval(&format!("[{card}.dataset.state, {card}.dataset.active]"))
            .await;
        assert_eq!(
            dataset,
            serde_json::json!(["closed", (name == "aurora").to_string()]),
            "{name}"
        );
    }
    let aurora = select_part("provider", "[data-name=\"aurora\"]");
    let speed = tab.eval_string(&format!("{aurora}.innerText")).await;
    assert!(speed.contains("p50 ") && speed.contains("p95 "), "{speed}");
    assert_eq!(
        tab.eval("document.querySelectorAll('[data-role=\"timeline\"]').length")
            .await,
        2
    );

    site.set_fault("aurora", "unauthorized").await;
    ask_once(&site).await;
    tab.wait_within(
        CHANGE_TIMEOUT,
        &format!("{aurora}.dataset.state === 'blocked'"),
    )
    .await;
    tab.wait_within(
        CHANGE_TIMEOUT,
        &select_part("provider", "[data-name=\"borealis\"][data-active=\"true\"]"),
    )
    .await;
    let switch = tab
        .eval_string(&format!("{}.innerText", select_part("switch", "")))
        .await;
    assert!(
        switch.contains("aurora to borealis (it refuses our key)"),
        "{switch}"
    );
    let card = tab.eval_string(&format!("{aurora}.innerText")).await;
    assert!(
        card.contains("Blocked until it is fixed: it refuses our key")
            && card.contains("Tried again in "),
        "{card}"
    );
    tab.wait_within(
        CHANGE_TIMEOUT,
        &select_part("status", "[data-mode=\"degraded\"]"),
    )
    .await;
    tab.wait_within(
        CHANGE_TIMEOUT,
        &select_part("incident", "[data-mode=\"degraded\"][data-running]"),
    )
    .await;
    let last = "document.querySelector('[data-role=\"timeline\"] .bars :last-child').dataset.mode";
    assert_eq!(tab.eval(last).await, "degraded");
    tab.assert_no_errors().await;
}

#[tokio::test]
async fn change_is_shown_within_two_seconds() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = open_status_page(&chrome, &site).await;
    let mut max_delays = Vec::new();
    // A second try in case the machine was busy.
    while max_delays.len() < 2
        && max_delays
            .last()
            .is_none_or(|delay| *delay >= Duration::from_secs(2))
    {
        let mut max_delay = Duration::ZERO;
        for (fault, state) in [
            ("unauthorized", "blocked"),
            ("none", "closed"),
            ("unauthorized", "blocked"),
            ("none", "closed"),
        ] {
            site.set_fault("aurora", fault).await;
            ask_once(&site).await;
            while site.get("/status.json").await.json()["providers"][0]["state"] != state {}
            let changed = Instant::now();
            tab.wait_within(
                CHANGE_TIMEOUT,
                &select_part(
                    "provider",
                    &format!("[data-name=\"aurora\"][data-state=\"{state}\"]"),
                ),
            )
            .await;
            max_delay = max_delay.max(changed.elapsed());
        }
        max_delays.push(max_delay);
    }
    assert!(
        max_delays
            .iter()
            .any(|delay| *delay < Duration::from_secs(2)),
        "{max_delays:?}"
    );
}

#[tokio::test]
async fn status_page_uses_the_visitors_language() {
    let site = TestSite::demo().await;
    site.set_fault("aurora", "unauthorized").await;
    ask_once(&site).await;
    let chrome = Chrome::start().await;
    for (language, direction, refused, live) in [
        ("de", "ltr", "unser Schlüssel wird abgelehnt", "Aktuell."),
        ("es", "ltr", "rechaza nuestra clave", "En directo."),
        ("fr", "ltr", "il refuse notre clé", "En direct."),
        ("ar", "rtl", "يرفض مفتاحنا", "مباشر."),
    ] {
        let tab = chrome
            .open(&format!("{}status?lang={language}", site.address()))
            .await;
        tab.wait_within(
            CHANGE_TIMEOUT,
            &format!("document.querySelector('[data-role=\"age\"]').textContent === '{live}'"),
        )
        .await;
        tab.wait_within(CHANGE_TIMEOUT, &select_part("incident", ""))
            .await;
        let page = tab
            .eval("[document.documentElement.lang, getComputedStyle(document.body).direction]")
            .await;
        assert_eq!(page, serde_json::json!([language, direction]));
        let words = tab.eval_string("document.body.innerText").await;
        assert!(words.contains(refused), "{language}: {words}");
        for english in [
            "Working",
            "Backup model",
            "Answers come",
            "First words",
            "24 hours",
            "refuses",
        ] {
            assert!(!words.contains(english), "{language}: {english}: {words}");
        }
        for (width, height) in [(1280, 800), (360, 740)] {
            tab.resize(width, height, false).await;
            tab.wait_until(&format!("innerWidth === {width}")).await;
            assert_eq!(
                tab.eval(&format!("({LAYOUT_CHECK})({width})")).await,
                serde_json::json!([]),
                "{language}, {width}"
            );
        }
        tab.assert_no_errors().await;
    }
}

#[tokio::test]
async fn stale_data_shows_its_age_and_page_works_without_scripts() {
    let mut site = TestSite::demo().await;
    let raw = site.get("/status").await;
    for text in [
        "Everything works",
        "aurora",
        "Working",
        "24 hours",
        "30 days",
        "Incidents",
    ] {
        assert!(raw.body.contains(text), "{text}");
    }
    let chrome = Chrome::start().await;
    let tab = open_status_page(&chrome, &site).await;
    let age = "document.querySelector('[data-role=\"age\"]').textContent";
    tab.wait_within(CHANGE_TIMEOUT, &format!("{age} === 'Live.'"))
        .await;
    site.kill().await;
    tab.wait_within(
        CHANGE_TIMEOUT * 2,
        &format!("/^Data is \\d+ s old/.test({age})"),
    )
    .await;
    let headline = tab
        .eval_string(&format!("{}.innerText", select_part("status", "")))
        .await;
    assert!(
        headline.contains("Everything works"),
        "the last known status stays: {headline}"
    );
}

#[tokio::test]
async fn banner_status_page_and_json_agree_on_an_outage() {
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let chat = chrome.open(&site.address()).await;
    let page = open_status_page(&chrome, &site).await;
    for provider in PROVIDERS {
        site.set_fault(provider, "unauthorized").await;
    }
    ask_once(&site).await;
    chat.wait_within(
        CHANGE_TIMEOUT,
        "witness.part('banner')?.dataset.mode === 'outage'",
    )
    .await;
    page.wait_within(
        CHANGE_TIMEOUT,
        &select_part("status", "[data-mode=\"outage\"]"),
    )
    .await;
    let status_frame = chat
        .eval("witness.frames.findLast(({ frame }) => frame.type === 'status').frame")
        .await;
    let json = site.get("/status.json").await.json();
    let id = status_frame["incident"].as_str().unwrap();
    assert_eq!(
        (json["incident"].as_str(), json["mode"].as_str()),
        (Some(id), Some("outage"))
    );
    let [incident] = &json["incidents"].as_array().unwrap()[..] else {
        panic!("{}", json["incidents"])
    };
    assert_eq!(
        (&incident["id"], &incident["ended"]),
        (&status_frame["incident"], &Value::Null)
    );
    for name in PROVIDERS {
        assert!(
            incident["cause"]
                .as_str()
                .unwrap()
                .contains(&format!("{name}: it refuses our key")),
            "{incident}"
        );
    }
    assert_eq!(
        page.eval(&format!("{}.dataset.incident", select_part("status", "")))
            .await,
        id
    );
    assert_eq!(
        page.eval(&format!("{}.dataset.id", select_part("incident", "")))
            .await,
        id
    );

    for provider in PROVIDERS {
        site.set_fault(provider, "none").await;
    }
    page.wait_within(
        CHANGE_TIMEOUT * 4,
        &select_part("status", "[data-mode=\"normal\"]"),
    )
    .await;
    page.wait_within(
        CHANGE_TIMEOUT,
        &format!(
            "{} && !{}",
            select_part("incident", ""),
            select_part("incident", "[data-running]")
        ),
    )
    .await;
    let json = site.get("/status.json").await.json();
    let ended = &json["incidents"][0];
    assert_eq!(
        (ended["id"].as_str(), ended["mode"].as_str()),
        (Some(id), Some("outage"))
    );
    assert!(
        ended["ended"].is_string() && json["incident"].is_null(),
        "{ended}"
    );
    assert_eq!(
        page.eval(&format!("{}.dataset.id", select_part("incident", "")))
            .await,
        id
    );
    page.assert_no_errors().await;
}

#[tokio::test]
async fn operator_disables_and_enables_a_provider() {
    let site = TestSite::with_config("[server]\nadmin_token = \"right\"\n").await;
    let chrome = Chrome::start().await;
    let tab = open_status_page(&chrome, &site).await;
    let submit_token = async |token: &str| {
        tab.eval(&format!(
            "(() => {{ const form = document.querySelector('form.key'); form.token.value = '{token}'; form.requestSubmit(); }})()"
        ))
        .await;
    };
    submit_token("wrong").await;
    tab.wait_within(
        CHANGE_TIMEOUT,
        "document.querySelector('output').textContent.includes('not valid')",
    )
    .await;
    assert_eq!(
        tab.eval("document.querySelectorAll('[data-order]').length")
            .await,
        0
    );
    submit_token("right").await;
    tab.wait_within(CHANGE_TIMEOUT, &select_part("usage", ""))
        .await;
    assert_eq!(
        tab.eval("witness.visible(document.querySelector('form.key'))")
            .await,
        false,
        "the token form is hidden after use"
    );
    tab.click("[data-name=\"aurora\"] [data-order=\"disable\"]")
        .await;
    tab.wait_within(
        CHANGE_TIMEOUT,
        &select_part(
            "provider",
            "[data-name=\"aurora\"][data-state=\"disabled\"]",
        ),
    )
    .await;
    tab.wait_within(
        CHANGE_TIMEOUT,
        &select_part("provider", "[data-name=\"borealis\"][data-active=\"true\"]"),
    )
    .await;
    let answer = site
        .post("/api/chat", &serde_json::json!({ "message": "Well?" }))
        .await;
    assert_eq!(answer.json()["provider"], "borealis");
    tab.click("[data-name=\"aurora\"] [data-order=\"enable\"]")
        .await;
    tab.wait_within(
        CHANGE_TIMEOUT,
        &select_part("provider", "[data-name=\"aurora\"][data-active=\"true\"]"),
    )
    .await;
    tab.assert_no_errors().await;
}
