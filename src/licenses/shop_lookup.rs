//! One flight: a turn, the lock, the shop, and what is written down of its answer.

use std::{sync::Arc, time::Duration};

use gatekeeper_filters::kernel::{Code, Credential, LicenseId, UnixMs};

use super::{
    address_throttle::ClientPrefix,
    cache_entry::{CachedLicense, no_for},
    call_budget::CallPriority,
    call_queue::CallPermit,
    gumroad, lemonsqueezy,
    redis_cache::{DistributedLock, RedisCache},
    shop_license::{LicenseVerdict, ShopLicense, ShopReply},
    single_flight::FlightResult,
    sources::{ConfiguredShops, ShopQuery},
    validator::{LicenseValidator, NegativeEntry, refusal_code},
};

/// A key that no shop ever made.
pub(super) const NOBODY: &str = "00000000-00000000-00000000-00000000";

/// How often is looked whether another gateway has the answer.
const LOOK: Duration = Duration::from_millis(50);

/// What is asked, and for whom.
pub(super) struct LookupRequest {
    pub sources: Arc<ConfiguredShops>,
    pub id: LicenseId,
    /// Of the key as it was typed: refusals and flights belong to it.
    pub spelling: LicenseId,
    pub key: Credential,
    pub class: CallPriority,
    pub address: Option<ClientPrefix>,
    /// The record when the question came up.
    pub before: Option<CachedLicense>,
}

impl LookupRequest {
    /// The shop is known to take another spelling of this key: "not found" says nothing of the licence.
    fn is_another_spelling(&self) -> bool {
        let known = self.before.as_ref().and_then(|before| before.spelling.as_deref());
        known.is_some_and(|known| known != tag(&self.spelling))
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
        mut turn: Option<CallPermit>,
    ) -> FlightResult {
        loop {
            if turn.is_none() {
                turn = self.turnstile.pass(inquiry.class, inquiry.address).await;
            }
            let Some(turn) = turn.take() else {
                return Err("no call to a shop was left in time");
            };
            let Some(shared) = self.shared.as_ref().filter(|shared| shared.is_up()) else {
                return self.inquire(&inquiry, turn).await;
            };
            // Another gateway may have learned it while this one waited for its turn.
            if self.learned(shared, &inquiry).await {
                self.turnstile.give_back(turn);
                return Ok(());
            }
            match shared.lock(&inquiry.id).await {
                Ok(Some(lock)) => return self.inquire_locked(&inquiry, turn, lock).await,
                // On its own: better two questions than none.
                Err(_) => return self.inquire(&inquiry, turn).await,
                Ok(None) => self.turnstile.give_back(turn),
            }
            if self.wait_for_other(shared, &inquiry).await {
                return Ok(());
            }
        }
    }

