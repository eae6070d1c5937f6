//! Whether a server may hold what buyers have used: one that evicts keys forgets it at random, one
//! that does not persist to disk loses all of it at each restart.

use redis::{Cmd, RedisError, aio::ConnectionLike};

use super::connection::RedisConnection;

#[derive(Debug, thiserror::Error)]
pub enum UnsafeRedis {
    #[error(
        "it has maxmemory-policy {0}, and would forget what buyers have used when memory is short: \
         set `maxmemory-policy noeviction`, or `unsafe_eviction: true` in `store`"
    )]
    Evicts(String),
    #[error(
        "it does not persist to disk: set `appendonly yes`, or `unsafe_eviction: true` in `store`"
    )]
    Forgets,
    #[error(
        "gateways of another version are connected to it, which keep their counts in another form: stop \
         all of them, then start those of one version"
    )]
    Form,
    #[error("no connection in time")]
    Silent,
    #[error(transparent)]
    Store(#[from] RedisError),
}

/// Of a cluster, the servers are not asked one by one: they are set up alike.
///
/// # Errors
/// It is unfit, or does not tell.
pub async fn check(wire: &mut RedisConnection) -> Result<(), UnsafeRedis> {
    let RedisConnection::One(wire) = wire else { return Ok(()) };
    let memory = info(wire, "memory").await?;
    let policy = member(&memory, "maxmemory_policy").unwrap_or("noeviction");
    if policy != "noeviction" {
        return Err(UnsafeRedis::Evicts(policy.to_owned()));
    }
    let persistence = info(wire, "persistence").await?;
    if member(&persistence, "aof_enabled") == Some("1") {
        return Ok(());
    }
    let mut ask = Cmd::new();
    let saves: Result<Vec<String>, _> =
        ask.arg("CONFIG").arg("GET").arg("save").query_async(wire).await;
    match saves {
        Ok(saves) if saves.get(1).is_some_and(String::is_empty) => Err(UnsafeRedis::Forgets),
        Ok(_) => {
            log::warn!(
                "The shared store has no append-only file: after its restart each gateway can restore only \
                 the usage that it counted itself. Set `appendonly yes`."
            );
            Ok(())
        }
        // A hosted Redis may refuse CONFIG; its host is trusted to persist the data.
        Err(_) => Ok(()),
    }
}

async fn info(wire: &mut impl ConnectionLike, section: &str) -> Result<String, RedisError> {
    let mut ask = Cmd::new();
    ask.arg("INFO").arg(section).query_async(wire).await
}

fn member<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
