//! What gateways share about licences, on the store they share.
//!
//! ```text
//! gk:license:ID   record of a licence (JSON), as long as it may be used       string
//! gk:refused:ID   why a shop refused a spelling of a key just now             string
//! gk:order:ORDER  licences of an order, a customer, or a shop's own id of a licence                                        set
//! gk:lock:ID      who asks a shop about a licence now, renewed each second    string
//! gk:calls:{SHOP}:POOL  calls to a shop in the last minute                    sorted set
//! gk:minute:WHAT  when what happened whose number in a minute is limited      sorted set
//! gk:issued       ids of our own licences, their keys and orders              set
//! gk:revoked      what operators said of licences, by id: since when, and whether it is revoked  hash
//! gk:moved        what operators moved, by id of the key: since when, and the word as JSON       hash
//! gk:licenses     channel: ids of records that changed, or `revoked` when one of the last two did
//! ```
//! IDs and ORDERs are HMACs under a pepper that is never here.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use gatekeeper_filters::kernel::{LicenseId, UnixMs};
use redis::Cmd;

use super::{
    cache_entry::{CachedLicense, Revocation},
    call_budget::{CallPriority, LONGEST_SPAN, POOLS},
    key_move::KeyMove,
};
use crate::{
    redis_store::{RedisStore, StoreUnavailable, script::Script},
    shops::ShopLicense,
};

/// A lock whose holder does not renew it is free again.
pub const LOCK: Duration = Duration::from_secs(3);
/// How often a lock is asked for once more when the store is slow, but not away.
const TRIES: usize = 2;
/// Retries of a merge after concurrent changes of the same record.
const MERGES: usize = 8;
pub const CHANNEL: &str = "gk:licenses";
/// On the channel: what operators said changed.
pub const REVOKED: &str = "revoked";
const REVOCATIONS: &str = "gk:revoked";
const MOVES: &str = "gk:moved";
const ISSUED: &str = "gk:issued";

pub struct RedisCache {
    pub store: Arc<RedisStore>,
    /// Changes of other gateways that were heard of.
    changes: AtomicU64,
    scripts: Scripts,
}

struct Scripts {
    replace: Script,
    lock: Script,
    unlock: Script,
    renew: Script,
    take: Script,
    revoke: Script,
    tell_move: Script,
}

impl RedisCache {
    pub fn new(store: Arc<RedisStore>) -> Self {
        Self { store, changes: AtomicU64::new(0), scripts: Scripts::new() }
    }

    pub fn is_up(&self) -> bool {
        self.store.is_up()
    }

    /// Another gateway changed something.
    pub fn notify_change(&self) {
        self.changes.fetch_add(1, Relaxed);
    }

    /// Generation and changes heard of: what was read between two equal ones is the latest.
    pub fn stamp(&self) -> (u64, u64) {
        (self.store.generation(), self.changes.load(Relaxed))
    }

