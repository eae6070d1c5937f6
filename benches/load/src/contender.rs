//! The three proxies as child processes: how each is set up, and what the kernel says it used.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::time::sleep;

use crate::compare::Load;
use crate::generator;
use crate::page::Page;
use crate::redis::Redis;
use crate::traffic::{Ask, Headers, SYSTEM};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub enum Contender {
    Nginx,
    /// nginx, and by hand in Lua the least of what Gatekeeper does.
    Lua,
    Bare,
    Gatekeeper,
    /// Its licence is of a shop.
    Shop,
    /// Its dashboard is open.
    Watched,
    /// It counts on Redis, as several gateways do.
    Redis,
    /// It has prompts; only counted, never timed.
    Prompt,
    /// Its licence has used up what the plan gives; only counted, never timed.
    Spent,
}

impl Contender {
    /// Those that are timed side by side.
    pub const ALL: [Self; 7] = [
        Self::Nginx,
        Self::Lua,
        Self::Bare,
        Self::Gatekeeper,
        Self::Shop,
        Self::Watched,
        Self::Redis,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Lua => "nginx + Lua",
            Self::Bare => "bare Pingora",
            Self::Gatekeeper => "Gatekeeper",
            Self::Shop => "  licence of a shop",
            Self::Watched => "  its page open",
            Self::Redis => "  on Redis",
            Self::Prompt => "  with prompts",
            Self::Spent => "  plan used up",
        }
    }

    /// What is different about the ways of Gatekeeper is the same for each request, whatever comes back.
    /// The Lua page reads the usage of whole answers only, and Debian's nginx speaks no HTTP/2 to
    /// providers.
    pub fn runs(self, load: Load) -> bool {
        match self {
            Self::Bare | Self::Gatekeeper => true,
            Self::Nginx => load != Load::H2,
            Self::Lua => matches!(load, Load::Json | Load::Lean),
            Self::Shop | Self::Watched | Self::Redis => load == Load::Json,
            Self::Prompt | Self::Spent => false,
        }
    }
}

pub struct Programs {
    pub nginx: PathBuf,
    pub bare: PathBuf,
    pub gatekeeper: PathBuf,
    /// One more variable of Gatekeeper's environment.
    pub gatekeeper_env: Option<(&'static str, String)>,
    /// Where callgrind's files stay, if they do.
    pub profiles: Option<PathBuf>,
    pub core: CpuSet,
}

/// Where Debian puts nginx' modules.
const MODULES: &str = "/usr/lib/nginx/modules";

/// Whether nginx' Lua module is installed.
pub fn has_lua() -> bool {
    Path::new(MODULES).join("ngx_http_lua_module.so").exists()
}

/// The licence key of the bench, as a shop makes them; the other proxies ignore it.
pub const KEY: &str = "3f2a9c1e-7b4d-4e8a-9d60-5c1b8e7f2a34";

/// The keys of a list; [`KEY`] is the first.
pub fn key(nth: u32) -> String {
    match nth {
        0 => KEY.to_owned(),
        _ => format!("{}{nth:08x}", &KEY[..KEY.len() - 8]),
    }
}

/// Gateways that count together hash licences alike.
const KEK: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// How the provider is spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Tls {
    H1,
    H2,
}

/// The provider as a proxy is told of it.
#[derive(Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    /// How it speaks TLS, and the file with the certificate that vouches for it.
    pub tls: Option<(Tls, PathBuf)>,
}

impl From<SocketAddr> for Upstream {
    fn from(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }
}

/// What a process needs around it.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub address: SocketAddr,
    /// Where operators ask; nothing listens there at the other proxies.
    pub admin: SocketAddr,
    /// Licences that Gatekeeper has in its list.
    licenses: u32,
}

impl Place {
    pub fn new() -> Result<Self> {
        Self::with_licenses(1)
    }

