//! What came out: the medians, and Gatekeeper against the bare proxy.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::compare::Load;
use crate::contender::Contender;

#[derive(Default)]
pub struct Sample {
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
    /// What is judged: microseconds of processor time per request, KiB of memory per stream.
    pub cost: f64,
    pub rss: u64,
    pub redis: Option<OnRedis>,
}

/// What a request is to Redis.
#[derive(Clone, Copy)]
pub struct OnRedis {
    /// All commands, those inside scripts included.
    pub commands: f64,
    /// Calls of scripts.
    pub scripts: f64,
    /// Microseconds of its processor time.
    pub cost: f64,
}

#[derive(Default)]
pub struct Report(BTreeMap<(u8, u8), BTreeMap<usize, Sample>>);

/// A miss by less than this is the machine's noise.
const TOLERANCE: f64 = 1.05;
/// What a JSON request may cost at most, noise included. On top of the loop, which is cheaper than the
/// bare proxy, come two JSON texts checked, a reservation, a charge and a row in SQLite:
/// benches/README.md says where the time goes.
const JSON_CEILING: f64 = 1.15;
/// What a licence of a shop may cost more than one of the file, as a share of the bare proxy's cost.
const SHOP_MORE: f64 = 0.05;
/// The same while somebody looks at the dashboard.
const WATCHED_MORE: f64 = 0.05;
/// What a JSON request may cost where gateways count on Redis.
const REDIS_CEILING: f64 = 1.5;

impl Load {
    pub fn title(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Unpaced => "100 chunks, unpaced",
            Self::Paced => "50 chunks, 5 ms apart",
            Self::Memory => "open streams",
        }
    }

    /// The most that Gatekeeper may cost: a share of the bare proxy's cost, or KiB.
    fn target(self) -> f64 {
        match self {
            Self::Json => 1.0,
            Self::Unpaced => 0.6,
            Self::Paced => 1.05,
            Self::Memory => 80.0,
        }
    }
}

impl Load {
    /// Above this the bench fails.
    fn ceiling(self) -> f64 {
        match self {
            Self::Json => JSON_CEILING,
            _ => self.target() * TOLERANCE,
        }
    }
}

impl Report {
    pub fn add(&mut self, who: Contender, load: Load, round: usize, sample: Sample) {
        self.0.entry((load as u8, who as u8)).or_default().insert(round, sample);
    }

    /// The shares of the bare proxy's cost, round by round: both had the same machine then.
    fn ratios(&self, who: Contender, load: Load) -> Vec<f64> {
        let bare: BTreeMap<_, _> = self.samples(Contender::Bare, load).collect();
        let samples = self.samples(who, load);
        samples.filter_map(|(round, s)| Some(s.cost / bare.get(round)?.cost)).collect()
    }

    /// The ways of Gatekeeper that only JSON is measured on; false when one costs too much.
    fn judge_ways(&self) -> bool {
        let mut all = true;
        let listed = median(self.ratios(Contender::Gatekeeper, Load::Json));
        let listed_and = |more: f64| listed.max(1.0) + more;
        for (who, ceiling) in [
            (Contender::Shop, listed_and(SHOP_MORE)),
            (Contender::Watched, listed_and(WATCHED_MORE)),
            (Contender::Redis, REDIS_CEILING),
        ] {
            let mut ratios = self.ratios(who, Load::Json);
            if ratios.is_empty() || ceiling.is_nan() {
                continue;
            }
            ratios.sort_by(f64::total_cmp);
            let (least, most, reached) = (ratios[0], ratios[ratios.len() - 1], median(ratios));
            // One run's noise on top: it is a difference of two measurements.
            let passed = reached <= ceiling * TOLERANCE;
            all &= passed;
            println!(
                "{:<22} {reached:>6.2} × bare Pingora ({least:.2} to {most:.2}), target {ceiling:.2}: {}",
                format!("JSON, {}", who.name().trim_start()),
                if passed { "reached" } else { "MISSED" }
            );
        }
        let on_redis: Vec<OnRedis> =
            self.samples(Contender::Redis, Load::Json).filter_map(|(_, s)| s.redis).collect();
        if !on_redis.is_empty() {
            let of = |what: fn(&OnRedis) -> f64| median(on_redis.iter().map(what).collect());
            println!(
                "On Redis a request is {:.2} script calls (it waits for one), {:.1} commands in all, {:.1} µs of Redis' processor time.",
                of(|r| r.scripts),
                of(|r| r.commands),
                of(|r| r.cost)
            );
        }
        all
    }

    fn samples(&self, who: Contender, load: Load) -> impl Iterator<Item = (&usize, &Sample)> {
        self.0.get(&(load as u8, who as u8)).into_iter().flatten()
    }

    fn median(&self, who: Contender, load: Load, of: impl Fn(&Sample) -> f64) -> f64 {
        median(self.samples(who, load).map(|(_, sample)| of(sample)).collect())
    }

    pub fn print(&self, who: &[Contender], loads: &[Load]) {
        for &load in loads {
            println!();
            if load == Load::Memory {
                println!("{:<22} {:>14} {:>9}", load.title(), "KiB per stream", "RSS MiB");
            } else {
                println!(
                    "{:<22} {:>9} {:>9} {:>9} {:>14} {:>9}",
                    load.title(),
                    "per s",
                    "p50 ms",
                    "p99 ms",
                    "CPU µs/request",
                    "RSS MiB"
                );
            }
            for &who in who.iter().filter(|who| who.runs(load)) {
                let cost = self.median(who, load, |s| s.cost);
                let rss = self.median(who, load, |s| s.rss as f64) / f64::from(1 << 20);
                let name = who.name();
                if load == Load::Memory {
                    println!("  {name:<20} {cost:>14.1} {rss:>9.1}");
                } else {
                    let per_second = self.median(who, load, |s| s.per_second);
                    let p50 = self.median(who, load, |s| s.p50.as_secs_f64()) * 1e3;
                    let p99 = self.median(who, load, |s| s.p99.as_secs_f64()) * 1e3;
                    println!(
                        "  {name:<20} {per_second:>9.0} {p50:>9.2} {p99:>9.2} {cost:>14.1} {rss:>9.1}"
                    );
                }
            }
        }
        println!();
    }

    /// Prints what was reached; false when something was missed by more than the tolerance.
    pub fn judge(&self, loads: &[Load]) -> bool {
        let mut all = true;
        for &load in loads {
            let mut reached: Vec<f64> = if load == Load::Memory {
                self.samples(Contender::Gatekeeper, load).map(|(_, s)| s.cost).collect()
            } else {
                self.ratios(Contender::Gatekeeper, load)
            };
            if reached.is_empty() {
                continue;
            }
            reached.sort_by(f64::total_cmp);
            let (least, most) = (reached[0], reached[reached.len() - 1]);
            let (reached, target) = (median(reached), load.target());
            let ceiling = load.ceiling();
            let passed = reached <= ceiling;
            all &= passed;
            let verdict = match passed {
                true if reached <= target => "reached",
                true => "within what is allowed",
                false => "MISSED",
            };
            let unit = if load == Load::Memory { "KiB a stream" } else { "× bare Pingora" };
            println!(
                "{:<22} {reached:>6.2} {unit} ({least:.2} to {most:.2}), target {target}, fails above {ceiling:.2}: {verdict}",
                load.title()
            );
        }
        self.judge_ways() && all
    }
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    match of.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => of[n / 2],
        n => f64::midpoint(of[n / 2 - 1], of[n / 2]),
    }
}
