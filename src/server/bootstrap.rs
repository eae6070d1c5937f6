//! What a gateway keeps: its own store, the one it shares with others, its licences. Opened to serve,
//! or for one order of an operator while no gateway runs.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use gatekeeper_filters::kernel::LicenseId;
use secrecy::ExposeSecret;

use crate::{
    config::settings::{self, RedisSettings, Settings},
    ledger::{DistributedLedger, EmbeddedLedger, Residency, in_memory_state::InheritedStore},
    license_admin::{ApiResponse, LicenseAdmin, LicenseCommand},
    licenses::{ConfiguredLicenses, LicenseValidator},
    redis_store::{RedisStore, pubsub::Subscriber, url::RedisUrl},
    telemetry::{Telemetry, access_log::AccessLog},
    vault::{KeyedHash, Pepper, pepper},
};

/// How long one order waits for the shared store.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct Stores {
    pub store: Arc<EmbeddedLedger>,
    /// Where several gateways count together.
    pub shared: Option<Arc<DistributedLedger>>,
    pub licenses: Arc<LicenseValidator>,
    pub telemetry: Arc<Telemetry>,
    redis: Option<Arc<RedisStore>>,
}

impl Stores {
    /// # Errors
    /// One of them is unusable, or in use by another gateway.
    pub fn open(settings: &Settings, access: &settings::AccessLogSettings) -> anyhow::Result<Self> {
        Self::inherit(settings, access, None)
    }

    /// [`Stores::open`] of what another process gives away.
    ///
    /// # Errors
    /// As [`Stores::open`].
    pub fn inherit(
        settings: &Settings,
        access: &settings::AccessLogSettings,
        inherited: Option<InheritedStore>,
    ) -> anyhow::Result<Self> {
        let (path, keep) = (&settings.store.path, settings.store.keep);
        // Each gateway tells a shared store all it has counted, so it has all of that in memory.
        let residency = match settings.store.redis {
            Some(_) => Residency::Complete,
            None => Residency::OnDemand,
        };
        let mut held = None;
        let store = match inherited {
            None => EmbeddedLedger::open(path, keep, residency),
            Some(mut inherited) => {
                held = inherited.volatile.shared.take();
                EmbeddedLedger::inherit(path, keep, inherited, residency)
            }
        };
        let store = store?;
        let configured = settings.vault.as_ref().map(pepper).transpose()?;
        let pepper = store.pepper(configured.as_ref().map(Pepper::expose))?;
        let access = AccessLog::open(access).context("`log.access` can't be written")?;
        let telemetry = Telemetry::new(access);
        let redis = settings.store.redis.as_ref().map(open_redis).transpose()?;
        let hasher = KeyedHash::new(&pepper);
        let licenses = LicenseValidator::open(
            &settings.store,
            redis.clone(),
            hasher.clone(),
            telemetry.clone(),
        )
        .context("licences can't be looked up")?;
        let shared = match (&redis, &settings.store.redis) {
            (Some(redis), Some(settings)) => {
                let (local, redis, on_down) =
                    (store.clone(), redis.clone(), settings.on_store_down);
                let naming = move |license: &LicenseId, id: &str| hasher.message(license, id);
                Some(DistributedLedger::open(local, redis, on_down, Box::new(naming))?)
            }
            _ => None,
        };
        if let (Some(shared), Some(held)) = (&shared, held) {
            shared.adopt(held);
        }
        Ok(Self { store, shared, licenses, telemetry, redis })
    }

    /// Starts the tasks of the shared store and the subscriptions to other gateways, `listeners` included.
    pub fn listen(&self, mut listeners: Vec<Subscriber>) {
        if let Some(redis) = &self.redis {
            listeners.push(self.licenses.listener());
            listeners.extend(self.shared.as_ref().map(DistributedLedger::subscriber));
            redis.start(listeners);
        }
    }

    /// The store that gateways share, if there is one.
    pub fn redis(&self) -> Option<&Arc<RedisStore>> {
        self.redis.as_ref()
    }
}

fn open_redis(redis: &RedisSettings) -> anyhow::Result<Arc<RedisStore>> {
    let address = RedisUrl::parse(redis.url.expose_secret());
    let address = address.map_err(|why| anyhow::anyhow!("store.url: {why}"))?;
    let store = RedisStore::new(address, redis.unsafe_eviction)?;
    store.check().context("the Redis at `store.url` is not configured safely")?;
    Ok(store)
}

/// Carries out one operator command directly in the store, which no gateway may use at that time.
///
/// # Errors
/// The store is in use, or unusable.
pub fn operate(
    settings: &Settings,
    command: LicenseCommand,
    body: &[u8],
) -> anyhow::Result<ApiResponse> {
    crate::logging::start(&log::LevelFilter::Warn.into());
    let path = &settings.store.path;
    // Opening it would create an empty database in the wrong place.
    anyhow::ensure!(
        path.exists(),
        "no gateway answers, and its store {} is not here; relative paths count from the directory \
         the gateway is started in",
        path.display()
    );
    let opened = Stores::open(settings, &settings::AccessLogSettings::Off)?;
    opened.listen(Vec::new());
    let book = ConfiguredLicenses::new(settings, opened.licenses.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (store, shared) = (opened.store.clone(), opened.shared.clone());
    let answer = runtime.block_on(async {
        if let Some(shared) = &shared {
            wait_for(shared).await;
        }
        let operator = LicenseAdmin { store: store.clone(), shared: shared.clone() };
        let answer = operator.carry_out(&book, command, body).await;
        if let Some(shared) = &shared {
            shared.flush().await;
        }
        answer
    });
    opened.licenses.close();
    opened.store.close();
    Ok(answer)
}

/// Waits until requests are decided there; without it the command is journalled and synced later.
async fn wait_for(shared: &DistributedLedger) {
    let deadline = Instant::now() + PATIENCE;
    while !shared.is_up() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
