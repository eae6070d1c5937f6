//! Events whose webhooks were lost: read from Stripe's list, from time to time, through the same code.

use std::sync::atomic::Ordering::Relaxed;

use gatekeeper_filters::kernel::{LicenseId, UnixMs};
use serde_json::Value;

use super::{
    apply::ApplyError,
    ask::{StripeTrouble, seconds},
};
use crate::{
    licenses::issued::{
        book::{IssueError, IssuedBook},
        record::{IssuedKind, SweepState},
    },
    shops::stripe::event::{self, StripeEvent, TYPES},
};

/// Pages of one look.
const CALLS: usize = 50;
/// Seconds that looks overlap by: events may be listed late.
const OVERLAP: u64 = 300;
/// How far the first look goes back, in seconds.
const FIRST: u64 = 24 * 3600;
/// Between two looks that failed, in milliseconds.
const RETRY: u64 = 60_000;

impl IssuedBook {
    /// Looks for lost events, where that is due. The first look is at the start.
    pub async fn sweep_if_due(&self, now: UnixMs) {
        let Some(stripe) = self.source.stripe.as_ref().filter(|stripe| stripe.api_key.is_some())
        else {
            return;
        };
        let next = &self.validator.issued.tended.next_sweep;
        if now.0 < next.load(Relaxed) {
            return;
        }
        let every = stripe.sweep.as_millis() as u64;
        let wait = match self.sweep(every).await {
            Ok(()) => every,
            Err(why) => {
                log::warn!("Stripe: events can't be read: {why}.");
                RETRY.min(every)
            }
        };
        next.store(UnixMs::now().0.saturating_add(wait), Relaxed);
    }

    fn sweep_id(&self) -> LicenseId {
        let mode = if self.source.is_live() { "live" } else { "test" };
        self.validator.hasher.signed("issued sweep", mode)
    }

    /// One look, of one gateway.
    async fn sweep(&self, every: u64) -> Result<(), ApplyError> {
        let (id, now) = (self.sweep_id(), UnixMs::now());
        let Some(_alone) = self.alone_sweep(&id).await? else { return Ok(()) };
        let slot = self.latest(&id).await?;
        let known = slot.and_then(|slot| match slot.record.issued.as_ref()?.is {
            IssuedKind::Sweep(state) => Some(state),
            _ => None,
        });
        let is_first_here = self.validator.issued.tended.next_sweep.load(Relaxed) == 0;
        // Another gateway looked just now.
        let is_done =
            known.is_some_and(|state| now.0.saturating_sub(state.at.0) < every.min(60_000) / 2);
        if is_done && !is_first_here {
            return Ok(());
        }
        let first =
            SweepState { since: seconds(now).saturating_sub(FIRST), ..SweepState::default() };
        let state = known.unwrap_or(first);
        let (events, is_whole) = self.read_events(&state).await?;
        let newest = events.iter().map(|event| event.created).max().unwrap_or_default();
        let oldest = events.iter().map(|event| event.created).min();
        // The oldest first, as they happened.
        let mut trouble = None;
        for event in events.iter().rev() {
            // One that can't be looked at now holds up no other.
            trouble = self.act(event).await.err().or(trouble);
        }
        if let Some(trouble) = trouble {
            return Err(trouble);
        }
        let newest = newest.max(state.newest);
        let next = match is_whole {
            true => SweepState { since: newest.max(state.since), gap: None, newest: 0, at: now },
            false => SweepState { gap: oldest, newest, at: now, ..state },
        };
        self.write(vec![(id, IssuedKind::Sweep(next))], now).await?;
        Ok(())
    }

    /// The newest first; whether those are all.
    async fn read_events(
        &self,
        state: &SweepState,
    ) -> Result<(Vec<StripeEvent>, bool), StripeTrouble> {
        let calls = self.calls()?;
        let since = state.since.saturating_sub(OVERLAP);
        let types: String = TYPES.map(|kind| format!("&types[]={kind}")).concat();
        let gap = state.gap.map(|gap| format!("&created[lte]={gap}")).unwrap_or_default();
        let (mut events, mut after): (Vec<StripeEvent>, _) = (Vec::new(), String::new());
        for _ in 0..CALLS {
            let path = format!("/v1/events?limit=100&created[gte]={since}{gap}{types}{after}");
            let page = calls.get("Events", path).await?;
            let list = page["data"].as_array().map_or(&[][..], Vec::as_slice);
            events.extend(list.iter().filter_map(event::read));
            let last = list.last().and_then(|last| last["id"].as_str());
            let Some(last) = last.filter(|_| page["has_more"] == Value::Bool(true)) else {
                return Ok((events, true));
            };
            after = format!("&starting_after={last}");
        }
        Ok((events, false))
    }
}

impl From<IssueError> for StripeTrouble {
    fn from(why: IssueError) -> Self {
        StripeTrouble::Down(why.to_string())
    }
}
