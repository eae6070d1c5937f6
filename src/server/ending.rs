//! How the process ends: signals, drain, flush.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    ledger::{Embedded, Shared},
    licenses::Desk,
    reload::Reload,
    snapshot::Snapshot,
    telemetry::Telemetry,
};

/// Between the end of the last request and the end of the process: an HTTP/2 stream's last frame is
/// only queued when its hook returns.
const FLUSH: Duration = Duration::from_millis(200);

/// Starting, serving, draining: what `/readyz` says.
#[derive(Default)]
pub struct Phase(AtomicU8);

impl Phase {
    const SERVING: u8 = 1;
    const DRAINING: u8 = 2;

    /// Ready, unless the end has begun already.
    pub fn serve(&self) {
        let _ = self.0.compare_exchange(0, Self::SERVING, Relaxed, Relaxed);
    }

    /// The end has begun: what is open finishes, nothing new begins.
    pub fn is_draining(&self) -> bool {
        self.0.load(Relaxed) == Self::DRAINING
    }

    pub fn is_serving(&self) -> bool {
        self.0.load(Relaxed) == Self::SERVING
    }

    /// As `/status` calls it.
    pub fn name(&self) -> &'static str {
        match self.0.load(Relaxed) {
            Self::SERVING => "serving",
            Self::DRAINING => "draining",
            _ => "starting",
        }
    }
}

/// Waits for a signal and ends the process the way it asks for.
pub struct Ending {
    /// What SIGHUP does, where the configuration is a file.
    pub reload: Option<Arc<Reload>>,
    pub telemetry: Arc<Telemetry>,
    pub store: Arc<Embedded>,
    pub shared: Option<Arc<Shared>>,
    pub licenses: Arc<Desk>,
    pub phase: Arc<Phase>,
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// A directory that is removed at the end.
    pub scratch: Option<PathBuf>,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    quit: Signal,
    reload: Option<Arc<Reload>>,
}

impl Signals {
    fn new(reload: Option<Arc<Reload>>) -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            reload,
        })
    }

    /// The next signal that ends the process; `true` when it may take its time.
    async fn end(&mut self) -> bool {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return true,
                _ = self.interrupt.recv() => return false,
                _ = self.hang_up.recv() => match self.reload.clone() {
                    // It blocks; further signals are heard meanwhile.
                    Some(reload) => drop(tokio::task::spawn_blocking(move || reload.reload())),
                    None => log::warn!("SIGHUP: there is no file to read again."),
                },
                _ = self.quit.recv() => {
                    log::warn!("SIGQUIT: this version can't hand over; it keeps serving.");
                }
            }
        }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Ending {
    async fn recv(&self) -> ShutdownSignal {
        let mut signals = match Signals::new(self.reload.clone()) {
            Ok(signals) => signals,
            Err(error) => {
                log::error!("Signals can't be watched: {error}. The gateway ends.");
                return ShutdownSignal::FastShutdown;
            }
        };
        let gentle = signals.end().await;
        self.phase.0.store(Phase::DRAINING, Relaxed);
        let drain = Drain {
            telemetry: self.telemetry.clone(),
            store: self.store.clone(),
            shared: self.shared.clone(),
            licenses: self.licenses.clone(),
            scratch: self.scratch.clone(),
        };
        if !gentle {
            drain.flush().await;
            drain.end(0);
        }
        log::info!("Gatekeeper stops: {} requests are open.", self.telemetry.in_flight());
        // The listeners stay open: `/readyz` says 503, and apps are told to come again, not cut off.
        tokio::select! {
            () = drain.idle() => {}
            _ = signals.end() => log::warn!("A second signal: open requests are cut."),
            () = tokio::time::sleep(self.snapshot.load().settings.server.grace) => {
                log::warn!("The grace period is over: open requests are cut.");
            }
        }
        // What is read without an app is charged for what came of it before the process ends.
        self.snapshot.load().drains.end();
        tokio::time::sleep(FLUSH).await;
        drain.flush().await;
        drain.end(0)
    }
}

struct Drain {
    telemetry: Arc<Telemetry>,
    store: Arc<Embedded>,
    shared: Option<Arc<Shared>>,
    licenses: Arc<Desk>,
    scratch: Option<PathBuf>,
}

impl Drain {
    async fn idle(&self) {
        while self.telemetry.in_flight() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The other gateways hear at once of what was settled last.
    async fn flush(&self) {
        if let Some(shared) = &self.shared {
            shared.flush().await;
        }
    }

    /// Pingora would wait out its whole grace period.
    fn end(&self, code: i32) -> ! {
        self.licenses.close();
        self.store.close();
        if let Some(scratch) = &self.scratch {
            let _ = std::fs::remove_dir_all(scratch);
        }
        log::logger().flush();
        std::process::exit(code)
    }
}
