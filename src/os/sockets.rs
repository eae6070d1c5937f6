//! Listening sockets. They are bound here, not by Pingora, so that they can go to another process; and a port can be
//! closed and opened again while its connections live on.

use std::{
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixListener,
    },
    sync::{Arc, atomic::AtomicUsize},
};

use anyhow::Context;
use tokio::sync::watch;

/// Connections that may wait to be accepted, as many as Linux allows by default (`net.core.somaxconn`). The standard
/// library has 128: of a burst of more the kernel drops SYNs, which clients repeat only after a second.
const BACKLOG: i32 = 4096;

/// A socket that listens, by the address it has in the configuration.
#[derive(Debug, Clone)]
pub struct Socket {
    pub address: Arc<str>,
    pub fd: Arc<OwnedFd>,
}

impl Socket {
    /// # Errors
    /// The address is taken, or none.
    pub fn bind(name: &str, address: SocketAddr) -> anyhow::Result<Self> {
        anyhow::ensure!(
            address.port() != 0,
            "{name}.listen: port 0 is not allowed: choose a fixed port"
        );
        let socket = TcpListener::bind(address).map_err(|error| {
            let what = match error.kind() {
                std::io::ErrorKind::AddrInUse => {
                    "is in use: end what uses it or choose another".to_owned()
                }
                std::io::ErrorKind::PermissionDenied => {
                    "needs rights that this user does not have: choose a port from 1024 on, or give the program \
                     CAP_NET_BIND_SERVICE"
                        .to_owned()
                }
                std::io::ErrorKind::AddrNotAvailable => "is no address of this machine".to_owned(),
                _ => format!("can't be opened: {error}"),
            };
            anyhow::anyhow!("{name}.listen: {address} {what}")
        })?;
        socket.set_nonblocking(true)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(Self::of(address.to_string().into(), socket.into()))
    }

    /// A Unix socket at this path.
    ///
    /// # Errors
    /// It can't be made.
    pub fn bind_path(path: String) -> anyhow::Result<Self> {
        let _ = std::fs::remove_file(&path);
        let socket = UnixListener::bind(&path).with_context(|| path.clone())?;
        socket.set_nonblocking(true)?;
        Ok(Self::of(path.into(), socket.into()))
    }

    pub fn of(address: Arc<str>, fd: OwnedFd) -> Self {
        Self { address, fd: Arc::new(fd) }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether ports accept connections. At each change the open connections are told to close: HTTP/1.1 by
/// `connection: close` on their next answer, HTTP/2 by GOAWAY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptState {
    /// With how often they were opened.
    Open(u64),
    Closed,
}

/// The ports, and their common state.
pub struct Listeners {
    pub accepting: watch::Sender<AcceptState>,
    /// Ports that take connections.
    pub open: Arc<AtomicUsize>,
}

impl Default for Listeners {
    fn default() -> Self {
        Self { accepting: watch::Sender::new(AcceptState::Open(0)), open: Arc::default() }
    }
}

impl Listeners {
    pub fn close(&self) {
        self.accepting.send_replace(AcceptState::Closed);
    }

    /// Opens them, or has the connections of before leave.
    pub fn reopen(&self) {
        self.accepting.send_modify(|accepting| {
            *accepting = match *accepting {
                AcceptState::Open(times) => AcceptState::Open(times + 1),
                AcceptState::Closed => AcceptState::Open(0),
            }
        });
    }
}
