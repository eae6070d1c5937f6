//! The store that gateways share: Redis or Valkey, alone, behind Sentinel, or a cluster.
//!
//! Nothing here holds a request up for long: each operation has its [`WaitBudget`]. A store of which
//! nothing is heard for 250 ms, this process' own standing still taken off, counts as away, and each
//! operation fails at once:
//!
//! ```text
//! up ──── 250 ms without any answer ──► away, connection kept ──── it answers ──► up, nothing lost
//! │                                              │ 2 s of silence
//! └─── connection broken, or to a server ────► away, no connection ──── a new one ──► up, perhaps
//!      that takes no writes                                                          another store
//! ```
//! What was written may be gone after a new connection (a restart, a failover), and after FLUSHALL:
//! [`RedisStore::generation`] grows, and what is kept here is compared with what is known.
//!
//! ```text
//! gk:here:BOOT    that this store has seen this gateway: gone after a FLUSHALL
//! gk:life         a name that it got when it was empty: another one after a FLUSHALL
//! gk:form         the form of what gateways keep here that live
//! gk:beats        channel: gateways that live
//! ```
//! What else lies there, `licenses::redis_cache`, `ledger::shared` and `fleet` say.

mod connection;
pub mod durability_check;
mod error_replies;
mod failure;
mod format;
mod heartbeat;
pub mod one_shot;
pub mod pubsub;
pub mod script;
mod subscriber;
mod thread_connection;
mod timing;
pub mod url;
pub mod wait_budget;

use std::{
    borrow::Cow,
    collections::HashMap,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult, ServerErrorKind};
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore, watch},
};

use self::{
    connection::RedisConnection, error_replies::ErrorReplies, script::ScriptCall,
    subscriber::Subscriber, thread_connection::ThreadConnection, url::RedisUrl,
    wait_budget::WaitBudget,
};
pub use self::{
    failure::{StoreFailure, StoreUnavailable},
    timing::BEAT,
};

/// A store of which nothing is heard for so long is away; what an operation may wait for that sets
/// nothing else.
pub const SILENCE: Duration = Duration::from_millis(250);
/// After so much of it the store is looked at.
const SUSPICIOUS: Duration = Duration::from_millis(50);
/// A store that was there so long ago may be back in a moment.
pub const MOMENT: Duration = Duration::from_secs(1);
/// Operations under way at one time. More would only wait in the store's queue.
const AT_ONCE: usize = 64;

pub struct RedisStore {
    address: RedisUrl,
    /// Its own number in this process.
    number: u64,
    connection: ArcSwapOption<RedisConnection>,
    /// The number of that connection; 0 for none.
    epoch: AtomicU64,
    is_up: AtomicBool,
    /// The connection was made since the store was last up.
    is_new: AtomicBool,
    room: Semaphore,
    /// Answers so far.
    heard: AtomicU64,
    /// An operation waits for longer than is usual, or a connection broke.
    suspicion: Notify,
    /// Grows whenever the store turns up.
    ups: watch::Sender<u64>,
    /// When it was last found there, or when this process began.
    seen: Mutex<Instant>,
    /// Which boot of which gateway this is.
    boot: String,
    next: AtomicU64,
    /// Grows whenever what was written, or a message, may have been lost.
    generation: watch::Sender<u64>,
    /// Grows whenever what was written may have been lost.
    losses: watch::Sender<u64>,
    /// Why the last operation failed.
    why: Mutex<String>,
    error_replies: ErrorReplies,
    listeners: OnceLock<Vec<Subscriber>>,
    /// Boots of other gateways, and when they were last heard.
    peers: Mutex<HashMap<String, Instant>>,
    /// Another process speaks for this gateway: nothing is to wait for what this one says.
    is_retired: AtomicBool,
    /// A store that evicts or forgets is taken all the same.
    unsafe_eviction: bool,
    runtime: Handle,
}

