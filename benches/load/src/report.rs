//! What came out: the medians, and Gatekeeper against the bare proxy.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::compare::Load;
use crate::contender::Contender;
use crate::machine::Kept;

#[derive(Default)]
pub struct Sample {
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
    /// What ratios are made of: microseconds of processor time per request, KiB of memory per stream.
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

/// A figure that is worse than the kept one by less than this is the machine's noise.
const TOLERANCE: f64 = 1.05;

impl Load {
    pub fn title(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Lean => "JSON, four headers",
            Self::Unpaced => "100 chunks, unpaced",
            Self::Paced => "50 chunks, 5 ms apart",
            Self::Https => "JSON, HTTPS, HTTP/1",
            Self::H2 => "JSON, HTTPS, HTTP/2",
            Self::Memory => "open streams",
        }
    }

    /// What Gatekeeper should cost at most: a share of the bare proxy's cost, or KiB.
    fn goal(self) -> f64 {
        match self {
            Self::Json | Self::Paced | Self::Https | Self::H2 => 1.0,
            Self::Lean => 1.25,
            Self::Unpaced => 0.45,
            Self::Memory => 56.0,
        }
    }
}

/// What is judged, each under its name.
pub struct Figures(Vec<Figure>);

struct Figure {
    name: String,
    reached: f64,
    least: f64,
    most: f64,
    goal: f64,
}

impl Figures {
    /// What is kept of them.
    pub fn kept(&self) -> BTreeMap<String, f64> {
        let rounded = |figure: &Figure| (figure.reached * 1000.0).round() / 1000.0;
        self.0.iter().map(|figure| (figure.name.clone(), rounded(figure))).collect()
    }

    /// Prints each beside its goal and what was kept, and returns the names of those that became worse.
    /// A goal fails no run: it depends on the machine.
    pub fn print(&self, kept: Option<&Kept>) -> Vec<String> {
        println!(
            "{:<28} {:>8} {:>18} {:>7} {:>8}",
            "× bare Pingora", "reached", "(least to most)", "goal", "kept"
        );
        let mut worse = Vec::new();
        for Figure { name, reached, least, most, goal } in &self.0 {
            let before = kept.and_then(|kept| kept.figures.get(name)).copied();
            let is_worse = before.is_some_and(|before| *reached > before * TOLERANCE);
            if is_worse {
                worse.push(name.clone());
            }
            let range = format!("({least:.2} to {most:.2})");
            let before = before.map_or_else(|| "-".into(), |before| format!("{before:.2}"));
            let verdict = if is_worse { "  WORSE" } else { "" };
            println!("{name:<28} {reached:>8.2} {range:>18} {goal:>7.2} {before:>8}{verdict}");
        }
        match kept {
            Some(kept) => println!("Kept: commit {}, on a machine like this one.", kept.commit),
            None => println!("No figures are kept of a machine like this one: nothing is judged."),
        }
        worse
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

    /// What is judged: Gatekeeper under each load, and its ways, which only JSON is measured on.
    pub fn figures(&self, loads: &[Load]) -> Figures {
        let mut figures = Vec::new();
        let mut add = |name: String, mut reached: Vec<f64>, goal: f64| {
            reached.sort_by(f64::total_cmp);
            if let (Some(&least), Some(&most)) = (reached.first(), reached.last()) {
                figures.push(Figure { name, reached: median(reached), least, most, goal });
            }
        };
        for &load in loads {
            if load == Load::Memory {
                let samples = self.samples(Contender::Gatekeeper, load);
                let each = samples.map(|(_, sample)| sample.cost).collect();
                add("open streams, KiB each".into(), each, load.goal());
            } else {
                add(load.title().into(), self.ratios(Contender::Gatekeeper, load), load.goal());
            }
        }
        let listed = median(self.ratios(Contender::Gatekeeper, Load::Json));
        let ways = [
            (Contender::Shop, listed + 0.03),
            (Contender::Watched, listed + 0.03),
            (Contender::Redis, 1.25),
        ];
        for (who, goal) in ways {
            let name = format!("JSON, {}", who.name().trim_start());
            add(name, self.ratios(who, Load::Json), goal);
        }
        Figures(figures)
    }

    /// What a request is to Redis, if that was measured.
    pub fn print_redis(&self) {
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
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    match of.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => of[n / 2],
        n => f64::midpoint(of[n / 2 - 1], of[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;

    fn figures(reached: f64) -> Figures {
        let name = "JSON".into();
        Figures(vec![Figure { name, reached, least: reached, most: reached, goal: 1.0 }])
    }

    #[test]
    fn only_a_figure_worse_than_the_kept_one_fails_and_no_goal_does() {
        let machine = Machine { cpu: "one".into(), cores: 2, kernel_share: 0.5 };
        let kept = Kept { machine, commit: "c".into(), figures: figures(1.3).kept() };
        assert_eq!(figures(9.0).print(None), Vec::<String>::new());
        assert_eq!(figures(1.36).print(Some(&kept)), Vec::<String>::new());
        assert_eq!(figures(1.37).print(Some(&kept)), ["JSON"]);
        assert_eq!(figures(0.7).print(Some(&kept)), Vec::<String>::new());
    }
}
