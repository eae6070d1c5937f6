//! The licence validation service: from cache to single flight to shop. Lives as long as the process; what
//! depends on the configuration is passed in as [`ConfiguredShops`]. Here is its state; its operations are in
//! `key_check` (one key), `verdict` (meaning of the cache), `lookup_start` and `shop_lookup` (the call),
//! `cache_sync` (the tiers of the cache), `devices`, `webhook`, `mass_refusal`, `revocation`.
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
use gatekeeper_filters::kernel::{Code, LicenseId, UnixMs};
use moka::sync::Cache;
use parking_lot::Mutex;
use rustc_hash::FxHashSet;
use tokio::{runtime::Handle, sync::Notify};

use super::{
    address_throttle::{AddressThrottle, ClientPrefix},
    cache_entry::CachedLicense,
    call_budget::CallPriority,
    call_queue::{CallPermit, CallQueue},
    device_throttle::{self, DeviceThrottle},
    disk_cache::{DiskCache, ForwardChange},
    issued::IssuedState,
    mass_refusal_rule,
    memory_cache::MemoryCache,
    redis_cache::RedisCache,
    shop_client::ShopClient,
    shop_health::ShopHealth,
    shop_pace::ShopPace,
    single_flight::SingleFlight,
    sources::{ConfiguredShops, ShopQuery},
    webhook_dedup,
};
use crate::{
    config::settings,
    redis_store::RedisStore,
    shops::{self, Shop, ShopError, ShopLicense, ShopReply},
    telemetry::Telemetry,
    vault::KeyedHash,
};

/// Maximum number of cached refusals; a few megabytes.
const REFUSALS: u64 = 20_000;
/// Longer than any refusal is valid.
const REFUSAL_TIME: Duration = Duration::from_secs(600);

pub struct LicenseValidator {
    pub hasher: KeyedHash,
    pub(super) memory_cache: Arc<MemoryCache>,
    /// By [`KeyedHash::spelling`].
    pub(super) refused: Cache<LicenseId, Arc<NegativeEntry>>,
    pub(super) device_throttles: Cache<LicenseId, Arc<Mutex<DeviceThrottle>>>,
    pub(super) seen_webhooks: Cache<[u8; 32], ()>,
    pub(super) address_throttle: AddressThrottle,
    pub(super) flights: Arc<SingleFlight>,
    /// Licences that wait for a call in the background.
    pub(super) behind: Mutex<FxHashSet<LicenseId>>,
    /// By index of the shop in [`shops::ALL`].
    queues: Vec<CallQueue>,
    pub(super) client: ShopClient,
    pub(super) redis_cache: Option<Arc<RedisCache>>,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) disk_cache: DiskCache,
    /// By index of the shop in [`shops::ALL`].
    shops: Vec<(ShopHealth, ShopPace)>,
    /// The shops of the live configuration.
    pub(super) configured: ArcSwapOption<ConfiguredShops>,
    /// A mass refusal is going on.
    pub(super) holding: AtomicBool,
    /// Wakes the sync of entries that the shared store lacks.
    pub(super) unsynced_entries: Notify,
    /// Wakes the sync of revocations made at other gateways.
    pub(super) unsynced_revocations: Notify,
    pub(super) runtime: Handle,
    pub(super) issued: IssuedState,
}

/// A cached refusal of a key.
pub(super) struct NegativeEntry {
    pub code: Code,
    /// The shop's answer, if it knows the key: a changed configuration may accept it.
    pub facts: Option<ShopLicense>,
    pub at: UnixMs,
    /// Number of refusals in a row.
    pub times: u32,
}

