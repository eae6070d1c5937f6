//! What counting costs a request: a reservation and its settlement, durable against `kill -9`.
#![allow(clippy::unwrap_used)]

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use gatekeeper::ledger::{EmbeddedLedger, Residency};
use gatekeeper_filters::kernel::{
    About, Charge, Demand, Denied, Ledger, LicenseId, Limit, Period, UnixMs, UsageSource,
};

fn demand(licence: u8) -> Demand {
    let limit = |count| Some(Limit { count, per: Period::Month });
    Demand {
        license: LicenseId([licence; 32]),
        now: UnixMs::now(),
        about: About::default(),
        input_cost: 0,
        messages: limit(u64::MAX),
        tokens: limit(u64::MAX),
        input: 100,
        output: Some(900),
        min_output: 256,
        pace: None,
        message_id: None,
        conversation: None,
    }
}

/// One request; waits where the journal is full, as no gateway would.
fn request(ledger: &EmbeddedLedger, demand: &Demand) {
    loop {
        let future = pin!(ledger.reserve(demand));
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(grant)) => {
                let source = UsageSource::Reported;
                let charge = Charge { message: true, tokens: 300, source, about: None };
                return ledger.settle(grant.hold, charge);
            }
            Poll::Ready(Err(Denied::StoreDown)) => std::thread::sleep(Duration::from_millis(1)),
            Poll::Ready(Err(_)) | Poll::Pending => return,
        }
    }
}

fn counting(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = EmbeddedLedger::open(
        &dir.path().join("store.db"),
        Duration::from_secs(60),
        Residency::OnDemand,
    )
    .unwrap();
    let mut group = c.benchmark_group("ledger");
    group.bench_function("reserve_settle", |b| {
        let demand = demand(1);
        b.iter(|| request(&ledger, &demand));
    });
    // Time for one request of each of two threads, different licences.
    group.bench_function("reserve_settle_2_threads", |b| {
        b.iter_custom(|count| {
            let begin = Instant::now();
            std::thread::scope(|scope| {
                for licence in [2, 3] {
                    let (ledger, demand) = (&ledger, demand(licence));
                    scope.spawn(move || (0..count).for_each(|_| request(ledger, &demand)));
                }
            });
            begin.elapsed()
        });
    });
    group.finish();
}

criterion_group!(benches, counting);
criterion_main!(benches);
