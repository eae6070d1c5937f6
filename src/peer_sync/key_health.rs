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
/// Longest time for which a provider counts as faulty, should no gateway be left to report that it
/// recovered.
const FAULTY_TTL: Duration = Duration::from_secs(60);

/// Pause before an operator's command is sent again that the store did not take.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

impl PeerSync {
    pub(super) async fn publish_health_events(
        self: std::sync::Arc<Self>,
        mut events: UnboundedReceiver<HealthEvent>,
    ) {
        // Operators' commands must not be lost: the last one of each subject that the store has not taken.
        let mut commands: BTreeMap<HealthSubject, HealthEvent> = BTreeMap::new();
        loop {
            tokio::select! {
                received = events.recv() => match received {
                    None => return,
                    Some(event) if matches!(event.change, HealthChange::Paused | HealthChange::Resumed) => {
                        commands.insert(event.of.clone(), event);
                    }
                    // Rests end by themselves and are found out again.
                    Some(event) => drop(self.publish(&event).await),
                },
                () = tokio::time::sleep(RETRY_PAUSE), if !commands.is_empty() => {}
            }
            for (of, event) in std::mem::take(&mut commands) {
                if self.publish(&event).await.is_err() {
                    commands.insert(of, event);
                }
            }
        }
    }

    /// Writes it to the store, then publishes it: a gateway that reads the store in between must not find
    /// the opposite.
    async fn publish(&self, event: &HealthEvent) -> Result<(), StoreUnavailable> {
        let (name, what) = write(event, UnixMs::now());
        match event.change {
            HealthChange::Paused => self.store.run::<()>(Cmd::hset(PAUSED, &name, &what)).await?,
            HealthChange::Resumed => {
                self.store.run::<()>(Cmd::hdel(PAUSED, &name)).await?;
                self.store.run::<()>(Cmd::hdel(KEY, &name)).await?;
            }
            HealthChange::Healthy => self.store.run::<()>(Cmd::hdel(KEY, &name)).await?,
            HealthChange::Cools(_) | HealthChange::Quarantined(..) | HealthChange::Faulty(_) => {
                self.store.run::<()>(Cmd::hset(KEY, &name, &what)).await?;
                self.store.run::<()>(Cmd::pexpire(KEY, DAY_MS as i64)).await?;
            }
        }
        self.store.publish(CHANNEL, &format!("{name}={what}")).await
    }

    pub(super) fn receive_health(&self, text: &str) {
        // The state never contains `=`; the name of a model may.
        let Some((name, what)) = text.rsplit_once('=') else { return };
        if let Some(event) = read(name, what, UnixMs::now()) {
            self.health.apply(&event);
        }
    }

    /// What began while this gateway was not there.
    pub(super) async fn read_health(&self) -> Result<(), StoreUnavailable> {
        for known in [KEY, PAUSED] {
            let known: BTreeMap<String, String> = self.store.run(Cmd::hgetall(known)).await?;
            for (name, what) in known {
                if let Some(event) = read(&name, &what, UnixMs::now()) {
                    self.health.apply(&event);
                }
            }
        }
        Ok(())
    }
}

/// `provider NAME`, `group PROVIDER GROUP`, `model PROVIDER GROUP MODEL` or `key PROVIDER ID MARK`, the
/// time until which it holds, by the clock of this machine, and the state: `1796083200000 cools`. A state
/// that is over is `0 sound`; operators' commands have no end: `0 paused`, `0 resumed`. A model's name
/// comes last and may contain any character.
fn write(event: &HealthEvent, now: UnixMs) -> (String, String) {
    let name = match &event.of {
        HealthSubject::Provider { provider } => format!("provider {provider}"),
        HealthSubject::Group { provider, group } => format!("group {provider} {group}"),
        HealthSubject::Model { provider, group, model } => {
            format!("model {provider} {group} {model}")
        }
        HealthSubject::Key { provider, key, mark } => format!("key {provider} {key} {mark}"),
    };
    let (left, what) = match event.change {
        HealthChange::Cools(left) => (left, "cools"),
        HealthChange::Quarantined(why, left) => (left, why.name()),
        HealthChange::Faulty(Fault::Quick) => (FAULTY_TTL, "sick"),
        HealthChange::Faulty(Fault::Silent) => (FAULTY_TTL, "silent"),
        HealthChange::Paused => return (name, "0 paused".into()),
        HealthChange::Resumed => return (name, "0 resumed".into()),
        HealthChange::Healthy => return (name, "0 sound".into()),
    };
    (name, format!("{} {what}", now.plus(left).0))
}

/// `None` for what is over, unless that is the news.
fn read(name: &str, what: &str, now: UnixMs) -> Option<HealthEvent> {
    let mut names = name.splitn(4, ' ');
    let (until, what) = what.split_once(' ')?;
    let left = until.parse::<u64>().ok()?.saturating_sub(now.0);
    let change = match (what, Duration::from_millis(left)) {
        ("sound", _) => HealthChange::Healthy,
        ("paused", _) => HealthChange::Paused,
        ("resumed", _) => HealthChange::Resumed,
        (_, Duration::ZERO) => return None,
        ("cools", left) => HealthChange::Cools(left),
        ("sick", _) => HealthChange::Faulty(Fault::Quick),
        ("silent", _) => HealthChange::Faulty(Fault::Silent),
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
            (group(), HealthChange::Healthy),
            (key(), HealthChange::Quarantined(QuarantineReason::BadCredential, left)),
            (key(), HealthChange::Healthy),
            (key(), HealthChange::Paused),
            (key(), HealthChange::Resumed),
            (model(), HealthChange::Cools(left)),
            (model(), HealthChange::Quarantined(QuarantineReason::DailyLimit, left)),
            (model(), HealthChange::Healthy),
            (provider(), HealthChange::Faulty(Fault::Quick)),
            (provider(), HealthChange::Faulty(Fault::Silent)),
            (provider(), HealthChange::Healthy),
        ] {
            let event = HealthEvent { of, change };
            let (name, what) = write(&event, now);
            assert_eq!(read(&name, &what, now), Some(event.clone()));
            let later = read(&name, &what, now.plus(Duration::from_secs(60)));
            let holds = matches!(
                change,
                HealthChange::Healthy | HealthChange::Paused | HealthChange::Resumed
            );
            assert_eq!(later, holds.then_some(event));
        }
        for what in ["nonsense", "9999999999999 nonsense", "x cools"] {
            assert_eq!(read("key groq groq-1 ab", what, now), None);
        }
        assert_eq!(read("key groq groq-1", "9999999999999 no_money", now), None);
    }
}