    /// The record of a licence that any gateway knows.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn record(&self, id: &LicenseId) -> Result<Option<CachedLicense>, StoreUnavailable> {
        let text: Option<String> = self.store.run(Cmd::get(record_key(id))).await?;
        Ok(text.as_deref().and_then(parse))
    }

    /// Merges a record into what is there, and tells the other gateways if that changed it. What is
    /// there then.
    ///
    /// # Errors
    /// The store does not answer; it may have merged the record all the same.
    pub async fn merge(
        &self,
        id: &LicenseId,
        record: &CachedLicense,
        keep: Duration,
    ) -> Result<CachedLicense, StoreUnavailable> {
        // No shop could tell again what we issued: it is kept until it is forgotten on purpose.
        let now = UnixMs::now();
        if record.is_over(now) {
            return Ok(record.clone());
        }
        let shop_keep = keep.as_millis() as u64;
        let keep_of = |record: &CachedLicense| match &record.issued {
            Some(issued) => issued.kept_for(now).map_or(0, |left| left.as_millis() as u64),
            None => shop_keep,
        };
        let keep = keep_of(record);
        if record.issued.is_some() {
            self.store.run::<u8>(Cmd::sadd(ISSUED, id.to_hex())).await?;
        }
        for reference in record.facts.iter().flat_map(ShopLicense::references) {
            let mut index = redis::pipe();
            index.sadd(order_key(reference), id.to_hex()).ignore();
            match keep {
                0 => index.persist(order_key(reference)).ignore(),
                keep => index.pexpire(order_key(reference), keep as i64).ignore(),
            };
            self.store.pipe(index).await?;
        }
        for _ in 0..MERGES {
            let there: Option<String> = self.store.run(Cmd::get(record_key(id))).await?;
            let theirs = there.as_deref().and_then(parse);
            let merged =
                theirs.as_ref().map_or_else(|| record.clone(), |known| record.merge(known));
            if theirs.as_ref() == Some(&merged) {
                return Ok(merged);
            }
            let text = serde_json::to_string(&merged).map_err(|_| StoreUnavailable)?;
            let mut call = self.scripts.replace.call(&[record_key(id)]);
            call.arg(there.unwrap_or_default()).arg(text).arg(keep_of(&merged));
            call.arg(CHANNEL).arg(self.store.message(&id.to_hex()));
            if self.store.call(call).await? {
                return Ok(merged);
            }
        }
        Err(StoreUnavailable)
    }

    /// Writes down what an operator said of a licence, unless something later is there, and tells
    /// the other gateways if that changed anything. It has no end: a gateway that never heard of
    /// the licence finds it here.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn revoke(&self, id: &LicenseId, word: Revocation) -> Result<(), StoreUnavailable> {
        let mut call = self.scripts.revoke.call(&[REVOCATIONS]);
        call.arg(id.to_hex()).arg(word.at.0).arg(u8::from(word.revoked));
        call.arg(CHANNEL).arg(self.store.message(REVOKED));
        let _: u8 = self.store.call(call).await?;
        Ok(())
    }

    /// Ids of what gateways issued.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn issued(&self) -> Result<Vec<LicenseId>, StoreUnavailable> {
        let ids: Vec<String> = self.store.run(Cmd::smembers(ISSUED)).await?;
        Ok(ids.iter().filter_map(|id| LicenseId::from_hex(id)).collect())
    }

    /// Nothing is to be known any more of what was forgotten; its record ends by itself.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn drop_forgotten(&self, id: &LicenseId) -> Result<(), StoreUnavailable> {
        self.store.run::<u8>(Cmd::srem(ISSUED, id.to_hex())).await?;
        self.store.run::<u8>(Cmd::hdel(REVOCATIONS, id.to_hex())).await?;
        Ok(())
    }

    /// What operators said of licences.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn revocations(&self) -> Result<Vec<(LicenseId, Revocation)>, StoreUnavailable> {
        let all: Vec<(String, String)> = self.store.run(Cmd::hgetall(REVOCATIONS)).await?;
        let read = |(id, word): &(String, String)| {
            let (at, revoked) = word.split_once(' ')?;
            let at = UnixMs(at.parse().ok()?);
            Some((LicenseId::from_hex(id)?, Revocation { at, revoked: revoked == "1" }))
        };
        Ok(all.iter().filter_map(read).collect())
    }

    /// As [`RedisCache::revoke`], of a licence that an operator moved to another key.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn tell_move(&self, id: &LicenseId, word: &KeyMove) -> Result<(), StoreUnavailable> {
        let text = serde_json::to_string(word).map_err(|_| StoreUnavailable)?;
        let mut call = self.scripts.tell_move.call(&[MOVES]);
        call.arg(id.to_hex()).arg(word.at.0).arg(text);
        call.arg(CHANNEL).arg(self.store.message(REVOKED));
        let _: u8 = self.store.call(call).await?;
        Ok(())
    }

    /// What operators moved.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn moves(&self) -> Result<Vec<(LicenseId, KeyMove)>, StoreUnavailable> {
        let all: Vec<(String, String)> = self.store.run(Cmd::hgetall(MOVES)).await?;
        let read = |(id, word): &(String, String)| {
            let (_, text) = word.split_once(' ')?;
            Some((LicenseId::from_hex(id)?, serde_json::from_str(text).ok()?))
        };
        Ok(all.iter().filter_map(read).collect())
    }

    /// Ids of the licences of an order.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn licenses_of(&self, order: &str) -> Result<Vec<LicenseId>, StoreUnavailable> {
        let ids: Vec<String> = self.store.run(Cmd::smembers(order_key(order))).await?;
        Ok(ids.iter().filter_map(|id| LicenseId::from_hex(id)).collect())
    }

    /// Why a shop refused a spelling of a key just now, as some gateway wrote it down.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn refusal(&self, id: &LicenseId) -> Result<Option<String>, StoreUnavailable> {
        self.store.run(Cmd::get(refusal_key(id))).await
    }

    /// # Errors
    /// The store does not answer.
    pub async fn refuse(
        &self,
        id: &LicenseId,
        why: &str,
        keep: Duration,
    ) -> Result<(), StoreUnavailable> {
        let mut command = Cmd::set(refusal_key(id), why);
        command.arg("PX").arg(keep.as_millis() as u64);
        self.store.run(command).await
    }

    /// # Errors
    /// The store does not answer.
    pub async fn forget_refusal(&self, id: &LicenseId) -> Result<(), StoreUnavailable> {
        self.store.run(Cmd::del(refusal_key(id))).await
    }

    /// The lock that a look-up of a licence needs; `None` while another look-up holds it.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn lock(
        self: &Arc<Self>,
        id: &LicenseId,
    ) -> Result<Option<DistributedLock>, StoreUnavailable> {
        let (key, holder) = (lock_key(id), self.store.unique());
        let mut tries = 0;
        loop {
            let mut call = self.scripts.lock.call(&[&key]);
            call.arg(&holder).arg(LOCK.as_millis() as u64);
            match self.store.call(call).await {
                Ok(true) => return Ok(Some(DistributedLock::keep(self.clone(), key, holder))),
                Ok(false) => return Ok(None),
                // The reply was late and may have granted the lock: the repeated call, with the same holder, shows it.
                Err(_) if tries < TRIES && self.is_up() => tries += 1,
                Err(away) => {
                    self.unlock(key, holder);
                    return Err(away);
                }
            }
        }
    }

    fn unlock(self: &Arc<Self>, key: String, holder: String) {
        let cache = self.clone();
        tokio::spawn(async move {
            let mut call = cache.scripts.unlock.call(&[key]);
            call.arg(holder);
            let _: Result<u8, StoreUnavailable> = cache.store.call(call).await;
        });
    }

    /// Whether a gateway is asking a shop about a licence.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn is_locked(&self, id: &LicenseId) -> Result<bool, StoreUnavailable> {
        self.store.run(Cmd::exists(lock_key(id))).await
    }

    /// A call out of the budget that all gateways have at a shop: the pool it is taken from, and its name there; or
    /// how long it takes until there may be one.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn take_call(
        &self,
        (shop, per_minute): (&str, usize),
        class: CallPriority,
    ) -> Result<Result<(usize, String), Duration>, StoreUnavailable> {
        let member = self.store.unique();
        let keys: Vec<String> = class.pools().iter().map(|pool| pool_key(shop, *pool)).collect();
        let mut call = self.scripts.take.call(&keys);
        call.arg(&member).arg(LONGEST_SPAN.as_millis() as u64);
        for pool in class.pools() {
            call.arg(POOLS[*pool].bounds.len());
            for (most, span) in POOLS[*pool].bounds_of(per_minute) {
                call.arg(most).arg(span.as_millis() as u64);
            }
        }
        let (place, wait): (usize, u64) = self.store.call(call).await?;
        Ok(match wait {
            0 => Ok((class.pools()[place], member)),
            wait => Err(Duration::from_millis(wait)),
        })
    }

    /// Counts one more of what all gateways together may do `most` times a minute; or says how long it takes until it
    /// may be done again.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn count_in_minute(
        &self,
        what: &str,
        most: usize,
    ) -> Result<Result<(), Duration>, StoreUnavailable> {
        let span = LONGEST_SPAN.as_millis() as u64;
        let mut call = self.scripts.take.call(&[format!("gk:minute:{what}")]);
        call.arg(self.store.unique()).arg(span).arg(1).arg(most).arg(span);
        let (_, wait): (usize, u64) = self.store.call(call).await?;
        Ok(if wait == 0 { Ok(()) } else { Err(Duration::from_millis(wait)) })
    }

    /// # Errors
    /// The store does not answer.
    pub async fn give_back_call(
        &self,
        shop: &str,
        pool: usize,
        member: &str,
    ) -> Result<(), StoreUnavailable> {
        self.store.run(Cmd::zrem(pool_key(shop, pool), member)).await
    }
}

