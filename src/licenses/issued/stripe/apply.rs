//! Applies the state of a purchase at Stripe to its licence.

use gatekeeper_filters::kernel::{LicenseId, UnixMs};

use super::ask::{ReadPurchase, StripeTrouble, is_of_mode};
use crate::{
    licenses::issued::{
        book::{IssueError, IssuedBook},
        mint::IssueRequest,
        record::{IssuedKind, IssuedLicense, IssuedStatus, StripeRefs},
        state::PurchaseOutcome,
    },
    shops::{
        issued::StripeSource,
        stripe::{self, StripeObject},
        stripe::{Payment, Standing, SubscriptionFacts, event::StripeSubject, sessions_of},
    },
};

/// A charge may be made a little before the period that it pays.
const EARLY: u64 = 86_400;

#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    #[error(transparent)]
    Stripe(#[from] StripeTrouble),
    #[error(transparent)]
    Issue(#[from] IssueError),
}

impl IssuedBook {
    /// Identifies the licence of a session.
    pub(super) fn order_of_session(&self, session: &str) -> String {
        self.validator.hasher.order("stripe", session)
    }

    /// Looks at what an event names; whether any licence is concerned.
    pub(super) async fn look(&self, subject: &StripeSubject) -> Result<bool, ApplyError> {
        match subject {
            StripeSubject::Session(id) => {
                let outcome = self.look_at_session(id).await?;
                Ok(outcome != PurchaseOutcome::Foreign)
            }
            StripeSubject::Subscription(id) => self.look_at_subscription(id).await,
            StripeSubject::Charge(id) => self.look_at_charge(id).await,
            StripeSubject::Dispute { id, charge } => {
                let found = self.calls()?.object(StripeObject::Dispute, id).await?;
                let charge = stripe::id_of(&found["charge"]).or(charge.as_deref());
                match charge {
                    Some(charge) => self.look_at_charge(charge).await,
                    None => Ok(false),
                }
            }
            StripeSubject::Invoice { id, subscription } => {
                let found = self.calls()?.object(StripeObject::Invoice, id).await?;
                let asked = stripe::subscription_of(&found);
                match asked.as_ref().or(subscription.as_ref()) {
                    Some(subscription) => self.look_at_subscription(subscription).await,
                    None => Ok(false),
                }
            }
            StripeSubject::Customer(id) => self.look_at_customer(id).await,
        }
    }

    /// Makes the licence of a session that was paid, once, or brings it up to date.
    pub(super) async fn look_at_session(&self, id: &str) -> Result<PurchaseOutcome, ApplyError> {
        let order = self.order_of_session(id);
        let order_id = self.order_record(&order);
        // Fetched under the lock: a later answer is never overwritten by an older one.
        let _alone = self.alone_order(&order_id).await?;
        let made = self.made_by(&order_id).await?;
        let Some(purchase) = self.calls()?.purchase(id).await? else {
            return Ok(PurchaseOutcome::Foreign);
        };
        let Some(source) = self.source.stripe.as_ref() else {
            return Ok(PurchaseOutcome::Foreign);
        };
        let license = self.license_of(source, &purchase);
        if let Some(licenses) = made {
            let Some(known) = licenses.first() else { return Ok(PurchaseOutcome::Foreign) };
            if let Some(license) = license {
                let refs = license.stripe.unwrap_or_default();
                self.apply(known, refs, license.price, license.until).await?;
            }
            return Ok(PurchaseOutcome::Licensed(*known));
        }
        let Some(license) = license.filter(|_| is_of_mode(&self.account, purchase.is_live)) else {
            return Ok(PurchaseOutcome::Foreign);
        };
        match (purchase.payment, license.status) {
            (Payment::Never, _) => return Ok(PurchaseOutcome::Foreign),
            (Payment::Open, _) => return Ok(PurchaseOutcome::Unpaid),
            (Payment::Paid, IssuedStatus::Refunded) => return Ok(PurchaseOutcome::Refunded),
            (Payment::Paid, _) => {}
        }
        let request = IssueRequest { order, count: 1, license, is_shown: false };
        let (minted, _) = self.issue_alone(&order_id, &request).await?;
        log::info!("Stripe: a purchase was made a licence. plan={}", request.license.plan);
        let id = minted.first().map(|minted| minted.id);
        id.map(PurchaseOutcome::Licensed).ok_or(IssueError::NotIssued.into())
    }

    /// What a purchase makes; `None` where none of its prices is sold here.
    fn license_of(&self, source: &StripeSource, purchase: &ReadPurchase) -> Option<IssuedLicense> {
        let of_subscription = purchase.subscription.iter().flat_map(|facts| &facts.prices);
        let mut prices = purchase.prices.iter().chain(of_subscription);
        let (price, plan) = prices.find_map(|price| Some((price, source.plan_of_price(price)?)))?;
        let mut refs = StripeRefs {
            payment: purchase.payment_id.clone(),
            customer: purchase.customer.clone(),
            stops: purchase.stop.iter().cloned().collect(),
            ..StripeRefs::default()
        };
        let mut until = None;
        let mut price = price.clone();
        if let Some(facts) = &purchase.subscription {
            until = set_subscription(&mut refs, source, facts);
            // The plan may have been changed since.
            let now = facts.prices.iter().find(|price| source.plan_of_price(price).is_some());
            price = now.cloned().unwrap_or(price);
        }
        Some(IssuedLicense {
            status: status(&refs),
            plan: plan.name.to_string(),
            price: Some(price),
            until,
            created: UnixMs::now(),
            origin: "stripe".into(),
            test: !purchase.is_live,
            stripe: Some(refs),
            ..IssuedLicense::default()
        })
    }

    async fn look_at_subscription(&self, id: &str) -> Result<bool, ApplyError> {
        let licenses = self.licenses_with(|refs| refs.subscription.as_deref() == Some(id));
        if licenses.is_empty() {
            return self.look_at_sessions("subscription", id).await;
        }
        for license in &licenses {
            self.refresh_subscription(license, id).await?;
        }
        Ok(true)
    }

    async fn refresh_subscription(&self, license: &LicenseId, id: &str) -> Result<(), ApplyError> {
        let _alone = self.alone(license).await?;
        let Some((facts, stop)) = self.calls()?.subscription(id).await? else { return Ok(()) };
        let (Some(source), known) = (&self.source.stripe, self.latest_license(license).await?)
        else {
            return Ok(());
        };
        let mut refs = known.stripe.clone().unwrap_or_default();
        let until = set_subscription(&mut refs, source, &facts);
        let price = facts.prices.iter().find(|price| source.plan_of_price(price).is_some());
        if let Some(stop) = stop
            && !refs.stops.contains(&stop)
        {
            refs.stops.push(stop);
        }
        let price = price.cloned().or_else(|| known.price.clone());
        self.apply_alone(license, known, refs, price, until).await?;
        Ok(())
    }

    async fn look_at_charge(&self, id: &str) -> Result<bool, ApplyError> {
        let calls = self.calls()?;
        let found = calls.object(StripeObject::Charge, id).await?;
        let Some(facts) = stripe::charge(&found) else { return Ok(false) };
        let payment = facts.payment.as_deref();
        let mut licenses = self.licenses_with(|refs| {
            payment.is_some() && refs.payment.as_deref() == payment
                || refs.stops.iter().any(|(charge, _)| *charge == facts.id)
        });
        let mut subscription = None;
        if licenses.is_empty()
            && let Some(invoice) = &facts.invoice
        {
            let invoice = calls.object(StripeObject::Invoice, invoice).await?;
            subscription = stripe::subscription_of(&invoice);
            licenses = self
                .licenses_with(|refs| subscription.is_some() && refs.subscription == subscription);
        }
        for license in &licenses {
            let _alone = self.alone(license).await?;
            // Again, under the lock.
            let found = calls.object(StripeObject::Charge, id).await?;
            let stop = calls.stop(&found).await?;
            let known = self.latest_license(license).await?;
            let mut refs = known.stripe.clone().unwrap_or_default();
            refs.stops.retain(|(charge, _)| *charge != facts.id);
            refs.stops.extend(stop);
            let (price, until) = (known.price.clone(), refs_until(&known));
            self.apply_alone(license, known, refs, price, until).await?;
        }
        if !licenses.is_empty() {
            return Ok(true);
        }
        if let Some(subscription) = &subscription {
            return self.look_at_subscription(subscription).await;
        }
        if let Some(payment) = payment
            && self.look_at_sessions("payment_intent", payment).await?
        {
            return Ok(true);
        }
        match &facts.customer {
            Some(customer) => self.look_at_customer(customer).await,
            None => Ok(false),
        }
    }

    /// All subscriptions of a customer.
    async fn look_at_customer(&self, id: &str) -> Result<bool, ApplyError> {
        let licenses = self.licenses_with(|refs| refs.customer.as_deref() == Some(id));
        for license in &licenses {
            let known = self.latest_license(license).await?;
            let subscription = known.stripe.and_then(|refs| refs.subscription);
            if let Some(subscription) = subscription {
                self.refresh_subscription(license, &subscription).await?;
            }
        }
        Ok(!licenses.is_empty())
    }

    /// The sessions that led to something unknown here.
    async fn look_at_sessions(&self, member: &str, id: &str) -> Result<bool, ApplyError> {
        let Some(path) = sessions_of(member, id) else { return Ok(false) };
        let list = self.calls()?.get("Checkout Sessions", path).await?;
        let mut is_ours = false;
        for session in list["data"].as_array().into_iter().flatten() {
            if let Some(id) = stripe::id_of(session) {
                is_ours |= self.look_at_session(id).await? != PurchaseOutcome::Foreign;
            }
        }
        Ok(is_ours)
    }

    fn licenses_with(&self, fits: impl Fn(&StripeRefs) -> bool) -> Vec<LicenseId> {
        let all = self.validator.memory_cache.all().filter_map(|(id, slot)| {
            let refs = slot.record.issued.as_ref()?.license()?.stripe.as_ref()?;
            fits(refs).then_some(id)
        });
        all.collect()
    }

    async fn apply(
        &self,
        id: &LicenseId,
        refs: StripeRefs,
        price: Option<String>,
        until: Option<UnixMs>,
    ) -> Result<(), IssueError> {
        let _alone = self.alone(id).await?;
        let known = match self.latest_license(id).await {
            Err(IssueError::NotIssued) => return Ok(()),
            known => known?,
        };
        let mut refs = refs;
        // Only the latest charge was asked about.
        for stop in known.stripe.iter().flat_map(|refs| &refs.stops) {
            if !refs.stops.contains(stop) {
                refs.stops.push(stop.clone());
            }
        }
        self.apply_alone(id, known, refs, price, until).await
    }

    /// Changes the licence where its state at Stripe changed: operators' changes since then stay.
    async fn apply_alone(
        &self,
        id: &LicenseId,
        known: IssuedLicense,
        mut refs: StripeRefs,
        price: Option<String>,
        until: Option<UnixMs>,
    ) -> Result<(), IssueError> {
        refs.stops.sort();
        refs.until = until;
        if known.stripe.as_ref() == Some(&refs) && known.price == price {
            return Ok(());
        }
        let before = known.stripe.clone().unwrap_or_default();
        let mut license = IssuedLicense { price, ..known };
        if before.until != refs.until || before.base != refs.base {
            license.until = until;
        }
        if status(&before) != status(&refs) || before.until != refs.until {
            license.status = status(&refs);
        }
        license.stripe = Some(refs);
        self.write(vec![(*id, IssuedKind::License(license))], UnixMs::now()).await
    }
}

/// The last end reported by Stripe.
fn refs_until(known: &IssuedLicense) -> Option<UnixMs> {
    known.stripe.as_ref().and_then(|refs| refs.until)
}

/// Takes a subscription in; the end that it gives the licence.
fn set_subscription(
    refs: &mut StripeRefs,
    source: &StripeSource,
    facts: &SubscriptionFacts,
) -> Option<UnixMs> {
    refs.subscription = Some(facts.id.clone());
    if facts.customer.is_some() {
        refs.customer.clone_from(&facts.customer);
    }
    refs.period_start = facts.period_start;
    refs.base = match facts.standing {
        Standing::Active => IssuedStatus::Active,
        Standing::Paused => IssuedStatus::Disabled,
        Standing::Ended => IssuedStatus::Expired,
    };
    let until = facts.paid_until.map(|end| UnixMs(end.saturating_mul(1000)).plus(source.grace));
    refs.until = until;
    until
}

/// The state that follows: money that was given back ends a licence, unless a later period was paid.
fn status(refs: &StripeRefs) -> IssuedStatus {
    let is_later_paid = |at: u64| {
        refs.base == IssuedStatus::Active
            && refs.subscription.is_some()
            && at.saturating_add(EARLY) < refs.period_start
    };
    match refs.stops.iter().any(|(_, at)| !is_later_paid(*at)) {
        true => IssuedStatus::Refunded,
        false => refs.base,
    }
}
