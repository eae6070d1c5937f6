//! The process: what is built once, and what runs in it.

mod bootstrap;
mod license_keeper;
pub mod listener;
mod memory_protection;
mod periodic_save;
mod ready_notifier;
mod rules;
pub mod shutdown;

pub use self::{bootstrap::operate, memory_protection::protect_memory};

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use anyhow::Context;
use arc_swap::ArcSwap;
use gatekeeper_filters::kernel::{Ledger, Registry, UnixMs};
use pingora_core::{
    apps::{HttpServerApp, HttpServerOptions},
    protocols::http::v2::server::{H2Options, default_h2_options},
    server::{Server, configuration::ServerConf},
    services::background::background_service,
};

use self::{
    bootstrap::Stores, license_keeper::LicenseKeeper, listener::ListenerService,
    periodic_save::Keeper, ready_notifier::ReadyNotifier, shutdown::Shutdown,
};
use crate::{
    admin::{AdminApp, AdminAuth, Assets, FeedBroadcaster, FeedTicker},
    budget::SpendTracker,
    config::{
        self, Problems,
        mask::mask,
        settings::{self, Settings},
    },
    downstream::{
        connections::{Connections, Room},
        refusal::Refuser,
        request_id::RequestIds,
        serve::{KEEPALIVE, Service, SessionGuard},
    },
    ledger::{DistributedLedger, EmbeddedLedger},
    license_admin::LicenseAdmin,
    lifecycle::Lifecycle,
    os::sockets::{Listeners, Socket},
    os::{fd_limit::FdBudget, memory_limit},
    peer_sync::PeerSync,
    pool::{HealthRegistry, backoff, dns::Resolver},
    proxy::{gateway::Gateway, malformed},
    redis_store::RedisStore,
    reload::{ReloadStatus, Reloader, file_watcher},
    runtime::snapshot::{SharedState, Snapshot},
    stand_in::StandIn,
    telemetry::daily_totals::DailyTotals,
    tls::CertificateResolver,
    upgrade::{self, Predecessor, RuntimeDir, SwitchableLedger, UpgradeServer, UpgradeState},
    upstream::{
        connector::{Connector, IdleSweeper, root_certificates},
        health_probe::Prober,
    },
};

/// Bytes of a request body an HTTP/2 client may send ahead.
const H2_WINDOW: u32 = 1024 * 1024;
/// HTTP/2 streams that were refused, per connection, and how long each is remembered.
const REMEMBERED: usize = 1000;
const REMEMBERED_FOR: Duration = Duration::from_secs(30);
/// Idle upstream connections kept, per thread, where there are file descriptors for them.
const POOLED: usize = 256;

/// Runs the gateway until a signal ends it.
///
/// # Errors
/// The configuration, the store or a listener's certificate is unusable.
pub fn run(file: PathBuf, is_successor: bool, registry: Registry) -> anyhow::Result<()> {
    shutdown::block_signals_until_ready().context("signals can't be received")?;
    // What this prints ends in the journal.
    let (settings, warnings) = config::load(&file, &registry).map_err(Problems::masked)?;
    crate::logging::start(&settings.log.levels);
    for warning in &warnings {
        log::warn!("{}:{}", file.display(), mask(&warning.to_string()));
    }
    let predecessor = match is_successor {
        true => upgrade::receiver::wait(&file, &settings)?,
        false => None,
    };
    let source = SettingsSource::File { path: file };
    let served = serve(settings, registry, source, predecessor.clone());
    if let (Err(problem), Some(predecessor)) = (&served, &predecessor) {
        predecessor.failed(&format!("{problem:#}"));
    }
    served
}

/// Where the settings come from.
pub enum SettingsSource {
    /// A file that can be read again.
    File { path: PathBuf },
    /// The built-in demo; its directory is removed at the end.
    Demo { scratch: PathBuf },
}

impl fmt::Display for SettingsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingsSource::File { path } => path.display().fmt(f),
            SettingsSource::Demo { .. } => f.write_str("the built-in demo"),
        }
    }
}

