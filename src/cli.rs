//! The command line. Each command is one function; what needs the machine (`run`, `demo`) is
//! handed in.

mod admin_client;
mod args;
pub mod demo;
mod explain;
mod file_args;
mod health;
mod licenses;
mod problems;
mod prompts;
mod reload;
pub mod rewrap;
mod seal;
mod sources;
pub mod upgrade;
pub mod usage;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{CommandFactory, Parser};
use gatekeeper_filters::kernel::Registry;

pub use self::args::{
    CheckArgs, Cli, CliCommand, CompletionsArgs, DemoArgs, ManArgs, RunArgs, SealArgs, UpgradeArgs,
};
use self::{
    file_args::{FileArgs, named_or_default},
    problems::{many, write_problems, write_warnings},
};
use crate::{
    config::{self, Secrets, Settings, settings::LicenseSource},
    license_admin,
    progress::Progress,
};

/// What the machine does; the rest of the commands need none.
#[derive(Debug, Clone, Copy)]
pub struct Actions {
    /// Runs the gateway on a file; as the successor of the running one, or by itself.
    pub run: fn(PathBuf, bool, Registry) -> anyhow::Result<()>,
    pub demo: fn(DemoArgs, Registry) -> anyhow::Result<()>,
    /// Carries out an operator's order (JSON) where no gateway runs.
    pub operate: fn(
        &Settings,
        license_admin::LicenseCommand,
        &[u8],
    ) -> anyhow::Result<license_admin::ApiResponse>,
}

/// Runs the command that the process was started with.
pub fn main(registry: Registry, actions: Actions) -> ExitCode {
    match dispatch(Cli::parse(), registry, actions, &mut io::stdout(), &mut io::stderr()) {
        Ok(code) => code,
        Err(error) => {
            // If standard error is closed, there is nowhere to report.
            let _ = writeln!(io::stderr(), "gatekeeper: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// # Errors
/// What kept the command from doing its work, in the operator's words.
pub fn dispatch(
    cli: Cli,
    registry: Registry,
    actions: Actions,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    match cli.command {
        CliCommand::Run(args) => (actions.run)(args.file.path()?, args.upgrade, registry)?,
        CliCommand::Demo(args) => (actions.demo)(args, registry)?,
        CliCommand::Check(args) => return check(&args, &registry, out, err),
        CliCommand::Explain(args) => {
            let Some((settings, _)) = look(&args.path()?, &registry, err)? else {
                return Ok(ExitCode::FAILURE);
            };
            explain::explain(&settings, &registry, out)?;
        }
        CliCommand::Seal(args) => seal::seal(&args.place()?, &mut io::stdin(), out, err)?,
        CliCommand::Rewrap(args) => rewrap(&args.path()?, err)?,
        CliCommand::Usage(args) => {
            let file = args.file.path()?;
            let (settings, _) = config::load_with(&file, &registry, Secrets::MayBeAbsent)?;
            usage::write(&settings, &args, out)?;
        }
        CliCommand::Licenses(args) => {
            let settings = licenses::settings(&args, &registry, err)?;
            return licenses::run(&args, &settings, actions.operate, (out, err));
        }
        CliCommand::Prompts(args) => {
            let file = named_or_default(args.config())?;
            let Some((settings, _)) = look(&file, &registry, err)? else {
                return Ok(ExitCode::FAILURE);
            };
            return prompts::run(&args, &settings, out);
        }
        CliCommand::Reload(args) => return reload::run(&args, &registry, out, err),
        CliCommand::Upgrade(args) => {
            let file = args.file.path()?;
            let Some((settings, _)) = look(&file, &registry, err)? else {
                return Ok(ExitCode::FAILURE);
            };
            upgrade::upgrade(&file, &settings, args.binary, err)?;
        }
        CliCommand::Health(args) => return health::run(&args, &registry, (out, err)),
        CliCommand::Completions(args) => {
            // At once: it panics where it can't write.
            let mut text = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "gatekeeper", &mut text);
            out.write_all(&text)?;
        }
        CliCommand::Man(args) => out.write_all(&man_page(args.command.as_deref())?)?,
        CliCommand::Schema => writeln!(out, "{:#}", config::schema())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The page of the manual, in roff. Made from the same declarations as `--help`.
fn man_page(command: Option<&str>) -> anyhow::Result<Vec<u8>> {
    let mut program = Cli::command();
    program.build();
    let shown = match command {
        None => program,
        Some(name) => {
            let found = program.find_subcommand(name).filter(|_| name != "help");
            found.with_context(|| format!("there is no command `{name}`"))?.clone()
        }
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(shown).render(&mut page)?;
    Ok(page)
}

/// Loads for looking at; problems go to `err`.
fn look(
    file: &Path,
    registry: &Registry,
    err: &mut dyn Write,
) -> anyhow::Result<Option<(Settings, usize)>> {
    let progress = Progress::of(format!("Reading {} and what it names", file.display()), "");
    let loaded = config::load_with(file, registry, Secrets::MayBeAbsent);
    drop(progress);
    match loaded {
        Ok((settings, warnings)) => {
            write_warnings(file, &warnings, err)?;
            Ok(Some((settings, warnings.len())))
        }
        Err(problems) => {
            write_problems(&problems, err)?;
            Ok(None)
        }
    }
}

/// The sources of licences: keys of the file, and shops.
fn sources(settings: &Settings) -> String {
    let keys = |source: &LicenseSource| match source {
        LicenseSource::Static(keys) => keys.len(),
        _ => 0,
    };
    let sources = &settings.licenses.sources;
    let keys: usize = sources.iter().map(keys).sum();
    let shops = sources.iter().filter(|source| !matches!(source, LicenseSource::Static(_))).count();
    match (keys, shops) {
        (_, 0) => many(keys, "licence key"),
        (0, _) => many(shops, "shop"),
        _ => format!("{}, {}", many(keys, "licence key"), many(shops, "shop")),
    }
}

fn check(
    args: &CheckArgs,
    registry: &Registry,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let file = &*args.file.path()?;
    let Some((settings, warnings)) = look(file, registry, err)? else {
        return Ok(ExitCode::FAILURE);
    };
    let keys: usize = settings.providers.iter().map(|provider| provider.keys.len()).sum();
    writeln!(
        out,
        "{}: good: {}, {}, {}, {}, {}, {}, {}",
        file.display(),
        many(settings.providers.len(), "provider"),
        many(keys, "key"),
        many(settings.models.len(), "model"),
        many(settings.plans.len(), "plan"),
        sources(&settings),
        many(settings.filters.len(), "filter"),
        many(warnings, "warning"),
    )?;
    writeln!(
        out,
        "Next: gatekeeper run {0}   (or, where one runs on it: gatekeeper reload {0})",
        file.display()
    )?;
    if args.online && !sources::check_online(&settings, out)? {
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn rewrap(file: &Path, err: &mut dyn Write) -> anyhow::Result<()> {
    // A file `seal` could not have been used with is no file of ours.
    fs::metadata(file).with_context(|| file.display().to_string())?;
    let progress = Progress::of(format!("Sealing the secrets of {} anew", file.display()), "");
    let done = rewrap::rewrap(file)?;
    drop(progress);
    let pepper = if done.pepper_written { "; the pepper in use was written" } else { "" };
    writeln!(
        err,
        "{}: {} sealed anew, {} were already under vault.kek{pepper}",
        file.display(),
        many(done.secrets, "secret"),
        done.kept
    )?;
    Ok(())
}

#[cfg(test)]
mod tests;
