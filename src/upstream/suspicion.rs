//! What a refusal that may be one request's own makes of a key, an account or a provider: that takes more than one
//! witness.

use std::time::Instant;

use super::classify::{Failure, FailureCause};
use crate::{
    pool::{credit, key::AttemptFeedback, lease::KeyLease},
    runtime::request_context::RequestContext,
};

/// Notes who met the refusal. Of an account whose money is gone, and of a firewall that refuses everybody, the failure
/// becomes another.
pub fn weigh(failure: &mut Failure, lease: &KeyLease, flight: &RequestContext, now: Instant) {
    let Some(exchange) = &flight.exchange else { return };
    let witness = || exchange.license.as_ref().map_or(0, |license| license.id.short());
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
