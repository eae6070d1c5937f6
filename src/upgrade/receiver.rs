//! The receiving side of an upgrade: waits for the predecessor and takes over what it hands over.

use std::{
    io,
    os::unix::net::UnixStream,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use parking_lot::Mutex;
use rustix::process::Pid;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

use super::{
    adopted_requests::{AdoptedRequests, AdoptedState},
    protocol::{self, Compatibility, FromPredecessor, FromSuccessor, Hello, LedgerState, PROTOCOL},
    runtime_dir::{self, PidFd, RuntimeDir},
    switchable_ledger::SwitchableLedger,
};
use crate::{
    config::settings::{self, Settings},
    ledger::{
        DistributedLedger, EmbeddedLedger, SCHEMA,
        in_memory_state::{InMemoryState, InheritedStore},
    },
    os::sockets::Socket,
    runtime::snapshot::SharedState,
};

/// How long the running gateway may take to identify itself, and to send what it has begun to send.
const PATIENCE: Duration = Duration::from_secs(10);

/// The gateway whose place this process takes.
pub struct Predecessor {
    pub pid: Pid,
    stream: Arc<UnixStream>,
    writing: Arc<Mutex<()>>,
    pub place: RuntimeDir,
    sockets: Mutex<Vec<Socket>>,
    /// Reservations that are open there, by the name that is used between the two.
    volatile: Mutex<Option<InMemoryState>>,
    places: Vec<(gatekeeper_filters::kernel::LicenseId, u32)>,
    inherited: Mutex<Option<InheritedStore>>,
    is_over: Arc<AtomicBool>,
}

/// What the store of these settings is to another process.
pub fn kind(settings: &settings::StoreSettings) -> Compatibility {
    let shared = settings.redis.as_ref().map(|redis| {
        let hash = Sha256::digest(redis.url.expose_secret().as_bytes());
        hash[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    });
    let store = std::fs::canonicalize(&settings.path).unwrap_or_else(|_| settings.path.clone());
    Compatibility { protocol: PROTOCOL, schema: SCHEMA, store, shared }
}

/// Waits until the running gateway hands over. `None` if it ended before: then there is nothing to take
/// over.
///
/// # Errors
/// There is none, or it does not hand over to this process.
pub fn wait(config: &Path, settings: &Settings) -> anyhow::Result<Option<Arc<Predecessor>>> {
    let places = RuntimeDir::candidates(config, &settings.store.path);
    let found = places.into_iter().find_map(|place| Some((place.connect().ok()?, place)));
    let Some((stream, place)) = found else {
        bail!("run --upgrade: no gateway runs on {}; start without --upgrade", config.display());
    };
    let peer = runtime_dir::peer(&stream).context("the running gateway")?;
    anyhow::ensure!(peer.is_same, "run --upgrade: another user's process has the gateway's socket");
    let pid = peer.pid.as_raw_nonzero();
    let process = PidFd::open(peer.pid).context("the running gateway")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    protocol::send(&stream, &Hello::Successor(kind(&settings.store)))?;
    match protocol::receive(&stream).context("the running gateway does not answer")? {
        FromPredecessor::Welcome => {}
        FromPredecessor::Refused(why) => bail!("process {pid} does not hand over: {why}"),
        _ => bail!("process {pid} uses an incompatible upgrade protocol version"),
    }
    log::info!("Process {pid} serves; this one waits until it hands over (SIGQUIT).");
    stream.set_read_timeout(None)?;
    let Some(files) = protocol::receive_files(&stream)? else {
        // What it had open is closed one after the other.
        process.is_dead(PATIENCE);
        log::warn!("Process {pid} has ended and handed nothing over: this one starts as usual.");
        return Ok(None);
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    let state = match protocol::receive(&stream) {
        Ok(FromPredecessor::State(state)) => *state,
        Ok(_) => bail!("process {pid} uses an incompatible upgrade protocol version"),
        Err(problem) if problem.kind() == io::ErrorKind::UnexpectedEof => {
            // Its lock is free once these files are closed.
            drop(files);
            process.is_dead(PATIENCE);
            log::warn!("Process {pid} ended while it handed over: this one starts as usual.");
            return Ok(None);
        }
        Err(problem) => {
            return Err(problem).context("the state of the running gateway cannot be read");
        }
    };
    stream.set_read_timeout(None)?;
    let LedgerState { sockets, volatile } = state;
    let mut files = files.into_iter();
    let lock = files.next().context("the running gateway did not send the lock of the store")?;
    let sockets =
        sockets.into_iter().zip(files).map(|(at, fd)| Socket::of(at.into(), fd)).collect();
    let places = volatile.places.clone();
    Ok(Some(Arc::new(Predecessor {
        pid: peer.pid,
        stream: Arc::new(stream),
        writing: Arc::default(),
        place,
        sockets: Mutex::new(sockets),
        places,
        volatile: Mutex::default(),
        inherited: Mutex::new(Some(InheritedStore { lock, volatile })),
        is_over: Arc::new(AtomicBool::new(false)),
    })))
}

impl Predecessor {
    /// The store, once.
    pub fn inherited(&self) -> Option<InheritedStore> {
        let mut inherited = self.inherited.lock().take()?;
        let volatile = &mut inherited.volatile;
        // What the ledger takes in is named in its own way; this is to find it again.
        *self.volatile.lock() = Some(InMemoryState {
            open: volatile.open.clone(),
            shared: volatile.shared.clone(),
            ..InMemoryState::default()
        });
        Some(inherited)
    }

    /// The inherited sockets, once. Those not taken are closed, or apps would still reach an address that
    /// is no longer served.
    pub fn sockets(&self) -> Vec<Socket> {
        std::mem::take(&mut *self.sockets.lock())
    }

    /// Answers for what is open there, until it ends.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn keep(
        &self,
        ledger: Arc<SwitchableLedger>,
        store: &EmbeddedLedger,
        shared: Option<Arc<DistributedLedger>>,
        machine: &SharedState,
    ) -> anyhow::Result<()> {
        let volatile = self.volatile.lock().take().unwrap_or_default();
        let open = match &volatile.shared {
            Some(held) => held.open.iter().map(|(hold, _, open)| (*hold, open.input)).collect(),
            None => store.inputs(&volatile)?.into_iter().collect(),
        };
        let places = self.places.iter().copied().collect();
        let (replies, messages) = std::sync::mpsc::channel();
        let adopted = AdoptedRequests {
            stream: self.stream.clone(),
            replies,
            shared,
            began: Instant::now(),
            ledger,
            licenses: machine.licenses.clone(),
            spending: machine.spending.clone(),
            telemetry: machine.telemetry.clone(),
            kept: Mutex::new(AdoptedState { open, places }),
            is_over: self.is_over.clone(),
        };
        adopted.begin(messages, self.writing.clone()).context("no thread for the predecessor")
    }

    /// This process serves.
    pub fn ready(&self) {
        self.send(&FromSuccessor::Ready { apps: self.place.apps() });
    }

    /// This process can't serve.
    pub fn failed(&self, why: &str) {
        self.send(&FromSuccessor::Failed(why.to_owned()));
    }

    /// This process is stopping on request: the predecessor must not serve again.
    pub fn leaving(&self) {
        self.send(&FromSuccessor::Leaving);
    }

    /// Whether it has still something open.
    pub fn is_there(&self) -> bool {
        !self.is_over.load(Relaxed)
    }

    fn send(&self, message: &FromSuccessor) {
        let _writing = self.writing.lock();
        let _ = protocol::send(&self.stream, message);
    }
}
