//! The three proxies as child processes: how each is set up, and what the kernel says it used.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::time::sleep;

use crate::compare::Load;
use crate::generator::{self, Ask};
use crate::page::Page;
use crate::redis::Redis;

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Contender {
    Nginx,
    Bare,
    Gatekeeper,
    /// Its licence is of a shop.
    Shop,
    /// Somebody looks at its dashboard.
    Watched,
    /// It counts on Redis, as several gateways do.
    Redis,
}

impl Contender {
    pub const ALL: [Self; 6] =
        [Self::Nginx, Self::Bare, Self::Gatekeeper, Self::Shop, Self::Watched, Self::Redis];

    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Bare => "bare Pingora",
            Self::Gatekeeper => "Gatekeeper",
            Self::Shop => "  licence of a shop",
            Self::Watched => "  its page open",
            Self::Redis => "  on Redis",
        }
    }

    /// What is different about the last ones is the same for each request, whatever comes back.
    pub fn runs(self, load: Load) -> bool {
        load == Load::Json || !matches!(self, Self::Shop | Self::Watched | Self::Redis)
    }
}

pub struct Programs {
    pub nginx: PathBuf,
    pub bare: PathBuf,
    pub gatekeeper: PathBuf,
    pub core: CpuSet,
}

/// The licence key of the bench, as a shop makes them; the other proxies ignore it.
pub const KEY: &str = "3f2a9c1e-7b4d-4e8a-9d60-5c1b8e7f2a34";

/// Gateways that count together hash licences alike.
const KEK: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// A running proxy; ends with this value.
pub struct Running {
    child: Child,
    pub address: SocketAddr,
    /// Where operators ask; nobody listens there at the other proxies.
    admin: SocketAddr,
    is_watched: bool,
    redis: Option<Redis>,
    _dir: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Starts a contender and waits until it answers.
pub async fn start(which: Contender, programs: &Programs, provider: SocketAddr) -> Result<Running> {
    start_beside(which, programs, provider, None).await
}

/// The same on a Redis that is there already.
pub async fn start_beside(
    which: Contender,
    programs: &Programs,
    provider: SocketAddr,
    beside: Option<&Redis>,
) -> Result<Running> {
    let dir = tempfile::tempdir()?;
    let (address, admin) = (free_address()?, free_address()?);
    let redis = match which {
        Contender::Redis if beside.is_none() => Some(Redis::start(dir.path())?),
        _ => None,
    };
    let mut command = match which {
        Contender::Nginx => {
            let conf = dir.path().join("nginx.conf");
            fs::write(&conf, nginx_conf(dir.path(), address, provider))?;
            let mut nginx = Command::new(&programs.nginx);
            nginx.arg("-p").arg(dir.path()).arg("-c").arg(conf).args(["-e", "stderr"]);
            nginx
        }
        Contender::Bare => {
            let mut bare = Command::new(&programs.bare);
            bare.args(["--listen", &address.to_string(), "--provider", &provider.to_string()]);
            bare
        }
        Contender::Gatekeeper | Contender::Shop | Contender::Watched | Contender::Redis => {
            let conf = dir.path().join("gatekeeper.yaml");
            let source = if which == Contender::Shop { shop(provider) } else { listed() };
            let shared = redis.as_ref().or(beside);
            let store = shared.map_or_else(|| "kind: embedded".to_owned(), Redis::store);
            let listen = [address, admin];
            fs::write(&conf, gatekeeper_conf(dir.path(), listen, provider, &source, &store))?;
            let mut gatekeeper = Command::new(&programs.gatekeeper);
            gatekeeper.arg("run").arg("-c").arg(conf).env("STAND_IN_KEY", "sk-stand-in-0001");
            gatekeeper.env("BENCH_KEK", KEK);
            gatekeeper
        }
    };
    let log = dir.path().join("log");
    let out = fs::File::create(&log)?;
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    let child = spawn_on(&programs.core, &mut command)
        .with_context(|| format!("{} ({})", which.name(), command.get_program().display()))?;
    let is_watched = which == Contender::Watched;
    let mut running = Running { child, address, admin, is_watched, redis, _dir: dir };
    let mut last = None;
    for _ in 0..100 {
        if running.child.try_wait()?.is_some() {
            break;
        }
        match generator::once(address, KEY, Ask::Json).await {
            Ok(()) => return Ok(running),
            Err(e) => last = Some(e),
        }
        sleep(Duration::from_millis(50)).await;
    }
    let said = fs::read_to_string(log).unwrap_or_default();
    let why = last.map(|e| e.to_string()).unwrap_or_default();
    bail!("{} does not answer: {why}\n{said}", which.name())
}

impl Running {
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

    /// Processor time of the process since it began, kernel's part and own, all threads.
    pub fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The second field is the name in parentheses, which may hold anything.
        let fields = stat.rsplit_once(')').context("/proc/PID/stat")?.1;
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2) // utime, stime
            .map(|n| n.parse::<u64>())
            .sum::<Result<_, _>>()?;
        let second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_micros(ticks * 1_000_000 / second))
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

fn nginx_conf(dir: &Path, listen: SocketAddr, provider: SocketAddr) -> String {
    let dir = dir.display();
    format!(
        "daemon off;
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
  upstream provider {{
    server {provider};
    keepalive 128;
    keepalive_requests 1000000000;
  }}
  server {{
    listen {listen} backlog=4096;
    location / {{
      proxy_pass http://provider;
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
/// records, the embedded store, the access log.
fn gatekeeper_conf(
    dir: &Path,
    [listen, admin]: [SocketAddr; 2],
    provider: SocketAddr,
    source: &str,
    store: &str,
) -> String {
    let models = Load::ALL.map(|load| load.ask().model());
    let models = models.map(|model| format!("  {model}: [ stand-in/{model} ]\n")).concat();
    format!(
        "server: {{ listen: \"{listen}\", threads: 1 }}
admin: {{ listen: \"{admin}\" }}
store: {{ {store}, path: {dir}/gatekeeper.db }}
vault: {{ kek: env:BENCH_KEK }}
licenses:
  sources: [ {source} ]
plans:
  bench: {{ messages: 1000000000/month, tokens: 1000000000000/month, rate: 100000000/minute, concurrency: 10000, models: [\"*\"] }}
providers:
  stand-in:
    base_url: http://{provider}/v1
    dialect: openai
    keys: [ {{ id: one, secret: \"env:STAND_IN_KEY\" }} ]
models:
{models}log: {{ access: stdout, level: info }}
",
        dir = dir.display(),
    )
}

/// The key stands in the file.
fn listed() -> String {
    format!("{{ static: {{ keys: [ {{ key: {KEY}, plan: bench }} ] }} }}")
}

/// The key is asked for once, at the provider, who plays the shop as well.
fn shop(provider: SocketAddr) -> String {
    format!(
        "{{ lemonsqueezy: {{ base_url: \"http://{provider}\", store_id: 1, products: {{ 1: {{ \"*\": bench }} }} }} }}"
    )
}
