//! Session affinity: which target and account served a conversation, so that the provider's prompt cache
//! stays warm.

use std::{hash::Hasher, sync::Arc, time::Duration};

use moka::{policy::EvictionPolicy, sync::Cache};
use rustc_hash::FxHasher;

/// Conversations remembered at the same time; the least recently used is dropped first.
const MOST: u64 = 100_000;
/// Providers keep prompts for minutes, some for an hour.
const IDLE: Duration = Duration::from_secs(3600);

pub struct SessionAffinity(Cache<u64, Arc<str>>);

impl Default for SessionAffinity {
    fn default() -> Self {
        let cache = Cache::builder().max_capacity(MOST).time_to_idle(IDLE);
        Self(cache.eviction_policy(EvictionPolicy::lru()).build())
    }
}

impl SessionAffinity {
    /// The label of the target that served it last, unless that is the model's first one.
    pub fn remembered(&self, model: &str, conversation: u64) -> Option<Arc<str>> {
        self.0.get(&name(model, conversation))
    }

    /// It was served by this target; `first` is the model's own first one.
    pub fn served(&self, model: &str, conversation: u64, target: &Arc<str>, first: &str) {
        let name = name(model, conversation);
        match self.0.get(&name) {
            Some(known) if known == *target => {}
            None if **target == *first => {}
            _ => self.0.insert(name, target.clone()),
        }
    }
}

/// A conversation's number holds its licence already.
fn name(model: &str, conversation: u64) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(model.as_bytes());
    hasher.write_u64(conversation);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_kept_as_are_allowed_and_the_newest_are_among_them() {
        let conversations = SessionAffinity::default();
        let target: Arc<str> = "q/b".into();
        let kept = |of: std::ops::Range<u64>| {
            of.filter(|it| conversations.remembered("fast", *it).is_some()).count()
        };
        for conversation in 0..MOST {
            conversations.served("fast", conversation, &target, "p/a");
        }
        // However often the old ones were asked about.
        for _ in 0..3 {
            kept(0..MOST);
        }
        for conversation in MOST..MOST + 1000 {
            conversations.served("fast", conversation, &target, "p/a");
        }
        conversations.0.run_pending_tasks();
        assert!(conversations.0.entry_count() <= MOST, "{}", conversations.0.entry_count());
        assert_eq!(kept(MOST..MOST + 1000), 1000);
    }

    #[test]
    fn only_what_differs_from_the_first_target_is_kept() {
        let conversations = SessionAffinity::default();
        let (first, other): (Arc<str>, Arc<str>) = ("p/a".into(), "q/b".into());
        conversations.served("fast", 1, &first, "p/a");
        assert_eq!(conversations.remembered("fast", 1), None);
        conversations.served("fast", 1, &other, "p/a");
        assert_eq!(conversations.remembered("fast", 1), Some(other.clone()));
        assert_eq!(conversations.remembered("fast", 2), None);
        assert_eq!(conversations.remembered("strong", 1), None);
        conversations.served("fast", 1, &first, "p/a");
        assert_eq!(conversations.remembered("fast", 1), Some(first), "it has moved back");
    }
}
