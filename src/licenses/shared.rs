//! What gateways share about licences, on Redis or Valkey. Nothing here may hold a request up: an
//! operation has 50 ms, and while the store is away each fails at once.
//!
//! ```text
//! gk:license:ID   record of a licence (JSON), as long as it may be used       string
//! gk:refused:ID   that a shop refused a key just now, and why                 string
//! gk:order:ORDER  licences of an order                                        set
//! gk:lock:ID      who asks a shop about a licence now, renewed each second    string
//! gk:calls:POOL   calls to shops in the last minute                           sorted set
//! gk:here:BOOT    that this store has seen this gateway: gone after a FLUSHALL
//! gk:licenses     channel: ids of records that changed
//! ```
//! IDs and ORDERs are HMACs under a pepper that is never here.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use futures_util::StreamExt;
use gatekeeper_filters::kernel::LicenseId;
use parking_lot::Mutex;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, RedisResult, Script,
    aio::MultiplexedConnection,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;

use super::{
    budget::{Class, LONGEST_SPAN, POOLS},
    facts::Facts,
    record::Record,
};

const OPERATION: Duration = Duration::from_millis(50);
const CONNECT: Duration = Duration::from_secs(1);
/// Between two looks at the store.
const BEAT: Duration = Duration::from_millis(500);
/// A subscription on which no beat comes for so long is dead.
const SILENCE: Duration = Duration::from_secs(3);
/// A lock whose holder does not renew it is free again.
pub const LOCK: Duration = Duration::from_secs(3);
/// How often a merge is tried again when somebody else was quicker.
const MERGES: usize = 8;
const CHANNEL: &str = "gk:licenses";

/// The store does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Away;

pub struct Shared {
    client: Client,
    connection: ArcSwapOption<MultiplexedConnection>,
    is_up: AtomicBool,
    /// Which boot of which gateway this is.
    boot: String,
    next: AtomicU64,
    /// Grows whenever messages may have been lost; records of an older one are compared again.
    generation: AtomicU64,
    /// Changes of other gateways that were heard of.
    changes: AtomicU64,
    /// Why the last operation failed.
    why: Mutex<String>,
    scripts: Scripts,
}

struct Scripts {
    replace: Script,
    unlock: Script,
    renew: Script,
    take: Script,
}

impl Shared {
    /// # Errors
    /// The address makes no sense, or there are no random bytes.
    pub fn new(url: &SecretString) -> anyhow::Result<Arc<Self>> {
        let mut boot = [0; 8];
        getrandom::fill(&mut boot).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
        Ok(Arc::new(Self {
            client: Client::open(url.expose_secret())?,
            connection: ArcSwapOption::empty(),
            is_up: AtomicBool::new(false),
            boot: boot.map(|byte| format!("{byte:02x}")).concat(),
            next: AtomicU64::new(0),
            generation: AtomicU64::new(1),
            changes: AtomicU64::new(0),
            why: Mutex::default(),
            scripts: Scripts::new(),
        }))
    }

    pub fn is_up(&self) -> bool {
        self.is_up.load(Relaxed)
    }

    pub fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// Generation and changes heard of: what was read between two equal ones is the latest.
    pub fn stamp(&self) -> (u64, u64) {
        (self.generation(), self.changes.load(Relaxed))
    }

    /// The record of a licence that any gateway knows.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn record(&self, id: &LicenseId) -> Result<Option<Record>, Away> {
        let text: Option<String> = self.run(Cmd::get(record_key(id))).await?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Merges a record into what is there, and tells the other gateways if that changed it. What is
    /// there then.
    ///
    /// # Errors
    /// The store does not answer; it may have merged the record all the same.
    pub async fn merge(
        &self,
        id: &LicenseId,
        record: &Record,
        keep: Duration,
    ) -> Result<Record, Away> {
        let keep = keep.as_millis() as u64;
        if let Some(order) = record.facts.as_ref().and_then(Facts::order) {
            let mut index = redis::pipe();
            index.sadd(order_key(order), id.to_hex()).ignore();
            index.pexpire(order_key(order), keep as i64).ignore();
            let mut connection = self.connection()?;
            self.within(index.exec_async(&mut connection)).await?;
        }
        for _ in 0..MERGES {
            let there: Option<String> = self.run(Cmd::get(record_key(id))).await?;
            let theirs = there.as_deref().and_then(|text| serde_json::from_str(text).ok());
            let merged =
                theirs.as_ref().map_or_else(|| record.clone(), |known| record.merge(known));
            if theirs.as_ref() == Some(&merged) {
                return Ok(merged);
            }
            let text = serde_json::to_string(&merged).map_err(|_| Away)?;
            let mut call = self.scripts.replace.prepare_invoke();
            call.key(record_key(id)).arg(there.unwrap_or_default()).arg(text).arg(keep);
            call.arg(CHANNEL).arg(format!("{} {}", self.boot, id.to_hex()));
            let mut connection = self.connection()?;
            if self.within(call.invoke_async(&mut connection)).await? {
                return Ok(merged);
            }
        }
        Err(Away)
    }

