//! Where calls to one shop wait for their turn. One task lets them through, class by class; within a
//! class in the order of their coming, with one waiting call for each address, so that addresses
//! take turns.

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

/// How long a request waits for its turn.
const WAIT: Duration = Duration::from_secs(5);
/// How often waiting calls are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Waiting calls without an address, which can't take turns.
const UNADDRESSED: usize = 64;

/// The way in. Cheap to clone.
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
    turn: oneshot::Sender<CallPermit>,
}

/// Leave to make one call.
#[derive(Debug)]
pub struct CallPermit {
    /// Of which shop.
    pub shop: &'static str,
    here: CallToken,
    /// The same in the budget of all gateways: its pool, and its name there.
    shared: Option<(usize, String)>,
}

impl CallQueue {
    /// The turnstile, and the task that runs it.
    pub fn new(
        shop: &'static str,
        shared: Option<Arc<RedisCache>>,
    ) -> (Self, impl Future<Output = ()> + use<>) {
        let (calls, waiting) = mpsc::unbounded_channel();
        let budget = CallBudget::default();
        let till = CallLimiter { shop, budget, start: Instant::now(), shared };
        (Self { calls }, run(waiting, till))
    }

    /// Waits for a turn; `None`, as soon as that is clear, when there is none in time. A call that is
    /// served behind waits as long as it takes.
    pub async fn pass(
        &self,
        per_minute: usize,
        class: CallPriority,
        address: Option<ClientPrefix>,
    ) -> Option<CallPermit> {
        let (turn, granted) = oneshot::channel();
        let since = Instant::now();
        self.calls
            .send(QueueCommand::Wait(QueuedCall { per_minute, class, address, since, turn }))
            .ok()?;
        match class {
            CallPriority::Behind => granted.await.ok(),
            _ => tokio::time::timeout(WAIT, granted).await.ok()?.ok(),
        }
    }

    /// The call is not made after all.
    pub fn give_back(&self, turn: CallPermit) {
        let _ = self.calls.send(QueueCommand::GiveBack(turn));
    }
}

async fn run(mut calls: mpsc::UnboundedReceiver<QueueCommand>, mut till: CallLimiter) {
    let mut queue = PriorityQueue::default();
    loop {
        let message = match queue.is_empty() {
            true => calls.recv().await.map(Some),
            // Waiting calls are looked at again even when nobody comes.
            false => {
                tokio::time::timeout(TICK, calls.recv()).await.map_or(Some(None), |m| m.map(Some))
            }
        };
        let Some(first) = message else { return };
        for message in first.into_iter().chain(std::iter::from_fn(|| calls.try_recv().ok())) {
            match message {
                QueueCommand::Wait(waiter) => queue.push(waiter),
                QueueCommand::GiveBack(turn) => till.give_back(turn).await,
            }
            // At once: only who really has to wait counts as waiting.
            serve(&mut queue, &mut till).await;
        }
        serve(&mut queue, &mut till).await;
    }
}

async fn serve(queue: &mut PriorityQueue, till: &mut CallLimiter) {
    for class in CallPriority::ALL {
        while let Some(per_minute) = queue.first(class) {
            let turn = match till.take(class, per_minute).await {
                Ok(turn) => turn,
                Err(wait) => {
                    queue.give_up(class, wait);
                    break;
                }
            };
            let unused = match queue.pop(class) {
                Some(waiter) => waiter.turn.send(turn).err(),
                None => Some(turn),
            };
            if let Some(turn) = unused {
                till.give_back(turn).await;
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
    shared: Option<Arc<RedisCache>>,
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
        let Some(shared) = &self.shared else { return Ok(CallPermit { shop, here, shared: None }) };
        match shared.take_call((shop, per_minute), class).await {
            Ok(Ok(taken)) => Ok(CallPermit { shop, here, shared: Some(taken) }),
            Ok(Err(wait)) => {
                self.budget.give_back(&here);
                Err(wait)
            }
            Err(_) => Ok(CallPermit { shop, here, shared: None }),
        }
    }

    async fn give_back(&mut self, turn: CallPermit) {
        self.budget.give_back(&turn.here);
        if let (Some((pool, member)), Some(shared)) = (turn.shared, &self.shared) {
            // Lost when the store is away: one call less in this minute.
            let _ = shared.give_back_call(self.shop, pool, &member).await;
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

    /// An address that waits already is turned away: dropping the sender tells it.
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

    /// Where a call of a class still waits, how many a minute its shop takes. Those who left are taken out,
    /// wherever they stand: their address may come again.
    fn first(&mut self, class: CallPriority) -> Option<usize> {
        for waiter in std::mem::take(&mut self.waiting[class as usize]) {
            self.let_go(&waiter);
            if !waiter.turn.is_closed() {
                self.push(waiter);
            }
        }
        self.waiting[class as usize].front().map(|waiter| waiter.per_minute)
    }

    /// Turns those away for whom there is no turn in time.
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
        self.let_go(&waiter);
        Some(waiter)
    }

    fn let_go(&mut self, waiter: &QueuedCall) {
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
