//! The process: what is built once, and what runs in it.

pub mod ending;
mod open;

pub use self::open::operate;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use gatekeeper_filters::kernel::{Ledger, Registry, UnixMs};
use parking_lot::Mutex;
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

use self::{
    ending::{Ending, Phase},
    open::Opened,
};
use crate::{
    admin::{Access, Admin, Hub, Page, Ticker},
    cli::RunArgs,
    config::{self, settings::Settings},
    fleet::Fleet,
    ledger::{Embedded, Shared},
    operator::Operator,
    pool::{HealthBook, resolve::Resolver, rest},
    proxy::{
        deadline::{Deadline, KEEPALIVE},
        gateway::Gateway,
    },
    reload::{
        History, Reload,
        watch::{self, Stamp},
    },
    snapshot::{Machine, Snapshot},
    spending::Spending,
    stand_in::StandIn,
    store::Store,
    telemetry::{
        self,
        today::{self, ModelDay, Today},
    },
    upstream::{peer::Connector, probe::Prober},
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
    // Before it is read: what is saved meanwhile is noticed.
    let seen = Stamp::of(&args.config);
    let (settings, warnings) = config::load(&args.config, &registry)?;
    telemetry::log::start(&settings.log.levels);
    for warning in &warnings {
        log::warn!("{}:{warning}", args.config.display());
    }
    serve(settings, registry, Source::File { path: args.config, seen })
}

/// Where the settings come from.
pub enum Source {
    /// A file that can be read again; what it was when it was read.
    File { path: PathBuf, seen: Option<Stamp> },
    /// The built-in demo; its directory is removed at the end.
    Demo { scratch: PathBuf },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File { path, .. } => path.display().fmt(f),
            Source::Demo { .. } => f.write_str("the built-in demo"),
        }
    }
}

/// Runs the gateway with settings that are loaded already.
///
/// # Errors
/// The store or a listener's certificate is unusable.
pub fn serve(settings: Settings, registry: Registry, source: Source) -> anyhow::Result<()> {
    rest::start_clock();
    check_free(&settings)?;
    let stand_in = StandIn::bind_if(settings.providers.iter().any(|p| p.base.stand_in))?;
    let opened = Opened::open(&settings, &settings.log.access)?;
    let Opened { store, shared, licenses, telemetry, .. } = &opened;
    let (store, shared, licenses) = (store.clone(), shared.clone(), licenses.clone());
    let machine = Machine {
        ledger: shared.clone().map_or(store.clone() as Arc<dyn Ledger>, |shared| shared),
        telemetry: telemetry.clone(),
        health: Arc::new(HealthBook::new(licenses.hasher.clone())),
        licenses: licenses.clone(),
        spending: Arc::new(spent_today(&store)?),
        endpoints: Arc::default(),
        buffered: Arc::default(),
        drains: Arc::default(),
        conversations: Arc::default(),
        stand_in: stand_in.as_ref().map(StandIn::address),
    };
    machine.telemetry.live.begin(&used_today(&store)?);
    let snapshot = Snapshot::build(settings, &registry, &machine)?;
    machine.telemetry.metrics.loaded();
    match opened.redis() {
        None => {}
        Some(redis) => {
            let fleet = fleet(redis, &store, &snapshot.settings, &machine)?;
            opened.listen(vec![fleet.listener()]);
            fleet.start(machine.health.tell());
        }
    }
    licenses.weigh(&snapshot.licenses.sources);
    licenses.probe(snapshot.licenses.sources.clone());
    let phase = Arc::new(Phase::default());
    let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
    let history = History::begin(source.to_string());
    let server = Parts {
        snapshot: snapshot.clone(),
        machine: machine.clone(),
        store: store.clone(),
        shared: shared.clone(),
        phase: phase.clone(),
        history: history.clone(),
        stand_in,
    }
    .build()?;
    log::info!("Gatekeeper starts with {source}.");
    let telemetry = machine.telemetry.clone();
    let (reload, scratch) = match source {
        Source::Demo { scratch } => (None, Some(scratch)),
        Source::File { path: file, seen } => {
            let (store, snapshot, turn) = (store.clone(), snapshot.clone(), Mutex::default());
            let seen = Mutex::new(seen);
            let reload = Reload { file, registry, machine, store, snapshot, turn, seen, history };
            let reload = Arc::new(reload);
            watch::begin(&reload).context("no thread can be started")?;
            (Some(reload), None)
        }
    };
    let args = pingora_core::server::RunArgs {
        shutdown_signal: Box::new(Ending {
            reload,
            telemetry,
            store,
            shared,
            licenses,
            phase,
            snapshot,
            scratch,
        }),
    };
    server.run(args);
    Ok(())
}

