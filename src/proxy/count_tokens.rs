//! `POST /v1/messages/count_tokens`: what a request would weigh, estimated here. It reaches no provider and costs
//! no message, but counts against the plan's `rate`.

use std::time::Instant;

use gatekeeper_filters::{
    kernel::{Counting, Delivery, Dialect, Endpoint, Exchange, Outcome, UnixMs},
    route,
};
use pingora_core::protocols::http::ServerSession;
use serde_json::{Value, json};

use super::{prompted, routes};
use crate::{
    dialect::parse_body,
    downstream::{
        body::{self, BodyError},
        client_ip,
        connection::ClientConnection,
    },
    runtime::snapshot::Snapshot,
};

/// Bytes of a body.
const LONGEST: u64 = 1 << 20;

/// # Errors
/// As those of a message that is never sent: the licence, its pace, the body, the model.
pub async fn answer(session: &mut ServerSession, snapshot: &Snapshot) -> Result<Value, BodyError> {
    let headers = &session.req_header().headers;
    let credential = routes::credential(headers, Dialect::Anthropic)?;
    let now = UnixMs::now();
    let mut exchange = Exchange::new(Endpoint::Messages, credential, now, Instant::now());
    exchange.instance_id = routes::instance_id(headers)?;
    exchange.address = client_ip::of(session, &snapshot.settings.server.trusted_proxies);
    let counted = count(session, snapshot, &mut exchange).await;
    // Its place among the open requests of the licence is free again.
    snapshot.chain.settle(&mut exchange, &Outcome { status: 200, delivery: Delivery::Whole });
    Ok(json!({ "input_tokens": counted? }))
}

async fn count(
    session: &mut ServerSession,
    snapshot: &Snapshot,
    exchange: &mut Exchange,
) -> Result<u64, BodyError> {
    snapshot.chain.admit(exchange).await?;
    if let Some(connection) = ClientConnection::of(session) {
        connection.license();
    }
    let license = exchange.license.as_ref();
    let address = exchange.address.filter(|_| snapshot.settings.server.limits_by_address());
    let mut held = snapshot.buffered.share_of(license.map(|license| &license.id), address);
    let limit = snapshot.settings.server.limits.body.min(LONGEST);
    let bytes = body::read(session, limit, &mut held).await?;
    let ask = parse_body::parse(Endpoint::Messages, bytes, None, &snapshot.extra_fields)?;
    prompted::require(license.map(|license| &*license.plan))?;
    let model = route::find(&snapshot.settings.models, license, &ask.model)?;
    let model = model.smart.as_ref().map_or(model, |smart| &smart.complex);
    let tokens = model.targets.iter().map(|target| ask.input.tokens(&target.counting));
    Ok(tokens.max().unwrap_or_else(|| ask.input.tokens(&Counting::default())))
}
