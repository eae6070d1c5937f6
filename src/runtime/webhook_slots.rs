//! Places for webhooks whose bodies are being read: few, so that what shops send never takes what buyers need.

use std::{collections::VecDeque, net::IpAddr, sync::Arc};

use gatekeeper_filters::kernel::{Code, Rejection};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::downstream::{address_block::Block, memory_budget::MemoryBudget, respond};

/// Bodies read concurrently.
const AT_ONCE: usize = 16;
/// Beside them, from addresses whose last event was genuine.
const FOR_KNOWN: usize = 4;
/// Of one address.
const OF_ADDRESS: usize = 2;
/// Addresses that are remembered; a shop sends from a few.
const KNOWN: usize = 64;

/// Places for webhooks whose bodies are being read.
#[derive(Default)]
pub struct WebhookSlots {
    taken: Mutex<SlotTaken>,
    /// Theirs alone: each body has its own bound.
    pub buffered: Arc<MemoryBudget>,
}

#[derive(Default)]
struct SlotTaken {
    all: usize,
    by_address: FxHashMap<IpAddr, usize>,
    /// The latest at the back.
    known: VecDeque<IpAddr>,
}

/// One place, until it is dropped.
pub struct WebhookSlot<'a> {
    pub of: &'a WebhookSlots,
    /// Of IPv6, that of its /64.
    pub address: Option<IpAddr>,
}

impl Drop for WebhookSlot<'_> {
    fn drop(&mut self) {
        let mut taken = self.of.taken.lock();
        taken.all -= 1;
        if let Some(address) = &self.address
            && let Some(count) = taken.by_address.get_mut(address)
        {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(address);
            }
        }
    }
}

impl WebhookSlots {
    /// # Errors
    /// 429 while the address has its share, 503 while all places are taken.
    pub fn take(&self, address: Option<IpAddr>) -> Result<WebhookSlot<'_>, Rejection> {
        let address = address.map(|address| Block::of(address).0);
        let mut taken = self.taken.lock();
        let is_known = address.is_some_and(|address| taken.known.contains(&address));
        if taken.all >= AT_ONCE + if is_known { FOR_KNOWN } else { 0 } {
            return Err(respond::too_busy("webhooks: all places are taken"));
        }
        if let Some(address) = address {
            let count = taken.by_address.entry(address).or_default();
            if *count >= OF_ADDRESS {
                let message = "Too many webhooks at one time. Please send it again in a moment.";
                return Err(Rejection::new(Code::RateLimited, message).retry_after(1));
            }
            *count += 1;
        }
        taken.all += 1;
        Ok(WebhookSlot { of: self, address })
    }

    /// Remembers whether an address' last event was genuine.
    pub fn heard(&self, address: Option<IpAddr>, is_genuine: bool) {
        let Some(address) = address else { return };
        let mut taken = self.taken.lock();
        taken.known.retain(|known| *known != address);
        if is_genuine {
            if taken.known.len() >= KNOWN {
                taken.known.pop_front();
            }
            taken.known.push_back(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let places = WebhookSlots::default();
        let at = |text: &str| places.take(Some(text.parse().unwrap()));
        let _two = ["2001:db8::1", "2001:db8::2"].map(|text| at(text).ok().unwrap());
        assert!(at("2001:db8::3").is_err());
        assert!(at("2001:db8:0:1::3").is_ok());
    }

    #[test]
    fn places_are_few_and_some_are_for_the_known() {
        let places = WebhookSlots::default();
        places.heard(at(100), true);
        let mut taken: Vec<_> = (0..16).map(|n| places.take(at(n / 2)).ok().unwrap()).collect();
        let refused = |address| places.take(address).err().map(|reject| reject.code);
        assert_eq!(refused(at(200)), Some(Code::UpstreamExhausted));
        assert_eq!(refused(None), Some(Code::UpstreamExhausted));
        taken.extend((0..2).map(|_| places.take(at(100)).ok().unwrap()));
        assert_eq!(refused(at(100)), Some(Code::RateLimited));
        taken.drain(..3);
        assert_eq!(refused(at(7)), Some(Code::RateLimited), "two of one address");
        assert_eq!(refused(at(200)), None);
        places.heard(at(100), false);
        drop(taken);
        let taken = places.taken.lock();
        assert_eq!((taken.all, taken.by_address.len(), taken.known.len()), (0, 0, 0));
    }
}