    /// Ids of the licences of an order.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn licenses_of(&self, order: &str) -> Result<Vec<LicenseId>, Away> {
        let ids: Vec<String> = self.run(Cmd::smembers(order_key(order))).await?;
        Ok(ids.iter().filter_map(|id| LicenseId::from_hex(id)).collect())
    }

    /// Why a shop refused a key just now, as some gateway wrote it down.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn refusal(&self, id: &LicenseId) -> Result<Option<String>, Away> {
        self.run(Cmd::get(refusal_key(id))).await
    }

    /// # Errors
    /// The store does not answer.
    pub async fn refuse(&self, id: &LicenseId, why: &str, keep: Duration) -> Result<(), Away> {
        let mut command = Cmd::set(refusal_key(id), why);
        command.arg("PX").arg(keep.as_millis() as u64);
        self.run(command).await
    }

    /// # Errors
    /// The store does not answer.
    pub async fn forget_refusal(&self, id: &LicenseId) -> Result<(), Away> {
        self.run(Cmd::del(refusal_key(id))).await
    }

    /// The right to ask a shop about a licence; `None` while somebody has it.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn lock(self: &Arc<Self>, id: &LicenseId) -> Result<Option<Lock>, Away> {
        let holder = self.unique();
        let mut command = Cmd::set(lock_key(id), &holder);
        command.arg("NX").arg("PX").arg(LOCK.as_millis() as u64);
        let got: Option<String> = self.run(command).await?;
        Ok(got.map(|_| Lock::keep(self.clone(), lock_key(id), holder)))
    }

    /// Whether some gateway asks a shop about a licence now.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn is_locked(&self, id: &LicenseId) -> Result<bool, Away> {
        self.run(Cmd::exists(lock_key(id))).await
    }

    /// A call out of the budget of all gateways: the pool it is taken from, and its name there; or
    /// how long it takes until there may be one.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn take_call(&self, class: Class) -> Result<Result<(usize, String), Duration>, Away> {
        let member = self.unique();
        let mut call = self.scripts.take.prepare_invoke();
        call.arg(&member).arg(LONGEST_SPAN.as_millis() as u64);
        for pool in class.pools() {
            call.key(pool_key(*pool));
            let bounds = POOLS[*pool].bounds;
            call.arg(bounds.len());
            for (most, span) in bounds {
                call.arg(*most).arg(span.as_millis() as u64);
            }
        }
        let mut connection = self.connection()?;
        let (place, wait): (usize, u64) = self.within(call.invoke_async(&mut connection)).await?;
        Ok(match wait {
            0 => Ok((class.pools()[place], member)),
            wait => Err(Duration::from_millis(wait)),
        })
    }

    /// # Errors
    /// The store does not answer.
    pub async fn give_back_call(&self, pool: usize, member: &str) -> Result<(), Away> {
        self.run(Cmd::zrem(pool_key(pool), member)).await
    }

    /// Keeps the connection, looks after the store, and listens; never ends. `returned` is called
    /// when the store is there (again) without what this gateway had written, or after it was away;
    /// `changed` for each record that another gateway changed.
    pub async fn tend(
        self: Arc<Self>,
        returned: impl Fn() + Send,
        changed: impl Fn(LicenseId) + Send + Sync + 'static,
    ) {
        let listener = self.clone();
        tokio::spawn(async move { listener.listen(changed).await });
        let mut said = None;
        loop {
            let known = self.beat().await;
            let is_up = known.is_ok();
            let was_up = self.is_up.swap(is_up, Relaxed);
            if said != Some(is_up) {
                said = Some(is_up);
                if is_up {
                    log::info!("The shared store answers.");
                } else {
                    let why = self.why.lock().clone();
                    log::warn!("The shared store fails: {why}. Licences go on from memory.");
                }
            }
            if known == Ok(false) || (is_up && !was_up) {
                self.generation.fetch_add(1, Relaxed);
                returned();
            }
            tokio::time::sleep(BEAT).await;
        }
    }

    /// Whether the store still has the sign that this gateway left there. Listeners hear the beat,
    /// too: a connection on which nothing comes is dead.
    async fn beat(&self) -> Result<bool, Away> {
        if self.connection.load().is_none() {
            self.connect().await?;
        }
        let mut command = Cmd::set(format!("gk:here:{}", self.boot), 1);
        command.arg("EX").arg(3600).arg("GET");
        let before: Option<String> = self.run(command).await?;
        let _: u64 = self.run(Cmd::publish(CHANNEL, format!("{} beat", self.boot))).await?;
        Ok(before.is_some())
    }

    async fn connect(&self) -> Result<(), Away> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(CONNECT));
        let made = self.client.get_multiplexed_async_connection_with_config(&config).await;
        let connection = made.map_err(|error| self.failed(error.to_string()))?;
        self.connection.store(Some(Arc::new(connection)));
        Ok(())
    }

    /// Hears of changed records. A lost connection may have lost messages.
    async fn listen(&self, changed: impl Fn(LicenseId)) {
        loop {
            if let Ok(Ok(mut channel)) = timeout(CONNECT, self.client.get_async_pubsub()).await
                && let Ok(Ok(())) = timeout(CONNECT, channel.subscribe(CHANNEL)).await
            {
                self.generation.fetch_add(1, Relaxed);
                let mut messages = channel.on_message();
                while let Ok(Some(message)) = timeout(SILENCE, messages.next()).await {
                    let text: String = message.get_payload().unwrap_or_default();
                    // Our own changes are known here.
                    if let Some((boot, id)) = text.split_once(' ')
                        && boot != self.boot
                        && let Some(id) = LicenseId::from_hex(id)
                    {
                        self.changes.fetch_add(1, Relaxed);
                        changed(id);
                    }
                }
            }
            tokio::time::sleep(BEAT).await;
        }
    }

    fn connection(&self) -> Result<MultiplexedConnection, Away> {
        self.connection.load().as_ref().map(|connection| (**connection).clone()).ok_or(Away)
    }

    async fn run<T: FromRedisValue>(&self, command: Cmd) -> Result<T, Away> {
        let mut connection = self.connection()?;
        self.within(command.query_async(&mut connection)).await
    }

    /// A connection that fails is given up, so that those behind it do not wait as well. An answer
    /// that is an error says nothing about the connection.
    async fn within<T>(&self, operation: impl Future<Output = RedisResult<T>>) -> Result<T, Away> {
        match timeout(OPERATION, operation).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) if error.kind() == ErrorKind::Io || error.is_unrecoverable_error() => {
                self.give_up();
                Err(self.failed(error.to_string()))
            }
            Ok(Err(error)) => Err(self.failed(error.to_string())),
            Err(_) => {
                self.give_up();
                Err(self.failed(format!("nothing within {OPERATION:?}")))
            }
        }
    }

    /// The next beat finds the store back, and what could not be written meanwhile is written.
    fn give_up(&self) {
        self.connection.store(None);
        self.is_up.store(false, Relaxed);
    }

    fn failed(&self, why: String) -> Away {
        log::debug!("The shared store failed: {why}.");
        *self.why.lock() = why;
        Away
    }

    fn unique(&self) -> String {
        format!("{}-{}", self.boot, self.next.fetch_add(1, Relaxed))
    }
}

