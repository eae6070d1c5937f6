//! The limit of file descriptors, and what is done before they run out.
//!
//! A process without a free descriptor cannot accept, connect, resolve a name or create a file, and would take
//! its own shortage for a fault of a provider. So the gateway raises its limit at the start and reserves
//! some for itself: the store, look-ups, shops, operators. Apps get the rest. A connection of an
//! app is accepted while it and the idle ones still find one more for a provider each; until then
//! it waits in the kernel's queue. A request that can open no connection to a provider is refused with a
//! retry time.
//!
//! The only count on the path of a request is whether its connection is idle: the kernel assigns the
//! lowest free number, so the number of a duplicated descriptor shows how many are in use.

use std::{
    fmt,
    fs::File,
    io,
    os::fd::AsRawFd,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustix::{
    io::fcntl_dupfd_cloexec,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// More has no use, and a container may report a billion.
const MOST: u64 = 1 << 20;
/// Kept back for the gateway itself.
const OWN: std::ops::RangeInclusive<u64> = 48..=768;
/// Below this, a gateway of ordinary use will meet the limit.
const FEW: u64 = 1024;
/// Between two lines in the log about it.
const SAY_EVERY: Duration = Duration::from_secs(60);

pub struct FdBudget {
    /// Anything that is open: it is duplicated to see the next free number.
    probe: File,
    limit: u64,
    said: Mutex<Option<Instant>>,
}

impl FdBudget {
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
                Err(error) => {
                    log::warn!("The limit of open files cannot be raised from {limit}: {error}.")
                }
            }
        }
        if limit < FEW {
            log::warn!("The limit of open files is only {limit}; raise LimitNOFILE or ulimit -n.");
        }
        let probe = File::open("/dev/null")?;
        Ok(Arc::new(Self { probe, limit, said: Mutex::default() }))
    }

    fn own(&self) -> u64 {
        (self.limit / 8).clamp(*OWN.start(), *OWN.end()).min(self.limit / 2)
    }

    pub fn for_apps(&self) -> u64 {
        self.limit - self.own()
    }

    /// Connections that operators may have: half of what is kept back.
    pub fn for_operators(&self) -> usize {
        (self.own() / 2).max(1) as usize
    }

    /// Idle connections to providers that may be kept: an unused one must not keep an app waiting.
    pub fn pooled(&self) -> usize {
        (self.for_apps() / 4) as usize
    }

    /// At least so many are in use.
    pub fn used(&self) -> u64 {
        match fcntl_dupfd_cloexec(&self.probe, 0) {
            Ok(next) => next.as_raw_fd() as u64,
            Err(_) => self.limit,
        }
    }

    /// Whether one more may be opened on behalf of an app.
    pub fn has_room(&self) -> bool {
        self.used() < self.for_apps()
    }

    /// Logs the shortage, at intervals.
    pub fn say_short(&self) {
        let mut said = self.said.lock();
        if said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            *said = Some(Instant::now());
            log::error!(
                "Open files: {} of {} are in use, so idle connections are closed and new connections of apps wait. Raise \
                 LimitNOFILE or ulimit -n.",
                self.used(),
                self.limit
            );
        }
    }
}

impl fmt::Debug for FdBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Descriptors").field("limit", &self.limit).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_kept_back_whatever_the_limit() {
        for (limit, for_apps, for_operators) in
            [(20, 10, 5), (256, 208, 24), (1024, 896, 64), (20_000, 19_232, 384)]
        {
            let probe = File::open("/dev/null").unwrap();
            let descriptors = FdBudget { probe, limit, said: Mutex::default() };
            assert_eq!(descriptors.for_apps(), for_apps, "{limit}");
            assert_eq!(descriptors.for_operators(), for_operators, "{limit}");
        }
    }
}
