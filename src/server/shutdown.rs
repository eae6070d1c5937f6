//! How the process ends: signals, drain, flush.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::periodic_save::Keeper;
pub use crate::lifecycle::Lifecycle;
use crate::{
    budget::SpendTracker,
    ledger::{DistributedLedger, EmbeddedLedger},
    licenses::LicenseValidator,
    os::sockets::Listeners,
    os::systemd,
    reload::Reloader,
    runtime::snapshot::Snapshot,
    telemetry::Telemetry,
    upgrade::{Predecessor, SwitchableLedger, UpgradeServer},
};

/// Between the end of the last request and the end of the process: an HTTP/2 stream's last frame is
/// only queued when its hook returns.
const FLUSH: Duration = Duration::from_millis(200);

/// How long an answer that is cut off may take to notice: silent ones poll.
const CUT: Duration = Duration::from_millis(500);

/// How long a replaced process waits for the next request on kept-alive connections. An app that sends one
/// just as the connection closes has to send it again, as with any kept-alive connection.
const LINGER: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);

/// SIGHUP and SIGQUIT mean something only to a gateway that runs: until then they must not end the process,
/// as they would by default. A unit's signals reach a successor that still waits, too.
///
/// # Errors
/// No handler can be installed.
pub fn block_signals_until_ready() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _inside = runtime.enter();
    // A handler that was once registered changes what the signal does for the life of the process.
    drop((signal(SignalKind::hangup())?, signal(SignalKind::quit())?));
    Ok(())
}

/// Waits for a signal and ends the process the way it asks for.
pub struct Shutdown {
    /// What SIGHUP does, where the configuration is a file.
    pub reload: Option<Arc<Reloader>>,
    pub telemetry: Arc<Telemetry>,
    pub store: Arc<EmbeddedLedger>,
    pub shared: Option<Arc<DistributedLedger>>,
    pub licenses: Arc<LicenseValidator>,
    pub phase: Arc<Lifecycle>,
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// A directory that is removed at the end.
    pub scratch: Option<PathBuf>,
    pub ledger: Arc<SwitchableLedger>,
    pub ports: Arc<Listeners>,
    /// The apps' requests and idle connections.
    pub sessions: Arc<AtomicUsize>,
    pub handover: Option<Arc<UpgradeServer>>,
    pub predecessor: Option<Arc<Predecessor>>,
    pub spending: Arc<SpendTracker>,
}

struct SignalStream {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    quit: Signal,
    reload: Option<Arc<Reloader>>,
    handover: Option<Arc<UpgradeServer>>,
}

impl SignalStream {
    fn new(
        reload: Option<Arc<Reloader>>,
        handover: Option<Arc<UpgradeServer>>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            reload,
            handover,
        })
    }

    /// What ends a process that has handed over. The first SIGTERM asks for what it does anyway: a
    /// supervisor sends it to all processes of a service.
    async fn cut(&mut self) {
        if self.end().await {
            self.end().await;
        }
    }

    /// The next signal that ends the process; `true` when it may take its time.
    async fn end(&mut self) -> bool {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return true,
                _ = self.interrupt.recv() => return false,
                _ = self.hang_up.recv() => match &self.reload {
                    Some(reload) => reload.request(),
                    None => log::warn!("SIGHUP ignored: this gateway runs without a configuration file."),
                },
                _ = self.quit.recv() => match &self.handover {
                    Some(handover) => handover.quit(),
                    None => log::warn!("SIGQUIT ignored: this gateway has no control socket for an upgrade."),
                },
            }
        }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Shutdown {
    async fn recv(&self) -> ShutdownSignal {
        let mut signals = match SignalStream::new(self.reload.clone(), self.handover.clone()) {
            Ok(signals) => signals,
            Err(error) => {
                log::error!("Signal handlers cannot be installed: {error}. The gateway stops.");
                return ShutdownSignal::FastShutdown;
            }
        };
        loop {
            tokio::select! {
                gentle = signals.end() => {
                    self.stop(gentle, &mut signals).await;
                }
                () = self.phase.is_handed_over() => {
                    tokio::select! {
                        // The successor died: this process serves again.
                        () = self.phase.is_back() => {}
                        () = self.retire(&mut signals) => {}
                    }
                }
            }
        }
    }
}

