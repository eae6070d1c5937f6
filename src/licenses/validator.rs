//! The licence validation service: from cache to single flight to shop. Lives as long as the process; what
//! depends on the configuration of the moment comes in as [`ConfiguredShops`]. Parts of it stand in files of
//! their own: `cache_sync` (the tiers of the cache), `shop_lookup` (one look-up), `devices`, `webhook`,
//! `mass_refusal`, `revocation`.
//!
//! ```text
//! request ─► memory ─► (Redis) ─► decide ─► served
//!                                   │ nothing usable
//!                                   ▼
//!                     single flight: call queue ─► lock ─► shop ─► entry ─► disk, Redis
//! ```

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use gatekeeper_filters::kernel::{Code, License, LicenseId, LicenseQuery, LicenseStatus, UnixMs};
use moka::sync::Cache;
use parking_lot::Mutex;
use rustc_hash::FxHashSet;
use tokio::{runtime::Handle, sync::Notify};

use super::{
    address_throttle::{AddressThrottle, ClientPrefix, ThrottleDecision},
    cache_entry::{CacheQuery, CachedLicense, no_for, passed},
    call_budget::CallPriority,
    call_queue::{CallPermit, CallQueue},
    devices::DeviceThrottle,
    disk_cache::{DiskCache, ForwardChange},
    issued::IssuedState,
    mass_refusal,
    memory_cache::{CacheSlot, MemoryCache},
    redis_cache::RedisCache,
    shop_client::ShopClient,
    shop_health::ShopHealth,
    shop_lookup::LookupRequest,
    shop_pace::ShopPace,
    single_flight::{FlightResult, Follower, SingleFlight},
    sources::{ConfiguredShops, ShopQuery},
};
use crate::{
    config::settings,
    redis_store::RedisStore,
    shops::{self, LicenseVerdict, Shop, ShopError, ShopLicense, ShopReply},
    telemetry::Telemetry,
    vault::KeyedHash,
};

/// How long a request waits for a shop.
const WAIT: Duration = Duration::from_secs(10);
/// Refused keys remembered at one time; a few megabytes.
const REFUSALS: u64 = 20_000;
/// Longer than any refusal is kept.
const REFUSAL_TIME: Duration = Duration::from_secs(600);

pub struct LicenseValidator {
    pub hasher: KeyedHash,
    pub(super) records: Arc<MemoryCache>,
    /// By [`KeyedHash::spelling`].
    pub(super) refused: Cache<LicenseId, Arc<NegativeEntry>>,
    pub(super) strikes: Cache<LicenseId, Arc<Mutex<DeviceThrottle>>>,
    pub(super) seen_webhooks: Cache<[u8; 32], ()>,
    pub(super) visitors: AddressThrottle,
    pub(super) flights: Arc<SingleFlight>,
    /// Licences that wait for a call in the background.
    behind: Mutex<FxHashSet<LicenseId>>,
    /// By the place of a shop in [`shops::ALL`].
    queues: Vec<CallQueue>,
    pub(super) client: ShopClient,
    pub(super) shared: Option<Arc<RedisCache>>,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) shelf: DiskCache,
    /// By the place of a shop in [`shops::ALL`].
    shops: Vec<(ShopHealth, ShopPace)>,
    /// Those of the configuration that is live.
    pub(super) configured: ArcSwapOption<ConfiguredShops>,
    /// Too many licences turned bad at once.
    pub(super) holding: AtomicBool,
    /// Something known here is not on the shared store.
    pub(super) unshared: Notify,
    /// Operators may have said something at other gateways.
    pub(super) unheard: Notify,
    pub(super) runtime: Handle,
    pub(super) issued: IssuedState,
}

/// A key that no shop knows as ours.
pub(super) struct NegativeEntry {
    pub code: Code,
    /// What the shop said, if it knows the key: a changed configuration may make it ours.
    pub facts: Option<ShopLicense>,
    pub at: UnixMs,
    /// How often in a row.
    pub times: u32,
}

