//! Priority queue of calls to one shop. One task grants them, by class; within a class in order of arrival,
//! with one waiting call per address, so that addresses share the budget.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    address_throttle::ClientPrefix,
    call_budget::{CallBudget, CallPriority, CallToken},
    redis_cache::RedisCache,
};

/// How long a request waits for a permit.
const WAIT: Duration = Duration::from_secs(5);
/// Interval at which waiting calls are checked.
const TICK: Duration = Duration::from_millis(100);
/// Maximum number of waiting calls without an address.
const UNADDRESSED: usize = 64;

/// Handle to the queue. Cheap to clone.
#[derive(Clone)]
pub struct CallQueue {
    calls: mpsc::UnboundedSender<QueueCommand>,
}

enum QueueCommand {
    Wait(QueuedCall),
    GiveBack(CallPermit),
}

struct QueuedCall {
    /// How many calls a minute the shop takes.
    per_minute: usize,
    class: CallPriority,
    address: Option<ClientPrefix>,
    since: Instant,
    permit: oneshot::Sender<CallPermit>,
}

/// Permission to make one call.
#[derive(Debug)]
pub struct CallPermit {
    /// Of which shop.
    pub shop: &'static str,
    here: CallToken,
    /// The same in the budget of all gateways: its pool, and its name there.
    shared_call: Option<(usize, String)>,
}

impl CallQueue {
    /// The queue, and the task that runs it.
    pub fn new(
        shop: &'static str,
        redis_cache: Option<Arc<RedisCache>>,
    ) -> (Self, impl Future<Output = ()> + use<>) {
        let (calls, waiting) = mpsc::unbounded_channel();
        let budget = CallBudget::default();
        let limiter = CallLimiter { shop, budget, start: Instant::now(), redis_cache };
        (Self { calls }, run(waiting, limiter))
    }

    /// Waits for a permit; `None` as soon as it is clear that there is none in time. Background calls wait
    /// without a limit.
    pub async fn acquire(
        &self,
        per_minute: usize,
        class: CallPriority,
        address: Option<ClientPrefix>,
    ) -> Option<CallPermit> {
        let (permit, granted) = oneshot::channel();
        let since = Instant::now();
        self.calls
            .send(QueueCommand::Wait(QueuedCall { per_minute, class, address, since, permit }))
            .ok()?;
        match class {
            CallPriority::Behind => granted.await.ok(),
            _ => tokio::time::timeout(WAIT, granted).await.ok()?.ok(),
        }
    }

    /// The call is not made after all.
    pub fn give_back(&self, permit: CallPermit) {
        let _ = self.calls.send(QueueCommand::GiveBack(permit));
    }
}

async fn run(mut calls: mpsc::UnboundedReceiver<QueueCommand>, mut limiter: CallLimiter) {
    let mut queue = PriorityQueue::default();
    loop {
        let message = match queue.is_empty() {
            true => calls.recv().await.map(Some),
            // Waiting calls are checked at intervals, too.
            false => {
                tokio::time::timeout(TICK, calls.recv()).await.map_or(Some(None), |m| m.map(Some))
            }
        };
        let Some(first) = message else { return };
        for message in first.into_iter().chain(std::iter::from_fn(|| calls.try_recv().ok())) {
            match message {
                QueueCommand::Wait(waiter) => queue.push(waiter),
                QueueCommand::GiveBack(permit) => limiter.give_back(permit).await,
            }
            // At once, so that only calls that have to wait count as waiting.
            serve(&mut queue, &mut limiter).await;
        }
        serve(&mut queue, &mut limiter).await;
    }
}

async fn serve(queue: &mut PriorityQueue, limiter: &mut CallLimiter) {
    for class in CallPriority::ALL {
        while let Some(per_minute) = queue.first(class) {
            let permit = match limiter.take(class, per_minute).await {
                Ok(permit) => permit,
                Err(wait) => {
                    queue.give_up(class, wait);
                    break;
                }
            };
            let unused = match queue.pop(class) {
                Some(waiter) => waiter.permit.send(permit).err(),
                None => Some(permit),
            };
            if let Some(permit) = unused {
                limiter.give_back(permit).await;
            }
        }
    }
}

