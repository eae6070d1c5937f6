//! The attempt loop: select → attempt → classify, and back, until an answer is committed.
//!
//! Pingora's own proxy hooks commit to the app as soon as a header arrives, replay no body over
//! 64 KiB and can't read the body of a 429. So the connection is Pingora's (its pooled `Connector`),
//! the loop is ours. The only way back is before the first byte of an answer has gone to the app.

pub mod attempt;
mod attempt_error;
pub mod classify;
pub mod client_response;
pub mod connector;
pub mod deadlines;
pub mod failover;
pub mod health_probe;
mod http1;
mod idle_connections;
mod near_timer;
pub mod provider_session;
pub mod rate_limit_headers;
pub mod relay;
pub mod request;
pub mod socket_options;
pub mod stream_events;
mod suspicion;
pub mod wait;

use std::{
    borrow::Cow,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use gatekeeper_filters::kernel::{
    Code, OnDisconnect, Rejection, RequestMembers, Route, Target, UnixMs,
};

use self::{
    attempt::Attempt,
    attempt_error::AttemptError,
    client_response::ClientResponse,
    connector::Connector,
    deadlines::Deadlines,
    failover::{FailoverPlan, NextStep},
    wait::watch,
};
use crate::{
    dialect::translate::Translation,
    downstream::respond,
    pool::{key::AttemptFeedback, lease::KeyLease},
    runtime::{request_context::RequestContext, snapshot::Snapshot, target_order},
    telemetry::completed_request::{AttemptRecord, FailedAttempt},
};

/// How a request left the loop.
pub enum ForwardResult {
    /// The whole answer was written.
    Whole,
    /// The answer broke after its first event; the error was sent in the stream.
    Broken,
    /// The app is gone.
    AppLeft,
    /// A provider's own 4xx about the request.
    Relayed(classify::ClientError),
    /// Nothing could serve.
    Rejected(Box<Rejection>),
}

/// Runs attempts until one answers or none is left.
pub async fn serve(
    connector: &Arc<Connector>,
    down: &mut ClientResponse<'_>,
    ctx: &mut RequestContext,
    snapshot: &Arc<Snapshot>,
    live: &ArcSwap<Snapshot>,
) -> ForwardResult {
    let mut served = attempt_all(connector, down, ctx, snapshot).await;
    let mut met = None;
    while matches!(served, ForwardResult::Rejected(_))
        && let Some(live) = moved_on(ctx, met.as_ref().unwrap_or(snapshot), live)
    {
        // Rare, so boxed: what a request stores, an open stream holds.
        served = Box::pin(attempt_all(connector, down, ctx, &live)).await;
        met = Some(live);
    }
    served
}

/// The live configuration, for a request whose keys were removed by a reload: what replaces them serves it.
/// The request then takes its route from the live configuration.
fn moved_on(
    ctx: &mut RequestContext,
    met: &Arc<Snapshot>,
    live: &ArcSwap<Snapshot>,
) -> Option<Arc<Snapshot>> {
    let live = live.load_full();
    if Arc::ptr_eq(&live, met) || ctx.attempts.len() >= failover::MOST_ATTEMPTS {
        return None;
    }
    let exchange = ctx.exchange.as_mut()?;
    let route = exchange.route.as_mut()?;
    let lost_some = |target: &Arc<Target>| {
        met.providers[target.provider].keys().iter().any(|key| key.is_withdrawn())
    };
    if !route.targets.iter().any(lost_some) {
        return None;
    }
    let model = live.settings.models.get(&route.model.name)?;
    let serves = |target: &&Arc<Target>| exchange.endpoint.at(target.dialect).is_some();
    let targets: Vec<_> = model.targets.iter().filter(serves).cloned().collect();
    if targets.is_empty() {
        return None;
    }
    (route.model, route.targets) = (model.clone(), targets);
    Some(live)
}

async fn attempt_all(
    connector: &Arc<Connector>,
    down: &mut ClientResponse<'_>,
    ctx: &mut RequestContext,
    snapshot: &Arc<Snapshot>,
) -> ForwardResult {
    let Some(route) = ctx.exchange.as_ref().and_then(|exchange| exchange.route.clone()) else {
        let reject = Rejection::new(Code::ModelNotFound, "There is no such model here.")
            .internal("no filter of the chain chose a route");
        return ForwardResult::Rejected(Box::new(reject));
    };
    let asked = ctx.exchange.as_ref().map_or_else(UnixMs::now, |exchange| exchange.now);
    let conversation = ctx.exchange.as_ref().and_then(|exchange| exchange.conversation);
    let ordered = in_order(&route, conversation, ctx, snapshot);
    if let Err(reject) = may_ask(ctx, snapshot, asked) {
        return ForwardResult::Rejected(Box::new(reject));
    }
    let targets = match snapshot.budgets.affordable(&ordered, asked) {
        Ok(targets) => targets,
        Err(reject) => return ForwardResult::Rejected(Box::new(reject)),
    };
    let timeouts = |target: &Target| {
        snapshot.providers[target.provider].settings.timeouts.of(&route.model.timeouts)
    };
    let mut watchdog = Deadlines::new(timeouts(&targets[0]).total, down.is_stream());
    let mut failover = FailoverPlan::new(&targets, conversation, watchdog.deadline());
    let mut translation = Translation::default();
    let mut now = Instant::now();
    loop {
        let (target, mut lease) = match failover.next(&snapshot.providers, now) {
            NextStep::Attempt(target, lease) => (target, lease),
            NextStep::End => break,
            NextStep::Wait(pause) => {
                if let Some(served) = wait(pause, down, ctx, &mut watchdog).await {
                    return served;
                }
                now = Instant::now();
                continue;
            }
        };
        let translated = match translated(&mut translation, ctx, &target) {
            Ok(translated) => translated,
            Err(reject) => {
                failover.skip_key(reject);
                continue;
            }
        };
        let began = now;
        let (mut timeouts, target, lease) = (timeouts(&target), &target, &mut lease);
        if !failover.has_another(lease.key(), &snapshot.providers, now) {
            // Leaving a slow answer has no use where no other target or account can serve.
            timeouts.first_token = timeouts.total;
        }
        let takes_hollow = route.model.delivers_hollow || failover.tries_again();
        let attempt = Attempt {
            connector,
            snapshot,
            target,
            lease,
            translated,
            timeouts,
            began,
            takes_hollow,
        };
        let mut result = attempt.run(down, ctx, &mut watchdog).await;
        now = Instant::now();
        if let Err(AttemptError::Failed(failure)) = &mut result {
            suspicion::weigh(failure, lease, ctx, now);
        }
        // What was refused left nothing in the provider's cache.
        if let (Ok(()), Some(conversation)) = (&result, conversation) {
            let (model, first) = (&route.model.name, &route.targets[0].label);
            snapshot.conversations.served(model, conversation, &target.label, first);
        }
        let ended = ForwardError { began, at: now, is_gone: down.is_gone() };
        ended.note(&result, (target, lease), ctx, snapshot);
        match result {
            // Without a client there is nothing to report and no reason to try another key.
            _ if down.is_gone() => return ForwardResult::AppLeft,
            Ok(()) => return ForwardResult::Whole,
            Err(AttemptError::AppLeft) => return ForwardResult::AppLeft,
            Err(AttemptError::Broken(detail, _)) => {
                note_failed(ctx, target, detail);
                return ForwardResult::Broken;
            }
            Err(AttemptError::Relay(relayed)) => return ForwardResult::Relayed(relayed),
            Err(AttemptError::Deadline) => {
                return ForwardResult::Rejected(Box::new(failover::timed_out()));
            }
            Err(AttemptError::Crowded(of)) => {
                return ForwardResult::Rejected(Box::new(respond::too_busy(of)));
            }
            Err(AttemptError::Failed(failure)) => {
                note_failed(ctx, target, failure.detail.clone());
                failover.note(target, lease, failure);
            }
        }
    }
    match failover.relayed() {
        Some(relayed) => ForwardResult::Relayed(relayed),
        None => ForwardResult::Rejected(Box::new(failover.reject(&snapshot.providers, now))),
    }
}

/// Keeps why the last attempt failed, for the line of the whole request.
fn note_failed(ctx: &mut RequestContext, target: &Target, why: String) {
    let Some(last) = ctx.attempts.last() else { return };
    let (request, label, key) = (&ctx.request_id, &target.label, &last.key);
    log::debug!("An attempt failed: {why}. request={request} target={label} key={key}");
    ctx.failed.push(FailedAttempt {
        number: ctx.attempts.len(),
        target: label.clone(),
        provider: last.provider.clone(),
        key: key.clone(),
        outcome: last.outcome,
        why,
    });
}

/// # Errors
/// The licence has wasted its share of the day's budget.
fn may_ask(ctx: &RequestContext, snapshot: &Snapshot, now: UnixMs) -> Result<(), Rejection> {
    let license = ctx.exchange.as_ref().and_then(|exchange| exchange.license.as_ref());
    license.map_or(Ok(()), |license| snapshot.budgets.may_ask(&license.id, now))
}

/// The request translated for a target of another dialect.
///
/// # Errors
/// That dialect has no words for it.
fn translated<'a>(
    translation: &'a mut Translation,
    ctx: &RequestContext,
    target: &Target,
) -> Result<Option<&'a RequestMembers>, &'a Rejection> {
    match (&ctx.exchange, &ctx.ask) {
        (Some(exchange), Some(ask)) => translation.of(ask, exchange.endpoint.dialect(), target),
        _ => Ok(None),
    }
}

