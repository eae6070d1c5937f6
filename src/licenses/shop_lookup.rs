//! One look-up at the shops: a permit, the lock, the call, and what is stored of its answer.

use std::{sync::Arc, time::Duration};

use gatekeeper_filters::kernel::{Code, Credential, LicenseId, UnixMs};

use super::{
    address_throttle::ClientPrefix,
    cache_entry::{CachedLicense, no_for},
    call_budget::CallPriority,
    call_queue::CallPermit,
    redis_cache::{DistributedLock, RedisCache},
    single_flight::FlightResult,
    sources::{ConfiguredShops, ShopQuery},
    validator::{LicenseValidator, NegativeEntry, refusal_code},
};
use crate::{
    redis_store::{MOMENT, SILENCE, StoreUnavailable, wait_budget::WaitBudget},
    shops::{Asked, LicenseVerdict, ShopError, ShopLicense, ShopReply, ShopRequest, ShopResponse},
};

/// Why a known licence is not asked about, or nothing was learned: another device of it will ask.
const ONLY_WITH_A_DEVICE: &str = "the shop can be asked only with an activated device";

/// A key that no shop ever made.
pub(super) const NO_KEY: &str = "00000000-00000000-00000000-00000000";

/// How often is looked whether another gateway has the answer.
const LOOK: Duration = Duration::from_millis(50);

/// What is asked, and for whom.
pub(super) struct LookupRequest {
    pub sources: Arc<ConfiguredShops>,
    pub id: LicenseId,
    /// Of the key as it was typed: refusals and flights belong to it.
    pub spelling: LicenseId,
    pub key: Credential,
    /// The device that the request names.
    pub instance: Option<Arc<str>>,
    pub class: CallPriority,
    pub address: Option<ClientPrefix>,
    /// The record when the question came up.
    pub before: Option<CachedLicense>,
}

impl LookupRequest {
    /// What is known of the licence.
    fn facts(&self) -> Option<&ShopLicense> {
        self.before.as_ref().and_then(|before| before.facts.as_ref())
    }

    /// The shop is known to take another spelling of this key: "not found" says nothing of the licence.
    fn is_another_spelling(&self) -> bool {
        let known = self.before.as_ref().and_then(|before| before.spelling.as_deref());
        known.is_some_and(|known| known != tag(&self.spelling))
    }
}

/// What the shops said so far.
struct Found {
    unknown: Option<&'static str>,
    /// What is written down, and the moment of its question.
    told: Option<(ShopReply, UnixMs)>,
    /// It holds, though another shop does not answer.
    is_final: bool,
    /// Of a key that is not ours: why, and what is known of it.
    code: Code,
    foreign: Option<ShopLicense>,
}

impl Default for Found {
    fn default() -> Self {
        Self {
            unknown: None,
            told: None,
            is_final: false,
            code: Code::LicenseInvalid,
            foreign: None,
        }
    }
}

