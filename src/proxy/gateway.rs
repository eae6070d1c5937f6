//! Pingora's hooks, in the order in which it calls them. Each is short; the work is in the files
//! that `super` lists.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use gatekeeper_filters::kernel::{
    Code, Credential, Delivery, Doubt, Endpoint, Exchange, LicenseId, Outcome, Record, Rejection,
    UnixMs, Usage, UsageSource,
};
use pingora_core::{Error, ErrorType, upstreams::peer::HttpPeer};
use pingora_http::RequestHeader;
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use super::{
    conversation_id, failure_log, local_endpoints, prompted,
    replayed::{self, Replayed},
    routes::{self, RouteEntry},
};
use crate::{
    downstream::{
        body::{self, BodyError},
        client_ip,
        connection::ClientConnection,
        request_id::RequestIds,
        respond,
        serve::KEEPALIVE,
    },
    lifecycle::Lifecycle,
    runtime::{request_context::RequestContext, snapshot::Snapshot},
    telemetry::refused_licenses::RefusedLicenses,
    upstream::{self, ForwardResult, client_response::ClientResponse, connector::Connector},
};

/// One read of a request body.
const READ_TIME: Duration = Duration::from_secs(30);

/// For a connection to the process that has taken over, and for one that is kept.
const SUCCESSOR_TIME: Duration = Duration::from_secs(5);

/// The app left before its answer was whole (nginx's word for it).
const APP_LEFT: u16 = 499;

/// What becomes of a request that may ask.
enum Admitted {
    /// A provider is asked.
    Goes,
    /// It was answered with what an earlier one got.
    Answered(Delivery),
}

pub struct Gateway {
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub connector: Arc<Connector>,
    phase: Arc<Lifecycle>,
    ids: Arc<RequestIds>,
}

impl Gateway {
    pub fn new(
        snapshot: Arc<ArcSwap<Snapshot>>,
        connector: Arc<Connector>,
        phase: Arc<Lifecycle>,
        ids: Arc<RequestIds>,
    ) -> Self {
        Self { snapshot, connector, phase, ids }
    }

    /// Gate, filters that need no body, body, filters that need it.
    async fn admit(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
        endpoint: Endpoint,
        snapshot: &Snapshot,
    ) -> Result<Admitted, BodyError> {
        ctx.endpoint = endpoint.name();
        let session = session.as_downstream_mut();
        let headers = &session.req_header().headers;
        let asked = routes::generate(session.req_header().raw_path())?;
        let credential: Credential = routes::credential(headers, endpoint.dialect())?;
        let mut exchange = Exchange::new(endpoint, credential, UnixMs::now(), ctx.arrived);
        exchange.message_id = routes::message_id(headers)?;
        exchange.instance_id = routes::instance_id(headers)?;
        exchange.asked_tier = routes::asked_tier(headers);
        let conversation = routes::conversation_id(headers)?;
        exchange.api_version = routes::api_version(headers, endpoint)?;
        exchange.address = client_ip::of(session, &snapshot.settings.server.trusted_proxies);
        exchange.id = ctx.request_id.clone();
        let exchange = ctx.exchange.insert(Box::new(exchange));
        if let Err(reject) = snapshot.chain.admit(exchange).await {
            // A shop may have been waited for.
            ctx.waited += ctx.arrived.elapsed();
            return Err(reject.into());
        }
        if let Some(connection) = ClientConnection::of(session) {
            connection.license();
        }
        let plan = exchange.license.as_ref().map(|license| &license.plan);
        if conversation.is_none() && plan.is_some_and(|plan| plan.conversation.is_some()) {
            return Err(conversation_id::nameless().into());
        }
        ctx.open = snapshot.telemetry.open(snapshot.most_open);
        if ctx.open.is_none() {
            // Before the body is read; and the connection is closed, so that another client's finds room.
            session.set_keepalive(None);
            return Err(respond::too_busy("`server.limits.requests` are open").into());
        }
        let license = exchange.license.as_ref().map(|license| &license.id);
        let address = exchange.address.filter(|_| snapshot.settings.server.limits_by_address());
        let held = ctx.held.insert(snapshot.buffered.share_of(license, address));
        let read = body::read(session, snapshot.settings.server.limits.body, held).await;
        // From the head on: what the filters above took is microseconds.
        ctx.waited += ctx.arrived.elapsed();
        let bytes = read?;
        let path = session.req_header().raw_path();
        if let Some(key) = replayed::key(exchange, snapshot, path, &bytes) {
            match Box::pin(replayed::answer(key, session, ctx, snapshot)).await {
                Replayed::First => {}
                Replayed::Whole => return Ok(Admitted::Answered(Delivery::Whole)),
                Replayed::Broken => return Ok(Admitted::Answered(Delivery::Broken)),
                Replayed::Gone => return Err(BodyError::Gone(gone())),
            }
        }
        let path = session.req_header().raw_path();
        let Some(exchange) = &mut ctx.exchange else { return Ok(Admitted::Goes) };
        let (ask, said) = prompted::ask(exchange, snapshot, (path, asked), bytes)?;
        let hasher = &snapshot.licenses.validator.hasher;
        let named = conversation.as_deref();
        exchange.counted_in = conversation_id::counted(named, exchange, hasher, (&ask, said))?;
        exchange.input = ask.input.clone();
        let ask = ctx.ask.insert(Box::new(ask));
        snapshot.chain.request(exchange, ask).await?;
        exchange.conversation = conversation_id::of(conversation.as_deref(), exchange, ask);
        Ok(Admitted::Goes)
    }

