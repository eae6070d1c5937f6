//! One look-up at the shops: a permit, the lock, the call, and what is stored of its answer.

use std::{sync::Arc, time::Duration};

use gatekeeper_filters::kernel::{Code, Credential, LicenseId, UnixMs};

use super::{
    address_throttle::ClientPrefix,
    cache_entry::{CachedLicense, no_for},
    call_budget::CallPriority,
    call_queue::CallPermit,
    memory_cache::CacheSlot,
    redis_cache::{DistributedLock, RedisCache},
    single_flight::FlightResult,
    sources::{ConfiguredShops, ShopQuery},
    validator::{LicenseValidator, NegativeEntry, refusal_code},
};
use crate::{
    redis_store::{MOMENT, SILENCE, StoreUnavailable, wait_budget::WaitBudget},
    shops::{Asked, LicenseVerdict, ShopError, ShopLicense, ShopReply, ShopRequest, ShopResponse},
};

/// Why a known licence is not looked up: that needs an activated device.
const ONLY_WITH_A_DEVICE: &str = "the shop can be asked only with an activated device";

/// A key that no shop has issued.
pub(super) const NO_KEY: &str = "00000000-00000000-00000000-00000000";

/// Interval at which the answer of another gateway is checked for.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The arguments of one look-up.
pub(super) struct LookupRequest {
    pub sources: Arc<ConfiguredShops>,
    pub id: LicenseId,
    /// Hash of the key as typed: refusals and flights are keyed by it.
    pub spelling: LicenseId,
    pub key: Credential,
    /// The device that the request names.
    pub instance: Option<Arc<str>>,
    pub class: CallPriority,
    pub address: Option<ClientPrefix>,
    /// The cache entry when the look-up began.
    pub before: Option<CachedLicense>,
}

impl LookupRequest {
    /// The cached answer about the licence.
    fn facts(&self) -> Option<&ShopLicense> {
        self.before.as_ref().and_then(|before| before.facts.as_ref())
    }

    /// The shop is known to accept another spelling of this key: "not found" says nothing about the
    /// licence.
    fn is_another_spelling(&self) -> bool {
        let known = self.before.as_ref().and_then(|before| before.spelling.as_deref());
        known.is_some_and(|known| known != tag(&self.spelling))
    }
}

/// The result so far of asking the shops.
struct Found {
    unknown: Option<&'static str>,
    /// The answer to be cached, and the time of its request.
    reply: Option<(ShopReply, UnixMs)>,
    /// It counts, even if another shop does not answer.
    is_final: bool,
    /// For a key that is refused: the code, and the shop's answer.
    code: Code,
    foreign: Option<ShopLicense>,
}

impl Default for Found {
    fn default() -> Self {
        Self {
            unknown: None,
            reply: None,
            is_final: false,
            code: Code::LicenseInvalid,
            foreign: None,
        }
    }
}

impl Found {
    /// Records an answer; true if no other shop needs to be asked. `is_own`: it is from the shop that a known
    /// licence belongs to.
    fn record(
        &mut self,
        reply: ShopReply,
        verdict: &LicenseVerdict,
        asked: UnixMs,
        is_own: bool,
    ) -> bool {
        if verdict.is_valid() {
            self.reply = Some((reply, asked));
            self.is_final = true;
            return true;
        }
        if let (true, LicenseVerdict::Invalid(code), ShopReply::License(facts)) =
            (verdict.is_foreign(), verdict, &reply)
        {
            if self.foreign.is_none() || *code == Code::LicenseWrongProduct {
                self.foreign = Some((**facts).clone());
            }
            if *code == Code::LicenseWrongProduct && self.code == Code::LicenseInvalid {
                self.code = *code;
            }
        }
        if is_own || (self.reply.is_none() && !verdict.is_foreign()) {
            self.reply = Some((reply, asked));
            self.is_final |= is_own;
        }
        false
    }
}

/// 64 bits of a spelling's HMAC, in hex.
fn tag(spelling: &LicenseId) -> String {
    let mut tag = spelling.to_hex();
    tag.truncate(16);
    tag
}

