//! Reservations that are decided by the store.

use std::time::{Duration, Instant};

use gatekeeper_filters::kernel::{Balance, Demand, Denied, Grant, RateRequest, UnixMs};

use super::{
    DistributedLedger, MAX_ATTEMPTS, WAIT_WITHOUT_ALLOWANCE,
    conversation_day::ConversationDay,
    open_reservations::OpenReservation,
    outage_allowance::LastStoreState,
    pending_reserve::PendingReserve,
    refusal::{refusal, spent},
    script_reply::{MessageRole, ScriptReply},
    scripts::ReserveArgs,
    sync_message::SyncMessage,
};
use crate::{
    ledger::windows::Windows,
    redis_store::{StoreFailure, wait_budget::WaitBudget},
};

/// How long a request that has an outage allowance waits for the store.
const WAIT_WITH_ALLOWANCE: Duration = Duration::from_millis(100);
/// Pause between two attempts of one request.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);
/// How long a request that does not fit waits for this gateway's unsynced settlements of its licence.
const SYNC_WAIT: Duration = Duration::from_millis(100);

impl DistributedLedger {
    /// Decides on the store, or during an outage on the allowance.
    pub(super) async fn decide(&self, demand: &Demand) -> Result<Grant, Denied> {
        let mut pending = PendingReserve::begin(self, demand);
        let mut budget = WaitBudget::of(WAIT_WITH_ALLOWANCE);
        let mut failed = StoreFailure::Away;
        if self.is_up() {
            match self.reserve_on_store(&mut pending, demand, &mut budget).await {
                Ok(decided) => return decided,
                Err(problem) => failed = problem,
            }
        }
        if let Some(decided) = self.reserve_on_allowance(demand) {
            return decided;
        }
        let mut budget = WaitBudget::of(WAIT_WITHOUT_ALLOWANCE - WAIT_WITH_ALLOWANCE);
        while failed == StoreFailure::Away && budget.wait(self.until_up()).await.is_some() {
            match self.reserve_on_store(&mut pending, demand, &mut budget).await {
                Ok(decided) => return decided,
                Err(problem) => failed = problem,
            }
            budget.wait(tokio::time::sleep(RETRY_INTERVAL)).await;
        }
        Err(self.standing_refusal(demand).unwrap_or(Denied::StoreDown))
    }

    /// Reserves on the store. `Err` when it makes no decision.
    async fn reserve_on_store(
        &self,
        pending: &mut PendingReserve<'_>,
        demand: &Demand,
        budget: &mut WaitBudget,
    ) -> Result<Result<Grant, Denied>, StoreFailure> {
        let mut demand = demand.clone();
        for last in (0..MAX_ATTEMPTS).map(|nth| nth + 1 == MAX_ATTEMPTS) {
            let loss = *self.store.losses().borrow();
            let (is_known, had_unsynced) = self.reservations.sync_state(&demand.license);
            let windows = self.windows();
            let args = ReserveArgs {
                demand: &demand,
                group: pending.group.clone(),
                hold: pending.hold,
                asked: pending.sent_at.is_some(),
            };
            let call = self.scripts.reserve(&self.gateway_id, &args, &windows, is_known);
            pending.conversation_day = demand.conversation.map(|_| ConversationDay::of(&windows));
            pending.sent_at.get_or_insert_with(UnixMs::now);
            let numbers: Vec<i64> = self.store.call_within(call, budget).await?;
            let (now, reply) = ScriptReply::read(&numbers).ok_or(StoreFailure::Refused)?;
            if !args.asked && !matches!(reply, ScriptReply::Granted { .. }) {
                // Sent once and answered: nothing is under way or open. An earlier unanswered call may have
                // been granted or may still arrive, whatever this reply says; dropping it cancels it.
                pending.sent_at = None;
            }
            match reply {
                ScriptReply::Granted { .. } => {
                    return Ok(self.record_grant(pending, &demand, now, reply, (&windows, loss)));
                }
                // The next attempt uses the store's time.
                ScriptReply::Clock(_) => self.correct_clock(now),
                ScriptReply::Lost => {
                    self.report_loss();
                    return Err(StoreFailure::Away);
                }
                ScriptReply::Busy | ScriptReply::Tokens { .. } | ScriptReply::Messages(_)
                    if !last
                        && (had_unsynced || self.reservations.has_unsynced(&demand.license))
                        && self.await_sync(&demand).await =>
                {
                    // The first attempt counted it against the rate already.
                    demand.pace = demand.pace.map(|pace| RateRequest { rate: None, ..pace });
                }
                denied => {
                    if ScriptReply::has_presumed(&numbers) {
                        let _ = self
                            .sync_queue
                            .send(SyncMessage::QueryPeers { license: demand.license });
                    }
                    let denied = refusal(denied, &demand, now, &windows);
                    if let Some(state) = LastStoreState::refused(&demand, now, &denied) {
                        self.reservations
                            .with(&demand.license, |local| local.last_state = Some(state));
                    }
                    return Ok(Err(denied));
                }
            }
        }
        Err(StoreFailure::Refused)
    }

