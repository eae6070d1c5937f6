//! What every gateway serves right now, for `/status` of each of them.

use std::collections::BTreeMap;

use gatekeeper_filters::kernel::UnixMs;
use redis::Cmd;
use serde_json::{Value, json};

use super::Fleet;
use crate::store::Away;

const KEY: &str = "gk:live";
/// A gateway that was not heard for so long, in milliseconds, is gone.
const GONE_MS: u64 = 10_000;

impl Fleet {
    pub(super) async fn tell_live(&self) -> Result<(), Away> {
        let now = UnixMs::now();
        let mut own = self.telemetry.live.own();
        own.insert("in_flight".into(), json!(self.telemetry.in_flight()));
        let told = json!({ "at": now.0, "live": own }).to_string();
        let _: () = self.store.run(Cmd::hset(KEY, &self.gateway, told)).await?;
        let _: () = self.store.run(Cmd::expire(KEY, 60)).await?;
        let all: BTreeMap<String, String> = self.store.run(Cmd::hgetall(KEY)).await?;
        let mut others = Vec::new();
        for (gateway, told) in all {
            let Ok(told) = serde_json::from_str::<Value>(&told) else { continue };
            let at = told["at"].as_u64().unwrap_or_default();
            if now.0.abs_diff(at) > GONE_MS {
                let _: () = self.store.run(Cmd::hdel(KEY, &gateway)).await?;
            } else if gateway != self.gateway
                && let Value::Object(mut live) = told["live"].clone()
            {
                live.insert("gateway".into(), json!(gateway));
                others.push(live);
            }
        }
        self.telemetry.live.hear(&self.gateway, others);
        Ok(())
    }
}