    async fn refuse(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
        reject: Box<Rejection>,
    ) -> pingora_core::Result<()> {
        ctx.outcome = Some(refused(&reject));
        failure_log::refused(ctx, &reject);
        // What is refused takes no place of what is served.
        (ctx.held, ctx.open, ctx.recorder) = (None, None, None);
        let reject = ctx.reject.insert(reject);
        let session = session.as_downstream_mut();
        let dialect = routes::dialect(session.req_header().raw_path());
        // What is left of the body is taken in for a moment.
        let began = Instant::now();
        let refused = respond::refuse(session, reject, dialect, &ctx.request_id).await;
        ctx.waited += began.elapsed();
        refused
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = RequestContext;

    fn new_ctx(&self) -> RequestContext {
        RequestContext::default()
    }

    async fn early_request_filter(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
    ) -> pingora_core::Result<()> {
        let session = session.as_downstream_mut();
        // A connection that ends with this answer says so in it.
        let is_last = ClientConnection::of(session).is_some_and(|connection| {
            connection.accept();
            connection.is_last()
        });
        let snapshot = self.snapshot.load_full();
        ctx.request_id = self.ids.next();
        if !self.phase.is_draining() {
            ctx.in_flight = Some(snapshot.telemetry.enter());
        }
        if snapshot.settings.server.behind_tls && snapshot.telemetry.https_in_front.is_open() {
            let trusted = &snapshot.settings.server.trusted_proxies;
            let came = client_ip::came_over_tls(session, trusted);
            came.into_iter().for_each(|tls| snapshot.telemetry.https_in_front.note(tls));
        }
        ctx.snapshot = Some(snapshot);
        // Pingora makes HTTP/1.1 keep-alive endless. Where it switched keep-alive off, it stays off.
        if session.get_keepalive().is_some() {
            session.set_keepalive(Some(KEEPALIVE).filter(|_| !is_last));
        }
        session.set_read_timeout(Some(READ_TIME));
        session.set_write_timeout(Some(respond::WRITE_TIME));
        Ok(())
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
    ) -> pingora_core::Result<bool> {
        let snapshot = ctx.pinned()?;
        let request = session.as_downstream().req_header();
        let entry = routes::enter(&request.method, request.raw_path()).map_err(|reject| {
            let asks = request.headers.contains_key("access-control-request-method");
            if request.method == http::Method::OPTIONS && asks { routes::no_cors() } else { reject }
        });
        let entry = match entry {
            Ok(RouteEntry::Prompt) if snapshot.settings.prompts.is_empty() => {
                Err(routes::not_served(&request.method, request.raw_path()))
            }
            entry => entry,
        };
        let entry = match routes::check_head(session.as_downstream()) {
            Ok(()) => entry,
            Err(reject) => {
                // Where this message ends is unclear, so nothing after it can be a request.
                session.as_downstream_mut().set_keepalive(None);
                Err(reject)
            }
        };
        let entry = match entry {
            Ok(entry) if ctx.in_flight.is_none() && entry != RouteEntry::Health => {
                session.as_downstream_mut().set_keepalive(None);
                Err(shutting_down())
            }
            entry => entry,
        };
        // A health check is about this process.
        if matches!(&entry, Ok(entry) if *entry != RouteEntry::Health) && ctx.in_flight.is_some() {
            ctx.elsewhere = self.phase.way().await;
            if ctx.elsewhere.is_some() {
                // The next request finds the successor itself.
                session.as_downstream_mut().set_keepalive(None);
                return Ok(false);
            }
        }
        let result = match entry {
            Ok(entry @ (RouteEntry::Provider(_) | RouteEntry::Prompt)) => {
                let endpoint = match entry {
                    RouteEntry::Provider(endpoint) => endpoint,
                    _ => Endpoint::Chat,
                };
                match self.admit(session, ctx, endpoint, &snapshot).await {
                    Ok(Admitted::Goes) => return Ok(false),
                    Ok(Admitted::Answered(delivery)) => {
                        ctx.outcome = Some(Outcome { status: 200, delivery });
                        return Ok(true);
                    }
                    Err(error) => Err(error),
                }
            }
            Ok(entry) => {
                ctx.endpoint = local_endpoints::name(entry);
                // Boxed: every request would carry the room of what few are.
                let answered = Box::pin(local_endpoints::answer(
                    entry,
                    session.as_downstream_mut(),
                    &snapshot,
                    &ctx.request_id,
                ))
                .await;
                if let Some(shop) = shop_of(entry) {
                    let (telemetry, id) = (&snapshot.telemetry, &*ctx.request_id);
                    match &answered {
                        Ok(_) => telemetry.webhooks.taken(shop, id),
                        Err(BodyError::Reject(reject)) => {
                            telemetry.webhooks.refused(shop, reject, &telemetry.failures, id);
                        }
                        Err(BodyError::Gone(_)) => {}
                    }
                }
                answered
            }
            Err(reject) => {
                let path = session.as_downstream().req_header().raw_path();
                ctx.path = Some(routes::shown_path(path));
                Err::<u16, _>(reject.into())
            }
        };
        match result {
            Ok(status) => {
                let delivery = if status < 400 { Delivery::Whole } else { Delivery::Refused };
                ctx.outcome = Some(Outcome { status, delivery });
                Ok(true)
            }
            Err(BodyError::Reject(reject)) => {
                self.refuse(session, ctx, reject).await.map(|()| true)
            }
            Err(BodyError::Gone(error)) => Err(error),
        }
    }

    async fn proxy_upstream_filter(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
    ) -> pingora_core::Result<bool> {
        if ctx.elsewhere.is_some() {
            return Ok(true);
        }
        let snapshot = ctx.pinned()?;
        let is_stream = ctx.ask.as_ref().is_some_and(|ask| ask.stream);
        let (session, id) = (session.as_downstream_mut(), ctx.request_id.clone());
        let dialect = routes::dialect(session.req_header().raw_path());
        let license = ctx.exchange.as_ref().and_then(|exchange| exchange.license.as_ref());
        let license = license.map_or(LicenseId([0; 32]), |license| license.id);
        let drains = &snapshot.drains;
        let recorder = ctx.recorder.take();
        let mut down =
            ClientResponse::new(session, id, dialect, is_stream, drains, license, recorder);
        let live = &self.snapshot;
        let served = upstream::serve(&self.connector, &mut down, ctx, &snapshot, live).await;
        let of = |status, delivery| Outcome { status, delivery };
        let outcome = match &served {
            ForwardResult::Whole => of(200, Delivery::Whole),
            ForwardResult::Broken => of(200, Delivery::Broken),
            ForwardResult::AppLeft => of(APP_LEFT, Delivery::Abandoned),
            ForwardResult::Relayed(relayed) => of(relayed.status, Delivery::Relayed),
            ForwardResult::Rejected(reject) => refused(reject),
        };
        ctx.outcome = Some(outcome);
        if let Some(exchange) = &mut ctx.exchange {
            snapshot.chain.settle(exchange, &outcome);
        }
        let ended = match served {
            ForwardResult::Whole => {
                failure_log::rescued(ctx);
                Ok(false)
            }
            ForwardResult::Broken => {
                failure_log::broken(ctx);
                Ok(false)
            }
            ForwardResult::AppLeft => {
                failure_log::rescued(ctx);
                Err(gone())
            }
            ForwardResult::Relayed(relayed) => {
                failure_log::rescued(ctx);
                down.relay_error(relayed.status, &relayed.said).await.map(|()| false)
            }
            ForwardResult::Rejected(reject) => {
                failure_log::refused(ctx, &reject);
                let reject = ctx.reject.insert(reject);
                down.reject(reject).await.map(|()| false)
            }
        };
        ctx.waited += down.take_delay();
        ended
    }

    /// The way to the process that has taken over. To providers, requests go in the loop above.
    async fn upstream_peer(
        &self,
        _session: &mut Session,
        ctx: &mut RequestContext,
    ) -> pingora_core::Result<Box<HttpPeer>> {
        let Some(path) = &ctx.elsewhere else {
            let why = "requests go upstream in their own loop";
            return Error::e_explain(ErrorType::InternalError, why);
        };
        let mut peer = HttpPeer::new_uds(path, false, String::new())?;
        peer.options.connection_timeout = Some(SUCCESSOR_TIME);
        // Sooner than the other side lets it go.
        peer.options.idle_timeout = Some(SUCCESSOR_TIME);
        Ok(Box::new(peer))
    }

    /// The process that has taken over sees this one: it is told where the app is.
    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut RequestContext,
    ) -> pingora_core::Result<()> {
        let snapshot = ctx.pinned()?;
        let trusted = &snapshot.settings.server.trusted_proxies;
        request.remove_header(client_ip::FORWARDED);
        if let Some(app) = client_ip::of(session.as_downstream(), trusted) {
            request.insert_header(client_ip::FORWARDED, app.to_string())?;
        }
        Ok(())
    }

