//! The kernel's ports without a machine behind them: a chain built on these can be looked at, and
//! refuses everything if it is run.

use std::sync::Arc;

use gatekeeper_filters::kernel::{
    Asking, Balance, Charge, Demand, Denied, Expenses, Grant, Ledger, LicenseId, Licenses, Limit,
    Models, Pace, Record, Services, Standing, StoreDown, Target, TooFast, UnixMs, async_trait,
};

struct Inert;

pub fn services(models: Arc<Models>, buy_url: Option<Arc<str>>) -> Services {
    let (licenses, ledger, expenses) = (Arc::new(Inert), Arc::new(Inert), Arc::new(Inert));
    Services { licenses, ledger, expenses, models, buy_url }
}

#[async_trait]
impl Licenses for Inert {
    async fn check(&self, _: &Asking<'_>) -> Standing {
        Standing::Unknown { why: "no machine behind the chain" }
    }
}

impl Expenses for Inert {
    fn spend(&self, _: &Target, _: u64, _: UnixMs) {}
}

#[async_trait]
impl Ledger for Inert {
    async fn enter(&self, _: &Pace, _: UnixMs) -> Result<(), TooFast> {
        Err(TooFast::StoreDown)
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
