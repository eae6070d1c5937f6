//! The failover of a request: which key and which target come next.

use std::time::Duration;

use gatekeeper_filters::kernel::Dialect;

use super::*;
use crate::{
    config::settings::{self, BaseUrl, Timeouts},
    pool::{
        HealthRegistry, ProviderPool, breaker::Circuit, dns::UpstreamHost,
        health::QuarantineReason, model_limits::Scope,
    },
};

fn settings(name: &str, keys: &[&str]) -> settings::ProviderSettings {
    let base = BaseUrl {
        tls: false,
        host: "127.0.0.1".into(),
        port: 1,
        path: String::new(),
        allow_private: true,
        stand_in: false,
    };
    let second = Duration::from_secs(1);
    settings::ProviderSettings {
        name: name.into(),
        dialect: Dialect::OpenAi,
        strategy: settings::Strategy::RoundRobin,
        timeouts: Timeouts {
            connect: second,
            first_byte: second,
            first_token: second,
            idle: second,
            total: second,
        },
        allow_fields: Vec::new(),
        output_cap_field: "max_completion_tokens".into(),
        identify: true,
        image_tokens: None,
        budget: None,
        keys: keys
            .iter()
            .map(|id| settings::KeySettings {
                id: (*id).into(),
                secret: "secret".into(),
                group: (*id).into(),
                weight: 1,
                off: false,
            })
            .collect(),
        base,
    }
}

fn build(settings: settings::ProviderSettings) -> ProviderPool {
    let endpoint = Arc::new(UpstreamHost::new(&settings.base, settings.timeouts));
    let registry = HealthRegistry::new(crate::vault::KeyedHash::new(&[7; 32]));
    ProviderPool::new(settings, Arc::new(["m".into(), "n".into()]), endpoint, &registry).unwrap()
}

/// Each key an account of its own.
fn provider(name: &str, keys: &[&str]) -> ProviderPool {
    crate::pool::backoff::start_clock();
    build(settings(name, keys))
}

fn target(provider: usize) -> Arc<Target> {
    target_of(provider, "m")
}

fn target_of(provider: usize, model: &str) -> Arc<Target> {
    Arc::new(Target {
        provider,
        provider_name: "p".into(),
        model: model.into(),
        label: "p/m".into(),
        dialect: Dialect::OpenAi,
        counting: gatekeeper_filters::kernel::Counting::default(),
        price: None,
    })
}

fn failover<'a>(targets: &'a [Arc<Target>]) -> FailoverPlan<'a> {
    FailoverPlan::new(targets, None, Instant::now() + Duration::from_secs(600))
}

/// Fails every attempt with the failure that `failure` gives for its key; returns the keys tried, and the
/// error for the app.
fn run(
    providers: &[ProviderPool],
    targets: &[Arc<Target>],
    failure: impl Fn(&str) -> Failure,
) -> (Vec<String>, Code) {
    let mut failover = failover(targets);
    let (mut keys, mut now) = (Vec::new(), Instant::now());
    loop {
        match failover.next(providers, now) {
            NextStep::Attempt(target, lease) => {
                let failure = failure(&lease.key().id);
                keys.push(lease.key().id.to_string());
                lease.report(failure.news, now);
                failover.note(&target, &lease, failure);
            }
            NextStep::Wait(pause) => now += pause,
            NextStep::End => return (keys, failover.reject(providers, now).code),
        }
    }
}

/// One target a provider.
fn tried(providers: &[ProviderPool], failure: &Failure) -> (Vec<String>, Code) {
    let targets: Vec<_> = (0..providers.len()).map(target).collect();
    run(providers, &targets, |_| failure.clone())
}

fn wish<'a>(model: &'a Arc<str>, tried: &'a Exclusions) -> SelectRequest<'a> {
    SelectRequest { model, conversation: None, tried, target: 0 }
}

/// A lease on some ready key for model `m`.
fn lease(provider: &ProviderPool, now: Instant) -> Option<KeyLease> {
    provider.select(&wish(&"m".into(), &Exclusions::default()), now)
}

