//! A connection to whatever serves now: multiplexed, so that requests share it.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, Cmd, Pipeline, RedisFuture, RedisResult, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    sentinel::Sentinel,
};

use super::url::RedisUrl;

/// A server that answers nothing for so long has lost the connection; callers give up sooner.
const ANSWER: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub enum RedisConnection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl RedisConnection {
    pub fn is_cluster(&self) -> bool {
        matches!(self, RedisConnection::Cluster(_))
    }
}

impl ConnectionLike for RedisConnection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            RedisConnection::One(wire) => wire.req_packed_command(cmd),
            RedisConnection::Cluster(wire) => wire.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            RedisConnection::One(wire) => wire.req_packed_commands(pipeline, offset, count),
            RedisConnection::Cluster(wire) => wire.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            RedisConnection::One(wire) => wire.get_db(),
            RedisConnection::Cluster(wire) => wire.get_db(),
        }
    }
}

/// Connects to the server that takes writes now. A single server that is a node of a cluster leads
/// to the cluster.
pub async fn connect(address: &RedisUrl, within: Duration) -> RedisResult<RedisConnection> {
    let client = match address {
        RedisUrl::Cluster(nodes) => return cluster(nodes.clone(), within).await,
        _ => client(address).await?,
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(within))
        .set_response_timeout(Some(ANSWER));
    let mut wire = client.get_multiplexed_async_connection_with_config(&config).await?;
    if let RedisUrl::One(info) = address {
        let mut ask = Cmd::new();
        let about: String = ask.arg("INFO").arg("cluster").query_async(&mut wire).await?;
        if about.contains("cluster_enabled:1") {
            return cluster(vec![info.clone()], within).await;
        }
    }
    Ok(RedisConnection::One(wire))
}

/// A client of the server that takes writes now; of a cluster, of any of its nodes.
pub async fn client(address: &RedisUrl) -> RedisResult<Client> {
    match address {
        RedisUrl::One(info) => Client::open(info.clone()),
        RedisUrl::Cluster(nodes) => Client::open(nodes[0].clone()),
        RedisUrl::Sentinel { sentinels, service, node } => {
            Sentinel::build(sentinels.clone())?.async_master_for(service, Some(node)).await
        }
    }
}

async fn cluster(
    nodes: Vec<redis::ConnectionInfo>,
    within: Duration,
) -> RedisResult<RedisConnection> {
    let client = ClusterClient::builder(nodes)
        .connection_timeout(within)
        .response_timeout(within)
        .retries(2)
        .build()?;
    Ok(RedisConnection::Cluster(client.get_async_connection().await?))
}
