//! The checked tree to plain values: names resolved, secrets opened, rules that need more than one
//! field. What `check` has reported already is passed over in silence.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use gatekeeper_filters::kernel::Registry;
use secrecy::{ExposeSecret, SecretString};

use self::{field_reader::FieldReader, models::Costs};
use super::{
    Secrets,
    definition::FILE,
    diagnostics::{Diagnostics, did_you_mean},
    secrets::{ABSENT, SecretLoader, is_readable_by_all},
    settings::{
        AccessLogSettings, AdminSettings, LogSettings, OnStoreDown, RedisSettings, ServerLimits,
        ServerSettings, Settings, StoreSettings, Tls,
    },
    source_files::SourceFiles,
    yaml::{Node, ScalarType},
};
use crate::{
    logging::{Levels, PARTS, is_ours},
    redis_store::url::RedisUrl,
    tls::{Certificate, CertificateError},
    vault::{Kek, KekSource, Pepper, VaultKeys, pepper::PLACE},
};

mod doubtful;
mod field_reader;
mod filters;
mod licenses;
mod model_options;
mod models;
mod prompts;
mod providers;
mod smart_models;

/// Bytes of a certificate with its chain, or of a key.
const LARGEST_PEM: u64 = 1 << 20;

/// `None` when something it needs is missing; then there is a problem, too.
pub(super) fn compile(
    root: &Node,
    registry: &Registry,
    secrets: Secrets,
    report: &mut Diagnostics,
) -> Option<Settings> {
    let empty = Node::empty();
    // A file that is not a mapping has been reported; below it is one without any field.
    let root = if root.looks() == ScalarType::Map { root } else { &empty };
    let view = FieldReader::root(root, FILE.fields());

    let server = server(&view.sub("server"), secrets, report);
    let mut opener = SecretLoader { secrets, vault: None, has_vault: root.get("vault").is_some() };
    let vault = vault(&view.sub("vault"), &opener, report);
    opener.vault = vault.as_ref();
    let admin = admin(&view.sub("admin"), secrets, &opener, report);
    let providers = providers::compile(&view, &opener, report);
    let budget = view.budget();
    let costs = Costs { prices: models::prices(&view, &providers, report), budget };
    let models = Arc::new(models::compile(&view, &providers, &costs, report));
    let buy_url = view.sub("licenses").text("buy_url").map(Arc::from);
    let plans = licenses::plans(&view, buy_url.as_ref(), report);
    let prompts = Arc::new(prompts::compile(&view, &models, &plans, report));
    smart_models::check_plans(&view, &plans, &models, report);
    let licenses = licenses::licenses(&view.sub("licenses"), &plans, buy_url, &opener, report);
    licenses::warn_of_guessable_keys(&view.sub("licenses"), &licenses, &providers.list, report);
    let services = super::null_ports::services(models.clone(), licenses.buy_url.clone());
    let (filters, filter_lines) = filters::compile(&view, registry, &services, report);
    doubtful::warn(&view, &providers, &models, report);
    let (server, admin) = (server?, admin?);
    if server.listen == admin.listen && server.listen.port() != 0 {
        let admin = view.sub("admin");
        report.problem(admin.at("listen"), admin.path("listen"), "the same as server.listen");
    }
    let store = store(&view.sub("store"), &opener, report);
    Some(Settings {
        server,
        admin,
        vault,
        store,
        licenses,
        plans,
        providers: providers.list,
        models,
        prompts,
        budget,
        waste_per_licence: view.waste_per_licence(),
        plan_prices: licenses::plan_prices(&view),
        filters,
        filter_lines,
        log: log(&view.sub("log"), report),
        files: SourceFiles::default(),
    })
}

