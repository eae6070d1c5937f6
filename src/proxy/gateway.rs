//! Pingora's hooks, in the order in which it calls them. Each is short; the work is in the files
//! that `super` lists.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use gatekeeper_filters::kernel::{
    Code, Credential, Delivery, Endpoint, Exchange, Outcome, Reject, UnixMs,
};
use pingora_core::{Error, ErrorType, upstreams::peer::HttpPeer};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use super::{
    address, ask,
    body::{self, BodyError},
    conversation, deadline,
    flight::Flight,
    gate::{self, Entry},
    local, respond,
};
use crate::{
    server::ending::Phase,
    snapshot::Snapshot,
    upstream::{self, Served, downstream::Downstream, peer::Connector},
};

/// One read of a request body.
const READ_TIME: Duration = Duration::from_secs(30);

/// The app left before its answer was whole (nginx's word for it).
const APP_LEFT: u16 = 499;

pub struct Gateway {
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub connector: Connector,
    phase: Arc<Phase>,
    ids: RequestIds,
}

impl Gateway {
    pub fn new(snapshot: Arc<ArcSwap<Snapshot>>, connector: Connector, phase: Arc<Phase>) -> Self {
        Self { snapshot, connector, phase, ids: RequestIds::new() }
    }

    /// Gate, filters that need no body, body, filters that need it.
    async fn admit(
        &self,
        session: &mut Session,
        flight: &mut Flight,
        endpoint: Endpoint,
        snapshot: &Snapshot,
    ) -> Result<(), BodyError> {
        flight.endpoint = endpoint.name();
        let session = session.as_downstream_mut();
        let headers = &session.req_header().headers;
        let asked = gate::generate(session.req_header().raw_path())?;
        let credential: Credential = gate::credential(headers, endpoint.dialect())?;
        let mut exchange = Exchange::new(endpoint, credential, UnixMs::now(), flight.arrived);
        exchange.message_id = gate::message_id(headers)?;
        exchange.instance_id = gate::instance_id(headers)?;
        exchange.asked_tier = gate::asked_tier(headers);
        let conversation = gate::conversation_id(headers)?;
        exchange.api_version = gate::api_version(headers, endpoint)?;
        exchange.address = address::of(session, &snapshot.settings.server.trusted_proxies);
        exchange.id = flight.request_id.clone();
        let exchange = flight.exchange.insert(Box::new(exchange));
        snapshot.chain.admit(exchange).await?;
        let held = flight.held.insert(snapshot.buffered.share());
        let read = body::read(session, snapshot.settings.server.limits.body, held).await;
        // From the head on: what the filters above took is microseconds.
        flight.waited += flight.arrived.elapsed();
        let bytes = read?;
        let license = exchange.license.as_ref();
        let ask = ask::parse(endpoint, bytes, asked, &snapshot.extra_fields, license)?;
        let ask = flight.ask.insert(Box::new(ask));
        snapshot.chain.request(exchange, ask).await?;
        exchange.conversation = conversation::of(conversation.as_deref(), exchange, ask);
        Ok(())
    }

