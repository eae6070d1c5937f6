use gatekeeper_filters::kernel::{ConversationLimits, Period};

use super::*;

const NOON: UnixMs = UnixMs(1_796_212_800_000);

fn limits(rate: u64, day: u64, repeats: u32) -> ConversationLimits {
    ConversationLimits {
        rate: Some(Limit { count: rate, per: Period::Minute }),
        messages: Some(Limit { count: day, per: Period::Day }),
        repeats: Some(repeats),
    }
}

fn later(seconds: u64) -> UnixMs {
    UnixMs(NOON.0 + seconds * 1000)
}

/// Counts one, unless it is refused.
fn ask(
    all: &mut ConversationTable,
    (id, turn): (u64, u32),
    limits: ConversationLimits,
    now: UnixMs,
) -> Result<(), ConversationRefused> {
    let demand = ConversationDemand { id, turn: Some(turn), limits };
    let windows = Windows::at(now);
    all.fit(&demand, now, &windows)?;
    all.count(&demand, now, &windows);
    Ok(())
}

#[test]
fn a_minute_a_day_and_others_beside_it() {
    let (mut all, limits) = (ConversationTable::default(), limits(3, 5, 9));
    for turn in 0..3 {
        ask(&mut all, (1, turn), limits, NOON).unwrap();
    }
    let refused = ask(&mut all, (1, 3), limits, NOON).unwrap_err();
    assert!(
        matches!(refused, ConversationRefused::Rate { resets_at, .. } if resets_at == later(60))
    );
    ask(&mut all, (2, 3), limits, NOON).unwrap();
    for turn in 3..5 {
        ask(&mut all, (1, turn), limits, later(60)).unwrap();
    }
    let refused = ask(&mut all, (1, 5), limits, later(61)).unwrap_err();
    let ConversationRefused::Messages { resets_at, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(resets_at, later(12 * 3600));
    ask(&mut all, (1, 5), limits, later(12 * 3600)).unwrap();
}

#[test]
fn the_same_turn_within_ten_minutes() {
    let (mut all, limits) = (ConversationTable::default(), limits(100, 100, 3));
    for nth in 0..3 {
        ask(&mut all, (1, 7), limits, later(nth * 100)).unwrap();
        ask(&mut all, (1, 8), limits, later(nth * 100)).unwrap();
    }
    let refused = ask(&mut all, (1, 7), limits, later(599)).unwrap_err();
    assert!(
        matches!(refused, ConversationRefused::Repeats { limit: 3, resets_at } if resets_at == later(600))
    );
    // Of another conversation, and of this one when its time is over.
    ask(&mut all, (2, 7), limits, later(599)).unwrap();
    ask(&mut all, (1, 7), limits, later(600)).unwrap();
    for turn in 20..40 {
        ask(&mut all, (1, turn), limits, later(601)).unwrap();
    }
}

/// How many messages pass of a loop of so many texts, `every` seconds apart, before one is refused.
fn passed(texts: u32, every: u64) -> u64 {
    let (mut all, limits) = (ConversationTable::default(), limits(1000, 10_000, 3));
    (0..2000)
        .find(|nth| {
            let text = (*nth as u32 % texts).wrapping_mul(0x9E37_79B9);
            ask(&mut all, (1, text), limits, later(nth * every)).is_err()
        })
        .unwrap_or(2000)
}

/// Ten a minute: a text of more than 33 comes less than four times in ten minutes.
#[test]
fn a_loop_of_whatever_length_is_stopped_at_its_first_repeat_too_many() {
    for texts in 1..=33 {
        assert_eq!(passed(texts, 6), 3 * u64::from(texts), "a loop of {texts}");
    }
    for texts in [34, 100] {
        assert_eq!(passed(texts, 6), 2000, "a loop of {texts}");
    }
    for texts in [100, 199] {
        assert_eq!(passed(texts, 1), 3 * u64::from(texts), "a loop of {texts}");
    }
}

/// What anybody would count on paper: turns by their name, each from its first time on for ten minutes.
#[derive(Default)]
struct Paper(FxHashMap<u32, (u64, u32)>);

impl Paper {
    fn ask(&mut self, turn: u32, now: u64, limit: u32) -> bool {
        let (first, times) = self.0.entry(turn).or_insert((now, 0));
        if now - *first >= 600 {
            (*first, *times) = (now, 0);
        }
        *times += u32::from(*times < limit);
        *times <= limit
    }
}

#[test]
fn turns_are_counted_as_on_paper() {
    let (mut all, limits) = (ConversationTable::default(), limits(10_000, 100_000, 3));
    let (mut paper, mut random, mut now) = (FxHashMap::default(), 7_u64, 0);
    let (mut refused, mut asked) = (0, 0);
    for _ in 0..20_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        now += (random >> 60) % 3;
        // One in three is a canned answer.
        let turn = match (random >> 40) % 3 {
            0 => (random >> 33) as u32 % 12,
            _ => (random >> 33) as u32 % 200,
        };
        let id = (random >> 50) % 2;
        let paper: &mut Paper = paper.entry(id).or_default();
        let before = paper.0.get(&turn).copied();
        let is_refused = before.is_some_and(|(first, times)| now - first < 600 && times >= 3);
        let said = ask(&mut all, (id, turn), limits, later(now));
        assert_eq!(said.is_err(), is_refused, "turn {turn} at {now}: {before:?}");
        if let Err(ConversationRefused::Repeats { resets_at, .. }) = said {
            assert_eq!(Some(resets_at), before.map(|(first, _)| later(first + 600)));
        }
        if !is_refused {
            paper.ask(turn, now, 3);
        }
        (refused, asked) = (refused + u32::from(is_refused), asked + 1);
    }
    assert!(refused > 1_000 && asked - refused > 1_000, "{refused} of {asked}");
}

