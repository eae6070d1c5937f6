//! Whose key a request for a local endpoint carries.

use gatekeeper_filters::{
    kernel::{Credential, Dialect, License, LicenseQuery, Licenses, Rejection, UnixMs},
    license,
};
use pingora_core::protocols::http::ServerSession;

use super::routes;
use crate::{
    downstream::{client_ip, connection::ClientConnection},
    runtime::snapshot::Snapshot,
};

/// Whether a plan that requires devices does so here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DeviceRequirement {
    Counts,
    /// Devices come and go here.
    IsTheMatter,
}

/// Whose key it is.
///
/// # Errors
/// As the filter `license`.
pub(super) async fn license(
    session: &ServerSession,
    snapshot: &Snapshot,
    device: DeviceRequirement,
) -> Result<(License, Credential), Rejection> {
    let headers = &session.req_header().headers;
    let credential = routes::credential(headers, Dialect::OpenAi)?;
    let instance = routes::instance_id(headers)?;
    let asking = LicenseQuery {
        credential: &credential,
        address: client_ip::of(session, &snapshot.settings.server.trusted_proxies),
        instance: instance.as_deref(),
        now: UnixMs::now(),
    };
    let standing = match device {
        DeviceRequirement::Counts => snapshot.licenses.check(&asking).await,
        DeviceRequirement::IsTheMatter => snapshot.licenses.identify(&asking).await,
    };
    let license = license::decide(standing, snapshot.settings.licenses.buy_url.as_ref())?;
    if let Some(connection) = ClientConnection::of(session) {
        connection.license();
    }
    Ok((license, credential))
}
