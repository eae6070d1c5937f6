//! `gatekeeper demo`: gateway, stand-in provider and steady traffic in one process. No key, no
//! network, nothing left behind.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::Context;
use gatekeeper_filters::kernel::{Plan, Registry};
use secrecy::ExposeSecret;

use crate::{
    cli::DemoArgs,
    config::{
        self, Secrets,
        settings::{AccessLogSettings, LicenseSource, Settings, StaticKey},
    },
    logging, server,
};

/// The configuration a newcomer would write; the same file as `conf/gatekeeper.yaml`.
const CONFIG: &str = include_str!("../../conf/gatekeeper.yaml");

/// Between two requests of the traffic.
const PACE: Duration = Duration::from_millis(700);

/// # Errors
/// No free port, or no temporary directory.
pub fn run(args: DemoArgs, registry: Registry) -> anyhow::Result<()> {
    let (mut settings, _) = config::parse(CONFIG, &registry, Secrets::Required)
        .map_err(|_| anyhow::anyhow!("the built-in configuration is broken"))?;
    let directory = std::env::temp_dir().join(format!("gatekeeper-demo-{}", std::process::id()));
    settings.store.path = directory.join("gatekeeper.db");
    settings.log.access = AccessLogSettings::Off;
    settings.server.listen = free_or_any(args.listen)?;
    settings.admin.listen = free_or_any(args.admin)?;
    let key = demo_key(&settings).context("the built-in configuration has no licence key")?;
    let buyer = add_buyer(&mut settings)?;
    let public = settings.server.listen;
    logging::start(&log::LevelFilter::Warn.into());
    introduce(&settings, &key)?;
    thread::Builder::new().name("traffic".into()).spawn(move || traffic(public, &buyer))?;
    server::serve(settings, registry, server::SettingsSource::Demo { scratch: directory }, None)
}

fn demo_key(settings: &Settings) -> Option<String> {
    settings.licenses.sources.iter().find_map(|source| match source {
        LicenseSource::Static(keys) => keys.first().map(|key| key.key.expose_secret().to_owned()),
        _ => None,
    })
}

/// A licence of its own for the traffic, without limits: the one that is printed stays unused.
fn add_buyer(settings: &mut Settings) -> anyhow::Result<String> {
    const BUYER: &str = "DEMO-TRAFFIC-0001";
    let plan = settings.plans.first().context("the built-in configuration has no plan")?;
    let unlimited = Plan {
        name: "traffic".into(),
        messages: None,
        tokens: None,
        rate: None,
        concurrency: None,
        concurrency_is_default: false,
        ..Plan::clone(plan)
    };
    let key = StaticKey { key: BUYER.into(), plan: Arc::new(unlimited) };
    settings.licenses.sources.push(LicenseSource::Static(vec![key]));
    Ok(BUYER.into())
}

/// The wanted address, or one with another port when it is taken.
fn free_or_any(wanted: SocketAddr) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(wanted)
        .or_else(|_| TcpListener::bind(SocketAddr::new(wanted.ip(), 0)))?;
    listener.local_addr()
}

fn introduce(settings: &Settings, key: &str) -> std::io::Result<()> {
    let (public, admin) = (settings.server.listen, settings.admin.listen);
    let mut out = std::io::stdout().lock();
    write!(
        out,
        "Gatekeeper demo: gateway, stand-in provider and traffic in this process.\n\
         \n\
         Licence key   {key}\n\
         Apps          http://{public}/v1\n\
         Dashboard     http://{admin}/\n\
         Operators     http://{admin}/status and /metrics\n\
         \n\
         Try it:\n\
         \n\
         curl -N http://{public}/v1/chat/completions \\\n\
         \x20 -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\\n\
         \x20 -d '{{\"model\":\"fast\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'\n\
         \n\
         Or with the OpenAI SDK (npm install openai):\n\
         \n\
         import OpenAI from 'openai';\n\
         const client = new OpenAI({{ baseURL: 'http://{public}/v1', apiKey: '{key}' }});\n\
         const answer = await client.responses.create({{ model: 'fast', input: 'Hello' }});\n\
         console.log(answer.output_text);\n\
         \n\
         Ctrl-C ends it.\n"
    )?;
    out.flush()
}

/// Endless traffic of one buyer; every few requests one that streams.
fn traffic(address: SocketAddr, key: &str) {
    for turn in 0u64.. {
        thread::sleep(PACE);
        let stream = turn % 3 == 0;
        if let Err(error) = ask(address, key, turn, stream) {
            log::debug!("The demo's traffic failed: {error}.");
        }
    }
}

/// Mostly chat, and now and then what other SDKs ask: path and body.
fn question(turn: u64, stream: bool) -> (&'static str, serde_json::Value) {
    let words = format!("Is order {turn} on its way?");
    let messages = serde_json::json!([{ "role": "user", "content": &words }]);
    match turn % 8 {
        3 => (
            "/v1/messages",
            serde_json::json!({ "model": "fast", "max_tokens": 500, "messages": messages }),
        ),
        5 => {
            let contents = serde_json::json!([{ "role": "user", "parts": [{ "text": words }] }]);
            ("/v1beta/models/fast:generateContent", serde_json::json!({ "contents": contents }))
        }
        7 => (
            "/v1/responses",
            serde_json::json!({ "model": "fast", "stream": stream, "input": words }),
        ),
        _ => (
            "/v1/chat/completions",
            serde_json::json!({ "model": "fast", "stream": stream, "messages": messages }),
        ),
    }
}

fn ask(address: SocketAddr, key: &str, turn: u64, stream: bool) -> std::io::Result<()> {
    let (path, body) = question(turn, stream);
    let body = body.to_string();
    let mut connection = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        connection,
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    connection.read_to_end(&mut Vec::new())?;
    Ok(())
}
