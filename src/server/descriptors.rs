//! File descriptors: how many there may be, and what is done before there are none.
//!
//! A process without a free one can't accept, connect, look up a name or make a file, and would take
//! its own want for the fault of a provider. So the gateway takes all it may have at the start and keeps
//! some back for itself: the store, look-ups, shops, operators. Apps get the rest. A connection of an
//! app is accepted while it and those that are idle still find one more for a provider each; until then
//! it waits in the kernel's queue. A request for which no connection to a provider can be opened any
//! more is told to come again.
//!
//! Nothing is counted on a request's way but whether its connection idles: the kernel gives out the
//! lowest free number, so that a duplicate's number says how many are in use.

use std::{
    fmt,
    fs::File,
    io,
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_core::listeners::ConnectionFilter;
use rustix::{
    io::fcntl_dupfd_cloexec,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// More helps nobody, and a container may say a thousand million.
const MOST: u64 = 1 << 20;
/// Kept back for the gateway itself.
const OWN: std::ops::RangeInclusive<u64> = 48..=256;
/// Below this, a gateway of ordinary use will meet the limit.
const FEW: u64 = 1024;
/// Between two looks whether there is room again.
const LOOK: Duration = Duration::from_millis(10);
/// Between two lines in the log about it.
const SAY_EVERY: Duration = Duration::from_secs(60);

pub struct Descriptors {
    /// Anything that is open: it is duplicated to see the next free number.
    probe: File,
    limit: u64,
    /// Connections of apps on which no request is under way.
    idle: AtomicU64,
    said: Mutex<Option<Instant>>,
}

/// A connection of an app that waits for its next request, while this lives.
pub struct Idle(Arc<Descriptors>);

impl Drop for Idle {
    fn drop(&mut self) {
        self.0.idle.fetch_sub(1, Relaxed);
    }
}

impl Descriptors {
    /// Takes all that this process may have.
    ///
    /// # Errors
    /// None is free even now.
    pub fn raise() -> io::Result<Arc<Self>> {
        let known = getrlimit(Resource::Nofile);
        let wanted = known.maximum.map_or(MOST, |maximum| maximum.min(MOST));
        let mut limit = known.current.unwrap_or(MOST);
        if limit < wanted {
            let raised = Rlimit { current: Some(wanted), maximum: known.maximum };
            match setrlimit(Resource::Nofile, raised) {
                Ok(()) => limit = wanted,
                Err(error) => log::warn!("The limit of open files stays at {limit}: {error}."),
            }
        }
        if limit < FEW {
            log::warn!(
                "Only {limit} files may be open at one time; raise LimitNOFILE or ulimit -n."
            );
        }
        let probe = File::open("/dev/null")?;
        Ok(Arc::new(Self { probe, limit, idle: AtomicU64::new(0), said: Mutex::default() }))
    }

    fn for_apps(&self) -> u64 {
        self.limit - (self.limit / 8).clamp(*OWN.start(), *OWN.end()).min(self.limit / 2)
    }

    /// Idle connections to providers that may be kept: an unused one must not keep an app waiting.
    pub fn pooled(&self) -> usize {
        (self.for_apps() / 4) as usize
    }

    /// At least so many are in use.
    fn used(&self) -> u64 {
        match fcntl_dupfd_cloexec(&self.probe, 0) {
            Ok(next) => next.as_raw_fd() as u64,
            Err(_) => self.limit,
        }
    }

    /// Whether one more may be opened on behalf of an app.
    pub fn has_room(&self) -> bool {
        self.used() < self.for_apps()
    }

    /// Whether one more connection of an app, and one to a provider for it and for all that idle, would
    /// find room. The new one is in use already.
    fn has_room_for_app(&self) -> bool {
        self.used() + self.idle.load(Relaxed) < self.for_apps()
    }

    pub fn idle(self: &Arc<Self>) -> Idle {
        self.idle.fetch_add(1, Relaxed);
        Idle(self.clone())
    }

    fn say(&self) {
        let mut said = self.said.lock();
        if said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            *said = Some(Instant::now());
            log::error!(
                "Open files: {} of {} are in use, so new connections of apps wait. Raise LimitNOFILE or \
                 ulimit -n.",
                self.used(),
                self.limit
            );
        }
    }
}

impl fmt::Debug for Descriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Descriptors").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// Holds up the accept loop until there is room.
#[async_trait]
impl ConnectionFilter for Descriptors {
    async fn should_accept(&self, _address: Option<&std::net::SocketAddr>) -> bool {
        if self.has_room_for_app() {
            return true;
        }
        self.say();
        while !self.has_room_for_app() {
            tokio::time::sleep(LOOK).await;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(limit: u64) -> Descriptors {
        let probe = File::open("/dev/null").unwrap();
        Descriptors { probe, limit, idle: AtomicU64::new(0), said: Mutex::default() }
    }

    #[test]
    fn some_are_kept_back_whatever_the_limit() {
        for (limit, for_apps) in [(20, 10), (256, 208), (1024, 896), (20_000, 19_744)] {
            assert_eq!(of(limit).for_apps(), for_apps, "{limit}");
        }
    }

    #[test]
    fn each_idle_connection_needs_one_more_for_its_provider() {
        let used = of(1 << 20).used();
        // Other tests of this process open files, too.
        let descriptors = Arc::new(of((used + 500) * 8 / 7));
        assert!(descriptors.has_room() && descriptors.has_room_for_app());
        let idle: Vec<_> = (0..600).map(|_| descriptors.idle()).collect();
        assert!(descriptors.has_room() && !descriptors.has_room_for_app());
        drop(idle);
        assert!(descriptors.has_room_for_app());
    }
}
