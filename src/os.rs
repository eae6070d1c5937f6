//! Limits and services of the operating system: file descriptors, memory, systemd.

pub mod fd_limit;
pub mod memory_limit;
pub mod sockets;
pub mod systemd;
