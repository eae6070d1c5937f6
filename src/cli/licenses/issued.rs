//! `gatekeeper licenses issue | list | rotate | extend | expire`: licences of our own.

use std::{io::Write, process::ExitCode};

use clap::Args;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::{
    asking::{Operate, SubjectArgs, ask, order_id, subject_of},
    format,
};
use crate::{
    cli::file_args::FileArgs,
    config::Settings,
    license_admin::{ApiResponse, LicenseCommand, issued::command::IssuedCommand},
};

/// Licences requested per page.
const PAGE: u64 = 5_000;

#[derive(Debug, Clone, Args)]
pub struct IssueArgs {
    #[command(flatten)]
    pub file: FileArgs,
    /// The plan of the configuration
    #[arg(long, value_name = "NAME")]
    pub plan: String,
    /// The last day (2027-01-31, UTC), or a moment; without it the licence has no end
    #[arg(long, value_name = "DATE")]
    pub until: Option<String>,
    /// How many licences
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub count: u64,
    /// Most devices of each, where the plan's number is not the one
    #[arg(long, value_name = "N")]
    pub max_devices: Option<u64>,
    /// What for, for the record: at most 200 characters
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// Names the order: given again within 24 hours, it prints the same keys and makes none
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Print key, plan, end and id as CSV
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub file: FileArgs,
    /// Those of one plan
    #[arg(long, value_name = "NAME")]
    pub plan: Option<String>,
    /// Those in one state
    #[arg(long, value_parser = ["active", "expired", "disabled", "refunded", "revoked"])]
    pub state: Option<String>,
    /// The ones that were used last come first
    #[arg(long)]
    pub by_last_seen: bool,
    /// Print the list as CSV
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    /// Print the list as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Args)]
pub struct RotateArgs {
    #[command(flatten)]
    pub subject: SubjectArgs,
    /// How long the old key serves on (7d, 12h); without it, it is refused at once
    #[arg(long, value_name = "DURATION")]
    pub grace: Option<String>,
    /// Why, for the record: at most 200 characters
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// Names the order: given again within 24 hours, it prints the same key and makes none
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct ExtendArgs {
    #[command(flatten)]
    pub subject: SubjectArgs,
    /// The new last day (2027-01-31, UTC), or a moment
    #[arg(long, value_name = "DATE", required_unless_present = "by", conflicts_with = "by")]
    pub until: Option<String>,
    /// So much longer than now, or than its end (30d)
    #[arg(long, value_name = "DURATION")]
    pub by: Option<String>,
    /// Why, for the record: at most 200 characters
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct ExpireArgs {
    #[command(flatten)]
    pub subject: SubjectArgs,
    /// Why, for the record: at most 200 characters
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
}

type Out<'a> = (&'a mut dyn Write, &'a mut dyn Write);

/// # Errors
/// No gateway and no store could be asked.
pub fn issue(
    args: &IssueArgs,
    settings: &Settings,
    operate: Operate,
    (out, err): Out<'_>,
) -> anyhow::Result<ExitCode> {
    let mut order = Map::new();
    order.insert("plan".into(), json!(args.plan));
    order.insert("count".into(), json!(args.count));
    put(&mut order, "until", args.until.as_ref());
    put(&mut order, "note", args.note.as_ref());
    if let Some(devices) = args.max_devices {
        order.insert("max_devices".into(), json!(devices));
    }
    let id = order_id(args.id.as_ref(), &mut order)?;
    let answer = send(IssuedCommand::Issue, &args.file, settings, operate, order);
    let answer = answer.map_err(|error| {
        error.context(format!(
            "with `--id {id}` the same order is repeated, and makes nothing twice"
        ))
    })?;
    if args.json {
        writeln!(out, "{:#}", answer.body)?;
    } else {
        if args.csv && answer.status.is_success() {
            writeln!(out, "key,plan,until,license")?;
        }
        for issued in answer.body["licenses"].as_array().into_iter().flatten() {
            let text = |name: &str| issued[name].as_str().unwrap_or_default();
            match args.csv {
                true => writeln!(
                    out,
                    "{},{},{},{}",
                    text("key"),
                    text("plan"),
                    text("until"),
                    text("license")
                )?,
                false => writeln!(out, "{}", text("key"))?,
            }
        }
    }
    end(IssuedCommand::Issue, &answer, err)
}

/// # Errors
/// No gateway and no store could be asked.
pub fn list(
    args: &ListArgs,
    settings: &Settings,
    operate: Operate,
    (out, err): Out<'_>,
) -> anyhow::Result<ExitCode> {
    let mut all: Vec<Value> = Vec::new();
    loop {
        let mut order = Map::new();
        put(&mut order, "plan", args.plan.as_ref());
        put(&mut order, "state", args.state.as_ref());
        order.insert("offset".into(), json!(all.len()));
        order.insert("limit".into(), json!(PAGE));
        let answer = send(IssuedCommand::List, &args.file, settings, operate, order)?;
        let page = answer.body["licenses"].as_array().cloned().unwrap_or_default();
        if !answer.status.is_success() {
            return end(IssuedCommand::List, &answer, err);
        }
        let is_last = page.is_empty();
        all.extend(page);
        if is_last || all.len() as u64 >= answer.body["total"].as_u64().unwrap_or_default() {
            break;
        }
    }
    if args.by_last_seen {
        let seen = |one: &Value| one["last_seen"].as_str().unwrap_or_default().to_owned();
        all.sort_by_key(|one| std::cmp::Reverse(seen(one)));
    }
    match (args.json, args.csv) {
        (true, _) => writeln!(out, "{:#}", json!({ "licenses": all }))?,
        (_, true) => format::list_csv(&all, out)?,
        _ => format::list(&all, out)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// # Errors
/// No gateway and no store could be asked.
pub fn rotate(
    args: &RotateArgs,
    settings: &Settings,
    operate: Operate,
    (out, err): Out<'_>,
) -> anyhow::Result<ExitCode> {
    let mut order = subject_of(&args.subject, settings, err)?;
    put(&mut order, "grace", args.grace.as_ref());
    put(&mut order, "note", args.note.as_ref());
    let id = order_id(args.id.as_ref(), &mut order)?;
    let answer = send(IssuedCommand::Rotate, &args.subject.file, settings, operate, order);
    let answer = answer.map_err(|error| {
        error.context(format!(
            "with `--id {id}` the same order is repeated, and makes nothing twice"
        ))
    })?;
    match args.subject.json {
        true => writeln!(out, "{:#}", answer.body)?,
        false => writeln!(out, "{}", answer.body["key"].as_str().unwrap_or_default())?,
    }
    end(IssuedCommand::Rotate, &answer, err)
}

/// # Errors
/// No gateway and no store could be asked.
pub fn extend(
    args: &ExtendArgs,
    settings: &Settings,
    operate: Operate,
    (out, err): Out<'_>,
) -> anyhow::Result<ExitCode> {
    let mut order = subject_of(&args.subject, settings, err)?;
    put(&mut order, "until", args.until.as_ref());
    put(&mut order, "by", args.by.as_ref());
    put(&mut order, "note", args.note.as_ref());
    order_id(None, &mut order)?;
    change(IssuedCommand::Extend, &args.subject, settings, operate, order, (out, err))
}

/// # Errors
/// No gateway and no store could be asked.
pub fn expire(
    args: &ExpireArgs,
    settings: &Settings,
    operate: Operate,
    (out, err): Out<'_>,
) -> anyhow::Result<ExitCode> {
    let mut order = subject_of(&args.subject, settings, err)?;
    put(&mut order, "note", args.note.as_ref());
    order_id(None, &mut order)?;
    change(IssuedCommand::Expire, &args.subject, settings, operate, order, (out, err))
}

/// # Errors
/// No gateway and no store could be asked.
pub fn print(
    command: IssuedCommand,
    args: &ExpireArgs,
    settings: &Settings,
    operate: Operate,
    (out, err): Out<'_>,
) -> anyhow::Result<ExitCode> {
    let mut order = subject_of(&args.subject, settings, err)?;
    order_id(None, &mut order)?;
    let answer = send(command, &args.subject.file, settings, operate, order)?;
    if answer.status.is_success() {
        match (command, args.subject.json) {
            (IssuedCommand::Forget, false) => writeln!(
                out,
                "Forgotten. A hash, the date and the kind stay for 400 days, so that it does not come back."
            )?,
            _ => writeln!(out, "{:#}", answer.body)?,
        }
    }
    end(command, &answer, err)
}

fn change(
    command: IssuedCommand,
    subject: &SubjectArgs,
    settings: &Settings,
    operate: Operate,
    order: Map<String, Value>,
    (out, err): Out<'_>,
) -> anyhow::Result<ExitCode> {
    let answer = send(command, &subject.file, settings, operate, order)?;
    if subject.json {
        writeln!(out, "{:#}", answer.body)?;
    } else if answer.status.is_success() {
        out.write_all(format::of(&answer.body).as_bytes())?;
    }
    end(command, &answer, err)
}

pub(super) fn send(
    command: IssuedCommand,
    file: &FileArgs,
    settings: &Settings,
    operate: Operate,
    order: Map<String, Value>,
) -> anyhow::Result<ApiResponse> {
    let body = Zeroizing::new(Value::Object(order).to_string().into_bytes());
    ask(LicenseCommand::Issued(command), file, settings, operate, &body)
}

pub(super) fn put(order: &mut Map<String, Value>, name: &str, text: Option<&String>) {
    if let Some(text) = text {
        order.insert(name.into(), json!(text));
    }
}

pub(super) fn end(
    command: IssuedCommand,
    answer: &ApiResponse,
    err: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    if answer.status.is_success() {
        return Ok(ExitCode::SUCCESS);
    }
    let message = answer.body["error"]["message"].as_str().unwrap_or("it failed");
    writeln!(err, "gatekeeper: licenses {}: {message}", command.name())?;
    Ok(ExitCode::FAILURE)
}
