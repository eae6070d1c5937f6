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
}

#[derive(Default)]
pub struct Report(BTreeMap<(u8, u8), BTreeMap<usize, Sample>>);

/// A miss by less than this is the machine's noise.
const TOLERANCE: f64 = 1.05;
/// What a JSON request may cost at most, noise included. On top of the loop, which is cheaper than the
/// bare proxy, come two JSON texts checked, a reservation, a charge and a row in SQLite:
/// benches/README.md says where the time goes.
const JSON_CEILING: f64 = 1.15;

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
            for &who in who {
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
                // Round by round: both had the same machine then.
                let bare: BTreeMap<_, _> = self.samples(Contender::Bare, load).collect();
                self.samples(Contender::Gatekeeper, load)
                    .filter_map(|(round, s)| Some(s.cost / bare.get(round)?.cost))
                    .collect()
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
        all
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
