//! The control socket on which an upgrade is requested, and the state of the upgrade.

use std::{
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustix::process::Pid;

use super::{
    protocol::{self, Compatibility, FromPredecessor, Hello, UpgradeProgress},
    receiver::Predecessor,
    runtime_dir::{self, PidFd, RuntimeDir},
    switchable_ledger::SwitchableLedger,
};
use crate::{
    budget::SpendTracker,
    ledger::{DistributedLedger, EmbeddedLedger},
    licenses::LicenseValidator,
    lifecycle::Lifecycle,
    os::sockets::{Listeners, Socket},
    telemetry::Telemetry,
};

/// Time for a client to send its request.
const HELLO: Duration = Duration::from_secs(2);
/// How long a program that was started may take until it waits for this one.
const START: Duration = Duration::from_secs(15);
/// A successor that comes so long after SIGQUIT was awaited.
const AWAITED: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// Why process 1 hands nothing over: the kernel ends all others with it.
const FIRST: &str = "the gateway is process 1, and its container would end with it: a container is \
                     replaced, not upgraded in place";

/// What a running gateway has to give.
pub struct UpgradeServer {
    pub place: RuntimeDir,
    pub config: PathBuf,
    pub kind: Compatibility,
    pub phase: Arc<Lifecycle>,
    pub ports: Arc<Listeners>,
    pub sockets: Vec<Socket>,
    pub ledger: Arc<SwitchableLedger>,
    pub store: Arc<EmbeddedLedger>,
    pub shared: Option<Arc<DistributedLedger>>,
    pub licenses: Arc<LicenseValidator>,
    pub spending: Arc<SpendTracker>,
    pub telemetry: Arc<Telemetry>,
    /// The process that this one took over from: while it drains, no other upgrade begins.
    pub predecessor: Option<Arc<Predecessor>>,
    pub steps: UpgradeState,
}

/// The state of an upgrade.
#[derive(Default)]
pub struct UpgradeState {
    /// A successor that waits.
    waiting: Mutex<Option<Successor>>,
    /// SIGQUIT came before a successor.
    wanted: Mutex<Option<Instant>>,
    /// A hand-over is under way.
    pub(super) is_under_way: AtomicBool,
}

/// A process that takes over.
pub struct Successor {
    pub stream: UnixStream,
    pub pid: Pid,
    process: PidFd,
}

impl Successor {
    fn new(stream: UnixStream, pid: Pid) -> std::io::Result<Self> {
        Ok(Self { stream, pid, process: PidFd::open(pid)? })
    }

    fn is_dead(&self) -> bool {
        self.process.is_dead(Duration::ZERO)
    }

    /// Sees to it that it is dead: what is still alive could write into the store.
    pub fn end(&self) {
        self.process.end();
    }
}

impl UpgradeServer {
    /// Is found from now on.
    pub fn open(self: &Arc<Self>) {
        let opened = self.place.listen().and_then(|listener| {
            let handover = self.clone();
            let thread = std::thread::Builder::new().name("handover".into());
            thread.spawn(move || handover.receive(&listener)).map(drop)
        });
        if let Err(problem) = opened {
            log::warn!("{}: {problem}; this gateway can't hand over.", self.place.path.display());
        }
    }

    /// Accepts until another process listens on this path.
    fn receive(self: &Arc<Self>, listener: &UnixListener) {
        for stream in listener.incoming().flatten() {
            let handover = self.clone();
            let thread = std::thread::Builder::new().name("handover".into());
            let _ = thread.spawn(move || handover.handle(stream));
        }
    }

    fn handle(self: &Arc<Self>, stream: UnixStream) {
        let Ok(peer) = runtime_dir::peer(&stream) else { return };
        if !peer.is_same && !peer.is_root {
            log::warn!("Upgrade refused: the process that asks for it belongs to another user.");
            return;
        }
        let _ = stream.set_read_timeout(Some(HELLO));
        match protocol::receive(&stream) {
            Ok(Hello::Successor(kind)) if peer.is_same => self.welcome(stream, peer.pid, &kind),
            Ok(Hello::Upgrade { program }) => {
                let progress = match self.upgrade(&stream, &program) {
                    Ok(done) => UpgradeProgress::Done(done),
                    Err(why) => {
                        log::error!("The upgrade failed: {why}. This process serves on.");
                        UpgradeProgress::Failed(why)
                    }
                };
                let _ = protocol::send(&stream, &progress);
            }
            Ok(Hello::Successor(_)) | Err(_) => {}
        }
    }

    fn welcome(self: &Arc<Self>, stream: UnixStream, pid: Pid, kind: &Compatibility) {
        let refuse = |why: String| drop(protocol::send(&stream, &FromPredecessor::Refused(why)));
        if let Some(why) = differs(&self.kind, kind) {
            return refuse(why);
        }
        if !self.phase.is_here() {
            return refuse("it is about to end, or to be replaced".into());
        }
        if std::process::id() == 1 {
            return refuse(FIRST.into());
        }
        let Ok(successor) = stream.try_clone().and_then(|stream| Successor::new(stream, pid))
        else {
            return refuse("it can't watch this process".into());
        };
        {
            let mut waiting = self.steps.waiting.lock();
            if waiting.as_ref().is_some_and(|other| !other.is_dead()) {
                return refuse("another successor waits already".into());
            }
            if protocol::send(&stream, &FromPredecessor::Welcome).is_err() {
                return;
            }
            *waiting = Some(successor);
        }
        log::info!("A successor waits: process {pid}.", pid = pid.as_raw_nonzero());
        if self.steps.wanted.lock().take().is_some_and(|since| since.elapsed() < AWAITED) {
            self.begin().unwrap_or_else(|why| log::error!("{}", nothing_given(&why)));
        }
    }

    /// Whether a hand-over may begin now. One that fails reads the store again, with all new requests
    /// waiting; so a store that takes nothing is not given away. The ledger moves once only: the process
    /// before this one settles its last streams here.
    fn can_begin(&self) -> Result<(), String> {
        if std::process::id() == 1 {
            return Err(FIRST.into());
        }
        if let Some(before) = self.predecessor.as_ref().filter(|before| before.is_there()) {
            return Err(format!(
                "process {} still drains after the last upgrade; try again when it has ended, or \
                 end it with SIGTERM",
                before.pid.as_raw_nonzero()
            ));
        }
        match self.store.is_up() {
            true => Ok(()),
            false => Err(
                "the store cannot be written now, the log has the reason; try again when it can"
                    .into(),
            ),
        }
    }

    /// SIGQUIT: hands over, or serves on.
    pub fn quit(self: &Arc<Self>) {
        *self.steps.wanted.lock() = None;
        let handover = self.clone();
        let asked = std::thread::Builder::new().name("handover".into()).spawn(move || {
            if let Err(why) = handover.can_begin() {
                log::error!("SIGQUIT: {}", nothing_given(&why));
            } else if !handover.is_awaited() {
                log::warn!(
                    "SIGQUIT: no successor waits, so nothing is handed over and this process serves \
                     on. Start one with `run --upgrade` first, or let `gatekeeper upgrade` do it all."
                );
                *handover.steps.wanted.lock() = Some(Instant::now());
            } else if let Err(why) = handover.begin() {
                log::error!("{}", nothing_given(&why));
            }
        });
        if let Err(problem) = asked {
            log::error!("SIGQUIT: no thread can be started: {problem}.");
        }
    }

    /// Whether a successor waits.
    fn is_awaited(&self) -> bool {
        let mut waiting = self.steps.waiting.lock();
        waiting.take_if(|successor| successor.is_dead());
        waiting.is_some()
    }

    /// Hands over to the successor that waits.
    fn begin(self: &Arc<Self>) -> Result<(), String> {
        self.can_begin()?;
        let Some(successor) = self.steps.waiting.lock().take() else {
            return Err("no successor waits".into());
        };
        if self.steps.is_under_way.swap(true, SeqCst) {
            return Err("another hand-over is under way".into());
        }
        self.give_to(successor)
    }

    /// Starts `program` as successor and hands over to it.
    fn upgrade(self: &Arc<Self>, stream: &UnixStream, program: &Path) -> Result<String, String> {
        let step = |what: String| drop(protocol::send(stream, &UpgradeProgress::Step(what)));
        if !self.phase.is_here() {
            return Err("it is about to end, or to be replaced already".into());
        }
        self.can_begin()?;
        if self.is_awaited() {
            return Err("a successor waits already: end it, or send SIGQUIT".into());
        }
        let mut child = Command::new(program)
            .arg("run")
            .arg("-c")
            .arg(&self.config)
            .arg("--upgrade")
            .stdin(Stdio::null())
            .spawn()
            .map_err(|problem| format!("{}: {problem}", program.display()))?;
        step(format!("{} starts as process {}", program.display(), child.id()));
        let began = self.wait_for(&mut child).and_then(|()| {
            step(format!("process {} has read the configuration and waits", child.id()));
            self.begin()
        });
        match began {
            Ok(()) => Ok(format!(
                "process {} serves; process {} ends with its last stream",
                child.id(),
                std::process::id()
            )),
            Err(why) => {
                let _ = child.kill();
                let _ = child.wait();
                self.is_awaited();
                Err(why)
            }
        }
    }

    /// Until the process that was started waits to take over.
    fn wait_for(&self, child: &mut Child) -> Result<(), String> {
        let deadline = Instant::now() + START;
        let pid = Pid::from_child(child);
        let is_there = || {
            let waiting = self.steps.waiting.lock();
            waiting.as_ref().is_some_and(|waiting| waiting.pid == pid)
        };
        while !is_there() {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!(
                    "the successor ended before it was ready ({status}); its last words are in the \
                     gateway's log"
                ));
            }
            if Instant::now() >= deadline {
                return Err(format!(
                    "the successor was not ready after {} seconds and was ended",
                    START.as_secs()
                ));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}

fn nothing_given(why: &str) -> String {
    format!("Nothing was handed over: {why}. This process serves on.")
}

/// Why one of these can't follow the other.
fn differs(own: &Compatibility, other: &Compatibility) -> Option<String> {
    let restart = "stop this gateway and start the other one instead";
    if own.protocol != other.protocol {
        return Some(format!("its version hands over in another way: {restart}"));
    }
    if own.schema != other.schema {
        return Some(format!("its version keeps the store in another form: {restart}"));
    }
    if (&own.store, &own.shared) != (&other.store, &other.shared) {
        return Some(format!("its configuration names another store: {restart}"));
    }
    None
}
