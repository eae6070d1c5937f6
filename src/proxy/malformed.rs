//! Requests that were refused before a session existed, by the head check or by Pingora's parser: their
//! answer, their count and their log line.

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
    runtime::snapshot::Snapshot,
    telemetry::completed_request::CompletedRequest,
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
        "A malformed request was refused: {status} {code}, {why}. listener={listener} request={id}"
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
        let mut request = CompletedRequest::without_context(&id, Some(&reject));
        snapshot.telemetry.finished(&mut request, Outcome { status, delivery });
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
