//! What failures that may be one request's own come to: see `pool::doubt`, `pool::credit`, `pool::firewall` and
//! `pool::slow_answers`.

use std::time::Instant;

use super::{KeyState, MasterKey};
use crate::pool::{
    breaker::Fault,
    health::QuarantineReason,
    health_events::{HealthChange, HealthSubject},
    lease::KeyLease,
};

impl MasterKey {
    /// A request of `witness`, a licence, was refused with this key.
    pub fn doubt(&self, witness: u64, now: Instant) {
        if self.own_state(now) != KeyState::Ready {
            return;
        }
        if !self.health.doubt.holds() {
            log::warn!(
                "A key was refused: others come first until a probe has asked whether it is the key. \
                 provider={} key={}",
                self.events.provider,
                self.id
            );
        }
        if self.health.doubt.raise(witness, now) {
            self.set_aside(now);
        }
    }

    /// A small request of `witness`, a licence, was too dear for its account. Whether the money is gone.
    pub fn is_out_of_credit(&self, witness: u64, now: Instant) -> bool {
        let is_out = self.group.credit.refused(witness, now);
        if is_out {
            self.group.credit.forget();
        }
        is_out
    }

    /// Whether a probe of the key is due now; on `true` the caller has to report its result.
    pub fn is_doubt_due(&self, now: Instant) -> bool {
        self.own_state(now) == KeyState::Ready && self.health.doubt.try_probe(now)
    }

    /// The list of models is shown to it.
    pub fn list_shown(&self, now: Instant) {
        self.health.doubt.shown(now);
    }

    /// The list of models is not shown to it, or there is none.
    pub fn list_refused(&self, now: Instant) {
        if self.health.doubt.refused() {
            self.set_aside(now);
        }
    }

    /// The refusals are caused by the key. Where the list of models is not conclusive, a request has to
    /// probe when it is over.
    fn set_aside(&self, now: Instant) {
        if !self.health.doubt.was_shown() {
            self.health.quarantine.cannot_be_probed();
        }
        self.health.doubt.lift();
        self.refuse(QuarantineReason::NoPermission, now);
    }
}

impl KeyLease {
    /// A request of `witness`, a licence, was answered.
    pub fn answers(&self, witness: u64, now: Instant) {
        self.circuits.provider.slow_answers.answered(witness, now);
    }

    /// A request of `witness`, a licence, waited in vain. Whether that says nothing of the provider.
    pub fn is_slow_for(&self, witness: u64, now: Instant) -> bool {
        self.circuits.provider.slow_answers.timed_out(witness, now)
    }

    /// A request of `witness`, a licence, was turned away by something in front of the provider. Whether that refuses
    /// every request, and is the provider's fault.
    pub fn met_firewall(&self, witness: u64, now: Instant) -> bool {
        let breaker = &self.circuits.provider;
        let known = breaker.firewall.refuses();
        let refuses = breaker.firewall.met(witness, now);
        if refuses && !known {
            let provider = self.key.events.provider.clone();
            log::error!(
                "The provider's firewall refuses this server: several licences got a 403 that is not the \
                 provider's own, and nothing succeeds. Others serve where they can; ask the provider about this \
                 server's address. provider={provider}"
            );
            breaker.open(Fault::Quick, now);
            self.key
                .events
                .sender
                .send(HealthSubject::Provider { provider }, HealthChange::Faulty(Fault::Quick));
        }
        refuses
    }
}
