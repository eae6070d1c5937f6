//! A start on a store that knows many licences, beside one that knows none.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use rusqlite::Connection;
use rustix::thread::sched_getaffinity;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::contender::{self, Contender, KEY, Place, Programs, Running, Upstream};
use crate::generator;
use crate::provider;
use crate::redis::Redis;
use crate::traffic::Ask;

/// Requests that are compared.
const LOADED: Duration = Duration::from_millis(1500);
/// Licences that ask on Redis.
const LISTED: u32 = 10_000;
/// How many of them at one time.
const AT_ONCE: usize = 16;

/// What a start costs, and what is served after it.
struct Figures {
    start: Duration,
    rss: u64,
    first_status: Duration,
    next_status: Duration,
    /// Processor time of a request.
    request: Duration,
}

/// [`run`] with the gateway at `gatekeeper`, or the one beside this program.
pub async fn alone(gatekeeper: Option<PathBuf>, licenses: u32) -> Result<()> {
    let beside = std::env::current_exe()?.parent().context("no folder")?.join("gatekeeper");
    let programs = Programs {
        nginx: PathBuf::new(),
        bare: PathBuf::new(),
        gatekeeper: gatekeeper.unwrap_or(beside),
        gatekeeper_env: None,
        profiles: None,
        core: sched_getaffinity(None)?,
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = Upstream::from(listener.local_addr()?);
    provider::spawn(listener)?;
    run(&programs, &address, licenses).await?;
    run_on_redis(&programs, &address).await
}

/// Prints the figures of a store without licences, and with so many that were used this month.
pub async fn run(programs: &Programs, provider: &Upstream, licenses: u32) -> Result<()> {
    println!(
        "\n{:<22} {:>9} {:>12} {:>17} {:>17} {:>14}",
        "Licences in the store", "start", "memory", "first /status", "/status", "CPU µs/request"
    );
    let place = Arc::new(Place::new()?);
    let empty = measure(&place, programs, provider).await?;
    print(1, &empty);
    fill(&place.dir.path().join("gatekeeper.db"), licenses)?;
    let full = measure(&place, programs, provider).await?;
    print(licenses, &full);
    let each = full.rss.saturating_sub(empty.rss) as f64 / f64::from(licenses);
    println!("A licence that is not in use takes {each:.0} bytes of memory.");
    Ok(())
}

fn print(licenses: u32, figures: &Figures) {
    println!(
        "  {licenses:<20} {:>7.2} s {:>8.1} MiB {:>14.1} ms {:>14.1} ms {:>14.1}",
        figures.start.as_secs_f64(),
        figures.rss as f64 / f64::from(1 << 20),
        figures.first_status.as_secs_f64() * 1e3,
        figures.next_status.as_secs_f64() * 1e3,
        figures.request.as_secs_f64() * 1e6,
    );
}

async fn measure(place: &Arc<Place>, programs: &Programs, provider: &Upstream) -> Result<Figures> {
    let who = Contender::Gatekeeper;
    let began = Instant::now();
    let running = contender::start_in(place.clone(), who, programs, provider.clone(), None).await?;
    let start = began.elapsed();
    let rss = running.rss()?;
    let first_status = status(running.admin()).await?;
    // Until it has counted which are active.
    sleep(Duration::from_secs(3)).await;
    let next_status = status(running.admin()).await?;
    let request = request(&running).await?;
    // What was counted is in the database when the process is killed.
    sleep(Duration::from_secs(1)).await;
    Ok(Figures { start, rss, first_status, next_status, request })
}

/// Of Redis and of a gateway, a licence that has asked.
pub async fn run_on_redis(programs: &Programs, provider: &Upstream) -> Result<()> {
    let place = Arc::new(Place::with_licenses(LISTED)?);
    let store = Redis::start(place.dir.path())?;
    let who = Contender::Redis;
    let running = contender::start_in(place, who, programs, provider.clone(), Some(&store)).await?;
    // What the first requests of all take is no licence's.
    generator::load(running.address, KEY, Ask::JSON, AT_ONCE as u32, LOADED).await?;
    let before = (store.memory()?, running.rss()?);
    let keys = (1..LISTED).map(contender::key);
    let ask = |key: String| async move { generator::once(running.address, &key, Ask::JSON).await };
    stream::iter(keys).map(ask).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    sleep(Duration::from_secs(2)).await;
    let each = |now: u64, then: u64| now.saturating_sub(then) / u64::from(LISTED - 1);
    println!(
        "A licence of this month takes {} bytes of Redis, and {} of a gateway while it is in use ({LISTED} licences).",
        each(store.memory()?, before.0),
        each(running.rss()?, before.1),
    );
    Ok(())
}

async fn request(running: &Running) -> Result<Duration> {
    let before = running.cpu()?;
    let outcome = generator::load(running.address, KEY, Ask::JSON, 8, LOADED).await?;
    Ok((running.cpu()? - before) / outcome.latencies.len() as u32)
}

async fn status(admin: SocketAddr) -> Result<Duration> {
    let began = Instant::now();
    let mut connection = TcpStream::connect(admin).await?;
    let request = format!("GET /status HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await?;
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "/status is not answered");
    Ok(began.elapsed())
}

/// Adds licences that were used this month, a tenth of them today.
fn fill(path: &Path, licenses: u32) -> Result<()> {
    let store = Connection::open(path)?;
    store.execute_batch(&format!(
        "CREATE TEMP TABLE made AS
         WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < {licenses} - 1)
         SELECT n, printf('%08x%056x', n * 4294 * 1000000 / {licenses}, n) AS license FROM n;
         BEGIN;
         INSERT OR IGNORE INTO usage
         SELECT license, 'month', strftime('%Y-%m-01T00:00:00Z', 'now'), 40, 9000 FROM made;
         INSERT OR IGNORE INTO usage
         SELECT license, 'day', strftime('%Y-%m-%dT00:00:00Z', 'now'), 4, 900 FROM made
         WHERE n % 10 = 0;
         INSERT INTO daily (day, license, plan, model, provider, requests, messages, input, output,
                            cached, cost)
         SELECT date('now', '-' || (n % 10) || ' days'), license, 'bench', 'fast', 'stand-in',
                4, 4, 500, 400, 0, 1000000 FROM made ORDER BY n % 10 DESC, license;
         COMMIT;
         PRAGMA wal_checkpoint(TRUNCATE);"
    ))?;
    Ok(())
}