impl LicenseValidator {
    /// Opens the validator on a database that is open already, and on the store of all gateways, if there
    /// is one.
    ///
    /// # Errors
    /// The database can't be opened, TLS can't be set up or a thread can't be started.
    pub fn open(
        store: &settings::StoreSettings,
        redis: Option<Arc<RedisStore>>,
        hasher: KeyedHash,
        telemetry: Arc<Telemetry>,
    ) -> anyhow::Result<Arc<Self>> {
        let records = Arc::new(MemoryCache::default());
        let shelf = DiskCache::open(&store.path, records.clone())?;
        let shared = redis.map(|store| Arc::new(RedisCache::new(store)));
        let queue = |shop: &&dyn Shop| CallQueue::new(shop.name(), shared.clone());
        let (queues, turning): (Vec<_>, Vec<_>) = shops::ALL.iter().map(queue).unzip();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let validator = Arc::new(Self {
            hasher,
            holding: AtomicBool::new(mass_refusal::was_going_on(&records, UnixMs::now())),
            records,
            refused: Cache::builder().max_capacity(REFUSALS).time_to_live(REFUSAL_TIME).build(),
            strikes: super::devices::strikes(),
            seen_webhooks: super::webhook::seen(),
            visitors: AddressThrottle::default(),
            flights: Arc::default(),
            behind: Mutex::default(),
            queues,
            client: ShopClient::new()?,
            shared,
            telemetry,
            shelf,
            shops: shops::ALL.iter().map(|_| Default::default()).collect(),
            configured: ArcSwapOption::empty(),
            unshared: Notify::new(),
            unheard: Notify::new(),
            runtime: runtime.handle().clone(),
            issued: IssuedState::default(),
        });
        let tending = validator.clone().tend();
        std::thread::Builder::new().name("licenses".into()).spawn(move || {
            for turning in turning {
                runtime.spawn(turning);
            }
            runtime.block_on(tending);
        })?;
        Ok(validator)
    }

    /// The disk is another process' from now on, which is told of what changes here. Blocks.
    pub fn give(&self, tell: ForwardChange) {
        self.shelf.give(tell);
    }

    /// Takes in what another process was told of a licence; the newer of both stays.
    pub fn take_in(&self, id: LicenseId, record: serde_json::Value) {
        match serde_json::from_value::<CachedLicense>(record) {
            Ok(record) => drop(self.adopt(id, &record)),
            Err(problem) => log::warn!("licences: a record can't be read: {problem}"),
        }
    }

    /// The disk is this process' again.
    pub fn take_back(&self) {
        self.shelf.take_back();
    }

    /// Everything known is on disk when this returns.
    pub fn close(&self) {
        self.shelf.close();
    }

    /// Who a key of a shop stands for.
    pub async fn check(
        self: &Arc<Self>,
        sources: &Arc<ConfiguredShops>,
        id: LicenseId,
        asking: &LicenseQuery<'_>,
    ) -> LicenseStatus {
        // A key that no source has is nobody's, whatever the shared store might say.
        if self.records.get(&id).is_none()
            && sources.questions(asking.credential.expose()).is_empty()
        {
            return self.refuse_unknown(&id, asking);
        }
        match self.known(&id).await {
            Some(kept) if kept.record.facts.is_some() => {
                self.check_known(sources, id, &kept, asking).await
            }
            _ => self.check_stranger(sources, id, asking).await,
        }
    }

    async fn check_known(
        self: &Arc<Self>,
        sources: &Arc<ConfiguredShops>,
        id: LicenseId,
        kept: &Arc<CacheSlot>,
        asking: &LicenseQuery<'_>,
    ) -> LicenseStatus {
        let now = asking.now;
        kept.see(now);
        let verdict = self.verdict(sources, &kept.record, now);
        let decision = kept.record.decide(verdict, &sources.cache, &id, now);
        let cache = &self.telemetry.metrics.license_cache;
        match (decision.ask, decision.answer) {
            (CacheQuery::No, answer) => {
                let valid = answer.as_ref().is_some_and(LicenseVerdict::is_valid);
                if valid {
                    cache.fresh.inc()
                } else {
                    cache.negative.inc()
                }
                standing(id, answer)
            }
            (CacheQuery::Behind, answer) => {
                cache.stale.inc();
                if kept.try_again(now, pause(sources)) {
                    let inquiry = self.inquiry(sources, id, asking, CallPriority::Behind);
                    self.ask_behind(inquiry, kept.clone());
                }
                standing(id, answer)
            }
            (CacheQuery::First, answer) => {
                cache.miss.inc();
                // Somebody just tried in vain, and there is an answer that holds meanwhile.
                let in_vain = !kept.try_again(now, pause(sources)) && !self.flights.is_open(&id);
                if in_vain && answer.is_some() {
                    return standing(id, answer);
                }
                match self.ask_first(sources, id, kept, asking).await {
                    Ok(()) => self.now_known(sources, id, None, now),
                    Err(_) if answer.is_some() => standing(id, answer),
                    Err(why) => LicenseStatus::Unknown { why },
                }
            }
        }
    }

