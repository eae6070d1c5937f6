//! The process: what is built once, and what runs in it.

pub mod ending;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use gatekeeper_filters::kernel::Registry;
use pingora_core::{
    apps::{HttpServerApp, HttpServerOptions},
    listeners::{ListenerConfig, tls::TlsSettings},
    protocols::{
        http::v2::server::{H2Options, default_h2_options},
        l4::stream::L4BufferSettings,
    },
    server::{Server, configuration::ServerConf},
    services::{background::background_service, listening::Service},
};

use self::ending::{Ending, Phase};
use crate::{
    admin::Admin,
    cli::RunArgs,
    config::{self, settings::Settings},
    ledger::Embedded,
    licenses::{Desk, Hasher},
    pool::{HealthBook, health, resolve::Resolver},
    proxy::{
        deadline::{Deadline, KEEPALIVE},
        gateway::Gateway,
    },
    snapshot::{Machine, Snapshot},
    stand_in::StandIn,
    telemetry::{self, Telemetry, access_log::AccessLog},
    upstream::peer::Connector,
    vault::pepper::{Pepper, pepper},
};

/// Read buffer of an app's connection, in bytes. Pingora's own 64 KiB are allocated and zeroed for
/// each connection, which is most of what an open stream costs.
const READ_BUFFER: usize = 4 * 1024;
const WRITE_BUFFER: usize = 1460;
/// Bytes of a request body an HTTP/2 client may send ahead.
const H2_WINDOW: u32 = 1024 * 1024;
/// Idle upstream connections kept, per thread.
const POOLED: usize = 256;

/// Runs the gateway until a signal ends it.
///
/// # Errors
/// The configuration, the store or a listener's certificate is unusable.
pub fn run(args: RunArgs, registry: Registry) -> anyhow::Result<()> {
    let (settings, warnings) = config::load(&args.config, &registry)?;
    telemetry::log::start(settings.log.level);
    for warning in &warnings {
        log::warn!("{}:{warning}", args.config.display());
    }
    serve(settings, &registry, &args.config.display().to_string(), None)
}

/// Runs the gateway with settings that are loaded already. `scratch` is a directory that is removed
/// at the end.
///
/// # Errors
/// The store or a listener's certificate is unusable.
pub fn serve(
    settings: Settings,
    registry: &Registry,
    source: &str,
    scratch: Option<PathBuf>,
) -> anyhow::Result<()> {
    health::start_clock();
    check_free(&settings)?;
    let store = Embedded::open(&settings.store.path, settings.store.keep)
        .with_context(|| format!("store {}", settings.store.path.display()))?;
    let configured = settings.vault.as_ref().map(pepper).transpose()?;
    let pepper = store.pepper(configured.as_ref().map(Pepper::expose))?;
    let access = AccessLog::open(&settings.log.access).context("`log.access` can't be written")?;
    let stand_in = StandIn::bind_if(settings.providers.iter().any(|p| p.base.stand_in))?;
    let telemetry = Telemetry::new(access);
    let licenses = Desk::open(&settings.store, Hasher::new(&pepper), telemetry.clone())
        .context("licences can't be looked up")?;
    let machine = Machine {
        ledger: store.clone(),
        telemetry,
        health: Arc::new(HealthBook::default()),
        licenses: licenses.clone(),
        stand_in: stand_in.as_ref().map(StandIn::address),
    };
    let snapshot = Snapshot::build(settings, registry, &machine)?;
    machine.telemetry.metrics.loaded();
    licenses.weigh(&snapshot.licenses.sources);
    licenses.probe(snapshot.licenses.sources.clone());
    let phase = Arc::new(Phase::default());
    let server = build(Arc::new(ArcSwap::from_pointee(snapshot)), &store, &phase, stand_in)?;
    log::info!("Gatekeeper starts with {source}.");
    let args = pingora_core::server::RunArgs {
        shutdown_signal: Box::new(Ending {
            telemetry: machine.telemetry,
            store,
            licenses,
            phase,
            grace: server.grace,
            scratch,
        }),
    };
    server.server.run(args);
    Ok(())
}

/// Pingora would try a taken address for half a minute and then go on without it.
fn check_free(settings: &Settings) -> anyhow::Result<()> {
    let listeners = [("server", settings.server.listen), ("admin", settings.admin.listen)];
    for (name, address) in listeners {
        anyhow::ensure!(
            address.port() != 0,
            "{name}.listen: port 0 is no address to be reached at"
        );
        std::net::TcpListener::bind(address).with_context(|| {
            format!("{name}.listen: {address} can't be had; end what uses it or choose another")
        })?;
    }
    Ok(())
}

