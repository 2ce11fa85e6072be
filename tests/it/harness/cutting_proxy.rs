//! A TCP proxy in front of the service which cuts connections on command.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The proxy. It stops with the test's runtime.
pub struct CuttingProxy {
    /// The loopback port on which the proxy listens.
    pub port: u16,
    /// The number of bytes from the service which still pass before the cut.
    bytes_until_cut: Arc<AtomicU64>,
}

const NO_CUT: u64 = u64::MAX;

impl CuttingProxy {
    /// Starts a proxy in front of this loopback port.
    pub async fn in_front_of(service: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let left = Arc::new(AtomicU64::new(NO_CUT));
        let shared = Arc::clone(&left);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", service)).await.unwrap();
                tokio::spawn(forward(client, server, Arc::clone(&shared)));
            }
        });
        Self {
            port,
            bytes_until_cut: left,
        }
    }

    /// Cuts the connection once, after this many more bytes from the service.
    pub fn cut_after(&self, bytes: u64) {
        self.bytes_until_cut.store(bytes, Ordering::SeqCst);
    }
}

/// Forwards bytes in both directions until one side closes or the cut is due. At a cut both sides
/// see a reset.
async fn forward(mut client: TcpStream, mut server: TcpStream, left: Arc<AtomicU64>) {
    let mut up = [0; 4096];
    let mut down = [0; 4096];
    loop {
        tokio::select! {
            read = client.read(&mut up) => match read {
                Ok(length @ 1..) if server.write_all(&up[..length]).await.is_ok() => {}
                _ => return,
            },
            read = server.read(&mut down) => {
                let Ok(length @ 1..) = read else { return };
                let remaining = left.load(Ordering::SeqCst);
                let passed = length.min(usize::try_from(remaining).unwrap());
                if client.write_all(&down[..passed]).await.is_err() {
                    return;
                }
                if remaining == NO_CUT {
                    continue;
                }
                left.store(remaining - u64::try_from(passed).unwrap(), Ordering::SeqCst);
                if passed < length || remaining == u64::try_from(passed).unwrap() {
                    left.store(NO_CUT, Ordering::SeqCst);
                    for stream in [&client, &server] {
                        socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
                    }
                    return;
                }
            }
        }
    }
}
