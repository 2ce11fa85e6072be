//! The widget's JavaScript API, and its behaviour where it cannot work.

use serde_json::{Value, json};

use super::chrome::Chrome;
use super::cutting_proxy::BrowserProxy;
use super::test_site::TestSite;
use super::third_party_site::HostSite;
use super::widget::{LAUNCHER_ELEMENT, script_tag, start_host_and_site};

/// Records every event of the widget in `heard`, before the widget's script has loaded.
const RECORD_EVENTS: &str = "<script>window.heard = [];
    const on = (name) => [ 'on', name, (detail) => heard.push([name, detail]) ];
    (window.Failsoft ??= []).push(...['ready', 'open', 'close', 'message', 'status', 'error'].map(on));
    Failsoft.push(['send', 'Asked before all'], ['open']);</script>";

#[tokio::test]
async fn calls_before_loading_apply_and_events_are_reported() {
    let (host, site) = start_host_and_site().await;
    let chrome = Chrome::start().await;
    let attributes = "data-title=\"Ask us\" data-greeting=\"Well met.\" data-position=\"left\" data-theme=\"dark\" data-locale=\"de\" data-accent=\"rgb(200, 20, 60)\"";
    let tab = chrome
        .open(&host.add_plain_page(
            "/",
            "",
            &format!("{RECORD_EVENTS}{}", script_tag(&site, attributes)),
        ))
        .await;
    tab.wait_until("witness.part('panel') && witness.frame('done')")
        .await;
    tab.wait_until("witness.answer()?.dataset.state === 'done'")
        .await;
    assert_eq!(
        tab.eval("witness.sent.find(({ type }) => type === 'send').text")
            .await,
        "Asked before all"
    );
    let names = tab
        .eval("[...new Set(heard.map(([name]) => name))].sort()")
        .await;
    assert_eq!(names, json!(["message", "open", "ready", "status"]));
    assert_eq!(
        tab.eval("heard.find(([name]) => name === 'status')[1].mode")
            .await,
        "normal"
    );
    let message = tab
        .eval("heard.find(([name]) => name === 'message')[1]")
        .await;
    assert_eq!(
        (&message["source"], &message["text"]),
        (&json!("ai"), &tab.eval("witness.text()").await)
    );

    // The attributes of the tag.
    assert_eq!(
        tab.eval("witness.shadow.querySelector('h1').textContent")
            .await,
        "Ask us"
    );
    assert_eq!(
        tab.eval("witness.shadow.querySelector('.fs-greeting').textContent")
            .await,
        "Well met."
    );
    assert_eq!(
        tab.eval("witness.shadow.querySelector('textarea').placeholder")
            .await,
        "Nachricht schreiben"
    );
    assert_eq!(
        tab.eval("witness.part('launcher').getBoundingClientRect().left")
            .await,
        20
    );
    assert_eq!(
        tab.eval("getComputedStyle(witness.part('launcher')).backgroundColor")
            .await,
        "rgb(200, 20, 60)"
    );
    assert_eq!(
        tab.eval("getComputedStyle(witness.part('panel')).backgroundColor")
            .await,
        "rgb(21, 22, 24)"
    );

    assert_eq!(
        tab.eval("(Failsoft.close(), Boolean(witness.part('panel')))")
            .await,
        false
    );
    assert_eq!(
        tab.eval("(Failsoft.toggle(), Boolean(witness.part('panel')))")
            .await,
        true
    );
    assert_eq!(
        tab.eval(
            "heard.filter(([name]) => name === 'open' || name === 'close').map(([name]) => name)"
        )
        .await,
        json!(["open", "close", "open"])
    );
    tab.eval("window.off = Failsoft.on('close', () => heard.push(['mine']))")
        .await;
    tab.eval("(off(), Failsoft.close())").await;
    assert_eq!(
        tab.eval("heard.some(([name]) => name === 'mine')").await,
        false
    );
    tab.eval("Failsoft.on('ready', () => (window.late = true))")
        .await;
    tab.wait_until("window.late").await;
    tab.eval("Failsoft.destroy()").await;
    assert_eq!(
        tab.eval("[document.querySelector('failsoft-chat'), typeof Failsoft]")
            .await,
        json!([null, "undefined"])
    );
    tab.assert_no_errors().await;
    assert_eq!(chrome.console_warnings().await, Vec::<String>::new());
}

