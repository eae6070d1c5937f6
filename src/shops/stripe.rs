//! Stripe takes payments and issues no keys: reads its objects, as pure functions.
//!
//! Objects are requested in one version of its API, whatever version the account has; forms of newer
//! versions are accepted, too. Webhook events only name objects.

pub mod event;

use serde_json::Value;

use super::{ShopRequest, wire::segment};

/// The version in which objects are asked for: the last in which a charge names its invoice
/// (<https://docs.stripe.com/changelog>).
const VERSION: (&str, &str) = ("stripe-version", "2025-02-24.acacia");
/// Longest id of an object.
const LONGEST_ID: usize = 255;

/// What a checkout session is expanded by.
const SESSION: &str = "expand[]=line_items&expand[]=payment_intent.latest_charge\
                       &expand[]=subscription.latest_invoice.charge";
const SUBSCRIPTION: &str = "expand[]=latest_invoice.charge";
const INTENT: &str = "expand[]=latest_charge";

/// An object that is asked for by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StripeObject {
    Session,
    Subscription,
    Intent,
    Charge,
    Dispute,
    Invoice,
}

impl StripeObject {
    fn parts(self) -> (&'static str, &'static str) {
        match self {
            StripeObject::Session => ("checkout/sessions", SESSION),
            StripeObject::Subscription => ("subscriptions", SUBSCRIPTION),
            StripeObject::Intent => ("payment_intents", INTENT),
            StripeObject::Charge => ("charges", ""),
            StripeObject::Dispute => ("disputes", ""),
            StripeObject::Invoice => ("invoices", ""),
        }
    }

    /// Its address below Stripe's; `None` for what is no id.
    pub fn path(self, id: &str) -> Option<String> {
        let (place, query) = self.parts();
        let query = if query.is_empty() { String::new() } else { format!("?{query}") };
        is_id(id).then(|| format!("/v1/{place}/{}{query}", segment(id)))
    }
}

/// A request with our key.
pub fn get(path: String, api_key: Option<&secrecy::SecretString>) -> ShopRequest {
    ShopRequest { extra: Some(VERSION), ..ShopRequest::get(path).bearer(api_key) }
}

/// Sessions that led to a payment or a subscription.
pub fn sessions_of(member: &str, id: &str) -> Option<String> {
    is_id(id).then(|| format!("/v1/checkout/sessions?{member}={}&limit=10", segment(id)))
}

pub fn items_of(session: &str) -> Option<String> {
    is_id(session)
        .then(|| format!("/v1/checkout/sessions/{}/line_items?limit=100", segment(session)))
}

pub fn disputes_of(charge: &str) -> Option<String> {
    is_id(charge).then(|| format!("/v1/disputes?charge={}&limit=10", segment(charge)))
}

/// What `check --online` tries, each a permission of the restricted key.
pub const PERMISSIONS: [(&str, &str); 7] = [
    ("Checkout Sessions", "/v1/checkout/sessions?limit=1"),
    ("Subscriptions", "/v1/subscriptions?limit=1"),
    ("PaymentIntents", "/v1/payment_intents?limit=1"),
    ("Charges and Refunds", "/v1/charges?limit=1"),
    ("Disputes", "/v1/disputes?limit=1"),
    ("Invoices", "/v1/invoices?limit=1"),
    ("Events", "/v1/events?limit=1"),
];

