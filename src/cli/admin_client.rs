//! One request to the admin listener of the running gateway: HTTP/1.1, over TLS if the listener has it, one
//! connection.

mod pinned_tls;

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use http::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

pub use self::pinned_tls::PinnedConnection;
use crate::{
    config::{Settings, settings},
    license_admin::ApiResponse,
    progress::Progress,
};

const CONNECT: Duration = Duration::from_secs(2);
/// A key that is new there is asked about at its shop first.
const ANSWER: Duration = Duration::from_secs(15);
const LONGEST_ANSWER: u64 = 4 * 1024 * 1024;
/// An order may be sent again when nothing came back: carried out twice, it is as if once.
const TRIES: usize = 2;

pub enum AdminResponse {
    Answered(ApiResponse),
    /// No process listens there.
    NotRunning(io::Error),
    /// The process that listens there is not a gateway.
    Stranger(String),
    /// The connection failed, and the outcome of the request is unknown.
    Failed(String),
}

/// Where the gateway's admin listener is reached from this machine.
pub fn address(settings: &Settings) -> SocketAddr {
    let mut address = settings.admin.listen;
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// `path` begins with `/api/`.
pub fn gateway(settings: &Settings, path: &str, body: &[u8]) -> AdminResponse {
    let address = address(settings);
    let _progress = Progress::of(format!("Asking the gateway at {address}"), "");
    let mut last = String::new();
    for _ in 0..TRIES {
        let connection = match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(connection) => connection,
            Err(error) if last.is_empty() => return AdminResponse::NotRunning(error),
            Err(error) => return AdminResponse::Failed(format!("{last}, then {error}")),
        };
        let reached = speak(connection, &settings.admin, ANSWER).and_then(|connection| {
            exchange(connection, address, settings.admin.token.as_ref(), path, body)
        });
        match reached {
            Ok(bytes) => {
                return match read(&bytes) {
                    Some(answer) => AdminResponse::Answered(answer),
                    None => {
                        AdminResponse::Stranger(format!("who answers on {address} is no gateway"))
                    }
                };
            }
            Err(error) => last = format!("{address} does not answer: {error}"),
        }
    }
    AdminResponse::Failed(last)
}

/// The connection, over TLS if the listener has it.
///
/// # Errors
/// TLS can't be begun.
pub fn speak(
    connection: TcpStream,
    admin: &settings::AdminSettings,
    answer: Duration,
) -> io::Result<Box<dyn PinnedConnection>> {
    connection.set_read_timeout(Some(answer))?;
    connection.set_write_timeout(Some(CONNECT))?;
    match &admin.tls {
        None => Ok(Box::new(connection)),
        Some(tls) => pinned_tls::connect(connection, tls.pair.as_ref()),
    }
}

fn exchange(
    mut connection: Box<dyn PinnedConnection>,
    address: SocketAddr,
    token: Option<&SecretString>,
    path: &str,
    body: &[u8],
) -> io::Result<Vec<u8>> {
    let token = token.map(|token| format!("Authorization: Bearer {}\r\n", token.expose_secret()));
    write!(
        connection,
        "POST {path} HTTP/1.1\r\nHost: {address}\r\n{}Content-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        token.unwrap_or_default(),
        body.len()
    )?;
    connection.write_all(body)?;
    let mut answer = Vec::new();
    connection.take(LONGEST_ANSWER).read_to_end(&mut answer)?;
    match answer.is_empty() {
        true => Err(io::ErrorKind::UnexpectedEof.into()),
        false => Ok(answer),
    }
}

/// `None` for anything that a gateway never answers.
fn read(bytes: &[u8]) -> Option<ApiResponse> {
    let head = memchr::memmem::find(bytes, b"\r\n\r\n")?;
    let line = std::str::from_utf8(&bytes[..head]).ok()?.lines().next()?;
    let status = line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse::<u16>().ok()?;
    let body: Value = serde_json::from_slice(&bytes[head + 4..]).ok()?;
    let is_ours = body.get("license").is_some()
        || body["moves"].is_array()
        || body["licenses"].is_array()
        || body["live"].is_boolean()
        || body["error"]["code"].is_string();
    is_ours.then_some(ApiResponse { status: StatusCode::from_u16(status).ok()?, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_gateway_is_taken_for_one() {
        let ours =
            b"HTTP/1.1 404 Not Found\r\na: b\r\n\r\n{\"error\":{\"code\":\"x\",\"message\":\"y\"}}";
        assert_eq!(read(ours).unwrap().status, StatusCode::NOT_FOUND);
        for other in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\n\r\n<html>",
            b"SSH-2.0-x\r\n\r\n{\"license\":1}",
        ] {
            assert!(read(other).is_none());
        }
    }
}