fn server(
    view: &FieldReader<'_>,
    secrets: Secrets,
    report: &mut Diagnostics,
) -> Option<ServerSettings> {
    let limits = view.sub("limits");
    limits.positive(&["body", "header_timeout", "buffered"], report);
    let listen: SocketAddr = view.text("listen")?.parse().ok()?;
    let behind_tls = view.bool("behind_tls");
    let networks = view.node("trusted_proxies").map(Node::items).unwrap_or_default();
    let server = ServerSettings {
        listen,
        threads: match view.int("threads") {
            Some(threads) => threads as usize,
            None => std::thread::available_parallelism().map_or(1, usize::from),
        },
        grace: view.duration("grace"),
        tls: tls(&view.sub("tls"), secrets, report),
        behind_tls,
        trusted_proxies: networks.iter().filter_map(|n| n.text()?.parse().ok()).collect(),
        limits: ServerLimits {
            body: limits.size("body"),
            header_timeout: limits.duration("header_timeout"),
            buffered: limits.node("buffered").map(|_| limits.size("buffered")),
            requests: limits.int("requests"),
            connections_per_address: limits.int("connections_per_address").map(|n| n as usize),
        },
    };
    port(view, listen, report);
    if !listen.ip().is_loopback() && view.node("tls").is_none() && !behind_tls {
        let message = "licence keys would cross the network in clear: set `tls`, or \
                       `behind_tls: true` where something in front of the gateway speaks TLS";
        report.problem(view.at("listen"), view.path("listen"), message);
    }
    if !server.limits_by_address() {
        let message = "limits by address are off: all apps come from the address of what speaks TLS in front of \
                       the gateway. Name its network in `trusted_proxies`";
        report.warn(view.at("behind_tls"), view.path("behind_tls"), message);
    }
    Some(server)
}

/// A port that is chosen anew at each start is none that apps and Prometheus could know.
fn port(view: &FieldReader<'_>, listen: SocketAddr, report: &mut Diagnostics) {
    if listen.port() == 0 {
        let message = "port 0 is not allowed: choose a fixed port";
        report.problem(view.at("listen"), view.path("listen"), message);
    }
}

fn tls(view: &FieldReader<'_>, secrets: Secrets, report: &mut Diagnostics) -> Option<Tls> {
    let mut is_here = true;
    for field in ["cert", "key"] {
        let Some(path) = view.text(field) else { continue };
        report.files.note(Path::new(path));
        let Err(error) = readable(Path::new(path)) else { continue };
        is_here = false;
        let message = format!("{path}: {error}");
        let absent = error.kind() == io::ErrorKind::NotFound;
        if absent && secrets == Secrets::MayBeAbsent {
            report.warn(view.at(field), view.path(field), message);
        } else {
            report.problem(view.at(field), view.path(field), message);
        }
    }
    let (cert, key): (PathBuf, PathBuf) = (view.text("cert")?.into(), view.text("key")?.into());
    if is_here && is_readable_by_all(&key) {
        let key = key.display();
        let message = format!("{key} can be read by every user of this machine; chmod 600 {key}");
        report.warn(view.at("key"), view.path("key"), message);
    }
    let pair = is_here.then(|| Certificate::load(&cert, &key)).and_then(|loaded| {
        let told = |error: CertificateError| {
            report.problem(view.at("cert"), view.path("cert"), error.to_string());
        };
        loaded.map_err(told).ok()
    });
    Some(Tls { cert, key, pair })
}

/// Whether a file can be read to its end: a pipe would hang, a device would never end.
fn readable(path: &Path) -> io::Result<()> {
    let told = fs::metadata(path)?;
    if !told.is_file() {
        return Err(io::Error::other("not a file"));
    }
    if told.len() > LARGEST_PEM {
        return Err(io::Error::other("larger than 1 MiB, so not a certificate or a key"));
    }
    fs::File::open(path).map(drop)
}

/// Characters of an admin token: no rate of guessing finds one that is random.
const TOKEN_LENGTH: usize = 16;

