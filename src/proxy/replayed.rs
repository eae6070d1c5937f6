//! A request that came before gets the answer of the first one again, as far as there is one.

use std::{pin::pin, time::Duration};

use gatekeeper_filters::kernel::{Code, Exchange, Rejection, ResponseHead};
use http::{HeaderName, HeaderValue};
use pingora_core::protocols::http::ServerSession;

use crate::{
    runtime::{
        replays::{Replay, ReplayKey, ReplayPart, ReplayReader},
        request_context::RequestContext,
        snapshot::Snapshot,
    },
    upstream::client_response::ClientResponse,
};

const REPLAYED: HeaderName = HeaderName::from_static("x-gatekeeper-replayed");
/// As of streams from providers: no client waits longer for a word.
const QUIET: Duration = Duration::from_secs(15);

/// How a request fared that came before.
pub enum Replayed {
    /// It has its answer.
    Whole,
    /// What it was given broke off, and it was told.
    Broken,
    /// Its app is gone.
    Gone,
    /// It is the first, or the first came to nothing before this one had heard anything.
    First,
}

/// What tells this request from others; `None` where its plan keeps no answers, or it has no id.
pub fn key(
    exchange: &Exchange,
    snapshot: &Snapshot,
    target: &[u8],
    body: &[u8],
) -> Option<(ReplayKey, Duration)> {
    let license = exchange.license.as_ref()?;
    let (life, message) = (license.plan.idempotency?, exchange.message_id.as_deref()?);
    let tier = format!("{:?}", exchange.asked_tier);
    let parts = [message.as_bytes(), target, tier.as_bytes(), body];
    Some((snapshot.licenses.validator.hasher.request(&license.id, &parts), life))
}

/// Gives the answer again, or makes this request the first.
pub async fn answer(
    (key, life): (ReplayKey, Duration),
    session: &mut ServerSession,
    ctx: &mut RequestContext,
    snapshot: &Snapshot,
) -> Replayed {
    let Some(exchange) = &ctx.exchange else { return Replayed::First };
    let Some(license) = exchange.license.as_ref().map(|license| license.id) else {
        return Replayed::First;
    };
    let (id, dialect) = (ctx.request_id.clone(), exchange.endpoint.dialect());
    let drains = &snapshot.drains;
    let mut down = ClientResponse::new(session, id, dialect, false, drains, license, None);
    loop {
        match snapshot.replays.begin(key, life) {
            Replay::First(recorder) => {
                ctx.recorder = Some(recorder);
                return Replayed::First;
            }
            Replay::Again(follower) => {
                let followed = follow(follower, &mut down).await;
                ctx.waited += down.take_delay();
                match followed {
                    // Asked of a provider by this one then.
                    Replayed::First if !down.has_begun() => {}
                    Replayed::First => return broken(&mut down).await,
                    followed => return followed,
                }
            }
        }
    }
}

async fn follow(mut follower: ReplayReader, down: &mut ClientResponse<'_>) -> Replayed {
    let mut head: Option<ResponseHead> = None;
    let mut has_written = false;
    loop {
        let Some(ReplayPart { head: told, bytes, is_over, has_failed }) =
            next(&mut follower, down).await
        else {
            return Replayed::Gone;
        };
        if let Some(mut told) = told {
            told.insert(REPLAYED, HeaderValue::from_static("1"));
            head = Some(told);
        }
        if has_failed {
            return if has_written { broken(down).await } else { Replayed::First };
        }
        let written = match (&head, down.is_stream()) {
            (Some(head), false) => down.whole(head, bytes).await,
            (head, _) => down.stream(head.as_ref(), bytes, is_over).await,
        };
        has_written = true;
        match written {
            Err(_) => return Replayed::Gone,
            Ok(()) if is_over => return Replayed::Whole,
            Ok(()) => {}
        }
    }
}

/// The next part; `None` when the app is gone.
async fn next(follower: &mut ReplayReader, down: &mut ClientResponse<'_>) -> Option<ReplayPart> {
    let kind = follower.kind();
    let mut more = pin!(follower.more());
    loop {
        tokio::select! {
            biased;
            part = &mut more => {
                if kind.is_stream() {
                    down.make_stream();
                }
                return Some(part);
            }
            () = down.left() => return None,
            () = tokio::time::sleep(QUIET) => {
                if kind.is_stream() {
                    down.keep_alive().await.ok()?;
                }
            }
        }
    }
}

async fn broken(down: &mut ClientResponse<'_>) -> Replayed {
    let message = "The answer broke off. Please send your message again.";
    match down.reject(&Rejection::new(Code::UpstreamError, message)).await {
        Ok(()) => Replayed::Broken,
        Err(_) => Replayed::Gone,
    }
}