impl Shutdown {
    /// A signal ends the process.
    async fn stop(&self, gentle: bool, signals: &mut SignalStream) {
        self.phase.drain();
        systemd::stopping();
        if gentle {
            log::info!("Shutdown: {} requests are open.", self.telemetry.in_flight());
            // The ports stay open: `/readyz` answers 503, and apps get a 503 rather than a refused
            // connection. Open connections are told to close.
            self.ports.reopen();
            tokio::select! {
                () = self.idle() => {}
                _ = signals.end() => log::warn!("Second signal received: open requests are cut."),
                () = tokio::time::sleep(self.snapshot.load().settings.server.grace) => {
                    log::warn!("The grace period is over: open requests are cut.");
                }
            }
        }
        self.cut().await;
        if gentle {
            tokio::time::sleep(FLUSH).await;
        }
        self.end().await
    }

    /// Another process serves: this one ends with its last request.
    async fn retire(&self, signals: &mut SignalStream) {
        let grace = self.snapshot.load().settings.server.grace;
        tokio::select! {
            () = self.quiet() => {}
            () = signals.cut() => log::warn!("Signal received: open requests are cut."),
            () = tokio::time::sleep(grace) => {
                log::warn!("The grace period is over: open requests are cut.");
            }
        }
        self.cut().await;
        tokio::time::sleep(FLUSH).await;
        self.end().await
    }

    /// Open answers are charged for what came of them before the process ends.
    async fn cut(&self) {
        self.snapshot.load().drains.cut();
        let cut = async {
            while self.telemetry.in_flight() > 0 {
                tokio::time::sleep(LOOK).await;
            }
        };
        let _ = tokio::time::timeout(CUT, cut).await;
    }

    /// Until nothing is open, here and in the process before this one.
    async fn idle(&self) {
        while self.is_busy() {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn is_busy(&self) -> bool {
        let before = self.predecessor.as_ref().is_some_and(|before| before.is_there());
        self.telemetry.in_flight() > 0 || before
    }

    /// Until no app has a connection here, or the remaining ones are idle.
    async fn quiet(&self) {
        let mut since = Instant::now();
        loop {
            tokio::time::sleep(LOOK).await;
            if self.is_busy() {
                since = Instant::now();
            }
            let lingers = match self.sessions.load(Relaxed) {
                0 => FLUSH,
                _ => LINGER,
            };
            if since.elapsed() >= lingers {
                return;
            }
        }
    }

    /// Pingora would wait out its whole grace period.
    async fn end(&self) {
        if let Some(predecessor) = self.predecessor.as_ref().filter(|before| before.is_there()) {
            predecessor.leaving();
        }
        // Sends the last settlements to the other gateways at once.
        if let Some(shared) = self.shared.as_ref().filter(|shared| !shared.is_handed_over()) {
            shared.flush().await;
        }
        let is_here = self.ledger.call().is_some();
        let is_still = self.ledger.retire();
        self.licenses.close();
        let (store, spending) = (self.store.clone(), self.spending.clone());
        Keeper { store, spending, telemetry: self.telemetry.clone() }.keep();
        self.store.close();
        if is_here && is_still && self.store.open_reservations() > 0 {
            self.store.charge_open();
        }
        if let Some(handover) = &self.handover {
            handover.place.leave(is_here);
        }
        if let Some(scratch) = &self.scratch {
            let _ = std::fs::remove_dir_all(scratch);
        }
        log::logger().flush();
        std::process::exit(0)
    }
}