    /// A configuration file of 1 MiB has room for 16,000 licences.
    pub fn with_licenses(licenses: u32) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        Ok(Self { dir, address: free_address()?, admin: free_address()?, licenses })
    }

    /// The command that runs a contender here; `store` is the members of Gatekeeper's `store`.
    pub fn command(
        &self,
        which: Contender,
        programs: &Programs,
        provider: &Upstream,
        store: Option<&str>,
    ) -> Result<Command> {
        Ok(match which {
            Contender::Nginx | Contender::Lua => {
                let conf = self.dir.path().join("nginx.conf");
                fs::write(self.dir.path().join("gate.lua"), include_str!("gate.lua"))?;
                fs::write(&conf, self.nginx_conf(provider, which == Contender::Lua))?;
                let mut nginx = Command::new(&programs.nginx);
                nginx.arg("-p").arg(self.dir.path()).arg("-c").arg(conf).args(["-e", "stderr"]);
                nginx
            }
            Contender::Bare => {
                let mut bare = Command::new(&programs.bare);
                bare.args(["--listen", &self.address.to_string()]);
                bare.args(["--provider", &provider.address.to_string()]);
                match provider.tls {
                    None => {}
                    Some((Tls::H1, _)) => drop(bare.args(["--tls", "h1"])),
                    Some((Tls::H2, _)) => drop(bare.args(["--tls", "h2"])),
                }
                bare
            }
            _ => {
                let conf = self.dir.path().join("gatekeeper.yaml");
                fs::write(&conf, self.gatekeeper_conf(which, provider, store))?;
                let mut gatekeeper = Command::new(&programs.gatekeeper);
                gatekeeper.arg("run").arg("-c").arg(conf).env("STAND_IN_KEY", "sk-stand-in-0001");
                gatekeeper.env("BENCH_KEK", KEK);
                if let Some((name, value)) = &programs.gatekeeper_env {
                    gatekeeper.env(name, value);
                }
                if let Some((_, roots)) = &provider.tls {
                    gatekeeper.env("SSL_CERT_FILE", roots);
                }
                gatekeeper
            }
        })
    }
}

/// Processor time.
pub struct Times {
    pub user: Duration,
    pub system: Duration,
}

/// A running proxy; ends with this value.
pub struct Running {
    child: Child,
    pub address: SocketAddr,
    admin: SocketAddr,
    is_watched: bool,
    redis: Option<Redis>,
    _place: Arc<Place>,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Starts a contender and waits until it answers.
pub async fn start(
    which: Contender,
    programs: &Programs,
    provider: impl Into<Upstream>,
) -> Result<Running> {
    start_beside(which, programs, provider, None).await
}

/// The same on a Redis that is there already.
pub async fn start_beside(
    which: Contender,
    programs: &Programs,
    provider: impl Into<Upstream>,
    beside: Option<&Redis>,
) -> Result<Running> {
    start_in(Arc::new(Place::new()?), which, programs, provider, beside).await
}

/// The same in a place where one may have run before.
pub async fn start_in(
    place: Arc<Place>,
    which: Contender,
    programs: &Programs,
    provider: impl Into<Upstream>,
    beside: Option<&Redis>,
) -> Result<Running> {
    let redis = match which {
        Contender::Redis if beside.is_none() => Some(Redis::start(place.dir.path())?),
        _ => None,
    };
    let store = redis.as_ref().or(beside).map(Redis::store);
    let mut command = place.command(which, programs, &provider.into(), store.as_deref())?;
    let (address, admin) = (place.address, place.admin);
    let log = place.dir.path().join("log");
    let out = fs::File::create(&log)?;
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    let child = spawn_on(&programs.core, &mut command)
        .with_context(|| format!("{} ({})", which.name(), command.get_program().display()))?;
    let is_watched = which == Contender::Watched;
    let mut running = Running { child, address, admin, is_watched, redis, _place: place };
    let mut last = None;
    for _ in 0..1000 {
        if running.child.try_wait()?.is_some() {
            break;
        }
        match generator::once(address, KEY, Ask::JSON).await {
            Ok(()) => return Ok(running),
            Err(e) => last = Some(e),
        }
        sleep(Duration::from_millis(20)).await;
    }
    let said = fs::read_to_string(log).unwrap_or_default();
    let why = last.map(|e| e.to_string()).unwrap_or_default();
    bail!("{} does not answer: {why}\n{said}", which.name())
}

impl Running {
    /// Where operators ask.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Opens its page, if somebody looks at it.
    pub async fn page(&self) -> Result<Option<Page>> {
        if !self.is_watched {
            return Ok(None);
        }
        Ok(Some(Page::open(self.admin).await?))
    }