/// Runs the gateway with settings that are loaded already, in the place of `predecessor` if there is one.
///
/// # Errors
/// The store or a listener's certificate is unusable.
pub fn serve(
    settings: Settings,
    registry: Registry,
    source: SettingsSource,
    predecessor: Option<Arc<Predecessor>>,
) -> anyhow::Result<()> {
    backoff::start_clock();
    let descriptors = FdBudget::raise().context("no file can be opened")?;
    let sockets = sockets(&settings, predecessor.as_deref())?;
    let stand_in = StandIn::bind_if(settings.providers.iter().any(|p| p.base.stand_in))?;
    let inherited = predecessor.as_deref().and_then(Predecessor::inherited);
    let opened = Stores::inherit(&settings, &settings.log.access, inherited)?;
    let Stores { store, shared, licenses, .. } = &opened;
    let (store, shared, licenses) = (store.clone(), shared.clone(), licenses.clone());
    let ledger = shared.clone().map_or(store.clone() as Arc<dyn Ledger>, |shared| shared);
    let ledger = SwitchableLedger::new(ledger, store.clone());
    let machine = machine(&opened, ledger.clone(), stand_in.as_ref())?;
    let kept = settings.store.clone();
    let now = UnixMs::now();
    machine.telemetry.live.used(&DailyTotals::of_models(now, store.by_model(now)?));
    machine.telemetry.webhooks.restore(store.webhooks()?);
    let snapshot = Snapshot::build(settings, &registry, &machine)?;
    machine.telemetry.metrics.loaded();
    if let Some(redis) = opened.redis() {
        let peers = peers(redis, &store, &snapshot.settings, &machine)?;
        opened.listen(vec![peers.subscriber()]);
        peers.start(machine.health.subscribe());
    }
    if let Some(predecessor) = &predecessor {
        predecessor.keep(ledger.clone(), &store, shared.clone(), &machine)?;
    }
    licenses.weigh(&snapshot.licenses.sources);
    licenses.probe(snapshot.licenses.sources.clone());
    let phase = Arc::new(Lifecycle::default());
    let ports = Arc::new(Listeners::default());
    let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
    let history = ReloadStatus::begin(source.to_string());
    let file = match &source {
        SettingsSource::File { path } => Some(path.clone()),
        SettingsSource::Demo { .. } => None,
    };
    let (reload, scratch) = match source {
        SettingsSource::Demo { scratch } => (None, Some(scratch)),
        SettingsSource::File { path } => {
            let (machine, store, snapshot) = (machine.clone(), store.clone(), snapshot.clone());
            let (history, phase) = (history.clone(), phase.clone());
            let reload = Reloader::new(path, registry, machine, store, snapshot, history, phase);
            (Some(Arc::new(reload)), None)
        }
    };
    let mut parts = Services {
        snapshot: snapshot.clone(),
        machine: machine.clone(),
        ledger: ledger.clone(),
        store: store.clone(),
        shared: shared.clone(),
        phase: phase.clone(),
        history: history.clone(),
        reload: reload.clone(),
        stand_in,
        descriptors,
        sockets,
        ports: ports.clone(),
        predecessor: predecessor.clone(),
        handover: None,
    };
    if let Some(path) = &file {
        parts.handover = parts.handover(path, &kept);
    }
    let handover = parts.handover.clone();
    let (server, sessions) = parts.build()?;
    log::info!("Gatekeeper starts with {}.", history.source);
    if let Some(reload) = &reload {
        file_watcher::begin(reload).context("no thread can be started")?;
    }
    let telemetry = machine.telemetry.clone();
    let args = pingora_core::server::RunArgs {
        shutdown_signal: Box::new(Shutdown {
            reload,
            telemetry,
            store,
            shared,
            licenses,
            phase,
            snapshot,
            scratch,
            ledger,
            ports,
            sessions,
            handover,
            predecessor,
            spending: machine.spending.clone(),
        }),
    };
    server.run(args);
    Ok(())
}

/// What outlives every configuration.
fn machine(
    opened: &Stores,
    ledger: Arc<SwitchableLedger>,
    stand_in: Option<&StandIn>,
) -> anyhow::Result<SharedState> {
    let Stores { store, licenses, telemetry, .. } = opened;
    Ok(SharedState {
        ledger,
        telemetry: telemetry.clone(),
        health: Arc::new(HealthRegistry::new(licenses.hasher.clone())),
        licenses: licenses.clone(),
        spending: Arc::new(spent_today(store)?),
        endpoints: Arc::default(),
        buffered: Arc::default(),
        drains: Arc::default(),
        webhooks: Arc::default(),
        replays: Arc::default(),
        conversations: Arc::default(),
        certificate: Arc::default(),
        admin_certificate: Arc::default(),
        stand_in: stand_in.map(StandIn::address),
    })
}

fn peers(
    redis: &Arc<RedisStore>,
    store: &Arc<EmbeddedLedger>,
    settings: &Settings,
    machine: &SharedState,
) -> anyhow::Result<Arc<PeerSync>> {
    Ok(Arc::new(PeerSync {
        store: redis.clone(),
        gateway: store.gateway()?,
        local: store.clone(),
        database: settings.store.path.clone(),
        spending: machine.spending.clone(),
        health: machine.health.clone(),
        telemetry: machine.telemetry.clone(),
    }))
}

