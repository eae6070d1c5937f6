//! Shares the health of keys, accounts and providers between gateways, so that one gateway's finding spares
//! the others the attempt.

use std::{collections::BTreeMap, time::Duration};

use gatekeeper_filters::kernel::UnixMs;
use redis::Cmd;
use tokio::sync::mpsc::UnboundedReceiver;

use super::PeerSync;
use crate::{
    ledger::sqlite::daily_usage::DAY_MS,
    pool::{
        breaker::Fault,
        health::QuarantineReason,
        health_events::{HealthChange, HealthEvent, HealthSubject},
    },
    redis_store::StoreUnavailable,
};

pub const CHANNEL: &str = "gk:keys";
const KEY: &str = "gk:keys";
/// Keys that the operator paused. They stay so until the operator resumes them, however long that is.
const PAUSED: &str = "gk:keys:paused";
/// A provider is told to be sick for so long at most, should nobody be left to tell that it is well.
const SICK: Duration = Duration::from_secs(60);

/// After the store did not hear what the operator said.
const TELL_AGAIN: Duration = Duration::from_millis(500);

impl PeerSync {
    pub(super) async fn tell_health(
        self: std::sync::Arc<Self>,
        mut news: UnboundedReceiver<HealthEvent>,
    ) {
        // What the operator said must not be lost: the last word of each that the store has not taken.
        let mut orders: BTreeMap<HealthSubject, HealthEvent> = BTreeMap::new();
        loop {
            tokio::select! {
                heard = news.recv() => match heard {
                    None => return,
                    Some(news) if matches!(news.change, HealthChange::Paused | HealthChange::Resumed) => {
                        orders.insert(news.of.clone(), news);
                    }
                    // Rests end by themselves and are found out again.
                    Some(news) => drop(self.tell(&news).await),
                },
                () = tokio::time::sleep(TELL_AGAIN), if !orders.is_empty() => {}
            }
            for (of, news) in std::mem::take(&mut orders) {
                if self.tell(&news).await.is_err() {
                    orders.insert(of, news);
                }
            }
        }
    }

    /// Writes it down, then says it: one that reads the store meanwhile must not find the opposite.
    async fn tell(&self, news: &HealthEvent) -> Result<(), StoreUnavailable> {
        let (name, what) = write(news, UnixMs::now());
        match news.change {
            HealthChange::Paused => self.store.run::<()>(Cmd::hset(PAUSED, &name, &what)).await?,
            HealthChange::Resumed => {
                self.store.run::<()>(Cmd::hdel(PAUSED, &name)).await?;
                self.store.run::<()>(Cmd::hdel(KEY, &name)).await?;
            }
            HealthChange::Sound => self.store.run::<()>(Cmd::hdel(KEY, &name)).await?,
            HealthChange::Cools(_) | HealthChange::Quarantined(..) | HealthChange::Sick(_) => {
                self.store.run::<()>(Cmd::hset(KEY, &name, &what)).await?;
                self.store.run::<()>(Cmd::pexpire(KEY, DAY_MS as i64)).await?;
            }
        }
        self.store.publish(CHANNEL, &format!("{name}={what}")).await
    }

    pub(super) fn hear_health(&self, text: &str) {
        // What it is has no such sign; a model's name may.
        let Some((name, what)) = text.rsplit_once('=') else { return };
        if let Some(news) = read(name, what, UnixMs::now()) {
            self.health.hear(&news);
        }
    }

    /// What began while this gateway was not there.
    pub(super) async fn read_health(&self) -> Result<(), StoreUnavailable> {
        for known in [KEY, PAUSED] {
            let known: BTreeMap<String, String> = self.store.run(Cmd::hgetall(known)).await?;
            for (name, what) in known {
                if let Some(news) = read(&name, &what, UnixMs::now()) {
                    self.health.hear(&news);
                }
            }
        }
        Ok(())
    }
}