    async fn inquire_locked(
        &self,
        inquiry: &LookupRequest,
        turn: CallPermit,
        lock: DistributedLock,
    ) -> FlightResult {
        // Between the look and the lock the other one may have come to its end.
        let landed = match &self.shared {
            Some(shared) if self.learned(shared, inquiry).await => {
                self.turnstile.give_back(turn);
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
            if self.learned(shared, inquiry).await {
                return true;
            }
            if !matches!(shared.is_locked(&inquiry.id).await, Ok(true)) {
                return false;
            }
        }
    }

    /// Takes over what another gateway learned since the question came up.
    async fn learned(&self, shared: &RedisCache, inquiry: &LookupRequest) -> bool {
        if let Ok(Some(record)) = shared.record(&inquiry.id).await {
            let is_news = match &inquiry.before {
                Some(before) => record.answered > before.answered && !record.is_due(UnixMs::now()),
                None => record.facts.is_some(),
            };
            if is_news {
                self.adopt(inquiry.id, &record);
                return true;
            }
        }
        if inquiry.before.is_some() {
            return false;
        }
        let why = shared.refusal(&inquiry.spelling).await.ok().flatten();
        let code = why.and_then(|why| refusal_code(&why));
        if let Some(code) = code {
            let refusal = NegativeEntry { code, facts: None, at: UnixMs::now(), times: 1 };
            self.refused.insert(inquiry.spelling, Arc::new(refusal));
        }
        code.is_some()
    }

    /// Asks every shop that could know, one after the other.
    async fn inquire(&self, inquiry: &LookupRequest, turn: CallPermit) -> FlightResult {
        let mut turn = Some(turn);
        let mut unknown = None;
        let mut refusal = (LicenseVerdict::Invalid(Code::LicenseInvalid), None);
        let is_known = inquiry.before.as_ref().is_some_and(|before| before.facts.is_some());
        for question in self.questions(inquiry) {
            if self.health(question.shop()).is_paused(std::time::Instant::now()) {
                unknown = Some("the shop does not answer");
                continue;
            }
            // Each call has a turn of its own.
            if turn.is_none() {
                turn = self.turnstile.pass(inquiry.class, inquiry.address).await;
            }
            let Some(used) = turn.take() else {
                unknown = Some("no call to a shop was left in time");
                break;
            };
            drop(used);
            let asked = self.moment(&inquiry.id);
            let reply = self.call(&inquiry.sources, &question, inquiry.key.expose()).await;
            let verdict = match &reply {
                ShopReply::Unknown(_) => {
                    unknown = Some("the shop does not answer");
                    continue;
                }
                ShopReply::NotFound if inquiry.is_another_spelling() => {
                    unknown = Some("the shop knows the key under another spelling only");
                    continue;
                }
                ShopReply::NotFound => LicenseVerdict::Invalid(Code::LicenseInvalid),
                ShopReply::ShopLicense(facts) => inquiry.sources.judge(facts, asked),
            };
            if is_known || !verdict.is_foreign() {
                self.note(&inquiry.sources, inquiry.id, &reply, asked).await;
                self.refused.invalidate(&inquiry.spelling);
                self.note_spelling(inquiry, &reply);
                if let Some(turn) = turn {
                    self.turnstile.give_back(turn);
                }
                return Ok(());
            }
            if let ShopReply::ShopLicense(facts) = reply {
                refusal = (refusal.0.or(verdict), Some(facts));
            }
        }
        if let Some(turn) = turn {
            self.turnstile.give_back(turn);
        }
        if is_known {
            return Err(unknown.unwrap_or("no source asks about its product any more"));
        }
        match (unknown, refusal.0) {
            (Some(why), _) => return Err(why),
            (None, LicenseVerdict::Invalid(code)) => self.refuse(inquiry, code, refusal.1).await,
            (None, LicenseVerdict::Valid { .. }) => {}
        }
        Ok(())
    }

    /// A known licence is one question to its own shop.
    fn questions(&self, inquiry: &LookupRequest) -> Vec<ShopQuery> {
        let facts = inquiry.before.as_ref().and_then(|before| before.facts.as_ref());
        match facts {
            Some(facts) => inquiry.sources.question_about(facts).into_iter().collect(),
            None => inquiry.sources.questions(inquiry.key.expose()),
        }
    }

    /// One call.
    pub(super) async fn call(
        &self,
        sources: &ConfiguredShops,
        question: &ShopQuery,
        key: &str,
    ) -> ShopReply {
        let (reply, subject) = match question {
            ShopQuery::LemonSqueezy { base } => {
                (lemonsqueezy::validate(&self.client, base, key, &self.hasher).await, "")
            }
            ShopQuery::Gumroad { base, product } => {
                let asked = (&**product, key);
                (gumroad::verify(&self.client, base, asked, &self.hasher).await, &**product)
            }
        };
        let verdict = sources.verdict_name(&reply, UnixMs::now());
        self.heard(question.shop(), subject, &reply, verdict);
        reply
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
            ShopReply::ShopLicense(facts) => self.is_refunded(facts).await,
            _ => false,
        };
        let hear = |record: Option<&CachedLicense>| {
            let mut next =
                record.unwrap_or(&CachedLicense::default()).hear(reply, asked, judge, holding);
            next.refunded |= refunded;
            Some(next)
        };
        let Some(kept) = self.records.update(id, hear) else { return };
        if kept.record.turned.is_some() {
            self.assess(asked);
        }
        self.keep(id).await;
    }

    /// Remembers under which spelling the shop knows a licence. The disk has it from the licence's next
    /// change on.
    fn note_spelling(&self, inquiry: &LookupRequest, reply: &ShopReply) {
        if !matches!(reply, ShopReply::ShopLicense(_)) {
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
        if let Some(shared) = self.shared.as_ref().filter(|shared| shared.is_up()) {
            let keep = no_for(&inquiry.sources.cache, times);
            let _ = shared.refuse(&inquiry.spelling, code.wire().1, keep).await;
        }
    }
}
