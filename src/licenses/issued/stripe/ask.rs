//! Questions to Stripe about one purchase.

use gatekeeper_filters::kernel::UnixMs;
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::{
    config::settings::{BaseUrl, IssuedAccount},
    licenses::{issued::book::IssuedBook, shop_client::ShopClient},
    shops::{
        ShopResponse,
        stripe::{self, Payment, StripeObject, SubscriptionFacts},
    },
};

/// A page of 100 events has some hundred KiB.
const LONGEST_ANSWER: usize = 8 << 20;

/// No usable answer from Stripe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StripeTrouble {
    #[error("Stripe does not answer: {0}")]
    Down(String),
    #[error("Stripe refuses our key for {0}: status {1}; give the restricted key this permission")]
    Denied(&'static str, u16),
    #[error("licenses.sources[].issued.stripe is not configured")]
    NotHere,
}

/// The state of a checkout session at Stripe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadPurchase {
    pub payment: Payment,
    pub is_live: bool,
    pub prices: Vec<String>,
    pub subscription: Option<SubscriptionFacts>,
    pub payment_id: Option<String>,
    pub customer: Option<String>,
    /// The charge that was given back or is disputed, and its second.
    pub stop: Option<(String, u64)>,
}

/// An asker with the address and the key of one configuration.
pub(super) struct StripeCalls<'a> {
    client: &'a ShopClient,
    base: &'a BaseUrl,
    account: &'a IssuedAccount,
}

impl IssuedBook {
    pub(super) fn calls(&self) -> Result<StripeCalls<'_>, StripeTrouble> {
        let base = self.account.stripe_base.as_ref().ok_or(StripeTrouble::NotHere)?;
        Ok(StripeCalls { client: &self.validator.client, base, account: &self.account })
    }
}