#[tokio::test]
async fn accent_property_of_the_site_colours_the_widget() {
    let (host, site) = start_host_and_site().await;
    let style = "<style>:root { --fs-accent: rgb(255, 212, 0) }</style>";
    let chrome = Chrome::start().await;
    let tab = chrome
        .open(&host.add_plain_page(
            "/",
            "",
            &format!("{style}{}", script_tag(&site, "data-open")),
        ))
        .await;
    tab.wait_until("witness.part('panel') && witness.part('empty')")
        .await;
    // The widget opened by itself, so it does not take the focus.
    assert_eq!(
        tab.eval("document.activeElement === document.body").await,
        true
    );
    let colours = "(({ backgroundColor, color }) => [backgroundColor, color])(getComputedStyle(witness.part('launcher')))";
    // Black text on yellow.
    assert_eq!(
        tab.eval(colours).await,
        json!(["rgb(255, 212, 0)", "oklch(0 0 0)"])
    );
    tab.assert_no_errors().await;
}

#[tokio::test]
async fn escape_closes_the_widget_and_restores_the_focus() {
    let (host, site) = start_host_and_site().await;
    let chrome = Chrome::start().await;
    let tab = chrome
        .open(&host.add_plain_page("/", "", &script_tag(&site, "")))
        .await;
    tab.wait_until("witness.shadow && witness.part('launcher')")
        .await;
    // By keyboard only: past the site's own button to the launcher.
    tab.press("Tab").await;
    assert_eq!(tab.eval("document.activeElement.id").await, "own");
    tab.press("Tab").await;
    assert_eq!(
        tab.eval(&format!(
            "witness.shadow.activeElement === {LAUNCHER_ELEMENT}"
        ))
        .await,
        true
    );
    tab.press("Enter").await;
    tab.wait_until("witness.shadow.activeElement?.localName === 'textarea'")
        .await;
    tab.press("Escape").await;
    assert_eq!(
        tab.eval(&format!(
            "[witness.part('panel') ?? null, witness.shadow.activeElement === {LAUNCHER_ELEMENT}]"
        ))
        .await,
        json!([null, true])
    );
    // Opened from the site's own button: the focus returns there.
    tab.eval("(document.getElementById('own').onclick = () => Failsoft.open(), document.getElementById('own').focus())").await;
    tab.press("Enter").await;
    tab.wait_until("witness.shadow.activeElement?.localName === 'textarea'")
        .await;
    tab.press("Escape").await;
    assert_eq!(tab.eval("document.activeElement.id").await, "own");
    tab.assert_no_errors().await;
}

#[tokio::test]
async fn disallowed_site_gets_an_error_and_no_session() {
    let host = HostSite::start().await;
    let site = TestSite::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome
        .open(&host.add_plain_page(
            "/",
            "",
            &format!("{RECORD_EVENTS}{}", script_tag(&site, "data-locale=\"en\"")),
        ))
        .await;
    tab.wait_until("witness.part('notice')").await;
    let notice = tab.eval_string("witness.part('notice').textContent").await;
    assert_eq!(notice, "This chat is not available on this site.");
    assert_eq!(tab.eval("witness.frames.length").await, 0);
    assert_eq!(
        tab.eval("heard.find(([name]) => name === 'error')[1].code")
            .await,
        "forbidden_origin"
    );
    let complaints = chrome.console_warnings().await;
    let complaint = complaints
        .iter()
        .find(|text| text.contains("server.allowed_origins"))
        .unwrap();
    assert!(complaint.contains(&host.origin()), "{complaint}");
    // The rest of the site still works.
    tab.eval("document.getElementById('own').onclick = () => (window.pressed = true)")
        .await;
    tab.click("#own").await;
    assert_eq!(tab.eval("window.pressed").await, true);
    tab.eval("Failsoft.close()").await;
    tab.assert_no_errors().await;
}

