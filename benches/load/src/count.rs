//! What a request costs in things that can be counted, and are the same on any machine: instructions,
//! system calls, allocations, bytes copied, context switches. `docs/performance.md` says how to read it.

pub mod instrument;
pub mod process;
pub mod stage;
pub mod table;

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::thread::sched_getaffinity;

use self::instrument::{Instrument, Mark, Thread, Watched, ptrace_is_closed};
use self::stage::{Errand, Stage};
use self::table::{Figures, Row, Table};
use crate::contender::{Contender, KEY, Place, Programs, Upstream};
use crate::redis::Redis;
use crate::traffic::{Ask, Headers};

/// Until what a proxy puts off (records, log lines) is done.
const PUT_OFF: Duration = Duration::from_millis(500);
/// How long a proxy is watched that nothing is asked of: many times what the longest of its timers takes that matter
/// (the heartbeat of the shared store, 500 ms), as one more or less of them counts many times over.
const IDLE: Duration = Duration::from_secs(6);
/// Of how many processes a figure is the mean, where one process differs from another.
const PROCESSES: usize = 3;
/// A stream counts as so many requests.
const STREAMS: usize = 20;
/// How often a proxy is started whose port was taken in the meantime.
const STARTS: usize = 3;

#[derive(clap::Args)]
pub struct Args {
    /// Requests that are averaged over; of streams, which are a hundred chunks, a twentieth.
    #[arg(long, default_value_t = 1000)]
    requests: usize,
    /// Only these cases.
    #[arg(long)]
    only: Vec<Case>,
    /// Only these proxies.
    #[arg(long)]
    who: Vec<Contender>,
    /// Only with these headers.
    #[arg(long)]
    headers: Vec<Headers>,
    #[arg(long, default_values_t = [1, 32])]
    connections: Vec<usize>,
    /// Only these instruments.
    #[arg(long = "with")]
    instruments: Vec<Instrument>,
    /// Another build of Gatekeeper.
    #[arg(long)]
    gatekeeper: Option<PathBuf>,
    #[arg(long, default_value = "nginx")]
    nginx: PathBuf,
    /// Where the built programs are; by default beside this one.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// The commit that was built; by default the one that is checked out.
    #[arg(long)]
    commit: Option<String>,
    /// Also write the figures there.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Show how far the figures are from those of an earlier run.
    #[arg(long)]
    against: Option<PathBuf>,
    /// With `--against`: fail when a figure is so many per cent away.
    #[arg(long)]
    within: Option<f64>,
    /// Keep callgrind's profiles in this folder; `callgrind_annotate` reads them.
    #[arg(long)]
    profiles: Option<PathBuf>,
    /// How many are counted side by side; by default as many as there are cores.
    #[arg(long)]
    jobs: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub enum Case {
    Json,
    /// A hundred chunks, each read and written by itself.
    Stream,
    /// The app names a prompt and a value; the text is the gateway's.
    Prompt,
    /// The licence is of a shop, and was asked for before.
    Shop,
    Redis,
    /// No credential.
    Refused,
    /// 402.
    Spent,
}

impl Case {
    pub const ALL: [Self; 7] = [
        Self::Json,
        Self::Stream,
        Self::Prompt,
        Self::Shop,
        Self::Redis,
        Self::Refused,
        Self::Spent,
    ];

    pub fn title(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Stream => "stream of 100 chunks",
            Self::Prompt => "a prompt",
            Self::Shop => "licence of a shop",
            Self::Redis => "on Redis",
            Self::Refused => "refused at the gate",
            Self::Spent => "402, plan used up",
        }
    }

    /// Who is counted.
    fn proxies(self) -> &'static [Contender] {
        match self {
            Self::Json | Self::Stream => {
                &[Contender::Nginx, Contender::Bare, Contender::Gatekeeper]
            }
            Self::Prompt => &[Contender::Prompt],
            Self::Shop => &[Contender::Shop],
            Self::Redis => &[Contender::Redis],
            Self::Refused => &[Contender::Gatekeeper],
            Self::Spent => &[Contender::Spent],
        }
    }

    pub fn errand(self, headers: Headers) -> Errand {
        let ask = match self {
            Self::Stream => Ask::stream(100, 0),
            Self::Prompt => Ask::PROMPT,
            _ => Ask::JSON,
        };
        let (key, status, says) = match self {
            Self::Refused => ("", 401, "license_missing"),
            Self::Spent => (KEY, 402, "quota_exceeded"),
            Self::Stream => (KEY, 200, "data: [DONE]"),
            _ => (KEY, 200, "\"usage\""),
        };
        Errand { ask: ask.with(headers), key, status, says }
    }
}

