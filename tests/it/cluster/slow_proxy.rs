//! A TCP proxy between an instance and its Redis, which can be cut or slowed down.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ProxyState {
    /// Passes everything on.
    Open,
    /// Closes all connections, and accepts no new ones.
    Cut,
    /// Passes everything on after this delay.
    Slow(Duration),
}

pub struct RedisProxy {
    port: u16,
    state: Arc<watch::Sender<ProxyState>>,
}

impl RedisProxy {
    /// Starts a proxy to the Redis behind this Unix socket.
    pub async fn start(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(watch::Sender::new(ProxyState::Open));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = shared.subscribe();
                let socket = socket.clone();
                if *state.borrow() != ProxyState::Cut {
                    // Either side may close the connection.
                    tokio::spawn(async move { drop(forward(client, socket, state).await) });
                }
            }
        });
        Self { port, state }
    }

    /// The URL that reaches Redis through the proxy.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Changes the state, also of open connections.
    pub fn set_state(&self, state: ProxyState) {
        self.state.send_replace(state);
    }
}

async fn forward(
    client: TcpStream,
    socket: PathBuf,
    mut state: watch::Receiver<ProxyState>,
) -> std::io::Result<()> {
    let server = UnixStream::connect(socket).await?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let up = state.clone();
    let down = state.clone();
    tokio::select! {
        result = copy(from_client, to_server, up) => result,
        result = copy(from_server, to_client, down) => result,
        _ = state.wait_for(|state| *state == ProxyState::Cut) => Ok(()),
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    state: watch::Receiver<ProxyState>,
) -> std::io::Result<()> {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut bytes).await?;
        if read == 0 {
            return Ok(());
        }
        let state = *state.borrow();
        if let ProxyState::Slow(delay) = state {
            tokio::time::sleep(delay).await;
        }
        to.write_all(&bytes[..read]).await?;
    }
}
