//! What Pingora costs when it does nothing but forward: `upstream_peer` and nothing else.

use std::net::SocketAddr;

use async_trait::async_trait;
use clap::Parser;
use pingora::prelude::*;
use pingora::protocols::ALPN;
use pingora::server::configuration::ServerConf;

#[derive(Parser)]
struct Args {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    provider: SocketAddr,
    /// Speak TLS to the provider: `h1` or `h2`.
    #[arg(long)]
    tls: Option<String>,
}

struct Bare(HttpPeer);

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(self.0.clone()))
    }
}

pub fn run() {
    let args = Args::parse();
    // One thread with a runtime of its own, as Gatekeeper runs with `threads: 1`.
    let conf = ServerConf { threads: 1, work_stealing: false, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let name = if args.tls.is_some() { "localhost" } else { "" };
    let mut peer = HttpPeer::new(args.provider, args.tls.is_some(), name.to_owned());
    // The certificate is checked once a connection, and connections stay open.
    peer.options.verify_cert = false;
    peer.options.verify_hostname = false;
    peer.options.alpn = if args.tls.as_deref() == Some("h2") { ALPN::H2 } else { ALPN::H1 };
    let mut service = http_proxy_service(&server.configuration, Bare(peer));
    service.add_tcp(&args.listen.to_string());
    server.add_service(service);
    server.run_forever();
}
