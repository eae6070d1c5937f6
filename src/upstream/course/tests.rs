//! The course of a request: which key and which target come next.

use std::time::Duration;

use gatekeeper_filters::kernel::Dialect;

use super::*;
use crate::{
    config::settings::{self, BaseUrl, Timeouts},
    pool::{HealthBook, Provider, health::Why, key::KeyNews, resolve::Endpoint},
};

fn provider(name: &str, keys: &[&str]) -> Provider {
    let base = BaseUrl {
        tls: false,
        host: "127.0.0.1".into(),
        port: 1,
        path: String::new(),
        allow_private: true,
        stand_in: false,
    };
    let second = Duration::from_secs(1);
    let settings = settings::Provider {
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
        image_tokens: 0,
        budget: None,
        keys: keys
            .iter()
            .map(|id| settings::Key {
                id: (*id).into(),
                secret: "secret".into(),
                group: (*id).into(),
                weight: 1,
                off: false,
            })
            .collect(),
        base,
    };
    let endpoint = Arc::new(Endpoint::new(&settings.base, settings.timeouts));
    Provider::new(settings, endpoint, &HealthBook::new(crate::licenses::Hasher::new(&[7; 32])))
        .unwrap()
}

fn target(provider: usize) -> Arc<Target> {
    Arc::new(Target {
        provider,
        provider_name: "p".into(),
        model: "m".into(),
        label: "p/m".into(),
        dialect: Dialect::OpenAi,
        image_tokens: 0,
        price: None,
    })
}

/// Fails every attempt with `failure`; the keys that were tried.
fn tried(providers: &[Provider], failure: &Failure) -> (Vec<String>, Code) {
    let targets: Vec<_> = (0..providers.len()).map(target).collect();
    let mut course = Course::new(&targets, None);
    let mut keys = Vec::new();
    let now = Instant::now();
    while let Step::Attempt(target, lease) = course.next(providers, now) {
        keys.push(lease.key().id.to_string());
        lease.report(failure.news, now);
        course.note(&target, &lease, failure.clone(), "");
    }
    (keys, course.reject(providers, now).code)
}

fn limited() -> Failure {
    let pause = Some(Duration::from_secs(9));
    Failure::new(Cause::RateLimited, KeyNews::Limited(pause), Next::Key, "429")
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
    let (keys, _) = tried(&[provider("a", &["a1", "a2", "a3", "a4"])], &limited());
    assert_eq!(keys, ["a1", "a2", "a3"]);
}

#[test]
fn a_faulty_provider_gets_one_more_key_then_the_next_target_serves() {
    let providers = [provider("a", &["a1", "a2", "a3"]), provider("b", &["b1"])];
    let (keys, code) = tried(&providers, &Failure::connect("refused"));
    assert_eq!(keys, ["a1", "a2", "b1"]);
    assert_eq!(code, Code::UpstreamError);
    let (keys, _) = tried(&[provider("a", &["a1", "a2", "a3"])], &Failure::connect("refused"));
    assert_eq!(keys, ["a1", "a2"], "a third key of a provider that is down helps nobody");
}

#[test]
fn a_slow_target_is_left_at_once_but_only_for_one_that_can_serve() {
    let slow = Failure::timeout("first byte");
    let providers = [provider("a", &["a1", "a2"]), provider("b", &["b1", "b2"])];
    assert_eq!(tried(&providers, &slow).0, ["a1", "b1", "b2"]);
    let providers = [provider("a", &["a1", "a2", "a3"]), provider("b", &["b1"])];
    let lease = providers[1].select(&anything(&Tried::default()), Instant::now()).unwrap();
    lease.report(KeyNews::Limited(Some(Duration::from_secs(60))), Instant::now());
    let (keys, code) = tried(&providers, &slow);
    assert_eq!(keys, ["a1", "a2"]);
    assert_eq!(code, Code::UpstreamTimeout);
}

#[test]
fn a_missing_model_leaves_the_target_at_once() {
    let providers = [provider("a", &["a1", "a2"]), provider("b", &["b1", "b2"])];
    let missing = Failure::new(Cause::ModelMissing, KeyNews::Unfit, Next::Target, "404");
    assert_eq!(tried(&providers, &missing).0, ["a1", "b1"]);
}

#[test]
fn keys_that_are_quarantined_or_off_are_an_error_and_cooling_ones_a_wait() {
    let providers = [provider("a", &["a1"])];
    let broken = KeyNews::Refused(Why::BadCredential);
    let failure = Failure::new(Cause::BadCredential, broken, Next::Key, "401");
    assert_eq!(tried(&providers, &failure).1, Code::UpstreamError);
    assert_eq!(tried(&providers, &failure), (vec![], Code::UpstreamError));
    let providers = [provider("a", &["a1"])];
    tried(&providers, &limited());
    assert_eq!(tried(&providers, &limited()), (vec![], Code::UpstreamExhausted));
}

