//! The files that pages and the widget are made of: in the binary, validated by their hash, packed once.
//!
//! Our own scripts are served without their comments and indentation, which are for who reads the source; every line keeps its number.
//! Other people's files go out as they were published.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{LazyLock, Mutex, PoisonError};

use actix_web::http::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG,
    HeaderName, IF_NONE_MATCH, VARY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use rust_embed::RustEmbed;
use sha2::{Digest as _, Sha256};

use super::refusal::not_found;

static CORP: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The browser side's files, in the binary.
#[derive(RustEmbed)]
#[folder = "static/"]
struct Files;

/// A file as it is served.
#[derive(Clone)]
struct Asset {
    tag: String,
    plain: Bytes,
    packed: Bytes,
}

/// Those that were asked for.
static SERVED: LazyLock<Mutex<HashMap<String, Asset>>> = LazyLock::new(Mutex::default);

/// `GET /static/…`: one file.
pub async fn file(request: HttpRequest, name: web::Path<String>) -> HttpResponse {
    serve(&request, &name).await
}

/// `GET /widget.js`: what a site embeds.
pub async fn widget(request: HttpRequest) -> HttpResponse {
    serve(&request, "widget.js").await
}

async fn serve(request: &HttpRequest, name: &str) -> HttpResponse {
    let Some(Asset { tag, plain, packed }) = asset(name) else {
        return not_found().await;
    };
    let told = |header| request.headers().get(header).and_then(|value| value.to_str().ok());
    let known = |tags: &str| tags.split(',').any(|one| one.trim().trim_start_matches("W/") == tag);
    let fresh = told(IF_NONE_MATCH).is_some_and(known);
    let mut answer = if fresh { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    answer
        .insert_header((ETAG, tag.as_str()))
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((VARY, "accept-encoding"))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((ACCESS_CONTROL_ALLOW_ORIGIN, "*"))
        .insert_header((CORP.clone(), "cross-origin"));
    if fresh {
        return answer.finish();
    }
    answer.insert_header((CONTENT_TYPE, kind(name)));
    if told(ACCEPT_ENCODING).is_some_and(takes_gzip) {
        return answer.insert_header((CONTENT_ENCODING, "gzip")).body(packed);
    }
    answer.body(plain)
}

/// Whether an `Accept-Encoding` takes gzip: named, and not with a weight of zero.
fn takes_gzip(accepted: &str) -> bool {
    accepted.split(',').any(|one| {
        let (coding, weight) = one.split_once(';').unwrap_or((one, ""));
        let none = weight.trim().strip_prefix("q=").and_then(|q| q.parse::<f32>().ok()) == Some(0.0);
        coding.trim().eq_ignore_ascii_case("gzip") && !none
    })
}

fn asset(name: &str) -> Option<Asset> {
    if let Some(asset) = SERVED.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
        return Some(asset.clone());
    }
    let data = Files::get(name)?.data;
    let own_script = name.ends_with(".js") && !name.starts_with("vendor/");
    let plain = match std::str::from_utf8(&data) {
        Ok(text) if own_script => Bytes::from(lean(text)),
        _ => Bytes::from(data.into_owned()),
    };
    let asset = Asset {
        tag: format!("\"{}\"", URL_SAFE_NO_PAD.encode(Sha256::digest(&plain))),
        packed: pack(&plain).unwrap_or_else(|_| plain.clone()),
        plain,
    };
    let mut served = SERVED.lock().unwrap_or_else(PoisonError::into_inner);
    Some(served.entry(name.to_owned()).or_insert(asset).clone())
}

fn pack(plain: &[u8]) -> std::io::Result<Bytes> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(plain)?;
    packer.finish().map(Bytes::from)
}

/// A script without what only its readers need. Lines of comment become empty ones; it knows those that begin a line, and our scripts have
/// no text over several lines in which one could be meant.
fn lean(script: &str) -> String {
    let mut lean = String::with_capacity(script.len());
    let mut comment = false;
    for line in script.lines().map(str::trim) {
        comment |= line.starts_with("/*");
        if !comment && !line.starts_with("//") {
            lean.push_str(line);
        }
        lean.push('\n');
        comment &= !line.ends_with("*/");
    }
    lean
}

fn kind(name: &str) -> &'static str {
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

    #[test]
    fn comments_go_and_lines_keep_their_number() {
        let script = "// About this.\n/** One. */\nlet a = 1; // kept\n\n/**\n * Two.\n */\n  f('http://x');\n/* three\n */\n";
        assert_eq!(lean(script), "\n\nlet a = 1; // kept\n\n\n\n\nf('http://x');\n\n\n");
    }

    #[test]
    fn no_script_of_ours_has_text_over_several_lines() {
        for name in Files::iter().filter(|name| name.ends_with(".js") && !name.starts_with("vendor/")) {
            let data = Files::get(&name).unwrap().data;
            for (at, line) in std::str::from_utf8(&data).unwrap().lines().enumerate() {
                let comment = ["//", "*", "/*"].iter().any(|sign| line.trim().starts_with(sign));
                let even = line.matches('`').count() % 2 == 0;
                assert!(comment || even, "{name}:{}: a text that goes on in the next line", at + 1);
            }
        }
    }

    #[test]
    fn gzip_is_for_who_takes_it() {
        for (accepted, takes) in [
            ("gzip, deflate, br", true),
            ("br;q=1.0, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("br", false),
            ("", false),
        ] {
            assert_eq!(takes_gzip(accepted), takes, "{accepted}");
        }
    }
}