fn fleet(
    redis: &Arc<Store>,
    store: &Arc<Embedded>,
    settings: &Settings,
    machine: &Machine,
) -> anyhow::Result<Arc<Fleet>> {
    Ok(Arc::new(Fleet {
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
fn spent_today(store: &Embedded) -> anyhow::Result<Spending> {
    let (spending, now) = (Spending::default(), UnixMs::now());
    for (provider, picodollars) in store.spent(now)? {
        spending.add(&provider, picodollars, now);
    }
    Ok(spending)
}

/// What the store knows of today's usage.
fn used_today(store: &Embedded) -> anyhow::Result<Today> {
    let now = UnixMs::now();
    let models = store.by_model(now)?.into_iter().map(|sum| ModelDay {
        model: sum.model.into(),
        requests: sum.requests,
        input: sum.input,
        output: sum.output,
        cached: sum.cached,
        cost: sum.cost,
    });
    Ok(Today { day: today::day(now), models: models.collect(), saved: 0 })
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

/// What the services are made of.
struct Parts {
    snapshot: Arc<ArcSwap<Snapshot>>,
    machine: Machine,
    store: Arc<Embedded>,
    shared: Option<Arc<Shared>>,
    phase: Arc<Phase>,
    history: Arc<History>,
    stand_in: Option<StandIn>,
}

impl Parts {
    fn build(self) -> anyhow::Result<Server> {
        let now = self.snapshot.load_full();
        let settings = &now.settings;
        let conf = ServerConf {
            threads: settings.server.threads,
            work_stealing: false,
            upstream_keepalive_pool_size: POOLED,
            graceful_shutdown_timeout_seconds: Some(1),
            ..ServerConf::default()
        };
        let mut server = Server::new_with_opt_and_conf(None, conf);
        let conf = server.configuration.clone();
        let connector = Connector::new(&conf);
        let gateway = Gateway::new(self.snapshot.clone(), connector, self.phase.clone());
        let mut proxy = pingora_proxy::http_proxy(&conf, gateway);
        proxy.h2_options = Some(h2_options());
        let mut options = HttpServerOptions::default();
        options.h2_idle_timeout = Some(Duration::from_secs(KEEPALIVE));
        proxy.server_options = Some(options);
        let app = Deadline::new(proxy, settings.server.limits.header_timeout);
        server.add_service(public(app, settings)?);
        let announce = Announce {
            phase: self.phase.clone(),
            addresses: [settings.server.listen, settings.admin.listen],
        };
        let resolver = Resolver { endpoints: self.machine.endpoints };
        // Its own connections: those of the workers belong to their threads.
        let probing = Arc::new(Connector::new(&conf));
        let prober = Prober { snapshot: self.snapshot.clone(), connector: probing.clone() };
        let hub = Hub::new(self.machine.telemetry);
        let ticker = Ticker { hub: hub.clone(), phase: self.phase.clone() };
        let admin = Admin {
            access: Access::default(),
            hub,
            page: Page::load(),
            connector: probing,
            snapshot: self.snapshot,
            operator: Operator { store: self.store, shared: self.shared },
            phase: self.phase,
            history: self.history,
        };
        server.add_service(operators(admin, settings));
        server.add_service(background_service("feed", ticker));
        server.add_service(background_service("resolver", resolver));
        server.add_service(background_service("prober", prober));
        if let Some(stand_in) = self.stand_in {
            server.add_service(background_service("stand-in", stand_in));
        }
        server.add_service(background_service("announce", announce));
        Ok(server)
    }
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

fn operators(app: Admin, settings: &Settings) -> Service<Deadline<Admin>> {
    let app = Deadline::new(app, settings.server.limits.header_timeout);
    let mut service = Service::new("admin".into(), app);
    service.threads = Some(1);
    let address = settings.admin.listen.to_string();
    // Feeds are as many as there are pages open.
    let buffers = L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER);
    service.add_listener(ListenerConfig::tcp(address).l4_buffer(buffers));
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