    /// Records a grant of the store; `loss` is the last one known when the call was sent.
    fn record_grant(
        &self,
        pending: &mut PendingReserve<'_>,
        demand: &Demand,
        now: UnixMs,
        reply: ScriptReply,
        (windows, loss): (&Windows, u64),
    ) -> Result<Grant, Denied> {
        let ScriptReply::Granted { output, messages, tokens, role, .. } = reply else {
            return Err(Denied::StoreDown);
        };
        let last_state = LastStoreState::new(demand, now, messages, tokens);
        let is_same = loss == *self.store.losses().borrow();
        self.reservations.with(&demand.license, |local| {
            local.last_state = Some(last_state);
            // The store now has an entry of this gateway; if it is missing later, data was lost.
            local.is_known |= is_same;
        });
        let balance = Balance {
            messages: spent(demand.messages, messages, windows),
            tokens: spent(demand.tokens, tokens, windows),
        };
        let granted = Demand { now, output, ..demand.clone() };
        self.journal_grant(pending, &granted, role, balance)
    }

    /// Writes a grant of the store into the local accounts and journal.
    fn journal_grant(
        &self,
        pending: &mut PendingReserve<'_>,
        granted: &Demand,
        role: MessageRole,
        balance: Balance,
    ) -> Result<Grant, Denied> {
        let unlimited = Demand {
            messages: None,
            tokens: None,
            message_id: None,
            conversation: None,
            ..granted.clone()
        };
        let pays = matches!(role, MessageRole::Alone | MessageRole::Owns);
        let local = match pays {
            true => self.local.accounts.reserve(&unlimited, &self.local.journal)?,
            false => self.local.accounts.reserve_covered(&unlimited, &self.local.journal)?,
        };
        let hold = pending.granted(OpenReservation {
            local_hold: local.hold,
            message: None,
            is_counted: false,
            input: granted.input,
            tokens: granted.input.saturating_add(granted.output.unwrap_or(0)),
            taken: granted.now,
            group: pending
                .group
                .clone()
                .filter(|_| matches!(role, MessageRole::Owns | MessageRole::Shares)),
            pays,
            conversation_day: pending.conversation_day,
            allowance: None,
            renewed_at: Instant::now(),
        });
        Ok(Grant { hold, output: granted.output, input: granted.input, balance })
    }

    /// Waits until the settlements of a licence have reached the store; whether they did.
    async fn await_sync(&self, demand: &Demand) -> bool {
        let synced = async {
            loop {
                let next = self.synced.notified();
                if !self.reservations.has_unsynced(&demand.license) {
                    return;
                }
                next.await;
            }
        };
        tokio::time::timeout(SYNC_WAIT, synced).await.is_ok()
    }
}
