//! Master keys that rest: what one gateway learns of an account, the others need not try.

use std::{collections::BTreeMap, time::Duration};

use gatekeeper_filters::kernel::UnixMs;
use redis::Cmd;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{DAY_MS, Fleet};
use crate::{
    pool::{Rested, health::Why},
    store::Away,
};

pub const CHANNEL: &str = "gk:keys";
const KEY: &str = "gk:keys";

impl Fleet {
    pub(super) async fn tell_rests(
        self: std::sync::Arc<Self>,
        mut rested: UnboundedReceiver<Rested>,
    ) {
        while let Some(rest) = rested.recv().await {
            let _ = self.tell_rest(&rest).await;
        }
    }

    async fn tell_rest(&self, rest: &Rested) -> Result<(), Away> {
        let (name, what) = write(rest, UnixMs::now());
        self.store.publish(CHANNEL, &format!("{name}={what}")).await?;
        let _: () = self.store.run(Cmd::hset(KEY, name, what)).await?;
        self.store.run(Cmd::pexpire(KEY, DAY_MS as i64)).await
    }

    pub(super) fn hear_rest(&self, text: &str) {
        let Some((name, what)) = text.split_once('=') else { return };
        if let Some(rest) = read(name, what, UnixMs::now()) {
            self.health.hear(&rest);
        }
    }

    /// What began to rest while this gateway was not there.
    pub(super) async fn read_rests(&self) {
        let known: Result<BTreeMap<String, String>, Away> = self.store.run(Cmd::hgetall(KEY)).await;
        for (name, what) in known.unwrap_or_default() {
            if let Some(rest) = read(&name, &what, UnixMs::now()) {
                self.health.hear(&rest);
            }
        }
    }
}

/// `group PROVIDER GROUP` or `key PROVIDER ID MARK`, and until when, by the clock of this machine.
fn write(rest: &Rested, now: UnixMs) -> (String, String) {
    match rest {
        Rested::Group { provider, group, left } => {
            (format!("group {provider} {group}"), now.plus(*left).0.to_string())
        }
        Rested::Key { provider, key, mark, why, left } => {
            let until = now.plus(*left).0;
            (format!("key {provider} {key} {mark}"), format!("{until} {}", why.name()))
        }
    }
}

/// `None` for a rest that is over.
fn read(name: &str, what: &str, now: UnixMs) -> Option<Rested> {
    let mut names = name.split(' ');
    let (until, why) = what.split_once(' ').unwrap_or((what, ""));
    let left = until.parse::<u64>().ok()?.checked_sub(now.0).filter(|left| *left > 0)?;
    let left = Duration::from_millis(left);
    match names.next()? {
        "group" => Some(Rested::Group {
            provider: names.next()?.into(),
            group: names.next()?.into(),
            left,
        }),
        "key" => Some(Rested::Key {
            provider: names.next()?.into(),
            key: names.next()?.into(),
            mark: names.next()?.to_owned(),
            why: Why::from_name(why)?,
            left,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_is_read_as_it_was_written_and_ends() {
        let (now, left) = (UnixMs(1_000_000), Duration::from_secs(30));
        for rest in [
            Rested::Group { provider: "groq".into(), group: "org-a".into(), left },
            Rested::Key {
                provider: "groq".into(),
                key: "groq-1".into(),
                mark: "ab12".into(),
                why: Why::NoMoney,
                left,
            },
        ] {
            let (name, what) = write(&rest, now);
            assert_eq!(read(&name, &what, now), Some(rest));
            assert_eq!(read(&name, &what, now.plus(left)), None);
        }
        assert_eq!(read("key groq groq-1", "nonsense", now), None);
    }
}
