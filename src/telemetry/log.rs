//! The gateway's own log, on standard error.

use log::{Level, LevelFilter, Log, Metadata, Record};

/// Sends `log` to standard error. `RUST_LOG` sets levels; targets outside Gatekeeper are capped at
/// info whatever it says: Pingora prints headers at debug level. One of its modules prints the bytes
/// of a malformed request as an error; it is not heard at all.
pub fn start(level: LevelFilter) {
    let mut builder = env_logger::Builder::new();
    match std::env::var("RUST_LOG") {
        Ok(levels) => {
            builder.parse_filters(&levels);
        }
        Err(_) => {
            builder.filter_level(level.min(LevelFilter::Warn));
            builder.filter_module("gatekeeper", level);
            builder.filter_module("gatekeeper_filters", level);
        }
    }
    let inner = builder.build();
    let max = inner.filter();
    let capped = Capped(inner);
    if log::set_boxed_logger(Box::new(capped)).is_ok() {
        log::set_max_level(max);
    }
}

struct Capped(env_logger::Logger);

impl Log for Capped {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        if metadata.target() == "pingora_core::apps::http_app" {
            return false;
        }
        let ours = metadata.target().starts_with("gatekeeper");
        (ours || metadata.level() <= Level::Info) && self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}
