//! One, two, three gateways on one Redis: where the throughput ends.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::compare::Load;
use crate::contender::{self, Contender, KEY, Programs, Running};
use crate::generator::{self, Outcome};
use crate::provider;
use crate::redis::Redis;

const LARGEST: usize = 3;
/// Connections to each gateway.
const CONNECTIONS: u32 = 16;

/// Measures fleets of each size for `time` and prints a line for each.
pub async fn run(programs: &Programs, time: Duration) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let provider = listener.local_addr()?;
    provider::spawn(listener)?;
    println!(
        "\n{:<22} {:>9} {:>20} {:>20} {:>12}",
        "Gateways on one Redis", "per s", "gateways' CPU µs", "Redis' CPU µs", "Redis busy"
    );
    let (mut cost, mut cores) = (0.0, 0.0);
    for size in 1..=LARGEST {
        let dir = tempfile::tempdir()?;
        let redis = Redis::start(dir.path())?;
        let fleet = start(programs, provider, &redis, size).await?;
        all(&fleet, time / 5).await?;
        let (cpu, work, began) = (cpu(&fleet)?, redis.work()?, Instant::now());
        let served = all(&fleet, time).await? as f64;
        let elapsed = began.elapsed().as_secs_f64();
        let own = (self::cpu(&fleet)? - cpu).as_secs_f64();
        let its = (redis.work()?.cpu - work.cpu).as_secs_f64();
        let each = |seconds: f64| seconds * 1e6 / served;
        println!(
            "  {size:<20} {:>9.0} {:>20.1} {:>20.1} {:>11.0}%",
            served / elapsed,
            each(own),
            each(its),
            its / elapsed * 100.0
        );
        (cost, cores) = (each(its), own / elapsed);
    }
    println!(
        "One Redis is busy at {:.0} requests a second; here the cores, {} in all, are first: {cores:.1} of \
         them are the gateways', the rest is Redis', provider's and generator's.",
        1e6 / cost,
        programs.core.count(),
    );
    Ok(())
}

async fn start(
    programs: &Programs,
    provider: SocketAddr,
    redis: &Redis,
    size: usize,
) -> Result<Vec<Running>> {
    let mut fleet = Vec::new();
    for _ in 0..size {
        let who = Contender::Redis;
        fleet.push(contender::start_beside(who, programs, provider, Some(redis)).await?);
    }
    Ok(fleet)
}

/// Loads all of them at once; how many requests were answered.
async fn all(fleet: &[Running], time: Duration) -> Result<usize> {
    let ask = Load::Json.ask();
    let loads = fleet.iter().map(|one| generator::load(one.address, KEY, ask, CONNECTIONS, time));
    let mut served = 0;
    for outcome in futures(loads).await {
        let outcome: Outcome = outcome?;
        served += outcome.latencies.len();
    }
    Ok(served)
}

/// Runs futures of this thread side by side.
async fn futures<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = all.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, output) in &mut waiting {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        match waiting.iter().all(|(_, output)| output.is_some()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    waiting.into_iter().filter_map(|(_, output)| output).collect()
}

fn cpu(fleet: &[Running]) -> Result<Duration> {
    fleet.iter().map(Running::cpu).sum()
}
