//! Holds a buyer to the plan: reserves what a request may cost, settles what it did cost.

mod conversation;
mod day;
mod oddities;

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use self::{day::day, oddities::Oddities};
use crate::{
    kernel::{
        About, Charge, Code, CostSink, Counting, Delivery, Demand, Denied, Endpoint, Exchange,
        Filter, Hooks, Ledger, License, Limit, MOST_OUTPUT, ModelRequest, Outcome, Plan,
        QuotaDetail, RateRefused, Rejection, Reservation, ResponseHead, Services, Spec, UnixMs,
        Usage, UsageSource, Verdict, async_trait, exchange::Settled,
    },
    rate_limit::{self, store_unavailable},
};

/// The cap of a request that sets none, where the plan limits tokens: without one, nothing could
/// be reserved.
const DEFAULT_OUTPUT_CAP: u64 = 4096;

/// Seconds; a reservation that stands in the way is usually settled by then.
const BUSY_RETRY_AFTER: u64 = 2;

/// YAML: `quota`, no options; the limits stand in the plan (`messages`, `tokens`).
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {}

impl Spec for Quota {
    const NAME: &'static str = "quota";
    const SUMMARY: &'static str = "reserves and settles messages and tokens of the plan (402, 413)";
    const AFTER: &'static [&'static str] = &["license", "rate_limit", "route"];

    fn build(self, services: &Services) -> Result<Arc<dyn Filter>, String> {
        let (ledger, expenses) = (services.ledger.clone(), services.expenses.clone());
        Ok(Arc::new(QuotaFilter { ledger, expenses, oddities: Oddities::default() }))
    }
}

struct QuotaFilter {
    ledger: Arc<dyn Ledger>,
    expenses: Arc<dyn CostSink>,
    oddities: Oddities,
}

impl QuotaFilter {
    /// How many requests of the licence came to a timeout within the hour, if this is one that did.
    fn timeouts(&self, exchange: &Exchange, outcome: &Outcome) -> u32 {
        let is_one = outcome.delivery == Delivery::Failed && exchange.timed_out;
        let license = exchange.license.as_ref().filter(|_| is_one && outcome.status == 504);
        license.map_or(0, |license| self.expenses.timed_out(&license.id, exchange.now))
    }
}

#[async_trait]
impl Filter for QuotaFilter {
    fn hooks(&self) -> Hooks {
        Hooks::REQUEST.and(Hooks::RESPONSE).and(Hooks::SETTLE)
    }

    async fn request(&self, exchange: &mut Exchange, ask: &mut ModelRequest) -> Verdict {
        let Some(license) = exchange.license.clone() else { return Ok(()) };
        let plan = &license.plan;
        let (least, most) = input_tokens(exchange, ask);
        exchange.input_tokens = most;
        check_input(plan, least)?;
        let cap = output_cap(plan, exchange.endpoint, ask.output_cap);
        let demand = Demand {
            license: license.id,
            // Of now: a slow body may have taken minutes since the head.
            now: UnixMs::now(),
            about: about(exchange, &license),
            input_cost: input_cost(exchange),
            messages: plan.messages,
            tokens: plan.tokens,
            input: exchange.input_tokens,
            output: cap,
            min_output: min_output(plan, ask, cap),
            pace: exchange.permit.as_ref().map(|permit| permit.pace),
            message_id: exchange.message_id.clone(),
            conversation: exchange.counted_in,
        };
        let mut granted = self.ledger.reserve(&demand).await;
        let is_full = matches!(granted, Err(Denied::TooFast(RateRefused::Concurrency { .. })));
        if is_full && plan.concurrency_is_default {
            granted = Box::pin(rate_limit::reserve_when_free(&*self.ledger, &demand)).await;
        }
        let grant = granted.map_err(|denied| reject(plan, &demand, denied))?;
        exchange.output_cap = grant.output;
        exchange.shrunk = grant.output < cap;
        exchange.balance = Some(grant.balance);
        exchange.reservation = Some(Reservation::new(self.ledger.clone(), grant));
        Ok(())
    }

