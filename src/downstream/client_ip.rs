//! Where an app is: its own address, not that of what stands in front of the gateway.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;
use pingora_core::protocols::http::ServerSession;

use crate::config::settings::ServerSettings;

pub const FORWARDED: &str = "x-forwarded-for";

/// The peer, or the address that a trusted peer states in `X-Forwarded-For`; `None` without a usable one:
/// then limits by address are off.
pub fn of(session: &ServerSession, trusted: &[IpNet]) -> Option<IpAddr> {
    // Only the previous process connects here, and it passes the client's address on.
    if session.server_addr().is_some_and(|own| own.as_inet().is_none()) {
        return forwarded(&session.req_header().headers, &[]);
    }
    let peer = session.client_addr()?.as_inet()?.ip().to_canonical();
    if is_trusted(peer, trusted) {
        forwarded(&session.req_header().headers, trusted)
    } else {
        Some(peer)
    }
}

/// The same, if it certainly is the app's: behind a TLS proxy that is not in `trusted_proxies`, all apps
/// share one address.
pub fn limited(session: &ServerSession, server: &ServerSettings) -> Option<IpAddr> {
    if server.limits_by_address() { of(session, &server.trusted_proxies) } else { None }
}

/// Whether a request from another host was sent over TLS, as its headers state; `None` for one of this
/// host.
pub fn came_over_tls(session: &ServerSession, trusted: &[IpNet]) -> Option<bool> {
    if of(session, trusted)?.is_loopback() {
        return None;
    }
    let headers = &session.req_header().headers;
    let says = |name: &str, what: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| value.split([',', ';']))
            .any(|part| part.trim().replace('"', "").eq_ignore_ascii_case(what))
    };
    Some(says("x-forwarded-proto", "https") || says("forwarded", "proto=https"))
}

/// The right-most entry that is not one of ours: everything to its left could be invented.
fn forwarded(headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    for value in headers.get_all(FORWARDED).iter().rev() {
        for entry in value.to_str().ok()?.rsplit(',') {
            let address = parse(entry.trim())?;
            if !is_trusted(address, trusted) {
                return Some(address);
            }
        }
    }
    None
}

/// Some proxies add a port.
fn parse(entry: &str) -> Option<IpAddr> {
    let bare = entry.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse().or_else(|_| entry.parse::<SocketAddr>().map(|at| at.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_most_stranger_is_the_app() {
        let trusted: Vec<IpNet> =
            ["127.0.0.0/8", "10.0.0.0/8"].map(|network| network.parse().unwrap()).to_vec();
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("x-forwarded-for", value.parse().unwrap());
            }
            forwarded(&headers, &trusted).map(|address| address.to_string())
        };
        assert_eq!(of(&["1.1.1.1, 2.2.2.2, 10.0.0.9"]).as_deref(), Some("2.2.2.2"));
        assert_eq!(of(&["1.1.1.1", "2.2.2.2"]).as_deref(), Some("2.2.2.2"));
        assert_eq!(of(&["2.2.2.2:4711"]).as_deref(), Some("2.2.2.2"));
        assert_eq!(of(&["[2001:db8::1]:80"]).as_deref(), Some("2001:db8::1"));
        assert_eq!(of(&["::ffff:2.2.2.2"]).as_deref(), Some("2.2.2.2"));
        for nothing in [&[][..], &["10.0.0.9"], &["unknown"], &["1.1.1.1, unknown"], &[""]] {
            assert_eq!(of(nothing), None, "{nothing:?}");
        }
    }
}