impl Found {
    /// Takes in an answer; true when no other shop needs to be asked. `is_own`: it is that of the shop a known
    /// licence belongs to.
    fn hear(
        &mut self,
        reply: ShopReply,
        verdict: &LicenseVerdict,
        asked: UnixMs,
        is_own: bool,
    ) -> bool {
        if verdict.is_valid() {
            self.told = Some((reply, asked));
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
        if is_own || (self.told.is_none() && !verdict.is_foreign()) {
            self.told = Some((reply, asked));
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
        inquiry: LookupRequest,
        mut kept: Option<CallPermit>,
    ) -> FlightResult {
        let mut patience = WaitBudget::of(MOMENT);
        loop {
            if let (None, Some(first)) = (&kept, self.first_question(&inquiry)) {
                kept = self.turn(&first, inquiry.class, inquiry.address).await;
                if kept.is_none() {
                    return Err("no call to a shop was left in time");
                }
            }
            let turn = kept.take();
            let Some(shared) = &self.shared else { return self.inquire(&inquiry, turn).await };
            // Without it, better two questions than none.
            if patience.is_over() || !shared.store.is_back(&mut patience).await {
                return self.inquire(&inquiry, turn).await;
            }
            let locked = match self.learned(shared, &inquiry).await {
                // Another gateway has learned it while this one waited for its turn.
                Ok(true) => {
                    self.give_back(turn);
                    return Ok(());
                }
                Ok(false) => shared.lock(&inquiry.id).await,
                Err(away) => Err(away),
            };
            match locked {
                Ok(Some(lock)) => return self.inquire_locked(&inquiry, turn, lock).await,
                Ok(None) => {
                    self.give_back(turn);
                    if self.wait_for_other(shared, &inquiry).await {
                        return Ok(());
                    }
                }
                Err(StoreUnavailable) => {
                    patience.part(SILENCE);
                    kept = turn;
                }
            }
        }
    }

    async fn inquire_locked(
        &self,
        inquiry: &LookupRequest,
        turn: Option<CallPermit>,
        lock: DistributedLock,
    ) -> FlightResult {
        // Between the look and the lock the other one may have come to its end.
        let landed = match &self.shared {
            Some(shared) if self.has_learned(shared, inquiry).await => {
                self.give_back(turn);
                Ok(())
            }
            _ => self.inquire(inquiry, turn).await,
        };
        drop(lock);
        landed
    }

    /// Waits while another gateway asks; true when its answer is there, false when it gave up or
    /// died.
    async fn wait_for_other(&self, shared: &Arc<RedisCache>, inquiry: &LookupRequest) -> bool {
        loop {
            tokio::time::sleep(LOOK).await;
            if matches!(self.learned(shared, inquiry).await, Ok(true)) {
                return true;
            }
            if !matches!(shared.is_locked(&inquiry.id).await, Ok(true)) {
                return false;
            }
        }
    }

    /// [`Self::learned`], for which one answer that comes late is no reason to ask the shop again.
    async fn has_learned(&self, shared: &RedisCache, inquiry: &LookupRequest) -> bool {
        let mut patience = WaitBudget::of(MOMENT);
        loop {
            if let Ok(learned) = self.learned(shared, inquiry).await {
                return learned;
            }
            patience.part(SILENCE);
            if patience.is_over() || !shared.store.is_back(&mut patience).await {
                return false;
            }
        }
    }

    /// Takes over what another gateway learned since the question came up.
    async fn learned(
        &self,
        shared: &RedisCache,
        inquiry: &LookupRequest,
    ) -> Result<bool, StoreUnavailable> {
        if let Some(record) = shared.record(&inquiry.id).await? {
            let is_news = match &inquiry.before {
                Some(before) => record.answered > before.answered && !record.is_due(UnixMs::now()),
                None => record.facts.is_some(),
            };
            if is_news {
                self.adopt(inquiry.id, &record);
                return Ok(true);
            }
        }
        if inquiry.before.is_some() {
            return Ok(false);
        }
        let why = shared.refusal(&inquiry.spelling).await?;
        let code = why.and_then(|why| refusal_code(&why));
        if let Some(code) = code {
            let refusal = NegativeEntry { code, facts: None, at: UnixMs::now(), times: 1 };
            self.refused.insert(inquiry.spelling, Arc::new(refusal));
        }
        Ok(code.is_some())
    }

    /// Asks every shop that could know, one after the other: a yes wins, and no answer beats a refusal.
    async fn inquire(
        &self,
        inquiry: &LookupRequest,
        mut permit: Option<CallPermit>,
    ) -> FlightResult {
        let found = self.ask_shops(inquiry, &mut permit).await;
        self.give_back(permit);
        let is_known = inquiry.facts().is_some();
        match (found.told, found.unknown) {
            (Some((reply, asked)), unknown) if unknown.is_none() || found.is_final => {
                self.note(&inquiry.sources, inquiry.id, &reply, asked).await;
                self.refused.invalidate(&inquiry.spelling);
                self.note_spelling(inquiry, &reply);
                Ok(())
            }
            (_, Some(why)) => Err(why),
            (None, None) if is_known => Err("no source asks about its product any more"),
            _ => {
                self.refuse(inquiry, found.code, found.foreign).await;
                Ok(())
            }
        }
    }

    async fn ask_shops(&self, inquiry: &LookupRequest, permit: &mut Option<CallPermit>) -> Found {
        let mut found = Found::default();
        let (own, others) = self.questions(inquiry);
        let own = own.into_iter().map(|question| (question, true));
        for (question, is_own) in own.chain(others.into_iter().map(|question| (question, false))) {
            let (reply, asked) = match self.ask_one(inquiry, &question, permit).await {
                Ok((ShopReply::Unknown(_), _)) => {
                    found.unknown = Some("the shop does not answer");
                    // Of a known licence its own shop decides.
                    if is_own { break } else { continue }
                }
                Ok((ShopReply::NotFound, _)) if inquiry.is_another_spelling() => {
                    found.unknown = Some("the shop knows the key under another spelling only");
                    if is_own { break } else { continue }
                }
                Ok((ShopReply::NeedsDevice, _)) => {
                    found.code = Code::DeviceLimit;
                    continue;
                }
                Ok(told) => told,
                Err(why) => {
                    found.unknown = Some(why);
                    if is_own { break } else { continue }
                }
            };
            let verdict = match &reply {
                ShopReply::License(facts) => inquiry.sources.judge(facts, asked),
                _ => LicenseVerdict::Invalid(Code::LicenseInvalid),
            };
            if found.hear(reply, &verdict, asked, is_own) {
                break;
            }
        }
        found
    }

    /// One question, with a permit of its own.
    async fn ask_one(
        &self,
        inquiry: &LookupRequest,
        question: &ShopQuery,
        permit: &mut Option<CallPermit>,
    ) -> Result<(ShopReply, UnixMs), &'static str> {
        let instance = inquiry.instance.as_deref().filter(|id| self.may_ask_with(inquiry, id));
        let asked = Asked {
            key: inquiry.key.expose(),
            subject: &question.subject,
            known: inquiry.facts().filter(|facts| facts.shop == question.shop()),
            instance,
        };
        if question.shop().request(&question.account.source, &asked).is_none() {
            // Of a known licence another device of it will ask.
            return match inquiry.facts() {
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
            *permit = self.turn(question, inquiry.class, inquiry.address).await;
        }
        if permit.take().is_none() {
            return Err("no call to a shop was left in time");
        }
        let moment = self.moment(&inquiry.id);
        match self.call(&inquiry.sources, question, &asked).await {
            ShopReply::NeedsDevice if inquiry.facts().is_some() => Err(ONLY_WITH_A_DEVICE),
            reply => Ok((reply, moment)),
        }
    }

    /// A device that a known licence does not have at this shop proves nothing about the licence.
    fn may_ask_with(&self, inquiry: &LookupRequest, instance: &str) -> bool {
        let device = || self.hasher.device(&self.account(&inquiry.id), instance);
        match inquiry.before.as_ref().filter(|before| before.facts.is_some()) {
            Some(before) => before.device(&device()).is_some_and(|known| !known.carried),
            None => true,
        }
    }

    /// What is asked first, if anything can be.
    pub(super) fn first_question(&self, inquiry: &LookupRequest) -> Option<ShopQuery> {
        let (own, others) = self.questions(inquiry);
        own.into_iter().chain(others).next()
    }

    /// The question to the shop that a known licence belongs to, and those to all others that have such keys.
    /// The others are asked where the first says that the licence is over, as after a move of keys.
    fn questions(&self, inquiry: &LookupRequest) -> (Option<ShopQuery>, Vec<ShopQuery>) {
        let mut all = inquiry.sources.questions(inquiry.key.expose());
        let Some(facts) = inquiry.facts() else { return (None, all) };
        all.retain(|question| question.shop() != facts.shop);
        (inquiry.sources.question_about(facts), all)
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
            Err(trouble) => ShopReply::Unknown(trouble),
        };
        let verdict = sources.verdict_name(&reply, UnixMs::now());
        self.heard(shop, question.name(), &reply, verdict);
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

    /// Writes down what a shop said of a licence that is ours.
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
        let is_new = self.records.get(&id).is_none_or(|kept| kept.record.facts.is_none());
        let hear = |record: Option<&CachedLicense>| {
            let mut next =
                record.unwrap_or(&CachedLicense::default()).hear(reply, asked, judge, holding);
            next.refunded |= refunded;
            if let ShopReply::License(facts) = reply
                && sources.adopts(facts.shop)
            {
                next.adopt_word(facts, &judge(facts), asked);
            }
            Some(next)
        };
        let Some(kept) = self.records.update(id, hear) else { return };
        if kept.record.turned.is_some() {
            self.assess(asked);
        }
        if let (ShopReply::License(facts), true) = (reply, is_new) {
            self.continue_by_reference(id, facts).await;
        }
        self.keep(id).await;
    }

    /// Remembers under which spelling the shop knows a licence. The disk has it from the licence's next
    /// change on.
    fn note_spelling(&self, inquiry: &LookupRequest, reply: &ShopReply) {
        if !matches!(reply, ShopReply::License(_)) {
            return;
        }
        self.records.update(inquiry.id, |record| {
            let before = record.filter(|record| record.facts.is_some())?;
            let spelling = Some(tag(&inquiry.spelling));
            (before.spelling != spelling).then(|| CachedLicense { spelling, ..before.clone() })
        });
    }

    async fn refuse(&self, inquiry: &LookupRequest, code: Code, facts: Option<ShopLicense>) {
        let times = self.refused.get(&inquiry.spelling).map_or(1, |before| before.times + 1);
        let at = UnixMs::now();
        self.refused.insert(inquiry.spelling, Arc::new(NegativeEntry { code, facts, at, times }));
        let shared = self.shared.as_ref().filter(|shared| shared.is_up());
        // That a device comes first is no word about the key, and nothing for other gateways.
        if let Some(shared) = shared.filter(|_| code != Code::DeviceLimit) {
            let keep = no_for(&inquiry.sources.cache, times);
            let _ = shared.refuse(&inquiry.spelling, code.wire().1, keep).await;
        }
    }
}
