//! A site of somebody else's, on which the widget is put: a server with an origin of its own, its own policy, its own looks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The site. Its pages may be changed while it runs; it ends with the test's runtime.
pub struct Host {
    port: u16,
    pages: Arc<Mutex<HashMap<String, Page>>>,
}

#[derive(Clone)]
struct Page {
    policy: String,
    html: String,
}

impl Host {
    /// A site without pages.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let pages: Arc<Mutex<HashMap<String, Page>>> = Arc::default();
        let known = Arc::clone(&pages);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&known)));
            }
        });
        Self { port, pages }
    }

    /// Its origin, as a browser writes it.
    pub fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A configuration that allows this site.
    pub fn allowed(&self) -> String {
        format!("[server]\nallowed_origins = [\"{}\"]\n", self.origin())
    }

    /// Puts a page there, with this `Content-Security-Policy` where it is not empty, and gives its address.
    pub fn page(&self, path: &str, policy: &str, html: &str) -> String {
        let page = Page {
            policy: policy.to_owned(),
            html: html.to_owned(),
        };
        self.pages.lock().unwrap().insert(path.to_owned(), page);
        format!("{}{path}", self.origin())
    }

    /// Puts a page there that has these lines in its head and a button of its own.
    pub fn plain(&self, path: &str, policy: &str, head: &str) -> String {
        let html = format!(
            "<!doctype html><html lang=\"en\"><head><title>A site</title>{head}</head><body><main><h1>A site</h1>\
             <p>Its own words.</p><button id=\"own\">Its own button</button></main></body></html>"
        );
        self.page(path, policy, &html)
    }
}

async fn answer(mut stream: TcpStream, pages: Arc<Mutex<HashMap<String, Page>>>) {
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
    let told = match page {
        Some(Page { policy, html }) => {
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
    // A browser that left needs no answer.
    let _ = stream.write_all(told.as_bytes()).await;
    let _ = stream.shutdown().await;
}