    async fn refuse(
        &self,
        session: &mut Session,
        flight: &mut Flight,
        reject: Box<Reject>,
    ) -> pingora_core::Result<()> {
        flight.outcome = Some(refused(&reject));
        log_refusal(flight, &reject);
        let reject = flight.reject.insert(reject);
        let session = session.as_downstream_mut();
        let dialect = gate::dialect(session.req_header().raw_path());
        respond::refuse(session, reject, dialect, &flight.request_id).await
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Flight;

    fn new_ctx(&self) -> Flight {
        Flight::default()
    }

    async fn early_request_filter(
        &self,
        session: &mut Session,
        flight: &mut Flight,
    ) -> pingora_core::Result<()> {
        deadline::head_is_here();
        let snapshot = self.snapshot.load_full();
        flight.request_id = self.ids.next();
        if !self.phase.is_draining() {
            flight.in_flight = Some(snapshot.telemetry.enter());
        }
        flight.snapshot = Some(snapshot);
        let session = session.as_downstream_mut();
        // Pingora makes HTTP/1.1 keep-alive endless. Where it switched keep-alive off, it stays off.
        if session.get_keepalive().is_some() {
            session.set_keepalive(Some(deadline::KEEPALIVE));
        }
        session.set_read_timeout(Some(READ_TIME));
        session.set_write_timeout(Some(respond::WRITE_TIME));
        Ok(())
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        flight: &mut Flight,
    ) -> pingora_core::Result<bool> {
        let snapshot = flight.pinned()?;
        let request = session.as_downstream().req_header();
        let entry = gate::enter(&request.method, request.raw_path());
        let entry = match gate::check_framing(session.as_downstream()) {
            Ok(()) => entry,
            Err(reject) => {
                // Where this message ends is unclear, so nothing after it can be a request.
                session.as_downstream_mut().set_keepalive(None);
                Err(reject)
            }
        };
        let entry = match entry {
            Ok(entry) if flight.in_flight.is_none() && entry != Entry::Health => {
                session.as_downstream_mut().set_keepalive(None);
                Err(shutting_down())
            }
            Ok(Entry::Provider(_)) if snapshot.telemetry.in_flight() > snapshot.most_open => {
                // Before its body is read, and so that somebody else's connection finds room.
                session.as_downstream_mut().set_keepalive(None);
                Err(respond::too_busy("`server.limits.requests` are open"))
            }
            entry => entry,
        };
        let result = match entry {
            Ok(Entry::Provider(endpoint)) => {
                match self.admit(session, flight, endpoint, &snapshot).await {
                    Ok(()) => return Ok(false),
                    Err(error) => Err(error),
                }
            }
            Ok(entry) => {
                flight.endpoint = local::name(entry);
                local::answer(entry, session.as_downstream_mut(), &snapshot, &flight.request_id)
                    .await
            }
            Err(reject) => Err(reject.into()),
        };
        match result {
            Ok(()) => {
                flight.outcome = Some(Outcome { status: 200, delivery: Delivery::Whole });
                Ok(true)
            }
            Err(BodyError::Reject(reject)) => {
                self.refuse(session, flight, reject).await.map(|()| true)
            }
            Err(BodyError::Gone(error)) => Err(error),
        }
    }

    async fn proxy_upstream_filter(
        &self,
        session: &mut Session,
        flight: &mut Flight,
    ) -> pingora_core::Result<bool> {
        let snapshot = flight.pinned()?;
        let is_stream = flight.ask.as_ref().is_some_and(|ask| ask.stream);
        let (session, id) = (session.as_downstream_mut(), flight.request_id.clone());
        let dialect = gate::dialect(session.req_header().raw_path());
        let mut down = Downstream::new(session, id, dialect, is_stream, &snapshot.drains);
        let served = upstream::serve(&self.connector, &mut down, flight, &snapshot).await;
        let gone = || Error::explain(ErrorType::ConnectionClosed, "the app left").into_down();
        let ended = |status, delivery| Outcome { status, delivery };
        let outcome = match &served {
            Served::Whole => ended(200, Delivery::Whole),
            Served::Broken => ended(200, Delivery::Broken),
            Served::AppLeft => ended(APP_LEFT, Delivery::Abandoned),
            Served::Relayed(relayed) => ended(relayed.status, Delivery::Relayed),
            Served::Rejected(reject) => refused(reject),
        };
        flight.outcome = Some(outcome);
        if let Some(exchange) = &mut flight.exchange {
            snapshot.chain.settle(exchange, &outcome);
        }
        match served {
            Served::Whole | Served::Broken => Ok(false),
            Served::AppLeft => Err(gone()),
            Served::Relayed(relayed) => {
                down.relay_error(relayed.status, &relayed.said).await.map(|()| false)
            }
            Served::Rejected(reject) => {
                log_refusal(flight, &reject);
                let reject = flight.reject.insert(reject);
                down.reject(reject).await.map(|()| false)
            }
        }
    }

    /// Never reached: the loop above is the way upstream.
    async fn upstream_peer(
        &self,
        _session: &mut Session,
        _flight: &mut Flight,
    ) -> pingora_core::Result<Box<HttpPeer>> {
        Error::e_explain(ErrorType::InternalError, "requests go upstream in their own loop")
    }

    /// Writes nothing: either the answer has begun, or nobody is there to read one.
    async fn fail_to_proxy(
        &self,
        _session: &mut Session,
        _error: &Error,
        _flight: &mut Flight,
    ) -> FailToProxy {
        FailToProxy { error_code: APP_LEFT, can_reuse_downstream: false }
    }

    async fn logging(&self, _session: &mut Session, _error: Option<&Error>, flight: &mut Flight) {
        let Some(snapshot) = flight.snapshot.clone() else { return };
        let gone = Outcome { status: APP_LEFT, delivery: Delivery::Abandoned };
        let outcome = *flight.outcome.get_or_insert(gone);
        if let Some(exchange) = &mut flight.exchange {
            snapshot.chain.settle(exchange, &outcome);
        }
        let record = snapshot.telemetry.finished(flight, outcome);
        // Of nobody's requests there are counts, no records: random keys must not fill the disk.
        if record.license.is_some() {
            snapshot.ledger.record(record);
        }
    }

    /// Pingora's own would print path and query.
    fn request_summary(&self, _session: &Session, flight: &Flight) -> String {
        format!("request={} endpoint={}", flight.request_id, flight.endpoint)
    }

    /// Apps that leave are no errors.
    fn suppress_error_log(&self, _session: &Session, _flight: &Flight, error: &Error) -> bool {
        *error.esource() == pingora_core::ErrorSource::Downstream
    }
}

fn shutting_down() -> Reject {
    Reject::new(Code::ShuttingDown, "The service restarts. Please try again in a moment.")
        .retry_after(5)
}

fn refused(reject: &Reject) -> Outcome {
    let status = reject.code.status();
    let delivery = if status >= 500 { Delivery::Failed } else { Delivery::Refused };
    Outcome { status, delivery }
}

fn log_refusal(flight: &Flight, reject: &Reject) {
    let (status, code) = reject.code.wire();
    let (request, internal) = (&flight.request_id, &reject.internal);
    if status >= 500 {
        log::warn!("A request failed: {code} {internal}. request={request}");
    } else {
        log::debug!("A request was refused: {code} {internal}. request={request}");
    }
}

/// Ids that tell nothing: a number of this boot, mixed with a random one.
struct RequestIds {
    boot: u64,
    next: AtomicU64,
}

impl RequestIds {
    fn new() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self { boot: RandomState::new().hash_one(0), next: AtomicU64::new(0) }
    }

    fn next(&self) -> Arc<str> {
        // An odd factor is a bijection on 64 bits: ids never repeat within a boot.
        let count = self.next.fetch_add(1, Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut id = *b"req_0000000000000000";
        for (place, digit) in id[4..].iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[((count ^ self.boot) >> (4 * place) & 15) as usize];
        }
        Arc::from(std::str::from_utf8(&id).unwrap_or("req_"))
    }
}
