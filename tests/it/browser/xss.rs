//! Hostile text from a model or a visitor runs nothing, loads nothing and links only where it says:
//! while it streams in, after a reload, and in a draft.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::chrome::Chrome;
use super::page_driver::BrowserTab;
use super::test_site::TestSite;
use crate::harness::{
    ScriptGate, ScriptStep, ScriptedProvider, send_text, stream_end, stream_head, token_event,
};

/// If an attack succeeds it sets `ran`, or fetches from ELSEWHERE or from a URL with `leak`.
const ATTACKS: &[&str] = &[
    "<script>ran = 1</script>",
    "<img src=x onerror=\"ran = 1\">",
    "<img src=ELSEWHERE><img srcset=\"/static/icon.svg?leak 1x\">",
    "<svg onload=\"ran = 1\"><script>ran = 1</script></svg>",
    "<svg><animate onbegin=\"ran = 1\" attributeName=x dur=1s></svg>",
    "<math><mtext><table><mglyph><style><!--</style><img title=\"--&gt;&lt;img src=x onerror=ran=1&gt;\">",
    "<noscript><p title=\"</noscript><img src=x onerror=ran=1>\">",
    "<iframe srcdoc=\"<script>parent.ran = 1</script>\"></iframe>",
    "<iframe src=\"javascript:parent.ran = 1\"></iframe><embed src=ELSEWHERE><object data=ELSEWHERE></object>",
    "<details open ontoggle=\"ran = 1\"><summary>x</summary></details>",
    "<video src=ELSEWHERE onerror=\"ran = 1\" autoplay></video><audio src=ELSEWHERE></audio>",
    "<link rel=stylesheet href=ELSEWHERE><style>@import 'ELSEWHERE'; * { background: url(ELSEWHERE) }</style>",
    "<p style=\"background: url(/static/icon.svg?leak)\">styled</p>",
    "<meta http-equiv=refresh content=\"0;url=javascript:ran=1\"><base href=ELSEWHERE>",
    "<form action=\"javascript:ran = 1\"><input autofocus onfocus=\"ran = 1\"><button>Press</button></form>",
    "<template><script>ran = 1</script></template><a href=\"javascript:ran = 1\" onclick=\"ran = 1\">link</a>",
    "<b onmouseover=\"ran = 1\" id=chat class=fs name=body>clobber</b>",
    "<!-- --!><img src=x onerror=ran=1> --> <![CDATA[<img src=x onerror=ran=1>]]>",
    "[plain](javascript:ran=1) [case](JaVaScRiPt:ran=1) [space]( javascript:ran=1) [tab](java\tscript:ran=1)",
    "[entity](javascript&#58;ran=1) [hex](&#x6A;avascript:ran=1) [colon](javascript&colon;ran=1) [escape](\\javascript:ran=1)",
    "[control](\u{1}javascript:ran=1) [zero](java\u{200b}script:ran=1) [angle](<javascript:ran=1>) <javascript:ran=1>",
    "[data](data:text/html,<script>opener.ran=1</script>) [blob](blob:ELSEWHERE) [vb](vbscript:ran=1) [file](file:///etc/passwd)",
    "[title](https://example.com \"x\\\" onmouseover=\\\"ran=1\") [quote](https://example.com/\"onmouseover=\"ran=1)",
    "[by name][attack]\n\n[attack]: javascript:ran=1 \"x\"",
    "![image](ELSEWHERE) ![own](/static/icon.svg?leak) ![script](javascript:ran=1) ![svg](data:image/svg+xml,<svg/onload=ran=1>)",
    "![a\" onerror=\"ran=1](x) [![nested](ELSEWHERE)](javascript:ran=1)",
    "```\"><img src=x onerror=ran=1>\n</code></pre><img src=x onerror=ran=1>\n```",
    "~~~html onload=ran=1\n<script>ran = 1</script>\n~~~",
    "`</code><img src=x onerror=ran=1>` and ``<script>ran=1</script>``",
    "# <img src=x onerror=ran=1>\n\n> <script>ran = 1</script>\n\n1. <svg/onload=ran=1>",
    "| <img src=x onerror=ran=1> | b |\n|:-:|---|\n| <script>ran=1</script> | [x](javascript:ran=1) |",
    "https://example.com/<img/src=x/onerror=ran=1> www.example.com\"onclick=\"ran=1 a@example.com<script>ran=1</script>",
    "&lt;img src=x onerror=ran=1&gt; &#60;script&#62;ran = 1&#60;/script&#62; \\<script>ran=1\\</script>",
];

/// The elements of which a rendered answer may consist.
const ALLOWED_ELEMENTS: &str = "a article blockquote br button code details div em h2 h3 hr i li ol p path pre section span strong summary \
    svg table tbody td th thead tr ul";

/// Starts a server which counts connections. There must be none.
async fn start_trap_server() -> (String, watch::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/x", listener.local_addr().unwrap());
    let (sender, connections) = watch::channel(0);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            sender.send_modify(|count| *count += 1);
        }
    });
    (address, connections)
}

/// Splits a text into pieces of this many characters, so that attacks are split in their middle.
fn split_into_pieces(text: &str, length: usize) -> Vec<String> {
    let characters: Vec<_> = text.chars().collect();
    characters
        .chunks(length)
        .map(|piece| piece.iter().collect())
        .collect()
}