impl LicenseValidator {
    pub(super) async fn look_up(
        &self,
        lookup: LookupRequest,
        mut permit: Option<CallPermit>,
    ) -> FlightResult {
        let mut budget = WaitBudget::of(MOMENT);
        loop {
            if let (None, Some(first)) = (&permit, self.first_question(&lookup)) {
                permit = self.permit(&first, lookup.class, lookup.address).await;
                if permit.is_none() {
                    return Err("no call to a shop was left in time");
                }
            }
            let held = permit.take();
            let Some(redis) = &self.redis_cache else {
                return self.ask_shops_and_cache(&lookup, held).await;
            };
            // During an outage of the store two gateways may call: better than none.
            if budget.is_over() || !redis.store.is_back(&mut budget).await {
                return self.ask_shops_and_cache(&lookup, held).await;
            }
            let locked = match self.learned(redis, &lookup).await {
                // Another gateway has looked it up while this one waited for its permit.
                Ok(true) => {
                    self.give_back(held);
                    return Ok(());
                }
                Ok(false) => redis.lock(&lookup.id).await,
                Err(away) => Err(away),
            };
            match locked {
                Ok(Some(lock)) => return self.look_up_locked(&lookup, held, lock).await,
                Ok(None) => {
                    self.give_back(held);
                    if self.wait_for_other(redis, &lookup).await {
                        return Ok(());
                    }
                }
                Err(StoreUnavailable) => {
                    budget.part(SILENCE);
                    permit = held;
                }
            }
        }
    }

    async fn look_up_locked(
        &self,
        lookup: &LookupRequest,
        permit: Option<CallPermit>,
        lock: DistributedLock,
    ) -> FlightResult {
        // Another gateway may have finished between the check and the lock.
        let result = match &self.redis_cache {
            Some(redis) if self.has_learned(redis, lookup).await => {
                self.give_back(permit);
                Ok(())
            }
            _ => self.ask_shops_and_cache(lookup, permit).await,
        };
        drop(lock);
        result
    }

