//! The lifecycle of the process: starting, serving, draining, handed over.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering::Relaxed},
};

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

/// Starting, serving, stopping: decides the answer of `/readyz` and whether a request is served.
///
/// ```text
/// starting ─► serving ─► draining: nothing new begins, what is open finishes
///               │  ▲
///               ▼  │ the successor failed
///             handing over: new requests wait for some milliseconds
///               │  ▲
///               ▼  │ the successor died
///             handed over: what is open finishes, new requests go to the successor
/// ```
pub struct Lifecycle {
    now: AtomicU8,
    changed: watch::Sender<u8>,
    /// Where the successor takes requests.
    elsewhere: ArcSwapOption<String>,
}

const STARTING: u8 = 0;
const SERVING: u8 = 1;
const DRAINING: u8 = 2;
const HANDING_OVER: u8 = 3;
const HANDED_OVER: u8 = 4;

impl Default for Lifecycle {
    fn default() -> Self {
        let (now, changed) = (AtomicU8::new(STARTING), watch::Sender::new(STARTING));
        Self { now, changed, elsewhere: ArcSwapOption::empty() }
    }
}

impl Lifecycle {
    fn turn(&self, from: &[u8], to: u8) -> bool {
        let turn = |now| from.contains(&now).then_some(to);
        let turned = self.now.fetch_update(Relaxed, Relaxed, turn).is_ok();
        if turned {
            self.changed.send_replace(to);
        }
        turned
    }

    /// Ready; false when the end has begun already.
    pub fn serve(&self) -> bool {
        self.turn(&[STARTING], SERVING)
    }

    /// The end begins.
    pub fn drain(&self) {
        self.turn(&[STARTING, SERVING, HANDING_OVER], DRAINING);
    }

    /// False where there is nothing to hand over, or no longer.
    pub fn hand_over(&self) -> bool {
        self.turn(&[SERVING], HANDING_OVER)
    }

    /// The successor serves, and takes requests that still come here at the socket `elsewhere`.
    pub fn handed_over(&self, elsewhere: String) {
        self.elsewhere.store(Some(Arc::new(elsewhere)));
        self.turn(&[HANDING_OVER, DRAINING], HANDED_OVER);
    }

    /// There is no successor any more; false when this process is about to end as well.
    pub fn resume_serving(&self) -> bool {
        self.turn(&[HANDING_OVER, HANDED_OVER], SERVING)
    }

    /// The end has begun: what is open finishes, nothing new begins.
    pub fn is_draining(&self) -> bool {
        self.now.load(Relaxed) == DRAINING
    }

    /// Whether apps are served, here or by the successor.
    pub fn is_serving(&self) -> bool {
        matches!(self.now.load(Relaxed), SERVING | HANDING_OVER | HANDED_OVER)
    }

    /// As `/status` calls it.
    pub fn name(&self) -> &'static str {
        match self.now.load(Relaxed) {
            STARTING => "starting",
            DRAINING => "draining",
            _ => "serving",
        }
    }

    /// Whether this process is the one that serves.
    pub fn is_here(&self) -> bool {
        self.now.load(Relaxed) == SERVING
    }

    /// Where a new request goes: `None` for here. Waits while that is being decided.
    pub async fn way(&self) -> Option<Arc<String>> {
        if matches!(self.now.load(Relaxed), STARTING | SERVING | DRAINING) {
            return None;
        }
        let mut changed = self.changed.subscribe();
        // The sender lives as long as this.
        let _ = changed.wait_for(|now| *now != HANDING_OVER).await;
        match self.now.load(Relaxed) {
            HANDED_OVER => self.elsewhere.load_full(),
            _ => None,
        }
    }

    /// Resolves when a successor serves.
    pub async fn is_handed_over(&self) {
        let _ = self.changed.subscribe().wait_for(|now| *now == HANDED_OVER).await;
    }

    /// Resolves when there is no successor any more.
    pub async fn is_back(&self) {
        let _ = self.changed.subscribe().wait_for(|now| *now != HANDED_OVER).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_to_end_before_it_serves_never_serves() {
        let phase = Lifecycle::default();
        phase.drain();
        assert!(!phase.serve() && !phase.is_here() && !phase.hand_over());
        let phase = Lifecycle::default();
        assert!(phase.serve() && phase.is_here());
        assert!(!phase.serve());
    }
}
