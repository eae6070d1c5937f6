use gatekeeper_filters::kernel::UnixMs;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;

use super::{
    event::{SignatureError, StripeSubject, read, signature},
    *,
};

const NOW: UnixMs = UnixMs(1_800_000_000_000);

fn v1(secret: &str, at: u64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{at}.").as_bytes());
    mac.update(body);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_signature_is_of_the_raw_body_and_of_one_of_several_secrets() {
    let (at, body) = (NOW.0 / 1000, br#"{"id": "evt_1" }"#);
    let (old, new) = (v1("whsec_old", at, body), v1("whsec_new", at, body));
    let header = format!("t={at},v1={old},v0={new},v1={new}");
    let signed = signature(Some(&header), NOW).unwrap();
    assert!(signed.is_of("whsec_old", body) && signed.is_of("whsec_new", body));
    assert!(!signed.is_of("whsec_other", body) && !signed.is_of("whsec_new", b"{}"));
    for late in [at - 301, at + 301] {
        let header = format!("t={late},v1={}", v1("s", late, body));
        assert_eq!(signature(Some(&header), NOW), Err(SignatureError::Skewed));
    }
    for missing in
        ["", "t=1", "v1=00", &format!("t={at},v1=zz"), &format!("t={at},t={at},v1={new}")]
    {
        assert_eq!(signature(Some(missing), NOW), Err(SignatureError::Missing), "{missing}");
    }
    assert_eq!(signature(None, NOW), Err(SignatureError::Missing));
}

#[test]
fn an_event_names_an_object_and_nothing_it_says_is_kept() {
    let event = |kind: &str, object: Value| {
        let event = json!({
            "id": "evt_1", "created": 7, "livemode": true, "type": kind, "data": { "object": object },
        });
        read(&event).unwrap().subject
    };
    let session = StripeSubject::Session("cs_live_a1".into());
    assert_eq!(event("checkout.session.completed", json!({ "id": "cs_live_a1" })), Some(session));
    let invoice =
        json!({ "id": "in_1", "parent": { "subscription_details": { "subscription": "sub_1" } } });
    assert_eq!(
        event("invoice.paid", invoice),
        Some(StripeSubject::Invoice { id: "in_1".into(), subscription: Some("sub_1".into()) })
    );
    let summary = json!({ "customer": "cus_1", "entitlements": { "data": [] } });
    assert_eq!(
        event("entitlements.active_entitlement_summary.updated", summary),
        Some(StripeSubject::Customer("cus_1".into()))
    );
    assert_eq!(event("invoice.created", json!({ "id": "in_1" })), None);
    assert_eq!(event("charge.refunded", json!({ "id": "ch_1/../x" })), None);
}

#[test]
fn a_subscription_holds_as_long_as_it_was_paid() {
    let of = |status: &str| {
        subscription(&json!({
            "id": "sub_1", "status": status, "livemode": true, "customer": "cus_1",
            "items": { "data": [{
                "price": { "id": "price_1" }, "current_period_start": 100, "current_period_end": 200,
            }] },
        }))
        .unwrap()
    };
    let active = of("active");
    assert_eq!((active.standing, active.paid_until), (Standing::Active, Some(200)));
    assert_eq!(
        (&*active.prices, active.customer),
        (&["price_1".to_owned()][..], Some("cus_1".into()))
    );
    assert_eq!(of("past_due").paid_until, Some(100), "the new period is not paid");
    assert_eq!(of("paused").standing, Standing::Paused);
    assert_eq!(of("canceled").standing, Standing::Ended);
    assert_eq!(of("incomplete_expired").standing, Standing::Ended);
}

#[test]
fn only_whole_payments_of_complete_sessions_count() {
    for (status, paid, means) in [
        ("complete", "paid", Payment::Paid),
        ("complete", "no_payment_required", Payment::Paid),
        ("complete", "unpaid", Payment::Open),
        ("open", "paid", Payment::Open),
        ("open", "unpaid", Payment::Open),
        ("expired", "unpaid", Payment::Never),
    ] {
        let session = json!({ "status": status, "payment_status": paid });
        assert_eq!(payment(&session), means, "{status} {paid}");
    }
}

#[test]
fn disputes_keep_the_money_unless_they_are_won() {
    for (status, kept) in [
        ("needs_response", true),
        ("under_review", true),
        ("lost", true),
        ("won", false),
        ("warning_needs_response", false),
        ("warning_closed", false),
    ] {
        assert_eq!(is_kept(&json!({ "status": status })), kept, "{status}");
    }
}

#[test]
fn session_ids_have_a_shape() {
    assert!(is_session("cs_test_a1B2c3D4e5") && is_session("cs_live_a1B2c3D4e5"));
    let long = format!("cs_live_{}", "a".repeat(260));
    for wrong in
        ["", "cs_", "cs_live_", "cs_live_a", "pi_live_a1B2c3D4e5", "cs_live_a1/../B2c3D4", &long]
    {
        assert!(!is_session(wrong), "{wrong}");
    }
}
