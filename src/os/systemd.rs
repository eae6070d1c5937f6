//! Notifies systemd of readiness, reload and stop where the service has `Type=notify`.

use std::{
    env,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// Ready, as the process that systemd has to watch from now on.
pub fn ready() {
    say(&format!("MAINPID={}\nREADY=1\nSTATUS=serving", std::process::id()));
}

/// The configuration is read again; [`ready`] follows.
pub fn reloading() {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
    say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
}

/// The process ends, and the service with it.
pub fn stopping() {
    say("STOPPING=1\nSTATUS=draining");
}

fn say(words: &str) {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return };
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(&path),
    };
    let sent = address.and_then(|address| {
        UnixDatagram::unbound()?.send_to_addr(words.as_bytes(), &address).map(drop)
    });
    if let Err(problem) = sent {
        log::warn!("systemd can't be told: {problem}");
    }
}
