//! What counts: the kernel's own counters, strace, and valgrind's callgrind and dhat.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use super::process::Process;

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub enum Instrument {
    /// Context switches, of the process as it is.
    Kernel,
    /// System calls.
    Strace,
    /// Instructions and allocations.
    Callgrind,
    /// Bytes copied.
    Dhat,
}

/// What callgrind would count otherwise though no processor does it. glibc copies 2 KiB and more with one instruction,
/// `rep movsb`, which callgrind counts once for each byte: these copies go by registers of 32 bytes. jemalloc tidies a
/// thread's caches every ten milliseconds: of a process that runs fifty times slower, that many times as often.
const AS_ON_A_PROCESSOR: [(&str, &str); 2] = [
    ("GLIBC_TUNABLES", "glibc.cpu.x86_rep_movsb_threshold=1073741824"),
    ("_RJEM_MALLOC_CONF", "tcache_gc_incr_bytes:1073741824"),
];

impl Instrument {
    pub const ALL: [Self; 4] = [Self::Kernel, Self::Strace, Self::Callgrind, Self::Dhat];
}

/// Why system calls can't be counted here, if so.
pub fn ptrace_is_closed() -> Option<String> {
    let tried = Command::new("strace").args(["-f", "-qq", "-o", "/dev/null", "true"]).output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(e) => Some(format!("strace: {e}")),
    }
}

/// A proxy under an instrument; ends with this value.
pub struct Watched {
    instrument: Instrument,
    child: Child,
    pub process: Process,
    dir: PathBuf,
    /// Where callgrind's files stay.
    pub profiles: Option<PathBuf>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        // A tracer that is killed lets its tracee go on, so the tracee goes first.
        drop(self.process.signal(Signal::KILL));
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Counts of one thread.
#[derive(Default, Clone)]
pub struct Thread {
    /// The same as long as the thread lives.
    pub id: String,
    pub instructions: u64,
    pub allocations: u64,
    pub switches: u64,
    pub nanoseconds: u64,
    pub calls: BTreeMap<String, u64>,
}

impl Thread {
    pub fn all_calls(&self) -> u64 {
        self.calls.values().sum()
    }

    /// Takes away so many times what the thread does when nothing is asked of it.
    pub fn without(&mut self, idle: &Self, times: f64) {
        let take = |from: &mut u64, idle: u64| {
            *from = from.saturating_sub((idle as f64 * times).round() as u64);
        };
        take(&mut self.instructions, idle.instructions);
        take(&mut self.allocations, idle.allocations);
        take(&mut self.switches, idle.switches);
        take(&mut self.nanoseconds, idle.nanoseconds);
        for (name, count) in &mut self.calls {
            take(count, idle.calls.get(name).copied().unwrap_or_default());
        }
    }

    /// How much the thread has to do with serving: under each instrument something else tells it from
    /// those that only look at the clock.
    pub fn serves(&self) -> u64 {
        let received = self.calls.get("recvfrom").copied().unwrap_or_default();
        received + self.instructions + self.nanoseconds
    }
}

/// Where the counts began.
pub enum Mark {
    Switches(BTreeMap<u32, (u64, u64)>),
    /// Bytes of strace's log.
    Log(u64),
    None,
}

impl Watched {
    /// Starts `command` under the instrument, which keeps its files in `dir`.
    pub fn start(instrument: Instrument, command: &Command, dir: &Path) -> Result<Self> {
        let file = |name: &str| dir.join(name).display().to_string();
        let mut watched = match instrument {
            Instrument::Kernel => Command::new(command.get_program()),
            Instrument::Strace => {
                let mut strace = Command::new("strace");
                strace.args(["-f", "-qq", "-s", "0", "-e", "signal=none", "-o", &file("strace")]);
                strace.arg(command.get_program());
                strace
            }
            Instrument::Callgrind => {
                let mut valgrind = Command::new("valgrind");
                valgrind.args(["--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes"]);
                valgrind.arg(format!("--callgrind-out-file={}", file("callgrind")));
                valgrind.arg(format!("--vgdb-prefix={}", file("vgdb")));
                valgrind.arg("--max-threads=1000").arg(command.get_program());
                valgrind
            }
            Instrument::Dhat => {
                let mut valgrind = Command::new("valgrind");
                valgrind.args(["--tool=dhat", "--mode=copy", "--num-callers=1", "--vgdb=no"]);
                valgrind.arg(format!("--dhat-out-file={}", file("dhat")));
                valgrind.arg("--max-threads=1000").arg(command.get_program());
                valgrind
            }
        };
        if instrument == Instrument::Callgrind {
            watched.envs(AS_ON_A_PROCESSOR);
        }
        watched.args(command.get_args());
        watched.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        // A gateway lets nothing trace it, unless it is told to.
        watched.env("GATEKEEPER_DUMPABLE", "1");
        let log = fs::File::create(dir.join("log"))?;
        watched.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = watched.spawn().with_context(|| {
            format!("{} (.ci/setup count installs it)", watched.get_program().display())
        })?;
        let mut process = Process(child.id());
        if instrument == Instrument::Strace {
            process = traced(process, Path::new(command.get_program()))?;
        }
        Ok(Self { instrument, child, process, dir: dir.to_owned(), profiles: None })
    }

