//! `gatekeeper licenses import`: licences that were sold elsewhere, from a list or from Lemon Squeezy's API.

use std::{collections::HashMap, fs, io::Write, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use serde_json::{Map, Value, json};

use super::{
    asking::{Operate, order_id},
    csv, issued,
};
use crate::{
    cli::{file_args::FileArgs, problems::many},
    config::Settings,
    license_admin::{ApiResponse, issued::command::IssuedCommand},
    licenses::lemonsqueezy_export::LicensePages,
    progress::Progress,
};

/// Rows of one order.
const BATCH: usize = 250;
const COLUMNS: [&str; 11] = [
    "key",
    "plan",
    "until",
    "status",
    "max_devices",
    "store_id",
    "product_id",
    "variant_id",
    "order_id",
    "created_at",
    "activation_ids",
];

pub const EXAMPLES: &str = "\
Columns: key, plan, until, status, max_devices, store_id, product_id, variant_id, order_id, created_at,
activation_ids (blanks between them). key and plan are needed; an end that is empty is none.
Run twice, it changes nothing; cut off, it is run again.

Examples:
  gatekeeper licenses import licences.csv -c gateway.yaml --dry-run
  gatekeeper licenses import licences.csv -c gateway.yaml
  gatekeeper licenses import lemonsqueezy --api-key env:LS_API_KEY -c gateway.yaml";

#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// A CSV file, or `lemonsqueezy`
    #[arg(value_name = "FILE.csv|lemonsqueezy")]
    pub from: String,
    /// The configuration file; default: ./gatekeeper.yaml, then /etc/gatekeeper/gatekeeper.yaml
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Say line by line what would happen, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Lemon Squeezy's API key: env:NAME or file:PATH
    #[arg(long, value_name = "SOURCE")]
    pub api_key: Option<String>,
    /// Where its API is, for tests
    #[arg(long, value_name = "URL", hide = true)]
    pub base_url: Option<String>,
}

impl ImportArgs {
    pub fn file(&self) -> FileArgs {
        FileArgs { file: None, config: self.config.clone() }
    }
}

