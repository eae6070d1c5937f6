//! Who is asked about licences.

use anyhow::bail;

use crate::{
    cli::{
        admin_client::{self, AdminResponse},
        file_args::FileArgs,
    },
    config::Settings,
    ledger::StoreOpenError,
    license_admin::{ApiResponse, LicenseCommand},
};

/// Carries an order out where no gateway runs.
pub type Operate = fn(&Settings, LicenseCommand, &[u8]) -> anyhow::Result<ApiResponse>;

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
    let nobody = match admin_client::gateway(settings, &path, body) {
        AdminResponse::Answered(answer) => return Ok(answer),
        AdminResponse::Stranger(why) => bail!("licenses {}: {why}", command.name()),
        AdminResponse::Failed(why) => bail!(
            "licenses {}: {why}. It may have been done: look with `licenses show`",
            command.name()
        ),
        AdminResponse::Nobody(why) => why,
    };
    operate(settings, command, body).map_err(|error| match error.downcast_ref::<StoreOpenError>() {
        Some(in_use @ StoreOpenError::InUse { .. }) => anyhow::anyhow!(
            "{in_use}; and nobody answers on the admin address {} ({nobody}). Is {} the file \
                 that gateway runs with?",
            admin_client::address(settings),
            file.path().unwrap_or_default().display(),
        ),
        _ => error,
    })
}