/// One proxy in one case.
#[derive(Clone, Copy)]
pub struct Cell {
    pub case: Case,
    pub who: Contender,
    pub headers: Headers,
    pub connections: usize,
    pub requests: usize,
}

impl Cell {
    /// nginx is C, without symbols in Debian's build: its system calls are all there is to compare.
    fn takes(&self, instrument: Instrument) -> bool {
        self.who != Contender::Nginx || instrument == Instrument::Strace
    }

    /// Whether processes differ: each of Gatekeeper hashes with seeds of its own, which is worth up to one per cent of
    /// a short request, and gathers by the clock what it tells Redis.
    fn varies(&self, instrument: Instrument) -> bool {
        let is_gatekeeper = !matches!(self.who, Contender::Nginx | Contender::Bare);
        let is_read_exactly = matches!(instrument, Instrument::Callgrind | Instrument::Strace);
        is_gatekeeper && self.case != Case::Stream && is_read_exactly
    }

    fn title(&self) -> String {
        let Self { case, who, headers, connections, .. } = self;
        format!("{}, {}, {connections}, {}", case.title(), headers.name(), who.name().trim_start())
    }
}

/// Counts on threads of its own; when this is dropped they end, and their processes with them.
///
/// # Errors
/// Something could not be counted, or is farther away from an earlier run than allowed.
pub async fn run(args: Args) -> Result<()> {
    let _stop = process::StopOnDrop;
    tokio::task::spawn_blocking(move || run_here(&args)).await?
}

fn run_here(args: &Args) -> Result<()> {
    let beside = std::env::current_exe()?.parent().context("no folder")?.to_path_buf();
    let folder = args.programs.clone().unwrap_or(beside);
    let programs = Programs {
        nginx: args.nginx.clone(),
        bare: folder.join("bare-mimalloc"),
        gatekeeper: args.gatekeeper.clone().unwrap_or_else(|| folder.join("gatekeeper")),
        gatekeeper_env: None,
        profiles: args.profiles.clone(),
        core: sched_getaffinity(None)?,
    };
    let mut instruments = match args.instruments.is_empty() {
        true => Instrument::ALL.to_vec(),
        false => args.instruments.clone(),
    };
    if instruments.contains(&Instrument::Strace)
        && let Some(why) = ptrace_is_closed()
    {
        println!("System calls are not counted, processes can't be traced here: {why}");
        instruments.retain(|instrument| *instrument != Instrument::Strace);
    }
    let cells = cells(args);
    let mut table = Table::new(args.commit.clone(), args.requests);
    let problems = count(&cells, &instruments, args, &programs, &mut table)?;
    table.print();
    if let Some(path) = &args.json {
        table.write(path)?;
    }
    for problem in &problems {
        println!("not counted: {problem}");
    }
    if let Some(path) = &args.against {
        let most = table.compare(&Table::read(path)?);
        if let Some(within) = args.within {
            ensure!(most <= within, "a figure is {most:.2} % away, more than {within} %");
        }
    }
    ensure!(problems.is_empty(), "{} counts failed", problems.len());
    Ok(())
}

fn cells(args: &Args) -> Vec<Cell> {
    let mut cells = Vec::new();
    for case in Case::ALL {
        let requests = if case == Case::Stream { args.requests / STREAMS } else { args.requests };
        for headers in [Headers::Sdk, Headers::Lean] {
            for &connections in &args.connections {
                for &who in case.proxies() {
                    cells.push(Cell { case, who, headers, connections, requests });
                }
            }
        }
    }
    cells.retain(|cell| {
        (args.only.is_empty() || args.only.contains(&cell.case))
            && (args.who.is_empty() || args.who.contains(&cell.who))
            && (args.headers.is_empty() || args.headers.contains(&cell.headers))
    });
    cells
}

