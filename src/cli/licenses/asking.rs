//! Builds a request about a licence, and chooses between the admin listener and the store.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use anyhow::{Context, bail};
use clap::Args;
use gatekeeper_filters::kernel::LicenseId;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::{
    cli::{
        admin_client::{self, AdminResponse},
        file_args::FileArgs,
        usage,
    },
    config::Settings,
    ledger::StoreOpenError,
    license_admin::{ApiResponse, LicenseCommand, random_id},
};

/// Longer than any key.
const LONGEST_KEY: u64 = 1024;

#[derive(Debug, Clone, Args)]
pub struct SubjectArgs {
    #[command(flatten)]
    pub file: FileArgs,
    /// The licence's id, instead of its key on standard input: 64 hex digits, or enough of the first to name one (6 at least)
    #[arg(long, value_name = "HEX")]
    pub license: Option<String>,
    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
}

/// Carries an order out where no gateway runs.
pub type Operate = fn(&Settings, LicenseCommand, &[u8]) -> anyhow::Result<ApiResponse>;

/// Names the licence: by its id, or by its key from standard input.
///
/// # Errors
/// No key can be read, or the id names none.
pub fn subject_of(
    subject: &SubjectArgs,
    settings: &Settings,
    err: &mut dyn Write,
) -> anyhow::Result<Map<String, Value>> {
    let mut order = Map::new();
    match &subject.license {
        Some(hex) => order.insert("license".into(), json!(whole_id(hex, settings)?)),
        None => order.insert("key".into(), json!(&*read_key(err)?)),
    };
    Ok(order)
}

/// Gives an order its id, which is returned.
///
/// # Errors
/// There are no random bytes.
pub fn order_id(given: Option<&String>, order: &mut Map<String, Value>) -> anyhow::Result<String> {
    let id = match given {
        Some(id) => id.clone(),
        None => random_id().map_err(|failure| anyhow::anyhow!(failure.message))?,
    };
    order.insert("id".into(), json!(id));
    Ok(id)
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

/// Asks the gateway if one runs, else the store.
///
/// # Errors
/// Neither could be asked.
pub fn ask(
    command: LicenseCommand,
    file: &FileArgs,
    settings: &Settings,
    operate: Operate,
    body: &[u8],
) -> anyhow::Result<ApiResponse> {
    let path = format!("/api/licenses/{}", command.name());
    let refused = match admin_client::gateway(settings, &path, body) {
        AdminResponse::Answered(answer) => return Ok(answer),
        AdminResponse::Stranger(why) => bail!("licenses {}: {why}", command.name()),
        AdminResponse::Failed(why) => bail!(
            "licenses {}: {why}. It may have been done: look with `licenses show`",
            command.name()
        ),
        AdminResponse::NotRunning(why) => why,
    };
    operate(settings, command, body).map_err(|error| match error.downcast_ref::<StoreOpenError>() {
        Some(in_use @ StoreOpenError::InUse { .. }) => anyhow::anyhow!(
            "{in_use}, but no gateway answers on the admin address {} ({refused}). Is {} the file \
                 that gateway runs with?",
            admin_client::address(settings),
            file.path().unwrap_or_default().display(),
        ),
        _ => error,
    })
}
