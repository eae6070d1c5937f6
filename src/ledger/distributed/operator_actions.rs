//! Operators' adjustments of licences that several gateways count. Each gateway journals the adjustments
//! made through it, and sends them to the store beside its settled totals.

use std::time::Duration;

use gatekeeper_filters::kernel::{Balance, LicenseId, Limit, StoreDown, UnixMs};
use tokio::sync::oneshot;

use super::{
    DistributedLedger, MAX_ATTEMPTS, WAIT_WITHOUT_ALLOWANCE, refusal::spent,
    script_reply::LimitCount, sync_message::SyncMessage,
};
use crate::{
    ledger::{
        embedded::operator_actions::{AdjustRequest, Adjustment, UsageOverview, periods},
        journal::JournalFull,
        operator_action::OperatorActionKind,
    },
    redis_store::wait_budget::WaitBudget,
};

/// How long an operator's command waits for the sync with the store.
const SYNC_WAIT: Duration = Duration::from_secs(1);

/// An adjustment that is in this gateway's journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdjustDone {
    /// It was not applied before.
    pub is_new: bool,
    /// The other gateways can see it.
    pub is_synced: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdjustError {
    /// The journal is full.
    Full,
    /// A reset needs the store: it alone has the totals of all gateways.
    StoreDown,
}

impl From<JournalFull> for AdjustError {
    fn from(JournalFull: JournalFull) -> Self {
        AdjustError::Full
    }
}

impl From<StoreDown> for AdjustError {
    fn from(StoreDown: StoreDown) -> Self {
        AdjustError::StoreDown
    }
}

/// The usage of a licence in the store, in the windows of its limits.
struct StoreOverview {
    settled: [u64; 2],
    overview: UsageOverview,
}

impl DistributedLedger {
    /// Grants extra messages and tokens, and syncs them.
    ///
    /// # Errors
    /// Nothing was granted.
    pub async fn grant(
        &self,
        order: &AdjustRequest<'_>,
        extra: [u64; 2],
    ) -> Result<AdjustDone, AdjustError> {
        let is_new = self.local.grant(order, extra, self.now())?;
        Ok(AdjustDone { is_new, is_synced: self.sync_adjustment(order.license).await })
    }

    /// Adds the usage of an earlier key of a licence, and syncs it.
    ///
    /// # Errors
    /// Nothing was counted.
    pub async fn carry(
        &self,
        order: &AdjustRequest<'_>,
        used: [u64; 2],
    ) -> Result<AdjustDone, AdjustError> {
        let is_new = self.local.carry(order, used, self.now())?;
        Ok(AdjustDone { is_new, is_synced: self.sync_adjustment(order.license).await })
    }

    /// Forgives what all gateways have settled in the current windows.
    ///
    /// # Errors
    /// Nothing was forgiven.
    pub async fn reset(&self, order: &AdjustRequest<'_>) -> Result<AdjustDone, AdjustError> {
        // Unsynced settlements of this gateway are part of the total.
        let is_synced = self.sync_adjustment(order.license).await;
        if self.local.is_done(OperatorActionKind::Reset, order) {
            return Ok(AdjustDone { is_new: false, is_synced });
        }
        if !is_synced {
            return Err(AdjustError::StoreDown);
        }
        let settled =
            self.query_with_retry(&order.license, order.messages, order.tokens).await?.settled;
        let is_new = self.local.forgive(order, self.now(), |_, _| settled)?;
        Ok(AdjustDone { is_new, is_synced: self.sync_adjustment(order.license).await })
    }

    /// # Errors
    /// The store does not answer.
    pub async fn overview(
        &self,
        license: &LicenseId,
        messages: Option<Limit>,
        tokens: Option<Limit>,
    ) -> Result<UsageOverview, StoreDown> {
        Ok(self.query_with_retry(license, messages, tokens).await?.overview)
    }

    pub(super) async fn balance_of(
        &self,
        license: &LicenseId,
        messages: Option<Limit>,
        tokens: Option<Limit>,
    ) -> Result<Balance, StoreDown> {
        Ok(self.query_store(license, messages, tokens).await?.overview.balance)
    }

    /// Sends an adjustment to the store; whether it was applied. If not, the sync task retries later.
    async fn sync_adjustment(&self, license: LicenseId) -> bool {
        for _ in 0..MAX_ATTEMPTS {
            let (done, is_done) = oneshot::channel();
            let is_queued = self.sync_queue.send(SyncMessage::Adjusted { license, done }).is_ok();
            if is_queued && matches!(tokio::time::timeout(SYNC_WAIT, is_done).await, Ok(Ok(true))) {
                return true;
            }
            if !self.store.is_up() {
                break;
            }
        }
        false
    }

    /// As [`DistributedLedger::query_store`], with retries after a reply that came too late.
    async fn query_with_retry(
        &self,
        license: &LicenseId,
        messages: Option<Limit>,
        tokens: Option<Limit>,
    ) -> Result<StoreOverview, StoreDown> {
        for _ in 1..MAX_ATTEMPTS {
            if let Ok(known) = self.query_store(license, messages, tokens).await {
                return Ok(known);
            }
        }
        self.query_store(license, messages, tokens).await
    }

    async fn query_store(
        &self,
        license: &LicenseId,
        messages: Option<Limit>,
        tokens: Option<Limit>,
    ) -> Result<StoreOverview, StoreDown> {
        // Without the store the figures would be incomplete.
        WaitBudget::of(WAIT_WITHOUT_ALLOWANCE).wait(self.until_up()).await.ok_or(StoreDown)?;
        let [of_messages, of_tokens] = periods(messages, tokens);
        for _ in 0..MAX_ATTEMPTS {
            let windows = self.windows();
            let call = self.scripts.balance(license, of_messages, of_tokens, &windows);
            let numbers: Vec<i64> = self.store.call(call).await.map_err(|_| StoreDown)?;
            let numbers: Vec<u64> = numbers.iter().map(|number| (*number).max(0) as u64).collect();
            if let [1, now] = numbers[..] {
                self.correct_clock(UnixMs(now));
                continue;
            }
            let [
                0,
                _,
                settled,
                held,
                extra,
                forgiven,
                settled_tokens,
                more,
                forgiven_tokens,
                open,
                presumed,
            ] = numbers[..]
            else {
                break;
            };
            if presumed == 1 {
                let _ = self.sync_queue.send(SyncMessage::QueryPeers { license: *license });
            }
            let count = |limit: Option<Limit>, used: u64, forgiven: u64, extra: u64| LimitCount {
                used: used.saturating_sub(forgiven),
                limit: limit.map_or(0, |limit| limit.count.saturating_add(extra)),
            };
            let of_messages = count(messages, settled.saturating_add(held), forgiven, extra);
            let of_tokens = count(tokens, settled_tokens, forgiven_tokens, more);
            let balance = Balance {
                messages: spent(messages, of_messages, &windows),
                tokens: spent(tokens, of_tokens, &windows),
            };
            let overview = UsageOverview {
                balance,
                messages: Adjustment { extra, forgiven },
                tokens: Adjustment { extra: more, forgiven: forgiven_tokens },
                open,
            };
            return Ok(StoreOverview { settled: [settled, settled_tokens], overview });
        }
        Err(StoreDown)
    }
}
