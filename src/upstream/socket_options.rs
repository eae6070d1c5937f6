//! Socket options: how a gathering stream is woken, and what is saved up for a slow reader.

use std::{ffi::c_int, os::fd::BorrowedFd};

use pingora_core::protocols::{Stream, http::ServerSession};
use rustix::net::sockopt::set_socket_send_buffer_size;

use super::provider_session::ProviderSession;

/// Bytes that wake a stream which is gathering. More than that in a millisecond is worth a look.
const WORTH_A_WAKE: c_int = 32 * 1024;

/// Lets packets come without a wake-up for each, or wakes at the first byte again.
///
/// Setting the mark back to one byte also reports data that arrived before (Linux's `tcp_set_rcvlowat`);
/// the end of the connection is reported at any time.
pub fn gather(session: &ProviderSession, on: bool) {
    if let Some(stream) = session.stream() {
        set_receive_mark(descriptor(stream), if on { WORTH_A_WAKE } else { 1 });
    }
}

/// Saves up so many bytes at most for a reader that is slow. Linux would let them become megabytes.
pub fn set_cork(session: &ServerSession, bytes: usize) {
    if let Some(stream) = session.as_http1().and_then(|_| session.stream()) {
        // It doubles the number for what it keeps beside them.
        let _ = set_socket_send_buffer_size(descriptor(stream), bytes / 2);
    }
}

#[allow(unsafe_code)]
fn descriptor(stream: &Stream) -> BorrowedFd<'_> {
    // SAFETY: the id of a stream is its file descriptor, which stays open while `stream` is
    // borrowed, and the result can't outlive that.
    unsafe { BorrowedFd::borrow_raw(stream.id()) }
}

/// `SO_RCVLOWAT` (socket(7)), which no safe wrapper has.
#[allow(unsafe_code)]
fn set_receive_mark(socket: BorrowedFd<'_>, bytes: c_int) {
    use std::os::fd::AsRawFd;
    let length = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the option's value is one c_int that lives here.
    unsafe {
        let value = std::ptr::from_ref(&bytes).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVLOWAT, value, length);
    }
}