fn token(
    view: &FieldReader<'_>,
    field: &str,
    opener: &SecretLoader<'_>,
    report: &mut Diagnostics,
) -> Option<SecretString> {
    let node = view.node(field)?;
    let token = opener.plain(node, &view.path(field), report)?;
    let is_short = token.expose_secret().chars().count() < TOKEN_LENGTH;
    if is_short && token.expose_secret() != ABSENT {
        let message = format!(
            "shorter than {TOKEN_LENGTH} characters; make one with `openssl rand -base64 24`"
        );
        report.problem(node.at, view.path(field), message);
    }
    Some(token)
}

fn admin(
    view: &FieldReader<'_>,
    secrets: Secrets,
    opener: &SecretLoader<'_>,
    report: &mut Diagnostics,
) -> Option<AdminSettings> {
    let listen: SocketAddr = view.text("listen")?.parse().ok()?;
    let is_none = view.text("token") == Some("none");
    let has_token = view.node("token").is_some() && !is_none;
    let behind_tls = view.bool("behind_tls");
    port(view, listen, report);
    if !has_token && !listen.ip().is_loopback() {
        let message = "off loopback the admin listener needs a `token` (`env:NAME` or `file:PATH`)";
        report.problem(view.at("listen"), view.path("listen"), message);
    }
    if view.node("tls").is_none() && !behind_tls && !listen.ip().is_loopback() {
        let message = "the admin token would cross the network in clear: set `tls`, or \
                       `behind_tls: true` where TLS ends in front of it or the network is private";
        report.problem(view.at("listen"), view.path("listen"), message);
    }
    if !has_token && view.node("read_token").is_some() {
        let message = "goes with `token` only: without one, reading needs no token either";
        report.problem(view.at("read_token"), view.path("read_token"), message);
    }
    let hosts = view.node("hosts").map(Node::items).unwrap_or_default();
    Some(AdminSettings {
        listen,
        token: if has_token { token(view, "token", opener, report) } else { None },
        read_token: token(view, "read_token", opener, report),
        tls: tls(&view.sub("tls"), secrets, report),
        behind_tls,
        no_token: is_none,
        hosts: hosts.iter().filter_map(|host| Some(host.text()?.to_ascii_lowercase())).collect(),
    })
}

fn vault(
    view: &FieldReader<'_>,
    opener: &SecretLoader<'_>,
    report: &mut Diagnostics,
) -> Option<VaultKeys> {
    let mut load = |field: &str| {
        let (node, path) = (view.node(field)?, view.path(field));
        let Some(source) = node.text().and_then(KekSource::parse) else {
            report.problem(node.at, path, "expected `env:NAME` or `file:PATH`");
            return None;
        };
        if let KekSource::File(file) = &source {
            report.files.note(file);
        }
        if matches!(source, KekSource::Env(_)) {
            let message = "a KEK in the environment is visible to every process that may read \
                           /proc of this one; a file is better";
            report.warn(node.at, &path, message);
        }
        Kek::load(&source)
            .map(Arc::new)
            .map_err(|error| opener.kek_trouble(node, &path, &error, report))
            .ok()
    };
    let (kek, previous) = (load("kek"), load("previous"));
    if previous.is_none() && view.node("previous").is_some() {
        // With half a vault, secrets that do open would be reported as failing.
        return None;
    }
    let mut vault = VaultKeys { kek: kek?, previous, pepper: None };
    if let Some(node) = view.node("pepper") {
        let opener = SecretLoader { secrets: opener.secrets, vault: Some(&vault), has_vault: true };
        let path = view.path("pepper");
        let text = opener.open(node, PLACE, &path, report)?;
        match Pepper::decode(&text) {
            Ok(_) => vault.pepper = Some(text),
            Err(_) if text.expose_secret() == ABSENT => {}
            Err(error) => report.problem(node.at, path, error.to_string()),
        }
    }
    Some(vault)
}

fn store(
    view: &FieldReader<'_>,
    opener: &SecretLoader<'_>,
    report: &mut Diagnostics,
) -> StoreSettings {
    StoreSettings {
        path: PathBuf::from(view.text("path").unwrap_or_default()),
        redis: (view.text("kind") == Some("redis")).then(|| redis(view, opener, report)).flatten(),
        keep: view.duration("keep"),
    }
}