/// Renewed and held while this value lives; expires by itself if the process dies.
pub struct DistributedLock {
    renewing: tokio::task::JoinHandle<()>,
    cache: Arc<RedisCache>,
    key: String,
    holder: String,
}

impl DistributedLock {
    fn keep(cache: Arc<RedisCache>, key: String, holder: String) -> Self {
        let (renewer, name, by) = (cache.clone(), key.clone(), holder.clone());
        let renewing = tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOCK / 3).await;
                let mut call = renewer.scripts.renew.call(&[&name]);
                call.arg(&by).arg(LOCK.as_millis() as u64);
                let _: Result<u8, StoreUnavailable> = renewer.store.call(call).await;
            }
        });
        Self { renewing, cache, key, holder }
    }
}

impl Drop for DistributedLock {
    fn drop(&mut self) {
        self.renewing.abort();
        self.cache.unlock(std::mem::take(&mut self.key), std::mem::take(&mut self.holder));
    }
}

impl Scripts {
    fn new() -> Self {
        Self {
            // Compare and set: whether the record was unchanged, and so was replaced.
            replace: Script::new(
                "licence_replace",
                "if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
                 redis.call('SET', KEYS[1], ARGV[2])
                 if ARGV[3] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
                 redis.call('PUBLISH', ARGV[4], ARGV[5])
                 return 1",
            ),
            // Whether the lock belongs to this holder now, also by an earlier call.
            lock: Script::new(
                "licence_lock",
                "local holder = redis.call('GET', KEYS[1])
                 if holder and holder ~= ARGV[1] then return 0 end
                 redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
                 return 1",
            ),
            unlock: Script::new(
                "licence_unlock",
                "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
                 return redis.call('DEL', KEYS[1])",
            ),
            renew: Script::new(
                "licence_renew",
                "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
                 return redis.call('PEXPIRE', KEYS[1], ARGV[2])",
            ),
            // Whether it changed anything.
            revoke: Script::new(
                "licence_revoke",
                "local known = redis.call('HGET', KEYS[1], ARGV[1])
                 if known then
                     local at, revoked = string.match(known, '^(%d+) (%d)$')
                     at, revoked = tonumber(at or 0), tonumber(revoked or 0)
                     local new_at, new_revoked = tonumber(ARGV[2]), tonumber(ARGV[3])
                     if at > new_at or (at == new_at and revoked >= new_revoked) then return 0 end
                 end
                 redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. ARGV[3])
                 redis.call('PUBLISH', ARGV[4], ARGV[5])
                 return 1",
            ),
            // Whether it changed anything.
            tell_move: Script::new(
                "licence_move",
                "local known = redis.call('HGET', KEYS[1], ARGV[1])
                 local at = known and string.match(known, '^(%d+) ')
                 if at and tonumber(at) >= tonumber(ARGV[2]) then return 0 end
                 redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. ARGV[3])
                 redis.call('PUBLISH', ARGV[4], ARGV[5])
                 return 1",
            ),
            // A place among the keys and 0, or how long to wait. Each key's bounds follow in ARGV:
            // their number, then calls and milliseconds of each.
            take: Script::new(
                "shop_budget",
                "local time = redis.call('TIME')
                 local now = time[1] * 1000 + math.floor(time[2] / 1000)
                 local at, shortest = 3, ARGV[2] * 2
                 for place, key in ipairs(KEYS) do
                     redis.call('ZREMRANGEBYSCORE', key, '-inf', now - ARGV[2])
                     local wait = 0
                     for bound = 1, ARGV[at] do
                         local most, span = ARGV[at + 2 * bound - 1], ARGV[at + 2 * bound]
                         local back = redis.call('ZRANGE', key, -most, -most, 'WITHSCORES')
                         if back[2] then wait = math.max(wait, back[2] + span - now) end
                     end
                     at = at + 1 + 2 * ARGV[at]
                     if wait == 0 then
                         redis.call('ZADD', key, now, ARGV[1])
                         redis.call('PEXPIRE', key, ARGV[2])
                         return {place - 1, 0}
                     end
                     shortest = math.min(shortest, wait)
                 end
                 return {0, shortest}",
            ),
        }
    }
}

fn record_key(id: &LicenseId) -> String {
    format!("gk:license:{}", id.to_hex())
}

fn refusal_key(id: &LicenseId) -> String {
    format!("gk:refused:{}", id.to_hex())
}

fn order_key(order: &str) -> String {
    format!("gk:order:{order}")
}

fn lock_key(id: &LicenseId) -> String {
    format!("gk:lock:{}", id.to_hex())
}

fn pool_key(shop: &str, pool: usize) -> String {
    format!("gk:calls:{{{shop}}}:{}", POOLS[pool].name)
}

fn parse(text: &str) -> Option<CachedLicense> {
    serde_json::from_str::<CachedLicense>(text).ok().map(|record| record.repaired(UnixMs::now()))
}
