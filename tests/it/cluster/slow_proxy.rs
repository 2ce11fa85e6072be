//! The line between an instance and its Redis: a TCP proxy that can be cut, and that can be slow.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

/// How the line is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum State {
    /// All passes.
    Whole,
    /// Nothing passes, and connections are cut.
    Cut,
    /// All passes after this long.
    Slow(Duration),
}

/// A line to a Redis.
pub struct Line {
    port: u16,
    state: Arc<watch::Sender<State>>,
}

impl Line {
    /// A whole line to the Redis behind this socket.
    pub async fn to(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(watch::Sender::new(State::Whole));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (state, socket) = (shared.subscribe(), socket.clone());
                if *state.borrow() != State::Cut {
                    // Either side may leave.
                    tokio::spawn(async move { drop(carry(client, socket, state).await) });
                }
            }
        });
        Self { port, state }
    }

    /// The URL of the Redis at its end.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// From now on it is so.
    pub fn now(&self, state: State) {
        self.state.send_replace(state);
    }
}

async fn carry(
    client: TcpStream,
    socket: PathBuf,
    mut state: watch::Receiver<State>,
) -> std::io::Result<()> {
    let server = UnixStream::connect(socket).await?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (up, down) = (state.clone(), state.clone());
    tokio::select! {
        passed = pass(from_client, to_server, up) => passed,
        passed = pass(from_server, to_client, down) => passed,
        _ = state.wait_for(|state| *state == State::Cut) => Ok(()),
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    state: watch::Receiver<State>,
) -> std::io::Result<()> {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut bytes).await?;
        if read == 0 {
            return Ok(());
        }
        let state = *state.borrow();
        if let State::Slow(delay) = state {
            tokio::time::sleep(delay).await;
        }
        to.write_all(&bytes[..read]).await?;
    }
}
