//! Limits of an account that apply to one model: a rate limit or a daily limit of one model says nothing
//! about another.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use parking_lot::RwLock;

use super::{
    backoff::{Cooldown, Quarantine},
    health::KeyState,
};

/// Above so many, those that are over are forgotten.
const MANY: usize = 64;

/// What a limit holds for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One model of the account.
    Model,
    /// All of its models.
    Account,
}

/// Of one account and model.
#[derive(Debug, Default)]
pub struct ModelHealth {
    pub cooling: Cooldown,
    /// After a day's limit.
    pub quarantine: Quarantine,
}

impl ModelHealth {
    pub fn state(&self, now: Instant) -> KeyState {
        if let Some((why, left_ms)) = self.quarantine.status(now) {
            return KeyState::Quarantined { why, left_ms };
        }
        match self.cooling.left_ms(now) {
            0 => KeyState::Ready,
            left_ms => KeyState::Cooling { left_ms },
        }
    }

    /// Whether it is not even tried.
    pub fn rests(&self, now: Instant) -> bool {
        self.cooling.left_ms(now) > 0 || self.quarantine.status(now).is_some_and(|(_, ms)| ms > 0)
    }

    pub fn age_ms(&self, now: Instant) -> u64 {
        match self.state(now) {
            KeyState::Quarantined { .. } => self.quarantine.age_ms(now),
            _ => self.cooling.age_ms(now),
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        self.state(now) == KeyState::Ready
    }
}

/// Of one account: the models that were limited once.
#[derive(Debug, Default)]
pub struct ModelLimits {
    /// Hot: most accounts never meet a limit, and then nothing is locked.
    any: AtomicBool,
    known: RwLock<Vec<(Arc<str>, Arc<ModelHealth>)>>,
}

impl ModelLimits {
    /// `None` where it was never limited.
    pub fn get(&self, model: &str) -> Option<Arc<ModelHealth>> {
        if !self.any.load(Relaxed) {
            return None;
        }
        let known = self.known.read();
        known.iter().find(|(name, _)| **name == *model).map(|(_, health)| health.clone())
    }

    pub fn of(&self, model: &Arc<str>, now: Instant) -> Arc<ModelHealth> {
        if let Some(known) = self.get(model) {
            return known;
        }
        let mut known = self.known.write();
        if let Some((_, health)) = known.iter().find(|(name, _)| name == model) {
            return health.clone();
        }
        if known.len() >= MANY {
            known.retain(|(_, health)| !health.is_over(now));
        }
        let health = Arc::new(ModelHealth::default());
        known.push((model.clone(), health.clone()));
        self.any.store(true, Relaxed);
        health
    }

    /// All that were limited once.
    pub fn all(&self) -> Vec<(Arc<str>, Arc<ModelHealth>)> {
        if !self.any.load(Relaxed) {
            return Vec::new();
        }
        self.known.read().clone()
    }

    /// How a key is that serves these models: cooling while some of them rest, set aside when all are.
    pub fn state_of(&self, models: &[Arc<str>], now: Instant) -> KeyState {
        let resting = self.resting(models, now);
        let soonest = resting.iter().map(|(_, state)| *state).min_by_key(|state| state.left_ms());
        let all_aside = resting.len() == models.len()
            && resting.iter().all(|(_, state)| matches!(state, KeyState::Quarantined { .. }));
        match soonest {
            None => KeyState::Ready,
            Some(state) if all_aside => state,
            Some(state) => KeyState::Cooling { left_ms: state.left_ms() },
        }
    }

    /// Whether none of these models can be served.
    pub fn all_rest(&self, models: &[Arc<str>], now: Instant) -> bool {
        !models.is_empty() && self.resting(models, now).len() == models.len()
    }

    /// Milliseconds since the first of them began to rest.
    pub fn age_ms(&self, models: &[Arc<str>], now: Instant) -> Option<u64> {
        let resting = self.resting(models, now);
        resting.iter().filter_map(|(model, _)| Some(self.get(model)?.age_ms(now))).max()
    }

    /// Those of these models that rest, in their order.
    pub fn resting(&self, models: &[Arc<str>], now: Instant) -> Vec<(Arc<str>, KeyState)> {
        if !self.any.load(Relaxed) {
            return Vec::new();
        }
        let state = |model: &Arc<str>| {
            let state = self.get(model)?.state(now);
            (state != KeyState::Ready).then(|| (model.clone(), state))
        };
        models.iter().filter_map(state).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pool::health::QuarantineReason;

    #[test]
    fn a_key_cools_while_some_of_its_models_rest_and_is_set_aside_with_all() {
        super::super::backoff::start_clock();
        let (limits, now) = (ModelLimits::default(), Instant::now());
        let models: Vec<Arc<str>> = vec!["a".into(), "b".into()];
        assert_eq!(limits.state_of(&models, now), KeyState::Ready);
        limits.of(&models[0], now).cooling.begin(Some(Duration::from_secs(9)), now);
        assert!(limits.get("a").is_some_and(|health| health.rests(now)));
        assert!(limits.get("b").is_none() && !limits.all_rest(&models, now));
        assert_eq!(limits.state_of(&models, now), KeyState::Cooling { left_ms: 9000 });
        let stated = Some(Duration::from_secs(3600));
        limits.of(&models[1], now).quarantine.begin(QuarantineReason::DailyLimit, stated, now);
        assert_eq!(limits.state_of(&models, now), KeyState::Cooling { left_ms: 9000 });
        assert!(limits.all_rest(&models, now));
        let later = now + Duration::from_secs(10);
        assert!(!limits.all_rest(&models, later), "a is over");
        assert!(matches!(limits.state_of(&models, later), KeyState::Cooling { .. }), "b rests");
        assert!(matches!(limits.state_of(&models[1..], later), KeyState::Quarantined { .. }));
    }

    #[test]
    fn what_is_over_is_forgotten_when_there_are_many() {
        let (limits, now) = (ModelLimits::default(), Instant::now());
        for number in 0..1000 {
            let health = limits.of(&format!("m{number}").into(), now);
            if number == 0 {
                health.cooling.begin(Some(Duration::from_secs(9)), now);
            }
        }
        let known = limits.all();
        assert!(known.len() <= MANY && &*known[0].0 == "m0", "{}", known.len());
    }
}
