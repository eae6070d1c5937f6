//! `gatekeeper usage`: usage of a month by licence, plan, model or day, its cost, and the income of the
//! plans.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
};

use clap::{Args, ValueEnum};
use gatekeeper_filters::kernel::{DOLLAR, UnixMs, UsageFigures};

use crate::{
    budget::dollars,
    cli::FileArgs,
    config::{Settings, settings::PlanPrice},
    ledger::sqlite::daily_usage::{self, DailyRow},
    peer_sync::month::rows,
    progress::Progress,
    prompts,
};

pub const EXAMPLES: &str = "\
Days and months are UTC. Licences are shown by the first 12 digits of their
hash, which `licenses --license` takes, and in CSV by all. `requests` are all that
ended, `messages` what plans were charged. `cached` and `cache_write` are part of `input`; `wasted` are tokens
of attempts whose answers no app got (timed out, broken, thrown away), beside `input` and `output`. The cost is
what the `prices` of the file made of all of them; revenue is a plan's `price` for each licence that
asked for something in the month (of a yearly price, a twelfth). A gateway may run meanwhile.

Examples:
  gatekeeper usage -c conf/gatekeeper.yaml                         this month, by plan
  gatekeeper usage -c conf/gatekeeper.yaml --by licence            who costs most
  gatekeeper usage -c conf/gatekeeper.yaml --by prompt             what each prompt costs
  gatekeeper usage -c conf/gatekeeper.yaml --by day --month 2026-10
  gatekeeper usage -c conf/gatekeeper.yaml --by model --csv > usage.csv";

#[derive(Debug, Clone, Args)]
pub struct UsageArgs {
    #[command(flatten)]
    pub file: FileArgs,
    /// What a line stands for
    #[arg(long, value_enum, default_value = "plan")]
    pub by: GroupBy,
    /// The month; this one, if not given
    #[arg(long, value_name = "YYYY-MM", value_parser = month)]
    pub month: Option<String>,
    /// Comma-separated values (RFC 4180), with costs to the picodollar
    #[arg(long)]
    pub csv: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GroupBy {
    #[value(alias = "license")]
    Licence,
    Plan,
    Model,
    /// Requests for prompts; others are left out
    Prompt,
    Day,
}

/// A calendar month.
fn month(text: &str) -> Result<String, String> {
    let is_one = text.len() == 7 && format!("{text}-01").parse::<jiff::civil::Date>().is_ok();
    if is_one { Ok(text.into()) } else { Err("expected a month like `2026-11`".into()) }
}

/// Writes the table of a month.
///
/// # Errors
/// The store can't be read, or `out` is closed.
pub fn write(settings: &Settings, args: &UsageArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let progress = Progress::of("Adding up what was used", "");
    let month =
        args.month.clone().unwrap_or_else(|| daily_usage::date(UnixMs::now())[..7].to_owned());
    let rows = rows(&settings.store, &month)?;
    drop(progress);
    let mut table = UsageTable::new(args.by, &rows, &settings.plan_prices);
    // A program that reads it names licences by their ids.
    table.is_short = !args.csv;
    // Written at once: a reader of the first lines only (`| head`) gets them complete.
    let mut text = Vec::new();
    if args.csv { table.write_csv(&mut text) } else { table.write_aligned(&mut text) }?;
    Ok(out.write_all(&text)?)
}

/// The licence whose id begins so, among those that used something this month or the one before.
///
/// # Errors
/// None does, or several do; the store can't be read.
pub fn licence_of(settings: &Settings, prefix: &str) -> anyhow::Result<String> {
    let now = UnixMs::now();
    let before = UnixMs(now.0.saturating_sub(31 * 86_400_000));
    let mut found = BTreeSet::new();
    for month in [now, before] {
        let rows = rows(&settings.store, &daily_usage::date(month)[..7])?;
        found.extend(rows.into_iter().map(|row| row.license).filter(|id| id.starts_with(prefix)));
    }
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (None, _) => anyhow::bail!(
            "--license: no recently used licence begins with {prefix}; give all 64 hex digits for an older one"
        ),
        (Some(one), Some(other)) => anyhow::bail!(
            "--license: several begin with {prefix}, {} and {} among them: give more digits",
            &one[..20.min(one.len())],
            &other[..20.min(other.len())]
        ),
    }
}

/// One line: sums over some rows. Money in picodollars.
#[derive(Debug, Clone, Default)]
struct UsageRow<'a> {
    licenses: BTreeSet<&'a str>,
    figures: UsageFigures,
    revenue: Option<u64>,
}

impl<'a> UsageRow<'a> {
    fn add(&mut self, row: &'a DailyRow) {
        self.licenses.insert(&row.license);
        self.figures.add(&row.figures);
    }

