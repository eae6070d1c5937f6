//! Where licences of shops are looked up. Lives as long as the process; what depends on the
//! configuration of the moment comes in as [`Sources`].
//!
//! ```text
//! request ─► records ─► (shared store) ─► decide ─► served
//!                                          │ nothing usable
//!                                          ▼
//!                     flight: turnstile ─► lock ─► shop ─► record ─► shelf, shared store
//! ```

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use gatekeeper_filters::kernel::{Asking, Code, Credential, License, LicenseId, Standing, UnixMs};
use moka::sync::Cache;
use tokio::runtime::Handle;

use super::{
    budget::Class,
    client::Client,
    devices::Strikes,
    facts::{Facts, Reply, Shop, Verdict},
    flights::{Flights, Landed},
    hasher::Hasher,
    health::{Health, Report},
    lookup::Inquiry,
    record::{Ask, Record, no_for, passed},
    records::{Kept, Records},
    shared::{Put, Shared},
    shelf::Shelf,
    sources::Sources,
    turnstile::Turnstile,
    upheaval,
    visitors::{Address, Admission, Visitors},
};
use crate::{config::settings, telemetry::Telemetry};

/// How long a request waits for a shop.
const WAIT: Duration = Duration::from_secs(10);
/// Refused keys remembered at one time; a few megabytes.
const REFUSALS: u64 = 20_000;
/// Longer than any refusal is kept.
const REFUSAL_TIME: Duration = Duration::from_secs(600);
/// How long records stay on the shared store after their last change.
const KEEP: Duration = Duration::from_secs(100 * 86_400);

pub struct Desk {
    pub hasher: Hasher,
    pub(super) records: Records,
    pub(super) refused: Cache<LicenseId, Arc<Refusal>>,
    pub(super) strikes: Cache<LicenseId, Arc<parking_lot::Mutex<Strikes>>>,
    pub(super) seen_webhooks: Cache<[u8; 32], ()>,
    pub(super) visitors: Visitors,
    pub(super) flights: Arc<Flights>,
    pub(super) turnstile: Turnstile,
    pub(super) client: Client,
    pub(super) shared: Option<Arc<Shared>>,
    pub(super) telemetry: Arc<Telemetry>,
    shelf: Shelf,
    shops: [Health; Shop::ALL.len()],
    /// Too many licences turned bad at once.
    holding: AtomicBool,
    runtime: Handle,
}

/// A key that no shop knows as ours.
pub(super) struct Refusal {
    pub code: Code,
    /// What the shop said, if it knows the key: a changed configuration may make it ours.
    pub facts: Option<Facts>,
    pub at: UnixMs,
    /// How often in a row.
    pub times: u32,
}

