//! The line between a browser and the service, to be cut and frozen by a test.

use std::io;
use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A port that leads to the service. Each of its connections can be cut or frozen, and new ones refused.
pub struct Line {
    port: u16,
    state: watch::Sender<State>,
}

/// Connections are numbered from 1 as they come.
#[derive(Clone, Copy)]
struct State {
    to: u16,
    refusing: bool,
    opened: u64,
    /// Those up to this number are cut.
    cut: u64,
    /// Those up to this number carry nothing more, in either direction.
    frozen: u64,
    /// Whether the service's words are held back on all of them, while the browser's pass.
    deaf: bool,
    /// All are cut when the service has said so many bytes more.
    bytes_left: Option<usize>,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    ToService,
    ToBrowser,
}

impl State {
    fn holds(&self, number: u64, way: Way) -> bool {
        number <= self.frozen || (self.deaf && way == Way::ToBrowser)
    }
}

impl Line {
    /// A line to the service at this port.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let own = listener.local_addr().unwrap().port();
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
        Self { port: own, state }
    }

    /// The service's address over this line.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// Leads to another port from now on.
    pub fn lead_to(&self, port: u16) {
        self.state.send_modify(|state| state.to = port);
    }

    /// Cuts every connection, as a reset, when the service has said so many bytes more, wherever that is in what it says. New ones
    /// pass.
    pub fn cut_after(&self, bytes: usize) {
        self.state
            .send_modify(|state| state.bytes_left = Some(bytes));
    }

    /// Cuts every connection and lets none through until [`Self::restore`].
    pub fn sever(&self) {
        self.state.send_modify(|state| {
            state.refusing = true;
            state.cut();
        });
    }

    /// Lets connections through again, and all that is said on them. What was frozen stays so.
    pub fn restore(&self) {
        self.state
            .send_modify(|state| (state.refusing, state.deaf) = (false, false));
    }

    /// The connections there are carry nothing more and stay open, as when a network is gone without a word.
    pub fn freeze(&self) {
        self.state.send_modify(|state| state.frozen = state.opened);
    }

    /// The browser is heard and hears nothing, until [`Self::restore`].
    pub fn deafen(&self) {
        self.state.send_modify(|state| state.deaf = true);
    }
}

impl State {
    fn cut(&mut self) {
        (self.cut, self.bytes_left) = (self.opened, None);
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
    let ((from_browser, to_browser), (from_service, to_service)) =
        (browser.into_split(), service.into_split());
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

/// Carries one direction to its end, and closes what it led to; resets it when cut.
async fn pump(
    mut from: OwnedReadHalf,
    to: OwnedWriteHalf,
    number: u64,
    way: Way,
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
        // Only the loss of the state's last sender is an error, and one is held here.
        let _ = changes.wait_for(|state| !state.holds(number, way)).await;
        if read == 0 {
            return to.to.shutdown().await;
        }
        let left = state
            .borrow()
            .bytes_left
            .filter(|left| way == Way::ToBrowser && *left <= read);
        to.to.write_all(&bytes[..left.unwrap_or(read)]).await?;
        state.send_if_modified(|state| {
            match &mut state.bytes_left {
                Some(_) if left.is_some() => state.cut(),
                Some(left) if way == Way::ToBrowser => *left -= read,
                _ => return false,
            }
            true
        });
    }
}

/// One end of a connection, which is reset if it is dropped after a cut.
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

/// When this connection is closed, it is so by a reset.
fn reset(connection: &TcpStream) {
    let _ = connection.set_zero_linger();
}
