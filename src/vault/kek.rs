//! The key-encrypting key: 32 bytes, in base64, in a file of its own or the environment.
//!
//! A file is refused when it is readable by another user than its owner, when it is a symbolic link or when it
//! has another owner: write or read access to it opens every provider key. A credential that systemd
//! gives a service is accepted as it is: it belongs to root, and an ACL lets the service's user read it, which
//! looks like read access of root's group.

use std::{
    fmt,
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use hkdf::Hkdf;
use rustix::fs::OFlags;
use sha2::Sha256;
use zeroize::Zeroizing;

/// Longest file that can hold a key; a larger one is not a key file.
const MAX_FILE: u64 = 4096;

/// Where a secret comes from when it is not sealed: `env:NAME` or `file:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KekSource {
    Env(String),
    File(PathBuf),
}

impl KekSource {
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("env", name) if is_env_name(name) => Some(KekSource::Env(name.into())),
            ("file", path) if !path.trim().is_empty() => Some(KekSource::File(path.into())),
            _ => None,
        }
    }
}

fn is_env_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

impl fmt::Display for KekSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KekSource::Env(name) => write!(f, "env:{name}"),
            KekSource::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

/// Why a KEK can't be used. No variant holds any part of one.
#[derive(Debug, thiserror::Error)]
pub enum KekError {
    #[error("environment variable {0} is not set")]
    Unset(String),
    #[error("{} does not exist; `gatekeeper seal` makes it", .0.display())]
    Missing(PathBuf),
    #[error("{} is a symbolic link; name the file itself", .0.display())]
    Link(PathBuf),
    #[error("{} is not a file", .0.display())]
    NotAFile(PathBuf),
    #[error(
        "{path} may be read by others (mode {mode:04o}); run: chmod 600 {path}",
        path = .path.display()
    )]
    Open { path: PathBuf, mode: u32 },
    #[error(
        "{path} belongs to user {owner}, not to {user} who runs this; run: \
         chown {user} {path} && chmod 600 {path}",
        path = .path.display()
    )]
    Owner { path: PathBuf, owner: u32, user: u32 },
    #[error("{0} does not hold 32 bytes in base64 (44 characters, the last is `=`)")]
    Malformed(KekSource),
    #[error("{} already exists", .0.display())]
    Exists(PathBuf),
    #[error("{}: {error}", .path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("the operating system gives no random numbers")]
    NoRandom,
}

impl KekError {
    /// Nothing is there yet, as opposed to something wrong.
    pub fn is_absent(&self) -> bool {
        matches!(self, KekError::Unset(_) | KekError::Missing(_))
    }
}

/// A key-encrypting key.
pub struct Kek {
    key: Zeroizing<[u8; 32]>,
    id: String,
}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kek").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Kek {
    pub fn new(key: Zeroizing<[u8; 32]>) -> Self {
        let id = derive(&key, b"kek-id-v1");
        let id = id[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Self { key, id }
    }

    /// 16 hexadecimal digits that identify the key without revealing it.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// HKDF-SHA256 of the key, without salt, under a label.
    pub(super) fn derive(&self, label: &[u8]) -> Zeroizing<[u8; 32]> {
        derive(&self.key, label)
    }

    /// # Errors
    /// See [`KekError`].
    pub fn load(source: &KekSource) -> Result<Self, KekError> {
        let text = match source {
            KekSource::Env(name) => {
                Zeroizing::new(std::env::var(name).map_err(|_| KekError::Unset(name.clone()))?)
            }
            KekSource::File(path) => read_private(path)?,
        };
        decode(&text).map(Self::new).ok_or_else(|| KekError::Malformed(source.clone()))
    }

    /// Makes a new key in a new file (0600), and the file's directory (0700) if there is none.
    /// The key is on the disk when this returns.
    ///
    /// # Errors
    /// See [`KekError`]; an existing file is never overwritten.
    pub fn generate_file(path: &Path) -> Result<Self, KekError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists => KekError::Exists(path.into()),
            _ => KekError::Io { path: path.into(), error },
        };
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *key).map_err(|_| KekError::NoRandom)?;
        let text = Zeroizing::new(STANDARD.encode(*key) + "\n");
        let directory = directory_of(path);
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        Ok(Self::new(key))
    }
}

