//! Rounds of every contender under every load, interleaved so that all of them share whatever the
//! machine does meanwhile.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::sched_getaffinity;
use tokio::time::sleep;

use crate::contender::{self, Contender, KEY, Programs, Running};
use crate::fleet;
use crate::generator::{self, Ask, Outcome};
use crate::provider;
use crate::redis::{Redis, Work};
use crate::report::{OnRedis, Report, Sample};

/// How often the contenders alternate within one load.
const SLICES: u32 = 4;

#[derive(clap::Args)]
pub struct Args {
    /// About a minute instead of four: fewer rounds, shorter.
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
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Allocator {
    Mimalloc,
    Jemalloc,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Load {
    Json,
    Unpaced,
    Paced,
    Memory,
}

impl Load {
    pub const ALL: [Self; 4] = [Self::Json, Self::Unpaced, Self::Paced, Self::Memory];

    pub fn ask(self) -> Ask {
        match self {
            Self::Json => Ask::Json,
            Self::Unpaced => Ask::Stream { chunks: 100, gap_ms: 0 },
            Self::Paced => Ask::Stream { chunks: 50, gap_ms: 5 },
            Self::Memory => Ask::Stream { chunks: 120, gap_ms: 1000 },
        }
    }

    fn connections(self) -> u32 {
        match self {
            Self::Json => 32,
            Self::Unpaced => 16,
            Self::Paced | Self::Memory => 64,
        }
    }
}

pub async fn run(args: Args) -> Result<()> {
    raise_open_files(args.streams)?;
    let all = sched_getaffinity(None)?;
    let core = contender::leave_proxy_core()?;
    let beside = std::env::current_exe()?.parent().context("no folder")?.to_path_buf();
    let programs = args.programs.unwrap_or(beside);
    let programs = Programs {
        nginx: args.nginx,
        bare: programs.join(match args.bare {
            Allocator::Mimalloc => "bare-mimalloc",
            Allocator::Jemalloc => "bare-jemalloc",
        }),
        gatekeeper: programs.join("gatekeeper"),
        core,
    };
    let mut who: Vec<_> =
        Contender::ALL.into_iter().filter(|who| !args.without.contains(who)).collect();
    let loads: Vec<_> = Load::ALL
        .into_iter()
        .filter(|load| args.only.is_empty() || args.only.contains(load))
        .collect();
    let rounds = args.rounds.unwrap_or(if args.quick { 2 } else { 3 });
    let time = Duration::from_millis(if args.quick { 2000 } else { 4000 });

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let provider = listener.local_addr()?;
    provider::spawn(listener)?;

    println!("{rounds} rounds, {} s a load", time.as_secs_f32());
    let mut report = Report::default();
    // On a terminal; elsewhere the lines have to do.
    let bar = ProgressBar::new((rounds * loads.len()) as u64);
    bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} loads, {eta} left")?);
    for round in 0..rounds {
        // Each round begins with another one: nobody is always first or last.
        who.rotate_left(1);
        for &load in &loads {
            bar.suspend(|| println!("round {} of {rounds}: {}", round + 1, load.title()));
            bar.tick();
            let who: Vec<_> = who.iter().copied().filter(|who| who.runs(load)).collect();
            if load == Load::Memory {
                for &who in &who {
                    let sample = memory(who, &programs, provider, args.streams).await;
                    report.add(who, load, round, sample.with_context(|| who.name())?);
                }
            } else {
                for (who, sample) in speed(&who, &programs, provider, load, time).await? {
                    report.add(who, load, round, sample);
                }
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    if args.only.is_empty() {
        // Several gateways are not measured against anybody: they have all cores.
        fleet::run(&Programs { core: all, ..programs }, time).await?;
    }
    who.sort_by_key(|who| *who as u8);
    report.print(&who, &loads);
    ensure!(report.judge(&loads), "a ratio was missed by more than 5 %");
    Ok(())
}

/// One load on all contenders, in slices that alternate: whatever else the machine does meets all of
/// them alike.
async fn speed(
    who: &[Contender],
    programs: &Programs,
    provider: SocketAddr,
    load: Load,
    time: Duration,
) -> Result<Vec<(Contender, Sample)>> {
    let (ask, connections) = (load.ask(), load.connections());
    let mut tallies = Vec::new();
    for &who in who {
        let proxy = contender::start(who, programs, provider).await?;
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
    provider: SocketAddr,
    streams: usize,
) -> Result<Sample> {
    let ask = Load::Memory.ask();
    let proxy = contender::start(who, programs, provider).await?;
    generator::load(proxy.address, KEY, Ask::Json, 8, Duration::from_millis(200)).await?;
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
