//! The store that gateways share: Redis or Valkey, alone, behind Sentinel, or a cluster.
//!
//! Nothing here may hold a request up: an operation has 50 ms, a connection that fails or is silent
//! is given up, and while there is none each operation fails at once. A look every half second finds
//! the store back. What was written may be gone then (a restart, a failover, FLUSHALL): [`Store::generation`]
//! grows, and whoever keeps something here compares it with what it knows.
//!
//! ```text
//! gk:here:BOOT    that this store has seen this gateway: gone after a FLUSHALL
//! gk:life         a name that it got when it was empty: another one after a FLUSHALL
//! gk:beats        channel: gateways that live
//! ```
//! What else lies there, `licenses::shared`, `ledger::shared` and `fleet` say.

pub mod address;
pub mod fitness;
pub mod listen;
mod own;
pub mod read;
pub mod script;
mod wire;

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult, ServerErrorKind};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
    time::timeout,
};

use self::{
    address::Address, fitness::Unfit, listen::Listener, own::Own, script::Call, wire::Wire,
};

/// How long a request may wait for one operation.
pub const OPERATION: Duration = Duration::from_millis(50);
const CONNECT: Duration = Duration::from_secs(1);
/// Operations under way at one time. More would only wait in the store's queue, with their 50 ms
/// running: a burst of requests must not look like a store that is away.
const AT_ONCE: usize = 64;
/// A connection on which so many operations in a row came too late is given up.
const TOO_LATE: u32 = 3;
/// Seconds for which a sign stays that is not renewed.
const SIGN: u64 = 3600;
/// Between two looks at the store.
pub const BEAT: Duration = Duration::from_millis(500);

/// The store does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Away;

pub struct Store {
    address: Address,
    connection: ArcSwapOption<Wire>,
    /// The number of that connection; 0 for none.
    epoch: AtomicU64,
    is_up: AtomicBool,
    room: Semaphore,
    /// Operations in a row that came too late.
    late: AtomicU32,
    /// Which boot of which gateway this is.
    boot: String,
    next: AtomicU64,
    /// Grows whenever what was written, or a message, may have been lost.
    generation: watch::Sender<u64>,
    /// Grows whenever what was written may have been lost.
    losses: watch::Sender<u64>,
    /// Why the last operation failed.
    why: Mutex<String>,
    listeners: OnceLock<Vec<Listener>>,
    /// Boots of other gateways, and when they were last heard.
    peers: Mutex<HashMap<String, Instant>>,
    /// A store that evicts or forgets is taken all the same.
    unsafe_eviction: bool,
    runtime: Handle,
}

impl Store {
    /// Does not wait for the store: it may be away.
    ///
    /// # Errors
    /// No thread or no random bytes can be had.
    pub fn new(address: Address, unsafe_eviction: bool) -> anyhow::Result<Arc<Self>> {
        let mut boot = [0; 8];
        getrandom::fill(&mut boot).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let store = Arc::new(Self {
            address,
            connection: ArcSwapOption::empty(),
            epoch: AtomicU64::new(0),
            is_up: AtomicBool::new(false),
            room: Semaphore::new(AT_ONCE),
            late: AtomicU32::new(0),
            boot: boot.map(|byte| format!("{byte:02x}")).concat(),
            next: AtomicU64::new(0),
            generation: watch::Sender::new(1),
            losses: watch::Sender::new(0),
            why: Mutex::default(),
            listeners: OnceLock::new(),
            peers: Mutex::default(),
            unsafe_eviction,
            runtime: runtime.handle().clone(),
        });
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        Ok(store)
    }

    /// Looks after the store from now on, and hands messages to `listeners`.
    pub fn start(self: &Arc<Self>, listeners: Vec<Listener>) {
        if self.listeners.set(listeners).is_ok() {
            self.runtime.spawn(self.clone().tend());
            self.runtime.spawn(self.clone().listen());
        }
    }