impl RedisStore {
    /// Does not wait for the store: it may be away.
    ///
    /// # Errors
    /// No thread or no random bytes can be had.
    pub fn new(address: RedisUrl, unsafe_eviction: bool) -> anyhow::Result<Arc<Self>> {
        let mut boot = [0; 8];
        getrandom::fill(&mut boot).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let store = Arc::new(Self {
            address,
            number: thread_connection::next_number(),
            connection: ArcSwapOption::empty(),
            epoch: AtomicU64::new(0),
            is_up: AtomicBool::new(false),
            room: Semaphore::new(AT_ONCE),
            is_new: AtomicBool::new(false),
            heard: AtomicU64::new(0),
            suspicion: Notify::new(),
            ups: watch::Sender::new(0),
            seen: Mutex::new(Instant::now()),
            boot: boot.map(|byte| format!("{byte:02x}")).concat(),
            next: AtomicU64::new(0),
            generation: watch::Sender::new(1),
            losses: watch::Sender::new(0),
            why: Mutex::default(),
            error_replies: ErrorReplies::default(),
            listeners: OnceLock::new(),
            peers: Mutex::default(),
            is_retired: AtomicBool::new(false),
            unsafe_eviction,
            runtime: runtime.handle().clone(),
        });
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        Ok(store)
    }

