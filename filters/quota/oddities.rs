//! Impossible values in a provider's answer: logged once an hour for each key.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use crate::kernel::{Exchange, MOST_OUTPUT, UnixMs, Usage};

const HOUR_MS: u64 = 60 * 60 * 1000;

/// Answers above their cap in an hour that make a warning.
const ABOVE_CAP: u32 = 3;

/// Keys that are remembered; more are those of earlier configurations.
const MOST_KEYS: usize = 1024;

/// A target's label and the id of a key of its provider.
type TargetKey = (Arc<str>, Arc<str>);

#[derive(Default)]
pub(super) struct Oddities {
    seen: Mutex<HashMap<TargetKey, Seen>>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    /// When the hour began.
    since: UnixMs,
    above_cap: u32,
    told_impossible: bool,
}

/// What is odd about an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Odd {
    /// A count that no request of this size can have.
    Impossible,
    /// More output than was asked for.
    AboveCap(u64),
}

impl Oddities {
    /// Looks at what was reported; hardly ever more than two comparisons.
    pub(super) fn watch(&self, exchange: &Exchange) {
        let Some(reported) = exchange.metered.reported else { return };
        if let Some(odd) = odd(exchange, &reported)
            && self.is_news(exchange, odd)
        {
            tell(exchange, odd, &reported);
        }
    }

    /// Whether it is logged.
    fn is_news(&self, exchange: &Exchange, odd: Odd) -> bool {
        let Some(target) = &exchange.served else { return false };
        let key = exchange.served_key.clone().unwrap_or_else(|| Arc::from(""));
        let new = Seen { since: exchange.now, above_cap: 0, told_impossible: false };
        let mut all = self.seen.lock();
        if all.len() >= MOST_KEYS {
            all.clear();
        }
        let seen = all.entry((target.label.clone(), key)).or_insert(new);
        if exchange.now.0.abs_diff(seen.since.0) >= HOUR_MS {
            *seen = new;
        }
        match odd {
            Odd::Impossible => !std::mem::replace(&mut seen.told_impossible, true),
            Odd::AboveCap(_) => {
                seen.above_cap = seen.above_cap.saturating_add(1);
                seen.above_cap == ABOVE_CAP
            }
        }
    }
}

fn odd(exchange: &Exchange, reported: &Usage) -> Option<Odd> {
    if reported.input > exchange.input.most() || reported.output > MOST_OUTPUT {
        return Some(Odd::Impossible);
    }
    exchange.cap_sent().filter(|cap| reported.output > *cap).map(Odd::AboveCap)
}

fn tell(exchange: &Exchange, odd: Odd, reported: &Usage) {
    let label = exchange.served.as_ref().map_or("", |target| &target.label);
    let provider = label.split('/').next().unwrap_or_default();
    let key = exchange.served_key.as_deref().unwrap_or_default();
    match odd {
        Odd::Impossible => log::warn!(
            "{label} reported {} input and {} output tokens for a request that can't be more than {} and \
             {MOST_OUTPUT}; these bounds are charged and booked. This is told once an hour for a key. \
             key={key} request={}",
            reported.input,
            reported.output,
            exchange.input.most(),
            exchange.id,
        ),
        Odd::AboveCap(cap) => log::warn!(
            "{label} passed its output cap {ABOVE_CAP} times within an hour, last with {} tokens where {cap} \
             were asked for; buyers are charged {cap}, the rest is yours. If it reads the cap from another \
             field, name that in providers.{provider}.output_cap_field. key={key} request={}",
            reported.output,
            exchange.id,
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::kernel::{Counting, Credential, Dialect, Endpoint, Target};

    fn exchange(key: &str, minute: u64, usage: Usage) -> Exchange {
        let now = UnixMs(minute * 60_000);
        let mut exchange = Exchange::new(Endpoint::Chat, Credential::new("K"), now, Instant::now());
        exchange.served = Some(Arc::new(Target {
            provider: 0,
            provider_name: "main".into(),
            model: "m".into(),
            label: "main/m".into(),
            dialect: Dialect::OpenAi,
            counting: Counting::default(),
            price: None,
        }));
        exchange.served_key = Some(key.into());
        exchange.output_cap = Some(100);
        exchange.metered.reported = Some(usage);
        exchange
    }

    fn news(oddities: &Oddities, exchange: &Exchange) -> bool {
        let reported = exchange.metered.reported.unwrap();
        odd(exchange, &reported).is_some_and(|odd| oddities.is_news(exchange, odd))
    }

    #[test]
    fn the_third_answer_above_its_cap_within_an_hour_is_told_once() {
        let oddities = Oddities::default();
        let above =
            |key: &str, minute| exchange(key, minute, Usage { output: 101, ..Usage::default() });
        let told: Vec<_> = (0..10).map(|minute| news(&oddities, &above("a", minute))).collect();
        assert_eq!(told.iter().position(|told| *told), Some(2));
        assert_eq!(told.iter().filter(|told| **told).count(), 1);
        assert!(!news(&oddities, &above("b", 9)), "each key by itself");
        assert!(!news(&oddities, &above("a", 61)));
        assert!(!news(&oddities, &above("a", 62)));
        assert!(news(&oddities, &above("a", 63)), "another hour");
        let within = exchange("c", 0, Usage { output: 100, ..Usage::default() });
        assert_eq!(odd(&within, &within.metered.reported.unwrap()), None);
    }

    #[test]
    fn what_is_impossible_is_told_once_an_hour() {
        let oddities = Oddities::default();
        let nonsense = |minute| {
            exchange("a", minute, Usage { input: 1 << 53, output: 1 << 53, ..Usage::default() })
        };
        let told: Vec<_> = (0..120).map(|minute| news(&oddities, &nonsense(minute))).collect();
        assert_eq!(told.iter().filter(|told| **told).count(), 2);
    }
}
