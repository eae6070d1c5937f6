//! What a failure that may be one request's own makes of a key, an account or a provider: that takes more than one
//! witness.

use std::time::Instant;

use super::{
    attempt_error::AttemptError,
    classify::{Failure, FailureCause},
};
use crate::{
    pool::{credit, key::AttemptFeedback, lease::KeyLease},
    runtime::request_context::RequestContext,
};

/// Notes who met the refusal. Of an account whose money is gone, and of a firewall that refuses every request, the failure
/// becomes another.
pub fn weigh(failure: &mut Failure, lease: &KeyLease, ctx: &RequestContext, now: Instant) {
    let Some(exchange) = &ctx.exchange else { return };
    let witness = || witness(ctx);
    match (failure.news, failure.cause) {
        (AttemptFeedback::Doubtful, _) => lease.key().doubt(witness(), now),
        (AttemptFeedback::TooDear, _) => {
            let is_small = credit::is_small(exchange.input_tokens, exchange.cap_sent());
            if is_small && lease.key().is_out_of_credit(witness(), now) {
                *failure = Failure::out_of_money();
            }
        }
        (_, FailureCause::Firewall) if lease.met_firewall(witness(), now) => {
            *failure = Failure::walled_off();
        }
        _ => {}
    }
}

/// What an attempt showed, of one that was answered or waited in vain: a licence whose answers alone take too long shows
/// nothing.
pub fn of_time(
    result: &Result<(), AttemptError>,
    news: AttemptFeedback,
    lease: &KeyLease,
    ctx: &RequestContext,
    now: Instant,
) -> AttemptFeedback {
    let is_slow = || result.as_ref().is_err_and(AttemptError::is_timeout);
    match news {
        AttemptFeedback::Good => lease.answers(witness(ctx), now),
        AttemptFeedback::TimedOut if is_slow() && lease.is_slow_for(witness(ctx), now) => {
            return AttemptFeedback::None;
        }
        _ => {}
    }
    news
}

/// Whose request it is.
fn witness(ctx: &RequestContext) -> u64 {
    let license = ctx.exchange.as_ref().and_then(|exchange| exchange.license.as_ref());
    license.map_or(0, |license| license.id.short())
}