/// What the store knows of today's costs.
fn spent_today(store: &EmbeddedLedger) -> anyhow::Result<SpendTracker> {
    let (spending, now) = (SpendTracker::default(), UnixMs::now());
    for (provider, picodollars) in store.spent(now)? {
        spending.add(&provider, picodollars, now);
    }
    for (license, picodollars) in store.wasted(now)? {
        spending.add_waste(&license, picodollars, now);
    }
    spending.unseen_rates.restore(store.unseen()?);
    Ok(spending)
}

/// `pooled` idle connections may be open to providers.
fn pingora_conf(threads: usize, pooled: usize) -> ServerConf {
    ServerConf {
        threads,
        work_stealing: false,
        upstream_keepalive_pool_size: POOLED.min(pooled / threads).max(1),
        graceful_shutdown_timeout_seconds: Some(1),
        ca_file: root_certificates(),
        ..ServerConf::default()
    }
}

/// Those of the predecessor, and those it did not have. Pingora would try a taken address for half a
/// minute and then go on without it.
fn sockets(settings: &Settings, predecessor: Option<&Predecessor>) -> anyhow::Result<[Socket; 2]> {
    let mut inherited = predecessor.map(Predecessor::sockets).unwrap_or_default();
    let mut socket = |name, address: std::net::SocketAddr| {
        let text = address.to_string();
        match inherited.iter().position(|socket| *socket.address == *text) {
            Some(at) => Ok(inherited.swap_remove(at)),
            None => Socket::bind(name, address),
        }
    };
    Ok([socket("server", settings.server.listen)?, socket("admin", settings.admin.listen)?])
}

/// Where a successor finds this process; without it nothing can be handed over.
fn place(config: &Path, store: &Path) -> Option<RuntimeDir> {
    let place = RuntimeDir::prepare(config, store);
    place
        .inspect_err(|problem| {
            log::warn!("The control socket for upgrades cannot be created: {problem}.")
        })
        .ok()
}

/// What the services are made of.
struct Services {
    snapshot: Arc<ArcSwap<Snapshot>>,
    machine: SharedState,
    ledger: Arc<SwitchableLedger>,
    store: Arc<EmbeddedLedger>,
    shared: Option<Arc<DistributedLedger>>,
    phase: Arc<Lifecycle>,
    history: Arc<ReloadStatus>,
    reload: Option<Arc<Reloader>>,
    stand_in: Option<StandIn>,
    sockets: [Socket; 2],
    ports: Arc<Listeners>,
    predecessor: Option<Arc<Predecessor>>,
    handover: Option<Arc<UpgradeServer>>,
    descriptors: Arc<FdBudget>,
}

impl Services {
    /// What a successor gets, if there is a place to meet it.
    fn handover(
        &self,
        config: &Path,
        store: &settings::StoreSettings,
    ) -> Option<Arc<UpgradeServer>> {
        let place = place(config, &store.path)?;
        Some(Arc::new(UpgradeServer {
            place,
            config: config.to_owned(),
            kind: upgrade::receiver::kind(store),
            phase: self.phase.clone(),
            ports: self.ports.clone(),
            sockets: self.sockets.to_vec(),
            ledger: self.ledger.clone(),
            store: self.store.clone(),
            shared: self.shared.clone(),
            licenses: self.machine.licenses.clone(),
            spending: self.machine.spending.clone(),
            telemetry: self.machine.telemetry.clone(),
            predecessor: self.predecessor.clone(),
            steps: UpgradeState::default(),
        }))
    }