    /// Writes nothing if the answer has begun or the client has left.
    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        _error: &Error,
        ctx: &mut RequestContext,
    ) -> FailToProxy {
        let session = session.as_downstream_mut();
        if ctx.elsewhere.is_some() && session.response_written().is_none() {
            let dialect = routes::dialect(session.req_header().raw_path());
            let _ = respond::refuse(session, &shutting_down(), dialect, &ctx.request_id).await;
        }
        FailToProxy { error_code: APP_LEFT, can_reuse_downstream: false }
    }

    async fn logging(
        &self,
        _session: &mut Session,
        _error: Option<&Error>,
        ctx: &mut RequestContext,
    ) {
        let Some(snapshot) = ctx.snapshot.clone().filter(|_| ctx.elsewhere.is_none()) else {
            return;
        };
        let gone = Outcome { status: APP_LEFT, delivery: Delivery::Abandoned };
        let outcome = *ctx.outcome.get_or_insert(gone);
        if let Some(exchange) = &mut ctx.exchange {
            snapshot.chain.settle(exchange, &outcome);
        }
        let record = snapshot.telemetry.finished(&mut ctx.completed(), outcome);
        note_refusal(ctx, &snapshot, &record);
        settle_doubts(ctx, &snapshot, &record);
        // Requests without a licence are counted but not recorded: random keys must not fill the disk.
        if record.license.is_some() {
            snapshot.ledger.record(record);
        }
    }

    /// Pingora's own would print path and query.
    fn request_summary(&self, _session: &Session, ctx: &RequestContext) -> String {
        format!("request={} endpoint={}", ctx.request_id, ctx.endpoint)
    }

    /// Apps that leave are no errors.
    fn suppress_error_log(
        &self,
        _session: &Session,
        _flight: &RequestContext,
        error: &Error,
    ) -> bool {
        *error.esource() == pingora_core::ErrorSource::Downstream
    }
}

