//! The form of what gateways keep on the store. One that writes another form must not share it: each would
//! misread what the other wrote.

use redis::{Cmd, Pipeline};

use super::{
    connection::RedisConnection, durability_check::UnsafeRedis, subscriber::BEATS, timing::BEAT,
};

/// Another number with each change of what scripts keep. Gateways before 1 wrote none.
const FORM: u32 = 1;
const KEY: &str = "gk:form";
/// Seconds for which it stays that is not renewed.
const KEEP: u64 = 10;
/// Gateways that live write it with each beat: so often is looked for it.
const LOOKS: u32 = 4;

/// Says which form this gateway writes.
pub fn renew(pipe: &mut Pipeline) {
    pipe.cmd("SET").arg(KEY).arg(FORM).arg("EX").arg(KEEP).ignore();
}

/// Refuses a store on which gateways live that write another form. A cluster is not asked: its servers do
/// not tell each other who listens.
///
/// # Errors
/// There are some, or the store does not tell.
pub async fn check(wire: &mut RedisConnection) -> Result<(), UnsafeRedis> {
    if wire.is_cluster() {
        return Ok(());
    }
    let mut looks = 0;
    loop {
        let mut ask = Cmd::new();
        ask.arg("PUBSUB").arg("NUMSUB").arg(BEATS);
        let (_, living): (String, u64) = ask.query_async(wire).await?;
        let form: Option<u32> = Cmd::get(KEY).query_async(wire).await?;
        looks += 1;
        if living == 0 || form == Some(FORM) {
            return Ok(());
        }
        if form.is_some() || looks == LOOKS {
            return Err(UnsafeRedis::Form);
        }
        tokio::time::sleep(BEAT).await;
    }
}
