//! Cancels a reservation that is abandoned while the store decides on it.

use gatekeeper_filters::kernel::{Demand, LicenseId, UnixMs};

use super::{
    DistributedLedger,
    conversation_day::ConversationDay,
    open_reservations::{OpenMessage, OpenReservation},
    scripts::CancelArgs,
    sync_message::SyncMessage,
};

/// A reservation under way to the store. Dropping it before it is granted cancels it there.
pub struct PendingReserve<'a> {
    ledger: &'a DistributedLedger,
    license: LicenseId,
    pub group: Option<OpenMessage>,
    pub hold: u64,
    /// The day whose conversations may have counted it.
    pub conversation_day: Option<ConversationDay>,
    /// When it was first sent, while a reply is outstanding.
    pub sent_at: Option<UnixMs>,
    is_open: bool,
}

impl<'a> PendingReserve<'a> {
    pub fn begin(ledger: &'a DistributedLedger, demand: &Demand) -> Self {
        let license = demand.license;
        let group = demand.message_id.as_deref().map(|id| ledger.scripts.group(&license, id));
        let hold = ledger.reservations.begin(&license);
        Self { ledger, license, group, hold, conversation_day: None, sent_at: None, is_open: true }
    }

    pub fn granted(&mut self, open: OpenReservation) -> u64 {
        self.is_open = false;
        self.ledger.reservations.open(self.hold, open);
        self.hold
    }
}

impl Drop for PendingReserve<'_> {
    /// The store may have granted it, or may do so any moment: it stays listed until the store has
    /// cancelled it.
    fn drop(&mut self) {
        if !self.is_open {
            return;
        }
        match self.sent_at {
            None => self.ledger.reservations.end(self.hold),
            Some(taken) => {
                let (license, hold, group) = (self.license, self.hold, self.group.take());
                let cancel = CancelArgs {
                    license,
                    hold,
                    group,
                    conversation_day: self.conversation_day,
                    taken,
                };
                let _ = self.ledger.sync_queue.send(SyncMessage::Cancel(cancel));
            }
        }
    }
}
