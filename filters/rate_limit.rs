//! Not too fast, not too many at once: requests a period and open requests of one licence.

mod places;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::places::ConcurrencySlots;
pub use self::places::reserve_when_free;
use crate::kernel::{
    Code, Exchange, Filter, Hooks, Ledger, Outcome, Permit, Plan, RateRefused, RateRequest,
    Rejection, Services, Spec, Verdict, async_trait,
};

/// YAML: `rate_limit`, no options; the limits stand in the plan (`rate`, `concurrency`).
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {}

impl Spec for RateLimit {
    const NAME: &'static str = "rate_limit";
    const SUMMARY: &'static str = "holds a licence to its plan's `rate` and `concurrency` (429)";
    const AFTER: &'static [&'static str] = &["license"];

    fn build(self, services: &Services) -> Result<Arc<dyn Filter>, String> {
        Ok(Arc::new(RateLimitFilter {
            ledger: services.ledger.clone(),
            places: ConcurrencySlots::default(),
        }))
    }
}

struct RateLimitFilter {
    ledger: Arc<dyn Ledger>,
    places: ConcurrencySlots,
}

#[async_trait]
impl Filter for RateLimitFilter {
    fn hooks(&self) -> Hooks {
        Hooks::ADMIT.and(Hooks::SETTLE)
    }

    async fn admit(&self, exchange: &mut Exchange) -> Verdict {
        let Some(license) = &exchange.license else { return Ok(()) };
        let pace = RateRequest {
            license: license.id,
            rate: license.plan.rate,
            concurrency: license.plan.concurrency,
        };
        let plan = license.plan.clone();
        let mut entered = self.ledger.enter(&pace, exchange.now).await;
        if plan.concurrency_is_default && matches!(entered, Err(RateRefused::Concurrency { .. })) {
            // In a box of its own: every request carries this future, few come here.
            entered = Box::pin(self.places.enter(&*self.ledger, &pace)).await;
        }
        entered.map_err(|too_fast| reject(&plan, too_fast))?;
        exchange.permit = Some(Permit::new(self.ledger.clone(), pace));
        Ok(())
    }

    fn settle(&self, exchange: &mut Exchange, _outcome: &Outcome) {
        let Some(permit) = exchange.permit.take() else { return };
        let license = permit.pace.license;
        drop(permit);
        self.places.freed(&license);
    }
}

/// The refusal of a request that comes too soon.
pub fn reject(plan: &Plan, too_fast: RateRefused) -> Rejection {
    match too_fast {
        RateRefused::Rate { limit, retry_after } => Rejection::new(
            Code::RateLimited,
            format!(
                "Too many requests: your plan allows {} a {}. Please wait a moment.",
                limit.count,
                limit.per.name()
            ),
        )
        .retry_after(retry_after),
        RateRefused::Concurrency { limit } => {
            let default =
                if plan.concurrency_is_default { " (`concurrency`, the default)" } else { "" };
            let message = format!(
                "Your plan allows {limit} requests at one time{default}. Wait for one to finish."
            );
            Rejection::new(Code::RateLimited, message).retry_after(1)
        }
        RateRefused::StoreDown => store_unavailable(),
    }
}

/// The refusal when the ledger can't decide.
pub fn store_unavailable() -> Rejection {
    Rejection::new(
        Code::StoreUnavailable,
        "Your usage could not be checked just now. Please try again in a moment.",
    )
    .internal("the store does not answer")
    .retry_after(5)
}
