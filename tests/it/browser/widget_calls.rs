//! What a site can do with the widget from its own scripts, and what the widget does where it cannot work.

use serde_json::{Value, json};

use super::chrome::Chrome;
use super::cutting_proxy::Line;
use super::test_site::Site;
use super::third_party_site::Host;
use super::widget::{LAUNCHER, pair, tag};

/// Notes every event of the widget in `heard`, from before the widget's script is there.
const LISTEN: &str = "<script>window.heard = [];
    const on = (name) => [ 'on', name, (detail) => heard.push([name, detail]) ];
    (window.Failsoft ??= []).push(...['ready', 'open', 'close', 'message', 'status', 'error'].map(on));
    Failsoft.push(['send', 'Asked before all'], ['open']);</script>";

#[tokio::test]
async fn a_sites_scripts_are_heard_before_it_is_there_and_told_what_happens() {
    let (host, site) = pair().await;
    let chrome = Chrome::start().await;
    let attributes = "data-title=\"Ask us\" data-greeting=\"Well met.\" data-position=\"left\" data-theme=\"dark\" data-locale=\"de\" data-accent=\"rgb(200, 20, 60)\"";
    let tab = chrome
        .open(&host.plain("/", "", &format!("{LISTEN}{}", tag(&site, attributes))))
        .await;
    tab.until("witness.part('panel') && witness.frame('done')")
        .await;
    tab.until("witness.answer()?.dataset.state === 'done'")
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

    // The attributes.
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

    // The calls.
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
    tab.until("window.late").await;
    tab.eval("Failsoft.destroy()").await;
    assert_eq!(
        tab.eval("[document.querySelector('failsoft-chat'), typeof Failsoft]")
            .await,
        json!([null, "undefined"])
    );
    tab.is_untroubled().await;
    assert_eq!(chrome.complaints().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_sites_own_properties_colour_it() {
    let (host, site) = pair().await;
    let style = "<style>:root { --fs-accent: rgb(255, 212, 0) }</style>";
    let chrome = Chrome::start().await;
    let tab = chrome
        .open(&host.plain("/", "", &format!("{style}{}", tag(&site, "data-open"))))
        .await;
    tab.until("witness.part('panel') && witness.part('empty')")
        .await;
    // It opened by itself, so the focus stays where it is.
    assert_eq!(
        tab.eval("document.activeElement === document.body").await,
        true
    );
    let looks = "(({ backgroundColor, color }) => [backgroundColor, color])(getComputedStyle(witness.part('launcher')))";
    // On yellow one writes in black.
    assert_eq!(
        tab.eval(looks).await,
        json!(["rgb(255, 212, 0)", "oklch(0 0 0)"])
    );
    tab.is_untroubled().await;
}

#[tokio::test]
async fn escape_closes_it_and_the_focus_goes_back_to_where_it_was() {
    let (host, site) = pair().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&host.plain("/", "", &tag(&site, ""))).await;
    tab.until("witness.shadow && witness.part('launcher')")
        .await;
    // By keyboard alone: past the site's own button to the launcher.
    tab.press("Tab").await;
    assert_eq!(tab.eval("document.activeElement.id").await, "own");
    tab.press("Tab").await;
    assert_eq!(
        tab.eval(&format!("witness.shadow.activeElement === {LAUNCHER}"))
            .await,
        true
    );
    tab.press("Enter").await;
    tab.until("witness.shadow.activeElement?.localName === 'textarea'")
        .await;
    tab.press("Escape").await;
    assert_eq!(
        tab.eval(&format!(
            "[witness.part('panel') ?? null, witness.shadow.activeElement === {LAUNCHER}]"
        ))
        .await,
        json!([null, true])
    );
    // From the site's own button back to it.
    tab.eval("(document.getElementById('own').onclick = () => Failsoft.open(), document.getElementById('own').focus())").await;
    tab.press("Enter").await;
    tab.until("witness.shadow.activeElement?.localName === 'textarea'")
        .await;
    tab.press("Escape").await;
    assert_eq!(tab.eval("document.activeElement.id").await, "own");
    tab.is_untroubled().await;
}

#[tokio::test]
async fn a_site_that_is_not_allowed_opens_no_session_and_is_told_why() {
    let host = Host::start().await;
    let site = Site::demo().await;
    let chrome = Chrome::start().await;
    let tab = chrome
        .open(&host.plain(
            "/",
            "",
            &format!("{LISTEN}{}", tag(&site, "data-locale=\"en\"")),
        ))
        .await;
    tab.until("witness.part('notice')").await;
    let said = tab.string("witness.part('notice').textContent").await;
    assert_eq!(said, "This chat is not available on this site.");
    assert_eq!(tab.eval("witness.frames.length").await, 0);
    assert_eq!(
        tab.eval("heard.find(([name]) => name === 'error')[1].code")
            .await,
        "forbidden_origin"
    );
    let complaints = chrome.complaints().await;
    let why = complaints
        .iter()
        .find(|one| one.contains("server.allowed_origins"))
        .unwrap();
    assert!(why.contains(&host.origin()), "{why}");
    // The site goes on as if nothing were.
    tab.eval("document.getElementById('own').onclick = () => (window.pressed = true)")
        .await;
    tab.click("#own").await;
    assert_eq!(tab.eval("window.pressed").await, true);
    tab.eval("Failsoft.close()").await;
    tab.is_untroubled().await;
}

#[tokio::test]
async fn a_service_that_is_gone_leaves_the_site_as_it_is_and_the_widget_says_so() {
    let host = Host::start().await;
    let mut site = Site::configured(&host.allowed()).await;
    let line = Line::to(site.port()).await;
    let chrome = Chrome::start().await;
    let script = format!(
        "{LISTEN}<script src=\"{}widget.js\" async data-locale=\"en\"></script>",
        line.address()
    );
    let address = host.plain(
        "/",
        "",
        &script.replace("Failsoft.push(['send', 'Asked before all'], ['open']);", ""),
    );
    let tab = chrome.open(&address).await;
    tab.until("witness.shadow && witness.part('launcher')")
        .await;
    // Gone after the launcher came, before the chat did.
    site.kill().await;
    tab.click_on(LAUNCHER).await;
    tab.until("witness.part('panel')?.textContent.includes('is unavailable')")
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
    site.start_again().await;
    line.lead_to(site.port());
    let again = "[...witness.shadow.querySelectorAll('button')].find((one) => one.textContent === 'Try again')";
    tab.click_on(again).await;
    tab.until("witness.frame('welcome') && witness.part('composer')")
        .await;
    tab.until("witness.frame('start')?.text === 'Asked while it was gone'")
        .await;

    // Gone from the beginning: there is no widget, and nothing else is missing.
    site.kill().await;
    let tab = chrome.open(&host.plain("/none", "", &script)).await;
    tab.until("document.readyState === 'complete'").await;
    assert_eq!(
        tab.eval("[document.querySelector('failsoft-chat'), Array.isArray(Failsoft)]")
            .await,
        json!([null, true])
    );
    tab.click("#own").await;
}

#[tokio::test]
async fn a_phone_is_filled_and_a_second_open_is_the_same() {
    let (host, site) = pair().await;
    let chrome = Chrome::start().await;
    let tab = chrome.open("about:blank").await;
    tab.resize(360, 740, true).await;
    let page =
        "<meta name=\"viewport\" content=\"width=device-width\">".to_owned() + &tag(&site, "");
    tab.go(&host.plain("/", "", &page)).await;
    tab.until("witness.shadow && witness.part('launcher')")
        .await;
    let size = "(({ width, height }) => [width, height])(witness.part('launcher').getBoundingClientRect())";
    assert_eq!(tab.eval(size).await, json!([56, 56]));
    tab.eval("Failsoft.open()").await;
    tab.until(
        "witness.part('composer') && witness.frame('welcome') && !witness.shadow.getAnimations().length",
    )
    .await;
    let whole = "(({ x, y, width, height }) => [x, y, width, height])(witness.part('panel').getBoundingClientRect())";
    assert_eq!(tab.eval(whole).await, json!([0, 0, 360, 740]));
    assert_eq!(
        tab.eval("witness.part('launcher') ?? null").await,
        Value::Null
    );
    // All there is: the keyboard goes round in it, in both directions, and the page behind it is out of reach.
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
        assert!(rounds >= 2, "it goes round");
    }
    tab.press("Escape").await;
    let modal = "[witness.part('panel') ?? null, document.querySelector('main').inert]";
    assert_eq!(tab.eval(modal).await, json!([null, false]));
    tab.eval("Failsoft.open()").await;
    tab.until("document.querySelector('main').inert").await;
    tab.resize(1280, 800, false).await;
    tab.until("innerWidth === 1280 && witness.part('panel').getBoundingClientRect().width === 384")
        .await;
    assert_eq!(
        tab.eval("witness.part('panel').getBoundingClientRect().height")
            .await,
        600
    );
    tab.until("!document.querySelector('main').inert && !witness.part('panel').hasAttribute('aria-modal')")
        .await;
    tab.eval("(Failsoft.close(), Failsoft.open())").await;
    assert_eq!(
        tab.eval("witness.sent.filter(({ type }) => type === 'hello').length")
            .await,
        1
    );
    tab.is_untroubled().await;
}
