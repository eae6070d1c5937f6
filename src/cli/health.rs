//! `gatekeeper health`: whether the gateway is well, for a container's health check. Such an image has
//! no other program that could ask.

use std::{
    io::{self, Read as _, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use gatekeeper_filters::kernel::Registry;
use url::Url;

use super::{FileArgs, admin_client};
use crate::config::{self, Secrets, settings};

pub const EXAMPLES: &str = "\
Exit status 0 if it is, 1 if not. It asks `/healthz` on the admin listener, which needs no token; `--ready`
asks `/readyz`, which says no while the gateway starts or drains.

Examples:
  gatekeeper health -c conf/gatekeeper.yaml
  gatekeeper health -c conf/gatekeeper.yaml --ready
  gatekeeper health --url http://127.0.0.1:9090/healthz";

const PATIENCE: Duration = Duration::from_secs(2);
const LONGEST_ANSWER: u64 = 64 * 1024;

#[derive(Debug, Clone, Args)]
pub struct HealthArgs {
    #[command(flatten)]
    pub file: FileArgs,
    /// Whether it takes requests, not only lives
    #[arg(long, conflicts_with = "url")]
    pub ready: bool,
    /// What to ask instead; http only
    #[arg(long, value_name = "URL", conflicts_with_all = ["config", "file"])]
    pub url: Option<Url>,
}

/// # Errors
/// No gateway answers.
pub fn run(
    args: &HealthArgs,
    registry: &Registry,
    (out, err): (&mut dyn Write, &mut dyn Write),
) -> anyhow::Result<ExitCode> {
    let mut admin = None;
    let (address, path) = match &args.url {
        Some(url) => at(url)?,
        None => {
            let file = args.file.path()?;
            let (settings, _) = config::load_with(&file, registry, Secrets::MayBeAbsent)?;
            let path = if args.ready { "/readyz" } else { "/healthz" };
            let address = admin_client::address(&settings);
            admin = Some(settings.admin);
            (address, path.to_owned())
        }
    };
    let scheme =
        if admin.as_ref().is_some_and(|admin| admin.tls.is_some()) { "https" } else { "http" };
    let asked = format!("{scheme}://{address}{path}");
    let line = ask(address, &path, admin.as_ref()).with_context(|| format!("health: {asked}"))?;
    if line.split(' ').nth(1) == Some("200") {
        writeln!(out, "{asked}: well")?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(err, "gatekeeper: health: {asked}: {line}")?;
    Ok(ExitCode::FAILURE)
}

fn at(url: &Url) -> anyhow::Result<(SocketAddr, String)> {
    let (Some(host), "http") = (url.host_str(), url.scheme()) else {
        bail!("--url: expected http://HOST:PORT/PATH");
    };
    let port = url.port_or_known_default().unwrap_or(80);
    let host = host.trim_matches(['[', ']']);
    let address = (host, port).to_socket_addrs().with_context(|| format!("--url: {host}"))?.next();
    Ok((address.with_context(|| format!("--url: {host} has no address"))?, url.path().to_owned()))
}

/// The first line of the answer.
fn ask(
    address: SocketAddr,
    path: &str,
    admin: Option<&settings::AdminSettings>,
) -> io::Result<String> {
    let connection = TcpStream::connect_timeout(&address, PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    let mut connection: Box<dyn admin_client::PinnedConnection> = match admin {
        Some(admin) => admin_client::speak(connection, admin, PATIENCE)?,
        None => Box::new(connection),
    };
    write!(connection, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    connection.take(LONGEST_ANSWER).read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    Ok(text.lines().next().unwrap_or("no answer").to_owned())
}