    /// What each licence pays a month.
    fn earn(&mut self, month: u64) {
        self.revenue = Some(month.saturating_mul(self.licenses.len() as u64));
    }
}

struct UsageTable<'a> {
    by: GroupBy,
    lines: Vec<(String, UsageRow<'a>)>,
    total: UsageRow<'a>,
    /// Licences by the first digits of their ids.
    is_short: bool,
}

impl<'a> UsageTable<'a> {
    fn new(by: GroupBy, rows: &'a [DailyRow], prices: &[PlanPrice]) -> Self {
        let mut lines = BTreeMap::<&str, UsageRow<'_>>::new();
        let mut total = UsageRow::default();
        for row in rows {
            let name = match by {
                GroupBy::Licence => &row.license,
                GroupBy::Plan => &row.plan,
                GroupBy::Model => &row.model,
                GroupBy::Prompt => match prompts::named(&row.model) {
                    Some(name) => name,
                    None => continue,
                },
                GroupBy::Day => &row.day,
            };
            lines.entry(name).or_default().add(row);
            total.add(row);
        }
        if by == GroupBy::Plan {
            for price in prices {
                lines.entry(&*price.plan).and_modify(|line| line.earn(price.month));
            }
            total.revenue =
                lines.values().filter_map(|line| line.revenue).reduce(u64::saturating_add);
        }
        let mut lines: Vec<_> = lines.into_iter().collect();
        if by != GroupBy::Day {
            lines.sort_by_key(|(_, line)| {
                std::cmp::Reverse((line.figures.cost, line.figures.messages))
            });
        }
        let lines = lines.into_iter().map(|(name, line)| (name.to_owned(), line)).collect();
        Self { by, lines, total, is_short: true }
    }

    fn head(&self) -> Vec<&'static str> {
        let thing = match self.by {
            GroupBy::Licence => "licence",
            GroupBy::Plan => "plan",
            GroupBy::Model => "model",
            GroupBy::Prompt => "prompt",
            GroupBy::Day => "day",
        };
        let mut head = vec![thing, "licences", "requests", "messages", "input", "output", "cached"];
        head.extend(["cache_write", "wasted", "cost"]);
        if self.by == GroupBy::Plan {
            head.extend(["revenue", "margin"]);
        }
        head
    }

    /// The lines as texts, the total last.
    fn cells(&self, money: fn(u64) -> String) -> Vec<Vec<String>> {
        let total = ("total".to_owned(), self.total.clone());
        let lines = self.lines.iter().chain([&total]).map(|(name, line)| {
            let figures = &line.figures;
            let counts = [
                line.licenses.len() as u64,
                figures.requests,
                figures.messages,
                figures.input,
                figures.output,
                figures.cached,
                figures.cache_write,
                figures.wasted,
            ];
            let short = name.get(..12).filter(|_| self.by == GroupBy::Licence && self.is_short);
            let mut cells = vec![short.unwrap_or(name).to_owned()];
            cells.extend(counts.iter().map(u64::to_string));
            cells.push(money(figures.cost));
            if self.by == GroupBy::Plan {
                let margin = |revenue: u64| match revenue.checked_sub(figures.cost) {
                    Some(left) => money(left),
                    None => format!("-{}", money(figures.cost - revenue)),
                };
                cells.push(line.revenue.map(money).unwrap_or_default());
                cells.push(line.revenue.map(margin).unwrap_or_default());
            }
            cells
        });
        lines.collect()
    }

    fn write_csv(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{}\r\n", self.head().join(","))?;
        for line in self.cells(dollars) {
            let fields: Vec<_> = line.iter().map(|cell| csv_field(cell)).collect();
            write!(out, "{}\r\n", fields.join(","))?;
        }
        Ok(())
    }

    /// Names to the left, numbers to the right.
    fn write_aligned(&self, out: &mut dyn Write) -> io::Result<()> {
        let head = self.head().into_iter().map(str::to_owned).collect();
        let lines: Vec<Vec<String>> = [head].into_iter().chain(self.cells(rounded)).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
        let widths: Vec<_> = (0..lines[0].len()).map(width).collect();
        for line in &lines {
            let mut text = format!("{:<1$}", line[0], widths[0]);
            for (cell, width) in line.iter().zip(&widths).skip(1) {
                text += &format!("  {:>width$}", if cell.is_empty() { "-" } else { cell });
            }
            writeln!(out, "{}", text.trim_end())?;
        }
        Ok(())
    }
}

