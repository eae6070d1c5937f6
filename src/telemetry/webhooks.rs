//! When each shop's last webhook came, taken or refused. In memory only.

use std::collections::BTreeMap;

use gatekeeper_filters::kernel::{Rejection, UnixMs};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::failures::Failures;

#[derive(Default)]
pub struct Webhooks(Mutex<BTreeMap<&'static str, Last>>);

#[derive(Default, Clone, Copy)]
struct Last {
    taken: Option<UnixMs>,
    refused: Option<UnixMs>,
    /// The code of the refusal.
    why: &'static str,
}

impl Webhooks {
    pub fn taken(&self, shop: &'static str, request: &str) {
        self.0.lock().entry(shop).or_default().taken = Some(UnixMs::now());
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
        {
            let mut shops = self.0.lock();
            let last = shops.entry(shop).or_default();
            (last.refused, last.why) = (Some(UnixMs::now()), code);
        }
        failures.note(&format!("webhook of {shop} {code}"), || {
            let why = if reject.internal.is_empty() { &reject.message } else { &reject.internal };
            format!("A webhook was refused: {status} {code}: {why}. shop={shop} request={request}")
        });
    }

    /// For `/status`.
    pub fn of(&self, shop: &str) -> Value {
        let last = self.0.lock().get(shop).copied().unwrap_or_default();
        let time = |at: Option<UnixMs>| at.map(|at| at.to_rfc3339().to_string());
        json!({
            "taken": time(last.taken), "refused": time(last.refused),
            "why": Some(last.why).filter(|why| !why.is_empty()),
        })
    }
}
