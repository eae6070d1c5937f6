//! Master keys, accounts and providers that rest: what one gateway learns of them, the others need not
//! try.

use std::{collections::BTreeMap, time::Duration};

use gatekeeper_filters::kernel::UnixMs;
use redis::Cmd;
use tokio::sync::mpsc::UnboundedReceiver;

use super::Fleet;
use crate::{
    ledger::daily::DAY_MS,
    pool::{
        breaker::Fault,
        health::Why,
        news::{Change, News, Subject},
    },
    store::Away,
};

pub const CHANNEL: &str = "gk:keys";
const KEY: &str = "gk:keys";
/// Keys that the operator paused. They stay so until the operator resumes them, however long that is.
const PAUSED: &str = "gk:keys:paused";
/// A provider is told to be sick for so long at most, should nobody be left to tell that it is well.
const SICK: Duration = Duration::from_secs(60);

/// After the store did not hear what the operator said.
const TELL_AGAIN: Duration = Duration::from_millis(500);

impl Fleet {
    pub(super) async fn tell_health(self: std::sync::Arc<Self>, mut news: UnboundedReceiver<News>) {
        // What the operator said must not be lost: the last word of each that the store has not taken.
        let mut orders: BTreeMap<Subject, News> = BTreeMap::new();
        loop {
            tokio::select! {
                heard = news.recv() => match heard {
                    None => return,
                    Some(news) if matches!(news.change, Change::Paused | Change::Resumed) => {
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
    async fn tell(&self, news: &News) -> Result<(), Away> {
        let (name, what) = write(news, UnixMs::now());
        match news.change {
            Change::Paused => self.store.run::<()>(Cmd::hset(PAUSED, &name, &what)).await?,
            Change::Resumed => {
                self.store.run::<()>(Cmd::hdel(PAUSED, &name)).await?;
                self.store.run::<()>(Cmd::hdel(KEY, &name)).await?;
            }
            Change::Sound => self.store.run::<()>(Cmd::hdel(KEY, &name)).await?,
            Change::Cools(_) | Change::Quarantined(..) | Change::Sick(_) => {
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
    pub(super) async fn read_health(&self) -> Result<(), Away> {
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
fn write(news: &News, now: UnixMs) -> (String, String) {
    let name = match &news.of {
        Subject::Provider { provider } => format!("provider {provider}"),
        Subject::Group { provider, group } => format!("group {provider} {group}"),
        Subject::Model { provider, group, model } => format!("model {provider} {group} {model}"),
        Subject::Key { provider, key, mark } => format!("key {provider} {key} {mark}"),
    };
    let (left, what) = match news.change {
        Change::Cools(left) => (left, "cools"),
        Change::Quarantined(why, left) => (left, why.name()),
        Change::Sick(Fault::Quick) => (SICK, "sick"),
        Change::Sick(Fault::Silent) => (SICK, "silent"),
        Change::Paused => return (name, "0 paused".into()),
        Change::Resumed => return (name, "0 resumed".into()),
        Change::Sound => return (name, "0 sound".into()),
    };
    (name, format!("{} {what}", now.plus(left).0))
}

/// `None` for what is over, unless that is the news.
fn read(name: &str, what: &str, now: UnixMs) -> Option<News> {
    let mut names = name.splitn(4, ' ');
    let (until, what) = what.split_once(' ')?;
    let left = until.parse::<u64>().ok()?.saturating_sub(now.0);
    let change = match (what, Duration::from_millis(left)) {
        ("sound", _) => Change::Sound,
        ("paused", _) => Change::Paused,
        ("resumed", _) => Change::Resumed,
        (_, Duration::ZERO) => return None,
        ("cools", left) => Change::Cools(left),
        ("sick", _) => Change::Sick(Fault::Quick),
        ("silent", _) => Change::Sick(Fault::Silent),
        (why, left) => Change::Quarantined(Why::from_name(why)?, left),
    };
    let of = match names.next()? {
        "provider" => Subject::Provider { provider: names.next()?.into() },
        "group" => Subject::Group { provider: names.next()?.into(), group: names.next()?.into() },
        "model" => Subject::Model {
            provider: names.next()?.into(),
            group: names.next()?.into(),
            model: names.next()?.into(),
        },
        "key" => Subject::Key {
            provider: names.next()?.into(),
            key: names.next()?.into(),
            mark: names.next()?.to_owned(),
        },
        _ => return None,
    };
    Some(News { of, change })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_read_as_they_were_written_and_what_is_over_is_none() {
        let (now, left) = (UnixMs(1_000_000), Duration::from_secs(30));
        let group = || Subject::Group { provider: "groq".into(), group: "org-a".into() };
        let key =
            || Subject::Key { provider: "groq".into(), key: "groq-1".into(), mark: "ab12".into() };
        let model = || Subject::Model {
            provider: "groq".into(),
            group: "org-a".into(),
            model: "meta llama/4=scout".into(),
        };
        let provider = || Subject::Provider { provider: "groq".into() };
        for (of, change) in [
            (group(), Change::Cools(left)),
            (group(), Change::Quarantined(Why::NoMoney, left)),
            (group(), Change::Sound),
            (key(), Change::Quarantined(Why::BadCredential, left)),
            (key(), Change::Sound),
            (key(), Change::Paused),
            (key(), Change::Resumed),
            (model(), Change::Cools(left)),
            (model(), Change::Quarantined(Why::DailyLimit, left)),
            (model(), Change::Sound),
            (provider(), Change::Sick(Fault::Quick)),
            (provider(), Change::Sick(Fault::Silent)),
            (provider(), Change::Sound),
        ] {
            let news = News { of, change };
            let (name, what) = write(&news, now);
            assert_eq!(read(&name, &what, now), Some(news.clone()));
            let later = read(&name, &what, now.plus(Duration::from_secs(60)));
            let holds = matches!(change, Change::Sound | Change::Paused | Change::Resumed);
            assert_eq!(later, holds.then_some(news));
        }
        for what in ["nonsense", "9999999999999 nonsense", "x cools"] {
            assert_eq!(read("key groq groq-1 ab", what, now), None);
        }
        assert_eq!(read("key groq groq-1", "9999999999999 no_money", now), None);
    }
}
