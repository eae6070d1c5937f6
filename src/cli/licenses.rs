//! `gatekeeper licenses`: asks the running gateway, or the store itself when none runs. The key comes
//! on standard input, never on the command line, where others could see it.

mod asking;
mod format;
mod moving;

use std::{
    io::{self, BufRead, IsTerminal, Read, Write},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use gatekeeper_filters::kernel::{LicenseId, Registry};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use self::asking::{Operate, ask};
use crate::{
    cli::{file_args::FileArgs, usage},
    config::{self, Secrets, Settings},
    ledger::OperatorActionKind,
    license_admin::{LicenseCommand, random_id},
};

/// Longer than any key.
const LONGEST_KEY: u64 = 1024;

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
}

#[derive(Debug, Clone, Args)]
pub struct SubjectArgs {
    #[command(flatten)]
    pub file: FileArgs,
    /// The licence's id instead of its key: 64 hex digits, or as many of the first as name one (6 at least)
    #[arg(long, value_name = "HEX")]
    pub license: Option<String>,
    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
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

/// A command about one licence.
struct OneLicense<'a> {
    command: LicenseCommand,
    subject: &'a SubjectArgs,
    change: Option<&'a ChangeArgs>,
    grant: Option<&'a GrantArgs>,
}

impl LicensesCommand {
    /// `None` for one about many.
    fn one<'a>(&'a self) -> Option<OneLicense<'a>> {
        let change = |kind, change: &'a ChangeArgs| OneLicense {
            command: LicenseCommand::Do(kind),
            subject: &change.subject,
            change: Some(change),
            grant: None,
        };
        Some(match self {
            LicensesCommand::Show(subject) => {
                OneLicense { command: LicenseCommand::Show, subject, change: None, grant: None }
            }
            LicensesCommand::Reset(args) => change(OperatorActionKind::Reset, args),
            LicensesCommand::Revoke(args) => change(OperatorActionKind::Revoke, args),
            LicensesCommand::Restore(args) => change(OperatorActionKind::Restore, args),
            LicensesCommand::Grant(grant) => {
                let one = change(OperatorActionKind::Grant, &grant.change);
                OneLicense { grant: Some(grant), ..one }
            }
            LicensesCommand::Move(_) => return None,
        })
    }

    fn file(&self) -> &FileArgs {
        match self {
            LicensesCommand::Show(subject) => &subject.file,
            LicensesCommand::Reset(change)
            | LicensesCommand::Revoke(change)
            | LicensesCommand::Restore(change) => &change.subject.file,
            LicensesCommand::Grant(grant) => &grant.change.subject.file,
            LicensesCommand::Move(args) => &args.file,
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
    let file = args.what.file().path()?;
    config::load_with(&file, registry, Secrets::MayBeAbsent).map(|(settings, _)| settings).map_err(
        |problems| {
            let _ = super::write_problems(&problems, err);
            anyhow::anyhow!("licenses: {} has problems", file.display())
        },
    )
}

/// # Errors
/// Nobody could be asked.
pub fn run(
    args: &LicensesArgs,
    settings: &Settings,
    operate: Operate,
    (out, err): (&mut dyn Write, &mut dyn Write),
) -> anyhow::Result<ExitCode> {
    let one = match &args.what {
        LicensesCommand::Move(moving) => return moving::run(moving, settings, operate, (out, err)),
        what => what.one().context("licenses: a command about one licence")?,
    };
    let body = body(&one, settings, err)?;
    let answer = ask(one.command, &one.subject.file, settings, operate, &body)?;
    if one.subject.json {
        writeln!(out, "{:#}", answer.body)?;
    } else if answer.status.is_success() {
        out.write_all(format::of(&answer.body).as_bytes())?;
    }
    if answer.status.is_success() {
        return Ok(ExitCode::SUCCESS);
    }
    let message = answer.body["error"]["message"].as_str().unwrap_or("it failed");
    writeln!(err, "gatekeeper: licenses {}: {message}", one.command.name())?;
    Ok(ExitCode::FAILURE)
}

/// The order, as the admin listener takes it. It has an id from the start: asked twice, it is carried
/// out once.
fn body(
    one: &OneLicense<'_>,
    settings: &Settings,
    err: &mut dyn Write,
) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let mut order = Map::new();
    match &one.subject.license {
        Some(hex) => {
            order.insert("license".into(), json!(whole_id(hex, settings)?));
        }
        None => {
            order.insert("key".into(), json!(&*read_key(err)?));
        }
    }
    if let Some(grant) = one.grant {
        order.insert("messages".into(), json!(grant.messages));
        order.insert("tokens".into(), json!(grant.tokens));
    }
    if let Some(change) = one.change {
        let id = random_id().map_err(|failure| anyhow::anyhow!(failure.message))?;
        order.insert("id".into(), json!(id));
        if let Some(note) = &change.note {
            order.insert("note".into(), json!(note));
        }
    }
    Ok(Zeroizing::new(Value::Object(order).to_string().into_bytes()))
}

/// Fewer digits than 64 are enough where they name one licence, as in git.
fn whole_id(hex: &str, settings: &Settings) -> anyhow::Result<String> {
    let hex = hex.to_ascii_lowercase();
    if LicenseId::from_hex(&hex).is_some() {
        return Ok(hex);
    }
    let fits = (6..64).contains(&hex.len()) && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    anyhow::ensure!(fits, "--license: expected 6 to 64 hex digits");
    usage::licence_of(settings, &hex)
}

fn read_key(err: &mut dyn Write) -> anyhow::Result<Zeroizing<String>> {
    let input = io::stdin();
    if input.is_terminal() {
        write!(err, "Licence key: ")?;
        err.flush()?;
    }
    let mut line = Zeroizing::new(String::with_capacity(LONGEST_KEY as usize));
    input.lock().take(LONGEST_KEY).read_line(&mut line).context("standard input")?;
    let key = line.trim();
    if key.is_empty() {
        bail!("standard input: expected a licence key (or name the licence with --license)");
    }
    Ok(Zeroizing::new(key.to_owned()))
}
