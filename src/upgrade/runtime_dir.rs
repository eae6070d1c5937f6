//! The runtime directory and its sockets, by which processes of one gateway find each other.
//!
//! `$RUNTIME_DIRECTORY/handover`, as systemd gives it, else `<store>.handover` beside the store; in the
//! former case the latter is a link to it, so that the configuration alone is enough to find it. Files:
//!
//! ```text
//! HASH.sock        the gateway that serves; the hash is that of the configuration's path
//! HASH.PID.apps    where a successor takes requests that still come to its predecessor
//! ```

use std::{
    env,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
    net::sockopt::socket_peercred,
    process::{Pid, PidfdFlags, Signal, geteuid, getpid, pidfd_open, pidfd_send_signal},
};
use sha2::{Digest, Sha256};

/// Bytes of a socket's path.
const LONGEST: usize = 107;

/// A directory, open: where the path of a socket in it is too long, it is reached through the descriptor.
#[derive(Debug)]
pub struct RuntimeDir {
    pub path: PathBuf,
    directory: File,
    name: String,
}

impl RuntimeDir {
    /// Creates the directory, or checks that no other user can enter it.
    ///
    /// # Errors
    /// It can't be created, or belongs to another user.
    pub fn prepare(config: &Path, store: &Path) -> io::Result<Self> {
        let beside = beside(store);
        // Of a process that was started in another way.
        if fs::symlink_metadata(&beside).is_ok_and(|there| there.is_symlink()) {
            let _ = fs::remove_file(&beside);
        }
        let path = match given() {
            None => beside,
            Some(path) => {
                // Only a help to find it.
                let _ = symlink(std::path::absolute(&path)?, &beside);
                path
            }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        let there = fs::symlink_metadata(&path)?;
        if !there.is_dir() || there.uid() != geteuid().as_raw() {
            return Err(io::Error::other("it is no directory of this user's"));
        }
        if there.mode() & 0o077 != 0 {
            fs::set_permissions(&path, Permissions::from_mode(0o700))?;
        }
        Self::open(path, config)
    }

    /// Where a gateway with this configuration may be found.
    pub fn candidates(config: &Path, store: &Path) -> Vec<Self> {
        // The gateway may have been started with the file itself, not a link to it.
        let names = [Some(config.to_owned()), fs::canonicalize(config).ok()];
        let paths: Vec<PathBuf> = given().into_iter().chain([beside(store)]).collect();
        let places = names.iter().flatten().flat_map(|config| {
            paths.iter().filter_map(|path| Self::open(path.clone(), config).ok())
        });
        places.collect()
    }

    fn open(path: PathBuf, config: &Path) -> io::Result<Self> {
        let flags = (OFlags::DIRECTORY | OFlags::PATH).bits() as i32;
        let path = fs::canonicalize(path)?;
        let directory = OpenOptions::new().read(true).custom_flags(flags).open(&path)?;
        let config = in_its_directory(config)?;
        let hash = Sha256::digest(config.as_os_str().as_encoded_bytes());
        let name = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { path, directory, name })
    }

    /// The path of a file in it, valid as long as this lives; the same for all users where it is short
    /// enough for a socket.
    pub fn via(&self, file: &str) -> String {
        match self.path.join(file).to_str() {
            Some(path) if path.len() <= LONGEST && path.starts_with('/') => path.to_owned(),
            _ => format!("/proc/self/fd/{}/{file}", self.directory.as_raw_fd()),
        }
    }

    fn socket(&self) -> String {
        format!("{}.sock", self.name)
    }

    /// Where this process takes what its predecessor sends on.
    pub fn apps(&self) -> String {
        format!("{}.{}.apps", self.name, std::process::id())
    }

