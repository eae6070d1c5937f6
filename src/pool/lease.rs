//! One attempt's hold on a key, and what the attempt shows of key, account and provider.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    breaker::Fault,
    circuits::{CircuitProbes, Circuits},
    health_events::{HealthChange, HealthSubject},
    key::{Admission, AttemptFeedback, EventSource, MasterKey},
    rate_headroom::LimitStatus,
};

/// One attempt's hold on a key. Dropped without a report it counts as an attempt and nothing else.
pub struct KeyLease {
    pub(super) key: Arc<MasterKey>,
    /// Asked for.
    model: Arc<str>,
    pub(super) circuits: Arc<Circuits>,
    /// What this attempt finds out for others.
    trial: Mutex<ProbeGuard>,
}

/// What an attempt finds out for others, and has to end.
#[derive(Clone, Copy)]
pub(super) struct ProbeGuard {
    pub entry: Admission,
    pub circuits: CircuitProbes,
}

impl KeyLease {
    pub(super) fn new(
        key: Arc<MasterKey>,
        model: Arc<str>,
        circuits: Arc<Circuits>,
        trial: ProbeGuard,
    ) -> Self {
        key.health.requests.fetch_add(1, Relaxed);
        key.health.open.fetch_add(1, Relaxed);
        Self { key, model, circuits, trial: Mutex::new(trial) }
    }

    pub fn key(&self) -> &Arc<MasterKey> {
        &self.key
    }

    /// Takes over the account's limits from the head of the answer.
    pub fn allows(&self, limits: impl Iterator<Item = LimitStatus>, now: Instant) {
        self.key.group.allowance.note(limits, now);
    }

    /// The first output came so long after the attempt began.
    pub fn first_output(&self, took: Duration, now: Instant) {
        self.key.health.pace.note(took, now);
    }

    /// Output goes to the app: what was tried by this attempt is sound now, however long its answer takes.
    pub fn serves(&self, now: Instant) {
        let is_trial = {
            let trial = self.trial.lock();
            trial.circuits.is_any() || trial.entry != Admission::Ready
        };
        if is_trial {
            self.report(AttemptFeedback::Good, now);
        }
    }

    pub fn report(&self, feedback: AttemptFeedback, now: Instant) {
        // The probe was inconclusive: the next request may probe.
        if feedback == AttemptFeedback::None {
            return;
        }
        let (key, model) = (&self.key, &self.model);
        match feedback {
            AttemptFeedback::Fault => self.failed(Fault::Quick, now),
            AttemptFeedback::TimedOut => self.failed(Fault::Silent, now),
            _ => self.answered(now),
        }
        if matches!(feedback, AttemptFeedback::Good | AttemptFeedback::Rejected)
            && key.health.failed_in_a_row.load(Relaxed) > 0
        {
            key.health.failed_in_a_row.store(0, Relaxed);
        }
        match feedback {
            AttemptFeedback::Good => return self.is_good(now),
            AttemptFeedback::Rejected => {
                let trial = &mut self.trial.lock().entry;
                key.health.quarantine.answered(*trial == Admission::KeyTrial);
                if *trial == Admission::KeyTrial {
                    *trial = Admission::Ready;
                }
                return;
            }
            AttemptFeedback::Limited(scope, stated) => key.cool(scope, model, stated, now),
            AttemptFeedback::Spent(why, scope, stated) => key.spend(why, scope, model, stated, now),
            AttemptFeedback::Refused(why) => key.refuse(why, now),
            AttemptFeedback::Fault
            | AttemptFeedback::TimedOut
            | AttemptFeedback::Unfit
            | AttemptFeedback::Doubtful
            | AttemptFeedback::TooDear
            | AttemptFeedback::None => {}
        }
        key.health.errors.fetch_add(1, Relaxed);
        // A refusal caused by one request's content or model says nothing about the next.
        if !matches!(feedback, AttemptFeedback::Unfit | AttemptFeedback::Doubtful) {
            key.health.failed_in_a_row.fetch_add(1, Relaxed);
        }
    }

    fn is_good(&self, now: Instant) {
        let key = &self.key;
        let entry = std::mem::replace(&mut self.trial.lock().entry, Admission::Ready);
        key.group.cooling.answered(now);
        key.health.doubt.answered();
        key.group.credit.forget();
        self.circuits.provider.firewall.served(now);
        key.health.quarantine.answered(entry == Admission::KeyTrial);
        if key.group.quarantine.answered(entry == Admission::GroupTrial) {
            key.notify_group(HealthChange::Healthy);
        }
        if let Some(limits) = key.group.models.get(&self.model) {
            limits.cooling.answered(now);
            if limits.quarantine.answered(entry == Admission::ModelTrial) {
                key.notify_model(&self.model, HealthChange::Healthy);
            }
        }
    }

    fn failed(&self, fault: Fault, now: Instant) {
        let (key, trials) = (&self.key, std::mem::take(&mut self.trial.lock().circuits));
        let opened = self.circuits.failed(key.account, fault, trials, now);
        let EventSource { provider, sender, .. } = &key.events;
        if let Some(fault) = opened.provider {
            log::error!(
                "Circuit breaker open for a provider: its requests go to fallbacks where there are any. provider={provider}"
            );
            sender.send(
                HealthSubject::Provider { provider: provider.clone() },
                HealthChange::Faulty(fault),
            );
        } else if opened.account {
            let group = &key.group_name;
            log::error!(
                "Circuit breaker open for an account: other accounts of its provider serve. \
                 provider={provider} group={group}"
            );
        }
    }

    fn answered(&self, now: Instant) {
        let (key, trials) = (&self.key, std::mem::take(&mut self.trial.lock().circuits));
        let closed = self.circuits.answered(key.account, trials, now);
        let EventSource { provider, sender, .. } = &key.events;
        if closed.provider {
            log::info!(
                "Circuit breaker closed for a provider: it serves again. provider={provider}"
            );
            sender.send(
                HealthSubject::Provider { provider: provider.clone() },
                HealthChange::Healthy,
            );
        } else if closed.account {
            let group = &key.group_name;
            log::info!(
                "Circuit breaker closed for an account: it serves again. provider={provider} group={group}"
            );
        }
    }
}

impl Drop for KeyLease {
    fn drop(&mut self) {
        self.key.health.open.fetch_sub(1, Relaxed);
        let trial = *self.trial.get_mut();
        match trial.entry {
            Admission::Ready => {}
            Admission::KeyTrial => self.key.health.quarantine.end_trial(),
            Admission::GroupTrial => self.key.group.quarantine.end_trial(),
            Admission::ModelTrial => {
                if let Some(limits) = self.key.group.models.get(&self.model) {
                    limits.quarantine.end_trial();
                }
            }
        }
        self.circuits.end(self.key.account, trial.circuits);
    }
}
