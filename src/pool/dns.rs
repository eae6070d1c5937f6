//! Addresses of a provider, looked up off the request's path.
//!
//! A background task refreshes the addresses; when a look-up fails the last good ones are used for five
//! minutes. Addresses are tried in turn, the one that worked last first: an unreachable address, or IPv6
//! without a route, delays the request but does not fail it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
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
    pool::peer_options::peer,
};

const REFRESH: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(1);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
const KEEP_LAST_GOOD: Duration = Duration::from_secs(300);
/// Addresses tried for one connection.
const TRIED: usize = 4;

/// Where a provider lives, and the addresses its name has now.
pub struct UpstreamHost {
    pub host: String,
    pub port: u16,
    pub tls: bool,
    allow_private: bool,
    peers: ArcSwap<Vec<Arc<HttpPeer>>>,
    timeouts: Timeouts,
    /// Place of the address that worked last.
    good: AtomicUsize,
    /// A look-up failed, and no address is left from before.
    nowhere: AtomicBool,
    ready: tokio::sync::Notify,
}

impl UpstreamHost {
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
            nowhere: AtomicBool::new(false),
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

    /// Its name was looked up in vain; not yet looked up is not that.
    pub fn has_no_address(&self) -> bool {
        self.nowhere.load(Relaxed)
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
        // Registered before the check, so no notification is missed.
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

    fn addresses(&self) -> Vec<SocketAddr> {
        self.peers.load().iter().filter_map(|peer| peer._address.as_inet().copied()).collect()
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
        match tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await {
            Err(_) => Err("the look-up took too long".into()),
            Ok(Err(error)) => Err(error.to_string()),
            Ok(Ok(found)) => self.usable(found.collect()),
        }
    }

    /// Those that a provider may have.
    fn usable(&self, mut all: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, String> {
        if all.is_empty() {
            return Err("the name has no address".into());
        }
        all.retain(|address| self.allow_private || !is_private(address.ip()));
        if all.is_empty() {
            let why = "the name leads to a private address and `allow_private` is not set";
            return Err(why.into());
        }
        Ok(all)
    }
}

fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok()
}

/// The endpoints of all live configurations: one that a reload leaves as it was keeps its addresses.
#[derive(Default)]
pub struct UpstreamHosts {
    known: Mutex<Vec<(BaseUrl, Timeouts, Weak<UpstreamHost>)>>,
    /// Hosts that are not refreshed yet.
    fresh: Mutex<Vec<Weak<UpstreamHost>>>,
    added: tokio::sync::Notify,
}

impl UpstreamHosts {
    /// The endpoint at this address, made when no live configuration has it.
    pub fn of(&self, base: &BaseUrl, timeouts: Timeouts) -> Arc<UpstreamHost> {
        let mut known = self.known.lock();
        known.retain(|(_, _, endpoint)| endpoint.strong_count() > 0);
        let same = known.iter().find(|(at, within, _)| (at, *within) == (base, timeouts));
        if let Some(endpoint) = same.and_then(|(_, _, endpoint)| endpoint.upgrade()) {
            return endpoint;
        }
        let endpoint = Arc::new(UpstreamHost::new(base, timeouts));
        // Other timeouts are no reason to forget where it lives.
        let before = known.iter().filter(|(at, ..)| at == base).find_map(|known| known.2.upgrade());
        if let Some(before) = before.filter(|_| !endpoint.is_literal()) {
            endpoint.keep(before.addresses());
        }
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
    pub endpoints: Arc<UpstreamHosts>,
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
async fn keep_fresh(endpoint: Weak<UpstreamHost>) {
    let mut standing = LookupStatus { good_at: Instant::now(), failing: false };
    while let Some(endpoint) = endpoint.upgrade() {
        let found = endpoint.look_up().await;
        let pause = standing.learn(&endpoint, found, Instant::now());
        drop(endpoint);
        tokio::time::sleep(pause).await;
    }
}

/// How look-ups of one name went lately.
struct LookupStatus {
    good_at: Instant,
    failing: bool,
}

impl LookupStatus {
    /// Takes in what a look-up found; how long until the next one.
    fn learn(
        &mut self,
        endpoint: &UpstreamHost,
        found: Result<Vec<SocketAddr>, String>,
        now: Instant,
    ) -> Duration {
        let was_failing = std::mem::replace(&mut self.failing, found.is_err());
        match found {
            Ok(addresses) => {
                if was_failing {
                    log::info!("The addresses of {} can be looked up again.", endpoint.host);
                }
                self.good_at = now;
                endpoint.keep(addresses);
                endpoint.nowhere.store(false, Relaxed);
                endpoint.ready.notify_waiters();
                REFRESH
            }
            Err(error) => {
                if !was_failing {
                    log::error!("The addresses of {} can't be looked up: {error}.", endpoint.host);
                }
                if now.saturating_duration_since(self.good_at) > KEEP_LAST_GOOD {
                    endpoint.peers.store(Arc::default());
                }
                endpoint.nowhere.store(endpoint.peers.load().is_empty(), Relaxed);
                RETRY
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(host: &str, allow_private: bool) -> BaseUrl {
        BaseUrl {
            tls: true,
            host: host.into(),
            port: 443,
            path: String::new(),
            allow_private,
            stand_in: false,
        }
    }

    fn each(secs: u64) -> Timeouts {
        let time = Duration::from_secs(secs);
        let (connect, first_byte, first_token, idle, total) = (time, time, time, time, time);
        Timeouts { connect, first_byte, first_token, idle, total }
    }

    fn endpoint(host: &str, allow_private: bool) -> UpstreamHost {
        UpstreamHost::new(&base(host, allow_private), each(10))
    }

    fn addresses(text: &[&str]) -> Vec<SocketAddr> {
        text.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 443)).collect()
    }

    fn tried(endpoint: &UpstreamHost) -> Vec<String> {
        endpoint.take().iter().map(|(_, peer)| peer._address.to_string()).collect()
    }

    #[test]
    fn the_last_good_addresses_serve_five_minutes_without_a_name_server() {
        let endpoint = endpoint("api.example.com", false);
        let mut now = Instant::now();
        let mut standing = LookupStatus { good_at: now, failing: false };
        let good = endpoint.usable(addresses(&["8.8.8.8", "9.9.9.9"]));
        assert_eq!(standing.learn(&endpoint, good, now), REFRESH);
        let fails = || Err("no answer".to_owned());
        for _ in 0..300 {
            now += RETRY;
            assert_eq!(standing.learn(&endpoint, fails(), now), RETRY);
            assert_eq!(tried(&endpoint), ["8.8.8.8:443", "9.9.9.9:443"]);
        }
        now += RETRY;
        standing.learn(&endpoint, fails(), now);
        assert!(tried(&endpoint).is_empty(), "the addresses are too old to be used");
        assert!(endpoint.has_no_address());
        standing.learn(&endpoint, Ok(addresses(&["1.1.1.1"])), now);
        assert!(!endpoint.has_no_address());
        assert_eq!(tried(&endpoint), ["1.1.1.1:443"]);
        standing.learn(&endpoint, fails(), now + KEEP_LAST_GOOD);
        assert_eq!(tried(&endpoint), ["1.1.1.1:443"], "the time counts from the last good answer");
    }

    #[test]
    fn a_name_that_moves_is_followed_but_not_into_the_own_network() {
        let endpoint = endpoint("api.example.com", false);
        let now = Instant::now();
        let mut standing = LookupStatus { good_at: now, failing: false };
        let mut hear = |list: &[&str]| {
            standing.learn(&endpoint, endpoint.usable(addresses(list)), now);
            tried(&endpoint)
        };
        hear(&["8.8.8.8", "9.9.9.9"]);
        endpoint.prefer(1);
        assert_eq!(hear(&["1.1.1.1", "9.9.9.9", "8.8.8.8"])[0], "9.9.9.9:443", "it works");
        assert_eq!(hear(&["1.1.1.1", "8.8.4.4"]), ["1.1.1.1:443", "8.8.4.4:443"], "it is gone");
        for private in ["169.254.169.254", "127.0.0.1", "10.0.0.1", "::1", "::ffff:10.0.0.1"] {
            assert_eq!(hear(&[private]).len(), 2, "{private}: the last good ones stay");
            assert_eq!(hear(&[private, "1.1.1.1"]), ["1.1.1.1:443"], "{private} is left out");
            hear(&["1.1.1.1", "8.8.4.4"]);
        }
        assert_eq!(hear(&[]).len(), 2);
        let many: Vec<String> = (0..100).map(|last| format!("1.1.1.{last}")).collect();
        assert_eq!(hear(&many.iter().map(String::as_str).collect::<Vec<_>>()).len(), TRIED);
    }

    #[test]
    fn other_timeouts_do_not_forget_where_a_provider_lives() {
        let (endpoints, com) = (UpstreamHosts::default(), base("api.example.com", false));
        let before = endpoints.of(&com, each(1));
        before.keep(addresses(&["8.8.8.8", "9.9.9.9"]));
        assert_eq!(tried(&endpoints.of(&com, each(2))), ["8.8.8.8:443", "9.9.9.9:443"]);
        assert!(tried(&endpoints.of(&base("api.example.org", false), each(2))).is_empty());
    }

    #[test]
    fn private_addresses_are_for_those_who_say_so() {
        let found = || addresses(&["10.0.0.1"]);
        assert!(endpoint("api.example.com", false).usable(found()).is_err());
        assert!(endpoint("api.example.com", true).usable(found()).is_ok());
        assert!(endpoint("localhost", false).usable(found()).is_ok());
    }
}
