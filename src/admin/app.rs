//! What the admin listener serves from.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{assets::Assets, auth::AdminAuth, feed_broadcaster::FeedBroadcaster};
use crate::{
    license_admin::LicenseAdmin,
    lifecycle::Lifecycle,
    reload::{ReloadStatus, Reloader},
    runtime::snapshot::Snapshot,
    upgrade::SwitchableLedger,
    upstream::connector::Connector,
};

pub struct AdminApp {
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub operator: LicenseAdmin,
    pub phase: Arc<Lifecycle>,
    pub ledger: Arc<SwitchableLedger>,
    pub history: Arc<ReloadStatus>,
    /// Reads the file again, where there is one.
    pub reload: Option<Arc<Reloader>>,
    /// For probes.
    pub connector: Arc<Connector>,
    pub access: AdminAuth,
    pub hub: Arc<FeedBroadcaster>,
    pub page: Assets,
}
