//! Messages of ids whose payer the store decides only after their requests have ended.

use gatekeeper_filters::kernel::{
    About, Charge, ConversationDemand, Demand, Denied, LicenseId, UnixMs,
};

use super::{
    DistributedLedger, open_reservations::EndedReservation, outage_allowance::AllowanceUse,
    sync_message::SyncMessage,
};

/// One message and nothing else.
fn message(license: LicenseId, taken: UnixMs, about: &About) -> Demand {
    Demand {
        license,
        now: taken,
        about: about.clone(),
        messages: None,
        tokens: None,
        input: 0,
        input_cost: 0,
        output: None,
        min_output: 0,
        pace: None,
        message_id: None,
        conversation: None,
    }
}

impl DistributedLedger {
    /// Charges a request of a group in the local accounts with the message that another one was expected
    /// to pay, and queues the sync.
    pub(super) fn charge_late(&self, license: LicenseId, ended: &EndedReservation) {
        let message = message(license, ended.taken, &ended.about);
        self.reservations.settle_late(&license, ended, || {
            if let Ok(reserved) = self.local.accounts.reserve(&message, &self.local.journal) {
                self.local.accounts.settle(reserved.hold, Charge::vanished(0), &self.local.journal);
            }
        });
        let _ = self.sync_queue.send(SyncMessage::Settled { license });
    }

    /// Writes a grant made in an outage into the local accounts: its hold there and, if the request has an
    /// id, the hold of its message, which counts until the store decides whether it was paid before. A
    /// conversation counts the one or the other.
    pub(super) fn journal_allowance_use(
        &self,
        demand: &Demand,
        used: AllowanceUse,
        conversation: Option<ConversationDemand>,
    ) -> Result<(u64, Option<u64>), Denied> {
        let (accounts, journal) = (&self.local.accounts, &self.local.journal);
        let unlimited = Demand {
            messages: None,
            tokens: None,
            output: used.output,
            message_id: None,
            conversation,
            ..demand.clone()
        };
        if demand.message_id.is_none() {
            return Ok((accounts.reserve(&unlimited, journal)?.hold, None));
        }
        let local_hold = accounts.reserve_covered(&unlimited, journal)?.hold;
        let message = Demand { conversation, ..message(demand.license, demand.now, &demand.about) };
        match accounts.reserve(&message, journal) {
            Ok(message) => Ok((local_hold, Some(message.hold))),
            Err(denied) => {
                accounts.settle(local_hold, Charge::NOTHING, journal);
                Err(denied)
            }
        }
    }

    /// Applies the decision of the store whether a request that ended pays a message after all.
    pub(super) fn apply_decision(&self, license: LicenseId, ended: &EndedReservation, owes: bool) {
        let (accounts, journal) = (&self.local.accounts, &self.local.journal);
        if let (Some(_), Some((id, _))) = (ended.message, &ended.group) {
            self.reservations.with(&license, |local| local.counted_ids.remove(id));
        }
        match ended.message {
            Some(message) if owes => {
                let charge = Charge { about: Some(ended.about.clone()), ..Charge::vanished(0) };
                let settle = || accounts.settle(message, charge, journal);
                self.reservations.settle_late(&license, ended, settle);
                let _ = self.sync_queue.send(SyncMessage::Settled { license });
            }
            Some(message) => accounts.settle(message, Charge::NOTHING, journal),
            None if owes => self.charge_late(license, ended),
            None => {}
        }
    }

    /// Charges the messages that the store has not decided on yet: the hand-over does not carry them.
    pub(super) fn charge_undecided(&self) {
        let (accounts, journal) = (&self.local.accounts, &self.local.journal);
        for message in self.reservations.take_undecided() {
            accounts.settle(message, Charge::vanished(0), journal);
        }
    }
}
