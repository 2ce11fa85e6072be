//! Visitors whom a site names by a signed token: the same conversation in another browser, and nothing for who cannot show one.

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

/// The year 2100.
const LATE: u64 = 4_102_444_800;

fn signed(secret: &str, subject: &str, exp: u64) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let said = format!(
        "{}.{}",
        part(&json!({ "alg": "HS256", "typ": "JWT" })),
        part(&json!({ "sub": subject, "exp": exp }))
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(said.as_bytes());
    format!(
        "{said}.{}",
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
async fn a_named_visitor_finds_the_same_conversation_in_another_browser() {
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
    let one = Chrome::start().await;
    let tab = one.open(&ann).await;
    tab.until("witness.frame('welcome')").await;
    tab.ask_widget("Where do penguins sleep in winter?").await;
    let done = tab.until_done().await;
    let conversation = tab.conversation().await;

    let other = Chrome::start().await;
    let elsewhere = other.open(&ann).await;
    elsewhere
        .until("witness.answer()?.dataset.state === 'done'")
        .await;
    assert_eq!(elsewhere.text().await, done["text"]);
    assert_eq!(elsewhere.conversation().await, conversation);
    elsewhere.is_untroubled().await;

    // Another visitor, in the browser that the first one used.
    let next = one.open(&bob).await;
    next.until("witness.frame('welcome') && witness.part('empty')")
        .await;
    assert_ne!(next.conversation().await, conversation);
    assert_eq!(next.eval("witness.answers().length").await, 0);
    // Who they are may change while the page is open.
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
async fn a_forged_or_expired_token_opens_nothing() {
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
    for (what, token) in bad {
        let page = identify(&token) + &tag(&site, "data-locale=\"en\"");
        let tab = chrome
            .open(&host.plain(&format!("/{what}"), "", &page))
            .await;
        tab.until("window.refused && witness.part('notice')").await;
        assert_eq!(tab.eval("refused.code").await, "unauthorized", "{what}");
        let said = tab.string("witness.part('notice').textContent").await;
        assert!(
            said.starts_with("You are no longer signed in."),
            "{said}"
        );
        let frames = "witness.frames.map(({ frame }) => frame.type)";
        assert_eq!(
            tab.eval(frames).await,
            json!(["error"]),
            "{what}: not let in as anybody else either"
        );
        // With a good one the visitor goes on.
        tab.eval(&format!("Failsoft.identify('{good}')")).await;
        tab.until("witness.frame('welcome') && !witness.part('notice')")
            .await;
        tab.is_untroubled().await;
    }
}