pub async fn site_with_providers(providers: &[&ScriptedProvider], title: &str) -> TestSite {
    let mut tables = format!(
        "[chat]\ntitle = {title:?}\ngreeting = {title:?}\n[timeouts]\nstall = \"60s\"\nattempt = \"240s\"\nturn = \"300s\"\n"
    );
    for (at, provider) in providers.iter().enumerate() {
        let address = provider.base_url();
        let _ = write!(
            tables,
            "[[providers]]\nname = \"p{at}\"\ndialect = \"openai\"\nbase_url = \"{address}\"\nmodel = \"m\"\napi_key = \"k\"\n"
        );
    }
    TestSite::with_config(&tables).await
}

#[tokio::test]
async fn hostile_text_runs_nothing_and_loads_nothing() {
    let (address, connections) = start_trap_server().await;
    let attack = ATTACKS.join("\n\n").replace("ELSEWHERE", &address);
    let parts = split_into_pieces(&attack, 11);
    let gate = ScriptGate::default();
    let mut script = vec![send_text(&stream_head())];
    script.extend(
        parts
            .iter()
            .flat_map(|part| [gate.wait_step(), send_text(&token_event(part))]),
    );
    script.extend([gate.wait_step(), send_text(&stream_end())]);
    let provider = ScriptedProvider::start(script).await;
    let title = "<img src=x onerror=ran=1> & \"others\"";
    let site = site_with_providers(&[&provider], title).await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.wait_until("witness.frame('welcome')").await;
    assert_eq!(
        tab.eval_string("document.querySelector('h1').textContent")
            .await,
        title
    );
    assert!(
        tab.eval_string("document.querySelector('[data-role=\"empty\"]').innerText")
            .await
            .contains(title)
    );

    let question = "<img src=x onerror=ran=1><script>ran = 1</script> [x](javascript:ran=1)";
    tab.ask(question).await;
    let mut length = 0;
    for part in &parts {
        gate.let_one_through();
        length += part.encode_utf16().count();
        tab.wait_until(&format!("witness.text().length === {length}"))
            .await;
    }
    assert_harmless(&tab).await;
    gate.let_one_through();
    tab.wait_for_done().await;
    assert_harmless(&tab).await;
    assert_eq!(
        tab.eval_string(
            "document.querySelector('[data-from=\"user\"] [data-role=\"text\"]').textContent"
        )
        .await,
        question
    );

    tab.reload().await;
    tab.wait_until("witness.answer()?.dataset.state === 'done' && witness.frame('welcome')")
        .await;
    assert_eq!(tab.answer_text().await, attack);
    assert_harmless(&tab).await;
    tab.assert_no_errors().await;
    assert_eq!(chrome.console_warnings().await, Vec::<String>::new());
    assert_eq!(
        *connections.borrow(),
        0,
        "something was fetched from elsewhere"
    );
}

#[tokio::test]
async fn hostile_draft_runs_nothing() {
    let (address, connections) = start_trap_server().await;
    let attack = ATTACKS.join("\n\n").replace("ELSEWHERE", &address);
    let gate = ScriptGate::default();
    let broken = ScriptedProvider::start(vec![
        send_text(&(stream_head() + &token_event(&attack))),
        gate.wait_step(),
        ScriptStep::Reset,
    ])
    .await;
    let whole = ScriptedProvider::answering("Something else altogether.").await;
    let site = site_with_providers(&[&broken, &whole], "Chat").await;
    let chrome = Chrome::start().await;
    let tab = chrome.open(&site.address()).await;
    tab.ask("Hello").await;
    tab.wait_for_partial_answer(attack.encode_utf16().count())
        .await;
    gate.let_one_through();
    let done = tab.wait_for_done().await;
    assert_eq!(done["drafts"][0]["text"], attack);
    tab.click(r#"[data-role="draft"] summary"#).await;
    assert_harmless(&tab).await;
    tab.assert_no_errors().await;
    assert_eq!(
        *connections.borrow(),
        0,
        "something was fetched from elsewhere"
    );
}

/// Asserts that the transcript has only allowed elements and attributes, and that nothing was run
/// or fetched.
async fn assert_harmless(tab: &BrowserTab) {
    assert_eq!(tab.eval("window.ran ?? null").await, json!(null));
    let leaked = "performance.getEntriesByType('resource').map(({ name }) => name).filter((name) => name.includes('leak'))";
    assert_eq!(tab.eval(leaked).await, json!([]));

    let log = "document.querySelector('[data-role=\"log\"]').querySelectorAll('.fs-turn *')";
    let names = tab
        .eval(&format!(
            "[...new Set([...{log}].map((el) => el.localName))]"
        ))
        .await;
    let names: BTreeSet<String> = serde_json::from_value(names).unwrap();
    let unexpected: Vec<_> = names
        .iter()
        .filter(|name| !ALLOWED_ELEMENTS.split(' ').any(|known| known == *name))
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    let attributes = format!(
        "[...{log}].flatMap((el) => [...el.attributes].map(({{ name, value }}) => `${{name}}=${{value}}`))
            .filter((one) => /^(on|style|src|srcset|action|srcdoc|name|id)/.test(one))"
    );
    assert_eq!(tab.eval(&attributes).await, json!([]));
    let links = format!(
        "[...{log}].filter((el) => el.hasAttribute('href'))
            .filter((el) => !/^(https?|mailto):$/.test(el.protocol) || !/noopener.*nofollow/.test(el.rel))
            .map((el) => el.outerHTML)"
    );
    assert_eq!(tab.eval(&links).await, json!([]));
}
