//! What a refusal that may be one request's own makes of a key or of a provider: that takes more than one witness.

use std::time::Instant;

use super::classify::{Cause, Failure};
use crate::{
    pool::{key::KeyNews, lease::Lease},
    proxy::flight::Flight,
};

/// Notes who met the refusal. A firewall that refuses everybody is the provider's fault, and the failure becomes one.
pub fn weigh(failure: &mut Failure, lease: &Lease, flight: &Flight, now: Instant) {
    let is_doubt = failure.news == KeyNews::Doubtful;
    if !is_doubt && failure.cause != Cause::Firewall {
        return;
    }
    let license = flight.exchange.as_ref().and_then(|exchange| exchange.license.as_ref());
    let witness = license.map_or(0, |license| license.id.short());
    if is_doubt {
        lease.key().doubt(witness, now);
    } else if lease.met_firewall(witness, now) {
        *failure = Failure::walled_off();
    }
}
