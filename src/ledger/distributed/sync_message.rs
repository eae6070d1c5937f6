//! Messages to the background sync task.

use gatekeeper_filters::kernel::LicenseId;
use tokio::sync::oneshot;

use super::scripts::CancelArgs;

pub enum SyncMessage {
    /// A request of the licence was settled.
    Settled { license: LicenseId },
    /// A reservation was abandoned, and it is unknown whether the store granted it.
    Cancel(CancelArgs),
    /// A request was refused partly because of usage that is presumed of gateways: their own figures may
    /// be lower.
    QueryPeers { license: LicenseId },
    /// Another gateway asks for the full state of a licence.
    SyncLicense { license: LicenseId },
    /// An operator adjusted the licence; `done` receives whether the store has applied it.
    Adjusted { license: LicenseId, done: oneshot::Sender<bool> },
    /// The store has lost data: the other gateways have to resynchronise, too.
    StoreLost,
    /// Another gateway asks whether this one has resynchronised.
    ResyncQueried,
    /// Completed when everything queued before it was processed.
    Flush(oneshot::Sender<()>),
}
