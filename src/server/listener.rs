//! The listening sockets. They are bound here, not by Pingora, so that they can go to another process;
//! and a port can be closed and opened again while its connections live on.

use std::{
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
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
    listeners::tls::Acceptor,
    server::{ListenFds, ShutdownWatch},
};
use tokio::sync::watch;

use crate::{
    downstream::{
        accept::{Doorway, Listener, Rules},
        serve::Service,
    },
    tls::CertificateResolver,
};

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
pub enum AcceptState {
    /// With how often they were opened.
    Open(u64),
    Closed,
}

/// Ports, and what is said to all of them.
pub struct Listeners {
    doors: watch::Sender<AcceptState>,
    /// Ports that take connections.
    pub open: Arc<AtomicUsize>,
}

impl Default for Listeners {
    fn default() -> Self {
        Self { doors: watch::Sender::new(AcceptState::Open(0)), open: Arc::default() }
    }
}

impl Listeners {
    pub fn close(&self) {
        self.doors.send_replace(AcceptState::Closed);
    }

    /// Opens them, or has the connections of before leave.
    pub fn reopen(&self) {
        self.doors.send_modify(|doors| {
            *doors = match *doors {
                AcceptState::Open(times) => AcceptState::Open(times + 1),
                AcceptState::Closed => AcceptState::Open(0),
            }
        });
    }
}

/// One socket and the app behind it, as a service of Pingora's.
pub struct ListenerService<A> {
    name: &'static str,
    threads: usize,
    socket: Socket,
    doorway: Arc<Doorway<A>>,
    doors: watch::Receiver<AcceptState>,
    open: Arc<AtomicUsize>,
}

impl<A: HttpServerApp + Send + Sync + 'static> ListenerService<A> {
    pub fn new(
        name: &'static str,
        threads: usize,
        socket: Socket,
        service: Service<A>,
        rules: Arc<dyn Rules>,
        ports: &Listeners,
    ) -> Self {
        let (doors, open) = (ports.doors.subscribe(), ports.open.clone());
        let doorway = Arc::new(Doorway { service, rules, tls: None });
        Self { name, threads, socket, doorway, doors, open }
    }

    /// The same with TLS; `shown` is what apps are shown.
    #[must_use]
    pub fn with_tls(mut self, shown: Arc<CertificateResolver>) -> Self {
        let versions = [&rustls::version::TLS12, &rustls::version::TLS13];
        let mut config = rustls::ServerConfig::builder_with_protocol_versions(&versions)
            .with_no_client_auth()
            .with_cert_resolver(shown);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let tls = Arc::new(Acceptor::from_server_config(Arc::new(config)));
        let Doorway { service, rules, .. } = &*self.doorway;
        let (service, rules) = (service.clone(), rules.clone());
        self.doorway = Arc::new(Doorway { service, rules, tls: Some(tls) });
        self
    }

    /// Takes connections until the doors change.
    async fn listen(&mut self) -> anyhow::Result<()> {
        let is_path = self.socket.address.starts_with('/');
        let listener = Listener::new(self.socket.fd.try_clone()?, is_path)?;
        let (leave, stays) = watch::channel(false);
        let listening = self.doorway.clone().run(listener, stays);
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
impl<A: HttpServerApp + Send + Sync + 'static> pingora_core::services::Service
    for ListenerService<A>
{
    async fn start_service(
        &mut self,
        _fds: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        _listeners_per_fd: usize,
    ) {
        loop {
            let doors = *self.doors.borrow_and_update();
            let changed = match doors {
                AcceptState::Closed => self.doors.changed().await.is_ok(),
                AcceptState::Open(_) => match self.listen().await {
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