    /// The Redis it counts on.
    pub fn redis(&self) -> Option<&Redis> {
        self.redis.as_ref()
    }

    /// Processor time of the process since it began, all threads.
    pub fn cpu(&self) -> Result<Duration> {
        let Times { user, system } = self.times()?;
        Ok(user + system)
    }

    /// The same, its own part and the kernel's.
    pub fn times(&self) -> Result<Times> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The second field is the name in parentheses, which may hold anything.
        let fields = stat.rsplit_once(')').context("/proc/PID/stat")?.1;
        let mut fields = fields.split_whitespace().skip(11);
        let second = rustix::param::clock_ticks_per_second();
        let mut time = || -> Result<Duration> {
            let ticks: u64 = fields.next().context("/proc/PID/stat")?.parse()?;
            Ok(Duration::from_micros(ticks * 1_000_000 / second))
        };
        Ok(Times { user: time()?, system: time()? })
    }

    /// Memory in use, in bytes.
    pub fn rss(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = kib.and_then(|rest| rest.trim().strip_suffix(" kB")).context("VmRSS")?;
        Ok(kib.trim().parse::<u64>()? * 1024)
    }
}

/// With two cores or more the proxy has the first to itself; generator and provider, who are
/// threads of this one, have the rest. Returns the proxy's.
pub fn leave_proxy_core() -> Result<CpuSet> {
    let all = sched_getaffinity(None)?;
    if all.count() < 2 {
        return Ok(all);
    }
    let first = (0..CpuSet::MAX_CPU).find(|n| all.is_set(*n)).context("no core")?;
    let (mut proxy, mut rest) = (CpuSet::new(), all);
    proxy.set(first);
    rest.unset(first);
    sched_setaffinity(None, &rest)?;
    Ok(proxy)
}

