//! The kit that both listeners share: how connections are taken, watched and ended, and how the head of an
//! HTTP/1.1 request is read before the parser below sees it.
//!
//! ```text
//! accept ─► seat (room? address?) ─► first byte ─► TLS ─► head, whole and checked ─► Pingora's session
//!             connections                                  head, framing              stream watches it
//! ```
//!
//! **Invariant:** whatever a client does or does not do before its head is whole is bounded here: in time by
//! `header_timeout`, in bytes by [`head::LONGEST`], in number by [`connections`].

pub mod accept;
pub mod address_block;
pub mod body;
pub mod client_ip;
pub mod connection;
pub mod connections;
pub mod framing;
pub mod head;
mod ignored_headers;
pub mod memory_budget;
pub mod refusal;
pub mod request_id;
pub mod respond;
pub mod serve;
pub mod stream;