fn fails(provider: &ProviderPool, times: usize, news: AttemptFeedback) {
    for _ in 0..times {
        lease(provider, Instant::now()).expect("closed").report(news, Instant::now());
    }
}

fn limited() -> Failure {
    let pause = Some(Duration::from_secs(9));
    Failure::new(
        FailureCause::RateLimited,
        AttemptFeedback::Limited(Scope::Model, pause),
        FailoverScope::Key,
        "429",
    )
}

fn overloaded() -> Failure {
    Failure::provider("503").again()
}

#[test]
fn a_limited_key_gives_way_to_the_next_and_the_last_attempt_to_the_next_target() {
    let providers = [provider("a", &["a1", "a2", "a3"]), provider("b", &["b1"])];
    let (keys, code) = tried(&providers, &limited());
    assert_eq!(keys, ["a1", "a2", "b1"]);
    assert_eq!(code, Code::UpstreamExhausted);
}

#[test]
fn without_another_target_all_three_attempts_are_the_first_ones() {
    for failure in [limited(), overloaded(), Failure::broken("HTML"), Failure::connect("refused")] {
        let (keys, _) = tried(&[provider("a", &["a1", "a2", "a3", "a4"])], &failure);
        assert_eq!(keys, ["a1", "a2", "a3"], "{failure:?}");
    }
}

#[test]
fn a_faulty_provider_gets_one_more_key_then_the_next_target_serves() {
    let providers = [provider("a", &["a1", "a2", "a3"]), provider("b", &["b1"])];
    let (keys, code) = tried(&providers, &overloaded());
    assert_eq!(keys, ["a1", "a2", "b1"]);
    assert_eq!(code, Code::UpstreamError);
}

/// One of two accounts is broken: requests that reach it are served by the other, and soon none reaches it.
#[test]
fn a_broken_account_costs_nobody_an_answer() {
    let providers = [provider("a", &["good", "bad"])];
    let targets = [target(0)];
    let mut met = 0;
    for _ in 0..1000 {
        let mut failover = failover(&targets);
        let served = loop {
            match failover.next(&providers, Instant::now()) {
                NextStep::Attempt(target, lease) if &*lease.key().id == "bad" => {
                    met += 1;
                    lease.report(AttemptFeedback::Fault, Instant::now());
                    failover.note(&target, &lease, overloaded());
                }
                NextStep::Attempt(_, lease) => {
                    lease.report(AttemptFeedback::Good, Instant::now());
                    break true;
                }
                NextStep::Wait(_) | NextStep::End => break false,
            }
        };
        assert!(served);
    }
    assert_eq!(met, 4, "then its circuit is open");
    assert_eq!(providers[0].breaker().circuit(), Circuit::Closed);
}

/// Nor does a broken account of many keys.
#[test]
fn after_a_fault_another_account_comes_before_another_key_of_the_same() {
    let mut settings = settings("a", &["b1", "b2", "b3", "b4", "good"]);
    for key in &mut settings.keys[..4] {
        key.group = "bad".into();
    }
    let providers = [build(settings)];
    for _ in 0..4 {
        let failure = |key: &str| match key {
            "good" => Failure::new(
                FailureCause::ModelMissing,
                AttemptFeedback::Unfit,
                FailoverScope::Target,
                "served",
            ),
            _ => overloaded(),
        };
        let (keys, _) = run(&providers, &[target(0)], failure);
        assert_eq!(keys.last().map(|key| &**key), Some("good"), "{keys:?}");
        assert!(keys.len() <= 2, "{keys:?}");
    }
}

