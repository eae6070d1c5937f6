//! `gatekeeper reload`: has the running gateway read its file again, or reports what that would change.

use std::{io::Write, path::Path, process::ExitCode};

use anyhow::bail;
use clap::Args;
use gatekeeper_filters::kernel::Registry;
use http::StatusCode;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    FileArgs,
    admin_client::{self, AdminResponse},
};
use crate::config::{self, Secrets, Settings, in_file};

pub const EXAMPLES: &str = "\
A gateway reads its file again by itself when it is saved, and on SIGHUP; this waits for the result and prints it.
With --diff nothing is applied, and FILE may be a copy. Secrets are never shown, only that they changed.
Exit status 1 when the file is refused, or when no gateway answers on its admin address.

Examples:
  gatekeeper reload --diff -c gateway.yaml      what would change
  gatekeeper reload -c gateway.yaml             apply it now";

#[derive(Debug, Clone, Args)]
pub struct ReloadArgs {
    #[command(flatten)]
    pub file: FileArgs,
    /// Only tell what would change
    #[arg(long)]
    pub diff: bool,
}

/// # Errors
/// No gateway could be asked.
pub fn run(
    args: &ReloadArgs,
    registry: &Registry,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let file = &args.file.path()?;
    // Only the address is needed; a file with problems is refused by the gateway.
    let settings = match config::load_with(file, registry, Secrets::MayBeAbsent) {
        Ok((settings, _)) => settings,
        Err(problems) => {
            super::write_problems(&problems, err)?;
            writeln!(err, "{REFUSED}")?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let answer = ask(args, &settings)?;
    tell(&answer, file, args.diff, out, err)
}

const REFUSED: &str = "Refused: a gateway that runs keeps the configuration it has.";

fn ask(args: &ReloadArgs, settings: &Settings) -> anyhow::Result<Value> {
    let file = &args.file.path()?;
    let order = if args.diff {
        json!({ "dry_run": true, "text": config::read(file)? })
    } else {
        json!({ "file": file.canonicalize().unwrap_or_else(|_| file.clone()) })
    };
    let body = Zeroizing::new(order.to_string().into_bytes());
    match admin_client::gateway(settings, "/api/reload", &body) {
        AdminResponse::Answered(answer) if answer.status.is_success() => Ok(answer.body),
        AdminResponse::Answered(answer) if answer.status == StatusCode::UNAUTHORIZED => bail!(
            "reload: the gateway runs with another admin.token than {} has. It notices a saved file by itself; \
             SIGHUP makes it read the file at once, and its log has the outcome",
            file.display()
        ),
        AdminResponse::Answered(answer) => {
            let message = answer.body["error"]["message"].as_str().unwrap_or("it failed");
            bail!("reload: {message}")
        }
        AdminResponse::Stranger(why) | AdminResponse::Failed(why) => bail!("reload: {why}"),
        AdminResponse::NotRunning(why) => bail!(
            "reload: no gateway answers on {}, the admin.listen of {} ({why}); nothing was \
             {}. `gatekeeper check` checks a file without a gateway",
            admin_client::address(settings),
            file.display(),
            if args.diff { "compared" } else { "reloaded" },
        ),
    }
}

fn tell(
    answer: &Value,
    file: &Path,
    is_dry: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let lines = |of: &str| {
        let lines = answer[of].as_array().into_iter().flatten().filter_map(Value::as_str);
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    for warning in lines("warnings") {
        writeln!(err, "{}:{warning} (warning)", file.display())?;
    }
    let problems = lines("problems");
    if !problems.is_empty() {
        for problem in problems {
            writeln!(err, "{}", in_file(&file.display(), &problem))?;
        }
        writeln!(err, "{REFUSED}")?;
        return Ok(ExitCode::FAILURE);
    }
    let (changes, waits) = (lines("changes"), lines("waits_for_restart"));
    for change in &changes {
        writeln!(out, "{change}")?;
    }
    for field in &waits {
        writeln!(out, "{field} waits for a hand-over (`gatekeeper upgrade`) or a restart")?;
    }
    let count = match changes.len() {
        0 if !waits.is_empty() => "Until then nothing changes".to_owned(),
        0 => "Nothing changes".to_owned(),
        1 => "1 change".to_owned(),
        more => format!("{more} changes"),
    };
    match (changes.len(), is_dry) {
        (0, _) => writeln!(out, "{count}.")?,
        (_, true) => writeln!(out, "{count}; nothing was applied.")?,
        (_, false) => writeln!(out, "{count}, live.")?,
    }
    Ok(ExitCode::SUCCESS)
}
