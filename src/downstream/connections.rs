//! All connections of a listener: whether one more finds room, and which end to make some.
//!
//! The capacity is what file descriptors and memory allow. A connection that waits for its next request
//! counts twice among the descriptors, as it will need one for its provider. When less than half of the
//! capacity is free, an address is limited to its share; when an eighth is, the longest idle connections
//! are closed, those of addresses at their share first.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::{
    address_block::Block,
    connection::{ClientConnection, now},
};
use crate::os::fd_limit::FdBudget;

/// A connection is idle when no byte came for so long, in milliseconds.
const IDLE: u64 = 1000;
/// As long is a head of a valid licence on its way before it counts as slow.
const SLOW: u64 = IDLE;
/// A connection that no valid licence has used may be silent for so long when there is no room at all, and its head
/// may take three times as long.
const STRANGE: u64 = 200;
/// Between two looks whether there is room again.
const LOOK: Duration = Duration::from_millis(10);
/// Between two looks for idle connections while there is room, in milliseconds: each looks at all.
const SEARCH: u64 = 50;
/// Bytes of heads that are not whole yet, over all connections, beside the first 4 KiB of each.
const HEADS: usize = 32 * 1024 * 1024;

/// Which connections end first, while no request is under way on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Idle,
    Strange,
    Slow,
}

/// The smallest goes first.
type Rank = (Class, bool, u64);

/// And since when, in milliseconds; `None` for those that stay.
fn class(connection: &ClientConnection, now: u64) -> Option<(Class, u64)> {
    let waits = connection.waits_ms(now)?;
    let quiet = connection.quiet_ms(now).min(waits);
    let strange = quiet.max(waits / 3);
    if quiet >= IDLE {
        Some((Class::Idle, quiet))
    } else if !connection.is_licensed() && strange >= STRANGE {
        Some((Class::Strange, strange))
    } else if waits >= SLOW {
        Some((Class::Slow, waits))
    } else {
        None
    }
}

/// What connections may take.
#[derive(Debug)]
pub enum Room {
    /// What is left of the descriptors for apps, and so many for what memory carries.
    Shared(Arc<FdBudget>, usize),
    /// So many, whatever else is open.
    Fixed(usize),
}

pub struct Connections {
    room: Room,
    list: Mutex<List>,
    /// Connections without a request under way.
    idle: AtomicU64,
    /// All of them; read by the process' end.
    count: Arc<AtomicUsize>,
    /// Bytes of unfinished heads.
    heads: AtomicUsize,
    /// When idle connections were looked for last.
    searched: AtomicU64,
    refused: Mutex<Disposition>,
}

/// When the log was last written, and how many events were skipped since.
#[derive(Default)]
struct Disposition {
    at: Option<Instant>,
    times: u64,
}

#[derive(Default)]
struct List {
    next: u64,
    seats: FxHashMap<u64, Arc<ClientConnection>>,
    by_block: FxHashMap<Block, usize>,
}

/// The place of one connection, until it is dropped.
pub struct Seat {
    pub connection: Arc<ClientConnection>,
    of: Arc<Connections>,
    number: u64,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.of.count.fetch_sub(1, Relaxed);
        if self.connection.waits_ms(0).is_some() {
            self.of.idle.fetch_sub(1, Relaxed);
        }
        let mut list = self.of.list.lock();
        list.seats.remove(&self.number);
        if let Some(block) = self.connection.block
            && let Some(count) = list.by_block.get_mut(&block)
        {
            *count -= 1;
            if *count == 0 {
                list.by_block.remove(&block);
            }
        }
    }
}

/// A request under way, until it is dropped.
pub struct Busy<'a> {
    of: &'a Connections,
    connection: &'a ClientConnection,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if self.connection.end() {
            self.of.idle.fetch_add(1, Relaxed);
        }
    }
}

/// Bytes of a head that is not whole yet, until it is dropped.
pub struct HeadShare<'a> {
    of: &'a Connections,
    bytes: usize,
}

impl HeadShare<'_> {
    /// Whether a head may grow to so many bytes.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        self.bytes += more;
        self.of.heads.fetch_add(more, Relaxed) + more <= HEADS
    }
}

impl Drop for HeadShare<'_> {
    fn drop(&mut self) {
        self.of.heads.fetch_sub(self.bytes, Relaxed);
    }
}

impl Connections {
    pub fn new(room: Room) -> Arc<Self> {
        Arc::new(Self {
            room,
            list: Mutex::default(),
            idle: AtomicU64::new(0),
            count: Arc::default(),
            heads: AtomicUsize::new(0),
            searched: AtomicU64::new(0),
            refused: Mutex::default(),
        })
    }

