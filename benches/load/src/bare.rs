//! What Pingora costs when it does nothing but forward: `upstream_peer` and nothing else.

use std::net::SocketAddr;

use async_trait::async_trait;
use clap::Parser;
use pingora::prelude::*;
use pingora::server::configuration::ServerConf;

#[derive(Parser)]
struct Args {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    provider: SocketAddr,
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
    let peer = HttpPeer::new(args.provider, false, String::new());
    let mut service = http_proxy_service(&server.configuration, Bare(peer));
    service.add_tcp(&args.listen.to_string());
    server.add_service(service);
    server.run_forever();
}
