//! The files that a configuration was read from: itself and what it names (secrets, KEKs, certificates). Each is
//! stamped just before it is read, so that a save during the read is noticed.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Distinguishes states of a file. Seconds and nanoseconds; `changed` covers its permissions, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileStamp {
    /// Of what the path leads to; `None` while there is nothing.
    pub fn of(path: &Path) -> Option<Self> {
        let told = fs::metadata(path).ok()?;
        Some(Self {
            device: told.dev(),
            inode: told.ino(),
            length: told.len(),
            modified: (told.mtime(), told.mtime_nsec()),
            changed: (told.ctime(), told.ctime_nsec()),
        })
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceFiles(BTreeMap<PathBuf, Option<FileStamp>>);

impl SourceFiles {
    /// To be called before the file is read; the first time counts.
    pub fn note(&mut self, path: &Path) {
        if !self.0.contains_key(path) {
            self.0.insert(path.to_owned(), FileStamp::of(path));
        }
    }

    /// The same files as they are now.
    pub fn look(&self) -> Self {
        Self(self.0.keys().map(|path| (path.clone(), FileStamp::of(path))).collect())
    }
}