#[test]
fn targets_that_were_never_asked_are_reached() {
    let three = || {
        [provider("a", &["a1", "a2"]), provider("b", &["b1", "b2"]), provider("c", &["c1", "c2"])]
    };
    assert_eq!(tried(&three(), &overloaded()).0, ["a1", "b1", "c1"]);
    let providers = three();
    providers[1].keys().iter().for_each(|key| key.pause());
    assert_eq!(tried(&providers, &overloaded()).0, ["a1", "a2", "c1"], "b can't serve");
    let many: Vec<ProviderPool> =
        (0..8).map(|nth| provider("p", &[&format!("{nth}"), "spare"])).collect();
    assert_eq!(tried(&many, &overloaded()).0, ["0", "1", "2", "3", "4", "5"], "six at most");
    let four: Vec<ProviderPool> = many.into_iter().skip(2).take(4).collect();
    assert_eq!(tried(&four, &overloaded()).0.len(), 4, "one each");
}

#[test]
fn an_attempt_that_timed_out_is_made_at_no_other_key_of_its_target() {
    let slow = Failure::timeout("first byte");
    let providers = [provider("a", &["a1", "a2"]), provider("b", &["b1", "b2"])];
    let (keys, code) = tried(&providers, &slow);
    assert_eq!((keys, code), (vec!["a1".into(), "b1".into()], Code::UpstreamTimeout));
    let alone = [provider("a", &["a1", "a2", "a3"])];
    assert_eq!(tried(&alone, &slow), (vec!["a1".into()], Code::UpstreamTimeout));
    // One that began goes on elsewhere first, then at another account.
    let stalled = Failure::stalled("event");
    let providers = [provider("a", &["a1", "a2"]), provider("b", &["b1"])];
    assert_eq!(tried(&providers, &stalled).0, ["a1", "b1", "a2"]);
    assert_eq!(tried(&[provider("a", &["a1", "a2"])], &stalled).1, Code::UpstreamTimeout);
}

#[test]
fn a_host_that_nobody_answers_at_is_left_at_once_with_all_its_models() {
    let targets = [target_of(0, "m"), target_of(0, "n"), target_of(1, "m")];
    let providers = || [provider("a", &["a1", "a2"]), provider("b", &["b1"])];
    let silent = |key: &str| match key {
        "b1" => overloaded(),
        _ => Failure::connect_timeout("SYN"),
    };
    let (keys, _) = run(&providers(), &targets, silent);
    assert_eq!(keys[..2], ["a1", "b1"]);
    assert!(!keys[1..].contains(&"a2".into()), "{keys:?}");
    // Refused costs nothing: the next target first, then the keys that are left.
    let refused = |_: &str| Failure::connect("refused");
    assert_eq!(run(&providers(), &[target(0), target(1)], refused).0, ["a1", "b1", "a2"]);
}

#[test]
fn a_missing_model_leaves_the_target_at_once() {
    let providers = [provider("a", &["a1", "a2"]), provider("b", &["b1", "b2"])];
    let missing = Failure::new(
        FailureCause::ModelMissing,
        AttemptFeedback::Unfit,
        FailoverScope::Target,
        "404",
    );
    assert_eq!(tried(&providers, &missing).0, ["a1", "b1"]);
}

#[test]
fn where_nothing_else_is_left_the_same_key_is_asked_once_more() {
    let (keys, code) = tried(&[provider("a", &["a1"])], &overloaded());
    assert_eq!((keys, code), (vec!["a1".into(), "a1".into()], Code::UpstreamError));
    assert_eq!(tried(&[provider("a", &["a1", "a2"])], &overloaded()).0, ["a1", "a2", "a2"]);
    // Neither what would come again, nor what the provider worked on.
    for once in [Failure::broken("HTML"), Failure::timeout("first byte"), limited()] {
        assert_eq!(tried(&[provider("a", &["a1"])], &once).0, ["a1"], "{once:?}");
    }
    let short = AttemptFeedback::Limited(Scope::Account, Some(Duration::from_secs(2)));
    let short = Failure::new(FailureCause::RateLimited, short, FailoverScope::Key, "429");
    let (keys, code) = tried(&[provider("a", &["a1"])], &short);
    assert_eq!((keys, code), (vec!["a1".into(), "a1".into()], Code::UpstreamExhausted));
}