    /// How many there are.
    pub fn count(&self) -> Arc<AtomicUsize> {
        self.count.clone()
    }

    /// Whether an address has its share already, which counts where less than half of the room is free. `cap` is that
    /// share; by default a quarter of the room.
    pub fn has_share(&self, block: Block, cap: Option<usize>) -> bool {
        let count = self.list.lock().by_block.get(&block).copied().unwrap_or(0);
        // Descriptors are counted last: that is a system call.
        let has = count >= self.cap(cap) && self.taken() > self.size() / 2;
        if has {
            self.shed_of(block, now());
            self.say_refused(block);
        }
        has
    }

    /// Takes in a connection; of an address where limits by address hold for it.
    pub fn admit(self: &Arc<Self>, block: Option<Block>) -> Seat {
        let connection = ClientConnection::new(block);
        let mut list = self.list.lock();
        if let Some(block) = block {
            *list.by_block.entry(block).or_default() += 1;
        }
        let number = list.next;
        list.next += 1;
        list.seats.insert(number, connection.clone());
        drop(list);
        self.idle.fetch_add(1, Relaxed);
        self.count.fetch_add(1, Relaxed);
        Seat { connection, of: self.clone(), number }
    }

    /// Marks that a request is under way.
    pub fn busy<'a>(&'a self, connection: &'a ClientConnection) -> Busy<'a> {
        if connection.begin() {
            self.idle.fetch_sub(1, Relaxed);
        }
        Busy { of: self, connection }
    }

