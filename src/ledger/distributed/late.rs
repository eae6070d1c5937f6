//! Messages of ids of which the store says only after their requests ended who pays them.

use gatekeeper_filters::kernel::{About, Charge, Demand, Denied, LicenseId, UnixMs};

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
    /// Writes into the own book that a request of a group pays the message that it thought another one
    /// pays, and has the store told.
    pub(super) fn charge_late(&self, license: LicenseId, ended: &EndedReservation) {
        let message = message(license, ended.taken, &ended.about);
        self.holds.settle_late(&license, ended, || {
            if let Ok(booked) = self.local.book.reserve(&message, &self.local.journal) {
                self.local.book.settle(booked.hold, Charge::vanished(0), &self.local.journal);
            }
        });
        let _ = self.said.send(SyncMessage::Settled { license });
    }

    /// Writes a grant without the store into the own book: its hold there, and where it has an id that of
    /// its message, which counts until the store says whether it was paid before.
    pub(super) fn book_leased(
        &self,
        demand: &Demand,
        leased: AllowanceUse,
    ) -> Result<(u64, Option<u64>), Denied> {
        let (book, journal) = (&self.local.book, &self.local.journal);
        let unlimited = Demand {
            messages: None,
            tokens: None,
            output: leased.output,
            message_id: None,
            ..demand.clone()
        };
        if demand.message_id.is_none() {
            return Ok((book.reserve(&unlimited, journal)?.hold, None));
        }
        let booked = book.reserve_covered(&unlimited, journal)?.hold;
        match book.reserve(&message(demand.license, demand.now, &demand.about), journal) {
            Ok(message) => Ok((booked, Some(message.hold))),
            Err(denied) => {
                book.settle(booked, Charge::NOTHING, journal);
                Err(denied)
            }
        }
    }

    /// The store has said whether a request that ended pays a message after all.
    pub(super) fn decided(&self, license: LicenseId, ended: &EndedReservation, owes: bool) {
        let (book, journal) = (&self.local.book, &self.local.journal);
        match ended.message {
            Some(message) if owes => {
                let charge = Charge { about: Some(ended.about.clone()), ..Charge::vanished(0) };
                let settle = || book.settle(message, charge, journal);
                self.holds.settle_late(&license, ended, settle);
                let _ = self.said.send(SyncMessage::Settled { license });
            }
            Some(message) => book.settle(message, Charge::NOTHING, journal),
            None if owes => self.charge_late(license, ended),
            None => {}
        }
    }

    /// Charges the messages of which the store has yet to say who pays them: another process can't be told.
    pub(super) fn charge_undecided(&self) {
        let (book, journal) = (&self.local.book, &self.local.journal);
        for message in self.holds.take_undecided() {
            book.settle(message, Charge::vanished(0), journal);
        }
    }
}
