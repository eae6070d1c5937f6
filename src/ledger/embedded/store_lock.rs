//! One owner for a store: two gateways on one file would each grant the whole limit.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock, ftruncate},
    io::Errno,
};

use crate::ledger::open_error::StoreOpenError;

/// Held as long as this lives; the kernel lets go of it when the process ends, however it ends. The lock
/// is on the database itself, so that it holds by whatever path that is reached: a link, another mount.
/// (SQLite locks ranges of the same file in another way; the two do not see each other.)
#[derive(Debug)]
pub struct StoreLock {
    file: File,
    /// The file beside it that names the owner of the store. Earlier versions lock this one alone, so it is
    /// locked, too, where possible.
    note: File,
    /// Another process holds the same lock; letting go of it here would take it from there.
    pub is_shared: bool,
    /// It came from another process, which takes the store back if this one fails.
    is_lent: bool,
}

impl Drop for StoreLock {
    /// Closing is not enough: a child process has the file open between fork and exec. For a lent lock it
    /// is: the lender still holds it, or has ended.
    fn drop(&mut self) {
        if !self.is_shared && !self.is_lent {
            let _ = flock(&self.file, FlockOperation::Unlock);
            let _ = flock(&self.note, FlockOperation::Unlock);
        }
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
}

fn open(path: &Path) -> Result<File, LockTaken> {
    options().open(path).map_err(LockTaken::Failed)
}

pub enum LockTaken {
    /// By this process id, if the holder could write it down.
    Held(Option<u32>),
    Failed(io::Error),
}

impl StoreLock {
    /// Takes the store, creating its file if missing; `note` is the file that names the owner.
    pub fn take(store: &Path, note: &Path) -> Result<Self, LockTaken> {
        let (file, mut note) = (open(store)?, open(note)?);
        let exclusive = FlockOperation::NonBlockingLockExclusive;
        match flock(&note, exclusive).and_then(|()| flock(&file, exclusive)) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(LockTaken::Held(holder(&mut note))),
            Err(errno) => return Err(LockTaken::Failed(errno.into())),
        }
        let mut owner = Self { file, note, is_shared: false, is_lent: false };
        owner.sign();
        Ok(owner)
    }

    /// Takes a lock that another process holds and gave away.
    pub fn adopt(lock: OwnedFd, note: &Path) -> io::Result<Self> {
        let file = File::from(lock);
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let note = options().open(note)?;
        let _ = flock(&note, FlockOperation::NonBlockingLockExclusive);
        let mut owner = Self { file, note, is_shared: false, is_lent: true };
        owner.sign();
        Ok(owner)
    }

    /// Takes it again after sharing it with another process; whether this process is now the only owner.
    pub fn renew(&self) -> bool {
        let _ = flock(&self.note, FlockOperation::NonBlockingLockExclusive);
        flock(&self.file, FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    /// The same lock, for another process, which is to have the note, too.
    pub fn copy(&self) -> io::Result<OwnedFd> {
        let _ = flock(&self.note, FlockOperation::Unlock);
        self.file.try_clone().map(OwnedFd::from)
    }

    /// The number only helps a person; the lock itself does not need it.
    pub fn sign(&mut self) {
        let _ = ftruncate(&self.note, 0);
        let _ = self.note.rewind();
        let _ = write!(self.note, "{}", std::process::id());
    }
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Takes the store, or adopts the lock of the process that gave it away.
pub fn owner(path: &Path, inherited: Option<OwnedFd>) -> Result<StoreLock, StoreOpenError> {
    match inherited {
        None => own(path),
        Some(lock) => {
            let note = beside(path, ".lock");
            StoreLock::adopt(lock, &note)
                .map_err(|source| StoreOpenError::File { path: note, source })
        }
    }
}

fn own(path: &Path) -> Result<StoreLock, StoreOpenError> {
    StoreLock::take(path, &beside(path, ".lock")).map_err(|taken| match taken {
        LockTaken::Held(pid) => StoreOpenError::InUse { path: path.to_owned(), pid },
        LockTaken::Failed(source) => StoreOpenError::File { path: path.to_owned(), source },
    })
}

/// A file beside the store.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(dir: &Path, store: &str) -> Result<StoreLock, LockTaken> {
        StoreLock::take(&dir.join(store), &dir.join(format!("{store}.lock")))
    }

    fn taken(dir: &Path) -> StoreLock {
        take(dir, "store").unwrap_or_else(|_| panic!("it is free"))
    }

    #[test]
    fn who_adopts_a_lock_and_fails_leaves_it_held() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let is_held = || matches!(take(dir, "store"), Err(LockTaken::Held(_)));
        let mut old = taken(dir);
        let new = StoreLock::adopt(old.copy().unwrap(), &dir.join("store.lock")).unwrap();
        old.is_shared = true;
        drop(new);
        assert!(is_held());
        old.is_shared = false;
        assert!(old.renew() && is_held());
        drop(old);
        assert!(!is_held());
    }

    #[test]
    fn a_lock_that_was_let_go_is_had_again_unless_another_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let old = taken(dir);
        // As a process that shared it might.
        flock(File::from(old.copy().unwrap()), FlockOperation::Unlock).unwrap();
        assert!(old.renew());
        assert!(take(dir, "store").is_err());
        flock(File::from(old.copy().unwrap()), FlockOperation::Unlock).unwrap();
        let _ = flock(&old.note, FlockOperation::Unlock);
        let other = taken(dir);
        assert!(!old.renew());
        drop(other);
        assert!(old.renew());
    }

    #[test]
    fn one_file_has_one_owner_by_whatever_name() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let old = taken(dir);
        std::fs::hard_link(dir.join("store"), dir.join("hard")).unwrap();
        std::os::unix::fs::symlink(dir.join("store"), dir.join("soft")).unwrap();
        for name in ["hard", "soft", "./store"] {
            assert!(matches!(take(dir, name), Err(LockTaken::Held(_))), "{name}");
        }
        drop(old);
        let hard = take(dir, "hard").unwrap_or_else(|_| panic!("it is free"));
        assert!(take(dir, "store").is_err());
        drop(hard);
    }
}