/// Counts every cell under every instrument, some side by side; returns what went wrong.
fn count(
    cells: &[Cell],
    instruments: &[Instrument],
    args: &Args,
    programs: &Programs,
    table: &mut Table,
) -> Result<Vec<String>> {
    let mut jobs = Vec::new();
    for (row, cell) in cells.iter().enumerate() {
        table.rows.push(Row::new(cell));
        let takes = instruments.iter().filter(|instrument| cell.takes(**instrument));
        jobs.extend(takes.map(|instrument| (row, *cell, *instrument)));
    }
    // What takes longest goes first.
    jobs.sort_by_key(|(_, cell, instrument)| {
        std::cmp::Reverse((*instrument, cell.case == Case::Stream))
    });
    let (next, shared) = (AtomicUsize::new(0), Mutex::new((table, Vec::new())));
    let workers = args.jobs.unwrap_or_else(|| programs.core.count() as usize);
    std::thread::scope(|scope| {
        for _ in 0..workers.clamp(1, jobs.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    let Some((row, cell, instrument)) = jobs.get(turn) else { return };
                    let counted = figures(cell, *instrument, programs);
                    let Ok(mut shared) = shared.lock() else { return };
                    match counted {
                        Ok(figures) => shared.0.rows[*row].figures.add(figures),
                        Err(e) => shared.1.push(format!("{}, {instrument:?}: {e:#}", cell.title())),
                    }
                    eprintln!("{} of {}: {}, {instrument:?}", turn + 1, jobs.len(), cell.title());
                }
            });
        }
    });
    let (_, problems) = shared.into_inner().ok().context("a count panicked")?;
    Ok(problems)
}

/// What one instrument says of one cell, per request.
fn figures(cell: &Cell, instrument: Instrument, programs: &Programs) -> Result<Figures> {
    if instrument == Instrument::Dhat {
        // It counts a process' whole life, so it needs one with the requests and one as long without.
        let (with, requests, took) = life(cell, programs, cell.requests, Duration::ZERO)?;
        let (without, ..) = life(cell, programs, 0, took)?;
        let copied = with.saturating_sub(without) as f64 / requests as f64;
        return Ok(Figures { bytes_copied: Some(copied), ..Figures::default() });
    }
    if cell.varies(instrument) {
        let runs = (0..PROCESSES).map(|_| counted(cell, instrument, programs));
        return Ok(Figures::mean(&runs.collect::<Result<Vec<_>>>()?));
    }
    counted(cell, instrument, programs)
}

/// What one process takes for the requests of a cell, without what it does when nothing is asked.
fn counted(cell: &Cell, instrument: Instrument, programs: &Programs) -> Result<Figures> {
    let mut run = Run::start(cell, instrument, programs)?;
    let (mark, began) = (run.begin()?, Instant::now());
    let requests = run.requests(cell.requests)?;
    let took = began.elapsed();
    let mut threads = run.end(&mark)?;
    // Timers turn with the clock: a slow run sees more of them, so they are taken out.
    let (mark, began) = (run.begin()?, Instant::now());
    run.stage.rest(IDLE)?;
    let times = took.as_secs_f64() / began.elapsed().as_secs_f64();
    let idle = run.end(&mark)?;
    for thread in &mut threads {
        if let Some(idle) = idle.iter().find(|idle| idle.id == thread.id) {
            thread.without(idle, times);
        }
    }
    Ok(per_request(&threads, instrument, requests))
}

/// Bytes copied in the life of a proxy that gets so many requests after its warm-up and rests, how many it got, and how
/// long they took.
fn life(
    cell: &Cell,
    programs: &Programs,
    requests: usize,
    rest: Duration,
) -> Result<(u64, usize, Duration)> {
    let mut run = Run::start(cell, Instrument::Dhat, programs)?;
    let began = Instant::now();
    let requests = run.requests(requests)?;
    let took = began.elapsed();
    run.stage.rest(rest)?;
    Ok((run.watched.copied()?, requests, took))
}

