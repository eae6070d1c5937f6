//! Rounds of every contender under every load, interleaved so that all of them share whatever the
//! machine does meanwhile.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity};
use tokio::time::sleep;

use crate::contender::{self, Contender, KEY, Programs, Running, Tls, Upstream};
use crate::fleet;
use crate::generator::{self, Outcome};
use crate::machine::{self, Kept, Machine};
use crate::many_licenses;
use crate::provider;
use crate::provider_tls;
use crate::redis::{Redis, Work};
use crate::report::{OnRedis, Report, Sample};
use crate::traffic::{Ask, Headers};

/// How often the contenders alternate within one load.
const SLICES: u32 = 4;

#[derive(clap::Args)]
pub struct Args {
    /// About three minutes instead of ten: fewer rounds, shorter.
    #[arg(long)]
    quick: bool,
    /// How often each contender has its turn.
    #[arg(long)]
    rounds: Option<usize>,
    /// Leave a contender out.
    #[arg(long)]
    without: Vec<Contender>,
    /// Only these loads.
    #[arg(long)]
    only: Vec<Load>,
    /// The allocator of the bare proxy.
    #[arg(long, default_value = "mimalloc")]
    bare: Allocator,
    /// Streams open at once where memory is measured.
    #[arg(long, default_value_t = 2000)]
    streams: usize,
    #[arg(long, default_value = "nginx")]
    nginx: PathBuf,
    /// Where the built programs are; by default beside this one.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Figures of earlier runs; a figure that is worse than the one of a machine like this fails.
    #[arg(long, default_value = "benches/timings.json")]
    kept: PathBuf,
    /// Keep this run's figures there.
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Allocator {
    Mimalloc,
    Jemalloc,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Load {
    Json,
    /// JSON with four headers each way.
    Lean,
    Unpaced,
    Paced,
    /// JSON from a provider that speaks TLS and HTTP/1.
    Https,
    /// JSON from a provider that speaks TLS and HTTP/2.
    H2,
    Memory,
}

impl Load {
    pub const ALL: [Self; 7] =
        [Self::Json, Self::Lean, Self::Unpaced, Self::Paced, Self::Https, Self::H2, Self::Memory];

    pub fn ask(self) -> Ask {
        match self {
            Self::Json | Self::Https | Self::H2 => Ask::JSON,
            Self::Lean => Ask::JSON.with(Headers::Lean),
            Self::Unpaced => Ask::stream(100, 0),
            Self::Paced => Ask::stream(50, 5),
            Self::Memory => Ask::stream(120, 1000),
        }
    }

    fn connections(self) -> u32 {
        match self {
            Self::Json | Self::Lean | Self::Https | Self::H2 => 32,
            Self::Unpaced => 16,
            Self::Paced | Self::Memory => 64,
        }
    }

    fn tls(self) -> Option<Tls> {
        match self {
            Self::Https => Some(Tls::H1),
            Self::H2 => Some(Tls::H2),
            _ => None,
        }
    }
}

pub async fn run(args: Args) -> Result<()> {
    raise_open_files(args.streams)?;
    let all = sched_getaffinity(None)?;
    let core = contender::leave_proxy_core()?;
    let programs = programs(&args, core)?;
    let mut who: Vec<_> =
        Contender::ALL.into_iter().filter(|who| !args.without.contains(who)).collect();
    if who.contains(&Contender::Lua) && !contender::has_lua() {
        println!(
            "nginx' Lua module is missing: nginx + Lua is left out (.ci/setup nginx installs it)."
        );
        who.retain(|who| *who != Contender::Lua);
    }
    let loads: Vec<_> = Load::ALL
        .into_iter()
        .filter(|load| args.only.is_empty() || args.only.contains(load))
        .collect();
    let rounds = args.rounds.unwrap_or(if args.quick { 2 } else { 3 });
    let time = Duration::from_millis(if args.quick { 2000 } else { 4000 });

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let plain = Upstream::from(listener.local_addr()?);
    provider::spawn(listener)?;
    let certificates = tempfile::tempdir()?;
    let mut encrypted = Vec::new();
    for tls in loads.iter().filter_map(|load| load.tls()) {
        encrypted.push(provider_tls::spawn(tls, certificates.path())?);
    }
    let provider = |load: Load| {
        let mut encrypted = encrypted.iter();
        let speaks = |one: &&Upstream| one.tls.as_ref().map(|(tls, _)| *tls) == load.tls();
        encrypted.find(speaks).unwrap_or(&plain)
    };

    let machine = machine(&programs, &plain, all.count()).await?;
    println!(
        "{}, {} cores; {:.0} % of a bare proxy's JSON request is the kernel's",
        machine.cpu,
        machine.cores,
        machine.kernel_share * 100.0
    );
    println!("{rounds} rounds, {} s a load", time.as_secs_f32());
    let mut report = Report::default();
    // On a terminal; elsewhere the lines have to do.
    let bar = ProgressBar::new((rounds * loads.len()) as u64);
    bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} loads, {eta} left")?);
    for round in 0..rounds {
        // Each round begins with another one: none is always first or last.
        who.rotate_left(1);
        for &load in &loads {
            bar.suspend(|| println!("round {} of {rounds}: {}", round + 1, load.title()));
            bar.tick();
            let who: Vec<_> = who.iter().copied().filter(|who| who.runs(load)).collect();
            if load == Load::Memory {
                for &who in &who {
                    let sample = memory(who, &programs, &plain, args.streams).await;
                    report.add(who, load, round, sample.with_context(|| who.name())?);
                }
            } else {
                for (who, sample) in speed(&who, &programs, provider(load), load, time).await? {
                    report.add(who, load, round, sample);
                }
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    if args.only.is_empty() {
        // Several gateways are not measured against anything: they have all cores.
        let programs = Programs { core: all, ..programs };
        fleet::run(&programs, time).await?;
        many_licenses::run(&programs, &plain, if args.quick { 100_000 } else { 1_000_000 }).await?;
        many_licenses::run_on_redis(&programs, &plain).await?;
    }
    who.sort_by_key(|who| *who as u8);
    report.print(&who, &loads);
    let figures = report.figures(&loads);
    let kept = machine::kept(&args.kept, &machine)?;
    let worse = figures.print(kept.as_ref());
    report.print_redis();
    if args.keep {
        let (commit, figures) = (machine::checked_out(), figures.kept());
        machine::keep(&args.kept, Kept { machine, commit, figures })?;
    }
    ensure!(args.keep || worse.is_empty(), "worse than it was: {}", worse.join(", "));
    Ok(())
}

fn programs(args: &Args, core: CpuSet) -> Result<Programs> {
    let beside = std::env::current_exe()?.parent().context("no folder")?.to_path_buf();
    let folder = args.programs.clone().unwrap_or(beside);
    Ok(Programs {
        nginx: args.nginx.clone(),
        bare: folder.join(match args.bare {
            Allocator::Mimalloc => "bare-mimalloc",
            Allocator::Jemalloc => "bare-jemalloc",
        }),
        gatekeeper: folder.join("gatekeeper"),
        gatekeeper_env: None,
        profiles: None,
        core,
    })
}

/// What decides the ratios on this machine.
async fn machine(programs: &Programs, provider: &Upstream, cores: u32) -> Result<Machine> {
    let bare = contender::start(Contender::Bare, programs, provider.clone()).await?;
    let before = bare.times()?;
    let load = Load::Json;
    let time = Duration::from_secs(2);
    generator::load(bare.address, KEY, load.ask(), load.connections(), time).await?;
    let now = bare.times()?;
    let (user, system) = (now.user - before.user, now.system - before.system);
    Ok(Machine::new(cores, system.as_secs_f64() / (user + system).as_secs_f64()))
}

/// One load on all contenders, in slices that alternate: whatever else the machine does meets all of
/// them alike.
async fn speed(
    who: &[Contender],
    programs: &Programs,
    provider: &Upstream,
    load: Load,
    time: Duration,
) -> Result<Vec<(Contender, Sample)>> {
    let (ask, connections) = (load.ask(), load.connections());
    let mut tallies = Vec::new();
    for &who in who {
        let proxy = contender::start(who, programs, provider.clone()).await?;
        let (cpu, work, outcome) = (Duration::ZERO, Work::default(), Outcome::default());
        tallies.push(Tally { who, proxy, cpu, work, outcome });
    }
    // Connections, pages and branch predictors settle first.
    for tally in &tallies {
        let warm_up = generator::load(tally.proxy.address, KEY, ask, connections, time / 5).await;
        warm_up.with_context(|| tally.who.name())?;
    }
    sleep(Duration::from_millis(300)).await;
    for tally in &mut tallies {
        tally.cpu = tally.proxy.cpu()?;
        tally.work = tally.proxy.redis().map(Redis::work).transpose()?.unwrap_or_default();
    }
    for _ in 0..SLICES {
        for tally in &mut tallies {
            let (address, slice) = (tally.proxy.address, time / SLICES);
            // Opened anew each time: a page that stays open asks for less.
            let page = tally.proxy.page().await?;
            let outcome = generator::load(address, KEY, ask, connections, slice).await;
            tally.outcome.add(outcome.with_context(|| tally.who.name())?);
            if let Some(mut page) = page {
                page.is_served()?;
            }
        }
    }
    // What a proxy puts off (records, metrics) belongs to the requests that caused it.
    sleep(Duration::from_secs(1)).await;
    tallies.into_iter().map(|tally| Ok((tally.who, tally.sample()?))).collect()
}

struct Tally {
    who: Contender,
    proxy: Running,
    /// Before the first slice.
    cpu: Duration,
    /// The same of its Redis.
    work: Work,
    outcome: Outcome,
}

impl Tally {
    fn sample(mut self) -> Result<Sample> {
        let cpu = self.proxy.cpu()? - self.cpu;
        let latencies = &mut self.outcome.latencies;
        let done = latencies.len();
        ensure!(done > 0, "{} answered nothing", self.who.name());
        latencies.sort_unstable();
        let percentile = |p: usize| latencies[(done - 1) * p / 100];
        let per_request = |redis: &Redis| {
            let work = redis.work()?;
            let each = |now: u64, before: u64| (now - before) as f64 / done as f64;
            anyhow::Ok(OnRedis {
                commands: each(work.commands, self.work.commands),
                scripts: each(work.scripts, self.work.scripts),
                cost: (work.cpu - self.work.cpu).as_secs_f64() * 1e6 / done as f64,
            })
        };
        Ok(Sample {
            redis: self.proxy.redis().map(per_request).transpose()?,
            p50: percentile(50),
            p99: percentile(99),
            per_second: done as f64 / self.outcome.elapsed.as_secs_f64(),
            cost: cpu.as_secs_f64() * 1e6 / done as f64,
            rss: self.proxy.rss()?,
        })
    }
}

async fn memory(
    who: Contender,
    programs: &Programs,
    provider: &Upstream,
    streams: usize,
) -> Result<Sample> {
    let ask = Load::Memory.ask();
    let proxy = contender::start(who, programs, provider.clone()).await?;
    generator::load(proxy.address, KEY, Ask::JSON, 8, Duration::from_millis(200)).await?;
    let before = proxy.rss()?;
    let open = generator::open(proxy.address, KEY, ask, streams).await?;
    sleep(Duration::from_secs(2)).await; // tokens flow on each of them
    let rss = proxy.rss()?;
    drop(open);
    let each = rss.saturating_sub(before) as f64 / streams as f64;
    Ok(Sample { cost: each / 1024.0, rss, ..Sample::default() })
}

/// A stream is four sockets in all: two here (app and provider), two at the proxy, which inherits
/// the limit.
fn raise_open_files(streams: usize) -> Result<()> {
    let needed = streams as u64 * 2 + 500;
    let limit = getrlimit(Resource::Nofile);
    ensure!(
        limit.maximum.is_none_or(|max| max >= needed),
        "{streams} open streams need {needed} open files; `ulimit -Hn` allows fewer"
    );
    if limit.current.is_some_and(|now| now < needed) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(needed), ..limit })?;
    }
    Ok(())
}
