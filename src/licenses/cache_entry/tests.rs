use super::*;
use crate::shops::{
    Asked, ShopError, Status, by_name,
    tests::{
        answer, hash, plan,
        table::{POLAR_KEY, valid_answers},
    },
};

const HOUR: u64 = 3_600_000;
const MINUTE: u64 = 60_000;
/// When the record of these tests was made.
const START: u64 = 1_795_510_800_000;

const CACHE: LicenseCacheSettings = LicenseCacheSettings {
    fresh: Duration::from_secs(24 * 3600),
    stale: Duration::from_secs(72 * 3600),
    negative: Duration::from_secs(60),
};

fn at(since_start: u64) -> UnixMs {
    UnixMs(START + since_start)
}

fn facts(status: Status, store: u64) -> ShopLicense {
    ShopLicense {
        seller: store.to_string(),
        product: Some("1".into()),
        variant: Some("1".into()),
        order: Some("order".into()),
        activations: Some(0),
        ..ShopLicense::new(by_name("lemonsqueezy").unwrap(), status)
    }
}

/// Store 1 is ours.
fn judge(facts: &ShopLicense) -> LicenseVerdict {
    match (&*facts.seller, facts.status) {
        ("1", Status::Active) => LicenseVerdict::Valid { plan: plan("pro"), until: facts.until },
        ("1", Status::Disabled) => LicenseVerdict::Invalid(Code::LicenseDisabled),
        ("1", Status::Expired) => LicenseVerdict::Invalid(Code::LicenseExpired),
        _ => LicenseVerdict::Invalid(Code::LicenseWrongProduct),
    }
}

fn after_reply(record: &CachedLicense, reply: &ShopReply, now: UnixMs) -> CachedLicense {
    record.hear(reply, now, judge, false)
}

fn yes() -> ShopReply {
    ShopReply::from(facts(Status::Active, 1))
}

fn good() -> CachedLicense {
    after_reply(&CachedLicense::default(), &yes(), at(0))
}

fn decide(record: &CachedLicense, now: UnixMs) -> CacheDecision {
    let verdict = match &record.facts {
        Some(facts) => judge(facts),
        None => LicenseVerdict::Invalid(Code::LicenseInvalid),
    };
    record.decide(verdict, &CACHE, &LicenseId([0; 32]), now)
}

/// What is asked, and whether a good answer holds meanwhile.
fn way(record: &CachedLicense, since_start: u64) -> (CacheQuery, Option<bool>) {
    let decision = decide(record, at(since_start));
    (decision.ask, decision.answer.as_ref().map(LicenseVerdict::is_valid))
}

#[test]
fn a_yes_is_fresh_then_stale_then_nothing() {
    let record = good();
    assert_eq!(way(&record, 24 * HOUR - 1), (CacheQuery::No, Some(true)));
    assert_eq!(way(&record, 24 * HOUR), (CacheQuery::Behind, Some(true)));
    assert_eq!(way(&record, 96 * HOUR - 1), (CacheQuery::Behind, Some(true)));
    assert_eq!(way(&record, 96 * HOUR), (CacheQuery::First, None));
}

#[test]
fn jitter_shortens_by_a_tenth_at_most() {
    for first in 0..=255 {
        let mut id = LicenseId([0; 32]);
        id.0[0] = first;
        let fresh = shortened(CACHE.fresh, &id);
        assert!(fresh <= CACHE.fresh && fresh >= CACHE.fresh * 9 / 10, "{fresh:?}");
    }
}

#[test]
fn a_shop_that_does_not_answer_changes_nothing() {
    let record = good();
    let reply = ShopReply::Unknown(ShopError::status(500));
    assert_eq!(after_reply(&record, &reply, at(30 * HOUR)), record);
}

#[test]
fn an_explicit_no_acts_at_once_and_is_kept_longer_each_time() {
    let mut record = good();
    let mut now = 0;
    for wait in [60_000, 120_000, 240_000, 300_000, 300_000] {
        record = after_reply(&record, &ShopReply::from(facts(Status::Disabled, 1)), at(now));
        assert_eq!(way(&record, now + wait - 1), (CacheQuery::No, Some(false)));
        assert_eq!(way(&record, now + wait), (CacheQuery::First, Some(false)));
        now += wait;
    }
    record = after_reply(&record, &yes(), at(now));
    assert_eq!(way(&record, now), (CacheQuery::No, Some(true)), "enabled again");
}

#[test]
fn a_good_licence_falls_by_not_found_after_three_in_fifteen_minutes() {
    for reply in [ShopReply::NotFound, ShopReply::from(facts(Status::Active, 2))] {
        let mut record = good();
        for (minute, holds) in [(0, true), (5, true), (10, true), (14, true), (15, false)] {
            record = after_reply(&record, &reply, at(minute * MINUTE));
            let (_, answer) = way(&record, minute * MINUTE);
            assert_eq!(answer, Some(holds), "{reply:?} after {minute} minutes");
        }
    }
    let mut record = good();
    for minute in [0, 20] {
        record = after_reply(&record, &ShopReply::NotFound, at(minute * MINUTE));
    }
    assert_eq!(way(&record, 20 * MINUTE), (CacheQuery::No, Some(true)), "twice is not enough");
    record = after_reply(&record, &yes(), at(21 * MINUTE));
    assert_eq!(record.turned, None, "found again");
}

