//! `gatekeeper licenses import`: licences that were sold elsewhere, from a list or from Lemon Squeezy's API.

use std::{fs, io::Write, path::PathBuf, process::ExitCode};

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
    license_admin::issued::command::IssuedCommand,
    licenses::lemonsqueezy_export,
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
    let rows = match args.from.as_str() {
        "lemonsqueezy" => of_lemonsqueezy(args, settings)?,
        file => of_csv(file)?,
    };
    let mut counts: [(&str, usize); 4] =
        [("new", 0), ("changed", 0), ("unchanged", 0), ("wrong", 0)];
    let what = if args.dry_run { "Looking at" } else { "Importing" };
    let progress = Progress::of(format!("{what} {}", many(rows.len(), "licence")), "");
    for batch in rows.chunks(BATCH) {
        let mut order = Map::new();
        order.insert("rows".into(), json!(batch));
        order.insert("dry_run".into(), json!(args.dry_run));
        order_id(None, &mut order)?;
        let answer = issued::send(IssuedCommand::Import, &args.file(), settings, operate, order)?;
        if !answer.status.is_success() {
            return issued::end(IssuedCommand::Import, &answer, err);
        }
        for row in answer.body["licenses"].as_array().into_iter().flatten() {
            let outcome = row["outcome"].as_str().unwrap_or_default();
            if let Some(count) = counts.iter_mut().find(|(name, _)| *name == outcome) {
                count.1 += 1;
            }
            if args.dry_run || outcome == "wrong" {
                writeln!(out, "{}", line(row))?;
            }
        }
    }
    drop(progress);
    let words: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let verb = if args.dry_run { "Would be imported" } else { "Imported" };
    writeln!(out, "{verb}: {}", words.join(", "))?;
    Ok(if counts[3].1 > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
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

fn of_lemonsqueezy(args: &ImportArgs, settings: &Settings) -> anyhow::Result<Vec<Value>> {
    let source = args.api_key.as_deref().context("import lemonsqueezy needs --api-key env:NAME")?;
    let secret = crate::config::read_secret(source)?;
    let progress = Progress::of("Asking Lemon Squeezy for its licences".to_owned(), "");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rows =
        runtime.block_on(lemonsqueezy_export::all(settings, &secret, args.base_url.as_deref()));
    drop(progress);
    rows
}