fn per_request(threads: &[Thread], instrument: Instrument, requests: usize) -> Figures {
    let each = |count: u64| Some(count as f64 / requests as f64);
    let serving = threads.iter().max_by_key(|thread| thread.serves()).cloned().unwrap_or_default();
    let elsewhere = |of: fn(&Thread) -> u64| {
        each(threads.iter().map(of).sum::<u64>().saturating_sub(of(&serving)))
    };
    let mut figures = Figures::default();
    match instrument {
        Instrument::Kernel => figures.context_switches = each(serving.switches),
        Instrument::Strace => {
            figures.system_calls = each(serving.all_calls());
            figures.system_calls_elsewhere = elsewhere(Thread::all_calls);
            for (name, count) in &serving.calls {
                let count = *count as f64 / requests as f64;
                // Once in a hundred requests is not of the request.
                if count >= 0.01 {
                    figures.calls.insert(name.clone(), count);
                }
            }
        }
        Instrument::Callgrind => {
            figures.instructions = each(serving.instructions);
            figures.instructions_elsewhere = elsewhere(|thread| thread.instructions);
            figures.allocations = each(serving.allocations);
        }
        Instrument::Dhat => {}
    }
    figures
}

/// A proxy under an instrument, warm.
pub struct Run {
    stage: Stage,
    watched: Watched,
    place: Place,
    errand: Errand,
    connections: usize,
    /// How often the proxy had been stopped when counting began.
    holds: u64,
    _redis: Option<Redis>,
}

impl Run {
    /// # Errors
    /// The proxy or the instrument does not start, or does not answer as it should.
    pub fn start(cell: &Cell, instrument: Instrument, programs: &Programs) -> Result<Self> {
        let mut starts = 1;
        loop {
            match Self::start_once(cell, instrument, programs) {
                Err(e) if starts < STARTS && format!("{e:#}").contains("in use") => starts += 1,
                result => return result,
            }
        }
    }

    fn start_once(cell: &Cell, instrument: Instrument, programs: &Programs) -> Result<Self> {
        let place = Place::new()?;
        let redis = match cell.who {
            Contender::Redis => Some(Redis::start(place.dir.path())?),
            _ => None,
        };
        let mut stage = Stage::new(redis.as_ref().map(Redis::address))?;
        let store = stage.redis()?.map(|relay| format!("kind: redis, url: \"redis://{relay}\""));
        let provider = Upstream::from(stage.provider()?);
        let command = place.command(cell.who, programs, &provider, store.as_deref())?;
        let mut watched = Watched::start(instrument, &command, place.dir.path())?;
        watched.profiles.clone_from(&programs.profiles);
        let errand = cell.case.errand(cell.headers);
        let first = Case::Json.errand(cell.headers);
        stage.start(watched.process, place.address, &first).with_context(|| watched.said())?;
        let connections = cell.connections;
        let mut run = Self { stage, watched, place, errand, connections, holds: 0, _redis: redis };
        // Connections, caches and buffers settle.
        run.requests((cell.requests / 5).max(3 * connections))?;
        Ok(run)
    }

    /// Begins to count.
    ///
    /// # Errors
    /// The instrument can't be reached.
    pub fn begin(&mut self) -> Result<Mark> {
        let Self { stage, watched, place, errand, .. } = self;
        let mark = watched.begin(|| stage.run(place.address, errand, 1, 1).map(drop));
        self.holds = stage.holds;
        mark.with_context(|| watched.said())
    }

    /// What was counted since, for each thread.
    ///
    /// # Errors
    /// The instrument can't be reached, or says nothing.
    pub fn end(&self, mark: &Mark) -> Result<Vec<Thread>> {
        self.watched.end(mark, self.stage.holds - self.holds)
    }

    /// The same without the wait: what the clock causes is not in all of several batches.
    ///
    /// # Errors
    /// One was not answered as it should be.
    pub fn batch(&mut self, requests: usize) -> Result<usize> {
        let done = self.stage.run(self.place.address, &self.errand, self.connections, requests)?;
        self.stage.rest(Duration::ZERO)?;
        Ok(done)
    }

    /// Makes whole rounds of at least so many requests, and waits for what is put off.
    ///
    /// # Errors
    /// One was not answered as it should be.
    pub fn requests(&mut self, requests: usize) -> Result<usize> {
        let (address, errand) = (self.place.address, &self.errand);
        let done = self.stage.run(address, errand, self.connections, requests);
        let done = done.with_context(|| self.watched.said())?;
        self.stage.rest(PUT_OFF)?;
        Ok(done)
    }
}
