//! A third-party site which embeds the widget: a server with its own origin, policy and styles.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The site. Pages can be added while it runs. It stops with the test's runtime.
pub struct HostSite {
    port: u16,
    pages: Arc<Mutex<HashMap<String, HostPage>>>,
}

#[derive(Clone)]
struct HostPage {
    content_security_policy: String,
    html: String,
}

impl HostSite {
    /// Starts a site without pages.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let pages: Arc<Mutex<HashMap<String, HostPage>>> = Arc::default();
        let shared = Arc::clone(&pages);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve_page(stream, Arc::clone(&shared)));
            }
        });
        Self { port, pages }
    }

    pub fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns a service configuration which allows this site's origin.
    pub fn allowing_config(&self) -> String {
        format!("[server]\nallowed_origins = [\"{}\"]\n", self.origin())
    }

    /// Adds a page, with this `Content-Security-Policy` unless empty, and returns its URL.
    pub fn add_page(&self, path: &str, policy: &str, html: &str) -> String {
        let page = HostPage {
            content_security_policy: policy.to_owned(),
            html: html.to_owned(),
        };
        self.pages.lock().unwrap().insert(path.to_owned(), page);
        format!("{}{path}", self.origin())
    }

    /// Adds a page with these lines in its head and a button of its own.
    pub fn add_plain_page(&self, path: &str, policy: &str, head: &str) -> String {
        let html = format!(
            "<!doctype html><html lang=\"en\"><head><title>A site</title>{head}</head><body><main><h1>A site</h1>\
             <p>Its own words.</p><button id=\"own\">Its own button</button></main></body></html>"
        );
        self.add_page(path, policy, &html)
    }
}

async fn serve_page(mut stream: TcpStream, pages: Arc<Mutex<HashMap<String, HostPage>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let page = pages.lock().unwrap().get(path).cloned();
    let response = match page {
        Some(HostPage {
            content_security_policy: policy,
            html,
        }) => {
            let policy = if policy.is_empty() {
                policy
            } else {
                format!("Content-Security-Policy: {policy}\r\n")
            };
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n{policy}Content-Length: {}\r\nConnection: close\r\n\r\n{html}",
                html.len()
            )
        }
        None => "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".to_owned(),
    };
    // The browser may have left.
    let _ = stream.write_all(response.as_bytes()).await;
    let _ = stream.shutdown().await;
}
