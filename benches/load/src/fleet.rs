//! One to four gateways on one Redis, and on a cluster: where the throughput ends.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::future::join_all;

use crate::compare::Load;
use crate::contender::{self, Contender, Place, Programs, Running};
use crate::generator::{self, Outcome};
use crate::provider;
use crate::redis::{self, Redis};

/// Gateways, licences that ask (the more there are, the less a gateway tells Redis together), and servers of Redis.
const FLEETS: [(usize, u32, usize); 6] =
    [(1, 1, 1), (2, 1, 1), (3, 1, 1), (4, 1, 1), (4, 12, 1), (4, 12, 3)];
/// Connections to each gateway, of all licences together.
const CONNECTIONS: u32 = 24;

/// Measures each fleet for `time` and prints a line for it.
pub async fn run(programs: &Programs, time: Duration) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let provider = listener.local_addr()?;
    provider::spawn(listener)?;
    println!(
        "\n{:<34} {:>9} {:>20} {:>16} {:>13}",
        "Gateways on Redis", "per s", "gateways' CPU µs", "Redis' CPU µs", "busiest Redis"
    );
    let (mut cost, mut cores) = (0.0, 0.0);
    for (size, licenses, servers) in FLEETS {
        let dir = tempfile::tempdir()?;
        let store = match servers {
            1 => vec![Redis::start(dir.path())?],
            _ => redis::cluster(dir.path(), servers)?,
        };
        let fleet = start(programs, provider, &store[0], (size, licenses)).await?;
        all(&fleet, licenses, time / 5).await?;
        let (before, work, began) = (cpu(&fleet)?, worked(&store)?, Instant::now());
        let served = all(&fleet, licenses, time).await? as f64;
        let elapsed = began.elapsed().as_secs_f64();
        let own = (cpu(&fleet)? - before).as_secs_f64();
        let its =
            worked(&store)?.into_iter().zip(work).map(|(now, then)| (now - then).as_secs_f64());
        let (all, busiest) =
            its.fold((0.0, 0.0_f64), |(sum, most), one| (sum + one, most.max(one)));
        let each = |seconds: f64| seconds * 1e6 / served;
        println!(
            "  {:<32} {:>9.0} {:>20.1} {:>16.1} {:>12.0}%",
            title(size, licenses, servers),
            served / elapsed,
            each(own),
            each(all),
            busiest / elapsed * 100.0
        );
        if (licenses, servers) == (1, 1) {
            (cost, cores) = (each(all), own / elapsed);
        }
    }
    println!(
        "One Redis is busy at {:.0} requests a second of one licence; here the cores, {} in all, are first: {cores:.1} \
         of them are the gateways', the rest is Redis', provider's and generator's.",
        1e6 / cost,
        programs.core.count(),
    );
    Ok(())
}

fn title(size: usize, licenses: u32, servers: usize) -> String {
    match (licenses, servers) {
        (1, 1) => size.to_string(),
        (_, 1) => format!("{size}, {licenses} licences"),
        _ => format!("{size}, {licenses} licences, cluster of {servers}"),
    }
}

async fn start(
    programs: &Programs,
    provider: SocketAddr,
    store: &Redis,
    (size, licenses): (usize, u32),
) -> Result<Vec<Running>> {
    let mut fleet = Vec::new();
    for _ in 0..size {
        let (place, who) = (Arc::new(Place::with_licenses(licenses)?), Contender::Redis);
        fleet.push(contender::start_in(place, who, programs, provider, Some(store)).await?);
    }
    Ok(fleet)
}

/// Loads all of them at once; how many requests were answered.
async fn all(fleet: &[Running], licenses: u32, time: Duration) -> Result<usize> {
    let ask = Load::Json.ask();
    let keys: Vec<String> = (0..licenses).map(contender::key).collect();
    let loads = fleet.iter().flat_map(|one| {
        let load = |key| generator::load(one.address, key, ask, CONNECTIONS / licenses, time);
        keys.iter().map(move |key| load(key))
    });
    let mut served = 0;
    for outcome in join_all(loads).await {
        let outcome: Outcome = outcome?;
        served += outcome.latencies.len();
    }
    Ok(served)
}

fn worked(store: &[Redis]) -> Result<Vec<Duration>> {
    store.iter().map(|one| Ok(one.work()?.cpu)).collect()
}

fn cpu(fleet: &[Running]) -> Result<Duration> {
    fleet.iter().map(Running::cpu).sum()
}