pub fn is_id(text: &str) -> bool {
    (4..=LONGEST_ID).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The shape of a checkout session's id.
pub fn is_session(text: &str) -> bool {
    is_id(text)
        && text
            .strip_prefix("cs_")
            .and_then(|rest| rest.strip_prefix("test_").or(rest.strip_prefix("live_")))
            .is_some_and(|rest| rest.len() >= 8 && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// The id of an object, where it is expanded or not.
pub fn id_of(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["id"].as_str()).filter(|id| is_id(id))
}

/// How a subscription stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Active,
    Paused,
    Ended,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionFacts {
    pub id: String,
    pub standing: Standing,
    /// The end of what was paid, in seconds.
    pub paid_until: Option<u64>,
    pub period_start: u64,
    pub prices: Vec<String>,
    pub customer: Option<String>,
    pub is_live: bool,
}

/// `None` where it is no subscription.
pub fn subscription(value: &Value) -> Option<SubscriptionFacts> {
    let id = value["id"].as_str()?;
    let items = value["items"]["data"].as_array();
    // Newer versions have the period on each item.
    let of_items =
        |name: &str| items.into_iter().flatten().filter_map(|item| item[name].as_u64()).max();
    let period = |name: &str| value[name].as_u64().or_else(|| of_items(name));
    let (start, end) = (period("current_period_start"), period("current_period_end"));
    let status = value["status"].as_str()?;
    let standing = match status {
        "active" | "trialing" | "past_due" | "unpaid" => Standing::Active,
        "paused" | "incomplete" => Standing::Paused,
        _ => Standing::Ended,
    };
    // The period goes on while its invoice is not paid: what was paid ended with the one before.
    let is_paid = matches!(status, "active" | "trialing");
    Some(SubscriptionFacts {
        id: id.to_owned(),
        standing,
        paid_until: if is_paid { end } else { start.or(end) },
        period_start: start.unwrap_or_default(),
        prices: prices(&value["items"]),
        customer: id_of(&value["customer"]).map(str::to_owned),
        is_live: value["livemode"].as_bool()?,
    })
}

/// The price ids of a list of items, in their order.
pub fn prices(list: &Value) -> Vec<String> {
    let items = list["data"].as_array().into_iter().flatten();
    let price = |item: &Value| {
        let price =
            id_of(&item["price"]).or_else(|| id_of(&item["pricing"]["price_details"]["price"]));
        price.map(str::to_owned)
    };
    items.filter_map(price).collect()
}

/// Whether a session is over and the money is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payment {
    Paid,
    /// It may still come.
    Open,
    Never,
}

pub fn payment(session: &Value) -> Payment {
    match (session["status"].as_str(), session["payment_status"].as_str()) {
        (Some("complete"), Some("paid" | "no_payment_required")) => Payment::Paid,
        (Some("expired"), _) => Payment::Never,
        _ => Payment::Open,
    }
}

/// What a charge means for the licence it paid for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChargeFacts {
    pub id: String,
    /// In seconds.
    pub created: u64,
    /// All of it was given back.
    pub is_refunded: bool,
    /// There is, or was, a dispute.
    pub is_disputed: bool,
    pub payment: Option<String>,
    pub invoice: Option<String>,
    pub customer: Option<String>,
}

pub fn charge(value: &Value) -> Option<ChargeFacts> {
    let text = |name: &str| id_of(&value[name]).map(str::to_owned);
    Some(ChargeFacts {
        id: value["id"].as_str()?.to_owned(),
        created: value["created"].as_u64().unwrap_or_default(),
        is_refunded: value["refunded"].as_bool().unwrap_or_default(),
        is_disputed: value["disputed"].as_bool().unwrap_or_default() || !value["dispute"].is_null(),
        payment: text("payment_intent"),
        invoice: text("invoice"),
        customer: text("customer"),
    })
}

/// Whether a dispute keeps the money: one that was won, and an inquiry, does not.
pub fn is_kept(dispute: &Value) -> bool {
    matches!(
        dispute["status"].as_str(),
        Some("needs_response" | "under_review" | "charge_refunded" | "lost")
    )
}

/// The subscription that an invoice is of.
pub fn subscription_of(invoice: &Value) -> Option<String> {
    let newer = &invoice["parent"]["subscription_details"]["subscription"];
    id_of(&invoice["subscription"]).or_else(|| id_of(newer)).map(str::to_owned)
}

#[cfg(test)]
mod tests;
