//! The gateway's allocator, with a count of what it is asked for.
#![allow(
    unsafe_code,
    reason = "an allocator is unsafe by its trait; each call is passed on as it is"
)]

use std::{
    alloc::{GlobalAlloc, Layout},
    array,
    cell::Cell,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use tikv_jemallocator::Jemalloc;

/// Threads that are told apart; all after them share the last place.
pub const THREADS: usize = 256;

static CALLS: [AtomicU64; THREADS] = [const { AtomicU64::new(0) }; THREADS];
static BYTES: [AtomicU64; THREADS] = [const { AtomicU64::new(0) }; THREADS];
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// This thread's place, one up; no destructor, so it can be used to the thread's very end.
    static PLACE: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Counting;

/// Allocations so far, and reallocations, of each thread; then the bytes that each asked for.
pub fn counts() -> [[u64; THREADS]; 2] {
    [&CALLS, &BYTES].map(|counts| array::from_fn(|thread| counts[thread].load(Relaxed)))
}

fn count(bytes: usize) {
    let place = PLACE.with(|place| {
        if place.get() == 0 {
            place.set(NEXT.fetch_add(1, Relaxed) + 1);
        }
        place.get() - 1
    });
    let place = place.min(THREADS - 1);
    CALLS[place].fetch_add(1, Relaxed);
    BYTES[place].fetch_add(bytes as u64, Relaxed);
}

// SAFETY: every call goes to jemalloc with the caller's own arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { Jemalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { Jemalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        unsafe { Jemalloc.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { Jemalloc.dealloc(memory, layout) }
    }
}
