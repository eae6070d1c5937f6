//! Where the store is, as its URL says:
//!
//! ```text
//! redis://[USER:PASSWORD@]HOST[:PORT][/DB]             one server (or any node of a cluster)
//! redis+sentinel://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT].../SERVICE[/DB]
//! redis+cluster://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]...
//! ```
//! `rediss` in place of `redis` speaks TLS. User and password are those of the servers.

use redis::{ConnectionInfo, IntoConnectionInfo, TlsMode, sentinel::SentinelNodeConnectionInfo};

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// What every URL begins with, for messages.
pub const FORMS: &str = "`redis://HOST:PORT`, `rediss://...`, `redis+sentinel://HOST:PORT,.../SERVICE`, \
                         `redis+cluster://HOST:PORT,...`";

#[derive(Clone)]
pub enum RedisUrl {
    One(ConnectionInfo),
    Sentinel {
        sentinels: Vec<ConnectionInfo>,
        service: String,
        node: Box<SentinelNodeConnectionInfo>,
    },
    Cluster(Vec<ConnectionInfo>),
}

impl RedisUrl {
    /// # Errors
    /// What is wrong with it; the text is not repeated, it may hold a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or(format!("expected {FORMS}"))?;
        let (secure, kind) = match scheme.split_once('+') {
            Some((base, kind)) => (base == "rediss", kind),
            None => (scheme == "rediss", "one"),
        };
        if !matches!(scheme.split('+').next(), Some("redis" | "rediss")) {
            return Err(format!("expected {FORMS}"));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (format!("{user}@"), hosts),
            None => (String::new(), authority),
        };
        let node = |host: &str, user: &str, port: u16, db: &str| {
            let scheme = if secure { "rediss" } else { "redis" };
            let host = with_port(host, port);
            format!("{scheme}://{user}{host}/{db}")
                .into_connection_info()
                .map_err(|_| "the host, port or database makes no sense".to_owned())
        };
        match kind {
            "one" if hosts.contains(',') => {
                Err("several hosts need `redis+sentinel://` or `redis+cluster://`".into())
            }
            "one" => Ok(RedisUrl::One(node(hosts, &user, PORT, path)?)),
            "cluster" if !path.is_empty() && path != "0" => {
                Err("a cluster has only database 0".into())
            }
            "cluster" => {
                let nodes = hosts.split(',').map(|host| node(host, &user, PORT, ""));
                Ok(RedisUrl::Cluster(nodes.collect::<Result<_, _>>()?))
            }
            "sentinel" => {
                let (service, db) = path.split_once('/').unwrap_or((path, ""));
                if service.is_empty() {
                    return Err("after the sentinels comes `/` and the name of the service".into());
                }
                let sentinels = hosts.split(',').map(|host| node(host, "", SENTINEL_PORT, ""));
                let settings = node("localhost", &user, PORT, db)?.redis_settings().clone();
                let mut info =
                    SentinelNodeConnectionInfo::default().set_redis_connection_info(settings);
                if secure {
                    info = info.set_tls_mode(TlsMode::Secure);
                }
                Ok(RedisUrl::Sentinel {
                    sentinels: sentinels.collect::<Result<_, _>>()?,
                    service: service.to_owned(),
                    node: Box::new(info),
                })
            }
            _ => Err(format!("expected {FORMS}")),
        }
    }

    /// Whether a URL holds a password.
    pub fn holds_password(text: &str) -> bool {
        let authority = text.split_once("://").map_or(text, |(_, rest)| rest);
        let authority = authority.split('/').next().unwrap_or_default();
        authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
    }
}

fn with_port(host: &str, port: u16) -> String {
    // The colons of a bare IPv6 address stand in brackets.
    let after = host.rsplit_once(']').map_or(host, |(_, after)| after);
    if after.contains(':') { host.to_owned() } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(list: &[ConnectionInfo]) -> Vec<String> {
        list.iter().map(|info| info.addr().to_string()).collect()
    }

    #[test]
    fn every_form_is_understood() {
        let Ok(RedisUrl::One(one)) = RedisUrl::parse("redis://user:p%40ss@10.0.0.5/3") else {
            panic!("one server");
        };
        assert_eq!(one.addr().to_string(), "10.0.0.5:6379");
        assert_eq!(one.redis_settings().password(), Some("p@ss"));
        assert_eq!(one.redis_settings().db(), 3);
        let text = "redis+sentinel://:secret@a:1,b/orders/2";
        let Ok(RedisUrl::Sentinel { sentinels, service, .. }) = RedisUrl::parse(text) else {
            panic!("sentinels");
        };
        assert_eq!(hosts(&sentinels), ["a:1", "b:26379"]);
        assert_eq!(service, "orders");
        assert_eq!(sentinels[0].redis_settings().password(), None);
        let Ok(RedisUrl::Cluster(nodes)) = RedisUrl::parse("redis+cluster://:secret@a:1,[::1]")
        else {
            panic!("a cluster");
        };
        assert_eq!(hosts(&nodes).len(), 2);
        assert_eq!(nodes[1].redis_settings().password(), Some("secret"));
        assert!(RedisUrl::parse("rediss://redis.example:6380").is_ok());
    }

    #[test]
    fn what_makes_no_sense_is_refused_without_repeating_it() {
        for text in [
            "",
            "10.0.0.5:6379",
            "http://10.0.0.5",
            "redis+magic://a",
            "redis://a,b",
            "redis+sentinel://a:1,b:2",
            "redis+cluster://a/4",
            "redis://:hunter2@a/x",
        ] {
            let Err(message) = RedisUrl::parse(text) else { panic!("{text}") };
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn a_password_is_noticed() {
        assert!(RedisUrl::holds_password("redis://:x@a"));
        assert!(RedisUrl::holds_password("redis+sentinel://u:x@a,b/s"));
        assert!(!RedisUrl::holds_password("redis://user@a:6379/0"));
        assert!(!RedisUrl::holds_password("redis://a:6379/0"));
    }
}