struct Built {
    server: Server,
    grace: Duration,
}

fn build(
    snapshot: Arc<ArcSwap<Snapshot>>,
    store: &Arc<Embedded>,
    phase: &Arc<Phase>,
    stand_in: Option<StandIn>,
) -> anyhow::Result<Built> {
    let now = snapshot.load_full();
    let settings = &now.settings;
    let grace = settings.server.grace;
    let conf = ServerConf {
        threads: settings.server.threads,
        work_stealing: false,
        upstream_keepalive_pool_size: POOLED,
        // The end is `Ending`'s to decide; Pingora's own wait only has to be longer.
        grace_period_seconds: Some(grace.as_secs() + 60),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    let conf = server.configuration.clone();
    let gateway = Gateway::new(snapshot.clone(), Connector::new(&conf), phase.clone());
    let mut proxy = pingora_proxy::http_proxy(&conf, gateway);
    proxy.h2_options = Some(h2_options());
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(Duration::from_secs(KEEPALIVE));
    proxy.server_options = Some(options);
    let app = Deadline::new(proxy, settings.server.limits.header_timeout);
    server.add_service(public(app, settings)?);
    server.add_service(admin(&snapshot, store, phase, settings));
    let endpoints = now.providers.iter().map(|provider| provider.endpoint.clone()).collect();
    server.add_service(background_service("resolver", Resolver { endpoints }));
    if let Some(stand_in) = stand_in {
        server.add_service(background_service("stand-in", stand_in));
    }
    server.add_service(background_service(
        "announce",
        Announce {
            phase: phase.clone(),
            addresses: [settings.server.listen, settings.admin.listen],
        },
    ));
    Ok(Built { server, grace })
}

/// Pingora's bounded defaults, with windows that a body of some megabytes fits through at once.
fn h2_options() -> H2Options {
    let mut options = default_h2_options();
    options.initial_window_size(H2_WINDOW).initial_connection_window_size(2 * H2_WINDOW);
    options
}

fn public<A: HttpServerApp + Send + Sync + 'static>(
    app: A,
    settings: &Settings,
) -> anyhow::Result<Service<A>> {
    let mut service = Service::new("public".into(), app);
    service.threads = Some(settings.server.threads);
    let mut listener = ListenerConfig::tcp(settings.server.listen.to_string())
        .l4_buffer(L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER));
    if let Some(tls) = &settings.server.tls {
        let path =
            |path: &Path| path.to_str().map(str::to_owned).context("a path that is not UTF-8");
        let (cert, key) = (path(&tls.cert)?, path(&tls.key)?);
        let mut acceptor = TlsSettings::intermediate(&cert, &key)
            .with_context(|| format!("server.tls: {cert}, {key}"))?;
        acceptor.enable_h2();
        listener = listener.tls(acceptor);
    }
    service.add_listener(listener);
    Ok(service)
}

fn admin(
    snapshot: &Arc<ArcSwap<Snapshot>>,
    store: &Arc<Embedded>,
    phase: &Arc<Phase>,
    settings: &Settings,
) -> Service<Deadline<Admin>> {
    let app = Admin { snapshot: snapshot.clone(), store: store.clone(), phase: phase.clone() };
    let app = Deadline::new(app, settings.server.limits.header_timeout);
    let mut service = Service::new("admin".into(), app);
    service.threads = Some(1);
    service.add_tcp(&settings.admin.listen.to_string());
    service
}

/// Says "ready" once both listeners take connections.
struct Announce {
    phase: Arc<Phase>,
    addresses: [std::net::SocketAddr; 2],
}

#[async_trait]
impl pingora_core::services::background::BackgroundService for Announce {
    async fn start(&self, _shutdown: pingora_core::server::ShutdownWatch) {
        for address in self.addresses {
            while tokio::net::TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        // Unless a signal came first.
        self.phase.serve();
        let [public, admin] = self.addresses;
        log::info!("Gatekeeper serves apps on {public}, operators on {admin}.");
    }
}

/// A core dump would hold every secret. It can't be switched off where the kernel refuses.
pub fn no_core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        log::warn!("Core dumps can't be switched off: {error}.");
    }
}
