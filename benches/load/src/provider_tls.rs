//! The same provider over TLS: HTTP/1 as the plain one speaks it, or HTTP/2, for whole answers.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::server::TlsStream;

use crate::contender::{Tls, Upstream};
use crate::provider;
use crate::traffic::{self, ANSWER, Ask, Asked, Kind, Replies};

/// A provider on a thread of its own; the certificate that vouches for it is put into `dir`.
pub fn spawn(tls: Tls, dir: &Path) -> Result<Upstream> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let roots = dir.join(format!("{tls:?}.pem"));
    let acceptor = acceptor(tls, &roots)?;
    provider::spawn_thread(serve(tls, listener, acceptor))?;
    Ok(Upstream { address, tls: Some((tls, roots)) })
}

fn acceptor(tls: Tls, roots: &Path) -> Result<TlsAcceptor> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name.push(DnType::CommonName, "the bench's authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    std::fs::write(roots, issuer.pem())?;
    let key = KeyPair::generate()?;
    let cert = CertificateParams::new(vec!["localhost".to_owned()])?.signed_by(&key, &issuer)?;
    let chain = vec![CertificateDer::from_pem_slice(cert.pem().as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = match tls {
        Tls::H1 => vec![b"http/1.1".to_vec()],
        Tls::H2 => vec![b"h2".to_vec()],
    };
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(tls: Tls, listener: TcpListener, acceptor: TlsAcceptor) -> Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let replies = Arc::new(Replies::default());
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let (acceptor, replies) = (acceptor.clone(), replies.clone());
        // A proxy that goes away in the middle is no news here.
        tokio::spawn(async move {
            let socket = acceptor.accept(socket).await?;
            match tls {
                Tls::H1 => provider::connection(socket, &replies).await?,
                Tls::H2 => h2_connection(socket).await?,
            }
            anyhow::Ok(())
        });
    }
}

async fn h2_connection(socket: TlsStream<TcpStream>) -> Result<()> {
    let mut connection = h2::server::Builder::new()
        .max_concurrent_streams(1000)
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 24)
        .handshake::<_, Bytes>(socket)
        .await?;
    while let Some(request) = connection.accept().await {
        let (request, respond) = request?;
        tokio::spawn(h2_answer(request.into_body(), respond));
    }
    Ok(())
}

async fn h2_answer(mut body: RecvStream, mut respond: SendResponse<Bytes>) -> Result<()> {
    let mut asked = Vec::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        asked.extend_from_slice(&part);
    }
    let Asked::Chat { ask: Ask { headers, kind: Kind::Json }, .. } = Asked::of(&asked) else {
        anyhow::bail!("only whole answers are served over HTTP/2");
    };
    let mut head = http::Response::builder().header("content-type", "application/json");
    for (name, value) in traffic::provider_headers(headers) {
        head = head.header(name, value);
    }
    let head = head.header("content-length", ANSWER.len()).body(()).context("the answer's head")?;
    let mut stream = respond.send_response(head, false)?;
    stream.send_data(Bytes::from_static(ANSWER.as_bytes()), true)?;
    Ok(())
}
