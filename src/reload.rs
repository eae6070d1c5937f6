//! A changed configuration goes live while requests run, or changes nothing at all.
//!
//! ```text
//! save, SIGHUP, ─► read, compile ─► fixed fields kept ─► snapshot built ─► swapped
//! POST             └──────────── problems ──────────────────┴─► the last good one stays; log, metric, /status
//! ```
//!
//! A request keeps the snapshot it began with. What outlives snapshots stands in [`SharedState`].

pub mod diff;
pub mod file_watcher;
mod outcome;
mod status;
mod trigger;

use std::{path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use gatekeeper_filters::kernel::Registry;
use parking_lot::Mutex;
use secrecy::ExposeSecret;

use self::{
    diff::{ConfigChange, ConfigPart, changes},
    trigger::ReloadTrigger,
};
pub use self::{
    outcome::{ReloadOutcome, ReloadRefused},
    status::{LastRefusal, ReloadStatus, StatusNow},
};
use crate::{
    config::{
        self, Diagnostic, Problems, Secrets, SourceFiles,
        mask::mask,
        settings::{AdminSettings, LicenseSource, Settings},
    },
    ledger::EmbeddedLedger,
    lifecycle::Lifecycle,
    os::systemd,
    runtime::snapshot::{SharedState, Snapshot},
    telemetry::access_log::Sink,
    vault::pepper::{Pepper, pepper},
};

/// Lines of changes in the log; the rest is counted.
const LOGGED: usize = 100;

/// Reads the file of a running gateway again.
pub struct Reloader {
    /// What the gateway runs with, when that is a file.
    pub file: PathBuf,
    pub registry: Registry,
    pub machine: SharedState,
    pub store: Arc<EmbeddedLedger>,
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub history: Arc<ReloadStatus>,
    /// Whether this process is the one that serves.
    lifecycle: Arc<Lifecycle>,
    /// Reloads run one at a time, so the last file read is the one that is live.
    running: Mutex<()>,
    /// The files as they were at the last read.
    last_read: Mutex<SourceFiles>,
    trigger: Arc<ReloadTrigger>,
}

/// A configuration that may go live.
struct Candidate {
    settings: Settings,
    warnings: Vec<String>,
    changes: Vec<ConfigChange>,
    kept: Vec<&'static str>,
}

impl Reloader {
    /// For a gateway that runs with this file.
    pub fn new(
        file: PathBuf,
        registry: Registry,
        machine: SharedState,
        store: Arc<EmbeddedLedger>,
        snapshot: Arc<ArcSwap<Snapshot>>,
        history: Arc<ReloadStatus>,
        lifecycle: Arc<Lifecycle>,
    ) -> Self {
        let last_read = Mutex::new(snapshot.load().settings.files.clone());
        let (running, trigger) = (Mutex::default(), Arc::default());
        Self {
            file,
            registry,
            machine,
            store,
            snapshot,
            history,
            lifecycle,
            running,
            last_read,
            trigger,
        }
    }

    /// Requests a reload. Never blocks; requests that arrive together cause one reload.
    pub fn request(&self) {
        self.trigger.set();
    }

    /// Makes the file live, or keeps the running configuration and reports why. Blocks.
    pub fn reload(&self) -> ReloadOutcome {
        let _running = self.running.lock();
        // A process that was replaced by an upgrade no longer notifies systemd,
        let notifies = self.lifecycle.is_here();
        if notifies {
            systemd::reloading();
        }
        let outcome = self.read_and_apply();
        // nor does one that was replaced during the reload.
        if notifies && self.lifecycle.is_here() {
            systemd::ready();
        }
        outcome
    }

    fn read_and_apply(&self) -> ReloadOutcome {
        let file = self.file.display();
        let metrics = &self.machine.telemetry.metrics;
        // In any case: log rotation relies on SIGHUP to reopen the access log.
        self.machine.telemetry.access.reopen();
        let loaded = config::load(&self.file, &self.registry);
        // Refused files are watched, too: a fix in any of them may resolve the problems.
        *self.last_read.lock() = match &loaded {
            Ok((settings, _)) => settings.files.clone(),
            Err(problems) => problems.files.clone(),
        };
        match self.validate_candidate(loaded).and_then(|next| self.go_live(next)) {
            Ok(outcome) => {
                for warning in &outcome.warnings {
                    log::warn!("{file}:{}", mask(warning));
                }
                for change in outcome.changes.iter().take(LOGGED) {
                    log::info!("{file}: {change}");
                }
                if let Some(more @ 1..) = outcome.changes.len().checked_sub(LOGGED) {
                    log::info!("{file}: and {more} more changes");
                }
                for field in &outcome.waits {
                    log::warn!(
                        "{file}: the change of {field} takes effect after `gatekeeper upgrade` or a \
                         restart; the other changes are live."
                    );
                }
                self.history.live(&outcome);
                match outcome.changes.is_empty() {
                    true => log::info!("{file}: read again; nothing changed."),
                    false => log::info!("{file}: the changed configuration is live."),
                }
                // Last: what waits for the count finds all the rest.
                metrics.loaded();
                outcome
            }
            Err(refused) => {
                log::error!(
                    "{file}: the changed configuration is not live, the last good one stays.\n\
                     {}",
                    mask(&refused.to_string())
                );
                let problems = refused.lines();
                self.history.refused(problems.iter().map(|problem| mask(problem)).collect());
                metrics.reload_failed();
                ReloadOutcome { problems, ..ReloadOutcome::default() }
            }
        }
    }

    /// The outcome that a reload of the file, or of another text, would have. Changes nothing. Blocks.
    pub fn try_out(&self, text: Option<&str>) -> ReloadOutcome {
        let _running = self.running.lock();
        let loaded = match text {
            None => config::load(&self.file, &self.registry),
            Some(text) => {
                config::parse(text, &self.registry, Secrets::Required).map_err(|report| Problems {
                    file: self.file.clone(),
                    list: report.problems,
                    warnings: report.warnings,
                    files: report.files,
                })
            }
        };
        match self.validate_candidate(loaded) {
            Ok(Candidate { warnings, changes, kept: waits, .. }) => {
                let changes = lines(changes);
                ReloadOutcome { live: false, changes, waits, warnings, problems: Vec::new() }
            }
            Err(refused) => ReloadOutcome { problems: refused.lines(), ..ReloadOutcome::default() },
        }
    }

    /// Checks whether a configuration may go live in this process.
    fn validate_candidate(
        &self,
        loaded: Result<(Settings, Vec<Diagnostic>), Problems>,
    ) -> Result<Candidate, ReloadRefused> {
        let (mut settings, warnings) = loaded?;
        let running = self.snapshot.load_full();
        check_strength(&settings, &running.settings)?;
        let has_stand_in = self.machine.stand_in.is_some();
        if !has_stand_in && settings.providers.iter().any(|provider| provider.base.stand_in) {
            return Err(ReloadRefused::StandIn);
        }
        // Licence ids in use derive from the pepper at start.
        let configured = settings.vault.as_ref().map(pepper).transpose()?;
        self.store.pepper(configured.as_ref().map(Pepper::expose))?;
        let kept = keep_fixed(&mut settings, &running.settings);
        check_closed(&settings.admin)?;
        let changes = changes(&running.settings, &settings);
        let warnings = warnings.iter().map(Diagnostic::to_string).collect();
        Ok(Candidate { settings, warnings, changes, kept })
    }

    fn go_live(&self, next: Candidate) -> Result<ReloadOutcome, ReloadRefused> {
        let Candidate { settings, warnings, changes, kept } = next;
        // An unchanged access log was reopened above; a failure of that does not refuse the rest.
        let moved = settings.log.access != self.snapshot.load().settings.log.access;
        let access = moved.then(|| Sink::open(&settings.log.access)).transpose();
        let access = access.map_err(ReloadRefused::AccessLog)?;
        let next = Arc::new(Snapshot::build(settings, &self.registry, &self.machine)?);
        if let Some(access) = access {
            self.machine.telemetry.access.switch(&next.settings.log.access, access);
        }
        crate::logging::change(&next.settings.log.levels);
        let sources = next.licenses.sources.clone();
        self.machine.licenses.weigh(&sources);
        let machine = &self.machine;
        for (tls, shown) in [
            (&next.settings.server.tls, &machine.certificate),
            (&next.settings.admin.tls, &machine.admin_certificate),
        ] {
            if let Some(pair) = tls.as_ref().and_then(|tls| tls.pair.as_ref()) {
                shown.set(pair);
            }
        }
        self.machine.health.readmit(&next.providers);
        self.snapshot.store(next.clone());
        // From here on no attempt of an older request uses a removed key.
        self.machine.health.withdraw_all_but(&next.providers);
        // Shops are probed only if their part of the file changed, not at every save.
        if changes.iter().any(|change| change.part == ConfigPart::Licenses) {
            self.machine.licenses.probe(sources);
        }
        let changes = lines(changes);
        Ok(ReloadOutcome { live: true, changes, waits: kept, warnings, problems: Vec::new() })
    }
}

fn lines(changes: Vec<ConfigChange>) -> Vec<String> {
    changes.into_iter().map(|change| change.line).collect()
}

/// The compiler checked the token against the address in the file; this checks it against the address in use.
fn check_closed(admin: &AdminSettings) -> Result<(), ReloadRefused> {
    match admin.token.is_none() && !admin.listen.ip().is_loopback() {
        true => Err(ReloadRefused::Opened(admin.listen)),
        false => Ok(()),
    }
}

/// A file emptied by accident must neither open the admin listener nor refuse every licence.
fn check_strength(next: &Settings, running: &Settings) -> Result<(), ReloadRefused> {
    if running.admin.token.is_some() && next.admin.token.is_none() && !next.admin.no_token {
        return Err(ReloadRefused::TokenGone);
    }
    let lists = |settings: &Settings| {
        let lists = settings.licenses.sources.iter().filter_map(|source| match source {
            LicenseSource::Static(keys) => Some(keys.len()),
            _ => None,
        });
        lists.fold(None, |sum: Option<usize>, keys| Some(sum.unwrap_or_default() + keys))
    };
    match (lists(running), lists(next)) {
        (Some(keys @ 1..), Some(0)) => Err(ReloadRefused::ListEmptied(keys)),
        _ => Ok(()),
    }
}

/// Restores the settings that only a restart can change, and names those that differ.
fn keep_fixed(next: &mut Settings, running: &Settings) -> Vec<&'static str> {
    let mut kept = Vec::new();
    keep(&mut next.server.listen, &running.server.listen, "server.listen", &mut kept);
    keep(&mut next.server.threads, &running.server.threads, "server.threads", &mut kept);
    // A new certificate applies at once; switching TLS on or off needs another listener.
    if next.server.tls.is_some() != running.server.tls.is_some() {
        next.server.tls.clone_from(&running.server.tls);
        kept.push("server.tls");
    }
    if next.admin.tls.is_some() != running.admin.tls.is_some() {
        next.admin.tls.clone_from(&running.admin.tls);
        kept.push("admin.tls");
    }
    keep(&mut next.admin.listen, &running.admin.listen, "admin.listen", &mut kept);
    let shared = |settings: &Settings| {
        let redis = settings.store.redis.as_ref()?;
        Some((redis.url.expose_secret().to_owned(), redis.on_store_down, redis.unsafe_eviction))
    };
    let is_same_store = shared(next) == shared(running)
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

#[cfg(test)]
mod tests;
