//! Decisions while the store is away.

use std::time::Instant;

use gatekeeper_filters::kernel::{Balance, Demand, Denied, Grant, LicenseId};

use super::{
    DistributedLedger,
    open_reservations::OpenReservation,
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
        let (local_hold, message) = match self.journal_allowance_use(&demand, used) {
            Ok(holds) => holds,
            Err(denied) => {
                self.settle_allowance(&demand.license, used, false, 0);
                return Some(Err(denied));
            }
        };
        let mut pending = PendingReserve::begin(self, &demand);
        let group = pending.group.take();
        let hold = pending.granted(OpenReservation {
            local_hold,
            message,
            input: demand.input,
            tokens: used.tokens,
            taken: now,
            pays: group.is_none(),
            group,
            talks: None,
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