    /// Asks about a known licence and waits; once more, when a webhook came while the question that
    /// was joined was under way.
    async fn ask_first(
        self: &Arc<Self>,
        sources: &Arc<ConfiguredShops>,
        id: LicenseId,
        kept: &Arc<CacheSlot>,
        asking: &LicenseQuery<'_>,
    ) -> FlightResult {
        let inquiry = || self.inquiry(sources, id, asking, CallPriority::Known);
        self.ask(inquiry(), Some(kept)).await?;
        match self.records.get(&id) {
            Some(kept) if kept.record.is_due(UnixMs::now()) => {
                self.ask(inquiry(), Some(&kept)).await
            }
            _ => Ok(()),
        }
    }

    /// Asks while the request is served. The flight begins with the call, not with the wait for it:
    /// a request that can't be served must not wait for a turn that has no hurry.
    fn ask_behind(self: &Arc<Self>, inquiry: LookupRequest, kept: Arc<CacheSlot>) {
        let id = inquiry.id;
        if !self.behind.lock().insert(id) {
            return;
        }
        let validator = self.clone();
        self.runtime.spawn(async move {
            let inquiry = LookupRequest { before: Some(kept.record.clone()), ..inquiry };
            if let Some(first) = validator.first_question(&inquiry)
                && let Some(turn) = validator.turn(&first, CallPriority::Behind, None).await
            {
                validator.start(inquiry, Some(&kept), Some(turn));
            }
            validator.behind.lock().remove(&id);
        });
    }

    async fn check_stranger(
        self: &Arc<Self>,
        sources: &Arc<ConfiguredShops>,
        id: LicenseId,
        asking: &LicenseQuery<'_>,
    ) -> LicenseStatus {
        let now = asking.now;
        let cache = &self.telemetry.metrics.license_cache;
        let address = asking.address.map(ClientPrefix::from);
        let spelling = self.spelling(sources, asking);
        if let Some(code) = self.refusal(sources, &spelling, now).await {
            cache.negative.inc();
            if code != Code::DeviceLimit {
                self.turned_away(address, now);
            }
            return LicenseStatus::Invalid(code);
        }
        cache.miss.inc();
        let class = match address.map(|address| self.visitors.admit(address, &id, now)) {
            Some(ThrottleDecision::TooMany { retry_after }) => {
                return LicenseStatus::TooMany { retry_after };
            }
            Some(ThrottleDecision::Clean) => CallPriority::Clean,
            Some(ThrottleDecision::Suspect) | None => CallPriority::Rest,
        };
        let inquiry = LookupRequest { address, ..self.inquiry(sources, id, asking, class) };
        let before = self.records.get(&id);
        if before.as_ref().is_some_and(|kept| kept.record.facts.is_some()) {
            // Another request's question was answered since this one found nothing known.
            return self.now_known(sources, id, Some(&spelling), now);
        }
        if let Err(why) = self.ask(inquiry, before.as_ref()).await {
            return LicenseStatus::Unknown { why };
        }
        let standing = self.now_known(sources, id, Some(&spelling), now);
        match (&standing, address) {
            (LicenseStatus::Valid(_), Some(address)) => self.visitors.welcomed(address, &id),
            // The app was not told yet to activate its device: that is no guess.
            (LicenseStatus::Invalid(Code::DeviceLimit), _) => {}
            (LicenseStatus::Invalid(_), address) => self.turned_away(address, now),
            _ => {}
        }
        standing
    }

    /// A key that no source has. Addresses that try many are slowed, whatever the keys look like.
    pub(super) fn refuse_unknown(
        &self,
        id: &LicenseId,
        asking: &LicenseQuery<'_>,
    ) -> LicenseStatus {
        let Some(address) = asking.address.map(ClientPrefix::from) else {
            return LicenseStatus::Invalid(Code::LicenseInvalid);
        };
        if let ThrottleDecision::TooMany { retry_after } =
            self.visitors.admit(address, id, asking.now)
        {
            return LicenseStatus::TooMany { retry_after };
        }
        self.visitors.refused(address, asking.now);
        LicenseStatus::Invalid(Code::LicenseInvalid)
    }

    fn turned_away(&self, address: Option<ClientPrefix>, now: UnixMs) {
        if let Some(address) = address {
            self.visitors.refused(address, now);
        }
    }