#[test]
fn a_sudden_refusal_of_many_is_not_believed_for_72_hours() {
    let mut record = good();
    for hour in [1, 2, 30, 72] {
        record = record.hear(&ShopReply::NotFound, at(hour * HOUR), judge, true);
        assert_eq!(way(&record, hour * HOUR).1, Some(true), "after {hour} hours");
    }
    record = record.hear(&ShopReply::NotFound, at(73 * HOUR), judge, true);
    assert_eq!(way(&record, 73 * HOUR).1, Some(false));
    let disabled = ShopReply::from(facts(Status::Disabled, 1));
    let record = good().hear(&disabled, at(HOUR), judge, true);
    assert_eq!(way(&record, HOUR).1, Some(false), "an explicit no always acts");
}

#[test]
fn what_expired_since_the_last_check_is_not_served_and_not_refused() {
    let mut record = good();
    record.facts.as_mut().unwrap().until = Some(at(HOUR));
    let expired = LicenseVerdict::Invalid(Code::LicenseExpired);
    let decision = record.decide(expired.clone(), &CACHE, &LicenseId([0; 32]), at(HOUR));
    assert_eq!(decision, CacheDecision { ask: CacheQuery::First, answer: None });
    let lapsed = record.hear(&yes(), at(HOUR), |_| expired.clone(), false);
    let decision = lapsed.decide(expired.clone(), &CACHE, &LicenseId([0; 32]), at(HOUR + 1));
    assert_eq!(
        decision,
        CacheDecision { ask: CacheQuery::No, answer: Some(expired) },
        "the shop said so"
    );
}

#[test]
fn a_mark_makes_the_next_request_ask_and_the_old_facts_hold() {
    let record = good().mark(at(HOUR), true);
    assert_eq!(way(&record, HOUR), (CacheQuery::First, Some(true)));
    let asked_before = after_reply(&record, &yes(), at(HOUR - 1));
    assert_eq!(
        way(&asked_before, HOUR + 1).0,
        CacheQuery::First,
        "that answer is older than the mark"
    );
    let asked_after = after_reply(&record, &yes(), at(HOUR + 1));
    assert_eq!(way(&asked_after, HOUR + 2), (CacheQuery::No, Some(true)));
    let missed = after_reply(&record, &ShopReply::NotFound, at(HOUR + 1));
    assert_eq!(way(&missed, HOUR + 2), (CacheQuery::No, Some(true)), "an answer, too");
}

#[test]
fn marks_that_are_not_sure_to_be_new_act_once_a_minute() {
    let mut record = good().mark(at(HOUR), false);
    record = after_reply(&record, &yes(), at(HOUR + 1));
    for second in 1..60 {
        record = record.mark(at(HOUR + second * 1_000), false);
        assert_eq!(way(&record, HOUR + second * 1_000).0, CacheQuery::No, "{second}");
    }
    assert_eq!(way(&record, HOUR + MINUTE).0, CacheQuery::First, "none is lost");
}

#[test]
fn of_two_records_the_newer_answer_stays_with_every_mark() {
    let older = good().mark(at(HOUR), true);
    let newer = after_reply(&good(), &ShopReply::from(facts(Status::Disabled, 1)), at(30 * MINUTE));
    for merged in [older.merge(&newer), newer.merge(&older)] {
        assert_eq!(merged.checked, at(30 * MINUTE));
        assert_eq!(merged.facts, newer.facts);
        assert!(merged.is_due(at(HOUR)));
    }
    let mut refunded = good();
    refunded.refunded = true;
    assert!(refunded.merge(&newer).refunded && newer.merge(&refunded).refunded);
}