/// An attempt that is over.
struct ForwardError {
    began: Instant,
    at: Instant,
    /// The app has left.
    is_gone: bool,
}

impl ForwardError {
    /// Reports the attempt to the key, the accounting, the request's list of attempts and the metrics.
    fn note(
        &self,
        result: &Result<(), AttemptError>,
        (target, lease): (&Target, &KeyLease),
        ctx: &mut RequestContext,
        snapshot: &Snapshot,
    ) {
        let (outcome, news) = match result {
            Ok(()) if self.is_gone => (AttemptError::AppLeft.account().0, AttemptFeedback::Good),
            Ok(()) => ("ok", AttemptFeedback::Good),
            Err(stop) => stop.account(),
        };
        if let (Some(exchange), Err(stop)) = (ctx.exchange.as_deref_mut(), result)
            && !self.is_gone
            && stop.wastes(exchange)
        {
            exchange.timed_out |= stop.is_timeout() && exchange.written.is_some();
            snapshot.chain.waste(exchange);
        }
        let news = suspicion::of_time(result, news, lease, ctx, self.at);
        lease.report(news, self.at);
        if let (AttemptFeedback::Good, Some(first)) = (news, ctx.first_said) {
            lease.first_output(first.saturating_duration_since(self.began), self.at);
        }
        ctx.attempts.push(AttemptRecord {
            provider: target.provider_name.clone(),
            key: lease.key().id.clone(),
            outcome,
            ms: (self.at - self.began).as_millis() as u64,
        });
        snapshot.telemetry.attempted(&target.provider_name, outcome);
    }
}

