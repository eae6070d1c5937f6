//! `base_url`: where a provider is. What may be connected to is decided here for literal
//! addresses, and again by the connector for what names resolve to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use super::settings::BaseUrl;

/// The provider that runs inside the gateway's process.
pub const STAND_IN: &str = "stand-in";

/// # Errors
/// What is wrong with it. The text is not repeated: it may hold a password.
pub fn parse(text: &str, allow_private: bool) -> Result<BaseUrl, String> {
    if text == STAND_IN {
        return Ok(stand_in());
    }
    let url = Url::parse(text).map_err(|_| {
        if text.starts_with(['\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}']) {
            "begins with a typographic quote; use `\"`".to_owned()
        } else {
            "not a web address; expected one like `https://api.example.com/v1`".to_owned()
        }
    })?;
    check_parts(&url)?;
    let tls = url.scheme() == "https";
    let host = url.host().ok_or("has no host")?;
    check_host(&host, tls, allow_private)?;
    Ok(BaseUrl {
        tls,
        host: match &host {
            Host::Domain(name) => (*name).to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        },
        port: url.port_or_known_default().ok_or("has no port")?,
        path: url.path().trim_end_matches('/').to_owned(),
        allow_private,
        stand_in: false,
    })
}

fn stand_in() -> BaseUrl {
    BaseUrl {
        tls: false,
        host: STAND_IN.into(),
        port: 0,
        path: String::new(),
        allow_private: false,
        stand_in: true,
    }
}

fn check_parts(url: &Url) -> Result<(), String> {
    let wrong = if !matches!(url.scheme(), "http" | "https") {
        "must begin with `https://`"
    } else if !url.username().is_empty() || url.password().is_some() {
        "must not hold a user name or password; credentials go into `keys`"
    } else if url.query().is_some() {
        "must not have a query (`?...`)"
    } else if url.fragment().is_some() {
        "must not have a fragment (`#...`)"
    } else if url.port() == Some(0) {
        "port 0 can't be connected to"
    } else {
        return Ok(());
    };
    Err(wrong.into())
}

fn check_host(host: &Host<&str>, tls: bool, allow_private: bool) -> Result<(), String> {
    let address = match host {
        Host::Domain(_) => None,
        Host::Ipv4(address) => Some(IpAddr::V4(*address)),
        Host::Ipv6(address) => Some(IpAddr::V6(*address).to_canonical()),
    };
    let loopback = match host {
        Host::Domain(name) => *name == "localhost",
        _ => address.is_some_and(|address| address.is_loopback()),
    };
    if loopback || allow_private {
        return Ok(());
    }
    if address.is_some_and(is_private) {
        return Err(
            "a private or link-local address; if that is meant, add `allow_private: true`".into()
        );
    }
    if !tls {
        return Err("plain http would show keys and prompts on the way; use https, or add \
                    `allow_private: true` if the way is your own"
            .into());
    }
    Ok(())
}

/// Whether an address is not of the public internet; loopback counts, too.
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_private_v4(address),
        IpAddr::V6(address) => is_private_v6(address),
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 198 && (18..20).contains(&b))
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    let [first, second, third, fourth, fifth, sixth, ..] = address.segments();
    address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || address.is_unique_local()
        || address.is_unicast_link_local()
        // NAT64 and 6to4 carry an IPv4 address inside.
        || (first == 0x64 && second == 0xff9b)
        || first == 0x2002
        // ::/96, IPv4-compatible (RFC 4291 section 2.5.5.1), and fec0::/10, site-local (RFC 3879).
        || [first, second, third, fourth, fifth, sixth] == [0; 6]
        || first & 0xffc0 == 0xfec0
}
