//! When each shop's last webhook came, taken or refused. The server keeps it in the store over restarts.

use std::collections::BTreeMap;

use gatekeeper_filters::kernel::{Rejection, UnixMs};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::failures::Failures;

#[derive(Default)]
pub struct Webhooks(Mutex<BTreeMap<String, Last>>);

#[derive(Default, Clone)]
struct Last {
    taken: Option<UnixMs>,
    refused: Option<UnixMs>,
    /// The code of the refusal.
    why: String,
    /// It changed since it was last kept.
    is_new: bool,
}

impl Webhooks {
    pub fn taken(&self, shop: &'static str, request: &str) {
        self.note(shop, |last| last.taken = Some(UnixMs::now()));
        log::info!("Webhook accepted. shop={shop} request={request}");
    }

    pub fn refused(
        &self,
        shop: &'static str,
        reject: &Rejection,
        failures: &Failures,
        request: &str,
    ) {
        let (status, code) = reject.code.wire();
        self.note(shop, |last| (last.refused, last.why) = (Some(UnixMs::now()), code.to_owned()));
        failures.note(&format!("webhook of {shop} {code}"), || {
            let why = if reject.internal.is_empty() { &reject.message } else { &reject.internal };
            format!("A webhook was refused: {status} {code}: {why}. shop={shop} request={request}")
        });
    }

    fn note(&self, shop: &str, change: impl FnOnce(&mut Last)) {
        let mut shops = self.0.lock();
        let last = shops.entry(shop.to_owned()).or_default();
        change(last);
        last.is_new = true;
    }

    /// When the last genuine one of a shop came.
    pub fn last_taken(&self, shop: &str) -> Option<UnixMs> {
        self.0.lock().get(shop).and_then(|last| last.taken)
    }

    /// For `/status`.
    pub fn of(&self, shop: &str) -> Value {
        let last = self.0.lock().get(shop).cloned().unwrap_or_default();
        let time = |at: Option<UnixMs>| at.map(|at| at.to_rfc3339().to_string());
        json!({
            "taken": time(last.taken), "refused": time(last.refused),
            "why": Some(last.why).filter(|why| !why.is_empty()),
        })
    }

    /// What changed since the last call, by shop: when one was taken and refused (RFC 3339, or empty), and why.
    pub fn changed(&self) -> Vec<(String, [String; 3])> {
        let time = |at: Option<UnixMs>| at.map_or(String::new(), |at| at.to_rfc3339().to_string());
        let mut shops = self.0.lock();
        let row = |(shop, last): (&String, &mut Last)| {
            let is_new = std::mem::take(&mut last.is_new);
            is_new.then(|| (shop.clone(), [time(last.taken), time(last.refused), last.why.clone()]))
        };
        shops.iter_mut().filter_map(row).collect()
    }

    /// Takes in what [`Webhooks::changed`] gave in an earlier run.
    pub fn restore(&self, kept: impl IntoIterator<Item = (String, [String; 3])>) {
        let time = |text: String| {
            let at = text.parse::<jiff::Timestamp>().ok()?.as_millisecond();
            u64::try_from(at).ok().map(UnixMs)
        };
        for (shop, [taken, refused, why]) in kept {
            let last = Last { taken: time(taken), refused: time(refused), why, is_new: false };
            self.0.lock().insert(shop, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use gatekeeper_filters::kernel::Code;

    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_only_changes_are_written() {
        let (first, failures) = (Webhooks::default(), Failures::of("webhooks"));
        first.taken("polar", "req_1");
        let wrong = Rejection::new(Code::LicenseMissing, "no");
        first.refused("polar", &wrong, &failures, "req_2");
        first.refused("stripe", &wrong, &failures, "req_3");
        let kept = first.changed();
        assert_eq!(kept.len(), 2);
        assert!(first.changed().is_empty());
        let second = Webhooks::default();
        second.restore(kept);
        assert_eq!(second.of("polar"), first.of("polar"));
        assert_eq!(second.of("polar")["why"], "license_missing");
        assert!(second.of("stripe")["taken"].is_null() && second.last_taken("stripe").is_none());
        assert!(second.changed().is_empty(), "nothing happened here");
        second.taken("polar", "req_4");
        assert_eq!(second.changed().len(), 1);
        second
            .restore([("dodo".to_owned(), ["nonsense".to_owned(), String::new(), String::new()])]);
        assert!(second.of("dodo")["taken"].is_null());
    }
}