    /// Looks after the store from now on, and hands messages to `listeners`.
    pub fn start(self: &Arc<Self>, listeners: Vec<Subscriber>) {
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

    /// Waits for a store that was there just now; whether it is there.
    pub async fn is_back(&self, patience: &mut WaitBudget) -> bool {
        if self.is_up() {
            return true;
        }
        if self.seen.lock().elapsed() > MOMENT {
            return false;
        }
        let mut ups = self.ups();
        let is_up = async { while !self.is_up() && ups.changed().await.is_ok() {} };
        patience.wait(is_up).await.is_some()
    }

    /// Tells whenever the store turns up.
    pub fn ups(&self) -> watch::Receiver<u64> {
        self.ups.subscribe()
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
    /// As [`RedisStore::run`].
    pub async fn life(&self) -> Result<String, StoreUnavailable> {
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

    /// Whether another process speaks for this gateway from now on. Others then don't count it among the
    /// living, though it ends its streams.
    pub fn retire(&self, is_retired: bool) {
        self.is_retired.store(is_retired, Relaxed);
    }

    /// A name that no gateway uses twice.
    pub fn unique(&self) -> String {
        format!("{}-{}", self.boot, self.next.fetch_add(1, Relaxed))
    }

    /// # Errors
    /// The store does not answer; the command may have had its effect all the same.
    pub async fn run<T: FromRedisValue>(&self, command: Cmd) -> Result<T, StoreUnavailable> {
        let run = async |wire: &mut RedisConnection| command.query_async(wire).await;
        Ok(self.within(&mut WaitBudget::of(SILENCE), &name(&command), run).await?)
    }

    /// # Errors
    /// As [`RedisStore::run`].
    pub async fn call<T: FromRedisValue>(
        &self,
        call: ScriptCall<'_>,
    ) -> Result<T, StoreUnavailable> {
        Ok(self.call_within(call, &mut WaitBudget::of(SILENCE)).await?)
    }

    /// # Errors
    /// As [`RedisStore::run`], or it answers with an error.
    pub async fn call_within<T: FromRedisValue>(
        &self,
        call: ScriptCall<'_>,
        patience: &mut WaitBudget,
    ) -> Result<T, StoreFailure> {
        self.within(patience, call.name(), async |wire| call.send(wire).await).await
    }

    /// # Errors
    /// As [`RedisStore::run`].
    pub async fn pipe(&self, pipe: redis::Pipeline) -> Result<(), StoreUnavailable> {
        let run = async |wire: &mut RedisConnection| pipe.exec_async(wire).await;
        Ok(self.within(&mut WaitBudget::of(SILENCE), "a pipeline", run).await?)
    }

    async fn within<T>(
        &self,
        patience: &mut WaitBudget,
        what: &str,
        operation: impl AsyncFnOnce(&mut RedisConnection) -> RedisResult<T>,
    ) -> Result<T, StoreFailure> {
        if !self.is_up() {
            return Err(StoreFailure::Away);
        }
        self.try_within(patience, what, operation).await
    }

    /// [`RedisStore::within`], whether the store is up or not.
    async fn try_within<T>(
        &self,
        patience: &mut WaitBudget,
        what: &str,
        operation: impl AsyncFnOnce(&mut RedisConnection) -> RedisResult<T>,
    ) -> Result<T, StoreFailure> {
        let heard = self.heard.load(Relaxed);
        let mut asked = pin!(self.ask(what, operation));
        if let Some(answer) = patience.part(SUSPICIOUS).wait(&mut asked).await {
            return answer;
        }
        if self.heard.load(Relaxed) == heard {
            self.suspicion.notify_one();
        }
        if let Some(answer) = patience.wait(&mut asked).await {
            return answer;
        }
        if self.heard.load(Relaxed) != heard {
            // Others are answered: it is this connection.
            thread_connection::late(self.number);
        }
        self.failed("no answer in time".into());
        Err(StoreFailure::Away)
    }

    /// A connection that fails is given up, so that those behind it do not wait as well. An answer
    /// that is an error says nothing about the connection, unless it says that another server is to
    /// be asked.
    async fn ask<T>(
        &self,
        what: &str,
        operation: impl AsyncFnOnce(&mut RedisConnection) -> RedisResult<T>,
    ) -> Result<T, StoreFailure> {
        let _room = self.room.acquire().await.map_err(|_| StoreFailure::Away)?;
        let epoch = self.epoch.load(Relaxed);
        let mut wire = self.wire(epoch)?;
        let error = match operation(&mut wire).await {
            Ok(value) => {
                self.heard.fetch_add(1, Relaxed);
                return Ok(value);
            }
            Err(error) => error,
        };
        let is_lost = is_lost(&error);
        self.failed(error.to_string());
        // In a cluster one server may be away and the others serve on: the client knows.
        if is_lost && !wire.is_cluster() {
            self.give_up(epoch);
        }
        if is_lost || error.kind() == ErrorKind::Io {
            return Err(StoreFailure::Away);
        }
        self.heard.fetch_add(1, Relaxed);
        self.error_replies.note(what, &error);
        Err(StoreFailure::Refused)
    }

    /// The connection of this thread, or the common one until there is one of its own.
    fn wire(&self, epoch: u64) -> Result<RedisConnection, StoreFailure> {
        if epoch == 0 {
            return Err(StoreFailure::Away);
        }
        let key = thread_connection::Key { store: self.number, epoch };
        match thread_connection::find(key) {
            ThreadConnection::Is(wire) => return Ok(wire),
            ThreadConnection::Begins => thread_connection::connect(self.address.clone(), key),
            ThreadConnection::Comes => {}
        }
        self.connection.load().as_deref().cloned().ok_or(StoreFailure::Away)
    }

    /// The next look finds the store back. Of a connection that was replaced meanwhile nothing is to be
    /// given up.
    fn give_up(&self, epoch: u64) {
        if self.epoch.compare_exchange(epoch, 0, Relaxed, Relaxed).is_ok() {
            self.is_up.store(false, Relaxed);
            self.connection.store(None);
            self.suspicion.notify_one();
        }
    }

    fn failed(&self, why: String) {
        log::debug!("The shared store failed: {why}.");
        *self.why.lock() = why;
    }

    fn is_cluster(&self) -> bool {
        self.connection.load().as_ref().is_some_and(|wire| wire.is_cluster())
    }
}

/// The command's own name.
fn name(command: &Cmd) -> Cow<'_, str> {
    match command.args_iter().next() {
        Some(redis::Arg::Simple(word)) => String::from_utf8_lossy(word),
        _ => Cow::Borrowed("a command"),
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