    fn response(&self, exchange: &mut Exchange, head: &mut ResponseHead) {
        let Some(balance) = exchange.balance else { return };
        if let Some(left) = balance.messages.left {
            head.insert(MESSAGES_REMAINING, left);
        }
        if let Some(left) = balance.tokens.left {
            head.insert(TOKENS_REMAINING, left);
        }
        let resets = balance.messages.resets_at.into_iter().chain(balance.tokens.resets_at).min();
        if let Some(value) = resets.and_then(|at| HeaderValue::from_str(&at.to_rfc3339()).ok()) {
            head.insert(RESET, value);
        }
        if let (true, Some(cap)) = (exchange.shrunk, exchange.output_cap) {
            head.insert(CAPPED, cap);
        }
    }

    fn settle(&self, exchange: &mut Exchange, outcome: &Outcome) {
        let Some(reservation) = exchange.reservation.take() else { return };
        self.oddities.watch(exchange);
        let overrun = is_overrun(exchange, &reservation);
        let timeouts = self.timeouts(exchange, outcome);
        let mut charge = charge(exchange, outcome, &reservation, timeouts);
        charge.about = exchange.license.as_ref().map(|license| about(exchange, license));
        exchange.settled = Settled { tokens: charge.tokens, overrun };
        reservation.settle(charge);
    }
}

/// Whether the provider reported more than was reserved.
fn is_overrun(exchange: &Exchange, reservation: &Reservation) -> bool {
    let (usage, source) = exchange.usage();
    let worst = worst(reservation);
    source == UsageSource::Reported && worst.is_some_and(|worst| usage.total() > worst)
}

const MESSAGES_REMAINING: HeaderName = HeaderName::from_static("x-quota-messages-remaining");
const TOKENS_REMAINING: HeaderName = HeaderName::from_static("x-quota-tokens-remaining");
const RESET: HeaderName = HeaderName::from_static("x-quota-reset");
const CAPPED: HeaderName = HeaderName::from_static("x-quota-capped");

/// The row that a request counts in.
fn about(exchange: &Exchange, license: &License) -> About {
    let first = || exchange.route.as_ref().and_then(|route| route.targets.first());
    let target = exchange.served.as_ref().or_else(first);
    About {
        plan: license.plan.name.clone(),
        model: exchange.asked_name().cloned().unwrap_or_default(),
        provider: target.map(|target| target.provider_name.clone()).unwrap_or_default(),
    }
}

/// The cost recorded for a request that is never settled.
fn input_cost(exchange: &Exchange) -> u64 {
    let targets = exchange.route.iter().flat_map(|route| &route.targets);
    let price = targets.filter_map(|target| target.price).next();
    let input = Usage { input: exchange.input_tokens, ..Usage::default() };
    price.map_or(0, |price| price.cost(&input))
}

/// Estimates of the input at the targets that may serve: the smallest, which a plan's limit is held against,
/// and the largest, which is reserved.
fn input_tokens(exchange: &Exchange, ask: &ModelRequest) -> (u64, u64) {
    let targets = exchange.route.iter().flat_map(|route| &route.targets);
    let tokens = targets.map(|target| ask.input.tokens(&target.counting));
    let bounds = tokens.fold(None, |bounds: Option<(u64, u64)>, tokens| {
        bounds.map_or(Some((tokens, tokens)), |(least, most)| {
            Some((least.min(tokens), most.max(tokens)))
        })
    });
    bounds.unwrap_or_else(|| {
        let tokens = ask.input.tokens(&Counting::default());
        (tokens, tokens)
    })
}

fn check_input(plan: &Plan, input: u64) -> Verdict {
    match plan.max_input_tokens {
        Some(max) if input > max => Err(Rejection::new(
            Code::BodyTooLarge,
            format!("This conversation is about {input} tokens long; your plan allows {max}."),
        )
        .upgrade_url(plan.upgrade_url.clone())),
        _ => Ok(()),
    }
}

/// The app's cap, lowered to the plan's; a default only where tokens are limited.
fn output_cap(plan: &Plan, endpoint: Endpoint, app: Option<u64>) -> Option<u64> {
    if endpoint == Endpoint::Embeddings {
        return plan.tokens.map(|_| 0);
    }
    let cap = app.into_iter().chain(plan.max_output_tokens).min();
    cap.or_else(|| plan.tokens.map(|_| DEFAULT_OUTPUT_CAP))
}

