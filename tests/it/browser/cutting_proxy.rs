//! A TCP proxy between browser and service which tests cut, freeze or hold back.

use std::io;
use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The proxy. Its connections can be cut or frozen, and new ones refused.
pub struct Line {
    port: u16,
    state: watch::Sender<State>,
}

/// Connections are numbered from 1 in the order in which they open.
#[derive(Clone, Copy)]
struct State {
    to: u16,
    refusing: bool,
    opened: u64,
    /// Connections up to this number are cut.
    cut: u64,
    /// Connections up to this number transfer nothing more, in either direction.
    frozen: u64,
    /// The service's data is held back on all connections, while the browser's data passes.
    deaf: bool,
    /// All connections are cut after this many more bytes from the service.
    bytes_left: Option<usize>,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    ToService,
    ToBrowser,
}

impl State {
    fn holds(&self, number: u64, direction: Way) -> bool {
        number <= self.frozen || (self.deaf && direction == Way::ToBrowser)
    }
}

impl Line {
    /// Starts a proxy in front of the service at this port.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let proxy_port = listener.local_addr().unwrap().port();
        let state = State {
            to: port,
            refusing: false,
            opened: 0,
            cut: 0,
            frozen: 0,
            deaf: false,
            bytes_left: None,
        };
        let (state, _) = watch::channel(state);
        tokio::spawn(accept(listener, state.clone()));
        Self {
            port: proxy_port,
            state,
        }
    }

    /// Returns the URL of the service through this proxy.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// Forwards new connections to another port.
    pub fn lead_to(&self, port: u16) {
        self.state.send_modify(|state| state.to = port);
    }

    /// Resets every connection after this many more bytes from the service, at whatever position in
    /// a frame that is. New connections are accepted.
    pub fn cut_after(&self, bytes: usize) {
        self.state
            .send_modify(|state| state.bytes_left = Some(bytes));
    }

    /// Resets every connection and refuses new ones until [`Self::restore`].
    pub fn sever(&self) {
        self.state.send_modify(|state| {
            state.refusing = true;
            state.cut_all();
        });
    }

    /// Accepts connections again and releases held data. Frozen connections stay frozen.
    pub fn restore(&self) {
        self.state.send_modify(|state| {
            state.refusing = false;
            state.deaf = false;
        });
    }

    /// Existing connections stay open but transfer nothing more, as after a silent network loss.
    pub fn freeze(&self) {
        self.state.send_modify(|state| state.frozen = state.opened);
    }

    /// Forwards the browser's data but holds the service's data back, until [`Self::restore`].
    pub fn deafen(&self) {
        self.state.send_modify(|state| state.deaf = true);
    }
}

impl State {
    fn cut_all(&mut self) {
        self.cut = self.opened;
        self.bytes_left = None;
    }
}

async fn accept(listener: TcpListener, state: watch::Sender<State>) {
    while let Ok((browser, _)) = listener.accept().await {
        let State { to, refusing, .. } = *state.borrow();
        if refusing {
            reset(&browser);
            continue;
        }
        state.send_modify(|state| state.opened += 1);
        let number = state.borrow().opened;
        tokio::spawn(carry(browser, to, number, state.clone()));
    }
}

async fn carry(browser: TcpStream, to: u16, number: u64, state: watch::Sender<State>) {
    let Ok(service) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await else {
        return reset(&browser);
    };
    let (from_browser, to_browser) = browser.into_split();
    let (from_service, to_service) = service.into_split();
    let mut cut = state.subscribe();
    let up = pump(
        from_browser,
        to_service,
        number,
        Way::ToService,
        state.clone(),
    );
    let down = pump(from_service, to_browser, number, Way::ToBrowser, state);
    tokio::select! {
        _ = async { tokio::join!(up, down) } => {}
        _ = cut.wait_for(|state| state.cut >= number) => {}
    }
}

/// Forwards one direction to its end and then closes the destination. Resets it after a cut.
async fn pump(
    mut from: OwnedReadHalf,
    to: OwnedWriteHalf,
    number: u64,
    direction: Way,
    state: watch::Sender<State>,
) -> io::Result<()> {
    let mut to = Cutting {
        to,
        number,
        state: state.clone(),
    };
    let mut changes = state.subscribe();
    let mut bytes = [0; 4096];
    loop {
        let read = from.read(&mut bytes).await?;
        // Fails only if all senders of the state are gone, and `state` is one.
        let _ = changes
            .wait_for(|state| !state.holds(number, direction))
            .await;
        if read == 0 {
            return to.to.shutdown().await;
        }
        let left = state
            .borrow()
            .bytes_left
            .filter(|left| direction == Way::ToBrowser && *left <= read);
        to.to.write_all(&bytes[..left.unwrap_or(read)]).await?;
        state.send_if_modified(|state| {
            match &mut state.bytes_left {
                Some(_) if left.is_some() => state.cut_all(),
                Some(left) if direction == Way::ToBrowser => *left -= read,
                _ => return false,
            }
            true
        });
    }
}

/// The writing half of a connection. The connection is reset if this is dropped after a cut.
struct Cutting {
    to: OwnedWriteHalf,
    number: u64,
    state: watch::Sender<State>,
}

impl Drop for Cutting {
    fn drop(&mut self) {
        if self.state.borrow().cut >= self.number {
            reset(self.to.as_ref());
        }
    }
}

/// Makes the connection end with a reset when it is closed.
fn reset(connection: &TcpStream) {
    let _ = connection.set_zero_linger();
}
