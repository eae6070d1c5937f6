//! What operators give licences that all gateways count together. Each gateway writes down what was
//! given through it, and tells the store beside what it has settled.

use std::time::Duration;

use gatekeeper_filters::kernel::{Balance, LicenseId, Limit, StoreDown, UnixMs};
use tokio::sync::oneshot;

use super::{
    DistributedLedger, TRIES, WITHOUT_LEASE, script_reply::LimitCount, spent,
    sync_message::SyncMessage,
};
use crate::{
    ledger::{
        embedded::operator_actions::{AdjustRequest, Adjustment, UsageOverview, periods},
        journal::JournalFull,
        operator_action::OperatorActionKind,
    },
    redis_store::wait_budget::WaitBudget,
};

/// How long an operator waits for the store to be told.
const PATIENCE: Duration = Duration::from_secs(1);

/// An adjustment that is in this gateway's journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdjustDone {
    /// It was not done before.
    pub is_new: bool,
    /// The other gateways can see it.
    pub told: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdjustError {
    /// The journal has no room.
    Full,
    /// Nothing can be forgiven without the store: it alone knows what all gateways have settled.
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

/// What the store knows of a licence in the windows of its limits.
struct StoreOverview {
    settled: [u64; 2],
    overview: UsageOverview,
}

impl DistributedLedger {
    /// Gives extra messages and tokens, and has the store told.
    ///
    /// # Errors
    /// Nothing was given.
    pub async fn grant(
        &self,
        order: &AdjustRequest<'_>,
        extra: [u64; 2],
    ) -> Result<AdjustDone, AdjustError> {
        let is_new = self.local.grant(order, extra, self.now())?;
        Ok(AdjustDone { is_new, told: self.tell_of(order.license).await })
    }

    /// Counts on a licence what another key of it had used before, and has the store told.
    ///
    /// # Errors
    /// Nothing was counted.
    pub async fn carry(
        &self,
        order: &AdjustRequest<'_>,
        used: [u64; 2],
    ) -> Result<AdjustDone, AdjustError> {
        let is_new = self.local.carry(order, used, self.now())?;
        Ok(AdjustDone { is_new, told: self.tell_of(order.license).await })
    }

    /// Forgives what all gateways have settled in the current windows.
    ///
    /// # Errors
    /// Nothing was forgiven.
    pub async fn reset(&self, order: &AdjustRequest<'_>) -> Result<AdjustDone, AdjustError> {
        // What was settled here and is still on its way belongs to it.
        let told = self.tell_of(order.license).await;
        if self.local.is_done(OperatorActionKind::Reset, order) {
            return Ok(AdjustDone { is_new: false, told });
        }
        if !told {
            return Err(AdjustError::StoreDown);
        }
        let settled = self.ask_again(&order.license, order.messages, order.tokens).await?.settled;
        let is_new = self.local.forgive(order, self.now(), |_, _| settled)?;
        Ok(AdjustDone { is_new, told: self.tell_of(order.license).await })
    }

    /// # Errors
    /// The store does not answer.
    pub async fn overview(
        &self,
        license: &LicenseId,
        messages: Option<Limit>,
        tokens: Option<Limit>,
    ) -> Result<UsageOverview, StoreDown> {
        Ok(self.ask_again(license, messages, tokens).await?.overview)
    }

    pub(super) async fn balance_of(
        &self,
        license: &LicenseId,
        messages: Option<Limit>,
        tokens: Option<Limit>,
    ) -> Result<Balance, StoreDown> {
        Ok(self.ask(license, messages, tokens).await?.overview.balance)
    }

    /// Tells the store what was given here; whether it took it. If not, it is told later.
    async fn tell_of(&self, license: LicenseId) -> bool {
        for _ in 0..TRIES {
            let (done, is_done) = oneshot::channel();
            let asked = self.said.send(SyncMessage::Adjusted { license, done }).is_ok();
            if asked && matches!(tokio::time::timeout(PATIENCE, is_done).await, Ok(Ok(true))) {
                return true;
            }
            if !self.store.is_up() {
                break;
            }
        }
        false
    }

    /// As [`DistributedLedger::ask`], for whom one answer that comes too late is no reason to go without.
    async fn ask_again(
        &self,
        license: &LicenseId,
        messages: Option<Limit>,
        tokens: Option<Limit>,
    ) -> Result<StoreOverview, StoreDown> {
        for _ in 1..TRIES {
            if let Ok(known) = self.ask(license, messages, tokens).await {
                return Ok(known);
            }
        }
        self.ask(license, messages, tokens).await
    }

    async fn ask(
        &self,
        license: &LicenseId,
        messages: Option<Limit>,
        tokens: Option<Limit>,
    ) -> Result<StoreOverview, StoreDown> {
        // It comes back, or the answer would have been a guess.
        WaitBudget::of(WITHOUT_LEASE).wait(self.is_back()).await.ok_or(StoreDown)?;
        let [of_messages, of_tokens] = periods(messages, tokens);
        for _ in 0..TRIES {
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
                let _ = self.said.send(SyncMessage::Presumed { license: *license });
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
