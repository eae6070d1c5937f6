//! One recently finished request, a row of the live list. No prompt, no key, no address; `who` is a salted
//! number that is stable until the next start.

use std::sync::Arc;

use gatekeeper_filters::kernel::{Code, Delivery, Outcome, Record, RouteReason, UnixMs};
use serde_json::{Value, json};

use super::dollars;
use crate::telemetry::completed_request::{AttemptRecord, CompletedRequest};

pub struct RecentRequest {
    /// Counts up from the boot.
    pub id: u64,
    /// As in the answer to the app and in the logs.
    request: Arc<str>,
    time: UnixMs,
    endpoint: &'static str,
    plan: Arc<str>,
    model: Arc<str>,
    served: Arc<str>,
    provider: Arc<str>,
    outcome: Outcome,
    error: Option<Code>,
    input: u64,
    output: u64,
    /// Picodollars.
    cost: u64,
    ttft_ms: Option<u64>,
    ms: u64,
    attempts: Vec<AttemptRecord>,
    route: Option<RouteReason>,
    who: u32,
}

impl RecentRequest {
    pub fn new(
        id: u64,
        request: &mut CompletedRequest<'_>,
        outcome: Outcome,
        record: &Record,
        who: u32,
    ) -> Self {
        let first = request.first_output.map(|at| at.duration_since(request.arrived));
        let route = request.exchange.and_then(|exchange| exchange.route.as_ref());
        Self {
            id,
            request: request.request_id.clone(),
            time: record.time,
            endpoint: record.endpoint,
            plan: record.plan.clone(),
            model: record.model.clone(),
            served: record.served.clone(),
            provider: record.provider.clone(),
            outcome,
            error: request.reject.map(|reject| reject.code),
            input: record.usage.input,
            output: record.usage.output,
            cost: record.cost,
            ttft_ms: first.map(|wait| wait.as_millis() as u64),
            ms: record.ms,
            route: route.map(|route| route.why),
            // Moved, not copied: the request is over.
            attempts: std::mem::take(&mut request.attempts),
            who,
        }
    }

    pub fn to_json(&self) -> Value {
        let attempts: Vec<Value> = self
            .attempts
            .iter()
            .map(|attempt| {
                json!({
                    "provider": &*attempt.provider, "key": &*attempt.key,
                    "outcome": attempt.outcome, "ms": attempt.ms,
                })
            })
            .collect();
        let route = self.route.map(|why| why.header());
        json!({
            "id": self.id, "request": &*self.request, "time": &*self.time.to_rfc3339(), "endpoint": self.endpoint,
            "plan": &*self.plan, "model": &*self.model, "served": &*self.served,
            "provider": &*self.provider, "status": self.outcome.status,
            "outcome": outcome_name(self.outcome.delivery),
            "error": self.error.map(|code| code.wire().1),
            "tokens": self.input.saturating_add(self.output),
            "input": self.input, "output": self.output, "cost": dollars(self.cost),
            "ttft_ms": self.ttft_ms, "ms": self.ms, "attempts": attempts,
            "who": format!("{:06x}", self.who & 0xff_ffff),
            "route": route.as_ref().and_then(|route| route.to_str().ok()),
        })
    }
}

fn outcome_name(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Whole => "whole",
        Delivery::Broken => "broken",
        Delivery::Failed => "failed",
        Delivery::Refused => "refused",
        Delivery::Relayed => "relayed",
        Delivery::Abandoned => "abandoned",
    }
}
