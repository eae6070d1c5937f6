//! One attempt's hold on a key, and what the attempt shows of key, account and provider.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    allowance::Left,
    breaker::Fault,
    circuits::{Circuits, Trials},
    key::{Entry, Key, KeyNews, Told},
    news::{Change, Subject},
};

/// One attempt's hold on a key. Dropped without news it counts as an attempt and nothing else.
pub struct Lease {
    pub(super) key: Arc<Key>,
    /// Asked for.
    model: Arc<str>,
    pub(super) circuits: Arc<Circuits>,
    /// What this attempt finds out for others.
    trial: Mutex<Trial>,
}

/// What an attempt finds out for others, and has to end.
#[derive(Clone, Copy)]
pub(super) struct Trial {
    pub entry: Entry,
    pub circuits: Trials,
}

impl Lease {
    pub(super) fn new(
        key: Arc<Key>,
        model: Arc<str>,
        circuits: Arc<Circuits>,
        trial: Trial,
    ) -> Self {
        key.health.requests.fetch_add(1, Relaxed);
        key.health.open.fetch_add(1, Relaxed);
        Self { key, model, circuits, trial: Mutex::new(trial) }
    }

    pub fn key(&self) -> &Arc<Key> {
        &self.key
    }

    /// What the answer's head says of the account's limits.
    pub fn allows(&self, limits: impl Iterator<Item = Left>, now: Instant) {
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
            trial.circuits.is_any() || trial.entry != Entry::Ready
        };
        if is_trial {
            self.report(KeyNews::Good, now);
        }
    }

    pub fn report(&self, news: KeyNews, now: Instant) {
        // Nobody found anything out: the next request may try.
        if news == KeyNews::None {
            return;
        }
        let (key, model) = (&self.key, &self.model);
        match news {
            KeyNews::Fault => self.failed(Fault::Quick, now),
            KeyNews::TimedOut => self.failed(Fault::Silent, now),
            _ => self.answered(now),
        }
        if matches!(news, KeyNews::Good | KeyNews::Heard)
            && key.health.failed_in_a_row.load(Relaxed) > 0
        {
            key.health.failed_in_a_row.store(0, Relaxed);
        }
        match news {
            KeyNews::Good => return self.is_good(now),
            KeyNews::Heard => {
                let trial = &mut self.trial.lock().entry;
                key.health.quarantine.answered(*trial == Entry::KeyTrial);
                if *trial == Entry::KeyTrial {
                    *trial = Entry::Ready;
                }
                return;
            }
            KeyNews::Limited(scope, stated) => key.cool(scope, model, stated, now),
            KeyNews::Spent(why, scope, stated) => key.spend(why, scope, model, stated, now),
            KeyNews::Refused(why) => key.refuse(why, now),
            KeyNews::Fault
            | KeyNews::TimedOut
            | KeyNews::Unfit
            | KeyNews::Doubtful
            | KeyNews::TooDear
            | KeyNews::None => {}
        }
        key.health.errors.fetch_add(1, Relaxed);
        // What one request's content or model causes says nothing about the next.
        if !matches!(news, KeyNews::Unfit | KeyNews::Doubtful) {
            key.health.failed_in_a_row.fetch_add(1, Relaxed);
        }
    }

    fn is_good(&self, now: Instant) {
        let key = &self.key;
        let entry = std::mem::replace(&mut self.trial.lock().entry, Entry::Ready);
        key.group.cooling.answered(now);
        key.health.doubt.answered();
        key.group.credit.forget();
        self.circuits.provider.firewall.served(now);
        key.health.quarantine.answered(entry == Entry::KeyTrial);
        if key.group.quarantine.answered(entry == Entry::GroupTrial) {
            key.tell_group(Change::Sound);
        }
        if let Some(limits) = key.group.models.get(&self.model) {
            limits.cooling.answered(now);
            if limits.quarantine.answered(entry == Entry::ModelTrial) {
                key.tell_model(&self.model, Change::Sound);
            }
        }
    }

    fn failed(&self, fault: Fault, now: Instant) {
        let (key, trials) = (&self.key, std::mem::take(&mut self.trial.lock().circuits));
        let opened = self.circuits.failed(key.account, fault, trials, now);
        let Told { provider, teller, .. } = &key.told;
        if let Some(fault) = opened.provider {
            log::error!("A provider fails: others serve where they can. provider={provider}");
            teller.tell(Subject::Provider { provider: provider.clone() }, Change::Sick(fault));
        } else if opened.account {
            let group = &key.group_name;
            log::error!(
                "An account fails, and others of its provider do not: they serve. \
                 provider={provider} group={group}"
            );
        }
    }

    fn answered(&self, now: Instant) {
        let (key, trials) = (&self.key, std::mem::take(&mut self.trial.lock().circuits));
        let closed = self.circuits.answered(key.account, trials, now);
        let Told { provider, teller, .. } = &key.told;
        if closed.provider {
            log::info!("A provider serves again. provider={provider}");
            teller.tell(Subject::Provider { provider: provider.clone() }, Change::Sound);
        } else if closed.account {
            let group = &key.group_name;
            log::info!("An account serves again. provider={provider} group={group}");
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.key.health.open.fetch_sub(1, Relaxed);
        let trial = *self.trial.get_mut();
        match trial.entry {
            Entry::Ready => {}
            Entry::KeyTrial => self.key.health.quarantine.end_trial(),
            Entry::GroupTrial => self.key.group.quarantine.end_trial(),
            Entry::ModelTrial => {
                if let Some(limits) = self.key.group.models.get(&self.model) {
                    limits.quarantine.end_trial();
                }
            }
        }
        self.circuits.end(self.key.account, trial.circuits);
    }
}