/// A child inherits the cores of the thread that starts it.
fn spawn_on(core: &CpuSet, command: &mut Command) -> Result<Child> {
    let before = sched_getaffinity(None)?;
    sched_setaffinity(None, core)?;
    let child = command.spawn();
    sched_setaffinity(None, &before)?;
    Ok(child?)
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

impl Place {
    fn nginx_conf(&self, provider: &Upstream, lua: bool) -> String {
        let (dir, listen, address) = (self.dir.path().display(), self.address, provider.address);
        let modules = match lua {
            true => ["ndk_http_module", "ngx_http_lua_module"]
                .map(|name| format!("load_module {MODULES}/{name}.so;\n"))
                .concat(),
            false => String::new(),
        };
        let (shared, handlers) = match lua {
            true => (
                format!(
                    "  lua_package_path \"{dir}/?.lua;/usr/share/lua/5.1/?.lua;;\";
  lua_shared_dict used 10m;
  init_by_lua_block {{
    require(\"gate\").know(\"{KEY}\", {{ rate = 1e8, messages = 1e9, tokens = 1e12 }})
  }}
"
                ),
                "      access_by_lua_block { require(\"gate\").enter(\"sk-stand-in-0001\") }
      body_filter_by_lua_block { require(\"gate\").read() }
",
            ),
            false => (String::new(), ""),
        };
        let pass = match provider.tls {
            None => "proxy_pass http://provider;",
            Some(_) => {
                "proxy_pass https://provider; proxy_ssl_name localhost; proxy_ssl_server_name on;"
            }
        };
        format!(
            "{modules}daemon off;
master_process off; # one process, whose processor time is the whole of it
worker_processes 1;
worker_rlimit_nofile 16384;
pid {dir}/nginx.pid;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi;
  scgi_temp_path {dir}/scgi;
  keepalive_requests 1000000000;
{shared}  upstream provider {{
    server {address};
    keepalive 128;
    keepalive_requests 1000000000;
  }}
  server {{
    listen {listen} backlog=4096;
    location / {{
{handlers}      {pass}
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_buffering off; # each token at once
    }}
  }}
}}
"
        )
    }

    /// Everything on: licence, rate limit, quota of messages and tokens, counting, metrics, usage
    /// records, the store, the access log.
    fn gatekeeper_conf(
        &self,
        which: Contender,
        provider: &Upstream,
        store: Option<&str>,
    ) -> String {
        let (dir, listen, admin) = (self.dir.path().display(), self.address, self.admin);
        let asks = Load::ALL.map(Load::ask).map(|ask| ask.with(Headers::Sdk));
        let lean = asks.map(|ask| ask.with(Headers::Lean));
        let models: BTreeSet<String> = asks.iter().chain(&lean).map(|ask| ask.model()).collect();
        let models: String =
            models.iter().map(|model| format!("  {model}: [ stand-in/{model} ]\n")).collect();
        let store = store.unwrap_or("kind: embedded");
        let source =
            if which == Contender::Shop { shop(provider.address) } else { listed(self.licenses) };
        let messages = if which == Contender::Spent { "1" } else { "1000000000" };
        let (opens, prompts) = match which {
            Contender::Prompt => (r#", prompts: ["*"]"#, prompts()),
            _ => ("", String::new()),
        };
        let base_url = match provider.tls {
            None => format!("http://{}/v1", provider.address),
            Some(_) => format!("https://localhost:{}/v1", provider.address.port()),
        };
        format!(
            "server: {{ listen: \"{listen}\", threads: 1 }}
admin: {{ listen: \"{admin}\" }}
store: {{ {store}, path: {dir}/gatekeeper.db }}
vault: {{ kek: env:BENCH_KEK }}
licenses:
  sources: [ {source} ]
plans:
  bench: {{ messages: {messages}/month, tokens: 1000000000000/month, rate: 100000000/minute, concurrency: 10000, models: [\"*\"]{opens} }}
providers:
  stand-in:
    base_url: {base_url}
    dialect: openai
    keys: [ {{ id: one, secret: \"env:STAND_IN_KEY\" }} ]
models:
{models}{prompts}log: {{ access: stdout, level: info }}
"
        )
    }
}

/// What apps say by themselves in the other cases, and a value.
fn prompts() -> String {
    let asks = [Headers::Sdk, Headers::Lean].map(|headers| Ask::JSON.with(headers).model());
    let prompt = |name: &String| {
        format!(
            "  {name}: {{ model: {name}, system: \"{SYSTEM} It is about {{{{order}}}}.\", input: {{ order: {{ max: 40 }}, \
             history: {{ turns: 4 }} }}, temperature: 0.4, max_output_tokens: 512 }}\n"
        )
    };
    format!("prompts:\n{}", asks.iter().map(prompt).collect::<String>())
}

/// The keys stand in the file.
fn listed(licenses: u32) -> String {
    let keys: String =
        (0..licenses).map(|nth| format!("{{ key: {}, plan: bench }}, ", key(nth))).collect();
    format!("{{ static: {{ keys: [ {keys} ] }} }}")
}

/// The key is asked for once, at the provider, who plays the shop as well.
fn shop(provider: SocketAddr) -> String {
    format!(
        "{{ lemonsqueezy: {{ base_url: \"http://{provider}\", store_id: 1, products: {{ 1: {{ \"*\": bench }} }} }} }}"
    )
}
