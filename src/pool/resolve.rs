//! Addresses of a provider, looked up off the request's path.
//!
//! A background task keeps the list fresh; when a look-up fails the last good list stays for five
//! minutes. A connect tries one address after the other, beginning with the one that worked last: a
//! dead one, or IPv6 without a way there, costs a moment, not the request.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_core::{
    server::ShutdownWatch, services::background::BackgroundService, upstreams::peer::HttpPeer,
};
use tokio::task::JoinSet;

use crate::{
    config::{
        base_url::is_private,
        settings::{BaseUrl, Timeouts},
    },
    upstream::peer::peer,
};

const REFRESH: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(1);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
const KEEP_LAST_GOOD: Duration = Duration::from_secs(300);
/// Addresses tried for one connection.
const TRIED: usize = 4;

/// Where a provider lives, and the addresses its name has now.
pub struct Endpoint {
    pub host: String,
    pub port: u16,
    pub tls: bool,
    allow_private: bool,
    peers: ArcSwap<Vec<Arc<HttpPeer>>>,
    timeouts: Timeouts,
    /// Place of the address that worked last.
    good: AtomicUsize,
    ready: tokio::sync::Notify,
}

impl Endpoint {
    /// A literal address needs no look-up and is ready at once.
    pub fn new(base: &BaseUrl, timeouts: Timeouts) -> Self {
        let literal: Option<IpAddr> = base.host.parse().ok();
        let endpoint = Self {
            host: base.host.clone(),
            port: base.port,
            tls: base.tls,
            allow_private: base.allow_private || is_local(&base.host),
            peers: ArcSwap::default(),
            timeouts,
            good: AtomicUsize::new(0),
            ready: tokio::sync::Notify::new(),
        };
        endpoint.keep(literal.map(|ip| SocketAddr::new(ip, base.port)).into_iter().collect());
        endpoint
    }

    /// An endpoint with a known address: the stand-in provider.
    pub fn fixed(address: SocketAddr, timeouts: Timeouts) -> Self {
        let base = BaseUrl {
            tls: false,
            host: address.ip().to_string(),
            port: address.port(),
            path: String::new(),
            allow_private: true,
            stand_in: true,
        };
        Self::new(&base, timeouts)
    }

    fn is_literal(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok()
    }

    /// The addresses to try with their places, the one that worked last first; waits a little for
    /// the first look-up after a start.
    pub async fn peers(&self) -> Vec<(usize, Arc<HttpPeer>)> {
        let ready = self.ready.notified();
        let peers = self.take();
        if !peers.is_empty() {
            return peers;
        }
        // The list may come any moment; what is registered above misses no notice.
        let _ = tokio::time::timeout(LOOKUP_TIMEOUT, ready).await;
        self.take()
    }

    /// The address at `place` took a connection: it is tried first from now on.
    pub fn prefer(&self, place: usize) {
        self.good.store(place, Relaxed);
    }

    fn take(&self) -> Vec<(usize, Arc<HttpPeer>)> {
        let peers = self.peers.load();
        let (good, count) = (self.good.load(Relaxed), peers.len());
        let places = (0..count.min(TRIED)).map(|step| (good + step) % count);
        places.map(|place| (place, peers[place].clone())).collect()
    }

    /// Takes a fresh list; what worked last stays first.
    fn keep(&self, fresh: Vec<SocketAddr>) {
        let peers: Vec<Arc<HttpPeer>> = fresh
            .into_iter()
            .map(|address| Arc::new(peer(address, self.tls, &self.host, &self.timeouts)))
            .collect();
        let good = self.take().first().map(|(_, peer)| peer._address.clone());
        let place = peers.iter().position(|peer| Some(&peer._address) == good.as_ref());
        self.peers.store(Arc::new(peers));
        self.good.store(place.unwrap_or(0), Relaxed);
    }

    async fn look_up(&self) -> Result<Vec<SocketAddr>, String> {
        let lookup = tokio::net::lookup_host((self.host.as_str(), self.port));
        let found = match tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await {
            Err(_) => return Err("the look-up took too long".into()),
            Ok(Err(error)) => return Err(error.to_string()),
            Ok(Ok(found)) => found,
        };
        let all: Vec<SocketAddr> = found.collect();
        let usable: Vec<SocketAddr> = all
            .iter()
            .copied()
            .filter(|address| self.allow_private || !is_private(address.ip()))
            .collect();
        if usable.is_empty() {
            return Err(if all.is_empty() {
                "the name has no address".into()
            } else {
                "the name leads to a private address and `allow_private` is not set".into()
            });
        }
        Ok(usable)
    }
}

fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok()
}

/// The endpoints of all live configurations: one that a reload leaves as it was keeps its addresses.
#[derive(Default)]
pub struct Endpoints {
    known: Mutex<Vec<(BaseUrl, Timeouts, Weak<Endpoint>)>>,
    /// Nobody keeps their addresses fresh yet.
    fresh: Mutex<Vec<Weak<Endpoint>>>,
    added: tokio::sync::Notify,
}

impl Endpoints {
    /// The endpoint at this address, made when no live configuration has it.
    pub fn of(&self, base: &BaseUrl, timeouts: Timeouts) -> Arc<Endpoint> {
        let mut known = self.known.lock();
        known.retain(|(_, _, endpoint)| endpoint.strong_count() > 0);
        let same = known.iter().find(|(at, within, _)| (at, *within) == (base, timeouts));
        if let Some(endpoint) = same.and_then(|(_, _, endpoint)| endpoint.upgrade()) {
            return endpoint;
        }
        let endpoint = Arc::new(Endpoint::new(base, timeouts));
        known.push((base.clone(), timeouts, Arc::downgrade(&endpoint)));
        if !endpoint.is_literal() {
            self.fresh.lock().push(Arc::downgrade(&endpoint));
            self.added.notify_one();
        }
        endpoint
    }
}

/// Keeps the addresses of all providers fresh.
pub struct Resolver {
    pub endpoints: Arc<Endpoints>,
}

#[async_trait]
impl BackgroundService for Resolver {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut watches = JoinSet::new();
        loop {
            let fresh = std::mem::take(&mut *self.endpoints.fresh.lock());
            for endpoint in fresh {
                watches.spawn(keep_fresh(endpoint));
            }
            tokio::select! {
                () = self.endpoints.added.notified() => {}
                Some(_) = watches.join_next() => {}
                _ = shutdown.changed() => return,
            }
        }
    }
}

/// Until no configuration has the endpoint any more.
async fn keep_fresh(endpoint: Weak<Endpoint>) {
    let mut good_at = Instant::now();
    let mut failing = false;
    while let Some(endpoint) = endpoint.upgrade() {
        let pause = match endpoint.look_up().await {
            Ok(addresses) => {
                if failing {
                    log::info!("The addresses of {} can be looked up again.", endpoint.host);
                }
                (failing, good_at) = (false, Instant::now());
                endpoint.keep(addresses);
                endpoint.ready.notify_waiters();
                REFRESH
            }
            Err(error) => {
                if !failing {
                    log::error!("The addresses of {} can't be looked up: {error}.", endpoint.host);
                }
                failing = true;
                if good_at.elapsed() > KEEP_LAST_GOOD {
                    endpoint.peers.store(Arc::default());
                }
                RETRY
            }
        };
        drop(endpoint);
        tokio::time::sleep(pause).await;
    }
}
