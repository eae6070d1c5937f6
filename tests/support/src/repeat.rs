//! How often a test repeats what only gains from repeating: a little in `make test`, whole in `make soak`.

use std::{str::FromStr, time::Duration};

/// What the environment variable `name` says, as `make soak` sets it; `few` where it is not set.
///
/// # Panics
/// The variable holds no number: a mistyped soak must not pass as a short one.
pub fn times<T: FromStr + std::fmt::Display>(name: &str, few: T) -> T {
    let times = match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        Err(_) => few,
    };
    eprintln!("{name}={times}");
    times
}

/// The same in seconds.
pub fn time(name: &str, few: f64) -> Duration {
    Duration::from_secs_f64(times(name, few))
}
