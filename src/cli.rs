//! The command line. Each command is one function; what needs the machine (`run`, `demo`) is
//! handed in.

mod admin_client;
pub mod demo;
mod file_args;
mod health;
mod licenses;
mod problems;
mod prompts;
mod reload;
pub mod rewrap;
mod sources;
pub mod upgrade;
pub mod usage;

use std::{
    fmt::Write as _,
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use gatekeeper_filters::kernel::{Limit, Model, ModelSet, Plan, Registry};
use secrecy::SecretString;
use zeroize::Zeroizing;

use self::{
    file_args::{FileArgs, named_or_default},
    problems::{many, write_problems, write_warnings},
    usage::UsageArgs,
};
use crate::{
    config::{self, Secrets, Settings, scalars, settings::LicenseSource, yaml::Node},
    license_admin,
    progress::Progress,
    vault::{self, Kek, KekSource, pepper::PLACE},
};

/// Lets a desktop app use AI providers without holding their keys.
#[derive(Debug, Parser)]
#[command(name = "gatekeeper", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: CliCommand,
}

const EXAMPLES: &str = "\
Examples:
  gatekeeper demo                                            see it work: no key, no network
  gatekeeper run conf/gatekeeper.yaml                        start the gateway
  gatekeeper check conf/gatekeeper.yaml                      every problem of a file
  gatekeeper explain conf/gatekeeper.yaml                    what the file means
  gatekeeper seal -c conf/gatekeeper.yaml groq groq-1 < key  a provider key for the file
  gatekeeper rewrap -c conf/gatekeeper.yaml                  after a change of vault.kek
  gatekeeper usage -c conf/gatekeeper.yaml                   what was used and what it cost
  gatekeeper licenses grant -c FILE --messages 100 < key     what one buyer has, and more of it
  gatekeeper prompts test -c FILE reply shop=Ann             what a prompt makes of values
  gatekeeper reload --diff -c conf/gatekeeper.yaml           what a saved file would change
  gatekeeper upgrade -c conf/gatekeeper.yaml                 a new version, with no stream cut
  gatekeeper schema > conf/schema.json                       for the editor
  gatekeeper health -c conf/gatekeeper.yaml                  for a container's health check
  gatekeeper completions bash                                for the shell";

#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Start the gateway
    #[command(
        after_help = "SIGTERM lets streams finish, a second one does not. SIGHUP reads the file again. \
        SIGQUIT hands over\nto a process that was started with --upgrade and waits; without one it does \
        nothing.\n\nExamples:\n  gatekeeper run -c conf/gatekeeper.yaml\n  \
        gatekeeper run -c conf/gatekeeper.yaml --upgrade & kill -QUIT OLD   (`upgrade` does it all)"
    )]
    Run(RunArgs),
    /// Replace the running gateway with a new binary without dropping connections
    #[command(
        after_help = "The running gateway starts the program as its successor and hands over sockets \
        and store. If that fails\nat any point, it serves on as before.\n\nExamples:\n  \
        gatekeeper upgrade -c conf/gatekeeper.yaml                  to this program\n  \
        gatekeeper upgrade -c FILE --binary /opt/gatekeeper-2       to another\n  \
        RUNTIME_DIRECTORY=/run/gatekeeper gatekeeper upgrade -c FILE   a service of systemd's"
    )]
    Upgrade(UpgradeArgs),
    /// Report every problem of a configuration file; exit status 1 if there is one
    #[command(after_help = "Secrets that are not on this machine (an unset variable, a missing \
        file) are warnings\nhere and problems at `run`.\n\nExamples:\n  \
        gatekeeper check -c conf/gatekeeper.yaml\n  \
        gatekeeper check -c conf/gatekeeper.yaml --online   asks each shop once, about a made-up key")]
    Check(CheckArgs),
    /// Show the chain, the models and the plans that a file means
    #[command(after_help = "Example:\n  gatekeeper explain -c conf/gatekeeper.yaml")]
    Explain(FileArgs),
    /// Seal a provider key: reads it from standard input, prints what to paste into the file
    #[command(after_help = "The secret never stands on the command line, where others could see \
        it.\nThe KEK's file is made if it is missing.\n\nExamples:\n  \
        gatekeeper seal -c conf/gatekeeper.yaml groq groq-1 < key.txt\n  \
        gatekeeper seal -c conf/gatekeeper.yaml groq groq-1     (type it, Enter, Ctrl-D)")]
    Seal(SealArgs),
    /// Seal every secret of a file under vault.kek, and write the pepper in use into it
    #[command(
        after_help = "To change the KEK: move the old one to `vault.previous`, a new one to \
        `vault.kek`, run this,\ntake `previous` out. Gateways that run notice each step.\n\nExample:\n  \
        gatekeeper rewrap -c conf/gatekeeper.yaml"
    )]
    Rewrap(FileArgs),
    /// Report what licences, plans, models, prompts or days used and cost in a month
    #[command(after_help = usage::EXAMPLES)]
    Usage(UsageArgs),
    /// Show and change one licence: at the running gateway, or in its store when none runs
    #[command(after_help = licenses::EXAMPLES)]
    Licenses(licenses::LicensesArgs),
    /// Try out a prompt of the file
    #[command(after_help = prompts::EXAMPLES)]
    Prompts(prompts::PromptsArgs),
    /// Reload the configuration of the running gateway, or (--diff) show what that would change
    #[command(after_help = reload::EXAMPLES)]
    Reload(reload::ReloadArgs),
    /// Check whether the gateway is healthy
    #[command(after_help = health::EXAMPLES)]
    Health(health::HealthArgs),
    /// Print a completion script for a shell
    #[command(after_help = COMPLETIONS)]
    Completions(CompletionsArgs),
    /// Print a page of the manual (man): of the program, or of one of its commands
    #[command(after_help = "Examples:\n  gatekeeper man > gatekeeper.1\n  \
        gatekeeper man run > gatekeeper-run.1")]
    Man(ManArgs),
    /// Print the JSON schema of the configuration file
    #[command(after_help = "Example:\n  gatekeeper schema > conf/schema.json")]
    Schema,
    /// Gateway, stand-in provider and traffic in one process: no key, no network
    #[command(after_help = "Example:\n  gatekeeper demo")]
    Demo(DemoArgs),
}