/// The directory a path is in; `.` for a bare name.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn derive(key: &[u8; 32], label: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0; 32]);
    let derived = Hkdf::<Sha256>::new(None, key).expand(label, &mut *out);
    debug_assert!(derived.is_ok(), "32 bytes are well within what HKDF gives");
    out
}

/// 32 bytes from base64, surrounding white space ignored.
pub(super) fn decode(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let bytes = Zeroizing::new(STANDARD.decode(text.trim()).ok()?);
    let mut key = Zeroizing::new([0; 32]);
    if bytes.len() != key.len() {
        return None;
    }
    key.copy_from_slice(&bytes);
    Some(key)
}

/// By a file's mode and owner. With an ACL, the group bits of the mode show the widest access that the ACL
/// grants.
fn is_private(mode: u32, owner: u32, is_credential: bool) -> bool {
    mode & 0o077 == 0 || (is_credential && owner == 0 && mode & 0o777 == 0o440)
}

/// Whether a file lies in this very directory, not in one below it.
fn lies_in(path: &Path, directory: &Path) -> bool {
    let real = |directory: &Path| directory.canonicalize().ok();
    directory.is_absolute()
        && real(directory).is_some_and(|it| real(directory_of(path)) == Some(it))
}

/// Reads a file that only its owner can read. All checks are on the open file, so it cannot be swapped in
/// between.
fn read_private(path: &Path) -> Result<Zeroizing<String>, KekError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => KekError::Missing(path.into()),
        _ => KekError::Io { path: path.into(), error },
    };
    // NONBLOCK: opening a pipe must not hang.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| {
        // The error of a link has no stable name.
        if path.is_symlink() { KekError::Link(path.into()) } else { failed(error) }
    })?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(KekError::NotAFile(path.into()));
    }
    // A directory in between may be a link: those belong to the operator, the key file decides.
    let user = rustix::process::geteuid().as_raw();
    if meta.uid() != user && meta.uid() != 0 {
        return Err(KekError::Owner { path: path.into(), owner: meta.uid(), user });
    }
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let is_credential = directory.is_some_and(|directory| lies_in(path, &directory));
    if !is_private(meta.mode(), meta.uid(), is_credential) {
        return Err(KekError::Open { path: path.into(), mode: meta.mode() & 0o7777 });
    }
    let mut text = Zeroizing::new(String::with_capacity(MAX_FILE as usize));
    file.take(MAX_FILE).read_to_string(&mut text).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => KekError::Malformed(KekSource::File(path.into())),
        _ => KekError::Io { path: path.into(), error },
    })?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_credential_of_root_may_look_as_if_its_group_read_it() {
        for mode in [0o600, 0o400, 0o700] {
            assert!(is_private(mode, 0, false) && is_private(mode, 1000, false), "{mode:o}");
        }
        assert!(is_private(0o440, 0, true));
        // As `stat` has it, with the kind of file.
        assert!(is_private(0o100440, 0, true));
        assert!(!is_private(0o440, 0, false) && !is_private(0o440, 1000, true));
        for mode in [0o640, 0o460, 0o444, 0o441, 0o450, 0o404, 0o660] {
            assert!(!is_private(mode, 0, true), "{mode:o}");
        }
    }

    #[test]
    fn a_credential_lies_in_the_directory_itself() {
        let given = tempfile::tempdir().unwrap();
        let (given, below) = (given.path(), given.path().join("below"));
        std::fs::create_dir(&below).unwrap();
        assert!(lies_in(&given.join("kek"), given));
        assert!(lies_in(&below.join("../kek"), given));
        assert!(!lies_in(&below.join("kek"), given));
        assert!(!lies_in(&given.join("../kek"), given));
        assert!(!lies_in(Path::new("kek"), given));
        assert!(!lies_in(&given.join("kek"), &below));
        assert!(!lies_in(&given.join("kek"), Path::new("")));
        assert!(!lies_in(&given.join("nowhere/kek"), &given.join("nowhere")));
    }
}
