//! Runs an upstream future while watching the connection of the app.

use std::{future::Future, pin::Pin};

use futures_util::FutureExt;
use gatekeeper_filters::kernel::OnDisconnect;
use tokio::time::Instant;

use super::{
    attempt_error::AttemptError,
    classify::Failure,
    client_response::ClientResponse,
    deadlines::{DeadlineKind, Deadlines},
};

/// Waits before the head of an answer.
pub const CONNECTION: &str = "connection";
pub const FIRST_BYTE: &str = "first byte";

/// Waits for the provider, while watching the deadlines and, after a quarter of a second, the app. While output flows,
/// the next write shows that an app has left. Then `leaving` decides how the wait ends.
///
/// The future is pinned by the caller: taken by value it would be stored twice, and what a request
/// stores, an open stream holds.
pub async fn watch<T>(
    down: &mut ClientResponse<'_>,
    watchdog: &mut Deadlines,
    leaving: OnDisconnect,
    what: &'static str,
    mut future: Pin<&mut impl Future<Output = T>>,
) -> Result<T, AttemptError> {
    loop {
        let looking = watchdog.is_looking();
        tokio::select! {
            biased;
            done = &mut future => return Ok(done),
            () = down.left(), if looking => Box::pin(let_go(down, watchdog, leaving)).await?,
            alarm = watchdog.alarm() => match alarm {
                DeadlineKind::Look => {}
                DeadlineKind::Quiet if down.keep_alive().await.is_ok() => {}
                DeadlineKind::Quiet => Box::pin(let_go(down, watchdog, leaving)).await?,
                passed @ (DeadlineKind::Phase | DeadlineKind::Total) => {
                    // What came while this thread was not let run came in time: sockets are looked at once more.
                    tokio::task::yield_now().await;
                    if let Some(done) = future.as_mut().now_or_never() {
                        return Ok(done);
                    }
                    return Err(match passed {
                        DeadlineKind::Phase => too_slow(what).into(),
                        _ if down.is_gone() => AttemptError::AppLeft,
                        _ => AttemptError::Deadline,
                    });
                }
            },
        }
    }
}

/// What a wait of this name means that was too long.
fn too_slow(what: &'static str) -> Failure {
    match what {
        CONNECTION => Failure::connect_timeout("no connection in time"),
        FIRST_BYTE => Failure::timeout(FIRST_BYTE),
        // The head of an answer has come.
        _ => Failure::stalled(what),
    }
}

/// The app has left: its answer is drained, if that is wanted and there is a place.
///
/// # Errors
/// It is not, or was drained for long enough.
pub async fn let_go(
    down: &mut ClientResponse<'_>,
    watchdog: &mut Deadlines,
    leaving: OnDisconnect,
) -> Result<(), AttemptError> {
    let is_shared = down.is_shared();
    if (leaving == OnDisconnect::Cut && !is_shared) || !down.let_go().await {
        return Err(AttemptError::AppLeft);
    }
    // Others wait for it as long as for an answer of their own.
    if !is_shared {
        watchdog.drain(Instant::now());
    }
    Ok(())
}
