//! How connections to providers are made and kept.

use std::{net::SocketAddr, time::Duration};

use pingora_core::{protocols::TcpKeepalive, upstreams::peer::HttpPeer};

use crate::config::settings::Timeouts;

/// Idle connections are kept a little shorter than most servers keep them.
const IDLE: Duration = Duration::from_secs(55);
/// A connection whose network is gone is noticed by these, not by the kernel's quarter of an hour.
const PING: Duration = Duration::from_secs(15);
const KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(30),
    interval: Duration::from_secs(10),
    count: 3,
    user_timeout: Duration::ZERO,
};
/// Bytes a provider may send ahead of what an app has read.
const H2_STREAM_WINDOW: u32 = 512 * 1024;

/// How one address of a provider is connected to.
pub fn peer(address: SocketAddr, tls: bool, host: &str, timeouts: &Timeouts) -> HttpPeer {
    // Without a name rustls would check no certificate at all.
    let name = if tls { host.to_owned() } else { String::new() };
    let mut peer = HttpPeer::new(address, tls, name);
    let options = &mut peer.options;
    options.connection_timeout = Some(timeouts.connect);
    options.total_connection_timeout = Some(timeouts.connect * 2);
    options.idle_timeout = Some(IDLE);
    options.tcp_keepalive = Some(KEEPALIVE);
    if tls {
        options.set_http_version(2, 1);
        options.max_h2_streams = 100;
        options.h2_ping_interval = Some(PING);
        // One slow reader must not stall the other streams of its connection.
        options.h2_stream_window_size = Some(H2_STREAM_WINDOW);
    }
    peer
}
