//! Visitors identified by a signed token: one conversation in every browser, and no access without
//! a valid token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::chrome::Chrome;
use super::test_site::Site;
use super::third_party_site::Host;
use super::widget::tag;

const SECRET: &str = "what-the-shop-and-the-chat-share";

const LATE: u64 = 4_102_444_800;

fn signed(secret: &str, subject: &str, exp: u64) -> String {
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

fn identify(token: &str) -> String {
    format!(
        "<script>(window.Failsoft ??= []).push(['identify', '{token}'], ['open']);
        Failsoft.push(['on', 'error', (error) => (window.refused = error)])</script>"
    )
}

async fn pair() -> (Host, Site) {
    let host = Host::start().await;
    let site = Site::configured(&format!(
        "{}[widget]\nidentity_secret = \"{SECRET}\"\n",
        host.allowed()
    ))
    .await;
    (host, site)
}

#[tokio::test]
async fn identified_visitor_finds_the_conversation_in_another_browser() {
    let (host, site) = pair().await;
    let ann = host.plain(
        "/ann",
        "",
        &(identify(&signed(SECRET, "ann", LATE)) + &tag(&site, "")),
    );
    let bob = host.plain(
        "/bob",
        "",
        &(identify(&signed(SECRET, "bob", LATE)) + &tag(&site, "")),
    );
    let first_browser = Chrome::start().await;
    let tab = first_browser.open(&ann).await;
    tab.until("witness.frame('welcome')").await;
    tab.ask_widget("Where do penguins sleep in winter?").await;
    let done = tab.until_done().await;
    let conversation = tab.conversation().await;

    let second_browser = Chrome::start().await;
    let elsewhere = second_browser.open(&ann).await;
    elsewhere
        .until("witness.answer()?.dataset.state === 'done'")
        .await;
    assert_eq!(elsewhere.text().await, done["text"]);
    assert_eq!(elsewhere.conversation().await, conversation);
    elsewhere.is_untroubled().await;

    // Another visitor in the first browser.
    let next = first_browser.open(&bob).await;
    next.until("witness.frame('welcome') && witness.part('empty')")
        .await;
    assert_ne!(next.conversation().await, conversation);
    assert_eq!(next.eval("witness.answers().length").await, 0);
    // The identity may change while the page is open.
    next.eval(&format!(
        "Failsoft.identify('{}')",
        signed(SECRET, "ann", LATE - 1)
    ))
    .await;
    next.until("witness.answer()?.dataset.state === 'done'")
        .await;
    assert_eq!(next.text().await, done["text"]);
    next.eval("Failsoft.identify(null)").await;
    next.until(
        "witness.part('empty') && witness.sent.findLast(({ type }) => type === 'hello').token === undefined",
    )
    .await;
    next.is_untroubled().await;
}

#[tokio::test]
async fn forged_or_expired_token_opens_no_conversation() {
    let (host, site) = pair().await;
    let chrome = Chrome::start().await;
    let good = signed(SECRET, "ann", LATE);
    let unsigned = format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
        good.split('.').nth(1).unwrap()
    );
    let bad = [
        ("forged", signed("another", "ann", LATE)),
        ("expired", signed(SECRET, "ann", 1)),
        ("unsigned", unsigned),
    ];
    for (kind, token) in bad {
        let page = identify(&token) + &tag(&site, "data-locale=\"en\"");
        let tab = chrome
            .open(&host.plain(&format!("/{kind}"), "", &page))
            .await;
        tab.until("window.refused && witness.part('notice')").await;
        assert_eq!(tab.eval("refused.code").await, "unauthorized", "{kind}");
        let notice = tab.string("witness.part('notice').textContent").await;
        assert!(
            notice.starts_with("Your sign-in is not valid any more."),
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
        tab.until("witness.frame('welcome') && !witness.part('notice')")
            .await;
        tab.is_untroubled().await;
    }
}