/// RFC 4180: quoted where it has to be.
fn csv_field(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// `$12.35`; below a dollar with four decimals: `$0.0123`. Half a unit is rounded up.
fn rounded(picodollars: u64) -> String {
    const CENT: u64 = DOLLAR / 100;
    const LEAST: u64 = DOLLAR / 10_000;
    match picodollars {
        0 => "$0.00".into(),
        few if few < LEAST / 2 => "<$0.0001".into(),
        few if few < DOLLAR => {
            let units = (few + LEAST / 2) / LEAST;
            format!("${}.{:04}", units / 10_000, units % 10_000)
        }
        many => {
            let cents = many.saturating_add(CENT / 2) / CENT;
            format!("${}.{:02}", cents / 100, cents % 100)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(
        day: &str,
        license: &str,
        plan: &str,
        model: &str,
        messages: u64,
        cost: u64,
    ) -> DailyRow {
        DailyRow {
            day: day.into(),
            license: license.repeat(64),
            plan: plan.into(),
            model: model.into(),
            provider: "p".into(),
            figures: UsageFigures {
                requests: 2 * messages,
                messages,
                input: 10 * messages,
                output: messages,
                wasted: 3 * messages,
                cost,
                ..UsageFigures::default()
            },
        }
    }

    fn rows() -> Vec<DailyRow> {
        vec![
            row("2026-11-01", "a", "pro", "fast", 5, 1_110_000),
            row("2026-11-02", "a", "pro", "a,b", 3, 2 * DOLLAR),
            row("2026-11-02", "b", "pro", "fast", 2, 0),
            row("2026-11-02", "c", "free", "fast", 1, DOLLAR / 8),
        ]
    }

    fn written(by: GroupBy, csv: bool) -> String {
        let (rows, prices) = (rows(), [PlanPrice { plan: "pro".into(), month: 9 * DOLLAR }]);
        let table = UsageTable::new(by, &rows, &prices);
        let mut out = Vec::new();
        if csv { table.write_csv(&mut out) } else { table.write_aligned(&mut out) }.unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_plan_with_a_price_has_revenue_and_margin() {
        assert_eq!(
            written(GroupBy::Plan, false),
            "plan   licences  requests  messages  input  output  cached  cache_write  wasted     cost  \
             revenue  margin\n\
             pro           2        20        10    100      10       0            0      30    $2.00   \
             $18.00  $16.00\n\
             free          1         2         1     10       1       0            0       3  $0.1250        \
             -       -\n\
             total         3        22        11    110      11       0            0      33    $2.13   \
             $18.00  $15.87\n"
        );
    }

    #[test]
    fn csv_is_exact_and_quotes_what_needs_it() {
        assert_eq!(
            written(GroupBy::Model, true),
            "model,licences,requests,messages,input,output,cached,cache_write,wasted,cost\r\n\
             \"a,b\",1,6,3,30,3,0,0,9,2\r\n\
             fast,3,16,8,80,8,0,0,24,0.12500111\r\n\
             total,3,22,11,110,11,0,0,33,2.12500111\r\n"
        );
        assert!(
            written(GroupBy::Plan, true)
                .contains("pro,2,20,10,100,10,0,0,30,2.00000111,18,15.99999889\r\n")
        );
        assert!(written(GroupBy::Plan, true).contains("free,1,2,1,10,1,0,0,3,0.125,,\r\n"));
    }

    #[test]
    fn days_stand_in_order_and_licences_by_what_they_cost() {
        let first = |by| {
            let text = written(by, true);
            let names = text.lines().map(|line| line.split(',').next().unwrap().to_owned());
            names.collect::<Vec<_>>()
        };
        assert_eq!(first(GroupBy::Day), ["day", "2026-11-01", "2026-11-02", "total"]);
        let licences = ["licence", &"a".repeat(12), &"c".repeat(12), &"b".repeat(12), "total"];
        assert_eq!(first(GroupBy::Licence), licences);
    }

    #[test]
    fn a_loss_is_shown_as_one() {
        let rows = [row("2026-11-01", "a", "pro", "fast", 1, 12 * DOLLAR)];
        let table = UsageTable::new(
            GroupBy::Plan,
            &rows,
            &[PlanPrice { plan: "pro".into(), month: DOLLAR }],
        );
        assert_eq!(table.cells(rounded)[0][9..], ["$12.00", "$1.00", "-$11.00"]);
    }

    #[test]
    fn money_is_rounded_to_cents_and_small_money_to_four_decimals() {
        for (picodollars, text) in [
            (0, "$0.00"),
            (1, "<$0.0001"),
            (50_000_000, "$0.0001"),
            (12_349_999_999, "$0.0123"),
            (999_950_000_000, "$1.0000"),
            (DOLLAR, "$1.00"),
            (12_345_000_000_000, "$12.35"),
            (u64::MAX, "$18446744.07"),
        ] {
            assert_eq!(rounded(picodollars), text);
        }
    }

    #[test]
    fn a_month_is_a_month() {
        assert!(month("2026-11").is_ok());
        for wrong in ["2026-13", "2026-1", "26-11", "2026-11-01", "2026/11", ""] {
            assert!(month(wrong).is_err(), "{wrong}");
        }
    }
}
