//! Three gateways on one Redis under load, with one fault after the other. `make soak` has more time.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::{
    ledger::shared_ledger::Fleet,
    ledger::shared_trouble::Load,
    support::{Gateway, Noise, Reply, eventually, repeat, sse},
};

/// Resident memory, in KiB.
fn memory(gateway: &Gateway) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soak_with_one_fault_after_the_other_counts_every_answer_once() {
    let plan = "messages: 10000000/month, tokens: 10000000000/month, rate: 9000000/hour, \
                concurrency: 100, models: [fast]";
    let mut fleet = Fleet::start(3, plan, Reply::chat(), "").await;
    let load = Load::on(&fleet.gateways, 6, &[200, 503]);
    let (began, mut noise) = (Instant::now(), Noise::new(7));
    let time = repeat::time("GATEKEEPER_SOAK_SECONDS", 12.0);
    let mut faults = 0;
    let mut settled_in = Vec::new();
    while began.elapsed() < time {
        tokio::time::sleep(Duration::from_secs(2)).await;
        match noise.below(4) {
            0 => fleet.redis.flush(),
            1 => drop(fleet.redis.ask(&["SCRIPT", "FLUSH"])),
            2 => drop(fleet.redis.ask(&["CLIENT", "PAUSE", "1500", "ALL"])),
            _ => {
                fleet.redis.kill();
                tokio::time::sleep(Duration::from_millis(700)).await;
                fleet.redis.restart().await;
            }
        }
        faults += 1;
        tokio::time::sleep(Duration::from_secs(2)).await;
        fleet.is_counting().await;
        if began.elapsed() > time / 3 {
            settled_in.push(fleet.gateways.iter().map(memory).max().unwrap());
        }
    }
    let served = load.end().await;
    assert_eq!(fleet.mock.count() as u64, served);
    fleet.used_is(served, served * sse::TOKENS).await;
    for gateway in &fleet.gateways {
        eventually("nothing is open at rest", Duration::from_secs(5), || async {
            gateway.metrics().await.sum("gatekeeper_reservations_open", &[]) == 0.0
        })
        .await;
    }
    let (first, last) = (settled_in[0], settled_in[settled_in.len() - 1]);
    // Memory of a warm gateway: a sixth more at most, and 4 MiB for what comes and goes.
    assert!(last <= first + first / 6 + 4096, "{first} KiB became {last} KiB");
    println!(
        "{} s of load, {faults} faults of Redis: {served} answers, all of them counted once; at most {last} KiB",
        began.elapsed().as_secs()
    );
}
