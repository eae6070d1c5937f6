//! The log of the process, on standard error, with a level per part.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use gatekeeper_filters::kernel::UnixMs;
use log::{Level, LevelFilter, Log, Metadata, Record};

/// Log levels, of the gateway and of its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels {
    pub all: log::LevelFilter,
    /// Parts with a level of their own, by how their targets begin.
    pub parts: Vec<(&'static str, log::LevelFilter)>,
}

impl From<log::LevelFilter> for Levels {
    fn from(all: log::LevelFilter) -> Self {
        Self { all, parts: Vec::new() }
    }
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// A name in `log.levels`, and how the targets of its records begin.
pub type Part = (&'static str, &'static [&'static str]);

/// What a file may set a level of: parts of the gateway, their names in earlier versions, crates it stands on.
pub const PARTS: &[Part] = &[
    ("filters", &["gatekeeper_filters"]),
    ("admin", &["gatekeeper::admin"]),
    ("budget", &["gatekeeper::budget"]),
    ("cli", &["gatekeeper::cli"]),
    ("config", &["gatekeeper::config"]),
    ("dialect", &["gatekeeper::dialect"]),
    ("downstream", &["gatekeeper::downstream"]),
    ("ledger", &["gatekeeper::ledger"]),
    ("license_admin", &["gatekeeper::license_admin"]),
    ("licenses", &["gatekeeper::licenses"]),
    ("lifecycle", &["gatekeeper::lifecycle"]),
    ("os", &["gatekeeper::os"]),
    ("peer_sync", &["gatekeeper::peer_sync"]),
    ("pool", &["gatekeeper::pool"]),
    ("redis_store", &["gatekeeper::redis_store"]),
    ("reload", &["gatekeeper::reload"]),
    ("runtime", &["gatekeeper::runtime"]),
    ("server", &["gatekeeper::server"]),
    ("stand_in", &["gatekeeper::stand_in"]),
    ("telemetry", &["gatekeeper::telemetry"]),
    ("tls", &["gatekeeper::tls"]),
    ("upgrade", &["gatekeeper::upgrade"]),
    ("upstream", &["gatekeeper::upstream"]),
    ("vault", &["gatekeeper::vault"]),
    ("proxy", &["gatekeeper::proxy", "gatekeeper::downstream"]),
    // Names of earlier versions.
    ("fleet", &["gatekeeper::peer_sync"]),
    ("handover", &["gatekeeper::upgrade"]),
    ("operator", &["gatekeeper::license_admin"]),
    ("spending", &["gatekeeper::budget"]),
    ("store", &["gatekeeper::redis_store"]),
    // Other crates.
    ("h2", &["h2"]),
    ("hyper", &["hyper"]),
    ("notify", &["notify"]),
    ("pingora", &["pingora"]),
    ("redis", &["redis"]),
    ("reqwest", &["reqwest"]),
    ("rustls", &["rustls"]),
];

/// Whether a target is the gateway's own.
pub fn is_ours(target: &str) -> bool {
    target.starts_with("gatekeeper")
}

/// Sends `log` to standard error. If `RUST_LOG` is set, it alone sets the levels; targets outside
/// Gatekeeper are capped at info in any case: Pingora prints headers at debug level. One of its modules,
/// which prints the bytes of a malformed request as an error, is silenced.
pub fn start(levels: &Levels) {
    let inner = match std::env::var("RUST_LOG") {
        Ok(levels) => env_logger::Builder::new().parse_filters(&levels).format(write_line).build(),
        Err(_) => built(levels),
    };
    let max = inner.filter();
    let logger = LOGGER.get_or_init(|| Logger(ArcSwap::from_pointee(inner)));
    if log::set_logger(logger).is_ok() {
        log::set_max_level(max);
    }
}

/// Other levels from now on, unless `RUST_LOG` has set them.
pub fn change(levels: &Levels) {
    if let (Some(Logger(current)), Err(_)) = (LOGGER.get(), std::env::var("RUST_LOG")) {
        let next = built(levels);
        let max = next.filter();
        current.store(Arc::new(next));
        log::set_max_level(max);
    }
}

fn built(levels: &Levels) -> env_logger::Logger {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(levels.all.min(LevelFilter::Warn));
    builder.filter_module("gatekeeper", levels.all);
    builder.filter_module("gatekeeper_filters", levels.all);
    for (target, level) in &levels.parts {
        builder.filter_module(target, *level);
    }
    builder.format(write_line).build()
}

/// `2026-01-02T03:04:05Z WARN crate::proxy: ...`; the journal has times of its own.
fn write_line(out: &mut env_logger::fmt::Formatter, record: &Record<'_>) -> std::io::Result<()> {
    use std::io::Write;
    static IS_JOURNAL: OnceLock<bool> = OnceLock::new();
    if !IS_JOURNAL.get_or_init(is_journal) {
        write!(out, "{} ", UnixMs::now().to_rfc3339())?;
    }
    writeln!(out, "[{:<5} {}] {}", record.level(), record.target(), record.args())
}

/// Whether standard error leads to the journal. What a service or a desktop starts inherits the variable, wherever its
/// own output goes: device and inode tell (systemd.exec(5)).
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(found) = rustix::fs::fstat(std::io::stderr()) else { return false };
    stream == format!("{}:{}", found.st_dev, found.st_ino)
}

/// A connection that its provider had closed while it was idle: the next one is taken, and nothing failed.
fn is_no_fault(record: &Record<'_>) -> bool {
    record.target() == "pingora_core::connectors"
        && record.args().as_str() == Some("failed to acquire reusable stream")
}

struct Logger(ArcSwap<env_logger::Logger>);

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        if metadata.target() == "pingora_core::apps::http_app" {
            return false;
        }
        let may = is_ours(metadata.target()) || metadata.level() <= Level::Info;
        may && self.0.load().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) && !is_no_fault(record) {
            self.0.load().log(record);
        }
    }

    fn flush(&self) {
        self.0.load().flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logger(all: LevelFilter, parts: &[(&'static str, LevelFilter)]) -> Logger {
        let levels = Levels { all, parts: parts.to_vec() };
        Logger(ArcSwap::from_pointee(built(&levels)))
    }

    fn says(logger: &Logger, target: &str, level: Level) -> bool {
        logger.enabled(&Metadata::builder().target(target).level(level).build())
    }

    #[test]
    fn each_part_has_its_level_and_foreign_ones_say_no_more_than_info() {
        let pool = ("gatekeeper::pool", LevelFilter::Debug);
        let ours = logger(LevelFilter::Info, &[pool, ("pingora", LevelFilter::Trace)]);
        assert!(says(&ours, "gatekeeper::pool::key", Level::Debug));
        assert!(!says(&ours, "gatekeeper::proxy", Level::Debug));
        assert!(says(&ours, "gatekeeper::proxy", Level::Info));
        assert!(says(&ours, "pingora_core::server", Level::Info));
        assert!(!says(&ours, "pingora_core::server", Level::Debug));
        assert!(!says(&ours, "redis", Level::Info) && says(&ours, "redis", Level::Warn));
        assert!(!says(&ours, "pingora_core::apps::http_app", Level::Error));
        let quiet = ("gatekeeper_filters", LevelFilter::Error);
        let quiet = logger(LevelFilter::Trace, &[quiet]);
        assert!(says(&quiet, "gatekeeper::proxy", Level::Trace));
        assert!(!says(&quiet, "gatekeeper_filters::quota", Level::Warn));
    }
}
