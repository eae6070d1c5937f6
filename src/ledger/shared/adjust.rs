//! What operators give licences that all gateways count together. Each gateway writes down what was
//! given through it, and tells the store beside what it has settled.

use std::time::Duration;

use gatekeeper_filters::kernel::{Balance, LicenseId, Limit, StoreDown, UnixMs};
use tokio::sync::oneshot;

use super::{Shared, TRIES, WITHOUT_LEASE, answer::Count, speak::Said, spent};
use crate::{
    ledger::{
        action::Kind,
        actions::{Adjusted, Order, Overview, periods},
        journal::Full,
    },
    store::patience::Patience,
};

/// How long an operator waits for the store to be told.
const PATIENCE: Duration = Duration::from_secs(1);

/// An adjustment that is in this gateway's journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// It was not done before.
    pub is_new: bool,
    /// The other gateways can see it.
    pub told: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotDone {
    /// The journal has no room.
    Full,
    /// Nothing can be forgiven without the store: it alone knows what all gateways have settled.
    StoreDown,
}

impl From<Full> for NotDone {
    fn from(Full: Full) -> Self {
        NotDone::Full
    }
}

impl From<StoreDown> for NotDone {
    fn from(StoreDown: StoreDown) -> Self {
        NotDone::StoreDown
    }
}

/// What the store knows of a licence in the windows of its limits.
struct Known {
    settled: [u64; 2],
    overview: Overview,
}

impl Shared {
    /// Gives extra messages and tokens, and has the store told.
    ///
    /// # Errors
    /// Nothing was given.
    pub async fn grant(&self, order: &Order<'_>, extra: [u64; 2]) -> Result<Done, NotDone> {
        let is_new = self.local.grant(order, extra, self.now())?;
        Ok(Done { is_new, told: self.tell_of(order.license).await })
    }

    /// Forgives what all gateways have settled in the current windows.
    ///
    /// # Errors
    /// Nothing was forgiven.
    pub async fn reset(&self, order: &Order<'_>) -> Result<Done, NotDone> {
        // What was settled here and is still on its way belongs to it.
        let told = self.tell_of(order.license).await;
        if self.local.is_done(Kind::Reset, order) {
            return Ok(Done { is_new: false, told });
        }
        if !told {
            return Err(NotDone::StoreDown);
        }
        let settled = self.ask_again(&order.license, order.messages, order.tokens).await?.settled;
        let is_new = self.local.forgive(order, self.now(), |_, _| settled)?;
        Ok(Done { is_new, told: self.tell_of(order.license).await })
    }

    /// # Errors
    /// The store does not answer.
    pub async fn overview(
        &self,
        license: &LicenseId,
        messages: Option<Limit>,
        tokens: Option<Limit>,
    ) -> Result<Overview, StoreDown> {
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
            let asked = self.said.send(Said::Adjusted { license, done }).is_ok();
            if asked && matches!(tokio::time::timeout(PATIENCE, is_done).await, Ok(Ok(true))) {
                return true;
            }
            if !self.store.is_up() {
                break;
            }
        }
        false
    }

    /// As [`Shared::ask`], for whom one answer that comes too late is no reason to go without.
    async fn ask_again(
        &self,
        license: &LicenseId,
        messages: Option<Limit>,
        tokens: Option<Limit>,
    ) -> Result<Known, StoreDown> {
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
    ) -> Result<Known, StoreDown> {
        // It comes back, or the answer would have been a guess.
        Patience::of(WITHOUT_LEASE).wait(self.is_back()).await.ok_or(StoreDown)?;
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
                let _ = self.said.send(Said::Presumed { license: *license });
            }
            let count = |limit: Option<Limit>, used: u64, forgiven: u64, extra: u64| Count {
                used: used.saturating_sub(forgiven),
                limit: limit.map_or(0, |limit| limit.count.saturating_add(extra)),
            };
            let of_messages = count(messages, settled.saturating_add(held), forgiven, extra);
            let of_tokens = count(tokens, settled_tokens, forgiven_tokens, more);
            let balance = Balance {
                messages: spent(messages, of_messages, &windows),
                tokens: spent(tokens, of_tokens, &windows),
            };
            let overview = Overview {
                balance,
                messages: Adjusted { extra, forgiven },
                tokens: Adjusted { extra: more, forgiven: forgiven_tokens },
                open,
            };
            return Ok(Known { settled: [settled, settled_tokens], overview });
        }
        Err(StoreDown)
    }
}
