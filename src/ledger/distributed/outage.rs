//! Decisions while the store is away.

use std::time::Instant;

use gatekeeper_filters::kernel::{Balance, Demand, Denied, Grant, LicenseId};

use super::{
    DistributedLedger,
    open_reservations::{LicenseState, OpenReservation},
    outage_allowance::{AllowanceUse, OutageAllowance},
    pending_reserve::PendingReserve,
};
use crate::config::settings::OnStoreDown;

impl DistributedLedger {
    /// Grants from the outage allowance; `None` where there is none to spend.
    pub(super) fn reserve_on_allowance(&self, demand: &Demand) -> Option<Result<Grant, Denied>> {
        if self.on_down == OnStoreDown::Closed {
            return None;
        }
        let now = self.now();
        let demand = Demand { now, ..demand.clone() };
        let outage = *self.store.losses().borrow();
        let used = self.reservations.with(&demand.license, |local| {
            let last = local.last_state?;
            let used = OutageAllowance::spend(
                &mut local.allowance,
                &last,
                &demand,
                outage,
                Instant::now(),
            )?;
            local.allowance_changed = true;
            Some(used)
        })?;
        let mut pending = PendingReserve::begin(self, &demand);
        let group = pending.group.take();
        let counts = |local: &mut LicenseState| {
            group.as_ref().is_none_or(|id| local.counted_ids.insert(id.clone()))
        };
        // Requests of one id count once in their conversation.
        let conversation =
            demand.conversation.filter(|_| self.reservations.with(&demand.license, counts));
        let granted = self.journal_allowance_use(&demand, used, conversation);
        let (local_hold, message) = match granted {
            Ok(holds) => holds,
            Err(denied) => {
                self.settle_allowance(&demand.license, used, false, 0);
                if let Some(id) = group.filter(|_| conversation.is_some()) {
                    self.reservations.with(&demand.license, |local| local.counted_ids.remove(&id));
                }
                return Some(Err(denied));
            }
        };
        let hold = pending.granted(OpenReservation {
            local_hold,
            message,
            is_counted: conversation.is_some(),
            input: demand.input,
            tokens: used.tokens,
            taken: now,
            pays: group.is_none(),
            group,
            conversation_day: None,
            allowance: Some(used),
            renewed_at: Instant::now(),
        });
        // The balance is unknown until the store is back.
        let balance = Balance::default();
        Some(Ok(Grant { hold, output: used.output, input: demand.input, balance }))
    }

    /// The last refusal of a licence that had used up its plan: it holds until the window ends, during an
    /// outage too.
    pub(super) fn standing_refusal(&self, demand: &Demand) -> Option<Denied> {
        let last = self.reservations.with(&demand.license, |local| local.last_state)?;
        last.refusal(demand, self.now())
    }

    pub(super) fn settle_allowance(
        &self,
        license: &LicenseId,
        used: AllowanceUse,
        message: bool,
        tokens: u64,
    ) {
        self.reservations.with(license, |local| {
            if let Some(allowance) = &mut local.allowance {
                allowance.settle(used, message, tokens);
                local.allowance_changed = true;
            }
        });
    }
}