#[test]
fn the_pause_before_it_is_short_and_never_beyond_the_deadline() {
    let (providers, targets) = ([provider("a", &["a1"])], [target(0)]);
    for (left, waits) in [(5000, true), (200, false)] {
        let now = Instant::now();
        let mut failover = FailoverPlan::new(&targets, None, now + Duration::from_millis(left));
        let NextStep::Attempt(target, lease) = failover.next(&providers, now) else {
            panic!("a key")
        };
        failover.note(&target, &lease, overloaded());
        match failover.next(&providers, now) {
            NextStep::Wait(pause) => assert!(waits && (300..=500).contains(&pause.as_millis())),
            NextStep::End => assert!(!waits),
            NextStep::Attempt(..) => panic!("at once"),
        }
    }
}

#[test]
fn second_tries_have_a_budget() {
    let providers = [provider("a", &["a1"])];
    // Answers between keep the circuit closed.
    let attempts = |requests: usize| -> usize {
        let of = |_| {
            fails(&providers[0], 4, AttemptFeedback::Good);
            tried(&providers, &overloaded()).0.len()
        };
        (0..requests).map(of).sum()
    };
    assert_eq!(attempts(10), 13, "three");
    assert_eq!(attempts(90), 107, "a fifth of a hundred");
}

#[test]
fn keys_that_are_quarantined_or_off_are_an_error_and_cooling_ones_a_wait() {
    let providers = [provider("a", &["a1"])];
    let broken = AttemptFeedback::Refused(QuarantineReason::BadCredential);
    let failure = Failure::new(FailureCause::BadCredential, broken, FailoverScope::Key, "401");
    assert_eq!(tried(&providers, &failure).1, Code::UpstreamError);
    assert_eq!(tried(&providers, &failure), (vec![], Code::UpstreamError));
    let providers = [provider("a", &["a1"])];
    tried(&providers, &limited());
    assert_eq!(tried(&providers, &limited()), (vec![], Code::UpstreamExhausted));
}

/// A limit of model `m` leaves model `n` of the same account ready, unless it is the
/// account's; so a fallback at the same account is tried.
#[test]
fn a_limit_of_one_model_leaves_the_others_of_its_account() {
    let hour = Some(Duration::from_secs(3600));
    for (news, scope) in [
        (AttemptFeedback::Limited(Scope::Model, hour), Scope::Model),
        (AttemptFeedback::Limited(Scope::Account, hour), Scope::Account),
        (AttemptFeedback::Spent(QuarantineReason::DailyLimit, Scope::Model, hour), Scope::Model),
        (
            AttemptFeedback::Spent(QuarantineReason::DailyLimit, Scope::Account, hour),
            Scope::Account,
        ),
        (AttemptFeedback::Spent(QuarantineReason::NoMoney, Scope::Account, None), Scope::Account),
    ] {
        let providers = [provider("a", &["a1"])];
        let failure = Failure::new(FailureCause::RateLimited, news, FailoverScope::Key, "429");
        let targets = [target_of(0, "m"), target_of(0, "n")];
        let mut failover = failover(&targets);
        let now = Instant::now();
        let NextStep::Attempt(first, lease) = failover.next(&providers, now) else { panic!("m") };
        lease.report(news, now);
        failover.note(&first, &lease, failure);
        drop(lease);
        let fallback = matches!(failover.next(&providers, now), NextStep::Attempt(..));
        assert_eq!(fallback, scope == Scope::Model, "{news:?}");
        let key = &providers[0].keys()[0];
        assert_ne!(key.state_for("m", now), KeyState::Ready, "{news:?}");
        assert_eq!(key.state_for("n", now) == KeyState::Ready, scope == Scope::Model, "{news:?}");
        assert_eq!(key.can_serve(now), scope == Scope::Model, "one of two rests");
        assert_ne!(key.state(now), KeyState::Ready, "{news:?}");
        assert_eq!(key.resting_models(now).len(), usize::from(scope == Scope::Model));
        key.resume();
        assert_eq!(key.state_for("m", now), KeyState::Ready, "{news:?}");
    }
}