    /// # Errors
    /// No process listens there.
    pub fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(self.via(&self.socket()))
    }

    /// Listens there in place of the current listener.
    ///
    /// # Errors
    /// A socket can't be made.
    pub fn listen(&self) -> io::Result<UnixListener> {
        self.sweep();
        let fresh = self.via(&format!("{}.{}.new", self.name, std::process::id()));
        let _ = fs::remove_file(&fresh);
        let listener = UnixListener::bind(&fresh)?;
        fs::rename(&fresh, self.via(&self.socket()))?;
        Ok(listener)
    }

    /// Whether connections to it reach this process.
    pub fn is_own(&self) -> bool {
        let found = self.connect().and_then(|stream| peer(&stream));
        found.is_ok_and(|found| found.pid == getpid())
    }

    /// Removes what this process has there; the common socket only if it is `owned`.
    pub fn leave(&self, owned: bool) {
        let _ = fs::remove_file(self.via(&self.apps()));
        if owned {
            let _ = fs::remove_file(self.via(&self.socket()));
        }
    }

    /// Removes what processes left that are gone.
    fn sweep(&self) {
        for item in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let file = item.file_name();
            let parts: Vec<&str> = file.to_str().unwrap_or_default().split('.').collect();
            if let [name, pid, _] = parts[..]
                && name == self.name
                && pid.parse::<u32>().is_ok()
                && !Path::new("/proc").join(pid).exists()
            {
                let _ = fs::remove_file(item.path());
            }
        }
    }
}

/// A file as its directory knows it: a link of that name may be turned while the gateway runs.
fn in_its_directory(file: &Path) -> io::Result<PathBuf> {
    let file = std::path::absolute(file)?;
    match (file.parent(), file.file_name()) {
        (Some(directory), Some(name)) => Ok(fs::canonicalize(directory)?.join(name)),
        _ => Ok(file),
    }
}

/// What systemd gives the service.
fn given() -> Option<PathBuf> {
    let given = env::var_os("RUNTIME_DIRECTORY").filter(|given| !given.is_empty())?;
    Some(env::split_paths(&given).next()?.join("handover"))
}

fn beside(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(".handover");
    PathBuf::from(name)
}

/// A handle of another process, safe against reuse of its pid.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// # Errors
    /// There is none of this number.
    pub fn open(pid: Pid) -> io::Result<Self> {
        Ok(Self(pidfd_open(pid, PidfdFlags::empty())?))
    }

    /// Waits for its end; everything it had open is closed then.
    pub fn is_dead(&self, within: Duration) -> bool {
        let mut ended = [PollFd::new(&self.0, PollFlags::IN)];
        let within = Timespec::try_from(within).ok();
        poll(&mut ended, within.as_ref()).is_ok_and(|ended| ended > 0)
    }

    /// Sees to it that it is dead.
    pub fn end(&self) {
        while !self.is_dead(Duration::from_millis(300)) {
            let _ = pidfd_send_signal(&self.0, Signal::KILL);
        }
    }
}

/// The process at the other end.
#[derive(Debug, Clone, Copy)]
pub struct PeerCredentials {
    pub pid: Pid,
    /// The same user as this process.
    pub is_same: bool,
    pub is_root: bool,
}

/// # Errors
/// The kernel does not report it.
pub fn peer(stream: &UnixStream) -> io::Result<PeerCredentials> {
    let who = socket_peercred(stream)?;
    Ok(PeerCredentials { pid: who.pid, is_same: who.uid == geteuid(), is_root: who.uid.is_root() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_has_one_name_however_it_is_spelled_and_wherever_it_leads() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("conf")).unwrap();
        for file in ["conf/first.yaml", "conf/second.yaml"] {
            fs::write(at(file), "").unwrap();
        }
        symlink(at("conf"), at("linked")).unwrap();
        symlink(at("conf/first.yaml"), at("conf/gateway.yaml")).unwrap();
        let name = |file: &str| RuntimeDir::open(dir.path().into(), &at(file)).unwrap().name;
        let own = name("conf/gateway.yaml");
        assert_eq!(name("conf/../conf/./gateway.yaml"), own);
        assert_eq!(name("linked/gateway.yaml"), own);
        assert_ne!(name("conf/first.yaml"), own);
        // A gateway started with the file itself is found through the link, too.
        let found = RuntimeDir::candidates(&at("conf/gateway.yaml"), &at("store"));
        assert!(found.is_empty(), "there is no store");
        fs::create_dir(at("store.handover")).unwrap();
        let found = RuntimeDir::candidates(&at("conf/gateway.yaml"), &at("store"));
        let names: Vec<_> = found.iter().map(|place| place.name.clone()).collect();
        assert!(names.ends_with(&[own.clone(), name("conf/first.yaml")]), "{names:?}");
        fs::remove_file(at("conf/gateway.yaml")).unwrap();
        symlink(at("conf/second.yaml"), at("conf/gateway.yaml")).unwrap();
        assert_eq!(name("conf/gateway.yaml"), own);
    }
}