/// How far the cap may shrink. Where the model thinks first, something must be left for the answer:
/// providers refuse a cap that is not above the thinking budget.
fn min_output(plan: &Plan, ask: &ModelRequest, cap: Option<u64>) -> u64 {
    let above_thinking = ask.thinking_budget.map_or(0, |budget| budget.saturating_add(1));
    let least = plan.min_output_tokens.max(above_thinking);
    [Some(least), ask.output_cap, cap].into_iter().flatten().min().unwrap_or(0)
}

/// What is charged, by the rules of returning a charge: half a request costs nothing; nothing comes back once an event of an
/// answer reached the app; a message comes back when nothing did and the fault was not the app's;
/// tokens come back when no attempt reported usage or said anything. `timeouts` are those of the licence
/// within the hour, where this request ended in one: the first comes back, later ones do not.
fn charge(
    exchange: &Exchange,
    outcome: &Outcome,
    reservation: &Reservation,
    timeouts: u32,
) -> Charge {
    let progress = exchange.progress;
    let input = reservation.grant.input;
    if !progress.written && !progress.answered {
        return Charge::NOTHING;
    }
    let blameless = matches!(outcome.delivery, Delivery::Failed | Delivery::Relayed);
    let message = progress.delivered || !blameless || timeouts > 1;
    // A page of HTML, or half a JSON, in a 200: its tokens are not charged.
    if progress.answered && (message || progress.counted) {
        // Within what is possible; an input is never clamped below that: it was sent.
        let (usage, source) = exchange.usage();
        let tokens = usage.input.saturating_add(capped(exchange, usage.output));
        return Charge { message, tokens, source, about: None };
    }
    let (least, output) = match timeouts {
        _ if outcome.delivery == Delivery::Abandoned => (input, 0),
        0 | 1 => (0, 0),
        2 => (input, 0),
        _ => (input, capped(exchange, exchange.last_wasted)),
    };
    let tokens = exchange.spoilt.max(least.saturating_add(output));
    Charge { message, tokens, source: UsageSource::Estimated, about: None }
}

/// A buyer pays no answer beyond the cap that was sent.
fn capped(exchange: &Exchange, output: u64) -> u64 {
    output.min(exchange.cap_sent().unwrap_or(MOST_OUTPUT))
}

/// All tokens a reservation holds; `None` where the output was not capped.
fn worst(reservation: &Reservation) -> Option<u64> {
    let grant = &reservation.grant;
    grant.output.map(|output| grant.input.saturating_add(output))
}

fn reject(plan: &Plan, demand: &Demand, denied: Denied) -> Rejection {
    match denied {
        Denied::Messages { limit, used, resets_at } => quota_exceeded(
            plan,
            format!("{} {}.", used_up(limit), day(&resets_at.to_rfc3339())),
            QuotaDetail { kind: "messages", limit: limit.count, used, resets_at },
        ),
        Denied::Tokens { limit, used, left, needed, resets_at } => quota_exceeded(
            plan,
            format!(
                "You have {left} of {} tokens left this {} and this message needs about {needed}. \
                 More come back {}.",
                limit.count,
                limit.per.name(),
                day(&resets_at.to_rfc3339())
            ),
            QuotaDetail { kind: "tokens", limit: limit.count, used, resets_at },
        ),
        Denied::Busy => Rejection::new(
            Code::RateLimited,
            "Other messages of yours are still being answered. Please try again in a moment.",
        )
        .internal(format!("open reservations hold the rest of {:?}", demand.license))
        .retry_after(BUSY_RETRY_AFTER),
        Denied::Conversation(refused) => conversation::reject(plan, refused),
        Denied::TooFast(too_fast) => rate_limit::reject(plan, too_fast),
        Denied::StoreDown => store_unavailable(),
    }
}

fn used_up(limit: Limit) -> String {
    let per = limit.per.name();
    match limit.count {
        0 => format!("Your plan includes no messages this {per}. That may change"),
        1 => format!("You have used the one message of this {per}. It comes back"),
        count => format!("You have used all {count} messages of this {per}. They come back"),
    }
}

fn quota_exceeded(plan: &Plan, message: String, detail: QuotaDetail) -> Rejection {
    Rejection { quota: Some(detail), ..Rejection::new(Code::QuotaExceeded, message) }
        .upgrade_url(plan.upgrade_url.clone())
}

#[cfg(test)]
mod tests;
