//! The kernel's ports without a machine behind them: a chain built on these can be looked at, and
//! refuses everything if it is run.

use std::sync::Arc;

use gatekeeper_filters::kernel::{
    Balance, Charge, CostSink, Demand, Denied, Grant, Ledger, LicenseId, LicenseQuery,
    LicenseStatus, Licenses, Limit, Models, RateRefused, RateRequest, Record, Services, StoreDown,
    Target, UnixMs, async_trait,
};

struct NullPorts;

pub fn services(models: Arc<Models>, buy_url: Option<Arc<str>>) -> Services {
    let (licenses, ledger, expenses) =
        (Arc::new(NullPorts), Arc::new(NullPorts), Arc::new(NullPorts));
    Services { licenses, ledger, expenses, models, buy_url }
}

#[async_trait]
impl Licenses for NullPorts {
    async fn check(&self, _: &LicenseQuery<'_>) -> LicenseStatus {
        LicenseStatus::Unknown { why: "no machine behind the chain" }
    }
}

impl CostSink for NullPorts {
    fn spend(&self, _: &Target, _: u64, _: UnixMs) {}
}

#[async_trait]
impl Ledger for NullPorts {
    async fn enter(&self, _: &RateRequest, _: UnixMs) -> Result<(), RateRefused> {
        Err(RateRefused::StoreDown)
    }

    fn leave(&self, _: &LicenseId) {}

    async fn reserve(&self, _: &Demand) -> Result<Grant, Denied> {
        Err(Denied::StoreDown)
    }

    fn settle(&self, _: u64, _: Charge) {}

    async fn balance(
        &self,
        _: &LicenseId,
        _: Option<Limit>,
        _: Option<Limit>,
        _: UnixMs,
    ) -> Result<Balance, StoreDown> {
        Err(StoreDown)
    }

    fn record(&self, _: Record) {}
}
