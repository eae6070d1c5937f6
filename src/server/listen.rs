//! The listening sockets. They are bound here, not by Pingora, so that they can go to another process;
//! and a port can be closed and opened again while its connections live on.

use std::{
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use anyhow::Context;
use async_trait::async_trait;
use pingora_core::{
    apps::HttpServerApp,
    listeners::{ListenerConfig, tls::TlsSettings},
    protocols::l4::stream::L4BufferSettings,
    server::{ListenFds, ShutdownWatch},
    services::{Service as _, listening::Service},
};
use tokio::sync::watch;

use super::descriptors::Descriptors;
use crate::{certificate::Shown, proxy::deadline::Deadline};

/// Read buffer of an app's connection, in bytes. Pingora's own 64 KiB are allocated and zeroed for
/// each connection, which is most of what an open stream costs.
const READ_BUFFER: usize = 4 * 1024;
const WRITE_BUFFER: usize = 1460;

/// A socket that listens, by the address it has in the configuration.
#[derive(Debug, Clone)]
pub struct Socket {
    pub address: Arc<str>,
    fd: Arc<OwnedFd>,
}

impl Socket {
    /// # Errors
    /// The address is taken, or none.
    pub fn bind(name: &str, address: SocketAddr) -> anyhow::Result<Self> {
        anyhow::ensure!(
            address.port() != 0,
            "{name}.listen: port 0 is no address to be reached at"
        );
        let socket = TcpListener::bind(address).with_context(|| {
            format!("{name}.listen: {address} can't be had; end what uses it or choose another")
        })?;
        socket.set_nonblocking(true)?;
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

/// Whether ports take connections. Each time they are opened or closed anew, the connections of before
/// are told to leave: HTTP/1.1 by `connection: close` on their next answer, HTTP/2 by GOAWAY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doors {
    /// With how often they were opened.
    Open(u64),
    Closed,
}

/// Ports, and what is said to all of them.
pub struct Ports {
    doors: watch::Sender<Doors>,
    /// Ports that take connections.
    pub open: Arc<AtomicUsize>,
}

impl Default for Ports {
    fn default() -> Self {
        Self { doors: watch::Sender::new(Doors::Open(0)), open: Arc::default() }
    }
}

impl Ports {
    pub fn close(&self) {
        self.doors.send_replace(Doors::Closed);
    }

    /// Opens them, or has the connections of before leave.
    pub fn reopen(&self) {
        self.doors.send_modify(|doors| {
            *doors = match *doors {
                Doors::Open(times) => Doors::Open(times + 1),
                Doors::Closed => Doors::Open(0),
            }
        });
    }
}

/// One socket and the app behind it, as a service of Pingora's.
pub struct Port<A> {
    name: &'static str,
    threads: usize,
    socket: Socket,
    app: Deadline<A>,
    /// What apps are shown, on a port with TLS.
    tls: Option<Arc<Shown>>,
    doors: watch::Receiver<Doors>,
    open: Arc<AtomicUsize>,
    /// What holds up connections while there are too few file descriptors.
    descriptors: Option<Arc<Descriptors>>,
}

impl<A: HttpServerApp + Send + Sync + 'static> Port<A> {
    /// # Errors
    /// The certificate can't be used.
    pub fn new(
        name: &'static str,
        threads: usize,
        socket: Socket,
        app: Deadline<A>,
        tls: Option<Arc<Shown>>,
        ports: &Ports,
    ) -> anyhow::Result<Self> {
        let (doors, open) = (ports.doors.subscribe(), ports.open.clone());
        let port = Self { name, threads, socket, app, tls, doors, open, descriptors: None };
        port.listener()?;
        Ok(port)
    }

    /// Takes connections only while file descriptors are left for them.
    #[must_use]
    pub fn while_there_is_room(mut self, descriptors: Arc<Descriptors>) -> Self {
        self.descriptors = Some(descriptors);
        self
    }

    fn listener(&self) -> anyhow::Result<ListenerConfig> {
        let address = &*self.socket.address;
        let config = match address.starts_with('/') {
            true => ListenerConfig::uds(address),
            false => ListenerConfig::tcp(address),
        };
        let config = config.l4_buffer(L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER));
        let Some(tls) = &self.tls else { return Ok(config) };
        // Paths would be read once; what is shown here can be swapped.
        let mut acceptor = TlsSettings::intermediate("", "").context("server.tls")?;
        acceptor.set_cert_resolver(tls.clone());
        acceptor.enable_h2();
        Ok(config.tls(acceptor))
    }

    /// Takes connections until the doors change.
    async fn listen(&mut self, fds: &ListenFds) -> anyhow::Result<()> {
        let mut service = Service::new(self.name.into(), self.app.clone());
        service.add_listener(self.listener()?);
        if let Some(descriptors) = &self.descriptors {
            service.set_connection_filter(descriptors.clone());
        }
        // Pingora takes it and closes it when it stops to listen; this process keeps its own.
        let own = self.socket.fd.try_clone()?;
        fds.lock().add(self.socket.address.to_string(), own.into_raw_fd());
        let (leave, stays) = watch::channel(false);
        let listening = service.start_service(Some(fds.clone()), stays, 1);
        tokio::pin!(listening);
        self.open.fetch_add(1, Relaxed);
        let listens = tokio::select! {
            () = &mut listening => false,
            _ = self.doors.changed() => true,
        };
        self.open.fetch_sub(1, Relaxed);
        leave.send_replace(true);
        if listens {
            listening.await;
        }
        Ok(())
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> pingora_core::services::Service for Port<A> {
    async fn start_service(
        &mut self,
        fds: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        _listeners_per_fd: usize,
    ) {
        let Some(fds) = fds else { return };
        loop {
            let doors = *self.doors.borrow_and_update();
            let changed = match doors {
                Doors::Closed => self.doors.changed().await.is_ok(),
                Doors::Open(_) => match self.listen(&fds).await {
                    Ok(()) => self.doors.has_changed().is_ok(),
                    Err(problem) => {
                        log::error!("{}: {problem:#}", self.socket.address);
                        self.doors.changed().await.is_ok()
                    }
                },
            };
            if !changed {
                return;
            }
        }
    }

    fn name(&self) -> &str {
        self.name
    }

    fn threads(&self) -> Option<usize> {
        Some(self.threads)
    }
}
