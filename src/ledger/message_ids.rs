//! `x-message-id`: retries and tool rounds of one message count as one message.
//!
//! Requests that share an id form a group, good for ten minutes from its first request and for ten
//! granted requests; the next one begins a new group. A group holds one message while any of its
//! requests is open, and is charged that message by the first of them that is charged. If all of
//! them give it back, it is free again and the next request of the group has to find room anew.
//!
//! Ids are not kept over a restart: the next request with the same id counts as a new message.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use gatekeeper_filters::kernel::UnixMs;
use serde::{Deserialize, Serialize};

use super::{conversations::CountedMessage, windows::WindowStarts};

/// How long an id joins requests, in ms from the first.
const LIFE_MS: u64 = 10 * 60 * 1000;
/// How many granted requests one id joins.
const REQUESTS: u8 = 10;
/// Ids remembered per licence; the oldest goes first.
const REMEMBERED: usize = 1_000;

/// The group of a request whose message another gateway, or another request, pays: no group here is
/// numbered like that.
pub const ELSEWHERE: u64 = u64::MAX;

/// When a message was taken, and so which windows it counts in; and the conversation that counted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakenAt {
    pub at: UnixMs,
    pub starts: WindowStarts,
    pub counted: Option<CountedMessage>,
}

/// What happens to the message an open request stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageEffect {
    /// Open until now, charged from now on.
    Charged(TakenAt),
    /// Open until now, given back.
    Released(TakenAt),
    /// Another request of the group has charged it, or still holds it.
    Untouched,
}

/// How a request would join: decided first, applied only when everything else fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinPlan {
    /// Of a group that has its message: costs nothing. With when that message was taken, if it is
    /// still open; `None` once it is charged.
    Covered(u64, Option<UnixMs>),
    /// Of a group that gave its message back: needs one.
    Again(u64),
    /// First of its id: needs one.
    First,
}

#[derive(Debug)]
struct MessageGroup {
    first: UnixMs,
    requests: u8,
    open: u32,
    charged: bool,
    /// The open message; `None` once charged or given back.
    held: Option<TakenAt>,
    /// Whether an id still leads here.
    named: bool,
}

/// The groups of one licence, by the number of their first hold.
#[derive(Debug, Default)]
pub struct MessageIds {
    by_id: HashMap<Arc<str>, u64>,
    groups: HashMap<u64, MessageGroup>,
    /// In the order of their making.
    order: VecDeque<(UnixMs, Arc<str>, u64)>,
}

/// An id that leads to a group, for another process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KnownId {
    id: String,
    group: u64,
    first: UnixMs,
    requests: u8,
    charged: bool,
}

impl MessageIds {
    /// Ids whose time is not over, in the order of their making.
    pub fn known(&self, now: UnixMs) -> Vec<KnownId> {
        let named = self.order.iter().filter(|(first, ..)| !ended(*first, now));
        let known = named.filter_map(|(first, id, key)| {
            let group = self.groups.get(key).filter(|group| group.named)?;
            let (requests, charged) = (group.requests, group.charged);
            Some(KnownId { id: id.to_string(), group: *key, first: *first, requests, charged })
        });
        known.collect()
    }

    pub fn remember(&mut self, known: &[KnownId]) {
        for id in known {
            let KnownId { group, first, requests, charged, .. } = *id;
            let name: Arc<str> = Arc::from(&*id.id);
            self.by_id.insert(name.clone(), group);
            self.order.push_back((first, name, group));
            let fresh = MessageGroup { first, requests, open: 0, charged, held: None, named: true };
            self.groups.insert(group, fresh);
        }
    }

