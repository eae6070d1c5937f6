//! What the background sync is asked to send.

use gatekeeper_filters::kernel::LicenseId;
use tokio::sync::oneshot;

use super::scripts::CancelArgs;

/// What has to be told.
pub enum SyncMessage {
    /// Something of the licence was settled.
    Settled { license: LicenseId },
    /// Something was asked for, and it is not known whether the store granted it.
    GivenUp(CancelArgs),
    /// Something was refused, and part of what stands in the way is presumed of gateways: they may
    /// know better.
    Presumed { license: LicenseId },
    /// Another gateway met something that is presumed.
    Tell { license: LicenseId },
    /// An operator gave the licence something; told whether the store took it.
    Adjusted { license: LicenseId, done: oneshot::Sender<bool> },
    /// The store was found empty: the other gateways have to put back what they know, too.
    Lost,
    /// Another gateway wants to know whether this one has put back everything.
    Asked,
    /// Told when everything before it was.
    Flush(oneshot::Sender<()>),
}