    /// With the number of the apps' requests and idle connections.
    fn build(self) -> anyhow::Result<(Server, Arc<AtomicUsize>)> {
        let now = self.snapshot.load_full();
        let settings = &now.settings;
        let threads = settings.server.threads;
        let conf = pingora_conf(threads, self.descriptors.pooled());
        let mut server = Server::new_with_opt_and_conf(None, conf);
        let conf = server.configuration.clone();
        let connector = Arc::new(Connector::new(&conf).within(self.descriptors.clone()));
        let ids = Arc::new(RequestIds::default());
        let (snapshot, phase) = (self.snapshot.clone(), self.phase.clone());
        let gateway = Gateway::new(snapshot.clone(), connector.clone(), phase, ids.clone());
        let mut proxy = pingora_proxy::http_proxy(&conf, gateway);
        proxy.h2_options = Some(h2_options());
        let mut options = HttpServerOptions::default();
        options.h2_idle_timeout = Some(Duration::from_secs(KEEPALIVE));
        proxy.server_options = Some(options);
        let room = Room::Shared(self.descriptors.clone(), memory_limit::connections());
        let refuser = malformed::PublicRefusals { snapshot: snapshot.clone(), ids: ids.clone() };
        let mut app = service(proxy, Connections::new(room), refuser);
        app.ignores_headers = true;
        let sessions = app.connections.count();
        let rules = Arc::new(rules::PublicRules(snapshot.clone()));
        let [public, operators] = self.sockets;
        let threads = settings.server.threads;
        let tls = show("server", &settings.server.tls, &self.machine.certificate)?;
        let admin_tls = show("admin", &settings.admin.tls, &self.machine.admin_certificate)?;
        let mut count = 2;
        if let Some(predecessor) = &self.predecessor {
            let path = predecessor.place.via(&predecessor.place.apps());
            let socket = Socket::bind_path(path)?;
            let (app, rules) = (app.clone(), rules.clone());
            server.add_service(ListenerService::new(
                "predecessor",
                threads,
                socket,
                app,
                rules,
                &self.ports,
            ));
            count += 1;
        }
        let apps = ListenerService::new("public", threads, public, app, rules, &self.ports);
        server.add_service(match tls {
            Some(tls) => apps.with_tls(tls),
            None => apps,
        });
        let announce = ReadyNotifier {
            phase: self.phase.clone(),
            addresses: [settings.server.listen, settings.admin.listen],
            ports: self.ports.clone(),
            count,
            shared: self.shared.clone(),
            predecessor: self.predecessor,
            handover: self.handover,
        };
        let (store, telemetry) = (self.store.clone(), self.machine.telemetry.clone());
        let keeper = Keeper { store, spending: self.machine.spending, telemetry };
        let licenses = LicenseKeeper { snapshot: self.snapshot.clone(), phase: self.phase.clone() };
        let resolver = Resolver { endpoints: self.machine.endpoints };
        // Its own connections: those of the workers belong to their threads.
        let probing = Arc::new(Connector::new(&conf));
        let sweeper = IdleSweeper { connectors: vec![connector, probing.clone()] };
        let prober = Prober { snapshot: self.snapshot.clone(), connector: probing.clone() };
        let hub = FeedBroadcaster::new(self.machine.telemetry);
        let ticker = FeedTicker { hub: hub.clone(), phase: self.phase.clone() };
        let admin = AdminApp {
            access: AdminAuth::new(&settings.store.path),
            hub,
            page: Assets::load(),
            connector: probing,
            snapshot: self.snapshot.clone(),
            operator: LicenseAdmin { store: self.store, shared: self.shared },
            phase: self.phase,
            ledger: self.ledger,
            history: self.history,
            reload: self.reload,
        };
        let room = Room::Fixed(self.descriptors.for_operators());
        let refuser = malformed::AdminRefusals { snapshot: snapshot.clone(), ids };
        let admin = service(admin, Connections::new(room), refuser);
        let rules = Arc::new(rules::AdminRules(snapshot));
        let operators = ListenerService::new("admin", 1, operators, admin, rules, &self.ports);
        server.add_service(match admin_tls {
            Some(tls) => operators.with_tls(tls),
            None => operators,
        });
        server.add_service(background_service("keeper", keeper));
        server.add_service(background_service("licences", licenses));
        server.add_service(background_service("feed", ticker));
        server.add_service(background_service("resolver", resolver));
        server.add_service(background_service("prober", prober));
        server.add_service(background_service("idle connections", sweeper));
        if let Some(stand_in) = self.stand_in {
            server.add_service(background_service("stand-in", stand_in));
        }
        server.add_service(background_service("announce", announce));
        Ok((server, sessions))
    }
}

/// Sets the certificate of a TLS listener.
fn show(
    listener: &str,
    tls: &Option<settings::Tls>,
    shown: &Arc<CertificateResolver>,
) -> anyhow::Result<Option<Arc<CertificateResolver>>> {
    let Some(tls) = tls else { return Ok(None) };
    let missing = || format!("{listener}.tls: the certificate is not here");
    shown.set(tls.pair.as_ref().with_context(missing)?);
    Ok(Some(shown.clone()))
}

/// An app with its connections.
fn service<A: HttpServerApp + Send + Sync + 'static>(
    app: A,
    connections: Arc<Connections>,
    refuser: impl Refuser,
) -> Service<A> {
    let app = Arc::new(SessionGuard::new(app, connections.clone()));
    Service { app, connections, refuser: Arc::new(refuser), ignores_headers: false }
}

/// Pingora's bounded defaults, with windows that a body of some megabytes fits through at once. Streams that were
/// refused are remembered while frames of them may be on their way: a frame of a forgotten one counts as an offence, and
/// a connection that many share ends after some.
fn h2_options() -> H2Options {
    let mut options = default_h2_options();
    options.initial_window_size(H2_WINDOW).initial_connection_window_size(2 * H2_WINDOW);
    options.max_concurrent_reset_streams(REMEMBERED).reset_stream_duration(REMEMBERED_FOR);
    options
}
