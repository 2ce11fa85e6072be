//! The static files of pages and widget: embedded in the binary, validated by hash, compressed
//! once.
//!
//! Our own scripts and styles are served without comments and most white space, and the chat's
//! modules as one bundle: see [`mod@bundle`]. Third-party files are served as published.

mod bundle;

use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::sync::LazyLock;

use actix_web::http::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE,
    ETAG, HeaderName, IF_NONE_MATCH, VARY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use rust_embed::RustEmbed;
use sha2::{Digest as _, Sha256};

use self::bundle::{bundle, join_lines, strip_comments, strip_spaces};
use super::error::not_found;

const CHAT_ENTRY: &str = "chat.js";

static CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

#[derive(RustEmbed)]
#[folder = "static/"]
struct StaticFiles;

#[derive(Clone)]
struct StaticAsset {
    etag: String,
    content: Bytes,
    gzipped: Bytes,
}

static ASSET_CACHE: LazyLock<Mutex<HashMap<String, StaticAsset>>> = LazyLock::new(Mutex::default);

pub async fn static_file(request: HttpRequest, name: web::Path<String>) -> HttpResponse {
    serve(&request, &name).await
}

/// `GET /widget.js`: the script that a site embeds.
pub async fn widget_script(request: HttpRequest) -> HttpResponse {
    serve(&request, "widget.js").await
}

async fn serve(request: &HttpRequest, name: &str) -> HttpResponse {
    let Some(StaticAsset {
        etag,
        content,
        gzipped,
    }) = asset(name)
    else {
        return not_found().await;
    };
    let header_value = |header| {
        request
            .headers()
            .get(header)
            .and_then(|value| value.to_str().ok())
    };
    let matches_etag = |tags: &str| {
        tags.split(',')
            .any(|tag| tag.trim().trim_start_matches("W/") == etag)
    };
    let is_fresh = header_value(IF_NONE_MATCH).is_some_and(matches_etag);
    let mut response = if is_fresh {
        HttpResponse::NotModified()
    } else {
        HttpResponse::Ok()
    };
    response
        .insert_header((ETAG, etag.as_str()))
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((VARY, "accept-encoding"))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((ACCESS_CONTROL_ALLOW_ORIGIN, "*"))
        .insert_header((CROSS_ORIGIN_RESOURCE_POLICY.clone(), "cross-origin"));
    if is_fresh {
        return response.finish();
    }
    response.insert_header((CONTENT_TYPE, content_type(name)));
    if header_value(ACCEPT_ENCODING).is_some_and(accepts_gzip) {
        return response
            .insert_header((CONTENT_ENCODING, "gzip"))
            .body(gzipped);
    }
    response.body(content)
}

/// Returns `true` if an `Accept-Encoding` names gzip with a weight other than zero.
fn accepts_gzip(accepted: &str) -> bool {
    accepted.split(',').any(|item| {
        let (coding, weight) = item.split_once(';').unwrap_or((item, ""));
        let is_refused = weight
            .trim()
            .strip_prefix("q=")
            .and_then(|q| q.parse::<f32>().ok())
            == Some(0.0);
        coding.trim().eq_ignore_ascii_case("gzip") && !is_refused
    })
}

fn asset(name: &str) -> Option<StaticAsset> {
    if let Some(asset) = ASSET_CACHE.lock().get(name) {
        return Some(asset.clone());
    }
    let content = match name {
        CHAT_ENTRY => Bytes::from(join_lines(&bundle(CHAT_ENTRY, &first_party_scripts()))),
        _ => match first_party_script(name) {
            Some(script) => Bytes::from(join_lines(&script)),
            None => file_content(name)?,
        },
    };
    let asset = StaticAsset {
        etag: format!("\"{}\"", URL_SAFE_NO_PAD.encode(Sha256::digest(&content))),
        gzipped: gzip(&content).unwrap_or_else(|_| content.clone()),
        content,
    };
    let mut served = ASSET_CACHE.lock();
    Some(served.entry(name.to_owned()).or_insert(asset).clone())
}

