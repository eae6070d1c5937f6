//! Master keys: which one a request gets, how long one that was told to wait rests, and what the app is told while none serves.

use std::time::{Duration, Instant};

use crate::support::{Config, Gateway, LICENSE, Mock, Reply, eventually};

/// A key that was told to wait is left alone until then, and used again afterwards.
async fn a_key_cools(headers: &[(&str, &str)], about: Duration) {
    let mock = Mock::start(Reply::chat()).await;
    let mut limited = Reply::error(429);
    for (name, value) in headers {
        limited = limited.header(name, value);
    }
    mock.key("sk-one", [limited, Reply::chat()]);
    let gateway = Gateway::start(Config::new(&mock)).await;
    let used = || mock.keys().iter().filter(|key| *key == "sk-one").count();
    while used() == 0 {
        gateway.app().chat().await.ok();
    }
    let cooled = Instant::now();
    while cooled.elapsed() < about.mul_f32(0.7) {
        gateway.app().chat().await.ok();
        assert_eq!(used(), 1, "{headers:?}: used after {:?}", cooled.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let most = about + Duration::from_secs(1);
    eventually("the key is used again", most, || async {
        gateway.app().chat().await.ok();
        used() > 1
    })
    .await;
    assert!(cooled.elapsed() >= about.mul_f32(0.9), "{headers:?}: {:?}", cooled.elapsed());
}

#[tokio::test]
async fn a_key_cools_for_retry_after() {
    a_key_cools(&[("retry-after", "1")], Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_key_cools_for_retry_after_ms() {
    let headers = [("retry-after", "7"), ("retry-after-ms", "700")];
    a_key_cools(&headers, Duration::from_millis(700)).await;
}

#[tokio::test]
async fn a_key_cools_for_the_reset_of_its_requests() {
    let headers = [("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "1.2s")];
    a_key_cools(&headers, Duration::from_millis(1200)).await;
}

#[tokio::test]
async fn a_key_cools_for_the_reset_of_its_tokens() {
    let headers = [("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "900ms")];
    a_key_cools(&headers, Duration::from_millis(900)).await;
}

#[tokio::test]
async fn keys_of_one_group_cool_together() {
    let mock = Mock::start(Reply::chat()).await;
    let limited = Reply::error(429).header("retry-after", "30");
    mock.key("sk-1", [limited.clone()]).key("sk-2", [limited]);
    let config = Config::new(&mock)
        .keys("p", &["sk-1", "sk-2", "sk-3"])
        .member("p", 0, "group: org-a")
        .member("p", 1, "group: org-a");
    let gateway = Gateway::start(config).await;
    for _ in 0..6 {
        gateway.app().chat().await.ok();
    }
    let of_the_group = mock.keys().iter().filter(|key| *key != "sk-3").count();
    assert_eq!(of_the_group, 1, "{:?}", mock.keys());
}

#[tokio::test]
async fn while_all_keys_cool_the_app_is_told_to_wait() {
    for (wait, least, most) in [("30", 25, 30), ("600", 60, 60)] {
        let mock = Mock::start(Reply::error(429).header("retry-after", wait)).await;
        let gateway = Gateway::start(Config::new(&mock)).await;
        let first = gateway.app().chat().await;
        first.is(503, "upstream_exhausted");
        assert_eq!(mock.count(), 2);
        let second = gateway.app().chat().await;
        second.is(503, "upstream_exhausted");
        assert_eq!(mock.count(), 2, "a cooling key is left alone");
        for answer in [&first, &second] {
            let told = answer.number("retry-after");
            assert!((least..=most).contains(&told), "retry-after {told} for {wait}");
            assert!(!answer.text().contains("SECRET"));
        }
        assert_eq!(gateway.messages(LICENSE).await, 0);
        let metrics = gateway.metrics().await;
        let cooling = [("provider", "p"), ("state", "cooling")];
        assert_eq!(metrics.sum("gatekeeper_key_state", &cooling), 2.0);
    }
}

#[tokio::test]
async fn bad_credentials_on_all_keys_are_502_and_no_secret_leaves() {
    let fixture = "{\"error\":{\"message\":\"Incorrect API key provided: sk-SECRET***abcd. You can find your API key at \
                   https://platform.openai.com/account/api-keys.\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"invalid_api_key\"}}";
    for status in [401, 402, 403] {
        let mock = Mock::start(Reply::json(status, fixture)).await;
        let gateway = Gateway::start(Config::new(&mock)).await;
        for _ in 0..2 {
            let answer = gateway.app().chat().await;
            answer.is(502, "upstream_error");
            for leak in ["SECRET", "API key", "platform.openai.com", "invalid_api_key"] {
                assert!(!answer.text().contains(leak), "{status}: {}", answer.text());
            }
        }
        assert_eq!(mock.count(), 2, "{status}: a quarantined key is left alone");
        assert_eq!(gateway.messages(LICENSE).await, 0);
        let metrics = gateway.metrics().await;
        let quarantined = [("provider", "p"), ("state", "quarantined")];
        assert_eq!(metrics.sum("gatekeeper_key_state", &quarantined), 2.0, "{status}");
    }
}

#[tokio::test]
async fn a_used_up_account_is_quarantined_not_cooled() {
    let body = "{\"error\":{\"message\":\"You exceeded your current quota (org-SECRETorg)\",\
                \"type\":\"insufficient_quota\",\"param\":null,\"code\":\"insufficient_quota\"}}";
    let mock = Mock::start(Reply::json(429, body)).await;
    let gateway = Gateway::start(Config::new(&mock)).await;
    let answer = gateway.app().chat().await;
    answer.is(502, "upstream_error");
    assert!(!answer.text().contains("SECRET"));
    gateway.app().chat().await.is(502, "upstream_error");
    assert_eq!(mock.count(), 2);
}

#[tokio::test]
async fn all_keys_of_an_account_take_turns() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock).keys("p", &["sk-1", "sk-2", "sk-3"])).await;
    for _ in 0..9 {
        gateway.app().chat().await.ok();
    }
    let keys = mock.keys();
    for key in ["sk-1", "sk-2", "sk-3"] {
        assert_eq!(keys.iter().filter(|used| *used == key).count(), 3, "{keys:?}");
    }
}

#[tokio::test]
async fn a_key_that_is_off_is_not_used() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock).member("p", 0, "state: off")).await;
    for _ in 0..4 {
        gateway.app().chat().await.ok();
    }
    assert!(mock.keys().iter().all(|key| key == "sk-two"), "{:?}", mock.keys());
}

#[tokio::test]
async fn a_secret_from_the_environment_works() {
    let mock = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock)
        .keys("p", &["not this"])
        .secret("p", 0, "env:GATEKEEPER_TEST_KEY")
        .env("GATEKEEPER_TEST_KEY", "sk-from-env");
    let gateway = Gateway::start(config).await;
    gateway.app().chat().await.ok();
    assert_eq!(mock.keys(), ["sk-from-env"]);
}

#[tokio::test]
async fn heavier_keys_get_more_turns() {
    let mock = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock).weights("p", &[3, 1]);
    let gateway = Gateway::start(config).await;
    for _ in 0..12 {
        gateway.app().chat().await.ok();
    }
    let heavy = mock.keys().iter().filter(|key| *key == "sk-one").count();
    assert_eq!(heavy, 9, "{:?}", mock.keys());
}
