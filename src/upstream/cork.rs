//! One packet for a request's head and body.
//!
//! Pingora writes the head of an upstream request by itself, so head and body would go out as two
//! packets and wake the provider twice. A corked socket holds the head back until the body is
//! there: two cheap system calls for one expensive send. Linux lets go by itself after 200 ms
//! (tcp(7)), so a cork that is forgotten delays, and never loses, anything.

use std::os::fd::BorrowedFd;

use pingora_core::protocols::http::client::HttpSession;
use rustix::net::sockopt::set_tcp_cork;

/// Holds back or lets go what is written to an HTTP/1 session. HTTP/2 shares its socket with other
/// requests and gathers frames itself.
pub fn hold(session: &HttpSession, on: bool) {
    let Some(stream) = session.as_http1().and_then(|_| session.stream()) else { return };
    // A socket that can't be corked works all the same.
    let _ = set_tcp_cork(fd(stream), on);
}

#[allow(unsafe_code)]
fn fd(stream: &pingora_core::protocols::Stream) -> BorrowedFd<'_> {
    // SAFETY: the id of a stream is its file descriptor, which stays open while `stream` is
    // borrowed, and the result can't outlive that.
    unsafe { BorrowedFd::borrow_raw(stream.id()) }
}