/// This gateway's own budget, and that of all gateways while the shared store answers. A call needs
/// room in both: the shared one is empty after the store was lost.
struct CallLimiter {
    shop: &'static str,
    budget: CallBudget,
    start: Instant,
    redis_cache: Option<Arc<RedisCache>>,
}

impl CallLimiter {
    /// # Errors
    /// How long it takes until there may be one.
    async fn take(
        &mut self,
        class: CallPriority,
        per_minute: usize,
    ) -> Result<CallPermit, Duration> {
        let (shop, now) = (self.shop, self.start.elapsed().as_millis() as u64);
        let here = self.budget.take(class, per_minute, now).map_err(Duration::from_millis)?;
        let Some(redis) = &self.redis_cache else {
            return Ok(CallPermit { shop, here, shared_call: None });
        };
        match redis.take_call((shop, per_minute), class).await {
            Ok(Ok(taken)) => Ok(CallPermit { shop, here, shared_call: Some(taken) }),
            Ok(Err(wait)) => {
                self.budget.give_back(&here);
                Err(wait)
            }
            Err(_) => Ok(CallPermit { shop, here, shared_call: None }),
        }
    }

    async fn give_back(&mut self, permit: CallPermit) {
        self.budget.give_back(&permit.here);
        if let (Some((pool, member)), Some(redis)) = (permit.shared_call, &self.redis_cache) {
            // Lost when the store is away: one call less in this minute.
            let _ = redis.give_back_call(self.shop, pool, &member).await;
        }
    }
}

/// Waiting calls by class.
#[derive(Default)]
struct PriorityQueue {
    waiting: [VecDeque<QueuedCall>; CallPriority::ALL.len()],
    addresses: HashSet<ClientPrefix>,
    unaddressed: usize,
}

impl PriorityQueue {
    fn is_empty(&self) -> bool {
        self.waiting.iter().all(VecDeque::is_empty)
    }

    /// A second call of an address is refused: dropping its sender reports that.
    fn push(&mut self, waiter: QueuedCall) {
        let room = match waiter.address {
            _ if !is_counted(waiter.class) => true,
            Some(address) => self.addresses.insert(address),
            None if self.unaddressed < UNADDRESSED => {
                self.unaddressed += 1;
                true
            }
            None => false,
        };
        if room {
            self.waiting[waiter.class as usize].push_back(waiter);
        }
    }

    /// The calls per minute of the shop, if a call of this class is waiting. Cancelled calls are removed at
    /// any position, so that their address may queue again.
    fn first(&mut self, class: CallPriority) -> Option<usize> {
        for waiter in std::mem::take(&mut self.waiting[class as usize]) {
            self.release(&waiter);
            if !waiter.permit.is_closed() {
                self.push(waiter);
            }
        }
        self.waiting[class as usize].front().map(|waiter| waiter.per_minute)
    }

    /// Drops the calls that get no permit in time.
    fn give_up(&mut self, class: CallPriority, wait: Duration) {
        let has_time = |waiter: &QueuedCall| waiter.since.elapsed() + wait <= WAIT;
        while class != CallPriority::Behind
            && self.waiting[class as usize].front().is_some_and(|first| !has_time(first))
        {
            self.pop(class);
        }
    }

    fn pop(&mut self, class: CallPriority) -> Option<QueuedCall> {
        let waiter = self.waiting[class as usize].pop_front()?;
        self.release(&waiter);
        Some(waiter)
    }

    fn release(&mut self, waiter: &QueuedCall) {
        match waiter.address {
            _ if !is_counted(waiter.class) => {}
            Some(address) => drop(self.addresses.remove(&address)),
            None => self.unaddressed -= 1,
        }
    }
}

/// Whether an address may wait with one call of this class only.
fn is_counted(class: CallPriority) -> bool {
    matches!(class, CallPriority::Clean | CallPriority::Rest)
}