/// A day's limit of a model ends as an account's does: one request finds out.
#[test]
fn one_request_tries_a_model_whose_day_is_over() {
    let provider = provider("a", &["a1"]);
    let day = AttemptFeedback::Spent(
        QuarantineReason::DailyLimit,
        Scope::Model,
        Some(Duration::from_secs(60)),
    );
    lease(&provider, Instant::now()).unwrap().report(day, Instant::now());
    assert!(lease(&provider, Instant::now()).is_none());
    let later = Instant::now() + Duration::from_secs(61);
    let trial = lease(&provider, later).expect("its time has come");
    assert!(lease(&provider, later).is_none(), "one");
    drop(trial);
    let trial = lease(&provider, later).expect("that one told nothing");
    trial.report(AttemptFeedback::Good, later);
    assert!(lease(&provider, later).is_some() && lease(&provider, later).is_some());
}

#[test]
fn a_provider_that_fails_is_asked_last_and_by_each_request_once() {
    let providers = [provider("a", &["a1", "a2"]), provider("b", &["b1"])];
    fails(&providers[0], 4, AttemptFeedback::Fault);
    assert_eq!(providers[0].breaker().circuit(), Circuit::Open);
    let (keys, _) = tried(&providers, &Failure::broken("HTML"));
    assert_eq!((keys.len(), &*keys[0]), (2, "b1"), "the healthy one first: {keys:?}");
    let alone = [provider("a", &["a1", "a2"])];
    fails(&alone[0], 4, AttemptFeedback::Fault);
    assert_eq!(tried(&alone, &overloaded()).0.len(), 1, "one key");
    assert_eq!(tried(&alone, &overloaded()).0.len(), 1);
    assert_eq!(tried(&alone, &overloaded()).0.len(), 1);
    assert_eq!(tried(&alone, &overloaded()).0.len(), 0, "there is a budget");
}

#[test]
fn an_answer_through_an_open_circuit_closes_it() {
    let providers = [provider("a", &["a1"])];
    fails(&providers[0], 4, AttemptFeedback::Fault);
    assert!(lease(&providers[0], Instant::now()).is_none());
    let targets = [target(0)];
    let mut failover = failover(&targets);
    let NextStep::Attempt(_, through) = failover.next(&providers, Instant::now()) else {
        panic!("a1")
    };
    through.serves(Instant::now());
    assert!(lease(&providers[0], Instant::now()).is_some());
}

#[test]
fn a_provider_that_was_silent_is_left_alone_but_for_its_probe() {
    let alone = [provider("a", &["a1", "a2"])];
    fails(&alone[0], 4, AttemptFeedback::TimedOut);
    assert_eq!(tried(&alone, &overloaded()), (vec![], Code::UpstreamError));
    alone[0].breaker().half_open();
    let (one, other) = (lease(&alone[0], Instant::now()), lease(&alone[0], Instant::now()));
    assert!(one.is_some() && other.is_none(), "one request finds out");
    one.unwrap().report(AttemptFeedback::Good, Instant::now());
    assert!(lease(&alone[0], Instant::now()).is_some());
}

#[test]
fn a_short_pause_is_waited_for_once_and_a_long_one_is_told() {
    let providers = [provider("a", &["a1"])];
    let targets = [target(0)];
    let now = Instant::now();
    for (pause, waits) in [(1500, true), (2500, false)] {
        let pause = Duration::from_millis(pause);
        let limit = AttemptFeedback::Limited(Scope::Model, Some(pause));
        lease(&providers[0], now).unwrap().report(limit, now);
        let mut failover = failover(&targets);
        match failover.next(&providers, now) {
            NextStep::Wait(left) => assert!(waits && left <= pause),
            NextStep::End => assert!(!waits),
            NextStep::Attempt(..) => panic!("it cools"),
        }
        assert!(matches!(failover.next(&providers, now), NextStep::End), "once");
        assert_eq!(failover.reject(&providers, now).code, Code::UpstreamExhausted);
        providers[0].keys()[0].resume();
    }
}