impl Desk {
    /// Opens the desk on a store that is open already.
    ///
    /// # Errors
    /// The database, Redis' address, TLS or a thread can't be had.
    pub fn open(
        store: &settings::Store,
        hasher: Hasher,
        telemetry: Arc<Telemetry>,
    ) -> anyhow::Result<Arc<Self>> {
        let (shelf, found) = Shelf::open(&store.path)?;
        let shared = store.redis.as_ref().map(Shared::new).transpose()?;
        let (turnstile, turning) = Turnstile::new(shared.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let desk = Arc::new(Self {
            hasher,
            records: Records::default(),
            refused: Cache::builder().max_capacity(REFUSALS).time_to_live(REFUSAL_TIME).build(),
            strikes: super::devices::strikes(),
            seen_webhooks: super::webhook::seen(),
            visitors: Visitors::default(),
            flights: Arc::default(),
            turnstile,
            client: Client::new()?,
            shared,
            telemetry,
            shelf,
            shops: Default::default(),
            holding: AtomicBool::new(false),
            runtime: runtime.handle().clone(),
        });
        for (id, record) in found {
            desk.records.adopt(id, &record);
        }
        let tending = desk.clone().tend();
        std::thread::Builder::new().name("licenses".into()).spawn(move || {
            runtime.spawn(turning);
            runtime.block_on(tending);
        })?;
        Ok(desk)
    }

    /// Everything known is on disk when this returns.
    pub fn close(&self) {
        self.shelf.close();
    }

    /// Who a key of a shop stands for.
    pub async fn check(
        self: &Arc<Self>,
        sources: &Arc<Sources>,
        id: LicenseId,
        asking: &Asking<'_>,
    ) -> Standing {
        match self.known(&id).await {
            Some(kept) if kept.record.facts.is_some() => {
                self.check_known(sources, id, &kept, asking).await
            }
            _ => self.check_stranger(sources, id, asking).await,
        }
    }

    /// The record of a licence, compared with the shared store where messages may have been lost.
    pub(super) async fn known(&self, id: &LicenseId) -> Option<Arc<Kept>> {
        let kept = self.records.get(id);
        let Some(shared) = self.shared.as_ref().filter(|shared| shared.is_up()) else {
            return kept;
        };
        let generation = shared.generation();
        if kept.as_ref().is_some_and(|kept| kept.compared() == generation) {
            return kept;
        }
        match shared.record(id).await {
            Ok(Some(record)) => {
                let kept = self.records.adopt(*id, &record);
                kept.set_compared(generation);
                Some(kept)
            }
            Ok(None) => kept.inspect(|kept| kept.set_compared(generation)),
            Err(_) => kept,
        }
    }

    async fn check_known(
        self: &Arc<Self>,
        sources: &Arc<Sources>,
        id: LicenseId,
        kept: &Arc<Kept>,
        asking: &Asking<'_>,
    ) -> Standing {
        let now = asking.now;
        kept.see(now);
        let verdict = self.verdict(sources, &kept.record, now);
        let decision = kept.record.decide(verdict, &sources.cache, &id, now);
        let cache = &self.telemetry.metrics.license_cache;
        match (decision.ask, decision.answer) {
            (Ask::No, answer) => {
                let valid = answer.as_ref().is_some_and(Verdict::is_valid);
                if valid {
                    cache.fresh.inc()
                } else {
                    cache.negative.inc()
                }
                standing(id, answer)
            }
            (Ask::Behind, answer) => {
                cache.stale.inc();
                if kept.try_again(now, pause(sources)) {
                    let inquiry = self.inquiry(sources, id, asking.credential, Class::Behind);
                    self.start(inquiry, Some(kept));
                }
                standing(id, answer)
            }
            (Ask::First, answer) => {
                cache.miss.inc();
                // Somebody just tried in vain, and there is an answer that holds meanwhile.
                let in_vain = !kept.try_again(now, pause(sources)) && !self.flights.is_open(&id);
                if in_vain && answer.is_some() {
                    return standing(id, answer);
                }
                let inquiry = self.inquiry(sources, id, asking.credential, Class::Known);
                match self.ask(inquiry, Some(kept)).await {
                    Ok(()) => self.now_known(sources, id, now),
                    Err(_) if answer.is_some() => standing(id, answer),
                    Err(why) => Standing::Unknown { why },
                }
            }
        }
    }

    async fn check_stranger(
        self: &Arc<Self>,
        sources: &Arc<Sources>,
        id: LicenseId,
        asking: &Asking<'_>,
    ) -> Standing {
        let now = asking.now;
        let cache = &self.telemetry.metrics.license_cache;
        let address = asking.address.map(Address::from);
        if sources.questions(asking.credential.expose()).is_empty() {
            self.turned_away(address, now);
            return Standing::Invalid(Code::LicenseInvalid);
        }
        if let Some(code) = self.refusal(sources, &id, now).await {
            cache.negative.inc();
            self.turned_away(address, now);
            return Standing::Invalid(code);
        }
        cache.miss.inc();
        let class = match address.map(|address| self.visitors.admit(address, &id, now)) {
            Some(Admission::TooMany { retry_after }) => return Standing::TooMany { retry_after },
            Some(Admission::Clean) => Class::Clean,
            Some(Admission::Suspect) | None => Class::Rest,
        };
        let inquiry = Inquiry { address, ..self.inquiry(sources, id, asking.credential, class) };
        let before = self.records.get(&id);
        if let Err(why) = self.ask(inquiry, before.as_ref()).await {
            return Standing::Unknown { why };
        }
        let standing = self.now_known(sources, id, now);
        match (&standing, address) {
            (Standing::Valid(_), Some(address)) => self.visitors.welcomed(address, &id),
            (Standing::Invalid(_), address) => self.turned_away(address, now),
            _ => {}
        }
        standing
    }

    fn turned_away(&self, address: Option<Address>, now: UnixMs) {
        if let Some(address) = address {
            self.visitors.refused(address, now);
        }
    }

    /// The refusal of a key that still holds, here or at another gateway.
    async fn refusal(&self, sources: &Sources, id: &LicenseId, now: UnixMs) -> Option<Code> {
        if let Some(refusal) = self.refused.get(id) {
            let ours = |facts: &Facts| !sources.judge(facts, now).is_foreign();
            let holds = passed(refusal.at, now) < no_for(&sources.cache, refusal.times);
            return (holds && !refusal.facts.as_ref().is_some_and(ours)).then_some(refusal.code);
        }
        let shared = self.shared.as_ref().filter(|shared| shared.is_up())?;
        let why = shared.refusal(id).await.ok()??;
        refusal_code(&why)
    }

    /// What is known after a flight landed.
    fn now_known(&self, sources: &Sources, id: LicenseId, now: UnixMs) -> Standing {
        match self.records.get(&id) {
            Some(kept) if kept.record.facts.is_some() => {
                kept.see(now);
                // Asked a moment ago, so its moment may lie behind that of the answer.
                let now = now.max(kept.record.answered);
                standing(id, Some(self.verdict(sources, &kept.record, now)))
            }
            _ => match self.refused.get(&id) {
                Some(refusal) => Standing::Invalid(refusal.code),
                None => Standing::Invalid(Code::LicenseInvalid),
            },
        }
    }

    /// What a record means now.
    pub(super) fn verdict(&self, sources: &Sources, record: &Record, now: UnixMs) -> Verdict {
        let Some(facts) = &record.facts else {
            return Verdict::Invalid(Code::LicenseInvalid);
        };
        // A refund acts even where a refusal of many is not believed.
        if record.refunded {
            return Verdict::Invalid(Code::LicenseRefunded);
        }
        let verdict = sources.judge(facts, now);
        if !verdict.is_foreign() {
            return verdict;
        }
        let good = record.good.as_ref().filter(|_| sources.is_held() && record.is_held(now));
        match good.and_then(|name| sources.plan(name)) {
            Some(plan) => Verdict::Valid { plan: plan.clone(), until: None },
            None => verdict,
        }
    }

    pub(super) fn inquiry(
        &self,
        sources: &Arc<Sources>,
        id: LicenseId,
        credential: &Credential,
        class: Class,
    ) -> Inquiry {
        let (sources, key) = (sources.clone(), credential.clone());
        Inquiry { sources, id, key, class, address: None, before: None }
    }

    /// Asks and waits. `before` is what the caller knows: if something else is known by now, that
    /// is the answer.
    pub(super) async fn ask(
        self: &Arc<Self>,
        inquiry: Inquiry,
        before: Option<&Arc<Kept>>,
    ) -> Landed {
        let Some(flight) = self.start(inquiry, before) else { return Ok(()) };
        match tokio::time::timeout(WAIT, flight.landed()).await {
            Ok(landed) => landed,
            Err(_) => Err("the shop did not answer in time"),
        }
    }

    fn start(
        self: &Arc<Self>,
        mut inquiry: Inquiry,
        before: Option<&Arc<Kept>>,
    ) -> Option<super::flights::Flight> {
        let id = inquiry.id;
        let has_landed = || match (self.records.get(&id), before) {
            (Some(kept), Some(before)) => kept.record.answered > before.record.answered,
            (Some(kept), None) => kept.record.facts.is_some(),
            (None, _) => self.refused.get(&id).is_some_and(|refusal| {
                passed(refusal.at, UnixMs::now()) < no_for(&inquiry.sources.cache, refusal.times)
            }),
        };
        let (flight, pilot) = self.flights.join(id, has_landed)?;
        if let Some(pilot) = pilot {
            inquiry.before = before.map(|kept| kept.record.clone());
            let desk = self.clone();
            self.runtime.spawn(async move { pilot.land(desk.look_up(inquiry).await) });
        }
        Some(flight)
    }

    /// Writes a record down, here and for the other gateways.
    pub(super) async fn keep(&self, id: LicenseId, kept: &Kept) {
        let mut record = kept.record.clone();
        self.shelf.put(id, record.clone());
        let Some(shared) = self.shared.as_ref().filter(|shared| shared.is_up()) else { return };
        // Somebody else may change it, too; whoever comes second merges.
        for _ in 0..4 {
            match shared.put(&id, &record, KEEP).await {
                Ok(Put::Newer(theirs)) => {
                    let merge = |mine: Option<&Record>| {
                        let mut merged = mine.unwrap_or(&record).merge(&theirs);
                        merged.version = merged.version.max(theirs.version).max(record.version) + 1;
                        Some(merged)
                    };
                    let Some(kept) = self.records.update(id, merge) else { return };
                    record = kept.record.clone();
                    self.shelf.put(id, record.clone());
                }
                Ok(Put::Kept) | Err(_) => return,
            }
        }
    }

    /// As [`Desk::keep`]; whether it is on the disk.
    pub(super) async fn keep_now(&self, id: LicenseId, kept: &Kept) -> bool {
        let on_disk = self.shelf.put_now(id, kept.record.clone()).await;
        self.keep(id, kept).await;
        on_disk
    }

    pub(super) fn health(&self, shop: Shop) -> &Health {
        &self.shops[shop as usize]
    }

    /// Takes in what an answer tells of the shop itself.
    pub(super) fn heard(&self, shop: Shop, subject: &str, reply: &Reply, verdict: &'static str) {
        self.telemetry.metrics.license_checked(shop.name(), verdict);
        if !self.health(shop).hear(reply, subject, Instant::now()) {
            return;
        }
        match reply {
            Reply::Unknown(super::facts::Trouble::Misconfigured(why)) => {
                log::error!("licences: {} is misconfigured: {why}.", shop.name());
            }
            Reply::Unknown(trouble) => {
                log::warn!("licences: {} does not answer: {trouble}.", shop.name());
            }
            _ => log::info!("licences: {} answers again.", shop.name()),
        }
    }

    /// Whether so many licences turned bad at once that the shop is not believed.
    pub(super) fn is_holding(&self) -> bool {
        self.holding.load(Relaxed)
    }

    /// Looks again at how many turned bad; call after each that did.
    pub(super) fn assess(&self, now: UnixMs) {
        let was = self.is_holding();
        let any_turned = || self.records.all().any(|(_, kept)| kept.record.turned.is_some());
        let holds = upheaval::assess(&self.records, now) || (was && any_turned());
        self.holding.store(holds, Relaxed);
        if holds && !was {
            log::error!(
                "licences: many good ones turned \"not found\" or \"wrong product\" at once. The \
                 last good facts hold for up to 72 hours; look at the shop and at licenses.sources."
            );
        } else if was && !holds {
            log::info!("licences: the sudden refusal of many is over.");
        }
    }

    /// Looks at what a new configuration would do to licences in use; if it would refuse many at
    /// once, it holds what was good.
    pub fn weigh(&self, sources: &Sources) {
        let now = UnixMs::now();
        // Right after a start nobody was seen; then those count that were good within a day.
        let in_use = |kept: &Kept| match kept.seen().0 {
            0 => passed(kept.record.answered, now) < Duration::from_secs(86_400),
            _ => upheaval::was_seen(kept, now),
        };
        let (mut seen, mut foreign) = (0, Vec::new());
        for (id, kept) in self.records.all().filter(|(_, kept)| in_use(kept)) {
            let Some(facts) = &kept.record.facts else { continue };
            seen += 1;
            if kept.record.good.is_some() && sources.judge(facts, now).is_foreign() {
                foreign.push(id);
            }
        }
        if !upheaval::is_sudden(foreign.len(), seen) {
            return;
        }
        log::error!(
            "licences: the configuration refuses {} of {seen} licences in use, which were good. \
             They are served for up to 72 hours; look at licenses.sources.",
            foreign.len()
        );
        sources.hold();
        for id in foreign {
            let turned = self.records.update(id, |record| record?.turn(now));
            if let Some(kept) = turned {
                self.shelf.put(id, kept.record.clone());
            }
        }
    }

    /// Each shop of the configuration, as `/status` and the metrics tell it.
    pub fn report(&self, sources: &Sources) -> Vec<(Shop, Report)> {
        let of = |shop: &Shop| {
            let mut report = self.health(*shop).report();
            if self.is_holding() || sources.is_held() {
                let why = "many good licences were refused at once; their last good facts hold";
                report = Report { state: "holding", why: Some(why.into()) };
            }
            (*shop, report)
        };
        sources.shops().iter().map(of).collect()
    }

    /// What runs beside requests: the shared store, and a look around each minute.
    async fn tend(self: Arc<Self>) {
        if let Some(shared) = &self.shared {
            let (back, desk) = (self.clone(), self.clone());
            let returned = move || {
                let desk = back.clone();
                tokio::spawn(async move { desk.write_back().await });
            };
            let changed = move |id: LicenseId| {
                if let Some(kept) = desk.records.get(&id) {
                    kept.set_compared(0);
                }
            };
            tokio::spawn(shared.clone().tend(returned, changed));
        }
        loop {
            tokio::time::sleep(Duration::from_secs(60)).await;
            self.assess(UnixMs::now());
        }
    }

    /// Brings everything known here to the shared store, which lost it or was away.
    async fn write_back(self: Arc<Self>) {
        let Some(shared) = &self.shared else { return };
        for (id, kept) in self.records.all() {
            if !shared.is_up() {
                return;
            }
            match shared.put(&id, &kept.record, KEEP).await {
                Ok(Put::Newer(theirs)) => drop(self.records.adopt(id, &theirs)),
                Ok(Put::Kept) | Err(_) => {}
            }
        }
    }

    /// Asks each Gumroad product about a key that can't exist: a product id that is none shows at
    /// the start, not with the first buyer.
    pub fn probe(self: &Arc<Self>, sources: Arc<Sources>) {
        let desk = self.clone();
        self.runtime.spawn(async move {
            for question in sources.questions_to(Shop::Gumroad) {
                if let Some(_turn) = desk.turnstile.pass(Class::Behind, None).await {
                    desk.put(&sources, &question, super::lookup::NOBODY).await;
                }
            }
        });
    }
}

/// Between two attempts to ask about a licence whose old facts still serve, in milliseconds.
fn pause(sources: &Sources) -> u64 {
    let pause = sources.cache.fresh / 24;
    pause.clamp(Duration::from_secs(1), Duration::from_secs(30)).as_millis() as u64
}

fn standing(id: LicenseId, verdict: Option<Verdict>) -> Standing {
    match verdict {
        Some(Verdict::Valid { plan, until }) => Standing::Valid(License { id, plan, until }),
        Some(Verdict::Invalid(code)) => Standing::Invalid(code),
        None => Standing::Unknown { why: "no shop could be asked" },
    }
}

/// Codes as they stand on the shared store.
pub(super) fn refusal_code(word: &str) -> Option<Code> {
    [Code::LicenseInvalid, Code::LicenseWrongProduct].into_iter().find(|code| code.wire().1 == word)
}
