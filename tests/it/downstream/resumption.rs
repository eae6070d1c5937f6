//! A TLS session that goes on costs no signature and no certificate, on both sides of the gateway.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{HandshakeKind, pki_types::ServerName},
};

use crate::support::{Config, Gateway, Mock, Reply, Wire, ca};

/// More than a cache of sessions holds by default.
const OTHERS: usize = 300;

/// Asks once over a new connection; how its handshake went.
async fn ask(gateway: &Gateway, connector: &TlsConnector) -> HandshakeKind {
    let tcp = TcpStream::connect(gateway.public).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector.connect(name, tcp).await.unwrap();
    let request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    stream.get_ref().1.handshake_kind().unwrap()
}

/// However many others came meanwhile: what a session needs is kept by the app.
#[tokio::test]
async fn an_apps_session_goes_on_after_many_others() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock).over(Wire::Tls)).await;
    let app = ca::connector(&[b"http/1.1"]);
    assert_eq!(ask(&gateway, &app).await, HandshakeKind::Full);
    for _ in 0..OTHERS {
        ask(&gateway, &ca::connector(&[b"http/1.1"])).await;
    }
    assert_eq!(ask(&gateway, &app).await, HandshakeKind::Resumed);
}

#[tokio::test]
async fn a_session_with_a_provider_goes_on_over_the_next_connection() {
    let mock = Mock::tls(&["localhost"], Reply::chat().until_close()).await;
    let dir = std::sync::Arc::new(tempfile::TempDir::new().unwrap());
    let roots = dir.path().join("roots.pem");
    std::fs::write(&roots, ca::root()).unwrap();
    let config = Config::new(&mock)
        .provider_at("p", &mock.url(), "", &["sk-one"])
        .env("SSL_CERT_FILE", roots.to_str().unwrap());
    let gateway = Gateway::start_in(dir, config).await;
    for _ in 0..3 {
        gateway.app().chat().await.ok();
    }
    assert_eq!((mock.count(), mock.resumed()), (3, 2));
}