    /// Opens again a request of a group, with the message it stands on; that message, unless another
    /// request of the group brought it along.
    pub fn adopt(&mut self, key: u64, message: Option<TakenAt>) -> Option<TakenAt> {
        let unnamed = MessageGroup {
            first: UnixMs(0),
            requests: REQUESTS,
            open: 0,
            charged: false,
            held: None,
            named: false,
        };
        let group = self.groups.entry(key).or_insert(unnamed);
        group.open += 1;
        group.charged |= message.is_none();
        if group.charged || group.held.is_some() {
            return None;
        }
        group.held = message;
        message
    }

    /// The conversation that counted the open message of a group.
    pub fn counted(&self, key: u64) -> Option<CountedMessage> {
        self.groups.get(&key)?.held?.counted
    }

    pub fn join(&self, id: &str, now: UnixMs) -> JoinPlan {
        let known = self.by_id.get(id).and_then(|key| Some((*key, self.groups.get(key)?)));
        match known {
            Some((key, group)) if !ended(group.first, now) && group.requests < REQUESTS => {
                if group.charged || group.held.is_some() {
                    JoinPlan::Covered(key, group.held.map(|taken| taken.at))
                } else {
                    JoinPlan::Again(key)
                }
            }
            _ => JoinPlan::First,
        }
    }

    /// Applies `join` for the request `hold`; returns its group.
    pub fn enter(&mut self, id: &Arc<str>, join: JoinPlan, hold: u64, taken: TakenAt) -> u64 {
        let key = match join {
            JoinPlan::Covered(key, _) | JoinPlan::Again(key) => key,
            JoinPlan::First => self.begin(id, hold, taken.at),
        };
        if let Some(group) = self.groups.get_mut(&key) {
            if !matches!(join, JoinPlan::Covered(..)) {
                group.held = Some(taken);
            }
            group.requests = group.requests.saturating_add(1);
            group.open += 1;
        }
        key
    }

    /// One request of the group ended. `own` is what it would have stood on alone.
    pub fn leave(&mut self, key: u64, charge: bool, own: TakenAt) -> MessageEffect {
        let Some(group) = self.groups.get_mut(&key) else {
            return if charge { MessageEffect::Charged(own) } else { MessageEffect::Released(own) };
        };
        group.open = group.open.saturating_sub(1);
        let message = match group.held {
            Some(taken) if charge => {
                group.charged = true;
                group.held = None;
                MessageEffect::Charged(taken)
            }
            Some(taken) if group.open == 0 => {
                group.held = None;
                MessageEffect::Released(taken)
            }
            _ => MessageEffect::Untouched,
        };
        if group.open == 0 && !group.named {
            self.groups.remove(&key);
        }
        message
    }

    /// Forgets ids whose time is over; groups with open requests stay until those end.
    pub fn expire(&mut self, now: UnixMs) {
        while self.order.front().is_some_and(|(first, ..)| ended(*first, now)) {
            self.forget_oldest();
        }
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty() && self.groups.is_empty()
    }

    fn begin(&mut self, id: &Arc<str>, hold: u64, now: UnixMs) -> u64 {
        self.expire(now);
        if self.order.len() >= REMEMBERED {
            self.forget_oldest();
        }
        if let Some(old) = self.by_id.insert(id.clone(), hold) {
            self.unname(old);
        }
        self.order.push_back((now, id.clone(), hold));
        let group = MessageGroup {
            first: now,
            requests: 0,
            open: 0,
            charged: false,
            held: None,
            named: true,
        };
        self.groups.insert(hold, group);
        hold
    }

    fn forget_oldest(&mut self) {
        let Some((_, id, key)) = self.order.pop_front() else { return };
        if self.by_id.get(&id) == Some(&key) {
            self.by_id.remove(&id);
        }
        self.unname(key);
    }

    fn unname(&mut self, key: u64) {
        if let Some(group) = self.groups.get_mut(&key) {
            group.named = false;
            if group.open == 0 {
                self.groups.remove(&key);
            }
        }
    }
}

/// A clock that went backwards has ended nothing.
fn ended(first: UnixMs, now: UnixMs) -> bool {
    now.0.saturating_sub(first.0) >= LIFE_MS
}
