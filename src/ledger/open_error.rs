//! Why a store does not open.

use std::{io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum StoreOpenError {
    // The source is printed by the caller, with the chain of causes.
    #[error("the store's file {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(
        "the store {} is in use by another gateway{}: two would each grant the whole limit",
        path.display(),
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    InUse { path: PathBuf, pid: Option<u32> },
    #[error(
        "the store {} was written by a newer gatekeeper (schema {found}, this one knows {known}): \
         start that version, or give this one another store.path",
        path.display()
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("{}: not a journal this version can read", path.display())]
    Foreign { path: PathBuf },
    #[error("the store {}", path.display())]
    Sqlite { path: PathBuf, source: rusqlite::Error },
    #[error("no thread for the store: {0}")]
    Thread(io::Error),
}
