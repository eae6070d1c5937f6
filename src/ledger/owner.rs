//! One owner for a store: two gateways on one file would each grant the whole limit.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::Path,
};

use rustix::{
    fs::{FlockOperation, flock, ftruncate},
    io::Errno,
};

/// Held as long as this lives; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct Owner {
    file: File,
    /// Another process holds the same lock; letting go of it here would take it from there.
    pub is_shared: bool,
    /// It came from another process, which takes the store back if this one fails.
    is_lent: bool,
}

impl Drop for Owner {
    /// Closing alone is not enough: a child that was just forked has the file open until its exec. Of
    /// a lock that was lent it is: whoever lent it still holds it, or has ended.
    fn drop(&mut self) {
        if !self.is_shared && !self.is_lent {
            let _ = flock(&self.file, FlockOperation::Unlock);
        }
    }
}

pub enum Taken {
    /// By this process id, if the holder could write it down.
    Held(Option<u32>),
    Failed(io::Error),
}

impl Owner {
    pub fn take(path: &Path) -> Result<Self, Taken> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(path).map_err(Taken::Failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(Taken::Held(holder(&mut file))),
            Err(errno) => return Err(Taken::Failed(errno.into())),
        }
        let mut owner = Self { file, is_shared: false, is_lent: false };
        owner.sign();
        Ok(owner)
    }

    /// Takes a lock that another process holds and gave away.
    pub fn adopt(lock: OwnedFd) -> io::Result<Self> {
        let file = File::from(lock);
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let mut owner = Self { file, is_shared: false, is_lent: true };
        owner.sign();
        Ok(owner)
    }

    /// Takes it once more, in case a process that shared it let go; whether nobody else has it.
    pub fn renew(&self) -> bool {
        flock(&self.file, FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    /// The same lock, for another process.
    pub fn copy(&self) -> io::Result<OwnedFd> {
        self.file.try_clone().map(OwnedFd::from)
    }

    /// The number only helps a person; the lock itself does not need it.
    pub fn sign(&mut self) {
        let _ = ftruncate(&self.file, 0);
        let _ = self.file.rewind();
        let _ = write!(self.file, "{}", std::process::id());
    }
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_adopts_a_lock_and_fails_leaves_it_held() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.lock");
        let is_held = || matches!(Owner::take(&path), Err(Taken::Held(_)));
        let mut old = Owner::take(&path).unwrap_or_else(|_| panic!("nobody has it"));
        let new = Owner::adopt(old.copy().unwrap()).unwrap();
        old.is_shared = true;
        drop(new);
        assert!(is_held());
        old.is_shared = false;
        assert!(old.renew() && is_held());
        drop(old);
        assert!(!is_held());
    }

    #[test]
    fn a_lock_that_was_let_go_is_had_again_unless_somebody_else_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.lock");
        let old = Owner::take(&path).unwrap_or_else(|_| panic!("nobody has it"));
        // As a process that shared it might.
        flock(File::from(old.copy().unwrap()), FlockOperation::Unlock).unwrap();
        assert!(old.renew());
        assert!(Owner::take(&path).is_err());
        flock(File::from(old.copy().unwrap()), FlockOperation::Unlock).unwrap();
        let other = Owner::take(&path).unwrap_or_else(|_| panic!("nobody has it"));
        assert!(!old.renew());
        drop(other);
        assert!(old.renew());
    }
}