fn fails(providers: &[Provider], times: usize) {
    for _ in 0..times {
        let lease = providers[0].select(&anything(&Tried::default()), Instant::now()).unwrap();
        lease.report(KeyNews::Fault, Instant::now());
    }
}

fn anything(tried: &Tried) -> Wish<'_> {
    Wish { conversation: None, tried, whatever: true }
}

#[test]
fn a_sick_provider_is_asked_last_and_asked_all_the_same_when_nobody_else_is_left() {
    let providers = [provider("a", &["a1"]), provider("b", &["b1"])];
    fails(&providers, 4);
    let fault = Failure::connect("refused");
    assert_eq!(tried(&providers, &fault).0, ["b1", "a1"], "the healthy one first");
    let alone = [provider("a", &["a1"])];
    fails(&alone, 4);
    assert_eq!(tried(&alone, &fault).0, ["a1"]);
}

#[test]
fn a_short_pause_is_waited_for_once_and_a_long_one_is_told() {
    let providers = [provider("a", &["a1"])];
    let targets = [target(0)];
    let now = Instant::now();
    for (pause, waits) in [(1500, true), (2500, false)] {
        let pause = Duration::from_millis(pause);
        let lease = providers[0].select(&anything(&Tried::default()), now).unwrap();
        lease.report(KeyNews::Limited(Some(pause)), now);
        let mut course = Course::new(&targets, None);
        match course.next(&providers, now) {
            Step::Wait(left) => assert!(waits && left <= pause),
            Step::End => assert!(!waits),
            Step::Attempt(..) => panic!("it cools"),
        }
        assert!(matches!(course.next(&providers, now), Step::End), "once");
        assert_eq!(course.reject(&providers, now).code, Code::UpstreamExhausted);
        providers[0].keys()[0].resume();
    }
}

#[test]
fn an_account_that_cannot_serve_this_request_is_left_with_all_its_keys() {
    let mut settings = provider("a", &["a1", "a2", "a3"]).settings;
    for key in &mut settings.keys[..2] {
        key.group = "one".into();
    }
    let endpoint = Arc::new(Endpoint::new(&settings.base, settings.timeouts));
    let book = HealthBook::new(crate::licenses::Hasher::new(&[7; 32]));
    let providers = [Provider::new(settings, endpoint, &book).unwrap()];
    let unfit = Failure::new(Cause::RateLimited, KeyNews::Unfit, Next::Account, "413");
    let (keys, code) = tried(&providers, &unfit);
    assert_eq!(keys, ["a1", "a3"]);
    assert_eq!(code, Code::UpstreamError, "no key rests");
}

#[test]
fn an_account_without_money_rests_with_all_its_keys_and_one_request_tries_it_again() {
    let providers = [provider("a", &["a1", "a2"])];
    let spent = KeyNews::Spent(Why::NoMoney, None);
    let failure = Failure::new(Cause::NoMoney, spent, Next::Key, "402");
    assert_eq!(tried(&providers, &failure), (vec!["a1".into(), "a2".into()], Code::UpstreamError));
    let later = Instant::now() + Duration::from_secs(1801);
    let nothing = Tried::default();
    let wish = Wish { conversation: None, tried: &nothing, whatever: false };
    let first = providers[0].select(&wish, later).unwrap();
    let second = providers[0].select(&wish, later).unwrap();
    assert_ne!(first.key().id, second.key().id, "one request an account");
    assert!(providers[0].select(&wish, later).is_err());
    drop(first);
    let again = providers[0].select(&wish, later).unwrap();
    again.report(KeyNews::Good, later);
    assert!(providers[0].select(&wish, later).is_ok());
}

#[test]
fn a_target_without_words_for_a_request_is_no_attempt_and_is_told_where_it_is_the_only_one() {
    let providers = [provider("a", &["a1"]), provider("b", &["b1"])];
    let targets = [target(0), target(1)];
    let unfit = Reject::field("logprobs", "No probabilities.");
    let now = Instant::now();
    let mut course = Course::new(&targets, None);
    let passes =
        |course: &mut Course<'_>| matches!(course.next(&providers, now), Step::Attempt(..));
    assert!(passes(&mut course));
    course.pass_over(&unfit);
    let Step::Attempt(target, lease) = course.next(&providers, now) else { panic!("b serves") };
    assert_eq!(&*lease.key().id, "b1");
    let failure = Failure::connect("refused");
    lease.report(failure.news, now);
    course.note(&target, &lease, failure, "");
    drop(lease);
    assert!(matches!(course.next(&providers, now), Step::End));
    assert_eq!(course.reject(&providers, now).code, Code::UpstreamError, "b could have served");
    let mut course = Course::new(&targets, None);
    for _ in 0..2 {
        assert!(passes(&mut course));
        course.pass_over(&unfit);
    }
    assert!(matches!(course.next(&providers, now), Step::End));
    assert_eq!(course.reject(&providers, now).param.as_deref(), Some("logprobs"));
}
