//! The commands and their options.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use super::{
    file_args::FileArgs,
    health, licenses, prompts, reload,
    usage::{self, UsageArgs},
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
    #[command(override_usage = "gatekeeper seal [OPTIONS] [FILE] <PROVIDER> <KEY_ID>")]
    #[command(
        after_help = "PROVIDER is the provider's name in FILE, KEY_ID the key's id there. FILE is the \
        configuration file;\ndefault: ./gatekeeper.yaml, then /etc/gatekeeper/gatekeeper.yaml.\n\nThe secret never \
        stands on the command line, where others could see it.\nThe KEK's file is made if it is missing.\n\nExamples:\n  \
        gatekeeper seal -c conf/gatekeeper.yaml groq groq-1 < key.txt\n  \
        gatekeeper seal -c conf/gatekeeper.yaml groq groq-1     (type it, Enter, Ctrl-D)"
    )]
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
    /// Show, issue, change and move licences: at the running gateway, or in its store when none runs
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
    /// The configuration file, where FILE is not given
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Hidden: clap has no word for an optional one before two that are needed. Usage and help name them.
    #[arg(value_name = "PROVIDER KEY_ID", num_args = 2..=3, required = true, hide = true)]
    pub words: Vec<String>,
}