    /// The refusal of a spelling that still holds, here or at another gateway.
    async fn refusal(
        &self,
        sources: &ConfiguredShops,
        spelling: &LicenseId,
        now: UnixMs,
    ) -> Option<Code> {
        if self.refused.contains_key(spelling) {
            return self.refused_here(sources, spelling, now);
        }
        let shared = self.shared.as_ref().filter(|shared| shared.is_up())?;
        let why = shared.refusal(spelling).await.ok()??;
        refusal_code(&why)
    }

    /// The refusal of a spelling that still holds here, and that no changed configuration made ours.
    fn refused_here(
        &self,
        sources: &ConfiguredShops,
        spelling: &LicenseId,
        now: UnixMs,
    ) -> Option<Code> {
        let refusal = self.refused.get(spelling)?;
        let ours = |facts: &ShopLicense| !sources.judge(facts, now).is_foreign();
        let holds = passed(refusal.at, now) < no_for(&sources.cache, refusal.times);
        (holds && !refusal.facts.as_ref().is_some_and(ours)).then_some(refusal.code)
    }

    /// What is known after a flight landed.
    fn now_known(
        &self,
        sources: &ConfiguredShops,
        id: LicenseId,
        spelling: Option<&LicenseId>,
        now: UnixMs,
    ) -> LicenseStatus {
        match self.records.get(&id) {
            Some(kept) if kept.record.facts.is_some() => {
                kept.see(now);
                // Asked a moment ago, so its moment may lie behind that of the answer.
                let now = now.max(kept.record.answered);
                standing(id, Some(self.verdict(sources, &kept.record, now)))
            }
            _ => match spelling.and_then(|spelling| self.refused.get(spelling)) {
                Some(refusal) => LicenseStatus::Invalid(refusal.code),
                None => LicenseStatus::Invalid(Code::LicenseInvalid),
            },
        }
    }

    /// What a record means now.
    pub(super) fn verdict(
        &self,
        sources: &ConfiguredShops,
        record: &CachedLicense,
        now: UnixMs,
    ) -> LicenseVerdict {
        let Some(facts) = &record.facts else {
            return LicenseVerdict::Invalid(Code::LicenseInvalid);
        };
        // A refund acts even where a refusal of many is not believed.
        if record.refunded {
            return LicenseVerdict::Invalid(Code::LicenseRefunded);
        }
        let verdict = sources.judge(facts, now);
        if !verdict.is_foreign() {
            return verdict;
        }
        let good = record.good.as_ref().filter(|_| sources.is_held() && record.is_held(now));
        // Held against "not ours", not against an end of its own.
        if let (Some(_), Some(code)) = (good, facts.ended(now)) {
            return LicenseVerdict::Invalid(code);
        }
        match good.and_then(|name| sources.plan(name)) {
            Some(plan) => LicenseVerdict::Valid { plan: plan.clone(), until: None },
            None => verdict,
        }
    }

    fn inquiry(
        &self,
        sources: &Arc<ConfiguredShops>,
        id: LicenseId,
        asking: &LicenseQuery<'_>,
        class: CallPriority,
    ) -> LookupRequest {
        LookupRequest {
            sources: sources.clone(),
            id,
            spelling: self.spelling(sources, asking),
            key: asking.credential.clone(),
            instance: asking.instance.map(Arc::from),
            class,
            address: None,
            before: None,
        }
    }

    /// What a refusal belongs to: the key as it was typed, with the device where a shop knows both only together.
    fn spelling(&self, sources: &ConfiguredShops, asking: &LicenseQuery<'_>) -> LicenseId {
        let key = asking.credential.expose();
        match asking.instance {
            Some(instance) if !sources.activated_first(key).is_empty() => {
                self.hasher.spelling(&format!("{}\n{instance}", key.trim()))
            }
            _ => self.hasher.spelling(key),
        }
    }

    /// Asks and waits. `before` is what the caller knows: if something else is known by now, that
    /// is the answer.
    pub(super) async fn ask(
        self: &Arc<Self>,
        inquiry: LookupRequest,
        before: Option<&Arc<CacheSlot>>,
    ) -> FlightResult {
        let Some(flight) = self.start(inquiry, before, None) else { return Ok(()) };
        match tokio::time::timeout(WAIT, flight.landed()).await {
            Ok(landed) => landed,
            Err(_) => Err("the shop did not answer in time"),
        }
    }

