//! A client and real servers' programs inside hosts, and how the client's requests ended.
//!
//! Owns sockets of other namespaces; knows nothing of directors. Used by `system` and `examples`.
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Host, wait_for};

/// One request, from its SYN to its answer.
const REQUEST: Duration = Duration::from_secs(1);
/// How long a client may go without an answer: the longest takeover, on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A real server's program: answers everything it is sent with its name.
pub struct Server(TcpListener);

impl Server {
    pub fn new(host: &Host) -> Self {
        Self::on(host, 80)
    }

    pub fn on(host: &Host, port: u16) -> Self {
        let name = host.name().to_owned();
        let listener = host.inside(move || TcpListener::bind(("::", port)).unwrap()).join().unwrap();
        let accepting = listener.try_clone().unwrap();
        thread::spawn(move || {
            while let Ok((mut stream, _)) = accepting.accept() {
                let name = name.clone();
                thread::spawn(move || {
                    let _ = stream.set_read_timeout(Some(PATIENCE));
                    let mut bytes = [0; 256];
                    while matches!(stream.read(&mut bytes), Ok(1..))
                        && stream.write_all(name.as_bytes()).is_ok()
                    {}
                });
            }
        });
        Self(listener)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = nix::sys::socket::shutdown(self.0.as_raw_fd(), nix::sys::socket::Shutdown::Both);
    }
}

/// Sends something on an open connection; gives the real server's name.
pub fn exchange(stream: &mut TcpStream) -> std::io::Result<String> {
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut bytes = [0; 64];
    match stream.read(&mut bytes)? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        length => Ok(String::from_utf8_lossy(&bytes[..length]).into_owned()),
    }
}

pub fn connect(vip: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&vip, REQUEST)?;
    stream.set_read_timeout(Some(REQUEST))?;
    Ok(stream)
}

pub fn request(vip: SocketAddr) -> std::io::Result<String> {
    let mut stream = connect(vip)?;
    let name = exchange(&mut stream)?;
    stream.shutdown(Shutdown::Both)?;
    Ok(name)
}

/// How requests ended: by the answering server's name, or by what went wrong.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub ends: BTreeMap<String, usize>,
    answered: Option<Instant>,
    gap: Duration,
}

impl Tally {
    pub fn count(&mut self, result: std::io::Result<String>) {
        let end = match result {
            Ok(name) => {
                let now = Instant::now();
                self.gap = self.gap.max(self.answered.map_or(Duration::ZERO, |last| now - last));
                self.answered = Some(now);
                name
            }
            Err(error) => match error.kind() {
                ErrorKind::ConnectionRefused => "refused".to_owned(),
                // Not connected: reset after the answer, found when the client hangs up.
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::NotConnected => {
                    "reset".to_owned()
                }
                ErrorKind::WouldBlock | ErrorKind::TimedOut => "timed out".to_owned(),
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "unreachable".to_owned(),
                _ => format!("failed: {error}"),
            },
        };
        *self.ends.entry(end).or_default() += 1;
    }

    pub fn of(&self, end: &str) -> usize {
        self.ends.get(end).copied().unwrap_or_default()
    }

    pub fn sent(&self) -> usize {
        self.ends.values().sum()
    }

    pub fn ok(&self) -> usize {
        ["rs1", "rs2", "lb1", "lb2"].iter().map(|name| self.of(name)).sum()
    }

    pub fn figures(&self) -> String {
        format!(
            "{} sent, {} ok, {} refused, {} reset, {} timed out, longest gap {} ms {:?}",
            self.sent(),
            self.ok(),
            self.of("refused"),
            self.of("reset"),
            self.of("timed out"),
            self.gap.as_millis(),
            self.ends
        )
    }
}

/// The client, asking all the time, each time on a new connection.
pub struct Load {
    tally: Arc<Mutex<Tally>>,
    end: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Load {
    pub fn new(client: &Host, vip: SocketAddr) -> Self {
        let (tally, end) = (Arc::new(Mutex::new(Tally::default())), Arc::new(AtomicBool::new(false)));
        let (tally_, end_) = (Arc::clone(&tally), Arc::clone(&end));
        let thread = client.inside(move || {
            while !end_.load(Ordering::Relaxed) {
                let result = request(vip);
                tally_.lock().unwrap().count(result);
                thread::sleep(Duration::from_millis(20)); // the pace of the client, not a wait
            }
        });
        Self { tally, end, thread }
    }

    /// Waits until so many more requests were answered.
    pub fn served(&self, more: usize) {
        let before = self.tally.lock().unwrap().ok();
        wait_for("the client is served", PATIENCE, || self.tally.lock().unwrap().ok() >= before + more);
    }

    pub fn end(self) -> Tally {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.tally.lock().unwrap().clone()
    }
}
