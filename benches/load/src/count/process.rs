//! A proxy's process as the kernel shows it: whether it sleeps, how often it did, and how it is held.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// Nothing here takes longer, under the slowest instrument.
const PATIENCE: Duration = Duration::from_secs(60);
/// A process that was let go and stays stopped for so long missed its signal: a tracer was just
/// about to pass the other one on.
const MISSED: Duration = Duration::from_millis(50);

/// Whether all counting is to end.
static STOPPED: AtomicBool = AtomicBool::new(false);

pub struct StopOnDrop;

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        STOPPED.store(true, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy)]
pub struct Process(pub u32);

impl Process {
    fn threads(self) -> Result<Vec<u32>> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0)).context("the process ended")?;
        tasks.map(|task| Ok(task?.file_name().to_string_lossy().parse()?)).collect()
    }

    /// Whether all threads are in one of these states of `/proc/PID/stat`.
    fn is_all(self, states: &[u8]) -> Result<bool> {
        for thread in self.threads()? {
            let stat = match fs::read(format!("/proc/{}/task/{thread}/stat", self.0)) {
                Ok(stat) => stat,
                Err(_) => continue, // the thread ended
            };
            // The name before it stands in parentheses and may hold anything.
            let end = stat.iter().rposition(|b| *b == b')').context("/proc/PID/stat")?;
            if !stat.get(end + 2).is_some_and(|state| states.contains(state)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits until every thread sleeps: what was asked of the process is done, or waits for others.
    pub fn settle(self) -> Result<()> {
        let began = Instant::now();
        let mut seen = 0;
        let mut nudged = began;
        loop {
            // Twice, for the moment in which one thread wakes another and sleeps.
            seen = if self.is_all(b"S")? { seen + 1 } else { 0 };
            if seen == 2 {
                return Ok(());
            }
            if nudged.elapsed() > MISSED && self.is_all(b"Tt")? {
                self.signal(Signal::CONT)?;
                nudged = Instant::now();
            }
            ensure!(!STOPPED.load(Ordering::Relaxed), "ended");
            if began.elapsed() > PATIENCE {
                bail!("the process does not come to rest");
            }
            if seen == 0 {
                sleep(Duration::from_micros(20));
            }
        }
    }

    /// Stops the process, so that what is written meanwhile reaches it at once.
    pub fn hold(self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let began = Instant::now();
        while !self.is_all(b"Tt")? {
            if began.elapsed() > PATIENCE {
                bail!("the process does not stop");
            }
            sleep(Duration::from_micros(10));
        }
        Ok(())
    }

    pub fn release(self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    pub fn signal(self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.0).ok().and_then(Pid::from_raw).context("a process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// How often each thread gave up the processor by itself, and the nanoseconds that it ran.
    pub fn switches(self) -> Result<BTreeMap<u32, (u64, u64)>> {
        let mut all = BTreeMap::new();
        for thread in self.threads()? {
            let read =
                |name: &str| fs::read_to_string(format!("/proc/{}/task/{thread}/{name}", self.0));
            let (status, ran) = (read("status")?, read("schedstat")?);
            let line =
                status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            let switches = line.context("voluntary_ctxt_switches")?.trim().parse()?;
            let ran = ran.split(' ').next().context("schedstat")?.parse()?;
            all.insert(thread, (switches, ran));
        }
        Ok(all)
    }

    /// The process that this one, a tracer, started.
    pub fn child(self) -> Result<Option<Self>> {
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            let fields = stat.rsplit_once(')').map(|(_, fields)| fields);
            let parent = fields.and_then(|fields| fields.split_whitespace().nth(1));
            if parent.and_then(|parent| parent.parse().ok()) == Some(self.0) {
                return Ok(Some(Self(pid)));
            }
        }
        Ok(None)
    }

    /// Whether the program that runs in the process is this one; a tracer's child is the tracer at first.
    pub fn runs(self, program: &std::path::Path) -> bool {
        let runs = || -> io::Result<bool> {
            Ok(fs::read_link(format!("/proc/{}/exe", self.0))? == fs::canonicalize(program)?)
        };
        runs().unwrap_or(false)
    }
}