    /// Runs something on the store's own thread.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    pub fn is_up(&self) -> bool {
        self.is_up.load(Relaxed)
    }

    /// Grows whenever what was written, or a message, may have been lost.
    pub fn generation(&self) -> u64 {
        *self.generation.borrow()
    }

    /// Tells of each new generation.
    pub fn generations(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Grows whenever what was written may have been lost; 0 until the store was there once.
    pub fn losses(&self) -> watch::Receiver<u64> {
        self.losses.subscribe()
    }

    /// Something that was written is not there any more.
    pub fn lost(&self) {
        self.losses.send_modify(|losses| *losses += 1);
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// The name of this store's life: it has another one after it was emptied.
    ///
    /// # Errors
    /// As [`Store::run`].
    pub async fn life(&self) -> Result<String, Away> {
        let mut name = Cmd::set("gk:life", self.unique());
        name.arg("NX");
        let _: Option<String> = self.run(name).await?;
        self.run(Cmd::get("gk:life")).await
    }

    /// Other gateways that live, by their boots.
    pub fn peers(&self) -> Vec<String> {
        let mut peers = self.peers.lock();
        peers.retain(|_, heard| heard.elapsed() < 4 * BEAT);
        peers.keys().cloned().collect()
    }

    /// A name that no gateway uses twice.
    pub fn unique(&self) -> String {
        format!("{}-{}", self.boot, self.next.fetch_add(1, Relaxed))
    }

    /// # Errors
    /// The store does not answer; the command may have had its effect all the same.
    pub async fn run<T: FromRedisValue>(&self, command: Cmd) -> Result<T, Away> {
        self.within(async |wire| command.query_async(wire).await).await
    }

    /// # Errors
    /// As [`Store::run`].
    pub async fn call<T: FromRedisValue>(&self, call: Call<'_>) -> Result<T, Away> {
        self.within(async |wire| call.send(wire).await).await
    }

    /// # Errors
    /// As [`Store::run`].
    pub async fn pipe(&self, pipe: redis::Pipeline) -> Result<(), Away> {
        self.within(async |wire| pipe.exec_async(wire).await).await
    }

    /// A connection that fails is given up, so that those behind it do not wait as well. An answer
    /// that is an error says nothing about the connection, unless it says that somebody else is to
    /// be asked.
    async fn within<T>(
        &self,
        operation: impl AsyncFnOnce(&mut Wire) -> RedisResult<T>,
    ) -> Result<T, Away> {
        let _room = self.room.acquire().await.map_err(|_| Away)?;
        let mut wire = self.wire()?;
        match timeout(OPERATION, operation(&mut wire)).await {
            Ok(Ok(value)) => {
                self.late.store(0, Relaxed);
                Ok(value)
            }
            Ok(Err(error)) => {
                // In a cluster one server may be away and the others serve on: the client knows.
                if !wire.is_cluster() && is_lost(&error) {
                    self.give_up();
                }
                Err(self.failed(error.to_string()))
            }
            Err(_) => {
                if self.late.fetch_add(1, Relaxed) + 1 >= TOO_LATE {
                    self.give_up();
                }
                Err(self.failed(format!("nothing within {OPERATION:?}")))
            }
        }
    }

    /// The connection of this thread, or the common one until there is one of its own.
    fn wire(&self) -> Result<Wire, Away> {
        let epoch = self.epoch.load(Relaxed);
        if epoch == 0 {
            return Err(Away);
        }
        match own::find(epoch) {
            Own::Is(wire) => return Ok(wire),
            Own::Begins => own::connect(self.address.clone(), epoch),
            Own::Comes => {}
        }
        self.connection.load().as_deref().cloned().ok_or(Away)
    }

    /// The next beat finds the store back.
    fn give_up(&self) {
        self.epoch.store(0, Relaxed);
        self.connection.store(None);
        self.is_up.store(false, Relaxed);
        self.late.store(0, Relaxed);
    }

    fn failed(&self, why: String) -> Away {
        log::debug!("The shared store failed: {why}.");
        *self.why.lock() = why;
        Away
    }

    async fn tend(self: Arc<Self>) {
        let mut said = None;
        loop {
            let mut known = self.beat().await;
            // One late answer does not mean that it is away.
            if known.is_err() && self.connection.load().is_some() {
                known = self.beat().await;
            }
            let is_up = known.is_ok();
            let was_up = self.is_up.swap(is_up, Relaxed);
            if known == Ok(false) || (is_up && !was_up) {
                self.lost();
            }
            if said != Some(is_up) {
                said = Some(is_up);
                if is_up {
                    log::info!("The shared store answers.");
                } else {
                    log::warn!(
                        "The shared store fails: {}. Licences go on from memory, and usage by \
                         `store.on_store_down`, until it answers again.",
                        self.why.lock()
                    );
                }
            }
            tokio::time::sleep(BEAT).await;
        }
    }

    /// Whether the store still has the sign that this gateway left there. Listeners hear the beat,
    /// too: a subscription on which nothing comes is dead.
    async fn beat(&self) -> Result<bool, Away> {
        if self.connection.load().is_none() {
            self.connect().await.map_err(|unfit| self.failed(unfit.to_string()))?;
        }
        let sign = format!("gk:here:{}", self.boot);
        match self.run::<Option<u8>>(Cmd::get(&sign)).await {
            Ok(None) => {
                let _ = self.renew(&sign).await;
                // What is known to be missing must not be found by another look before it is said.
                if self.connection.load().is_some() { Ok(false) } else { Err(Away) }
            }
            Ok(Some(_)) => self.renew(&sign).await.map(|()| true),
            // The sign lies on one server of a cluster.
            Err(Away) if self.is_cluster() => self.publish_beat().await.map(|()| true),
            Err(Away) => Err(Away),
        }
    }

    /// Not in one step with the look: if the answer of that came late, the sign would hide a loss.
    async fn renew(&self, sign: &str) -> Result<(), Away> {
        self.run::<()>(Cmd::set_ex(sign, 1, SIGN)).await?;
        self.publish_beat().await
    }

    fn is_cluster(&self) -> bool {
        self.connection.load().as_ref().is_some_and(|wire| wire.is_cluster())
    }

    async fn connect(&self) -> Result<(), Unfit> {
        let made = timeout(CONNECT * 2, wire::connect(&self.address, CONNECT)).await;
        let mut wire = made.map_err(|_| Unfit::Silent)??;
        if !self.unsafe_eviction {
            let fit = timeout(CONNECT, fitness::check(&mut wire)).await;
            fit.map_err(|_| Unfit::Silent)??;
        }
        self.connection.store(Some(Arc::new(wire)));
        self.epoch.store(own::next_epoch(), Relaxed);
        Ok(())
    }

    /// A first look, before anybody depends on it. One that does not answer may come later.
    ///
    /// # Errors
    /// It answers, and must not be used.
    pub fn check(&self) -> Result<(), Unfit> {
        match self.runtime.block_on(self.connect()) {
            Ok(()) => Ok(()),
            Err(away @ (Unfit::Silent | Unfit::Store(_))) => {
                log::warn!("The shared store does not answer yet: {away}.");
                Ok(())
            }
            Err(unfit) => Err(unfit),
        }
    }
}

/// Whether another connection is needed: this one is broken, or leads to a server that no longer
/// takes writes.
fn is_lost(error: &RedisError) -> bool {
    let elsewhere = matches!(
        error.kind(),
        ErrorKind::Server(
            ServerErrorKind::ReadOnly
                | ServerErrorKind::MasterDown
                | ServerErrorKind::BusyLoading
                | ServerErrorKind::ClusterDown
        )
    );
    elsewhere || error.kind() == ErrorKind::Io || error.is_unrecoverable_error()
}
