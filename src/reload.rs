//! A changed configuration goes live while requests run, or changes nothing at all.
//!
//! ```text
//! save, SIGHUP ─► read, compile ─► fixed fields kept ─► snapshot built ─► swapped
//!                    └──────────── problems ──────────────────┴─► the last good one stays; log, metric, /status
//! ```
//!
//! A request keeps the snapshot it began with. What outlives snapshots stands in [`Machine`].

pub mod watch;

use std::{path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use gatekeeper_filters::kernel::{Registry, UnixMs};
use parking_lot::Mutex;
use secrecy::ExposeSecret;

use crate::{
    config::{self, Problem, Problems, settings::Settings},
    ledger::{Embedded, PepperError},
    snapshot::{Machine, Snapshot, SnapshotError},
    telemetry::{self, access_log::Out},
    vault::pepper::{self, Pepper, pepper},
};
use watch::Stamp;

/// Reads the file of a running gateway again.
pub struct Reload {
    /// What the gateway runs with, when that is a file.
    pub file: PathBuf,
    pub registry: Registry,
    pub machine: Machine,
    pub store: Arc<Embedded>,
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// One at a time: what is live is what was read last.
    pub turn: Mutex<()>,
    /// What the file was when it was read last.
    pub seen: Mutex<Option<Stamp>>,
    pub history: Arc<History>,
}

/// Why the last good configuration stays.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("{0}")]
    File(#[from] Problems),
    #[error("{0}")]
    Snapshot(#[from] SnapshotError),
    #[error("vault: {0}")]
    Pepper(#[from] PepperError),
    #[error("vault: {0}")]
    PepperText(#[from] pepper::PepperError),
    #[error(
        "admin.token: it is gone, and the gateway runs with one; a reload never opens what was \
         closed. Restart to run without"
    )]
    TokenGone,
    #[error(
        "licenses.sources: none is left, and every buyer would be refused; a reload does not do \
         that. Restart if it is meant"
    )]
    NoSource,
    #[error("log.access: {0}")]
    AccessLog(std::io::Error),
    #[error("providers: the stand-in provider begins with the process: restart the gateway for it")]
    StandIn,
}

impl Reload {
    /// Takes the file as it is now, or keeps what is live and says why. Blocks.
    pub fn reload(&self) {
        let _turn = self.turn.lock();
        // Before it is read: what is saved meanwhile is noticed.
        *self.seen.lock() = Stamp::of(&self.file);
        let file = self.file.display();
        let metrics = &self.machine.telemetry.metrics;
        // Whatever becomes of the file: what moved the log away wants it begun anew.
        self.machine.telemetry.access.reopen();
        match self.take() {
            Ok(kept) => {
                for field in &kept {
                    log::warn!("{file}: {field} changed, which takes a restart; the rest is live.");
                }
                metrics.loaded();
                self.history.live(kept);
                log::info!("{file}: the changed configuration is live.");
            }
            Err(refused) => {
                metrics.reload_failed();
                log::error!(
                    "{file}: the changed configuration is not live, the last good one stays.\n\
                     {refused}"
                );
                self.history.refused(&refused);
            }
        }
    }

    /// Names the fields that stay as they were.
    fn take(&self) -> Result<Vec<&'static str>, Refused> {
        let (mut settings, warnings) = config::load(&self.file, &self.registry)?;
        for warning in warnings {
            log::warn!("{}:{warning}", self.file.display());
        }
        let running = self.snapshot.load_full();
        check_strength(&settings, &running.settings)?;
        let has_stand_in = self.machine.stand_in.is_some();
        if !has_stand_in && settings.providers.iter().any(|provider| provider.base.stand_in) {
            return Err(Refused::StandIn);
        }
        // The licence ids in use were made with the pepper of the start.
        let configured = settings.vault.as_ref().map(pepper).transpose()?;
        self.store.pepper(configured.as_ref().map(Pepper::expose))?;
        let kept = keep_fixed(&mut settings, &running.settings);
        let access = Out::open(&settings.log.access).map_err(Refused::AccessLog)?;
        let next = Snapshot::build(settings, &self.registry, &self.machine)?;
        self.machine.telemetry.access.switch(&next.settings.log.access, access);
        telemetry::log::change(&next.settings.log.levels);
        let sources = next.licenses.sources.clone();
        self.machine.licenses.weigh(&sources);
        self.snapshot.store(Arc::new(next));
        self.machine.licenses.probe(sources);
        Ok(kept)
    }
}

/// A file that was emptied by accident must not open the gateway or close it for everybody.
fn check_strength(next: &Settings, running: &Settings) -> Result<(), Refused> {
    if running.admin.token.is_some() && next.admin.token.is_none() {
        return Err(Refused::TokenGone);
    }
    if !running.licenses.sources.is_empty() && next.licenses.sources.is_empty() {
        return Err(Refused::NoSource);
    }
    Ok(())
}

/// Puts back what only a start can change, and names what would have changed.
fn keep_fixed(next: &mut Settings, running: &Settings) -> Vec<&'static str> {
    let mut kept = Vec::new();
    keep(&mut next.server.listen, &running.server.listen, "server.listen", &mut kept);
    keep(&mut next.server.threads, &running.server.threads, "server.threads", &mut kept);
    keep(&mut next.server.tls, &running.server.tls, "server.tls", &mut kept);
    keep(
        &mut next.server.limits.header_timeout,
        &running.server.limits.header_timeout,
        "server.limits.header_timeout",
        &mut kept,
    );
    keep(&mut next.admin.listen, &running.admin.listen, "admin.listen", &mut kept);
    let url = |settings: &Settings| {
        settings.store.redis.as_ref().map(|redis| redis.url.expose_secret().to_owned())
    };
    let is_same_store = url(next) == url(running)
        && (&next.store.path, next.store.keep) == (&running.store.path, running.store.keep);
    if !is_same_store {
        next.store = running.store.clone();
        kept.push("store");
    }
    kept
}

fn keep<T: PartialEq + Clone>(
    next: &mut T,
    running: &T,
    name: &'static str,
    kept: &mut Vec<&'static str>,
) {
    if next != running {
        next.clone_from(running);
        kept.push(name);
    }
}

/// What is live since when, and how the last reload went: for `/status`.
pub struct History {
    /// The file, or what stands in for one.
    pub source: String,
    inner: Mutex<Inner>,
}

struct Inner {
    since: UnixMs,
    /// Fields whose change waits for a restart.
    waiting: Vec<&'static str>,
    refused: Option<Refusal>,
}

/// The last reload, when it was refused.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub at: UnixMs,
    pub problems: Vec<String>,
}

/// What [`History`] knows at one moment.
pub struct Now {
    pub since: UnixMs,
    pub waiting: Vec<&'static str>,
    pub refused: Option<Refusal>,
}

impl History {
    pub fn begin(source: String) -> Arc<Self> {
        let inner = Inner { since: UnixMs::now(), waiting: Vec::new(), refused: None };
        Arc::new(Self { source, inner: Mutex::new(inner) })
    }

    pub fn now(&self) -> Now {
        let inner = self.inner.lock();
        Now { since: inner.since, waiting: inner.waiting.clone(), refused: inner.refused.clone() }
    }

    fn live(&self, waiting: Vec<&'static str>) {
        *self.inner.lock() = Inner { since: UnixMs::now(), waiting, refused: None };
    }

    fn refused(&self, why: &Refused) {
        let problems = match why {
            Refused::File(problems) => problems.list.iter().map(Problem::to_string).collect(),
            other => vec![other.to_string()],
        };
        self.inner.lock().refused = Some(Refusal { at: UnixMs::now(), problems });
    }
}
