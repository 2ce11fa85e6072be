//! Visitors identified by a signed token: one conversation in every browser, and no access without
//! a valid token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::chrome::Chrome;
use super::test_site::TestSite;
use super::third_party_site::HostSite;
use super::widget::script_tag;

const SECRET: &str = "what-the-shop-and-the-chat-share";

const YEAR_2100: u64 = 4_102_444_800;

fn sign_token(secret: &str, subject: &str, exp: u64) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signing_input = format!(
        "{}.{}",
        part(&json!({ "alg": "HS256", "typ": "JWT" })),
        part(&json!({ "sub": subject, "exp": exp }))
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(signing_input.as_bytes());
    format!(
        "{signing_input}.{}",
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    )
}

fn identify_script(token: &str) -> String {
    format!(
        "<script>(window.Failsoft ??= []).push(['identify', '{token}'], ['open']);
        Failsoft.push(['on', 'error', (error) => (window.refused = error)])</script>"
    )
}

async fn start_host_and_site() -> (HostSite, TestSite) {
    let host = HostSite::start().await;
    let site = TestSite::with_config(&format!(
        "{}[widget]\nidentity_secret = \"{SECRET}\"\n",
        host.allowing_config()
    ))
    .await;
    (host, site)
}

#[tokio::test]
async fn identified_visitor_finds_the_conversation_in_another_browser() {
    let (host, site) = start_host_and_site().await;
    let ann = host.add_plain_page(
        "/ann",
        "",
        &(identify_script(&sign_token(SECRET, "ann", YEAR_2100)) + &script_tag(&site, "")),
    );
    let bob = host.add_plain_page(
        "/bob",
        "",
        &(identify_script(&sign_token(SECRET, "bob", YEAR_2100)) + &script_tag(&site, "")),
    );
    let first_browser = Chrome::start().await;
    let tab = first_browser.open(&ann).await;
    tab.wait_until("witness.frame('welcome')").await;
    tab.ask_widget("Where do penguins sleep in winter?").await;
    let done = tab.wait_for_done().await;
    let conversation = tab.conversation_id().await;

    let second_browser = Chrome::start().await;
    let elsewhere = second_browser.open(&ann).await;
    elsewhere
        .wait_until("witness.answer()?.dataset.state === 'done'")
        .await;
    assert_eq!(elsewhere.answer_text().await, done["text"]);
    assert_eq!(elsewhere.conversation_id().await, conversation);
    elsewhere.assert_no_errors().await;

    // Another visitor in the first browser.
    let next = first_browser.open(&bob).await;
    next.wait_until("witness.frame('welcome') && witness.part('empty')")
        .await;
    assert_ne!(next.conversation_id().await, conversation);
    assert_eq!(next.eval("witness.answers().length").await, 0);
    // The identity may change while the page is open.
    next.eval(&format!(
        "Failsoft.identify('{}')",
        sign_token(SECRET, "ann", YEAR_2100 - 1)
    ))
    .await;
    next.wait_until("witness.answer()?.dataset.state === 'done'")
        .await;
    assert_eq!(next.answer_text().await, done["text"]);
    next.eval("Failsoft.identify(null)").await;
    next.wait_until(
        "witness.part('empty') && witness.sent.findLast(({ type }) => type === 'hello').token === undefined",
    )
    .await;
    next.assert_no_errors().await;
}

#[tokio::test]
async fn forged_or_expired_token_opens_no_conversation() {
    let (host, site) = start_host_and_site().await;
    let chrome = Chrome::start().await;
    let good = sign_token(SECRET, "ann", YEAR_2100);
    let unsigned = format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
        good.split('.').nth(1).unwrap()
    );
    let bad = [
        ("forged", sign_token("another", "ann", YEAR_2100)),
        ("expired", sign_token(SECRET, "ann", 1)),
        ("unsigned", unsigned),
    ];
    for (kind, token) in bad {
        let page = identify_script(&token) + &script_tag(&site, "data-locale=\"en\"");
        let tab = chrome
            .open(&host.add_plain_page(&format!("/{kind}"), "", &page))
            .await;
        tab.wait_until("window.refused && witness.part('notice')")
            .await;
        assert_eq!(tab.eval("refused.code").await, "unauthorized", "{kind}");
        let notice = tab.eval_string("witness.part('notice').textContent").await;
        assert!(
            notice.starts_with("You are no longer signed in."),
            "{notice}"
        );
        let frames = "witness.frames.map(({ frame }) => frame.type)";
        assert_eq!(
            tab.eval(frames).await,
            json!(["error"]),
            "{kind}: no anonymous session either"
        );
        // With a valid token the visitor gets in.
        tab.eval(&format!("Failsoft.identify('{good}')")).await;
        tab.wait_until("witness.frame('welcome') && !witness.part('notice')")
            .await;
        tab.assert_no_errors().await;
    }
}
