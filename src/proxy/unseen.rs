//! Requests that no session has seen, because the parser below or the look at their heads refused them: what is
//! said, counted and logged of them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use gatekeeper_filters::kernel::{Code, Delivery, Dialect, Outcome, Reject};

use super::{flight::Flight, gate, request_id::RequestIds, respond::envelope};
use crate::{
    downstream::{
        head::Bad,
        refusal::{Refuser, Unseen},
    },
    snapshot::Snapshot,
};

/// On the public listener: they count as requests.
pub struct Public {
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub ids: Arc<RequestIds>,
}

/// On the admin listener, whose requests are counted nowhere else.
pub struct Operators {
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub ids: Arc<RequestIds>,
}

fn reject(unseen: &Unseen<'_>) -> Reject {
    let code = match unseen.status() {
        405 => Code::MethodNotAllowed,
        503 => Code::UpstreamExhausted,
        _ => Code::InvalidRequest,
    };
    Reject::new(code, unseen.message())
}

fn log(unseen: &Unseen<'_>, reject: &Reject, listener: &str, id: &str) {
    let (status, code) = (unseen.status(), reject.code.wire().1);
    let why: &dyn std::fmt::Display = match &unseen.why {
        Bad::TooLong => &"a head over 64 KiB",
        Bad::TooMany => &"too many unfinished heads at one time",
        Bad::Malformed(why) => why,
        Bad::Unparsed(_) => &"the parser refused the head",
    };
    log::debug!(
        "A request was refused unseen: {status} {code}, {why}. listener={listener} request={id}"
    );
}

impl Refuser for Public {
    fn refuse(&self, unseen: &Unseen<'_>) -> (Vec<u8>, String) {
        let id = self.ids.next();
        let reject = reject(unseen);
        log(unseen, &reject, "public", &id);
        let dialect = gate::dialect(unseen.target());
        let body = envelope::refusal(&reject, dialect, &id).to_vec();
        let status = unseen.status();
        let delivery = if status >= 500 { Delivery::Failed } else { Delivery::Refused };
        let snapshot = self.snapshot.load();
        snapshot.telemetry.metrics.unseen("public");
        let mut flight =
            Flight { request_id: id.clone(), reject: Some(Box::new(reject)), ..Flight::default() };
        snapshot.telemetry.finished(&mut flight, Outcome { status, delivery });
        (body, id.to_string())
    }
}

impl Refuser for Operators {
    fn refuse(&self, unseen: &Unseen<'_>) -> (Vec<u8>, String) {
        let id = self.ids.next();
        let reject = reject(unseen);
        log(unseen, &reject, "admin", &id);
        self.snapshot.load().telemetry.metrics.unseen("admin");
        (envelope::refusal(&reject, Dialect::OpenAi, &id).to_vec(), id.to_string())
    }
}