    /// What the process and its instrument said last.
    pub fn said(&self) -> String {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Begins to count. `nudge` makes the process do something.
    pub fn begin(&self, nudge: impl FnMut() -> Result<()>) -> Result<Mark> {
        Ok(match self.instrument {
            Instrument::Kernel => Mark::Switches(self.process.switches()?),
            Instrument::Strace => Mark::Log(fs::metadata(self.dir.join("strace"))?.len()),
            Instrument::Callgrind => {
                self.tell(&["instrumentation", "on"], nudge)?;
                Mark::None
            }
            Instrument::Dhat => Mark::None,
        })
    }

    /// What was counted since, for each thread; `holds` is how often the process was stopped since.
    pub fn end(&self, mark: &Mark, holds: u64) -> Result<Vec<Thread>> {
        match (self.instrument, mark) {
            (Instrument::Kernel, Mark::Switches(before)) => {
                let now = self.process.switches()?;
                let since = |(thread, now): (&u32, &(u64, u64))| {
                    let before = before.get(thread).copied().unwrap_or_default();
                    // Being stopped is a switch, too.
                    let switches = now.0.saturating_sub(before.0).saturating_sub(holds);
                    let nanoseconds = now.1.saturating_sub(before.1);
                    Thread { id: thread.to_string(), switches, nanoseconds, ..Thread::default() }
                };
                Ok(now.iter().map(since).collect())
            }
            (Instrument::Strace, Mark::Log(from)) => {
                let log = fs::read(self.dir.join("strace"))?;
                let from = usize::try_from(*from)?.min(log.len());
                Ok(calls(&String::from_utf8_lossy(&log[from..])))
            }
            (Instrument::Callgrind, _) => {
                self.tell(&["dump"], || Ok(()))?;
                let mut threads = Vec::new();
                for entry in fs::read_dir(&self.dir)? {
                    let path = entry?.path();
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    if name.starts_with("callgrind.") {
                        let mut thread = profile(&fs::read_to_string(&path)?)?;
                        thread.id = name.rsplit('-').next().unwrap_or_default().to_owned();
                        threads.push(thread);
                        if let Some(kept) = &self.profiles {
                            fs::create_dir_all(kept)?;
                            fs::copy(&path, kept.join(&*name))?;
                        }
                        fs::remove_file(&path)?;
                    }
                }
                ensure!(!threads.is_empty(), "callgrind wrote nothing");
                Ok(threads)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Ends the process and returns the bytes that it copied in its life.
    pub fn copied(mut self) -> Result<u64> {
        // Proxies handle the signals that end them, and none handles this one: it acts at once.
        self.process.signal(Signal::ALARM)?;
        let began = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(began.elapsed() < PATIENCE, "the process does not end");
            sleep(Duration::from_millis(5));
        }
        let log = fs::read_to_string(self.dir.join("log"))?;
        let line = log.lines().find_map(|line| line.split_once("Total:"));
        let bytes = line.and_then(|(_, rest)| rest.split_once(" bytes")).context("no total")?;
        Ok(bytes.0.trim().replace(',', "").parse()?)
    }

    /// Talks to valgrind in the process. Where it can't be woken by ptrace it listens when it runs next, so
    /// `nudge` makes it run.
    fn tell(&self, words: &[&str], mut nudge: impl FnMut() -> Result<()>) -> Result<()> {
        let prefix = format!("--vgdb-prefix={}", self.dir.join("vgdb").display());
        let pid = format!("--pid={}", self.process.0);
        let mut vgdb = Command::new("vgdb");
        vgdb.args([&prefix, &pid]).args(words).stdout(Stdio::null()).stderr(Stdio::null());
        let mut vgdb = vgdb.stdin(Stdio::null()).spawn().context("vgdb")?;
        let began = Instant::now();
        loop {
            if let Some(status) = vgdb.try_wait()? {
                ensure!(status.success(), "vgdb can't reach the process");
                return Ok(());
            }
            if began.elapsed() > Duration::from_secs(2) {
                nudge()?;
                sleep(Duration::from_millis(100));
            }
            if began.elapsed() > PATIENCE {
                drop(vgdb.kill());
                drop(vgdb.wait());
                bail!("valgrind does not listen");
            }
            sleep(Duration::from_millis(2));
        }
    }
}

/// The process that strace started, when it runs the program.
fn traced(strace: Process, program: &Path) -> Result<Process> {
    let program = which(program);
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        match strace.child()? {
            Some(child) if child.runs(&program) => return Ok(child),
            _ => sleep(Duration::from_millis(2)),
        }
    }
    bail!("strace does not start {}", program.display())
}

/// The file that a command's name stands for.
fn which(program: &Path) -> PathBuf {
    if program.components().count() > 1 {
        return program.to_owned();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path);
    folders.find_map(|dir| Some(dir.join(program)).filter(|file| file.exists())).unwrap_or_default()
}

/// System calls in a part of strace's log, for each thread.
fn calls(log: &str) -> Vec<Thread> {
    let mut threads: HashMap<&str, Thread> = HashMap::new();
    for line in log.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let Some((name, _)) = call.trim_start().split_once('(') else { continue };
        // What was cut short by the process being stopped is made again.
        let cut_short = call.contains("= -1 EINTR") || call.contains("ERESTART");
        if name.contains(' ') || name == "restart_syscall" || cut_short {
            // A call that was seen to begin, and now to end, stands as `<... name resumed>`.
            let resumed = call.trim_start().strip_prefix("<... ").and_then(|c| c.split_once(' '));
            if let (Some((name, _)), true) = (resumed, cut_short) {
                let thread = threads.entry(thread).or_default();
                let count = thread.calls.entry(name.to_owned()).or_default();
                *count = count.saturating_sub(1);
            }
            continue;
        }
        *threads.entry(thread).or_default().calls.entry(name.to_owned()).or_default() += 1;
    }
    let named = |(id, thread): (&str, Thread)| Thread { id: id.to_owned(), ..thread };
    threads.into_iter().map(named).collect()
}

/// Functions that give memory, or more of it: those of Gatekeeper's jemalloc and of the bare proxy's
/// mimalloc as Rust's allocator calls them.
const ALLOCATES: [&str; 11] = [
    "_rjem_malloc",
    "_rjem_mallocx",
    "_rjem_calloc",
    "_rjem_realloc",
    "_rjem_rallocx",
    "mi_malloc",
    "mi_malloc_aligned",
    "mi_zalloc",
    "mi_zalloc_aligned",
    "mi_realloc",
    "mi_realloc_aligned",
];

/// One thread's file of callgrind.
fn profile(text: &str) -> Result<Thread> {
    let mut thread = Thread::default();
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut called = "";
    for line in text.lines() {
        if let Some(function) = line.strip_prefix("cfn=").or_else(|| line.strip_prefix("fn=")) {
            // `(7) name` at first, `(7)` after that.
            let (id, name) = function.split_once(' ').unwrap_or((function, ""));
            if !name.is_empty() {
                names.insert(id, name);
            }
            called = if line.starts_with('c') { names.get(id).copied().unwrap_or("") } else { "" };
        } else if let Some(calls) = line.strip_prefix("calls=") {
            // Recursion is written as `name'2`.
            let name = called.split('\'').next().unwrap_or(called);
            if ALLOCATES.contains(&name) {
                let count = calls.split(' ').next().context("calls=")?;
                thread.allocations += count.parse::<u64>()?;
            }
        } else if let Some(total) = line.strip_prefix("totals:").or(line.strip_prefix("summary:")) {
            let total = total.split_whitespace().next().context("totals:")?;
            thread.instructions = thread.instructions.max(total.parse()?);
        }
    }
    Ok(thread)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_once_and_those_cut_short_not_at_all() {
        let log = "\
7 epoll_wait(3, [{EPOLLIN}], 1024, -1) = 1
7 recvfrom(9, \"\"..., 8192, 0, NULL, NULL) = 900
8 futex(0x1, FUTEX_WAIT, 2, NULL <unfinished ...>
7 epoll_wait(3, <unfinished ...>
7 <... epoll_wait resumed>0x7f, 1024, -1) = -1 EINTR (Interrupted system call)
8 <... futex resumed>) = ? ERESTARTSYS (To be restarted if SA_RESTART is set)
8 futex(0x1, FUTEX_WAIT, 2, NULL <unfinished ...>
8 restart_syscall(<... resuming interrupted futex ...>) = 0
7 epoll_wait(3, [], 1024, 0) = 0
";
        let mut threads = calls(log);
        threads.sort_by_key(Thread::all_calls);
        assert_eq!(threads[0].calls, BTreeMap::from([("futex".into(), 1)]));
        let expected = [("epoll_wait".into(), 2), ("recvfrom".into(), 1)];
        assert_eq!(threads[1].calls, BTreeMap::from(expected));
    }

    #[test]
    fn a_profile_says_instructions_and_allocations() {
        let text = "\
events: Ir
fn=(1) serve
16 5
cfn=(2) _rjem_malloc
calls=3 10
16 90
cfn=(3) memcpy
calls=4 10
16 40
fn=(4) other
cfn=(2)
calls=2 10
16 60
totals: 195
";
        let thread = profile(text).unwrap();
        assert_eq!((thread.instructions, thread.allocations), (195, 5));
    }
}
