//! The figures: as a table, as JSON, and beside those of another run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Cell;
use crate::machine::checked_out;

#[derive(Serialize, Deserialize)]
pub struct Table {
    pub commit: String,
    /// That were averaged over; of streams a tenth.
    pub requests: usize,
    pub valgrind: String,
    pub rows: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
pub struct Row {
    pub case: String,
    pub headers: String,
    pub connections: usize,
    pub who: String,
    #[serde(flatten)]
    pub figures: Figures,
}

/// Per request, on the thread that serves it and, where it says so, on all others.
#[derive(Serialize, Deserialize, Default, Clone)]
pub struct Figures {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions_elsewhere: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_calls: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_calls_elsewhere: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocations: Option<f64>,
    /// On all threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_copied: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_switches: Option<f64>,
    /// Which system calls.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub calls: BTreeMap<String, f64>,
}

impl Figures {
    /// The mean of what an instrument said of several processes.
    #[must_use]
    pub fn mean(runs: &[Self]) -> Self {
        let mean = |of: fn(&Self) -> Option<f64>| {
            let values: Option<Vec<f64>> = runs.iter().map(of).collect();
            values.map(|values| values.iter().sum::<f64>() / values.len() as f64)
        };
        let mut calls = BTreeMap::new();
        for (name, count) in runs.iter().flat_map(|run| &run.calls) {
            *calls.entry(name.clone()).or_insert(0.0) += count / runs.len() as f64;
        }
        Self {
            instructions: mean(|run| run.instructions),
            instructions_elsewhere: mean(|run| run.instructions_elsewhere),
            system_calls: mean(|run| run.system_calls),
            system_calls_elsewhere: mean(|run| run.system_calls_elsewhere),
            allocations: mean(|run| run.allocations),
            bytes_copied: mean(|run| run.bytes_copied),
            context_switches: mean(|run| run.context_switches),
            calls,
        }
    }

    /// Takes the figures of another instrument.
    pub fn add(&mut self, other: Self) {
        self.instructions = other.instructions.or(self.instructions);
        self.instructions_elsewhere = other.instructions_elsewhere.or(self.instructions_elsewhere);
        self.system_calls = other.system_calls.or(self.system_calls);
        self.system_calls_elsewhere = other.system_calls_elsewhere.or(self.system_calls_elsewhere);
        self.allocations = other.allocations.or(self.allocations);
        self.bytes_copied = other.bytes_copied.or(self.bytes_copied);
        self.context_switches = other.context_switches.or(self.context_switches);
        self.calls.extend(other.calls);
    }

    /// What is compared between runs. What is done elsewhere goes by the clock (a batch every fifth of a
    /// second), not by the request.
    fn compared(&self) -> [(&'static str, Option<f64>); 5] {
        [
            ("instructions", self.instructions),
            ("system calls", self.system_calls),
            ("allocations", self.allocations),
            ("bytes copied", self.bytes_copied),
            ("context switches", self.context_switches),
        ]
    }
}

/// Figures below it are compared by their tenths.
const TENTHS: f64 = 10.0;

impl Row {
    pub fn new(cell: &Cell) -> Self {
        Self {
            case: cell.case.title().into(),
            headers: cell.headers.name().into(),
            connections: cell.connections,
            who: cell.who.name().trim_start().into(),
            figures: Figures::default(),
        }
    }

    fn is_of(&self, other: &Self) -> bool {
        (&self.case, &self.headers, self.connections, &self.who)
            == (&other.case, &other.headers, other.connections, &other.who)
    }

    /// Whose figures these are where several are beside each other.
    fn name(&self) -> &str {
        match self.who.as_str() {
            "nginx" | "bare Pingora" => &self.who,
            _ => "Gatekeeper",
        }
    }
}

impl Table {
    pub fn new(commit: Option<String>, requests: usize) -> Self {
        let valgrind = Command::new("valgrind").arg("--version").output();
        let valgrind = valgrind.map(|output| output.stdout).unwrap_or_default();
        Self {
            commit: commit.unwrap_or_else(checked_out),
            requests,
            valgrind: String::from_utf8_lossy(&valgrind).trim().to_owned(),
            rows: Vec::new(),
        }
    }

    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(&rounded(serde_json::to_value(self)?))?;
        text.push('\n');
        fs::write(path, text).with_context(|| path.display().to_string())
    }

    pub fn print(&self) {
        println!(
            "\nper request, averaged over {} ({} streams); commit {}",
            self.requests,
            self.requests / super::STREAMS,
            self.commit
        );
        println!(
            "{:<34} {:>13} {:>9} {:>13} {:>6} {:>9} {:>9}",
            "", "instructions", "(others)", "system calls", "alloc.", "copied", "switches"
        );
        let mut last = None;
        for row in &self.rows {
            if last.is_none_or(|last: &Row| last.case != row.case) {
                println!("{}", row.case);
            }
            let figures = &row.figures;
            let many = if row.connections == 1 { "connection" } else { "connections" };
            println!(
                "  {:<13} {:<4} {:>2} {many:<11} {:>13} {:>9} {:>13} {:>6} {:>9} {:>9}",
                row.name(),
                row.headers,
                row.connections,
                thousands(figures.instructions),
                thousands(figures.instructions_elsewhere),
                decimal(figures.system_calls),
                decimal(figures.allocations),
                thousands(figures.bytes_copied),
                decimal(figures.context_switches),
            );
            last = Some(row);
        }
    }

    /// Prints how far each row is from the same one of an earlier run, in per cent; returns the farthest. A tenth of a
    /// system call is no 5 % of two: figures below ten are told apart in tenths, as the table prints them.
    pub fn compare(&self, earlier: &Self) -> f64 {
        println!("\nper cent more than commit {}, of the thread that serves", earlier.commit);
        let mut most: f64 = 0.0;
        for row in &self.rows {
            let Some(other) = earlier.rows.iter().find(|other| other.is_of(row)) else { continue };
            let pairs = row.figures.compared().into_iter().zip(other.figures.compared());
            let mut line = String::new();
            for ((name, now), (_, before)) in pairs {
                if let (Some(now), Some(before)) = (now, before)
                    && before > 0.0
                {
                    let more = (now - before) / before.max(TENTHS) * 100.0;
                    most = most.max(more.abs());
                    line += &format!("  {name} {more:+.2}");
                }
            }
            let Row { case, headers, connections, .. } = row;
            println!("  {case}, {headers}, {connections}, {}:{line}", row.name());
        }
        println!("The farthest is {most:.2} % away.");
        most
    }
}

fn thousands(count: Option<f64>) -> String {
    let Some(count) = count else { return "-".into() };
    let digits = format!("{count:.0}");
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn decimal(count: Option<f64>) -> String {
    count.map_or_else(|| "-".into(), |count| format!("{count:.1}"))
}

/// Two digits after the point say all there is to say.
fn rounded(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Number(n) if n.is_f64() => {
            ((n.as_f64().unwrap_or_default() * 100.0).round() / 100.0).into()
        }
        Value::Array(all) => all.into_iter().map(rounded).collect(),
        Value::Object(all) => all.into_iter().map(|(name, v)| (name, rounded(v))).collect(),
        other => other,
    }
}
