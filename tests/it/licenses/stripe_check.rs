//! `check --online` tries each permission that the restricted key at Stripe needs.

use std::process::Command;

use crate::{
    licenses::stripe::selling,
    support::{
        Mock, Reply, Stripe,
        gateway::{feed, program},
        stripe::SECRET,
        yaml::KEK,
    },
};

/// As Stripe's dashboard names them, in the order of docs/selling-own-licences.md.
const SCOPES: [(&str, &str); 7] = [
    ("Checkout Sessions", "checkout/sessions"),
    ("Subscriptions", "subscriptions"),
    ("PaymentIntents", "payment_intents"),
    ("Charges and Refunds", "charges"),
    ("Disputes", "disputes"),
    ("Invoices", "invoices"),
    ("Events", "events"),
];

async fn check(mock: &Mock, stripe: &Stripe, key: &str) -> (bool, String) {
    let dir = tempfile::tempdir().unwrap();
    selling(mock, stripe).file(dir.path());
    let mut command = Command::new(program());
    command.args(["check", "-c", "gatekeeper.yaml", "--online"]).current_dir(dir.path());
    command.env("GATEKEEPER_TEST_KEK", KEK).env("STRIPE_RK", key).env("STRIPE_SECRET", SECRET);
    let output = tokio::task::spawn_blocking(move || feed(command, "")).await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn check_online_tries_each_permission_of_the_restricted_key() {
    let (mock, stripe) = (Mock::start(Reply::chat()).await, Stripe::start().await);
    let key = "rk_test_0123456789";
    let (is_good, said) = check(&mock, &stripe, key).await;
    assert!(is_good, "{said}");
    for (scope, path) in SCOPES {
        assert!(said.contains(&format!("Stripe {scope}: good")), "{said}");
        assert_eq!(stripe.asked(&format!("/v1/{path}?limit=1")), 1, "{scope}");
    }
    // Each alone, so that no other one covers for it.
    for (scope, path) in SCOPES {
        stripe.denies(&[path]);
        let (is_good, said) = check(&mock, &stripe, key).await;
        assert!(!is_good && said.contains(&format!("Stripe {scope}: wrong")), "{scope}: {said}");
        assert_eq!(said.matches(": wrong").count(), 1, "{said}");
        assert!(said.contains("status 403") && !said.contains(key), "{said}");
    }
    stripe.denies(&[]);
    let (is_good, said) = check(&mock, &stripe, "sk_that_is_none_0").await;
    assert!(!is_good && said.contains("status 401"), "{said}");
    stripe.down(true);
    let (is_good, said) = check(&mock, &stripe, key).await;
    assert!(!is_good && said.contains("Stripe does not answer: status 500"), "{said}");
}
