//! `gatekeeper prompts test`: what a prompt makes of values, and (`--run`) what the running gateway answers.

use std::{
    io::{self, Read as _, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::{Args, Subcommand};
use gatekeeper_filters::kernel::Rejection;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::admin_client;
use crate::{
    config::{Settings, settings::AdminSettings},
    prompts::{read::Way, render},
};

pub const EXAMPLES: &str = "\
Without --run nothing is sent: it shows the model, the cap and the texts that a provider would get.
With --run the gateway that runs on the file is asked, as an app asks it: the licence key is read from
standard input, and the request is charged to it.

Examples:
  gatekeeper prompts test -c gateway.yaml reply shop=\"Ann's\" language=de
  gatekeeper prompts test -c gateway.yaml reply shop=Ann --message 'Where is it?'
  gatekeeper prompts test -c gateway.yaml --run reply shop=Ann < key.txt";

#[derive(Debug, Clone, Args)]
pub struct PromptsArgs {
    #[command(subcommand)]
    pub command: PromptsCommand,
}

impl PromptsArgs {
    /// The configuration file, where one is named.
    pub fn config(&self) -> Option<&PathBuf> {
        let PromptsCommand::Test(args) = &self.command;
        args.config.as_ref()
    }
}

#[derive(Debug, Clone, Subcommand)]
pub enum PromptsCommand {
    /// Render a prompt with these values, or (--run) ask it
    #[command(after_help = EXAMPLES)]
    Test(TestArgs),
}

#[derive(Debug, Clone, Args)]
pub struct TestArgs {
    /// The configuration file; default: ./gatekeeper.yaml, then /etc/gatekeeper/gatekeeper.yaml
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A prompt of the file
    pub name: String,
    /// Its variables
    #[arg(value_name = "NAME=VALUE", value_parser = pair)]
    pub variables: Vec<(String, String)>,
    /// What the user says
    #[arg(long, value_name = "TEXT")]
    pub message: Option<String>,
    /// Ask the running gateway; the licence key is read from standard input
    #[arg(long)]
    pub run: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("expected NAME=VALUE; the configuration file is named by -c FILE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// # Errors
/// The prompt does not take these values, or no gateway answers.
pub fn run(
    args: &PromptsArgs,
    settings: &Settings,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let PromptsCommand::Test(args) = &args.command;
    let body = body(args);
    match args.run {
        true => ask(args, settings, &body, out),
        false => show(args, settings, &body, out),
    }
}

fn body(args: &TestArgs) -> Value {
    let variables = args.variables.iter().map(|(name, value)| (name.clone(), json!(value)));
    let variables: Map<String, Value> = variables.collect();
    match &args.message {
        Some(text) => {
            json!({ "variables": variables, "messages": [{ "role": "user", "content": text }] })
        }
        None => json!({ "variables": variables }),
    }
}

fn show(
    args: &TestArgs,
    settings: &Settings,
    body: &Value,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let body = Bytes::from(body.to_string());
    let rendered = render::render(&settings.prompts, None, Way::Own(&args.name), &body);
    let rendered = rendered.map_err(|Rejection { message, .. }| anyhow::anyhow!("{message}"))?;
    let Some(rendered) = rendered else { bail!("{}: no prompt", args.name) };
    let request: Value = serde_json::from_slice(rendered.body())?;
    let cap = rendered.output_cap.map_or_else(|| "the plan's".to_owned(), |cap| cap.to_string());
    writeln!(out, "model        {}", rendered.prompt.model)?;
    writeln!(out, "output cap   {cap}")?;
    for (name, value) in request.as_object().into_iter().flatten() {
        if !["model", "messages"].contains(&&**name) {
            writeln!(out, "{name:<12} {value}")?;
        }
    }
    for message in request["messages"].as_array().into_iter().flatten() {
        let text = |name: &str| message[name].as_str().unwrap_or_default();
        writeln!(out, "\n--- {}\n{}", text("role"), text("content"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// For a whole answer.
const ANSWER: Duration = Duration::from_secs(120);
const CONNECT: Duration = Duration::from_secs(2);
const LONGEST_ANSWER: u64 = 16 << 20;

fn ask(
    args: &TestArgs,
    settings: &Settings,
    body: &Value,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let mut key = Zeroizing::new(String::new());
    io::stdin().take(4096).read_to_string(&mut key).context("the licence key")?;
    let key = key.trim();
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("prompts test --run: expected a licence key on standard input");
    }
    // The address for apps, in the same form as the one for operators.
    let (listen, tls) = (settings.server.listen, settings.server.tls.clone());
    let place = AdminSettings { listen, tls, ..settings.admin.clone() };
    let address = admin_client::address(&Settings { admin: place.clone(), ..settings.clone() });
    let text = exchange(address, &place, args, key, &body.to_string())
        .with_context(|| format!("prompts test --run: the gateway at {address}"))?;
    let (head, answer) = text.split_once("\r\n\r\n").unwrap_or((&*text, ""));
    let answer: Value = serde_json::from_str(answer).context("an answer that is not JSON")?;
    if let Some(message) = answer["error"]["message"].as_str() {
        bail!("{}: {message}", head.lines().next().unwrap_or_default());
    }
    let said = answer["choices"][0]["message"]["content"].as_str();
    writeln!(out, "{}", said.map_or_else(|| answer.to_string(), str::to_owned))?;
    Ok(ExitCode::SUCCESS)
}

fn exchange(
    address: SocketAddr,
    place: &AdminSettings,
    args: &TestArgs,
    key: &str,
    body: &str,
) -> io::Result<String> {
    let connection = TcpStream::connect_timeout(&address, CONNECT)?;
    let mut connection = admin_client::speak(connection, place, ANSWER)?;
    write!(
        connection,
        "POST /v1/prompts/{} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        args.name,
        body.len(),
    )?;
    let mut answer = Vec::new();
    connection.take(LONGEST_ANSWER).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
