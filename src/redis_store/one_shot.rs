//! A look at the store by a command that runs beside the gateways.

use std::time::Duration;

use redis::{Cmd, FromRedisValue};

use super::{connection, url::RedisUrl};

const PATIENCE: Duration = Duration::from_secs(5);

/// The answers to some commands.
///
/// # Errors
/// The store does not answer.
pub fn all<T: FromRedisValue>(address: &RedisUrl, commands: Vec<Cmd>) -> anyhow::Result<Vec<T>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut wire =
            tokio::time::timeout(PATIENCE, connection::connect(address, PATIENCE)).await??;
        let mut answers = Vec::with_capacity(commands.len());
        for command in commands {
            answers.push(command.query_async(&mut wire).await?);
        }
        Ok(answers)
    })
}