const COMPLETIONS: &str = "\
Examples:
  gatekeeper completions bash > /etc/bash_completion.d/gatekeeper
  gatekeeper completions zsh > ~/.zfunc/_gatekeeper            (a folder of $fpath)
  gatekeeper completions fish > ~/.config/fish/completions/gatekeeper.fish";

#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// Which shell
    pub shell: Shell,
}

#[derive(Debug, Clone, Args)]
pub struct ManArgs {
    /// Which command; the program itself where it is not given
    #[arg(value_name = "COMMAND")]
    pub command: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub file: FileArgs,
    /// Ask each licence source once whether it takes our credential, organisation and products
    #[arg(long)]
    pub online: bool,
}

#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub file: FileArgs,
    /// Wait until the running gateway hands over (SIGQUIT), and take its sockets and its store
    #[arg(long)]
    pub upgrade: bool,
}

#[derive(Debug, Clone, Args)]
pub struct UpgradeArgs {
    #[command(flatten)]
    pub file: FileArgs,
    /// The program to start; this one where it is not given
    #[arg(long, value_name = "PATH")]
    pub binary: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Where the gateway listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = address)]
    pub listen: std::net::SocketAddr,
    /// Where the dashboard is
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090", value_parser = address)]
    pub admin: std::net::SocketAddr,
}

fn address(text: &str) -> Result<std::net::SocketAddr, String> {
    let of_port = || text.parse::<u16>().ok().map(|port| format!("127.0.0.1:{port}"));
    text.parse().map_err(|_| match of_port() {
        Some(meant) => format!("an address stands before the port, like {meant}"),
        None => "expected an IP address and a port, like 127.0.0.1:8080".to_owned(),
    })
}

#[derive(Debug, Clone, Args)]
pub struct SealArgs {
    /// The configuration file
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The provider's name and the key's id in the file; before them, FILE, where -c does not name it
    #[arg(value_names = ["FILE] [PROVIDER", "KEY_ID"], num_args = 2..=3, required = true)]
    pub words: Vec<String>,
}

