//! The operator's log of requests: a line for each that failed, which holds all its attempts.

use gatekeeper_filters::kernel::Rejection;

use crate::{
    runtime::request_context::RequestContext, telemetry::completed_request::FailedAttempt,
};

/// The gateway answers the request itself. What the app did wrong is no failure.
pub fn refused(ctx: &RequestContext, reject: &Rejection) {
    let (status, code) = reject.code.wire();
    let (request, internal) = (&ctx.request_id, &reject.internal);
    let Some(snapshot) = ctx.snapshot.as_ref().filter(|_| status >= 500) else {
        log::debug!("A request was refused: {code} {internal}. request={request}");
        rescued(ctx);
        return;
    };
    let kind = match ctx.attempts.last() {
        Some(last) => format!("{code} ({} {})", last.provider, last.outcome),
        None => code.to_owned(),
    };
    snapshot.telemetry.failures.note(&kind, || {
        let why = if internal.is_empty() { &reject.message } else { internal };
        format!("A request failed: {code}: {}. {}", why.trim_end_matches('.'), fields(ctx))
    });
}

/// The answer ended too soon, after its first event.
pub fn broken(ctx: &RequestContext) {
    let (Some(snapshot), Some(last)) = (&ctx.snapshot, ctx.failed.last()) else { return };
    let kind = format!("broken stream ({})", last.provider);
    snapshot.telemetry.failures.note(&kind, || {
        format!("A stream broke after its first event: {}. {}", last.why, fields(ctx))
    });
}

/// The request itself did not fail. Each attempt that failed before still gets a line.
pub fn rescued(ctx: &RequestContext) {
    let Some(snapshot) = &ctx.snapshot else { return };
    for FailedAttempt { target, key, outcome, why, .. } in &ctx.failed {
        snapshot.telemetry.failed_attempts.note(&format!("{target} ({outcome})"), || {
            let request = &ctx.request_id;
            format!("An attempt failed: {why}. request={request} target={target} key={key}")
        });
    }
}

/// Model, last key, number of attempts and request; then the attempts before the last, each with its key, outcome and
/// reason.
fn fields(ctx: &RequestContext) -> String {
    let model = ctx.exchange.as_deref().and_then(|exchange| exchange.asked_name());
    let model = model.map_or("-", |name| &**name);
    let key = ctx.attempts.last().map_or_else(
        || "-".to_owned(),
        |last| format!("{}/{} ({})", last.provider, last.key, last.outcome),
    );
    let (attempts, request) = (ctx.attempts.len(), &ctx.request_id);
    let mut fields = format!("model={model} key={key} attempts={attempts} request={request}");
    let earlier: Vec<String> = ctx
        .failed
        .iter()
        .filter(|failed| failed.number < attempts)
        .map(|it| format!("{}/{} ({}): {}", it.provider, it.key, it.outcome, it.why))
        .collect();
    if !earlier.is_empty() {
        fields += &format!(" earlier=[{}]", earlier.join("; "));
    }
    fields
}
