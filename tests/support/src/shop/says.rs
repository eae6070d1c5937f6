//! What a shop says of one licence key, in the shape of its recorded answers.

use serde_json::{Value, json};

/// Buyers' data that the gateway sees and nobody else may.
pub const BUYER: &str = "Canarina Quillfeather";
pub const EMAIL: &str = "canary.buyer@mail.example";

/// The answer to one key, until the test sets another.
#[derive(Clone, Debug)]
pub struct Says {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Value,
}

impl Says {
    pub fn json(status: u16, body: Value) -> Self {
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        Self { status, headers, body }
    }

    /// A Lemon Squeezy licence of variant `Pro`, good for a hundred years.
    pub fn license() -> Self {
        let body = json!({
            "valid": true,
            "error": null,
            "license_key": {
                "id": 1_873_402,
                "status": "active",
                "key": null,
                "activation_limit": 3,
                "activation_usage": 0,
                "created_at": "2026-03-02T09:14:55.000000Z",
                "expires_at": "2127-03-02T09:14:55.000000Z",
                "test_mode": false,
            },
            "instance": null,
            "meta": {
                "store_id": 58213,
                "order_id": 6_120_947,
                "order_item_id": 6_083_311,
                "variant_id": 912_744,
                "variant_name": "Pro",
                "product_id": 588_102,
                "product_name": "Inkwell Desktop",
                "customer_id": 7_240_158,
                "customer_name": BUYER,
                "customer_email": EMAIL,
            },
        });
        Self::json(200, body)
    }

    /// The same, but `disabled` or `expired`.
    pub fn refused(status: &str) -> Self {
        Self::license()
            .with("/valid", json!(false))
            .with("/error", json!(format!("This license key is {status}.")))
            .with("/license_key/status", json!(status))
            .status(400)
    }

    /// What Lemon Squeezy says of a key it never sold.
    pub fn not_found() -> Self {
        let body = json!({
            "valid": false,
            "error": "license_key not found.",
            "license_key": null,
            "instance": null,
            "meta": null,
        });
        Self::json(404, body)
    }

    /// A Gumroad membership of variant `(Pro)`.
    pub fn membership() -> Self {
        Self::purchase("(Pro)")
            .with("/purchase/subscription_id", json!("Tg7wB_kLdQe-p3Hcbnvi5A=="))
            .with("/purchase/recurrence", json!("monthly"))
            .with("/purchase/subscription_ended_at", Value::Null)
            .with("/purchase/subscription_cancelled_at", Value::Null)
            .with("/purchase/subscription_failed_at", Value::Null)
    }

    /// A Gumroad licence that was paid once.
    pub fn sale() -> Self {
        Self::purchase("").with("/purchase/chargebacked", json!(false))
    }

    fn purchase(variants: &str) -> Self {
        let body = json!({
            "success": true,
            "uses": 3,
            "purchase": {
                "seller_id": "kP2vR8sLm0aQyTXB-OdMgw==",
                "product_id": super::PRODUCT,
                "product_name": "Inkwell Desktop Pro",
                "permalink": "inkwell",
                "email": EMAIL,
                "full_name": BUYER,
                "price": 1200,
                "order_number": 731_904_482,
                "sale_id": "mN4kZ-7aXcVbQ1yTrPwLsg==",
                "sale_timestamp": "2026-03-02T09:14:55Z",
                "license_key": null,
                "refunded": false,
                "disputed": false,
                "dispute_won": false,
                "id": "mN4kZ-7aXcVbQ1yTrPwLsg==",
                "created_at": "2026-03-02T09:14:55Z",
                "variants": variants,
                "custom_fields": [],
            },
        });
        Self::json(200, body)
    }

    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Sets a member, given as a JSON pointer, whether or not it was there.
    pub fn with(mut self, pointer: &str, value: Value) -> Self {
        let (parent, name) = pointer.rsplit_once('/').expect("a JSON pointer");
        self.body.pointer_mut(parent).expect("a parent of that name")[name] = value;
        self
    }
}
