//! `gatekeeper licenses`: asks the running gateway, or the store itself when none runs. The key comes
//! on standard input, never on the command line, where others could see it.

mod asking;
mod csv;
mod format;
mod import;
mod issued;
mod moving;

use std::{io::Write, process::ExitCode};

use anyhow::bail;
use clap::{Args, Subcommand};
use gatekeeper_filters::kernel::Registry;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use self::asking::{Operate, SubjectArgs, ask, order_id, subject_of};
use crate::{
    cli::{file_args::FileArgs, write_problems},
    config::{self, Secrets, Settings},
    ledger::OperatorActionKind,
    license_admin::{LicenseCommand, issued::command::IssuedCommand},
};

pub const EXAMPLES: &str = "\
The licence key is read from standard input: typed or piped, never on the command line.
A gateway that runs on FILE is asked on its admin address; when none runs, the store itself is.

Examples:
  gatekeeper licenses show    -c gateway.yaml                      (type the key, Enter)
  gatekeeper licenses show    -c gateway.yaml --json < key.txt
  gatekeeper licenses grant   -c gateway.yaml --messages 100 --note \"sorry for Monday\" < key.txt
  gatekeeper licenses reset   -c gateway.yaml --license 1f0c...    (the id that `show` prints)
  gatekeeper licenses revoke  -c gateway.yaml --note \"key was published\" < key.txt
  gatekeeper licenses restore -c gateway.yaml < key.txt
  gatekeeper licenses move    -c gateway.yaml --dry-run < pairs.csv   (lines of OLD,NEW)";

#[derive(Debug, Clone, Args)]
pub struct LicensesArgs {
    #[command(subcommand)]
    pub what: LicensesCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub enum LicensesCommand {
    /// Everything known of a licence: plan, use, devices, what was done about it
    #[command(after_help = "Example:\n  gatekeeper licenses show -c gateway.yaml < key.txt")]
    Show(SubjectArgs),
    /// Forgive what was used so far in the current month, day or hour of its limits
    #[command(after_help = "Example:\n  gatekeeper licenses reset -c gateway.yaml < key.txt")]
    Reset(ChangeArgs),
    /// Give extra messages or tokens for the current month, day or hour of its limits
    #[command(after_help = "Example:\n  \
        gatekeeper licenses grant -c gateway.yaml --messages 100 < key.txt")]
    Grant(GrantArgs),
    /// Refuse a licence at once, whatever its shop says
    #[command(after_help = "Example:\n  gatekeeper licenses revoke -c gateway.yaml < key.txt")]
    Revoke(ChangeArgs),
    /// Take a revocation back
    #[command(after_help = "Example:\n  gatekeeper licenses restore -c gateway.yaml < key.txt")]
    Restore(ChangeArgs),
    /// Have licences go on under new keys, as after a move to another shop: use, grants, devices follow
    #[command(after_help = moving::EXAMPLES)]
    Move(moving::MoveArgs),
    /// Issue licences of your own: prints their keys, which are kept nowhere in clear
    #[command(after_help = "Examples:\n  gatekeeper licenses issue -c gateway.yaml --plan pro\n  \
        gatekeeper licenses issue -c gateway.yaml --plan pro --until 2027-01-31 --count 20 --csv")]
    Issue(issued::IssueArgs),
    /// List the licences that were issued, adopted or imported; without keys
    #[command(after_help = "Example:\n  gatekeeper licenses list -c gateway.yaml --state expired")]
    List(issued::ListArgs),
    /// Give an issued licence another key; its usage and its devices stay
    #[command(
        after_help = "Example:\n  gatekeeper licenses rotate -c gateway.yaml --grace 7d < key.txt"
    )]
    Rotate(issued::RotateArgs),
    /// Give an issued licence another last day
    #[command(
        after_help = "Example:\n  gatekeeper licenses extend -c gateway.yaml --by 30d < key.txt"
    )]
    Extend(issued::ExtendArgs),
    /// End an issued licence now
    #[command(after_help = "Example:\n  gatekeeper licenses expire -c gateway.yaml < key.txt")]
    Expire(issued::ExpireArgs),
    /// Import licences that were sold elsewhere: from a CSV file, or from Lemon Squeezy
    #[command(after_help = import::EXAMPLES)]
    Import(import::ImportArgs),
    /// Print all that is known of one buyer, as JSON
    #[command(after_help = "Example:\n  gatekeeper licenses export -c gateway.yaml < key.txt")]
    Export(issued::ExpireArgs),
    /// Forget one buyer: an issued licence ends, and a hash, a date and a kind are left of it
    #[command(after_help = "Example:\n  gatekeeper licenses forget -c gateway.yaml < key.txt")]
    Forget(issued::ExpireArgs),
}

#[derive(Debug, Clone, Args)]
pub struct ChangeArgs {
    #[command(flatten)]
    pub subject: SubjectArgs,
    /// Why, for the record: at most 200 characters
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct GrantArgs {
    #[command(flatten)]
    pub change: ChangeArgs,
    /// Extra messages
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub messages: u64,
    /// Extra tokens
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub tokens: u64,
}

impl LicensesArgs {
    /// The command, for those about any licence.
    fn command(&self) -> LicenseCommand {
        match &self.what {
            LicensesCommand::Reset(_) => LicenseCommand::Do(OperatorActionKind::Reset),
            LicensesCommand::Grant(_) => LicenseCommand::Do(OperatorActionKind::Grant),
            LicensesCommand::Revoke(_) => LicenseCommand::Do(OperatorActionKind::Revoke),
            LicensesCommand::Restore(_) => LicenseCommand::Do(OperatorActionKind::Restore),
            _ => LicenseCommand::Show,
        }
    }