/// The keys cool for a second, and the machine is slow: they are ready before the request is answered.
#[test]
fn a_rate_limit_that_ends_before_the_answer_is_a_rate_limit_still() {
    let targets = [target(0)];
    let limit = |pause| AttemptFeedback::Limited(Scope::Model, Some(Duration::from_millis(pause)));
    for asked in [true, false] {
        let providers = [provider("a", &["a1"])];
        let now = Instant::now();
        let mut failover = failover(&targets);
        if asked {
            let NextStep::Attempt(target, lease) = failover.next(&providers, now) else {
                panic!("it is ready")
            };
            lease.report(limit(5000), now);
            failover.note(&target, &lease, limited());
        } else {
            lease(&providers[0], now).unwrap().report(limit(5000), now);
        }
        assert!(matches!(failover.next(&providers, now), NextStep::End));
        let later = now + Duration::from_secs(6);
        let reject = failover.reject(&providers, later);
        assert_eq!(reject.code, Code::UpstreamExhausted, "asked: {asked}");
        assert_eq!(reject.retry_after, Some(1));
    }
}

#[test]
fn an_account_that_cannot_serve_this_request_is_left_with_all_its_keys() {
    let mut settings = settings("a", &["a1", "a2", "a3"]);
    for key in &mut settings.keys[..2] {
        key.group = "one".into();
    }
    let providers = [build(settings)];
    let unfit = Failure::new(
        FailureCause::RateLimited,
        AttemptFeedback::Unfit,
        FailoverScope::Account,
        "413",
    );
    let (keys, code) = tried(&providers, &unfit);
    assert_eq!(keys, ["a1", "a3"]);
    assert_eq!(code, Code::UpstreamError, "no key rests");
}

#[test]
fn an_account_without_money_rests_with_all_its_keys_and_one_request_tries_it_again() {
    let providers = [provider("a", &["a1", "a2"])];
    let spent = AttemptFeedback::Spent(QuarantineReason::NoMoney, Scope::Account, None);
    let failure = Failure::new(FailureCause::NoMoney, spent, FailoverScope::Key, "402");
    assert_eq!(tried(&providers, &failure), (vec!["a1".into(), "a2".into()], Code::UpstreamError));
    let later = Instant::now() + Duration::from_secs(1801);
    let first = lease(&providers[0], later).unwrap();
    let second = lease(&providers[0], later).unwrap();
    assert_ne!(first.key().id, second.key().id, "one request an account");
    assert!(lease(&providers[0], later).is_none());
    drop(first);
    let again = lease(&providers[0], later).unwrap();
    again.report(AttemptFeedback::Good, later);
    assert!(lease(&providers[0], later).is_some());
}

#[test]
fn a_target_without_words_for_a_request_is_no_attempt_and_is_told_where_it_is_the_only_one() {
    let providers = [provider("a", &["a1"]), provider("b", &["b1"])];
    let targets = [target(0), target(1)];
    let unfit = Rejection::field("logprobs", "No probabilities.");
    let now = Instant::now();
    let mut begun = failover(&targets);
    let passes = |failover: &mut FailoverPlan<'_>| {
        matches!(failover.next(&providers, now), NextStep::Attempt(..))
    };
    assert!(passes(&mut begun));
    begun.skip_key(&unfit);
    let NextStep::Attempt(target, lease) = begun.next(&providers, now) else { panic!("b serves") };
    assert_eq!(&*lease.key().id, "b1");
    let failure = Failure::connect("refused");
    lease.report(failure.news, now);
    begun.note(&target, &lease, failure);
    drop(lease);
    assert!(matches!(begun.next(&providers, now), NextStep::End));
    assert_eq!(begun.reject(&providers, now).code, Code::UpstreamError, "b could have served");
    let mut begun = failover(&targets);
    for _ in 0..2 {
        assert!(passes(&mut begun));
        begun.skip_key(&unfit);
    }
    assert!(matches!(begun.next(&providers, now), NextStep::End));
    assert_eq!(begun.reject(&providers, now).param.as_deref(), Some("logprobs"));
}
