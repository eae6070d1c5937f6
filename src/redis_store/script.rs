//! Scripts that run on the store.

use redis::{Cmd, ErrorKind, FromRedisValue, RedisResult, ServerErrorKind, ToRedisArgs};

use super::connection::RedisConnection;

/// A script by its hash. A store that does not know it (the first time, or after SCRIPT FLUSH) gets
/// its text.
pub struct Script {
    /// For the log.
    name: &'static str,
    text: String,
    hash: String,
}

/// One call of a script, being written. All of it is one buffer: a call has some thirty arguments.
pub struct ScriptCall<'a> {
    script: &'a Script,
    command: Cmd,
}

impl Script {
    pub fn new(name: &'static str, text: impl Into<String>) -> Self {
        let text = text.into();
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Self { name, text, hash }
    }

    /// Begins a call with its keys, which share a hash slot.
    pub fn call(&self, keys: &[impl ToRedisArgs]) -> ScriptCall<'_> {
        let mut command = Cmd::with_capacity(40, 1024);
        command.arg("EVALSHA").arg(&self.hash).arg(keys.len());
        for key in keys {
            command.arg(key);
        }
        ScriptCall { script: self, command }
    }
}

impl ScriptCall<'_> {
    pub fn arg(&mut self, arg: impl ToRedisArgs) -> &mut Self {
        self.command.arg(arg);
        self
    }

    /// Of the script.
    pub(super) fn name(&self) -> &'static str {
        self.script.name
    }

    pub(super) async fn send<T: FromRedisValue>(
        &self,
        wire: &mut RedisConnection,
    ) -> RedisResult<T> {
        match self.command.query_async(wire).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                let mut load = Cmd::new();
                load.arg("SCRIPT").arg("LOAD").arg(&self.script.text);
                let () = load.query_async(wire).await?;
                self.command.query_async(wire).await
            }
            answer => answer,
        }
    }
}