#[test]
fn further_turns_cost_bytes_for_ten_minutes_only() {
    let (mut all, limits) = (ConversationTable::default(), limits(10_000, 100_000, 3));
    for conversation in 0..100 {
        for turn in 0..20 {
            ask(&mut all, (conversation, turn), limits, NOON).unwrap();
        }
    }
    assert_eq!(all.further.len(), 100);
    let mut bytes = all.further.values().map(FurtherTurns::bytes);
    assert!(bytes.all(|bytes| bytes == 4 + 12 * 5));
    for conversation in 200..240 {
        for turn in 0..20 {
            ask(&mut all, (conversation, turn), limits, later(600)).unwrap();
        }
    }
    assert!(all.further.len() <= 2 * 40, "{}", all.further.len());
    all.sweep(later(1200));
    assert!(all.further.is_empty() && !all.is_empty());
    // More than are told apart: none of them is refused for it.
    for turn in 0..2_000 {
        ask(&mut all, (1, turn), limits, later(1300)).unwrap();
    }
    assert_eq!(all.further[&1].bytes(), 4 + 500 * 5);
}

/// A turn that has no place in the counts comes back, too.
#[test]
fn a_further_turn_is_given_back() {
    let (mut all, limits) = (ConversationTable::default(), limits(1000, 1000, 3));
    for turn in 100..120 {
        ask(&mut all, (1, turn), limits, NOON).unwrap();
    }
    let demand = ConversationDemand { id: 1, turn: Some(7), limits };
    let windows = Windows::at(NOON);
    for _ in 0..20 {
        all.fit(&demand, NOON, &windows).unwrap();
        let counted = all.count(&demand, NOON, &windows);
        all.give_back(&counted);
    }
    for _ in 0..3 {
        ask(&mut all, (1, 7), limits, later(1)).unwrap();
    }
    assert!(ask(&mut all, (1, 7), limits, later(2)).is_err());
}

#[test]
fn further_turns_go_to_another_process() {
    let (mut all, limits) = (ConversationTable::default(), limits(1000, 1000, 3));
    for turn in 0..60 {
        ask(&mut all, (1, turn % 20), limits, NOON).unwrap();
    }
    let mut next = ConversationTable::default();
    all.all().iter().for_each(|(id, known)| next.adopt(*id, known));
    let text = serde_json::to_string(&all.all_further()).unwrap();
    let further: Vec<(u64, FurtherTurns)> = serde_json::from_str(&text).unwrap();
    further.iter().for_each(|(id, known)| next.adopt_further(*id, known));
    for turn in 0..20 {
        assert!(ask(&mut next, (1, turn), limits, later(9)).is_err(), "{turn}");
    }
}

#[test]
fn a_message_given_back_was_never_counted() {
    let (mut all, limits) = (ConversationTable::default(), limits(3, 3, 3));
    let demand = |turn| ConversationDemand { id: 1, turn: Some(turn), limits };
    let count = |all: &mut ConversationTable, turn, now| {
        let windows = Windows::at(now);
        all.fit(&demand(turn), now, &windows)?;
        Ok::<_, ConversationRefused>(all.count(&demand(turn), now, &windows))
    };
    for nth in 0..20 {
        let counted = count(&mut all, 7, later(nth)).unwrap();
        all.give_back(&counted);
    }
    let first = count(&mut all, 7, later(30)).unwrap();
    for nth in 1..3 {
        count(&mut all, 7, later(30 + nth)).unwrap();
    }
    assert!(count(&mut all, 7, later(40)).is_err());
    all.give_back(&first);
    count(&mut all, 7, later(40)).unwrap();
    assert!(count(&mut all, 8, later(40)).is_err());
    // Of a window that is over, and of a turn that began anew, nothing comes back.
    let (mut all, limits) = (ConversationTable::default(), limits);
    let old = ConversationDemand { id: 1, turn: Some(7), limits };
    let at = |now| Windows::at(now);
    let late = all.count(&old, NOON, &at(NOON));
    let now = later(86_400);
    all.count(&old, now, &at(now));
    all.give_back(&late);
    for nth in 1..3 {
        count(&mut all, 7, later(86_400 + nth)).unwrap();
    }
    assert!(count(&mut all, 7, later(86_403)).is_err());
}

#[test]
fn the_day_outlives_a_restart_and_old_ones_are_forgotten() {
    let (mut all, limits) = (ConversationTable::default(), limits(100, 3, 9));
    let day = Windows::at(NOON).of(Period::Day).start;
    all.restore(1, day, 2);
    ask(&mut all, (1, 7), limits, NOON).unwrap();
    assert!(ask(&mut all, (1, 8), limits, NOON).is_err());
    all.sweep(later(86_400));
    assert!(!all.is_empty());
    all.sweep(later(3 * 86_400));
    assert!(all.is_empty());
}