    pub fn head_share(&self) -> HeadShare<'_> {
        HeadShare { of: self, bytes: 0 }
    }

    /// How many places there are.
    fn size(&self) -> usize {
        match &self.room {
            Room::Shared(descriptors, most) => (descriptors.for_apps() as usize).min(*most),
            Room::Fixed(most) => *most,
        }
    }

    fn cap(&self, configured: Option<usize>) -> usize {
        configured.unwrap_or_else(|| (self.size() / 4).max(1))
    }

    /// How many of them are taken.
    fn taken(&self) -> usize {
        let count = self.count.load(Relaxed);
        match &self.room {
            Room::Shared(descriptors, most) => {
                let used = descriptors.used() + self.idle.load(Relaxed);
                let files = descriptors.for_apps().saturating_sub(used) as usize;
                self.size() - files.min(most.saturating_sub(count)).min(self.size())
            }
            Room::Fixed(most) => count.min(*most),
        }
    }

    /// Waits until one more connection, which is open already, finds room; ends idle ones for it.
    pub async fn room(&self, cap: Option<usize>) {
        let (size, cap) = (self.size(), self.cap(cap));
        loop {
            let taken = self.taken();
            let lacks = (taken + size / 8).saturating_sub(size);
            if lacks > 0 {
                self.shed(lacks, cap, taken >= size, now());
            }
            if taken < size {
                return;
            }
            if let Room::Shared(descriptors, _) = &self.room {
                descriptors.say_short();
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Makes so much room: ends idle connections of addresses that have their share first, then the longest idle.
    /// Where none is idle and there `is_none` left, those go that no valid licence has used, and whose head is on
    /// its way longest.
    fn shed(&self, lacks: usize, cap: usize, is_none: bool, now: u64) {
        let pause = if is_none { LOOK.as_millis() as u64 } else { SEARCH };
        if now.saturating_sub(self.searched.load(Relaxed)) < pause {
            return;
        }
        self.searched.store(now, Relaxed);
        let wanted = match self.room {
            Room::Shared(..) => lacks.div_ceil(2),
            Room::Fixed(_) => lacks,
        };
        let list = self.list.lock();
        let mut told = 0;
        let mut found: Vec<(Rank, &Arc<ClientConnection>)> = Vec::new();
        for connection in list.seats.values() {
            if connection.is_told() {
                told += 1;
                continue;
            }
            let Some((class, since)) = class(connection, now) else { continue };
            if class == Class::Idle || is_none {
                let block = connection.block.and_then(|block| list.by_block.get(&block));
                let has_share = block.is_some_and(|count| *count >= cap);
                found.push(((class, !has_share, u64::MAX - since), connection));
            }
        }
        let wanted = wanted.saturating_sub(told);
        if wanted < found.len() {
            found.select_nth_unstable_by_key(wanted, |(rank, _)| *rank);
            found.truncate(wanted);
        }
        for (_, connection) in found {
            connection.tell_to_leave();
        }
    }

    /// Closes the longest idle connection of an address at its limit.
    fn shed_of(&self, block: Block, now: u64) {
        let list = self.list.lock();
        let of_block = list.seats.values().filter(|one| one.block == Some(block) && !one.is_told());
        let idle =
            of_block.filter(|one| class(one, now).is_some_and(|(class, _)| class == Class::Idle));
        if let Some(longest) = idle.max_by_key(|one| one.quiet_ms(now)) {
            longest.tell_to_leave();
        }
    }

    fn say_refused(&self, block: Block) {
        let mut said = self.refused.lock();
        said.times += 1;
        if said.at.is_none_or(|at| at.elapsed() >= Duration::from_secs(60)) {
            log::warn!(
                "{} connections of {} were refused: the address has reached `server.limits.connections_per_address`, \
                 and less than half of all connections are free.",
                std::mem::take(&mut said.times),
                block.0,
            );
            said.at = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str) -> Block {
        Block::of(text.parse().unwrap())
    }

    #[test]
    fn an_address_has_its_share_when_less_than_half_is_free() {
        let all = Connections::new(Room::Fixed(20));
        let (one, other) = (block("192.0.2.1"), block("192.0.2.2"));
        let mut seats: Vec<Seat> = (0..10).map(|_| all.admit(Some(one))).collect();
        assert!(!all.has_share(one, Some(5)), "half is free");
        seats.push(all.admit(Some(one)));
        assert!(all.has_share(one, Some(5)), "its share is taken, and 9 of 20 are free");
        assert!(all.has_share(one, None) && !all.has_share(one, Some(12)));
        assert!(!all.has_share(other, Some(5)));
        seats.drain(..7);
        assert!(!all.has_share(one, Some(5)));
        assert_eq!(block("2001:db8::1"), block("2001:db8::ffff:1"), "one household");
        assert_ne!(block("2001:db8:0:1::1"), block("2001:db8::1"));
        assert_eq!(block("::ffff:192.0.2.1"), one);
    }

    /// Which of these seats are told to close.
    fn told(seats: &[Seat]) -> Vec<bool> {
        seats.iter().map(|seat| seat.connection.is_told()).collect()
    }

    #[test]
    fn the_longest_idle_go_first_and_before_them_those_of_who_has_a_share() {
        let all = Connections::new(Room::Fixed(8));
        let blocks = ["192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.3"].map(block);
        let seats: Vec<Seat> = blocks.map(|block| all.admit(Some(block))).into_iter().collect();
        let began = now();
        let busy = all.busy(&seats[1].connection);
        all.shed(1, 2, true, began + 100);
        assert_eq!(told(&seats), [false; 4], "all have just come");
        all.shed(1, 2, true, began + 2000);
        assert_eq!(told(&seats), [false, false, true, false], "of who has a share, not busy");
        all.shed(1, 2, true, began + 2050);
        assert_eq!(told(&seats), [false, false, true, false], "one is on its way out already");
        drop(busy);
        all.shed(4, 2, true, began + 2100);
        assert_eq!(told(&seats), [true; 4]);
    }

    #[test]
    fn who_holds_a_licence_stays_longest() {
        let all = Connections::new(Room::Fixed(8));
        let seats: Vec<Seat> = (0..2).map(|_| all.admit(None)).collect();
        seats[0].connection.license();
        let began = now();
        all.shed(2, 2, false, began + 500);
        assert_eq!(told(&seats), [false; 2], "there is room, and none is idle");
        all.shed(2, 2, true, began + 600);
        assert_eq!(told(&seats), [false, true]);
        all.shed(2, 2, false, began + 1100);
        assert_eq!(told(&seats), [true; 2], "idle");
    }

    #[test]
    fn what_is_given_back_is_counted_once() {
        let all = Connections::new(Room::Fixed(8));
        let seat = all.admit(Some(block("192.0.2.1")));
        assert_eq!((all.idle.load(Relaxed), all.count.load(Relaxed)), (1, 1));
        let (first, second) = (all.busy(&seat.connection), all.busy(&seat.connection));
        assert_eq!(all.idle.load(Relaxed), 0);
        drop(first);
        assert_eq!(all.idle.load(Relaxed), 0);
        drop(second);
        assert_eq!(all.idle.load(Relaxed), 1);
        drop(seat);
        assert_eq!((all.idle.load(Relaxed), all.count.load(Relaxed)), (0, 0));
        assert!(all.list.lock().by_block.is_empty());
        let mut share = all.head_share();
        assert!(share.grow(HEADS) && !share.grow(HEADS + 1));
        drop(share);
        assert_eq!(all.heads.load(Relaxed), 0);
    }
}