    /// Waits while another gateway looks up; true when its answer is there, false when it gave up or
    /// ended.
    async fn wait_for_other(&self, redis: &Arc<RedisCache>, lookup: &LookupRequest) -> bool {
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            if matches!(self.learned(redis, lookup).await, Ok(true)) {
                return true;
            }
            if !matches!(redis.is_locked(&lookup.id).await, Ok(true)) {
                return false;
            }
        }
    }

    /// [`Self::learned`], with retries: a late reply must not cause a second call to the shop.
    async fn has_learned(&self, redis: &RedisCache, lookup: &LookupRequest) -> bool {
        let mut budget = WaitBudget::of(MOMENT);
        loop {
            if let Ok(learned) = self.learned(redis, lookup).await {
                return learned;
            }
            budget.part(SILENCE);
            if budget.is_over() || !redis.store.is_back(&mut budget).await {
                return false;
            }
        }
    }

    /// Adopts what another gateway has looked up since this look-up began.
    async fn learned(
        &self,
        redis: &RedisCache,
        lookup: &LookupRequest,
    ) -> Result<bool, StoreUnavailable> {
        if let Some(record) = redis.record(&lookup.id).await? {
            let is_newer = match &lookup.before {
                Some(before) => record.answered > before.answered && !record.is_due(UnixMs::now()),
                None => record.facts.is_some(),
            };
            if is_newer {
                self.adopt(lookup.id, &record);
                return Ok(true);
            }
        }
        if lookup.before.is_some() {
            return Ok(false);
        }
        let why = redis.refusal(&lookup.spelling).await?;
        let code = why.and_then(|why| refusal_code(&why));
        if let Some(code) = code {
            let refusal = NegativeEntry { code, facts: None, at: UnixMs::now(), times: 1 };
            self.refused.insert(lookup.spelling, Arc::new(refusal));
        }
        Ok(code.is_some())
    }

    /// Asks every shop that may know the key, in turn: a valid answer wins, and a missing answer outranks a
    /// refusal.
    async fn ask_shops_and_cache(
        &self,
        lookup: &LookupRequest,
        mut permit: Option<CallPermit>,
    ) -> FlightResult {
        let found = self.ask_shops(lookup, &mut permit).await;
        self.give_back(permit);
        let is_known = lookup.facts().is_some();
        match (found.reply, found.unknown) {
            (Some((reply, asked)), unknown) if unknown.is_none() || found.is_final => {
                self.note(&lookup.sources, lookup.id, &reply, asked).await;
                self.refused.invalidate(&lookup.spelling);
                self.note_spelling(lookup, &reply);
                Ok(())
            }
            (_, Some(why)) => Err(why),
            (None, None) if is_known => Err("no source asks about its product any more"),
            _ => {
                self.refuse(lookup, found.code, found.foreign).await;
                Ok(())
            }
        }
    }

    async fn ask_shops(&self, lookup: &LookupRequest, permit: &mut Option<CallPermit>) -> Found {
        let mut found = Found::default();
        let (own, others) = self.questions(lookup);
        let own = own.into_iter().map(|question| (question, true));
        for (question, is_own) in own.chain(others.into_iter().map(|question| (question, false))) {
            let (reply, asked) = match self.ask_one(lookup, &question, permit).await {
                Ok((ShopReply::Unknown(_), _)) => {
                    found.unknown = Some("the shop does not answer");
                    // For a known licence its own shop decides.
                    if is_own { break } else { continue }
                }
                Ok((ShopReply::NotFound, _)) if lookup.is_another_spelling() => {
                    found.unknown = Some("the shop knows the key under another spelling only");
                    if is_own { break } else { continue }
                }
                Ok((ShopReply::NeedsDevice, _)) => {
                    found.code = Code::DeviceLimit;
                    continue;
                }
                Ok(reply) => reply,
                Err(why) => {
                    found.unknown = Some(why);
                    if is_own { break } else { continue }
                }
            };
            let verdict = match &reply {
                ShopReply::License(facts) => lookup.sources.judge(facts, asked),
                _ => LicenseVerdict::Invalid(Code::LicenseInvalid),
            };
            if found.record(reply, &verdict, asked, is_own) {
                break;
            }
        }
        found
    }

    /// One call, with a permit of its own.
    async fn ask_one(
        &self,
        lookup: &LookupRequest,
        question: &ShopQuery,
        permit: &mut Option<CallPermit>,
    ) -> Result<(ShopReply, UnixMs), &'static str> {
        let instance = lookup.instance.as_deref().filter(|id| self.may_ask_with(lookup, id));
        let asked = Asked {
            key: lookup.key.expose(),
            subject: &question.subject,
            known: lookup.facts().filter(|facts| facts.shop == question.shop()),
            instance,
        };
        if question.shop().request(&question.account.source, &asked).is_none() {
            // A known licence is looked up when another of its devices asks.
            return match lookup.facts() {
                Some(_) => Err(ONLY_WITH_A_DEVICE),
                None => Ok((ShopReply::NeedsDevice, UnixMs::now())),
            };
        }
        if self.health(question.shop()).is_paused(std::time::Instant::now()) {
            return Err("the shop does not answer");
        }
        if permit.as_ref().is_some_and(|permit| permit.shop != question.shop().name()) {
            self.give_back(permit.take());
        }
        if permit.is_none() {
            *permit = self.permit(question, lookup.class, lookup.address).await;
        }
        if permit.take().is_none() {
            return Err("no call to a shop was left in time");
        }
        let moment = self.moment(&lookup.id);
        match self.call(&lookup.sources, question, &asked).await {
            ShopReply::NeedsDevice if lookup.facts().is_some() => Err(ONLY_WITH_A_DEVICE),
            reply => Ok((reply, moment)),
        }
    }

    /// Whether the call may name this device: one that a known licence does not have at this shop proves
    /// nothing about the licence.
    fn may_ask_with(&self, lookup: &LookupRequest, instance: &str) -> bool {
        let device = || self.hasher.device(&self.account(&lookup.id), instance);
        match lookup.before.as_ref().filter(|before| before.facts.is_some()) {
            Some(before) => before.device(&device()).is_some_and(|known| !known.carried),
            None => true,
        }
    }

    /// The first query, if there is one.
    pub(super) fn first_question(&self, lookup: &LookupRequest) -> Option<ShopQuery> {
        let (own, others) = self.questions(lookup);
        own.into_iter().chain(others).next()
    }

    /// The query to the shop that a known licence belongs to, and those to all others with such keys. The
    /// others are asked if the first reports that the licence ended, as after a move of keys.
    fn questions(&self, lookup: &LookupRequest) -> (Option<ShopQuery>, Vec<ShopQuery>) {
        let mut all = lookup.sources.questions(lookup.key.expose());
        let Some(facts) = lookup.facts() else { return (None, all) };
        all.retain(|question| question.shop() != facts.shop);
        (lookup.sources.question_about(facts), all)
    }

    /// One call.
    pub(super) async fn call(
        &self,
        sources: &ConfiguredShops,
        question: &ShopQuery,
        asked: &Asked<'_>,
    ) -> ShopReply {
        let (shop, source) = (question.shop(), &question.account.source);
        let Some(request) = shop.request(source, asked) else { return ShopReply::NeedsDevice };
        let reply = match self.send(question, &request).await {
            Ok(response) => shop.read(source, asked, &response, &self.hasher),
            Err(error) => ShopReply::Unknown(error),
        };
        let verdict = sources.verdict_name(&reply, UnixMs::now());
        self.record_reply(shop, question.name(), &reply, verdict);
        reply
    }

    /// Sends a request at the pace that the shop and the configuration allow.
    pub(super) async fn send(
        &self,
        question: &ShopQuery,
        request: &ShopRequest,
    ) -> Result<ShopResponse, ShopError> {
        let (shop, account) = (question.shop(), &question.account);
        let limits = shop.burst(&account.source).into_iter().chain(account.budget);
        if !self.pace(shop).wait(&limits.collect::<Vec<_>>()).await {
            return Err(ShopError::Down("its limit of calls leaves none in time".into()));
        }
        self.client.send(&account.base, request).await
    }

    /// Caches a shop's answer about a licence of the seller.
    pub(super) async fn note(
        &self,
        sources: &ConfiguredShops,
        id: LicenseId,
        reply: &ShopReply,
        asked: UnixMs,
    ) {
        let judge = |facts: &ShopLicense| sources.judge(facts, asked);
        let holding = self.is_holding() || sources.is_held();
        let refunded = match reply {
            ShopReply::License(facts) => self.is_refunded(facts).await,
            _ => false,
        };
        let is_new = self.memory_cache.get(&id).is_none_or(|kept| kept.record.facts.is_none());
        let hear = |record: Option<&CachedLicense>| {
            let mut next =
                record.unwrap_or(&CachedLicense::default()).hear(reply, asked, judge, holding);
            next.refunded |= refunded;
            if let ShopReply::License(facts) = reply
                && sources.adopts(facts.shop)
            {
                let before = record.and_then(|record| record.facts.as_ref()).map(judge);
                next.adopt_word(facts, (before.as_ref(), &judge(facts)), asked);
            }
            Some(next)
        };
        let issued = |slot: &CacheSlot| slot.record.issued.clone();
        let before = self.memory_cache.get(&id).and_then(|slot| issued(&slot));
        let Some(kept) = self.memory_cache.update(id, hear) else { return };
        let is_adopted = kept.record.issued.is_some() && issued(&kept) != before;
        if kept.record.turned.is_some() {
            self.assess(asked);
        }
        if let (ShopReply::License(facts), true) = (reply, is_new) {
            self.continue_by_reference(id, facts).await;
        }
        if is_adopted {
            // It is our own from now on, whatever becomes of this process.
            self.keep_now(id).await;
        } else {
            self.keep(id).await;
        }
    }

    /// Caches the spelling under which the shop knows a licence. Written to disk with the next change of the
    /// entry.
    fn note_spelling(&self, lookup: &LookupRequest, reply: &ShopReply) {
        if !matches!(reply, ShopReply::License(_)) {
            return;
        }
        self.memory_cache.update(lookup.id, |record| {
            let before = record.filter(|record| record.facts.is_some())?;
            let spelling = Some(tag(&lookup.spelling));
            (before.spelling != spelling).then(|| CachedLicense { spelling, ..before.clone() })
        });
    }

    async fn refuse(&self, lookup: &LookupRequest, code: Code, facts: Option<ShopLicense>) {
        let times = self.refused.get(&lookup.spelling).map_or(1, |before| before.times + 1);
        let at = UnixMs::now();
        self.refused.insert(lookup.spelling, Arc::new(NegativeEntry { code, facts, at, times }));
        let redis = self.redis_cache.as_ref().filter(|redis| redis.is_up());
        // A missing device says nothing about the key, and does not concern other gateways.
        if let Some(redis) = redis.filter(|_| code != Code::DeviceLimit) {
            let keep = no_for(&lookup.sources.cache, times);
            let _ = redis.refuse(&lookup.spelling, code.wire().1, keep).await;
        }
    }
}