#[test]
fn merging_loses_nothing_whoever_comes_first_and_however_often() {
    let base = good();
    let moved = |at, account| KeyMove { at, account, replaced: None };
    let mut carried = base.with_device("a", false, at(1));
    carried.devices[0].carried = true;
    let changes: [CachedLicense; 13] = [
        carried,
        CachedLicense { moved: Some(moved(at(1), Some(LicenseId([1; 32])))), ..base.clone() },
        CachedLicense { moved: Some(moved(at(2), None)), ..base.clone() },
        base.mark(at(HOUR), true),
        CachedLicense { refunded: true, ..base.clone() },
        base.with_device("a", false, at(1)).with_device("b", false, at(2)),
        base.with_device("a", false, at(1)).with_device("a", true, at(3)),
        after_reply(&base, &ShopReply::NotFound, at(2 * MINUTE)),
        after_reply(&base, &ShopReply::from(facts(Status::Disabled, 1)), at(3 * MINUTE)),
        after_reply(&base, &yes(), at(4 * MINUTE)),
        base.revoke(true, at(5)).unwrap(),
        base.revoke(true, at(6)).unwrap().revoke(false, at(7)).unwrap(),
        CachedLicense {
            revocation: Revocation { at: at(7), revoked: true },
            ..CachedLicense::default()
        },
    ];
    for one in &changes {
        assert_eq!(&one.merge(one), one);
        for other in &changes {
            let merged = one.merge(other);
            assert_eq!(merged, other.merge(one));
            assert_eq!(merged.merge(one), merged);
            assert_eq!(merged.marked, one.marked.max(other.marked));
            assert_eq!(merged.refunded, one.refunded || other.refunded);
            assert_eq!(merged.revocation, one.revocation.max(other.revocation));
            assert_eq!(merged.moved, one.moved.clone().max(other.moved.clone()));
            for third in &changes {
                assert_eq!(one.merge(other).merge(third), one.merge(&other.merge(third)));
            }
        }
    }
    let all = changes[5].merge(&changes[6]);
    assert!(all.device("a").is_none(), "given back later than it was seen");
    assert!(all.device("b").is_some());
}

#[test]
fn a_revocation_outlives_the_shops_yes_and_ends_by_the_operators_word() {
    let revoked = good().revoke(true, at(HOUR)).unwrap();
    assert_eq!(revoked.revoke(true, at(2 * HOUR)), None, "it is so already");
    let told = after_reply(&revoked, &yes(), at(3 * HOUR));
    assert!(told.revocation.revoked && told.merge(&good()).revocation.revoked);
    // By a clock that is behind, too.
    let restored = told.revoke(false, at(0)).unwrap();
    assert!(!restored.merge(&told).revocation.revoked && !told.merge(&restored).revocation.revoked);
    let again = restored.revoke(true, at(0)).unwrap();
    assert!(again.merge(&restored).merge(&told).revocation.revoked);
}

#[test]
fn an_answer_that_was_overtaken_changes_nothing() {
    let disabled = after_reply(&good(), &ShopReply::from(facts(Status::Disabled, 1)), at(HOUR));
    assert_eq!(after_reply(&disabled, &yes(), at(HOUR - 1)), disabled);
}

#[test]
fn what_an_older_version_wrote_can_be_read() {
    assert_eq!(serde_json::from_str::<CachedLicense>("{}").unwrap(), CachedLicense::default());
    let text = r#"{"version":7,"devices":[{"id":"a","checked":5}]}"#;
    assert!(serde_json::from_str::<CachedLicense>(text).unwrap().device("a").is_some());
}

#[test]
fn a_record_survives_being_written_down() {
    let record = after_reply(&good(), &ShopReply::NotFound, at(1)).mark(at(2), true);
    let text = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<CachedLicense>(&text).unwrap(), record);
}

/// Each shop answers once that the key is valid, then gives no usable answer for three days.
#[test]
fn known_buyers_of_every_shop_are_served_through_an_outage_of_72_hours() {
    let answers = valid_answers();
    let shops: Vec<&str> = answers.iter().map(|(source, _)| source.shop.name()).collect();
    for shop in crate::shops::ALL {
        assert!(shops.contains(&shop.name()), "{} has no valid answer here", shop.name());
    }
    for (source, body) in answers {
        let shop = source.shop;
        let asked = Asked { instance: Some("ins_1"), ..Asked::about(POLAR_KEY) };
        let read = |status, body: &str| shop.read(&source, &asked, &answer(status, body), &hash());
        let hear = |record: &CachedLicense, reply: &ShopReply, now| {
            record.hear(reply, now, |facts| shop.judge(facts, &source, now), false)
        };
        let valid = read(200, body);
        let mut record = hear(&CachedLicense::default(), &valid, at(0));
        let says = |record: &CachedLicense, now| {
            let verdict = shop.judge(record.facts.as_ref().unwrap(), &source, now);
            record.decide(verdict, &CACHE, &LicenseId([0; 32]), now).answer
        };
        for hour in 1..=72 {
            let now = at(hour * HOUR);
            let outage = [(500, "{}"), (429, "{}"), (503, ""), (200, "<html>"), (404, "<html>")];
            let (status, page) = outage[hour as usize % outage.len()];
            record = hear(&record, &read(status, page), now);
            let answer = says(&record, now);
            let is_served = answer.is_some_and(|verdict| verdict.is_valid());
            assert!(is_served, "{}, {hour} hours after {status} {page}", shop.name());
        }
        assert!(says(&record, at(97 * HOUR)).is_none(), "{}", shop.name());
        record = hear(&record, &valid, at(98 * HOUR));
        assert!(says(&record, at(98 * HOUR)).unwrap().is_valid(), "{}", shop.name());
    }
}