/// The targets of a request in the order in which they are asked.
fn in_order<'a>(
    route: &'a Route,
    conversation: Option<u64>,
    ctx: &RequestContext,
    snapshot: &Snapshot,
) -> Cow<'a, [Arc<Target>]> {
    if route.targets.len() == 1 {
        return Cow::Borrowed(&route.targets);
    }
    // The model of a prompt is not the plan's, nor are its prices.
    let exchange = ctx.exchange.as_ref().filter(|exchange| exchange.prompt.is_none());
    let license = exchange.and_then(|exchange| exchange.license.as_ref());
    let bound = license.and_then(|license| snapshot.bounds.for_plan(&license.plan.name));
    let memory = &snapshot.conversations;
    let remembered = conversation.and_then(|it| memory.remembered(&route.model.name, it));
    target_order::order(&route.targets, bound, remembered.as_deref())
}

/// Waits for a cooling account, or before the same key is asked once more, with an eye on the app and the deadline over all; how the request left
/// if it did.
async fn wait(
    pause: Duration,
    down: &mut ClientResponse<'_>,
    ctx: &mut RequestContext,
    watchdog: &mut Deadlines,
) -> Option<ForwardResult> {
    let began = tokio::time::Instant::now();
    watchdog.expect_by_itself(began);
    let sleep = pin!(tokio::time::sleep(pause));
    // Nothing is being asked: there is nothing to be drained.
    let waited = watch(down, watchdog, OnDisconnect::Cut, "account", sleep).await;
    ctx.waited += began.elapsed();
    match waited {
        Ok(()) => None,
        Err(AttemptError::AppLeft) => Some(ForwardResult::AppLeft),
        Err(_) => Some(ForwardResult::Rejected(Box::new(failover::timed_out()))),
    }
}
