//! All that is known of one buyer, in JSON.

use gatekeeper_filters::kernel::{LicenseId, LimitUsage, UnixMs};
use serde_json::{Map, Value, json};

use super::LicenseAdmin;
use crate::{
    ledger::{Adjustment, OperatorAction, UsageOverview},
    licenses::{key_move::KeyMove, revocation::LicenseReport},
};

/// Actions shown.
const ACTIONS: usize = 20;

impl LicenseAdmin {
    pub(super) async fn show(&self, known: &LicenseReport) -> Map<String, Value> {
        let limits = known.plan.as_ref().map(|plan| (plan.messages, plan.tokens));
        let (messages, tokens) = limits.unwrap_or_default();
        let overview = match &self.shared {
            Some(shared) => shared.overview(&known.id, messages, tokens).await.ok(),
            None => self.store.overview(&known.id, messages, tokens, UnixMs::now()).ok(),
        };
        let last_use = self.store.last_use(&known.id).unwrap_or_else(|error| {
            log::warn!("store: the time of a licence's last request cannot be read: {error}");
            None
        });
        let devices =
            known.devices.map(|devices| json!({ "used": devices.used, "max": devices.max }));
        let mut shown = Map::new();
        let mut put = |name: &str, value: Value| drop(shown.insert(name.into(), value));
        put("license", json!(known.id.to_hex()));
        put("public_id", json!(known.public_id));
        put("plan", json!(known.plan.as_ref().map(|plan| &*plan.name)));
        put("source", json!(known.source));
        put("status", json!(status(known)));
        put("until", moment(known.until));
        put("revoked", json!(known.revoked.is_some()));
        put("revoked_at", moment(known.revoked));
        put("limits", json!(overview.filter(|_| known.plan.is_some()).map(limits_to_json)));
        put("open", json!(overview.map(|overview| overview.open)));
        put("devices", json!(devices));
        put("last_seen", moment(known.seen.max(last_use)));
        put("checked", moment(known.checked));
        put("moved", json!(known.moved.as_ref().map(moved_to_json)));
        put("store", json!(if overview.is_some() { "up" } else { "down" }));
        let actions = self.store.actions(&known.id);
        let actions: Vec<Value> = actions.iter().rev().take(ACTIONS).map(to_json).collect();
        put("actions", json!(actions));
        shown
    }
}

/// `valid`, `revoked`, or the shop's word: `expired`, `disabled`, `refunded`, ...
fn status(known: &LicenseReport) -> &'static str {
    match (known.revoked, known.refused) {
        (Some(_), _) => "revoked",
        (None, Some(code)) => code.wire().1.trim_start_matches("license_"),
        (None, None) => "valid",
    }
}

/// How the key that was named stands to others.
fn moved_to_json(moved: &KeyMove) -> Value {
    let replaced = moved.replaced.as_ref();
    let until = replaced.map(|replaced| replaced.accepted_until).filter(|until| until.0 > 0);
    json!({
        "at": moment(Some(moved.at)),
        "replaced": replaced.is_some(),
        "accepted_until": moment(until),
        "continues": moved.account.map(LicenseId::to_hex),
    })
}

fn limits_to_json(overview: UsageOverview) -> Value {
    let limit = |spent: LimitUsage, adjusted: Adjustment| {
        spent.limit.map(|limit| {
            json!({
                "limit": limit,
                "used": spent.used,
                "left": spent.left,
                "resets_at": moment(spent.resets_at),
                "extra": adjusted.extra,
                "forgiven": adjusted.forgiven,
            })
        })
    };
    json!({
        "messages": limit(overview.balance.messages, overview.messages),
        "tokens": limit(overview.balance.tokens, overview.tokens),
    })
}

fn to_json(action: &OperatorAction<'_>) -> Value {
    json!({
        "time": &*action.time.to_rfc3339(), "action": action.kind.name(), "id": action.id,
        "detail": action.detail, "note": action.note,
    })
}

fn moment(at: Option<UnixMs>) -> Value {
    json!(at.map(|at| at.to_rfc3339().to_string()))
}
