//! The baseline: a proxy made of the service's own libraries (actix-web, reqwest), on one worker,
//! which parses and rewrites each event. It has no features.

use std::io::Write as _;
use std::net::TcpListener;
use std::pin::pin;

use actix_web::error::ErrorBadGateway;
use actix_web::rt::net::TcpStream;
use actix_web::{App, HttpResponse, HttpServer, web};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream};
use serde_json::{Value, json};

struct Upstream {
    client: reqwest::Client,
    url: String,
}

/// Serves until standard input ends. Prints its port as the first line.
pub fn serve(provider: &str) -> anyhow::Result<()> {
    // The client needs a TLS provider even without TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = format!("{provider}/chat/completions");
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    std::io::stdout().flush()?;
    crate::process::end_with_input();
    actix_web::rt::System::new().block_on(async move {
        let server = HttpServer::new(move || {
            let client = reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("a client");
            let upstream = Upstream {
                client,
                url: url.clone(),
            };
            App::new()
                .app_data(web::Data::new(upstream))
                .route("/v1/chat/completions", web::post().to(forward))
                .route("/streamed/chat/completions", web::post().to(proxy_streamed))
        });
        let server = server
            .workers(1)
            .max_connections(20_000)
            .on_connect(|connection, _| {
                if let Some(stream) = connection.downcast_ref::<TcpStream>() {
                    let _ = stream.set_nodelay(true);
                }
            });
        server.listen(listener)?.run().await
    })?;
    Ok(())
}

async fn forward(
    request_body: Bytes,
    upstream: web::Data<Upstream>,
) -> actix_web::Result<HttpResponse> {
    let request_body: Value =
        serde_json::from_slice(&request_body).map_err(actix_web::error::ErrorBadRequest)?;
    let streamed = request_body
        .get("stream")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    let answer = upstream.ask(&request_body).await?;
    if !streamed {
        let whole: Value = serde_json::from_slice(&answer.bytes().await.map_err(ErrorBadGateway)?)
            .map_err(ErrorBadGateway)?;
        return Ok(HttpResponse::Ok().json(whole));
    }
    let events = events(answer).map(|event| event.map(|event| rewrite_event(&event)));
    Ok(HttpResponse::Ok()
        .insert_header(("content-type", "text/event-stream"))
        .streaming(events))
}

/// Requests a stream and returns a complete answer, as the service does.
async fn proxy_streamed(
    request_body: Bytes,
    upstream: web::Data<Upstream>,
) -> actix_web::Result<HttpResponse> {
    let mut request_body: Value =
        serde_json::from_slice(&request_body).map_err(actix_web::error::ErrorBadRequest)?;
    request_body["stream"] = json!(true);
    let mut events = pin!(events(upstream.ask(&request_body).await?));
    let mut text = String::new();
    while let Some(event) = events.next().await {
        let event = event.map_err(ErrorBadGateway)?;
        let value: Value = serde_json::from_slice(data(&event)).unwrap_or_default();
        text += value
            .pointer("/choices/0/delta/content")
            .and_then(Value::as_str)
            .unwrap_or_default();
    }
    let message = json!({"role": "assistant", "content": text});
    let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
    Ok(HttpResponse::Ok().json(json!({"object": "chat.completion", "choices": [choice]})))
}

impl Upstream {
    async fn ask(&self, request_body: &Value) -> actix_web::Result<reqwest::Response> {
        let request = self
            .client
            .post(&self.url)
            .header("content-type", "application/json");
        request
            .body(request_body.to_string())
            .send()
            .await
            .map_err(ErrorBadGateway)
    }
}

/// Splits a response into events, each with its terminator.
fn events(answer: reqwest::Response) -> impl Stream<Item = reqwest::Result<BytesMut>> {
    let mut buffer = BytesMut::new();
    answer.bytes_stream().flat_map(move |bytes| {
        let mut out = Vec::new();
        match bytes {
            Ok(bytes) => buffer.extend_from_slice(&bytes),
            Err(error) => out.push(Err(error)),
        }
        while let Some(at) = buffer.windows(2).position(|two| two == b"\n\n") {
            out.push(Ok(buffer.split_to(at + 2)));
        }
        stream::iter(out)
    })
}

fn data(event: &[u8]) -> &[u8] {
    event
        .strip_prefix(b"data: ")
        .unwrap_or(event)
        .trim_ascii_end()
}

/// Parses an event and writes it again.
fn rewrite_event(event: &[u8]) -> Bytes {
    match serde_json::from_slice::<Value>(data(event)) {
        Ok(value) => format!("data: {value}\n\n").into(),
        Err(_) => Bytes::copy_from_slice(event),
    }
}