/// # Errors
/// The list can't be read, or no gateway and no store could be asked.
pub fn import(
    args: &ImportArgs,
    settings: &Settings,
    operate: Operate,
    (out, err): (&mut dyn Write, &mut dyn Write),
) -> anyhow::Result<ExitCode> {
    let mut import = Import {
        args,
        settings,
        operate,
        counts: [("new", 0), ("changed", 0), ("unchanged", 0), ("wrong", 0)],
        seen: HashMap::new(),
    };
    let outcome = match args.from.as_str() {
        "lemonsqueezy" => import.of_lemonsqueezy(out),
        file => import.of_csv(file, out),
    };
    let counts = &import.counts;
    let words: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let verb = if args.dry_run { "Would be imported" } else { "Imported" };
    match outcome {
        Ok(None) => {
            writeln!(out, "{verb}: {}", words.join(", "))?;
            Ok(if counts[3].1 > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        Ok(Some(refused)) => issued::end(IssuedCommand::Import, &refused, err),
        Err(why) if counts.iter().any(|(_, count)| *count > 0) => {
            writeln!(out, "{verb} so far: {}", words.join(", "))?;
            Err(why
                .context("interrupted; run it again: licences that were imported stay as they are"))
        }
        Err(why) => Err(why),
    }
}

struct Import<'a> {
    args: &'a ImportArgs,
    settings: &'a Settings,
    operate: Operate,
    /// Rows by what became of them.
    counts: [(&'static str, usize); 4],
    /// Where a key stands, and with what.
    seen: HashMap<String, (u64, Value)>,
}

/// The answer of a gateway that refused an order, which ends the import.
type Refused = Option<ApiResponse>;

impl Import<'_> {
    fn what(&self) -> &'static str {
        if self.args.dry_run { "Looking at" } else { "Importing" }
    }

    fn count(&mut self, outcome: &str) {
        if let Some(count) = self.counts.iter_mut().find(|(name, _)| *name == outcome) {
            count.1 += 1;
        }
    }

    fn of_csv(&mut self, file: &str, out: &mut dyn Write) -> anyhow::Result<Refused> {
        let rows = of_csv(file)?;
        let what = format!("{} {}", self.what(), many(rows.len(), "licence"));
        let progress = Progress::of(what, "licences");
        progress.expect(rows.len() as u64);
        for batch in rows.chunks(BATCH) {
            if let Some(refused) = self.send(batch, out)? {
                return Ok(Some(refused));
            }
            batch.iter().for_each(|_| progress.step());
        }
        Ok(None)
    }

    /// Each page is taken in before the next one is asked for: what was read is not lost with the rest.
    fn of_lemonsqueezy(&mut self, out: &mut dyn Write) -> anyhow::Result<Refused> {
        let source = self.args.api_key.as_deref();
        let source = source.context("import lemonsqueezy needs --api-key env:NAME")?;
        let secret = crate::config::read_secret(source)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let base = self.args.base_url.as_deref();
        let mut pages = LicensePages::new(self.settings, &secret, base)?;
        let progress = Progress::of(format!("{} licences of Lemon Squeezy", self.what()), "pages");
        while let Some(rows) = runtime.block_on(pages.next())? {
            progress.expect(pages.total);
            if let Some(refused) = self.send(&rows, out)? {
                return Ok(Some(refused));
            }
            progress.step();
        }
        Ok(None)
    }

    fn send(&mut self, rows: &[Value], out: &mut dyn Write) -> anyhow::Result<Refused> {
        let mut fresh = Vec::with_capacity(rows.len());
        for row in rows {
            if self.is_first(row, out)? {
                fresh.push(row);
            }
        }
        if fresh.is_empty() {
            return Ok(None);
        }
        let mut order = Map::new();
        order.insert("rows".into(), json!(fresh));
        order.insert("dry_run".into(), json!(self.args.dry_run));
        order_id(None, &mut order)?;
        let (settings, operate) = (self.settings, self.operate);
        let command = IssuedCommand::Import;
        let answer = issued::send(command, &self.args.file(), settings, operate, order)?;
        if !answer.status.is_success() {
            return Ok(Some(answer));
        }
        for row in answer.body["licenses"].as_array().into_iter().flatten() {
            let outcome = row["outcome"].as_str().unwrap_or_default();
            self.count(outcome);
            if self.args.dry_run || outcome == "wrong" {
                writeln!(out, "{}", line(row))?;
            }
        }
        Ok(None)
    }

    /// A key that stands twice in a list: the same again changes nothing, anything else is wrong, as either would
    /// undo the other. Pages of an API shift while they are read, so there the first one holds.
    fn is_first(&mut self, row: &Value, out: &mut dyn Write) -> anyhow::Result<bool> {
        let key = row["key"].as_str().unwrap_or_default().trim().to_ascii_uppercase();
        let number = row["line"].as_u64().unwrap_or_default();
        let mut rest = row.clone();
        rest["line"] = Value::Null;
        rest["key"] = Value::Null;
        let Some((first, known)) = self.seen.get(&key) else {
            self.seen.insert(key, (number, rest));
            return Ok(true);
        };
        if *known == rest || self.args.from == "lemonsqueezy" {
            self.count("unchanged");
            return Ok(false);
        }
        let why = format!("key: line {first} has it, too, with other values");
        writeln!(out, "{}", line(&json!({ "line": number, "outcome": "wrong", "why": why })))?;
        self.count("wrong");
        Ok(false)
    }
}

fn line(row: &Value) -> String {
    let text = |name: &str| row[name].as_str().unwrap_or_default();
    let mut words = format!("line {}: {}", row["line"], text("outcome"));
    match text("outcome") {
        "wrong" => words += &format!(": {}", text("why")),
        _ => {
            words += &format!(", plan {}, {}", text("plan"), text("status"));
            match text("until") {
                "" => words += ", no end",
                until => words += &format!(", until {until}"),
            }
            words += &format!(
                ", {}",
                many(row["devices"].as_u64().unwrap_or_default() as usize, "device")
            );
        }
    }
    words
}

fn of_csv(file: &str) -> anyhow::Result<Vec<Value>> {
    let text = fs::read_to_string(file).with_context(|| file.to_owned())?;
    let rows = csv::read(&text).with_context(|| file.to_owned())?;
    let mut list = Vec::with_capacity(rows.len());
    for (line, cells) in rows {
        let mut row = Map::new();
        row.insert("line".into(), json!(line));
        for (name, cell) in cells {
            match name.as_str() {
                "activation_ids" | "activations" => {
                    let split =
                        |letter: char| letter.is_whitespace() || matches!(letter, ';' | '|');
                    let ids: Vec<&str> = cell.split(split).filter(|id| !id.is_empty()).collect();
                    row.insert("activations".into(), json!(ids));
                }
                name if COLUMNS.contains(&name) => {
                    row.insert(name.into(), json!(cell.trim()));
                }
                // Shops' exports have more than what is kept.
                _ => {}
            }
        }
        list.push(Value::Object(row));
    }
    Ok(list)
}
