//! The page is part of the program: a file that is new in `dashboard/` takes a build, too.
#![allow(clippy::print_stdout, reason = "this is how Cargo is told")]

fn main() {
    println!("cargo::rerun-if-changed=dashboard");
}
