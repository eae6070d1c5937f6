//! A listening socket as a service of Pingora: takes connections while its port is open.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

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
    os::sockets::{AcceptState, Listeners, Socket},
    tls::CertificateResolver,
};

/// One socket and the app behind it, as a service of Pingora's.
pub struct ListenerService<A> {
    name: &'static str,
    threads: usize,
    socket: Socket,
    doorway: Arc<Doorway<A>>,
    accepting: watch::Receiver<AcceptState>,
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
        let (accepting, open) = (ports.accepting.subscribe(), ports.open.clone());
        let doorway = Arc::new(Doorway { service, rules, tls: None });
        Self { name, threads, socket, doorway, accepting, open }
    }

    /// The same with TLS; `shown` is what apps are shown.
    #[must_use]
    pub fn with_tls(mut self, shown: Arc<CertificateResolver>) -> Self {
        let versions = [&rustls::version::TLS12, &rustls::version::TLS13];
        let mut config = rustls::ServerConfig::builder_with_protocol_versions(&versions)
            .with_no_client_auth()
            .with_cert_resolver(shown);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Tickets hold a session themselves, so it goes on however many others there are, and costs no memory here. Their
        // key is replaced every six hours (RFC 5077 section 5.5). Without one, the last 256 sessions are kept.
        if let Ok(ticketer) = rustls::crypto::ring::Ticketer::new() {
            config.ticketer = ticketer;
        }
        let tls = Arc::new(Acceptor::from_server_config(Arc::new(config)));
        let Doorway { service, rules, .. } = &*self.doorway;
        let (service, rules) = (service.clone(), rules.clone());
        self.doorway = Arc::new(Doorway { service, rules, tls: Some(tls) });
        self
    }

    /// Takes connections until the state changes.
    async fn listen(&mut self) -> anyhow::Result<()> {
        let is_path = self.socket.address.starts_with('/');
        let listener = Listener::new(self.socket.fd.try_clone()?, is_path)?;
        let (leave, stays) = watch::channel(false);
        let listening = self.doorway.clone().run(listener, stays);
        tokio::pin!(listening);
        self.open.fetch_add(1, Relaxed);
        let listens = tokio::select! {
            () = &mut listening => false,
            _ = self.accepting.changed() => true,
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
            let accepting = *self.accepting.borrow_and_update();
            let changed = match accepting {
                AcceptState::Closed => self.accepting.changed().await.is_ok(),
                AcceptState::Open(_) => match self.listen().await {
                    Ok(()) => self.accepting.has_changed().is_ok(),
                    Err(problem) => {
                        log::error!("{}: {problem:#}", self.socket.address);
                        self.accepting.changed().await.is_ok()
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
