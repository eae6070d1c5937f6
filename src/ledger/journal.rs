//! The journal: what has to survive `kill -9`, in the order it happened.
//!
//! Files `<store>.journal/0000000001.log` and so on, of one size. Two are made ahead, so that an append
//! never waits for the file system. Entries are written whole under one short lock: behind the first torn
//! entry there is nothing. When no segment is available (disk full, or SQLite so far behind that the bound
//! is reached) new reservations are refused; settlements wait in memory, as many as there are open
//! reservations, and go in first when there is room again.

pub mod entry;
pub mod segment;
pub mod wakeup;

use std::{
    collections::VecDeque,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use super::journal::{
    entry::{EntryFrame, EntryScan, JournalEntry, SettledEntry},
    segment::{Segment, SegmentWriter},
    wakeup::Wakeup,
};

#[derive(Debug, Clone, Copy)]
pub struct JournalSize {
    /// Bytes of one segment.
    pub segment: usize,
    /// Maximum number of segments, those made ahead included.
    pub segments: usize,
}

impl Default for JournalSize {
    /// 4 MiB each, 256 MiB together.
    fn default() -> Self {
        Self { segment: 4 << 20, segments: 64 }
    }
}

/// Segments made ahead.
const AHEAD: usize = 2;

/// No room; nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalFull;

pub struct Journal {
    dir: PathBuf,
    size: JournalSize,
    active: Mutex<ActiveSegment>,
    next_file: AtomicU64,
    /// Whether the last attempt to make or bring a segment to the disk failed.
    failing: AtomicBool,
    dropped: AtomicU64,
    /// Wakes the thread that runs [`Journal::tend`].
    pub signal: Arc<Wakeup>,
}

struct ActiveSegment {
    writer: SegmentWriter,
    /// Of the next entry.
    sequence: u64,
    ahead: Vec<SegmentWriter>,
    /// Segments not yet in SQLite, the one being written last.
    chain: VecDeque<Arc<Segment>>,
    /// Segments in SQLite whose file is still there.
    spent: Vec<Arc<Segment>>,
    /// Settles that found no room.
    waiting: VecDeque<EntryFrame>,
    closed: bool,
}

impl ActiveSegment {
    fn begin(dir: &Path, first: u64, size: JournalSize, sequence: u64) -> io::Result<Self> {
        let writer = SegmentWriter::create(file(dir, first), size.segment)?;
        let chain = VecDeque::from([writer.segment().clone()]);
        Ok(Self {
            writer,
            sequence,
            ahead: Vec::new(),
            chain,
            spent: Vec::new(),
            waiting: VecDeque::new(),
            closed: false,
        })
    }
}

impl Journal {
    /// Begins an empty journal in `dir`; `sequence` is that of its first entry.
    pub fn begin(dir: &Path, size: JournalSize, sequence: u64) -> io::Result<Self> {
        let first = newest(dir)? + 1;
        let active = ActiveSegment::begin(dir, first, size, sequence)?;
        Ok(Self {
            dir: dir.to_owned(),
            size,
            active: Mutex::new(active),
            next_file: AtomicU64::new(first + 1),
            failing: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            signal: Arc::default(),
        })
    }

    /// Begins anew in the same directory, after [`Journal::close`] and the end of its threads.
    pub fn restart(&self, sequence: u64) -> io::Result<()> {
        let first = newest(&self.dir)? + 1;
        let mut begun = ActiveSegment::begin(&self.dir, first, self.size, sequence)?;
        self.next_file.store(first + 1, Ordering::Relaxed);
        self.signal.reset();
        let mut active = self.active.lock();
        begun.waiting = std::mem::take(&mut active.waiting);
        *active = begun;
        Ok(())
    }

    /// Whether everything that was settled found room.
    pub fn is_written(&self) -> bool {
        self.active.lock().waiting.is_empty()
    }

    /// What was settled and has found no room yet, oldest first.
    pub fn waiting(&self) -> Vec<SettledEntry> {
        let settled = |frame: &EntryFrame| {
            let mut frame = frame.clone();
            match EntryScan::new(frame.stamp(0)).next() {
                Some((_, JournalEntry::Settled(settled, _))) => Some(settled),
                _ => None,
            }
        };
        self.active.lock().waiting.iter().filter_map(settled).collect()
    }

    /// The oldest `count` of [`Journal::waiting`] are in SQLite.
    pub fn forget_waiting(&self, count: usize) {
        let mut active = self.active.lock();
        let count = count.min(active.waiting.len());
        active.waiting.drain(..count);
    }

    /// For a reservation: in the journal when this returns, or refused.
    pub fn append(&self, mut frame: EntryFrame) -> Result<(), JournalFull> {
        let mut active = self.active.lock();
        if active.closed || !active.waiting.is_empty() || !self.push(&mut active, &mut frame) {
            return Err(JournalFull);
        }
        Ok(())
    }

    /// For a settle: in the journal when this returns; without room kept, and written later.
    pub fn append_or_keep(&self, mut frame: EntryFrame) {
        let mut active = self.active.lock();
        if !active.waiting.is_empty() || !self.push(&mut active, &mut frame) {
            active.waiting.push_back(frame);
        }
    }

    /// For a record of a request: dropped and counted when a quarter or less of the journal is
    /// free, so that counting goes on.
    pub fn append_or_drop(&self, mut frame: EntryFrame) {
        let mut active = self.active.lock();
        let crowded = active.chain.len() > self.size.segments * 3 / 4;
        if crowded || !active.waiting.is_empty() || !self.push(&mut active, &mut frame) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn push(&self, active: &mut ActiveSegment, frame: &mut EntryFrame) -> bool {
        if !active.writer.fits(frame.len()) {
            self.signal.wake();
            let Some(next) = active.ahead.pop() else { return false };
            active.writer.seal();
            active.chain.push_back(next.segment().clone());
            active.writer = next;
        }
        let written = active.writer.append(frame.stamp(active.sequence));
        active.sequence += u64::from(written);
        written
    }

    /// Makes segments ahead, writes what waits, brings what is written to the disk. Runs on the
    /// journal's own thread: everything that may stall is here.
    pub fn tend(&self) {
        let made = self.make_ahead();
        self.write_waiting();
        let chain: Vec<_> = self.active.lock().chain.iter().cloned().collect();
        let synced = chain.iter().try_for_each(|segment| segment.sync());
        self.report(made.and(synced));
    }

    fn make_ahead(&self) -> io::Result<()> {
        while self.wants_ahead() {
            let number = self.next_file.fetch_add(1, Ordering::Relaxed);
            let writer = SegmentWriter::create(file(&self.dir, number), self.size.segment)?;
            self.active.lock().ahead.insert(0, writer);
            File::open(&self.dir)?.sync_all()?;
        }
        Ok(())
    }

    fn wants_ahead(&self) -> bool {
        let active = self.active.lock();
        let files = active.chain.len() + active.spent.len() + active.ahead.len();
        !active.closed && active.ahead.len() < AHEAD && files < self.size.segments
    }

    fn write_waiting(&self) {
        let mut active = self.active.lock();
        while let Some(mut frame) = active.waiting.pop_front() {
            if !self.push(&mut active, &mut frame) {
                active.waiting.push_front(frame);
                break;
            }
        }
    }

    /// Once for each change, not for each attempt.
    fn report(&self, outcome: io::Result<()>) {
        let failed = outcome.is_err();
        if self.failing.swap(failed, Ordering::Relaxed) == failed {
            return;
        }
        match outcome {
            Ok(()) => log::info!("journal {}: works again", self.dir.display()),
            Err(problem) => log::error!("journal {}: {problem}", self.dir.display()),
        }
    }

    /// The oldest segment that is not yet in SQLite.
    pub fn oldest(&self) -> Option<Arc<Segment>> {
        self.active.lock().chain.front().cloned()
    }

    /// The oldest segment is sealed and in SQLite. The one being written is never taken.
    pub fn spend_oldest(&self) {
        let mut active = self.active.lock();
        if active.chain.len() > 1
            && let Some(segment) = active.chain.pop_front()
        {
            active.spent.push(segment);
        }
    }

    /// Segments whose files may go once SQLite has them on the disk.
    pub fn spent(&self) -> usize {
        self.active.lock().spent.len()
    }

    pub fn remove_spent(&self) {
        let spent = std::mem::take(&mut self.active.lock().spent);
        for segment in spent {
            if let Err(problem) = std::fs::remove_file(segment.path()) {
                log::warn!("{}: {problem}", segment.path().display());
            }
        }
        self.signal.wake();
    }

    /// No reservation is taken from now on; settles still are.
    pub fn close(&self) {
        self.active.lock().closed = true;
    }

    /// Sequence of the last entry.
    pub fn reaches(&self) -> u64 {
        self.active.lock().sequence - 1
    }

    /// Whether a reservation would find room, and the disk takes what is written.
    pub fn is_up(&self) -> bool {
        let active = self.active.lock();
        let room = active.writer.fits(4096) || !active.ahead.is_empty();
        room && active.waiting.is_empty() && !active.closed && !self.failing.load(Ordering::Relaxed)
    }

    /// Records of requests that found no room, since the last call.
    pub fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    #[cfg(test)]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

fn file(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}.log"))
}

/// The segments in `dir` by number, oldest first. Other files are not ours.
pub fn files(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for item in std::fs::read_dir(dir)? {
        let path = item?.path();
        let number =
            path.file_name().and_then(|name| name.to_str()?.strip_suffix(".log")?.parse().ok());
        files.extend(number.map(|number: u64| (number, path)));
    }
    files.sort();
    Ok(files)
}

fn newest(dir: &Path) -> io::Result<u64> {
    Ok(files(dir)?.last().map_or(0, |(number, _)| *number))
}
