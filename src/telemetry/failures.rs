//! Log lines for failures: a line each, and in an outage a line every ten seconds with counts.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Lines logged in one window before only counts are.
const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);
/// Kinds that a summary names.
const NAMED: usize = 6;

pub struct Failures {
    /// What fails, in the plural.
    noun: &'static str,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    began: Option<Instant>,
    logged: u32,
    /// Those without a line, by kind.
    counts: BTreeMap<String, u64>,
    /// The window before had more than its lines.
    is_outage: bool,
    /// When the last window ended.
    ended: Option<Instant>,
}

impl Inner {
    /// Ends a window that is over; its summary, if there is one.
    fn turn(&mut self, noun: &str, now: Instant) -> Option<String> {
        let began = self.began?;
        if now.duration_since(began) < WINDOW {
            return None;
        }
        let counts = std::mem::take(&mut self.counts);
        self.is_outage = !counts.is_empty();
        (self.began, self.logged, self.ended) = (None, 0, Some(now));
        summary(noun, counts)
    }
}

fn summary(noun: &str, counts: BTreeMap<String, u64>) -> Option<String> {
    let all: u64 = counts.values().sum();
    let mut kinds: Vec<(String, u64)> = counts.into_iter().collect();
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let more = kinds.len().saturating_sub(NAMED);
    kinds.truncate(NAMED);
    let named: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let more = if more > 0 { format!(", and {more} other kinds") } else { String::new() };
    let seconds = WINDOW.as_secs();
    (all > 0)
        .then(|| format!("{all} more {noun} failed in {seconds} s: {}{more}.", named.join(", ")))
}

impl Failures {
    /// Failures of what `noun` names, in the plural.
    #[must_use]
    pub fn of(noun: &'static str) -> Self {
        Self { noun, inner: Mutex::default() }
    }

    /// Counts an event of one kind, a name from a closed set; `line` is called only if it is logged by
    /// itself.
    pub fn note(&self, kind: &str, line: impl FnOnce() -> String) {
        if let Some(text) = self.take(kind, line, Instant::now()) {
            log::warn!("{text}");
        }
    }

    fn take(&self, kind: &str, line: impl FnOnce() -> String, now: Instant) -> Option<String> {
        let mut inner = self.inner.lock();
        let past = inner.turn(self.noun, now);
        // Nothing failed for a while: it is over.
        if inner.began.is_none() && inner.ended.is_some_and(|ended| now - ended >= WINDOW) {
            inner.is_outage = false;
        }
        inner.began.get_or_insert(now);
        if inner.logged < LINES && !inner.is_outage {
            inner.logged += 1;
            let line = line();
            return Some(past.map_or(line.clone(), |past| format!("{past} {line}")));
        }
        *inner.counts.entry(kind.to_owned()).or_default() += 1;
        past
    }

    /// Logs the summary of a window that is over.
    pub fn flush(&self) {
        let past = self.inner.lock().turn(self.noun, Instant::now());
        if let Some(past) = past {
            log::warn!("{past}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_have_a_line_each_and_a_flood_has_one_every_ten_seconds() {
        let (failures, mut now) = (Failures::of("requests"), Instant::now());
        let mut lines = Vec::new();
        // Ten a second for half a minute.
        for turn in 0..300 {
            let kind = if turn % 3 == 0 { "upstream_timeout" } else { "upstream_error groq" };
            lines.extend(failures.take(kind, || format!("line {turn}"), now));
            now += Duration::from_millis(100);
        }
        assert_eq!(lines[..10], (0..10).map(|n| format!("line {n}")).collect::<Vec<_>>());
        assert_eq!(lines.len(), 12, "{lines:?}");
        assert_eq!(
            lines[10],
            "90 more requests failed in 10 s: 60 upstream_error groq, 30 upstream_timeout."
        );
        now += WINDOW;
        let past = failures.inner.lock().turn("requests", now).unwrap();
        assert!(past.starts_with("100 more requests failed"), "{past}");
        now += WINDOW;
        assert_eq!(failures.inner.lock().turn("requests", now), None);
        assert_eq!(failures.take("x", || "again".into(), now).as_deref(), Some("again"));
    }
}
