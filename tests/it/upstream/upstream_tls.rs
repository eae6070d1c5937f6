//! TLS to the provider: chain and name are checked, and there is no way around it.

use crate::support::{Config, Gateway, LICENSE, Mock, Reply, ca, sse};

async fn gateway(mock: &Mock, base_url: &str, trusted: bool) -> Gateway {
    let dir = std::sync::Arc::new(tempfile::TempDir::new().unwrap());
    let roots = dir.path().join("roots.pem");
    std::fs::write(&roots, ca::root()).unwrap();
    let mut config = Config::new(mock).provider_at("p", base_url, "", &["sk-one"]);
    if trusted {
        config = config.env("SSL_CERT_FILE", roots.to_str().unwrap());
    }
    Gateway::start_in(dir, config).await
}

#[tokio::test]
async fn a_good_certificate_is_taken() {
    let mock = Mock::tls(&["localhost"], Reply::chat()).await;
    let gateway = gateway(&mock, &mock.url(), true).await;
    for _ in 0..2 {
        assert_eq!(gateway.app().chat().await.ok().body, sse::CHAT);
    }
    assert_eq!(mock.count(), 2);
    assert_eq!(
        mock.last().header("host"),
        Some(format!("localhost:{}", mock.addr.port()).as_str())
    );
}

#[tokio::test]
async fn a_wrong_name_an_unknown_issuer_and_plain_text_are_502() {
    let other = Mock::tls(&["other.example"], Reply::chat()).await;
    let good = Mock::tls(&["localhost"], Reply::chat()).await;
    let plain = Mock::start(Reply::chat()).await;
    let https = |mock: &Mock| format!("https://localhost:{}/v1", mock.addr.port());
    for (what, mock, trusted) in [
        ("a wrong name", &other, true),
        ("an unknown issuer", &good, false),
        ("plain text", &plain, true),
    ] {
        let gateway = gateway(mock, &https(mock), trusted).await;
        gateway.app().chat().await.is(502, "upstream_error");
        assert_eq!(mock.count(), 0, "{what}: a request was sent");
        assert_eq!(gateway.messages(LICENSE).await, 0, "{what}");
    }
}