    /// The licence that a command is about.
    fn subject(&self) -> Option<&SubjectArgs> {
        match &self.what {
            LicensesCommand::Show(subject) => Some(subject),
            LicensesCommand::Rotate(args) => Some(&args.subject),
            LicensesCommand::Extend(args) => Some(&args.subject),
            LicensesCommand::Expire(args)
            | LicensesCommand::Export(args)
            | LicensesCommand::Forget(args) => Some(&args.subject),
            _ => self.change().map(|change| &change.subject),
        }
    }

    fn file(&self) -> FileArgs {
        match &self.what {
            LicensesCommand::Issue(args) => args.file.clone(),
            LicensesCommand::Import(args) => args.file(),
            LicensesCommand::List(args) => args.file.clone(),
            LicensesCommand::Move(args) => args.file.clone(),
            LicensesCommand::Show(subject) => subject.file.clone(),
            LicensesCommand::Rotate(args) => args.subject.file.clone(),
            LicensesCommand::Extend(args) => args.subject.file.clone(),
            LicensesCommand::Expire(args)
            | LicensesCommand::Export(args)
            | LicensesCommand::Forget(args) => args.subject.file.clone(),
            LicensesCommand::Reset(change)
            | LicensesCommand::Revoke(change)
            | LicensesCommand::Restore(change) => change.subject.file.clone(),
            LicensesCommand::Grant(grant) => grant.change.subject.file.clone(),
        }
    }

    fn change(&self) -> Option<&ChangeArgs> {
        match &self.what {
            LicensesCommand::Reset(change)
            | LicensesCommand::Revoke(change)
            | LicensesCommand::Restore(change) => Some(change),
            LicensesCommand::Grant(grant) => Some(&grant.change),
            _ => None,
        }
    }
}

/// The settings of the file. Secrets of providers are not needed and may be absent.
///
/// # Errors
/// Every problem of the file.
pub fn settings(
    args: &LicensesArgs,
    registry: &Registry,
    err: &mut dyn Write,
) -> anyhow::Result<Settings> {
    let file = args.file().path()?;
    config::load_with(&file, registry, Secrets::MayBeAbsent).map(|(settings, _)| settings).map_err(
        |problems| {
            let _ = write_problems(&problems, err);
            anyhow::anyhow!("licenses: {} has problems", file.display())
        },
    )
}

/// # Errors
/// No gateway answers.
pub fn run(
    args: &LicensesArgs,
    settings: &Settings,
    operate: Operate,
    (out, err): (&mut dyn Write, &mut dyn Write),
) -> anyhow::Result<ExitCode> {
    match &args.what {
        LicensesCommand::Move(moving) => return moving::run(moving, settings, operate, (out, err)),
        LicensesCommand::Issue(issue) => {
            return issued::issue(issue, settings, operate, (out, err));
        }
        LicensesCommand::List(list) => return issued::list(list, settings, operate, (out, err)),
        LicensesCommand::Rotate(rotate) => {
            return issued::rotate(rotate, settings, operate, (out, err));
        }
        LicensesCommand::Extend(extend) => {
            return issued::extend(extend, settings, operate, (out, err));
        }
        LicensesCommand::Expire(expire) => {
            return issued::expire(expire, settings, operate, (out, err));
        }
        LicensesCommand::Export(args) => {
            return issued::print(IssuedCommand::Export, args, settings, operate, (out, err));
        }
        LicensesCommand::Forget(args) => {
            return issued::print(IssuedCommand::Forget, args, settings, operate, (out, err));
        }
        LicensesCommand::Import(import) => {
            return import::import(import, settings, operate, (out, err));
        }
        _ => {}
    }
    let Some(subject) = args.subject() else { bail!("licenses: name a licence") };
    let body = body(args, subject, settings, err)?;
    let answer = ask(args.command(), &subject.file, settings, operate, &body)?;
    if subject.json {
        writeln!(out, "{:#}", answer.body)?;
    } else if answer.status.is_success() {
        out.write_all(format::of(&answer.body).as_bytes())?;
    }
    if answer.status.is_success() {
        return Ok(ExitCode::SUCCESS);
    }
    let message = answer.body["error"]["message"].as_str().unwrap_or("it failed");
    writeln!(err, "gatekeeper: licenses {}: {message}", args.command().name())?;
    Ok(ExitCode::FAILURE)
}

/// The order, as the admin listener takes it. It has an id from the start: asked twice, it is carried
/// out once.
fn body(
    args: &LicensesArgs,
    subject: &SubjectArgs,
    settings: &Settings,
    err: &mut dyn Write,
) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let mut order = subject_of(subject, settings, err)?;
    if let LicensesCommand::Grant(grant) = &args.what {
        order.insert("messages".into(), json!(grant.messages));
        order.insert("tokens".into(), json!(grant.tokens));
    }
    if let Some(change) = args.change() {
        order_id(None, &mut order)?;
        if let Some(note) = &change.note {
            order.insert("note".into(), json!(note));
        }
    }
    Ok(Zeroizing::new(Value::Object(order).to_string().into_bytes()))
}
