//! A TCP proxy between browser and service which tests cut, freeze or hold back.

use std::io;
use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The proxy. Its connections can be cut or frozen, and new ones refused.
pub struct BrowserProxy {
    port: u16,
    state: watch::Sender<ProxyState>,
}

/// Connections are numbered from 1 in the order in which they open.
#[derive(Clone, Copy)]
struct ProxyState {
    target_port: u16,
    is_refusing: bool,
    opened: u64,
    /// Connections up to this number are cut.
    cut_up_to: u64,
    /// Connections up to this number transfer nothing more, in either direction.
    frozen_up_to: u64,
    /// The service's data is held back on all connections, while the browser's data passes.
    holds_responses: bool,
    /// All connections are cut after this many more bytes from the service.
    bytes_until_cut: Option<usize>,
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    ToService,
    ToBrowser,
}

impl ProxyState {
    fn holds(&self, number: u64, direction: Direction) -> bool {
        number <= self.frozen_up_to || (self.holds_responses && direction == Direction::ToBrowser)
    }
}

impl BrowserProxy {
    /// Starts a proxy in front of the service at this port.
    pub async fn in_front_of(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let proxy_port = listener.local_addr().unwrap().port();
        let state = ProxyState {
            target_port: port,
            is_refusing: false,
            opened: 0,
            cut_up_to: 0,
            frozen_up_to: 0,
            holds_responses: false,
            bytes_until_cut: None,
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
    pub fn set_target(&self, port: u16) {
        self.state.send_modify(|state| state.target_port = port);
    }

    /// Resets every connection after this many more bytes from the service, at whatever position in
    /// a frame that is. New connections are accepted.
    pub fn cut_after(&self, bytes: usize) {
        self.state
            .send_modify(|state| state.bytes_until_cut = Some(bytes));
    }

    /// Resets every connection and refuses new ones until [`Self::restore`].
    pub fn sever(&self) {
        self.state.send_modify(|state| {
            state.is_refusing = true;
            state.cut_all();
        });
    }

    /// Accepts connections again and releases held data. Frozen connections stay frozen.
    pub fn restore(&self) {
        self.state.send_modify(|state| {
            state.is_refusing = false;
            state.holds_responses = false;
        });
    }

    /// Existing connections stay open but transfer nothing more, as after a silent network loss.
    pub fn freeze(&self) {
        self.state
            .send_modify(|state| state.frozen_up_to = state.opened);
    }

    /// Forwards the browser's data but holds the service's data back, until [`Self::restore`].
    pub fn hold_responses(&self) {
        self.state.send_modify(|state| state.holds_responses = true);
    }
}

impl ProxyState {
    fn cut_all(&mut self) {
        self.cut_up_to = self.opened;
        self.bytes_until_cut = None;
    }
}

async fn accept(listener: TcpListener, state: watch::Sender<ProxyState>) {
    while let Ok((browser, _)) = listener.accept().await {
        let ProxyState {
            target_port: to,
            is_refusing: refusing,
            ..
        } = *state.borrow();
        if refusing {
            reset_on_close(&browser);
            continue;
        }
        state.send_modify(|state| state.opened += 1);
        let number = state.borrow().opened;
        tokio::spawn(forward(browser, to, number, state.clone()));
    }
}

async fn forward(browser: TcpStream, to: u16, number: u64, state: watch::Sender<ProxyState>) {
    let Ok(service) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await else {
        return reset_on_close(&browser);
    };
    let (from_browser, to_browser) = browser.into_split();
    let (from_service, to_service) = service.into_split();
    let mut cut = state.subscribe();
    let up = forward_one_way(
        from_browser,
        to_service,
        number,
        Direction::ToService,
        state.clone(),
    );
    let down = forward_one_way(
        from_service,
        to_browser,
        number,
        Direction::ToBrowser,
        state,
    );
    tokio::select! {
        _ = async { tokio::join!(up, down) } => {}
        _ = cut.wait_for(|state| state.cut_up_to >= number) => {}
    }
}

/// Forwards one direction to its end and then closes the destination. Resets it after a cut.
async fn forward_one_way(
    mut from: OwnedReadHalf,
    to: OwnedWriteHalf,
    number: u64,
    direction: Direction,
    state: watch::Sender<ProxyState>,
) -> io::Result<()> {
    let mut to = ResetOnCut {
        writer: to,
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
            return to.writer.shutdown().await;
        }
        let left = state
            .borrow()
            .bytes_until_cut
            .filter(|left| direction == Direction::ToBrowser && *left <= read);
        to.writer.write_all(&bytes[..left.unwrap_or(read)]).await?;
        state.send_if_modified(|state| {
            match &mut state.bytes_until_cut {
                Some(_) if left.is_some() => state.cut_all(),
                Some(left) if direction == Direction::ToBrowser => *left -= read,
                _ => return false,
            }
            true
        });
    }
}

/// The writing half of a connection. The connection is reset if this is dropped after a cut.
struct ResetOnCut {
    writer: OwnedWriteHalf,
    number: u64,
    state: watch::Sender<ProxyState>,
}

impl Drop for ResetOnCut {
    fn drop(&mut self) {
        if self.state.borrow().cut_up_to >= self.number {
            reset_on_close(self.writer.as_ref());
        }
    }
}

/// Makes the connection end with a reset when it is closed.
fn reset_on_close(connection: &TcpStream) {
    let _ = connection.set_zero_linger();
}