impl StripeCalls<'_> {
    /// One answer; null for an object that is not there, or can't be asked for so.
    pub(super) async fn get(
        &self,
        what: &'static str,
        path: String,
    ) -> Result<Value, StripeTrouble> {
        let key = self.account.source.stripe.as_ref().and_then(|stripe| stripe.api_key.as_ref());
        let request = stripe::get(path, key);
        let answer = self.client.send_for(self.base, &request, LONGEST_ANSWER).await;
        read(what, answer.map_err(|trouble| StripeTrouble::Down(trouble.to_string()))?)
    }

    pub(super) async fn object(&self, of: StripeObject, id: &str) -> Result<Value, StripeTrouble> {
        let what = match of {
            StripeObject::Session => "Checkout Sessions",
            StripeObject::Subscription => "Subscriptions",
            StripeObject::Intent => "PaymentIntents",
            StripeObject::Charge => "Charges and Refunds",
            StripeObject::Dispute => "Disputes",
            StripeObject::Invoice => "Invoices",
        };
        match of.path(id) {
            Some(path) => self.get(what, path).await,
            None => Ok(Value::Null),
        }
    }

    /// An object that is expanded already, or only named.
    async fn resolved(&self, of: StripeObject, value: &Value) -> Result<Value, StripeTrouble> {
        match value.as_str() {
            Some(id) => self.object(of, id).await,
            None => Ok(value.clone()),
        }
    }

    /// `None` where there is no such session.
    pub(super) async fn purchase(
        &self,
        session: &str,
    ) -> Result<Option<ReadPurchase>, StripeTrouble> {
        let found = self.object(StripeObject::Session, session).await?;
        let Some(is_live) = found["livemode"].as_bool() else { return Ok(None) };
        let mut prices = stripe::prices(&found["line_items"]);
        if prices.is_empty()
            && let Some(path) = stripe::items_of(session)
        {
            prices = stripe::prices(&self.get("Checkout Sessions", path).await?);
        }
        let subscription =
            self.resolved(StripeObject::Subscription, &found["subscription"]).await?;
        let intent = self.resolved(StripeObject::Intent, &found["payment_intent"]).await?;
        let charge = match subscription.is_null() {
            true => intent["latest_charge"].clone(),
            false => self.charge_of_invoice(&subscription["latest_invoice"]).await?,
        };
        Ok(Some(ReadPurchase {
            payment: stripe::payment(&found),
            is_live,
            prices,
            subscription: stripe::subscription(&subscription),
            payment_id: stripe::id_of(&intent).map(str::to_owned),
            customer: stripe::id_of(&found["customer"]).map(str::to_owned),
            stop: self.stop(&charge).await?,
        }))
    }

    /// A subscription, and the stop of its latest charge.
    pub(super) async fn subscription(
        &self,
        id: &str,
    ) -> Result<Option<(SubscriptionFacts, Option<(String, u64)>)>, StripeTrouble> {
        let found = self.object(StripeObject::Subscription, id).await?;
        let Some(facts) = stripe::subscription(&found) else { return Ok(None) };
        let charge = self.charge_of_invoice(&found["latest_invoice"]).await?;
        let stop = self.stop(&charge).await?;
        Ok(Some((facts, stop)))
    }

    async fn charge_of_invoice(&self, invoice: &Value) -> Result<Value, StripeTrouble> {
        let invoice = self.resolved(StripeObject::Invoice, invoice).await?;
        if !invoice["charge"].is_null() {
            return Ok(invoice["charge"].clone());
        }
        // Newer versions name the payment instead.
        let newer = &invoice["payments"]["data"][0]["payment"]["payment_intent"];
        let intent =
            if invoice["payment_intent"].is_null() { newer } else { &invoice["payment_intent"] };
        let intent = self.resolved(StripeObject::Intent, intent).await?;
        Ok(intent["latest_charge"].clone())
    }

    /// The charge, where its money was given back or is fought over.
    pub(super) async fn stop(
        &self,
        charge: &Value,
    ) -> Result<Option<(String, u64)>, StripeTrouble> {
        let charge = self.resolved(StripeObject::Charge, charge).await?;
        let Some(facts) = stripe::charge(&charge) else { return Ok(None) };
        let is_stopped =
            facts.is_refunded || facts.is_disputed && self.is_kept(&charge, &facts.id).await?;
        Ok(is_stopped.then_some((facts.id, facts.created)))
    }

    async fn is_kept(&self, charge: &Value, id: &str) -> Result<bool, StripeTrouble> {
        let named = self.resolved(StripeObject::Dispute, &charge["dispute"]).await?;
        if named["status"].is_string() {
            return Ok(stripe::is_kept(&named));
        }
        let Some(path) = stripe::disputes_of(id) else { return Ok(true) };
        let list = self.get("Disputes", path).await?;
        let disputes = list["data"].as_array();
        // A dispute that can't be fetched counts as open.
        Ok(disputes.is_none_or(|disputes| disputes.iter().any(stripe::is_kept)))
    }
}

fn read(what: &'static str, answer: ShopResponse) -> Result<Value, StripeTrouble> {
    match answer.status {
        200 => serde_json::from_slice(&answer.body)
            .map_err(|_| StripeTrouble::Down("an answer that is no JSON".into())),
        400 | 404 => Ok(Value::Null),
        status @ (401 | 403) => Err(StripeTrouble::Denied(what, status)),
        status => Err(StripeTrouble::Down(format!("status {status}"))),
    }
}

/// Tries what the restricted key must be permitted: each permission, and what is wrong with it.
///
/// # Errors
/// TLS can't be set up.
pub async fn try_permissions(
    account: &IssuedAccount,
) -> anyhow::Result<Vec<(&'static str, Option<StripeTrouble>)>> {
    let Some(base) = &account.stripe_base else { return Ok(Vec::new()) };
    let client = ShopClient::new()?;
    let calls = StripeCalls { client: &client, base, account };
    let mut tried = Vec::new();
    for (what, path) in stripe::PERMISSIONS {
        tried.push((what, calls.get(what, path.to_owned()).await.err()));
    }
    Ok(tried)
}

/// Whether our key is of the mode of an object.
pub(super) fn is_of_mode(account: &IssuedAccount, is_live: bool) -> bool {
    account.source.stripe.as_ref().is_some_and(|stripe| {
        let has_key = stripe.api_key.as_ref().is_some_and(|key| !key.expose_secret().is_empty());
        has_key && stripe.is_live() == is_live
    })
}

/// In seconds.
pub(super) fn seconds(at: UnixMs) -> u64 {
    at.0 / 1000
}