/// Held as long as it lives, and renewed; when its holder dies it ends by itself.
pub struct Lock {
    renewing: tokio::task::JoinHandle<()>,
    shared: Arc<Shared>,
    key: String,
    holder: String,
}

impl Lock {
    fn keep(shared: Arc<Shared>, key: String, holder: String) -> Self {
        let (renewer, name, by) = (shared.clone(), key.clone(), holder.clone());
        let renewing = tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOCK / 3).await;
                let mut call = renewer.scripts.renew.prepare_invoke();
                call.key(&name).arg(&by).arg(LOCK.as_millis() as u64);
                let Ok(mut connection) = renewer.connection() else { continue };
                let _: Result<u8, Away> = renewer.within(call.invoke_async(&mut connection)).await;
            }
        });
        Self { renewing, shared, key, holder }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.renewing.abort();
        let (shared, key, holder) =
            (self.shared.clone(), std::mem::take(&mut self.key), std::mem::take(&mut self.holder));
        tokio::spawn(async move {
            let mut call = shared.scripts.unlock.prepare_invoke();
            call.key(key).arg(holder);
            let Ok(mut connection) = shared.connection() else { return };
            let _: Result<u8, Away> = shared.within(call.invoke_async(&mut connection)).await;
        });
    }
}

impl Scripts {
    fn new() -> Self {
        Self {
            // Whether nobody changed it meanwhile, and so it was replaced.
            replace: Script::new(
                "if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
                 redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
                 redis.call('PUBLISH', ARGV[4], ARGV[5])
                 return 1",
            ),
            unlock: Script::new(
                "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
                 return redis.call('DEL', KEYS[1])",
            ),
            renew: Script::new(
                "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
                 return redis.call('PEXPIRE', KEYS[1], ARGV[2])",
            ),
            // A place among the keys and 0, or how long to wait. Each key's bounds follow in ARGV:
            // their number, then calls and milliseconds of each.
            take: Script::new(
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

fn pool_key(pool: usize) -> String {
    format!("gk:calls:{{licenses}}:{}", POOLS[pool].name)
}
