//! The real dialects over sockets: their failures, and that no key leaks.

use super::*;
use crate::provider::dialect::{DialectKind, ModelConfig, new_dialect};

const KEY: &str = "canary-key-0123456789";

/// A fixture's bytes and their content type.
fn fixture(file: &str) -> (Vec<u8>, &'static str) {
    let path = format!("{}/tests/fixtures/{file}", env!("CARGO_MANIFEST_DIR"));
    let kind = match file.rsplit('.').next() {
        Some("sse") => SSE_KIND,
        Some("ndjson") => "application/x-ndjson",
        _ => JSON_MIME,
    };
    (std::fs::read(path).unwrap(), kind)
}

/// A client of this dialect for this server, with [`KEY`].
fn client_of(kind: DialectKind, server: &ScriptedServer) -> HttpProviderClient {
    let base_url = format!("http://{}", server.address);
    let dialect = new_dialect(
        kind,
        ModelConfig {
            base_url: base_url.clone(),
            name: "m".into(),
            key: Some(KEY.into()),
            ..ModelConfig::default()
        },
    );
    let transport = Transport::new(Duration::from_secs(5)).unwrap();
    HttpProviderClient::new(&base_url, dialect.into(), transport, no_drills())
}

/// The text without thinking, and how the answer ended.
fn text_and_end(
    steps: Vec<Result<StreamEvent, Failure>>,
) -> (String, Result<FinishReason, Failure>) {
    let end = match steps.last() {
        Some(Ok(StreamEvent::Finished(finish))) => Ok(*finish),
        Some(Err(failure)) => Err(failure.clone()),
        other => panic!("no end, but {other:?}"),
    };
    let texts = steps.into_iter().filter_map(|step| match step {
        Ok(StreamEvent::Text(text)) => Some(text),
        _ => None,
    });
    (texts.collect(), end)
}

#[tokio::test]
async fn failures_behind_a_success_status_are_detected() {
    use FaultKind::{
        Empty, Malformed, Misconfigured, Overloaded, QuotaSpent, RateLimited, ServerError,
        Truncated, Unauthorized,
    };
    for (kind, file, text, end) in [
        (
            DialectKind::OpenAi,
            "openai/whole.sse",
            "Hello, wörld 🌍!",
            Ok(FinishReason::Stop),
        ),
        (
            DialectKind::OpenAi,
            "openai/truncated.sse",
            "Hello, w",
            Err(Truncated),
        ),
        (
            DialectKind::OpenAi,
            "openai/error_object.sse",
            "Hello",
            Err(ServerError),
        ),
        (
            DialectKind::OpenAi,
            "openai/error_event.sse",
            "",
            Err(ServerError),
        ),
        (
            DialectKind::OpenAi,
            "openai/error_field.sse",
            "Hello",
            Err(ServerError),
        ),
        (
            DialectKind::OpenAi,
            "openai/error_after_finish.sse",
            "Hello",
            Err(ServerError),
        ),
        (DialectKind::OpenAi, "openai/no_text.sse", "", Err(Empty)),
        (
            DialectKind::OpenAi,
            "openai/rubbish.sse",
            "Hello",
            Err(Malformed),
        ),
        (
            DialectKind::OpenAi,
            "openai/error_200.json",
            "",
            Err(QuotaSpent),
        ),
        (
            DialectKind::OpenAi,
            "openai/whole.json",
            "Hello, world",
            Ok(FinishReason::Stop),
        ),
        (
            DialectKind::Anthropic,
            "anthropic/truncated.sse",
            "Hello, w",
            Err(Truncated),
        ),
        (
            DialectKind::Anthropic,
            "anthropic/overloaded.sse",
            "Hello",
            Err(Overloaded),
        ),
        (
            DialectKind::Anthropic,
            "anthropic/error_first.sse",
            "",
            Err(RateLimited),
        ),
        (
            DialectKind::Anthropic,
            "anthropic/thinking.sse",
            "Hello",
            Ok(FinishReason::Stop),
        ),
        (
            DialectKind::Gemini,
            "gemini/truncated.sse",
            "Hello",
            Err(Truncated),
        ),
        (
            DialectKind::Gemini,
            "gemini/raw_error_after_stop.sse",
            "Hel",
            Err(Overloaded),
        ),
        (
            DialectKind::Gemini,
            "gemini/raw_error_with_braces.sse",
            "Hel",
            Err(ServerError),
        ),
        (
            DialectKind::Gemini,
            "gemini/error_in_array.sse",
            "",
            Err(Overloaded),
        ),
        (
            DialectKind::Gemini,
            "gemini/error_200.json",
            "",
            Err(Unauthorized),
        ),
        (
            DialectKind::Gemini,
            "gemini/whole_array.json",
            "Hello, world",
            Ok(FinishReason::Stop),
        ),
        (
            DialectKind::Azure,
            "azure/late_annotations.sse",
            "Hello",
            Ok(FinishReason::Stop),
        ),
        (
            DialectKind::Azure,
            "azure/truncated.sse",
            "Hello",
            Err(Truncated),
        ),
        (
            DialectKind::Ollama,
            "ollama/whole.ndjson",
            "Hello, wörld",
            Ok(FinishReason::Stop),
        ),
        (
            DialectKind::Ollama,
            "ollama/truncated.ndjson",
            "Hello",
            Err(Truncated),
        ),
        (
            DialectKind::Ollama,
            "ollama/error_in_the_middle.ndjson",
            "Hel",
            Err(ServerError),
        ),
        (
            DialectKind::Ollama,
            "ollama/error_200.json",
            "",
            Err(Misconfigured),
        ),
    ] {
        let (body, content_type) = fixture(file);
        let head = ok_response(content_type, "");
        let mut server = ScriptedServer::start(&[&[head, ServerAction::Send(body)]]).await;
        let (received, ended) = text_and_end(collect_events(&client_of(kind, &server)).await);
        assert_eq!(
            (received.as_str(), ended.map_err(|failure| failure.fault)),
            (text, end),
            "{file}"
        );
        assert_eq!(server.requests().await.len(), 1, "{file}");
    }
}

#[tokio::test]
async fn provider_that_echoes_its_request_leaks_no_key() {
    for kind in [
        DialectKind::OpenAi,
        DialectKind::Anthropic,
        DialectKind::Gemini,
        DialectKind::Azure,
        DialectKind::Ollama,
    ] {
        for status in [400, 401, 429, 500] {
            let body = format!(
                r#"{{"error":{{"message":"POST / x-key: {KEY}, bearer {KEY}","code":"{KEY}"}}}}"#
            );
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status} {KEY}\r\nx-key: {KEY}\r\ncontent-length: {length}\r\n\r\n{body}"
            );
            let mut server = ScriptedServer::start(&[&[send(&answer)]]).await;
            let upstream = client_of(kind, &server);
            let failures = [
                outcome(collect_events(&upstream).await).1.unwrap_err(),
                upstream.list_models().await.unwrap_err(),
            ];
            for failure in failures {
                let printed = format!("{failure} {failure:?} {}", failure.log_safe());
                assert!(!printed.contains("canary"), "{kind:?} {status}: {printed}");
            }
            // The request has the key in one header and nowhere else.
            for request in server.requests().await {
                let (head, body) = request.split_once("\r\n\r\n").unwrap();
                assert_eq!(head.matches(KEY).count(), 1, "{head}");
                assert!(
                    !head.lines().next().unwrap().contains(KEY) && !body.contains(KEY),
                    "{head}"
                );
            }
        }
    }
}
