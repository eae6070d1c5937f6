//! Requests that no session has seen, because the parser below or the look at their heads refused them: what is
//! said, counted and logged of them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use gatekeeper_filters::kernel::{Code, Delivery, Dialect, Outcome, Rejection};

use super::routes;
use crate::{
    dialect::error_body,
    downstream::{
        head::Bad,
        refusal::{RefusedHead, Refuser},
        request_id::RequestIds,
    },
    runtime::{request_context::RequestContext, snapshot::Snapshot},
};

/// On the public listener: they count as requests.
pub struct PublicRefusals {
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub ids: Arc<RequestIds>,
}

/// On the admin listener, whose requests are counted nowhere else.
pub struct AdminRefusals {
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub ids: Arc<RequestIds>,
}

fn reject(unseen: &RefusedHead<'_>) -> Rejection {
    let code = match unseen.status() {
        405 => Code::MethodNotAllowed,
        503 => Code::UpstreamExhausted,
        _ => Code::InvalidRequest,
    };
    Rejection::new(code, unseen.message())
}

fn log(unseen: &RefusedHead<'_>, reject: &Rejection, listener: &str, id: &str) {
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

impl Refuser for PublicRefusals {
    fn refuse(&self, unseen: &RefusedHead<'_>) -> (Vec<u8>, String) {
        let id = self.ids.next();
        let reject = reject(unseen);
        log(unseen, &reject, "public", &id);
        let dialect = routes::dialect(unseen.target());
        let body = error_body::refusal(&reject, dialect, &id).to_vec();
        let status = unseen.status();
        let delivery = if status >= 500 { Delivery::Failed } else { Delivery::Refused };
        let snapshot = self.snapshot.load();
        snapshot.telemetry.metrics.unseen("public");
        let mut flight = RequestContext {
            request_id: id.clone(),
            reject: Some(Box::new(reject)),
            ..RequestContext::default()
        };
        snapshot.telemetry.finished(&mut flight, Outcome { status, delivery });
        (body, id.to_string())
    }
}

impl Refuser for AdminRefusals {
    fn refuse(&self, unseen: &RefusedHead<'_>) -> (Vec<u8>, String) {
        let id = self.ids.next();
        let reject = reject(unseen);
        log(unseen, &reject, "admin", &id);
        self.snapshot.load().telemetry.metrics.unseen("admin");
        (error_body::refusal(&reject, Dialect::OpenAi, &id).to_vec(), id.to_string())
    }
}
