//! Log lines for commands that a store which is up answers with an error: without them only the allowances for
//! outages would show that nothing is counted there.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::RedisError;

/// Between two lines; what fails meanwhile is counted.
const EVERY: Duration = Duration::from_secs(10);
/// Characters of an error that are logged.
const LONGEST: usize = 300;

#[derive(Default)]
pub struct ErrorReplies(Mutex<Window>);

#[derive(Default)]
struct Window {
    logged: Option<Instant>,
    /// Without a line since then.
    more: u64,
}

impl ErrorReplies {
    /// `what` is the script or the command.
    pub fn note(&self, what: &str, error: &RedisError) {
        if let Some(more) = self.take(Instant::now()) {
            let error: String = error.to_string().chars().take(LONGEST).collect();
            let error = error.trim_end_matches('.');
            let more = match more {
                0 => String::new(),
                more => format!(" {more} more failed since the last such line."),
            };
            log::error!(
                "The shared store is up and answers `{what}` with an error: {error}. Where it is needed, \
                 `store.on_store_down` decides meanwhile.{more}"
            );
        }
    }

    /// How many had no line, if this one has one.
    fn take(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock();
        if window.logged.is_some_and(|at| now.duration_since(at) < EVERY) {
            window.more += 1;
            return None;
        }
        window.logged = Some(now);
        Some(std::mem::take(&mut window.more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_every_ten_seconds_and_the_next_has_the_count() {
        let (replies, start) = (ErrorReplies::default(), Instant::now());
        assert_eq!(replies.take(start), Some(0));
        for milliseconds in 0..500 {
            assert_eq!(replies.take(start + Duration::from_millis(10 * milliseconds)), None);
        }
        assert_eq!(replies.take(start + EVERY), Some(500));
        assert_eq!(replies.take(start + 3 * EVERY), Some(0));
    }
}
