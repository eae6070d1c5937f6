//! Notifies systemd of readiness, reload and stop where the service has `Type=notify`.

use std::io;

use sd_notify::NotifyState;

/// Ready, as the process that systemd has to watch from now on.
pub fn ready() {
    let main = NotifyState::MainPid(std::process::id());
    log_failure(sd_notify::notify(&[main, NotifyState::Ready, NotifyState::Status("serving")]));
}

/// The configuration is read again; [`ready`] follows.
pub fn reloading() {
    let moment = NotifyState::monotonic_usec_now();
    log_failure(moment.and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now])));
}

/// The process ends, and the service with it.
pub fn stopping() {
    log_failure(sd_notify::notify(&[NotifyState::Stopping, NotifyState::Status("draining")]));
}

fn log_failure(sent: io::Result<()>) {
    if let Err(problem) = sent {
        log::warn!("systemd was not notified: writing to $NOTIFY_SOCKET failed: {problem}.");
    }
}