/// Redis; a URL with a password stands outside this file.
fn redis(
    view: &FieldReader<'_>,
    opener: &SecretLoader<'_>,
    report: &mut Diagnostics,
) -> Option<RedisSettings> {
    let (at, path) = (view.at("url"), view.path("url"));
    let Some(node) = view.node("url") else {
        let message = "missing: where Redis is, like `redis://10.0.0.5:6379`";
        report.problem(view.at("kind"), path, message);
        return None;
    };
    let text = node.text()?;
    let url = if KekSource::parse(text).is_some() {
        opener.plain(node, &path, report)?
    } else {
        SecretString::from(text)
    };
    if url.expose_secret() != ABSENT {
        if RedisUrl::holds_password(url.expose_secret()) && KekSource::parse(text).is_none() {
            let message = "a password must not stand here in clear: use `env:NAME` or `file:PATH`";
            report.problem(at, path, message);
            return None;
        }
        if let Err(message) = RedisUrl::parse(url.expose_secret()) {
            report.problem(at, path, message);
            return None;
        }
    }
    Some(RedisSettings {
        url,
        on_store_down: match view.text("on_store_down") {
            Some("closed") => OnStoreDown::Closed,
            _ => OnStoreDown::Lease,
        },
        unsafe_eviction: view.bool("unsafe_eviction"),
    })
}

fn log(view: &FieldReader<'_>, report: &mut Diagnostics) -> LogSettings {
    let access = match view.text("access").unwrap_or_default() {
        "off" => AccessLogSettings::Off,
        "stdout" => AccessLogSettings::Stdout,
        other => match other.strip_prefix("file:") {
            Some(path) if !path.is_empty() => AccessLogSettings::File(path.into()),
            _ => {
                let message = "expected `stdout`, `off` or `file:PATH`";
                report.problem(view.at("access"), view.path("access"), message);
                AccessLogSettings::Off
            }
        },
    };
    let level = view.text("level").and_then(|level| level.parse().ok());
    let all = level.unwrap_or(log::LevelFilter::Info);
    LogSettings { access, levels: Levels { all, parts: levels(view, report) } }
}

fn levels(
    view: &FieldReader<'_>,
    report: &mut Diagnostics,
) -> Vec<(&'static str, log::LevelFilter)> {
    let mut parts = Vec::new();
    for entry in view.node("levels").map(Node::entries).unwrap_or_default() {
        let path = format!("{}.{}", view.path("levels"), entry.key);
        let Some((_, targets)) = PARTS.iter().find(|(name, _)| *name == entry.key) else {
            let known: Vec<_> = PARTS.iter().map(|(name, _)| *name).collect();
            let message = format!(
                "no such part{}; parts are {}",
                did_you_mean(&entry.key, known.iter().copied()),
                known.join(", ")
            );
            report.problem(entry.key_at, path, message);
            continue;
        };
        let Some(level) = entry.value.text().and_then(|level| level.parse().ok()) else { continue };
        if level > log::LevelFilter::Info && !targets.iter().any(|target| is_ours(target)) {
            let message = "third-party module: its log level is capped at `info`";
            report.warn(entry.value.at, path, message);
        }
        parts.extend(targets.iter().map(|target| (*target, level)));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_read_from_a_file_of_some_size_alone() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let pipe = at("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let says = |path: &Path| readable(path).unwrap_err().to_string();
        for other in [&*pipe, dir.path(), Path::new("/dev/zero")] {
            assert_eq!(says(other), "not a file", "{}", other.display());
        }
        assert_eq!(readable(&at("nothing")).unwrap_err().kind(), io::ErrorKind::NotFound);
        for (length, fits) in [(0, true), (1 << 20, true), ((1 << 20) + 1, false)] {
            let path = at("file.pem");
            fs::File::create(&path).unwrap().set_len(length).unwrap();
            assert_eq!(readable(&path).is_ok(), fits, "{length}");
        }
        assert!(says(&at("file.pem")).contains("larger than 1 MiB"));
    }
}