impl SealArgs {
    fn place(&self) -> anyhow::Result<SealPlace> {
        let (file, provider, key_id) = match self.words.as_slice() {
            [provider, key_id] => (self.config.clone(), provider, key_id),
            [file, provider, key_id] if self.config.is_none() => {
                (Some(file.into()), provider, key_id)
            }
            _ => bail!("seal: expected [FILE] PROVIDER KEY_ID"),
        };
        let config = named_or_default(file.as_ref())?;
        Ok(SealPlace { config, provider: provider.clone(), key_id: key_id.clone() })
    }
}

/// Which key of which provider in which file.
struct SealPlace {
    config: PathBuf,
    provider: String,
    key_id: String,
}

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
        CliCommand::Explain(args) => return explain(&args.path()?, &registry, out, err),
        CliCommand::Seal(args) => seal(&args.place()?, &mut io::stdin(), out, err)?,
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

fn explain(
    file: &Path,
    registry: &Registry,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let Some((settings, _)) = look(file, registry, err)? else {
        return Ok(ExitCode::FAILURE);
    };
    let chain = config::inert_chain(&settings, registry).map_err(|problems| {
        let messages: Vec<_> = problems.into_iter().map(|problem| problem.message).collect();
        anyhow::anyhow!(messages.join("; "))
    })?;
    writeln!(out, "Filters, in the order a request meets them:")?;
    for (index, step) in chain.steps().iter().enumerate() {
        writeln!(out, "  {}. {:<12} {}", index + 1, step.name, step.summary)?;
        for (name, value) in step.options.as_object().into_iter().flatten() {
            writeln!(out, "       {name}: {value}")?;
        }
    }
    writeln!(out, "\nModels, first target first:")?;
    for (name, model) in settings.models.iter() {
        if let Some(smart) = &model.smart {
            let (simple, complex) = (&smart.simple.name, &smart.complex.name);
            writeln!(out, "  {name:<14} {simple}, or {complex} from score {} on", smart.threshold)?;
            continue;
        }
        let targets: Vec<_> = model.targets.iter().map(|target| &*target.label).collect();
        writeln!(out, "  {name:<14} {}", targets.join(", then "))?;
        writeln!(out, "  {:<14} {}", "", delivery(model))?;
        if !model.accepts.is_empty() {
            writeln!(out, "  {:<14} accepts {}", "", model.accepts.join(", "))?;
        }
    }
    if !settings.prompts.is_empty() {
        writeln!(out, "\nPrompts:")?;
    }
    for prompt in settings.prompts.values() {
        let variables = prompt.variables.iter().map(ToString::to_string);
        let input: Vec<_> =
            variables.chain(prompt.history.as_ref().map(ToString::to_string)).collect();
        let input = if input.is_empty() { "nothing".into() } else { input.join(", ") };
        writeln!(out, "  {:<14} model {}; takes {input}", prompt.name, prompt.model)?;
    }
    writeln!(out, "\nProviders:")?;
    for provider in &settings.providers {
        let base = &provider.base;
        let at = match (base.stand_in, base.tls) {
            (true, _) => "inside this process".to_owned(),
            (_, true) => format!("https://{}:{}{}", base.host, base.port, base.path),
            (_, false) => format!("http://{}:{}{}", base.host, base.port, base.path),
        };
        let keys: Vec<_> = provider.keys.iter().map(|key| &*key.id).collect();
        let dialect = provider.dialect.name();
        writeln!(out, "  {:<14} {dialect} at {at}; keys {}", provider.name, keys.join(", "))?;
    }
    writeln!(out, "\nPlans:")?;
    for plan in &settings.plans {
        writeln!(out, "  {:<14} {}", plan.name, describe(plan))?;
    }
    sources::explain(&settings, out)?;
    Ok(ExitCode::SUCCESS)
}

/// How a model's broken answer is delivered.
fn delivery(model: &Model) -> &'static str {
    if model.whole {
        "whole answers: one that breaks in the middle is asked for again before the app sees it"
    } else {
        "streams as they come: one that breaks after its first words ends in an error \
         (`delivery: whole` would ask again)"
    }
}

