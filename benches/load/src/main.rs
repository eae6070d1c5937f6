//! The load bench: Gatekeeper, a bare Pingora proxy and nginx in turn, on the same load from the
//! same stand-in provider. `docs/performance.md` says how to read what it prints.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use load::{compare, count, many_licenses, provider};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
enum Command {
    /// Run the contenders side by side and judge the ratios.
    Compare(compare::Args),
    /// Count what a request costs each of them: the same on any machine.
    Count(count::Args),
    /// A store with many licences: how long a start takes, and what it needs.
    Licenses {
        #[arg(long, default_value_t = 1_000_000)]
        licenses: u32,
        /// The program; by default the one beside this.
        #[arg(long)]
        gatekeeper: Option<std::path::PathBuf>,
    },
    /// Only the stand-in provider, for measurements by hand.
    Provider {
        #[arg(long, default_value = "127.0.0.1:8081")]
        listen: SocketAddr,
    },
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("load: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let work = async {
            match command {
                Command::Compare(args) => compare::run(args).await,
                Command::Licenses { licenses, gatekeeper } => {
                    many_licenses::alone(gatekeeper, licenses).await
                }
                Command::Count(args) => count::run(args).await,
                Command::Provider { listen } => {
                    provider::serve(std::net::TcpListener::bind(listen)?).await
                }
            }
        };
        // A signal drops the work, and with it every child process it started.
        let (mut term, mut int) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            done = work => done,
            _ = term.recv() => bail!("terminated"),
            _ = int.recv() => bail!("interrupted"),
        }
    })
}