impl LicenseValidator {
    /// Opens the validator on a database that is open already, and on the shared store, if there is one.
    ///
    /// # Errors
    /// The database can't be opened, TLS can't be set up or a thread can't be started.
    pub fn open(
        store: &settings::StoreSettings,
        redis: Option<Arc<RedisStore>>,
        hasher: KeyedHash,
        telemetry: Arc<Telemetry>,
    ) -> anyhow::Result<Arc<Self>> {
        let memory_cache = Arc::new(MemoryCache::default());
        let disk_cache = DiskCache::open(&store.path, memory_cache.clone())?;
        let redis_cache = redis.map(|store| Arc::new(RedisCache::new(store)));
        let queue = |shop: &&dyn Shop| CallQueue::new(shop.name(), redis_cache.clone());
        let (queues, queue_tasks): (Vec<_>, Vec<_>) = shops::ALL.iter().map(queue).unzip();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let validator = Arc::new(Self {
            hasher,
            holding: AtomicBool::new(mass_refusal_rule::was_going_on(&memory_cache, UnixMs::now())),
            memory_cache,
            refused: Cache::builder().max_capacity(REFUSALS).time_to_live(REFUSAL_TIME).build(),
            device_throttles: device_throttle::throttles(),
            seen_webhooks: webhook_dedup::seen(),
            address_throttle: AddressThrottle::default(),
            flights: Arc::default(),
            behind: Mutex::default(),
            queues,
            client: ShopClient::new()?,
            redis_cache,
            telemetry,
            disk_cache,
            shops: shops::ALL.iter().map(|_| Default::default()).collect(),
            configured: ArcSwapOption::empty(),
            unsynced_entries: Notify::new(),
            unsynced_revocations: Notify::new(),
            runtime: runtime.handle().clone(),
            issued: IssuedState::default(),
        });
        let tending = validator.clone().tend();
        std::thread::Builder::new().name("licenses".into()).spawn(move || {
            for task in queue_tasks {
                runtime.spawn(task);
            }
            runtime.block_on(tending);
        })?;
        Ok(validator)
    }

    /// Hands the disk cache over to another process, which receives later changes. Blocks.
    pub fn give(&self, tell: ForwardChange) {
        self.disk_cache.give(tell);
    }

    /// Merges an entry that changed in another process.
    pub fn take_in(&self, id: LicenseId, record: serde_json::Value) {
        match serde_json::from_value::<CachedLicense>(record) {
            Ok(record) => drop(self.adopt(id, &record)),
            Err(problem) => {
                log::warn!("licences: a cache entry from another process can't be read: {problem}")
            }
        }
    }

    /// Takes the disk cache back.
    pub fn take_back(&self) {
        self.disk_cache.take_back();
    }

    /// Writes every pending change to disk before it returns.
    pub fn close(&self) {
        self.disk_cache.close();
    }

    /// The time of a call that starts now: later than any mark of a webhook, even one of the same
    /// millisecond.
    pub(super) fn moment(&self, id: &LicenseId) -> UnixMs {
        let now = UnixMs::now();
        match self.memory_cache.get(id) {
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

    /// Waits for a call permit; `None` if there is none in time.
    pub(super) async fn permit(
        &self,
        question: &ShopQuery,
        class: CallPriority,
        address: Option<ClientPrefix>,
    ) -> Option<CallPermit> {
        let queue = &self.queues[place(question.shop().name())];
        queue.acquire(question.calls_per_minute(), class, address).await
    }

    /// The call is not made after all.
    pub(super) fn give_back(&self, permit: Option<CallPermit>) {
        if let Some(permit) = permit {
            self.queues[place(permit.shop)].give_back(permit);
        }
    }

    /// Records what an answer shows of the shop's own health.
    pub(super) fn record_reply(
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

/// The index of a shop in [`shops::ALL`], which has every shop.
fn place(shop: &str) -> usize {
    shops::ALL.iter().position(|known| known.name() == shop).unwrap_or_default()
}

/// Parses the code of a refusal in the shared store.
pub(super) fn refusal_code(word: &str) -> Option<Code> {
    [Code::LicenseInvalid, Code::LicenseWrongProduct].into_iter().find(|code| code.wire().1 == word)
}