/// Returns a file, stripped of comments if it is our own style sheet.
fn file_content(name: &str) -> Option<Bytes> {
    let data = StaticFiles::get(name)?.data;
    Some(match std::str::from_utf8(&data) {
        Ok(text) if name.ends_with(".css") && !name.starts_with("vendor/") => {
            Bytes::from(strip_comments(text))
        }
        _ => Bytes::from(data.into_owned()),
    })
}

/// Returns one of our own scripts, stripped of comments and spaces.
fn first_party_script(name: &str) -> Option<String> {
    if !name.ends_with(".js") || name.starts_with("vendor/") {
        return None;
    }
    let data = StaticFiles::get(name)?.data;
    Some(strip_spaces(&strip_comments(
        std::str::from_utf8(&data).ok()?,
    )))
}

fn first_party_scripts() -> BTreeMap<String, String> {
    StaticFiles::iter()
        .filter_map(|name| Some((name.to_string(), first_party_script(&name)?)))
        .collect()
}

fn gzip(content: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content)?;
    encoder.finish().map(Bytes::from)
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, end)| end) {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        _ => "text/plain; charset=utf-8",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Checks the coding conventions that the bundler relies on.
    #[test]
    fn own_scripts_follow_the_bundlers_conventions() {
        for name in
            StaticFiles::iter().filter(|name| name.ends_with(".js") && !name.starts_with("vendor/"))
        {
            let data = StaticFiles::get(&name).unwrap().data;
            for (index, line) in std::str::from_utf8(&data).unwrap().lines().enumerate() {
                let number = index + 1;
                if ["//", "*", "/*"]
                    .iter()
                    .any(|prefix| line.trim().starts_with(prefix))
                {
                    continue;
                }
                let code = line.split(" // ").next().unwrap();
                for quote in ['`', '\'', '"'] {
                    let open = |text: &str| text.matches(quote).count() % 2 == 1;
                    assert!(
                        !(open(code) && code != line),
                        "{name}:{number}: a string that contains what looks like a comment"
                    );
                    assert!(
                        quote != '`' || !open(line),
                        "{name}:{number}: a string over several lines"
                    );
                }
                let is_import = line.starts_with("import ");
                assert!(
                    !is_import || line.ends_with("';"),
                    "{name}:{number}: an import over several lines"
                );
            }
        }
    }

    #[test]
    fn chat_is_one_bundle_without_the_modules_it_shares() {
        let scripts = first_party_scripts();
        let chat = bundle(CHAT_ENTRY, &scripts);
        for part in [
            "class Session",
            "class Transcript{",
            "class Outbox",
            "class TranscriptView",
            "export function mount",
        ] {
            assert_eq!(chat.matches(part).count(), 1, "{part}");
        }
        let imports: Vec<_> = chat
            .lines()
            .filter(|line| line.starts_with("import "))
            .collect();
        assert!(
            imports.len() == 2,
            "modules that are loaded later import these too, and they hold state: {imports:#?}"
        );
        assert!(
            imports
                .iter()
                .all(|line| line.ends_with("'./dom.js';") || line.ends_with("'./i18n.js';"))
        );
        // Duplicate top-level names are an error in the browser. Top-level code is not indented.
        let mut names = std::collections::BTreeSet::new();
        for part in bundle::module_order(CHAT_ENTRY, &scripts) {
            let data = StaticFiles::get(part).unwrap().data;
            for line in std::str::from_utf8(&data).unwrap().lines() {
                let line = line
                    .trim_start_matches("export ")
                    .trim_start_matches("async ");
                let Some((kind, rest)) = line.split_once(' ') else {
                    continue;
                };
                if ["const", "let", "class", "function"].contains(&kind) {
                    let name = rest
                        .split(|c: char| !c.is_alphanumeric() && c != '_')
                        .next()
                        .unwrap();
                    assert!(
                        names.insert(name.to_owned()),
                        "{part}: {name} is declared twice"
                    );
                }
            }
        }
        assert!(names.len() > 30);
    }

    #[test]
    fn gzip_is_used_if_accepted() {
        for (accepted, expected) in [
            ("gzip, deflate, br", true),
            ("br;q=1.0, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("br", false),
            ("", false),
        ] {
            assert_eq!(accepts_gzip(accepted), expected, "{accepted}");
        }
    }
}