#[tokio::test]
async fn unreachable_service_shows_a_notice_and_leaves_the_site_working() {
    let host = HostSite::start().await;
    let mut site = TestSite::with_config(&host.allowing_config()).await;
    let proxy = BrowserProxy::in_front_of(site.port()).await;
    let chrome = Chrome::start().await;
    let script = format!(
        "{RECORD_EVENTS}<script src=\"{}widget.js\" async data-locale=\"en\"></script>",
        proxy.address()
    );
    let address = host.add_plain_page(
        "/",
        "",
        &script.replace("Failsoft.push(['send', 'Asked before all'], ['open']);", ""),
    );
    let tab = chrome.open(&address).await;
    tab.wait_until("witness.shadow && witness.part('launcher')")
        .await;
    // The service stops after the launcher loaded and before the chat does.
    site.kill().await;
    tab.click_on(LAUNCHER_ELEMENT).await;
    tab.wait_until("witness.part('panel')?.textContent.includes('is unavailable')")
        .await;
    assert_eq!(
        tab.eval("heard.find(([name]) => name === 'error')[1].code")
            .await,
        "unreachable"
    );
    tab.eval("document.getElementById('own').onclick = () => (window.pressed = true)")
        .await;
    tab.click("#own").await;
    assert_eq!(tab.eval("window.pressed").await, true);

    tab.eval("Failsoft.send('Asked while it was gone')").await;
    site.restart().await;
    proxy.set_target(site.port());
    let again = "[...witness.shadow.querySelectorAll('button')].find((one) => one.textContent === 'Try again')";
    tab.click_on(again).await;
    tab.wait_until("witness.frame('welcome') && witness.part('composer')")
        .await;
    tab.wait_until("witness.frame('start')?.text === 'Asked while it was gone'")
        .await;

    // Without the service from the start there is no widget, and the rest of the site works.
    site.kill().await;
    let tab = chrome
        .open(&host.add_plain_page("/none", "", &script))
        .await;
    tab.wait_until("document.readyState === 'complete'").await;
    assert_eq!(
        tab.eval("[document.querySelector('failsoft-chat'), Array.isArray(Failsoft)]")
            .await,
        json!([null, true])
    );
    tab.click("#own").await;
}

#[tokio::test]
async fn widget_is_modal_on_a_phone_and_reopens_the_same_session() {
    let (host, site) = start_host_and_site().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open("about:blank").await;
    tab.resize(360, 740, true).await;
    let page = "<meta name=\"viewport\" content=\"width=device-width\">".to_owned()
        + &script_tag(&site, "");
    tab.open(&host.add_plain_page("/", "", &page)).await;
    tab.wait_until("witness.shadow && witness.part('launcher')")
        .await;
    let size = "(({ width, height }) => [width, height])(witness.part('launcher').getBoundingClientRect())";
    assert_eq!(tab.eval(size).await, json!([56, 56]));
    tab.eval("Failsoft.open()").await;
    tab.wait_until(
        "witness.part('composer') && witness.frame('welcome') && !witness.shadow.getAnimations().length",
    )
    .await;
    let bounds = "(({ x, y, width, height }) => [x, y, width, height])(witness.part('panel').getBoundingClientRect())";
    assert_eq!(tab.eval(bounds).await, json!([0, 0, 360, 740]));
    assert_eq!(
        tab.eval("witness.part('launcher') ?? null").await,
        Value::Null
    );
    // The panel is modal: focus cycles in it in both directions, and the page behind is inert.
    let modal =
        "[witness.part('panel').getAttribute('aria-modal'), document.querySelector('main').inert]";
    assert_eq!(tab.eval(modal).await, json!(["true", true]));
    let within = "witness.part('panel').contains(witness.shadow.activeElement)";
    let first = "witness.shadow.activeElement === [...witness.part('panel').querySelectorAll('a, button')].find(witness.visible)";
    for back in [false, true] {
        let mut rounds = 0;
        for _ in 0..24 {
            tab.press(if back { "Shift+Tab" } else { "Tab" }).await;
            assert_eq!(tab.eval(within).await, true);
            rounds += u32::from(tab.eval(first).await == true);
        }
        assert!(rounds >= 2, "the focus must cycle");
    }
    tab.press("Escape").await;
    let modal = "[witness.part('panel') ?? null, document.querySelector('main').inert]";
    assert_eq!(tab.eval(modal).await, json!([null, false]));
    tab.eval("Failsoft.open()").await;
    tab.wait_until("document.querySelector('main').inert").await;
    tab.resize(1280, 800, false).await;
    tab.wait_until(
        "innerWidth === 1280 && witness.part('panel').getBoundingClientRect().width === 384",
    )
    .await;
    assert_eq!(
        tab.eval("witness.part('panel').getBoundingClientRect().height")
            .await,
        600
    );
    tab.wait_until("!document.querySelector('main').inert && !witness.part('panel').hasAttribute('aria-modal')")
        .await;
    tab.eval("(Failsoft.close(), Failsoft.open())").await;
    assert_eq!(
        tab.eval("witness.sent.filter(({ type }) => type === 'hello').length")
            .await,
        1
    );
    tab.assert_no_errors().await;
}
