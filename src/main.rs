//! The `gatekeeper` program with the filters that ship with it.

use std::process::ExitCode;

/// Pingora allocates and zeroes 64 KiB for each answer it reads. jemalloc gives such pages back;
/// with mimalloc an open stream costs three times the memory.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    gatekeeper::main(gatekeeper_filters::builtin())
}
