//! Download sizes of the scripts for a site's visitors, compressed as browsers receive them.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use super::chrome::Chrome;
use super::test_site::TestSite;
use super::widget::{open_chat, script_tag, start_host_and_site};

/// The limit for all scripts of a chat with a Markdown answer, including libraries and one
/// language.
const MAX_SCRIPT_BYTES: usize = 45 * 1024;

/// Fetches a file with gzip and returns its compressed size and its text.
async fn fetch_gzipped(site: &TestSite, path: &str) -> (usize, String) {
    // Fails if another test installed it first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::new();
    let address = format!("{}{path}", site.address());
    let packed = client
        .get(&address)
        .header("accept-encoding", "gzip")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            packed.status().as_u16(),
            &packed.headers()["content-encoding"]
        ),
        (200, &"gzip".parse().unwrap())
    );
    let size = packed.bytes().await.unwrap().len();
    (
        size,
        client
            .get(&address)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap(),
    )
}

/// Returns a module and everything it imports statically, each with its compressed size.
async fn sizes_with_imports(site: &TestSite, module: &str) -> BTreeMap<String, usize> {
    let import = Regex::new(r#"(?m)^(?:import|export)\b[^;'"(]*?['"]\./([^'"]+)['"];"#).unwrap();
    let mut sizes = BTreeMap::new();
    let mut waiting = vec![module.to_owned()];
    while let Some(name) = waiting.pop() {
        if sizes.contains_key(&name) {
            continue;
        }
        let (size, text) = fetch_gzipped(site, &format!("static/{name}")).await;
        let folder = name
            .rsplit_once('/')
            .map_or(String::new(), |(folder, _)| format!("{folder}/"));
        waiting.extend(
            import
                .captures_iter(&text)
                .map(|found| format!("{folder}{}", &found[1])),
        );
        sizes.insert(name, size);
    }
    sizes
}

#[tokio::test]
async fn launcher_and_chat_scripts_stay_below_their_limits() {
    let site = TestSite::demo().await;
    let (launcher, _) = fetch_gzipped(&site, "widget.js").await;
    assert!(launcher <= 8 * 1024, "the launcher takes {launcher} bytes");
    let chat = sizes_with_imports(&site, "chat.js").await;
    let first: usize = chat.values().sum();
    assert!(
        first <= 18 * 1024,
        "the chat takes {first} bytes until its first paint: {chat:#?}"
    );
    assert!(
        !chat.contains_key("vendor/marked.esm.js"),
        "the Markdown library must not delay the first paint"
    );
    let mut sizes = sizes_with_imports(&site, "markdown.js").await;
    sizes.extend(chat);
    sizes.extend(sizes_with_imports(&site, "locales/en.js").await);
    assert!(
        sizes.contains_key("vendor/marked.esm.js") && sizes.contains_key("vendor/purify.esm.js"),
        "{sizes:#?}"
    );
    let sum: usize = sizes.values().sum();
    assert!(
        sum <= MAX_SCRIPT_BYTES,
        "the chat takes {sum} bytes: {sizes:#?}"
    );
}

#[tokio::test]
async fn widget_conversation_fetches_no_more_than_the_limit() {
    let (host, site) = start_host_and_site().await;
    let chrome = Chrome::start().await;
    let tab = chrome
        .open(&host.add_plain_page("/", "", &script_tag(&site, "data-locale=\"en\"")))
        .await;
    open_chat(&tab).await;
    tab.ask_widget("Hello").await;
    tab.wait_for_done().await;
    tab.wait_until("witness.answer().querySelector('.fs-tail')")
        .await;
    let names = tab.eval("performance.getEntriesByType('resource').map(({ name }) => name).filter((name) => /static.*\\.js/.test(name))").await;
    let names: Vec<Value> = serde_json::from_value(names).unwrap();
    let mut sum = 0;
    for name in &names {
        let path = name
            .as_str()
            .unwrap()
            .strip_prefix(&site.address())
            .unwrap();
        sum += fetch_gzipped(&site, path).await.0;
    }
    assert!(names.len() >= 5, "{names:#?}");
    assert!(sum <= MAX_SCRIPT_BYTES, "{sum} bytes: {names:#?}");
}