/// `provider NAME`, `group PROVIDER GROUP`, `model PROVIDER GROUP MODEL` or `key PROVIDER ID MARK`, and until when,
/// by the clock of this machine, with what it is until then: `1796083200000 cools`. What is over is `0 sound`; what
/// the operator said has no end: `0 paused`, `0 resumed`. A model's name comes last and may hold anything.
fn write(news: &HealthEvent, now: UnixMs) -> (String, String) {
    let name = match &news.of {
        HealthSubject::Provider { provider } => format!("provider {provider}"),
        HealthSubject::Group { provider, group } => format!("group {provider} {group}"),
        HealthSubject::Model { provider, group, model } => {
            format!("model {provider} {group} {model}")
        }
        HealthSubject::Key { provider, key, mark } => format!("key {provider} {key} {mark}"),
    };
    let (left, what) = match news.change {
        HealthChange::Cools(left) => (left, "cools"),
        HealthChange::Quarantined(why, left) => (left, why.name()),
        HealthChange::Sick(Fault::Quick) => (SICK, "sick"),
        HealthChange::Sick(Fault::Silent) => (SICK, "silent"),
        HealthChange::Paused => return (name, "0 paused".into()),
        HealthChange::Resumed => return (name, "0 resumed".into()),
        HealthChange::Sound => return (name, "0 sound".into()),
    };
    (name, format!("{} {what}", now.plus(left).0))
}

/// `None` for what is over, unless that is the news.
fn read(name: &str, what: &str, now: UnixMs) -> Option<HealthEvent> {
    let mut names = name.splitn(4, ' ');
    let (until, what) = what.split_once(' ')?;
    let left = until.parse::<u64>().ok()?.saturating_sub(now.0);
    let change = match (what, Duration::from_millis(left)) {
        ("sound", _) => HealthChange::Sound,
        ("paused", _) => HealthChange::Paused,
        ("resumed", _) => HealthChange::Resumed,
        (_, Duration::ZERO) => return None,
        ("cools", left) => HealthChange::Cools(left),
        ("sick", _) => HealthChange::Sick(Fault::Quick),
        ("silent", _) => HealthChange::Sick(Fault::Silent),
        (why, left) => HealthChange::Quarantined(QuarantineReason::from_name(why)?, left),
    };
    let of = match names.next()? {
        "provider" => HealthSubject::Provider { provider: names.next()?.into() },
        "group" => {
            HealthSubject::Group { provider: names.next()?.into(), group: names.next()?.into() }
        }
        "model" => HealthSubject::Model {
            provider: names.next()?.into(),
            group: names.next()?.into(),
            model: names.next()?.into(),
        },
        "key" => HealthSubject::Key {
            provider: names.next()?.into(),
            key: names.next()?.into(),
            mark: names.next()?.to_owned(),
        },
        _ => return None,
    };
    Some(HealthEvent { of, change })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_read_as_they_were_written_and_what_is_over_is_none() {
        let (now, left) = (UnixMs(1_000_000), Duration::from_secs(30));
        let group = || HealthSubject::Group { provider: "groq".into(), group: "org-a".into() };
        let key = || HealthSubject::Key {
            provider: "groq".into(),
            key: "groq-1".into(),
            mark: "ab12".into(),
        };
        let model = || HealthSubject::Model {
            provider: "groq".into(),
            group: "org-a".into(),
            model: "meta llama/4=scout".into(),
        };
        let provider = || HealthSubject::Provider { provider: "groq".into() };
        for (of, change) in [
            (group(), HealthChange::Cools(left)),
            (group(), HealthChange::Quarantined(QuarantineReason::NoMoney, left)),
            (group(), HealthChange::Sound),
            (key(), HealthChange::Quarantined(QuarantineReason::BadCredential, left)),
            (key(), HealthChange::Sound),
            (key(), HealthChange::Paused),
            (key(), HealthChange::Resumed),
            (model(), HealthChange::Cools(left)),
            (model(), HealthChange::Quarantined(QuarantineReason::DailyLimit, left)),
            (model(), HealthChange::Sound),
            (provider(), HealthChange::Sick(Fault::Quick)),
            (provider(), HealthChange::Sick(Fault::Silent)),
            (provider(), HealthChange::Sound),
        ] {
            let news = HealthEvent { of, change };
            let (name, what) = write(&news, now);
            assert_eq!(read(&name, &what, now), Some(news.clone()));
            let later = read(&name, &what, now.plus(Duration::from_secs(60)));
            let holds = matches!(
                change,
                HealthChange::Sound | HealthChange::Paused | HealthChange::Resumed
            );
            assert_eq!(later, holds.then_some(news));
        }
        for what in ["nonsense", "9999999999999 nonsense", "x cools"] {
            assert_eq!(read("key groq groq-1 ab", what, now), None);
        }
        assert_eq!(read("key groq groq-1", "9999999999999 no_money", now), None);
    }
}
