//! Progress of work that takes longer than two seconds: a bar on a terminal, plain lines elsewhere.
//!
//! The work only counts. A thread of its own looks, so that one long statement of SQLite shows that it
//! goes on, too.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::{Condvar, Mutex};

/// Shorter work shows no progress.
const AFTER: Duration = Duration::from_secs(2);
/// Between two steps of a bar.
const TICK: Duration = Duration::from_millis(100);
/// Between two plain lines.
const LINE: Duration = Duration::from_secs(10);

/// Ends what it shows when dropped.
pub struct Progress {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    done: AtomicU64,
    /// 0 while unknown.
    total: AtomicU64,
    over: Mutex<bool>,
    changed: Condvar,
}

impl Progress {
    /// `what` goes on, counted in `unit`s: "Reading the journal", "files".
    pub fn of(what: impl Into<String>, unit: &'static str) -> Self {
        let (shared, what) = (Arc::new(Shared::default()), what.into());
        let theirs = shared.clone();
        let show = move || {
            if !theirs.waits(AFTER) {
                return;
            }
            let began = Instant::now() - AFTER;
            match io::stderr().is_terminal() {
                true => theirs.draw(&what, unit),
                false => theirs.tell(&what, unit, began, &mut io::stderr()),
            }
        };
        // Without a thread it goes on in silence.
        let thread = std::thread::Builder::new().name("progress".into()).spawn(show).ok();
        Self { shared, thread }
    }

    /// So much is to be done.
    pub fn expect(&self, total: u64) {
        self.shared.total.store(total, Relaxed);
    }

    pub fn step(&self) {
        self.shared.done.fetch_add(1, Relaxed);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        *self.shared.over.lock() = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Waits for this time; false if the work ended before.
    fn waits(&self, time: Duration) -> bool {
        let mut over = self.over.lock();
        self.changed.wait_while_for(&mut over, |over| !*over, time);
        !*over
    }

    fn draw(&self, what: &str, unit: &str) {
        let bar = ProgressBar::new_spinner();
        bar.set_message(what.to_owned());
        loop {
            let (done, total) = (self.done.load(Relaxed), self.total.load(Relaxed));
            let template = match total {
                0 => "{spinner} {msg}, {elapsed}".to_owned(),
                _ => format!("{{msg}} {{wide_bar}} {{pos}}/{{len}} {unit}, {{eta}} left"),
            };
            if let Ok(style) = ProgressStyle::with_template(&template) {
                bar.set_style(style);
            }
            if total > 0 {
                bar.set_length(total);
            }
            bar.set_position(done);
            bar.tick();
            if !self.waits(TICK) {
                break;
            }
        }
        bar.finish_and_clear();
    }

    fn tell(&self, what: &str, unit: &str, began: Instant, out: &mut dyn Write) {
        loop {
            let (done, total) = (self.done.load(Relaxed), self.total.load(Relaxed));
            // A failed write to standard error has nowhere to be reported.
            let _ = writeln!(out, "{}", line(what, unit, (done, total), began.elapsed()));
            if !self.waits(LINE) {
                return;
            }
        }
    }
}

/// `Reading the journal: 12 of 60 files (20 %), 4 s`
fn line(what: &str, unit: &str, (done, total): (u64, u64), took: Duration) -> String {
    let mut line = what.to_owned();
    let _ = match (done, total) {
        (0, 0) => write!(line, ":"),
        (done, 0) => write!(line, ": {done} {unit},"),
        (done, total) => {
            let percent = done.saturating_mul(100) / total;
            write!(line, ": {done} of {total} {unit} ({percent} %),")
        }
    };
    let _ = write!(line, " {} s", took.as_secs());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_say_what_how_far_and_how_long() {
        let line = |counts| line("Reading the journal", "files", counts, Duration::from_secs(4));
        assert_eq!(line((0, 0)), "Reading the journal: 4 s");
        assert_eq!(line((12, 0)), "Reading the journal: 12 files, 4 s");
        assert_eq!(line((12, 60)), "Reading the journal: 12 of 60 files (20 %), 4 s");
    }

    #[test]
    fn what_is_over_soon_says_nothing_and_what_goes_on_says_so_at_once() {
        let shared = Shared::default();
        let mut out = Vec::new();
        *shared.over.lock() = true;
        assert!(!shared.waits(AFTER), "it does not wait for what is over");
        shared.total.store(60, Relaxed);
        shared.tell("Reading", "files", Instant::now(), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "Reading: 0 of 60 files (0 %), 0 s\n");
        let began = Instant::now();
        drop(Progress::of("Reading", "files"));
        assert!(began.elapsed() < AFTER);
    }
}
