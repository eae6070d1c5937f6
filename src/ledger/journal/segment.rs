//! One mapped file of the journal.
//!
//! Why a mapping: a store into it is in the kernel's page cache at once, so it outlives the
//! process, and costs no system call. All blocks are allocated when the file is made: a store into
//! a mapped hole on a full disk would kill the process with SIGBUS.
#![allow(unsafe_code)]

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use memmap2::{MmapOptions, MmapRaw};
use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

/// First bytes of every segment: the format and the version of its entries.
pub const MAGIC: [u8; 16] = *b"gatekeeper-jrnl1";

/// The readable part of a segment: only completely written entries.
pub struct Segment {
    map: MmapRaw,
    path: PathBuf,
    /// Bytes written whole. Below it nothing changes any more; above it only [`SegmentWriter`] looks.
    written: AtomicUsize,
    /// Bytes known to be on the disk.
    synced: AtomicUsize,
    /// Nothing more is written to it.
    sealed: AtomicBool,
}

/// The one that appends. There is exactly one for a segment, made together with it.
pub struct SegmentWriter {
    segment: Arc<Segment>,
    at: usize,
}

impl SegmentWriter {
    /// Makes the file with all its blocks, 0600. Nothing is left behind on failure.
    pub fn create(path: PathBuf, size: usize) -> io::Result<Self> {
        let made = allocate(&path, size).and_then(|file| map(&file, size));
        let map = made.inspect_err(|_| {
            let _ = std::fs::remove_file(&path);
        })?;
        let segment = Arc::new(Segment {
            map,
            path,
            written: AtomicUsize::new(0),
            synced: AtomicUsize::new(0),
            sealed: AtomicBool::new(false),
        });
        let mut writer = Self { segment, at: 0 };
        writer.append(&MAGIC);
        Ok(writer)
    }

    pub fn fits(&self, bytes: usize) -> bool {
        bytes <= self.segment.map.len() - self.at
    }

    /// False, and nothing written, when it does not fit.
    pub fn append(&mut self, bytes: &[u8]) -> bool {
        if !self.fits(bytes.len()) {
            return false;
        }
        // SAFETY: `fits` keeps the range inside the mapping, which lives as long as the segment. `self` is
        // the only writer, borrowed mutably; readers stay below `written`, which is at most `self.at`.
        // `bytes` cannot overlap: no reference above `written` is ever given out.
        unsafe {
            let to = self.segment.map.as_mut_ptr().add(self.at);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        self.at += bytes.len();
        self.segment.written.store(self.at, Ordering::Release);
        true
    }

    pub fn seal(&self) {
        self.segment.sealed.store(true, Ordering::Release);
    }

    pub fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }
}

impl Segment {
    /// What has been written whole, the magic included.
    pub fn written(&self) -> &[u8] {
        let length = self.written.load(Ordering::Acquire);
        // SAFETY: inside the mapping, initialised, and never written again: the writer only goes
        // forward from `written`. The owner lock keeps other processes away from the file.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr(), length) }
    }

    /// Ask before [`Segment::written`]: then that is all there will ever be.
    pub fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    /// Brings everything written so far to the disk, and waits for it.
    pub fn sync(&self) -> io::Result<()> {
        let (from, to) =
            (self.synced.load(Ordering::Relaxed), self.written.load(Ordering::Acquire));
        if from < to {
            self.map.flush_range(from, to - from)?;
            self.synced.fetch_max(to, Ordering::Relaxed);
        }
        Ok(())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn allocate(path: &Path, size: usize) -> io::Result<File> {
    let mut file =
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, size as u64) {
        Ok(()) => {}
        // A file system that cannot reserve blocks gets them by writing.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(&mut file, size)?,
        Err(errno) => return Err(errno.into()),
    }
    Ok(file)
}

fn write_zeros(file: &mut File, size: usize) -> io::Result<()> {
    let zeros = [0; 64 * 1024];
    let mut left = size;
    while left > 0 {
        let part = left.min(zeros.len());
        file.write_all(&zeros[..part])?;
        left -= part;
    }
    file.sync_data()
}

fn map(file: &File, size: usize) -> io::Result<MmapRaw> {
    MmapOptions::new().len(size).map_raw(file)
}