/// A refusal that is about the licence is kept for the operators' page.
fn note_refusal(ctx: &RequestContext, snapshot: &Snapshot, record: &Record) {
    let (Some(reject), Some(exchange)) = (&ctx.reject, &ctx.exchange) else { return };
    if RefusedLicenses::is_about_it(reject.code) {
        // A licence that may not come in is not in the exchange.
        let id = || {
            let key = exchange.credential.expose();
            record.license.unwrap_or_else(|| snapshot.licenses.validator.hasher.id(key))
        };
        snapshot.telemetry.refused_licenses.note(id, &record.plan, reject.code, record.time);
    }
}

/// What counts only if a target proves to work waits for it; this request may be the proof for others.
fn settle_doubts(ctx: &mut RequestContext, snapshot: &Snapshot, record: &Record) {
    let Some(exchange) = &mut ctx.exchange else { return };
    for Doubt { target, tokens, cost } in std::mem::take(&mut exchange.doubtful) {
        let empty: Arc<str> = Arc::default();
        let late = Record {
            endpoint: "",
            served: empty.clone(),
            provider: target.provider_name.clone(),
            key: empty,
            usage: Usage::default(),
            source: UsageSource::Estimated,
            charged: 0,
            wasted: tokens,
            cost,
            wasted_cost: cost,
            sent: false,
            status: 0,
            ms: 0,
            attempts: 0,
            ..record.clone()
        };
        snapshot.budgets.doubt(&target, late);
    }
    if let (true, Some(target)) = (exchange.progress.delivered, &exchange.served) {
        for late in snapshot.budgets.prove(target) {
            snapshot.ledger.record(late);
        }
    }
}

fn gone() -> Box<Error> {
    Error::explain(ErrorType::ConnectionClosed, "the app left").into_down()
}

fn shutting_down() -> Rejection {
    Rejection::new(Code::ShuttingDown, "The service restarts. Please try again in a moment.")
        .retry_after(5)
}

fn refused(reject: &Rejection) -> Outcome {
    let status = reject.code.status();
    let delivery = if status >= 500 { Delivery::Failed } else { Delivery::Refused };
    Outcome { status, delivery }
}

/// The shop whose webhook it is.
fn shop_of(entry: RouteEntry) -> Option<&'static str> {
    local_endpoints::name(entry).strip_prefix("webhook_")
}