fn describe(plan: &Plan) -> String {
    let limit = |limit: Option<Limit>| match limit {
        Some(limit) => format!("{}/{}", limit.count, limit.per.name()),
        None => "unlimited".into(),
    };
    let mut text = format!(
        "messages {}, tokens {}, rate {}",
        limit(plan.messages),
        limit(plan.tokens),
        limit(plan.rate)
    );
    let mut add = |name: &str, value: Option<u64>| {
        if let Some(value) = value {
            let _ = write!(text, ", {name} {value}");
        }
    };
    add("concurrency", plan.concurrency.map(u64::from));
    add("max_output_tokens", plan.max_output_tokens);
    add("max_input_tokens", plan.max_input_tokens);
    let models = match &plan.models {
        ModelSet::All => "all".into(),
        ModelSet::Only(names) => names.join(", "),
    };
    let prompts = match &plan.prompts {
        ModelSet::All => "; prompts: all".into(),
        ModelSet::Only(names) if names.is_empty() => String::new(),
        ModelSet::Only(names) => format!("; prompts: {}", names.join(", ")),
    };
    match plan.prompts_only {
        true => text + &prompts + " and nothing else",
        false => text + "; models: " + &models + &prompts,
    }
}

fn seal(
    args: &SealPlace,
    input: &mut dyn Read,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<()> {
    for (what, name) in [("provider", &args.provider), ("key id", &args.key_id)] {
        if let Err(message) = scalars::name(name) {
            bail!("seal: {what}: {message}");
        }
    }
    // Only the vault is needed: the file may still lack the very key that is being sealed.
    let root = raw_tree(&args.config)?;
    let source = kek_source(&root, &args.config)?;
    let secret = read_secret(input)?;
    let kek = match Kek::load(&source) {
        Err(error) if error.is_absent() => match &source {
            KekSource::File(path) => {
                let kek = Kek::generate_file(path)?;
                writeln!(err, "made a new KEK: {} (keep a copy somewhere safe)", path.display())?;
                kek
            }
            KekSource::Env(_) => {
                bail!("vault.kek: {error}; make one with: head -c 32 /dev/urandom | base64")
            }
        },
        loaded => loaded.context("vault.kek")?,
    };
    let sealed = vault::seal(&kek, &args.provider, &args.key_id, &secret)?;
    writeln!(out, "{sealed}")?;
    out.flush()?;
    writeln!(err, "{}", advice(&root, args))?;
    Ok(())
}

fn raw_tree(file: &Path) -> anyhow::Result<Node> {
    let text = config::read(file)?;
    let mut problems = Vec::new();
    config::yaml::parse(&text, &mut problems)
        .map_err(|problem| anyhow::anyhow!("{}:{problem}", file.display()))
}

fn kek_source(root: &Node, file: &Path) -> anyhow::Result<KekSource> {
    let kek = root.get("vault").and_then(|vault| vault.get("kek"));
    let Some(kek) = kek else {
        bail!(
            "{} has no vault; add this line: vault: {{ kek: file:conf/secrets/kek }}",
            file.display()
        );
    };
    kek.text().and_then(KekSource::parse).with_context(|| {
        format!("{}:{}: vault.kek: expected `env:NAME` or `file:PATH`", file.display(), kek.at.line)
    })
}

fn read_secret(input: &mut dyn Read) -> anyhow::Result<SecretString> {
    let mut text = Zeroizing::new(String::with_capacity(16 * 1024));
    input.take(16 * 1024).read_to_string(&mut text).context("standard input")?;
    let secret = text.trim_end_matches(['\r', '\n']);
    vault::seal::check_secret(secret).context("standard input")?;
    Ok(SecretString::from(secret))
}

/// Where the sealed string goes.
fn advice(root: &Node, args: &SealPlace) -> String {
    let (file, provider, id) = (args.config.display(), &args.provider, &args.key_id);
    if (provider.as_str(), id.as_str()) == PLACE {
        return format!("paste it into {file} as `vault: {{ pepper: \"...\" }}`");
    }
    let node = root.get("providers").and_then(|providers| providers.get(provider));
    let keys = node.and_then(|node| node.get("keys")).map(Node::items).unwrap_or_default();
    let key = keys.iter().find(|key| key.get("id").and_then(Node::text) == Some(id));
    match (node, key) {
        (_, Some(key)) => {
            format!("paste it into {file}, line {}, as that key's `secret`", key.at.line)
        }
        (Some(_), None) => format!(
            "paste it into {file} as a key of {provider}: - {{ id: {id}, secret: \"sealed:...\" }}"
        ),
        (None, _) => format!(
            "{file} has no provider {provider} yet; sealed for its key {id}, it opens nowhere else"
        ),
    }
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
