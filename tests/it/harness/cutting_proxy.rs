//! A TCP proxy before the service that cuts connections on command: a network that fails under a page.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The proxy. It ends with the test's runtime.
pub struct CutProxy {
    /// The port of loopback that it listens on.
    pub port: u16,
    /// How many more bytes of the service pass before the connection is cut.
    left: Arc<AtomicU64>,
}

/// No cut.
const ENDLESS: u64 = u64::MAX;

impl CutProxy {
    /// A proxy before this port of loopback.
    pub async fn before(service: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let left = Arc::new(AtomicU64::new(ENDLESS));
        let shared = Arc::clone(&left);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", service)).await.unwrap();
                tokio::spawn(carry(client, server, Arc::clone(&shared)));
            }
        });
        Self { port, left }
    }

    /// Cuts the connection after so many more bytes from the service, once.
    pub fn cut_after(&self, bytes: u64) {
        self.left.store(bytes, Ordering::SeqCst);
    }
}

/// Carries bytes both ways until one side ends, or the cut comes: then both see a reset.
async fn carry(mut client: TcpStream, mut server: TcpStream, left: Arc<AtomicU64>) {
    let (mut up, mut down) = ([0; 4096], [0; 4096]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => match read {
                Ok(length @ 1..) if server.write_all(&up[..length]).await.is_ok() => {}
                _ => return,
            },
            read = server.read(&mut down) => {
                let Ok(length @ 1..) = read else { return };
                let room = left.load(Ordering::SeqCst);
                let passed = length.min(usize::try_from(room).unwrap());
                if client.write_all(&down[..passed]).await.is_err() {
                    return;
                }
                if room == ENDLESS {
                    continue;
                }
                left.store(room - u64::try_from(passed).unwrap(), Ordering::SeqCst);
                if passed < length || room == u64::try_from(passed).unwrap() {
                    left.store(ENDLESS, Ordering::SeqCst);
                    for stream in [&client, &server] {
                        socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
                    }
                    return;
                }
            }
        }
    }
}