    /// Joins the flight of a licence, or starts it, with a turn if there is one already.
    fn start(
        self: &Arc<Self>,
        mut inquiry: LookupRequest,
        before: Option<&Arc<CacheSlot>>,
        turn: Option<CallPermit>,
    ) -> Option<Follower> {
        let (id, spelling) = (inquiry.id, inquiry.spelling);
        let is_known = before.is_some_and(|before| before.record.facts.is_some());
        let has_landed = || match (self.records.get(&id), before) {
            (Some(kept), Some(before)) => kept.record.answered > before.record.answered,
            (Some(kept), None) => kept.record.facts.is_some(),
            (None, _) => self.refused_here(&inquiry.sources, &spelling, UnixMs::now()).is_some(),
        };
        // What a shop says of one spelling of a key it does not know yet, it does not say of another.
        let joined = self.flights.join(if is_known { id } else { spelling }, has_landed);
        let Some((flight, Some(pilot))) = joined else {
            self.give_back(turn);
            return joined.map(|(flight, _)| flight);
        };
        inquiry.before = before.map(|kept| kept.record.clone());
        let validator = self.clone();
        self.runtime.spawn(async move { pilot.land(validator.look_up(inquiry, turn).await) });
        Some(flight)
    }

    /// The moment of a question that is asked now: after every mark that is seen here, even one of
    /// the same millisecond.
    pub(super) fn moment(&self, id: &LicenseId) -> UnixMs {
        let now = UnixMs::now();
        match self.records.get(id) {
            Some(kept) if kept.record.marked == now => UnixMs(now.0 + 1),
            _ => now,
        }
    }

    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(work);
    }

    pub(super) fn health(&self, shop: &'static dyn Shop) -> &ShopHealth {
        &self.of_shop(shop).0
    }

    pub(super) fn pace(&self, shop: &'static dyn Shop) -> &ShopPace {
        &self.of_shop(shop).1
    }

    fn of_shop(&self, shop: &'static dyn Shop) -> &(ShopHealth, ShopPace) {
        &self.shops[place(shop.name())]
    }

    /// Waits for leave to ask a question; `None` when there is none in time.
    pub(super) async fn turn(
        &self,
        question: &ShopQuery,
        class: CallPriority,
        address: Option<ClientPrefix>,
    ) -> Option<CallPermit> {
        let queue = &self.queues[place(question.shop().name())];
        queue.pass(question.calls_per_minute(), class, address).await
    }

    /// The call is not made after all.
    pub(super) fn give_back(&self, turn: Option<CallPermit>) {
        if let Some(turn) = turn {
            self.queues[place(turn.shop)].give_back(turn);
        }
    }

    /// Takes in what an answer tells of the shop itself.
    pub(super) fn heard(
        &self,
        shop: &'static dyn Shop,
        subject: &str,
        reply: &ShopReply,
        verdict: &'static str,
    ) {
        self.telemetry.metrics.license_checked(shop.name(), verdict);
        if !self.health(shop).hear(reply, subject, Instant::now()) {
            return;
        }
        match reply {
            ShopReply::Unknown(ShopError::Misconfigured(why)) => {
                log::error!("licences: {} is misconfigured: {why}.", shop.name());
            }
            ShopReply::Unknown(trouble) => {
                log::warn!("licences: {} does not answer: {trouble}.", shop.name());
            }
            _ => log::info!("licences: {} answers again.", shop.name()),
        }
    }
}

/// Of a shop in [`shops::ALL`], where every shop stands.
fn place(shop: &str) -> usize {
    shops::ALL.iter().position(|known| known.name() == shop).unwrap_or_default()
}

/// Between two attempts to ask about a licence whose old facts still serve, in milliseconds.
fn pause(sources: &ConfiguredShops) -> u64 {
    let pause = sources.cache.fresh / 24;
    pause.clamp(Duration::from_secs(1), Duration::from_secs(30)).as_millis() as u64
}

fn standing(id: LicenseId, verdict: Option<LicenseVerdict>) -> LicenseStatus {
    match verdict {
        Some(LicenseVerdict::Valid { plan, until }) => {
            LicenseStatus::Valid(License { id, key: id, plan, until })
        }
        Some(LicenseVerdict::Invalid(code)) => LicenseStatus::Invalid(code),
        None => LicenseStatus::Unknown { why: "no shop could be asked" },
    }
}

/// Codes as they stand on the shared store.
pub(super) fn refusal_code(word: &str) -> Option<Code> {
    [Code::LicenseInvalid, Code::LicenseWrongProduct].into_iter().find(|code| code.wire().1 == word)
}
