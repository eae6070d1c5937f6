//! All licences of a Lemon Squeezy store, by its main API: page by page, whatever becomes of a page.

use serde_json::{Value, json};

use crate::{
    license_admin::operator::show,
    licenses::{issued::issued, moving_in::import},
    support::{
        Config, Gateway, LemonSqueezyStore, Mock, Reply,
        lemonsqueezy_store::{Fault, SoldKey},
    },
};

const PRO: u64 = 912_744;
const HEAD: [&str; 3] = ["lemonsqueezy", "--api-key", "env:LS_API_KEY"];

fn config(mock: &Mock) -> Config {
    issued(mock).of_shop(
        "issued",
        "lemonsqueezy_api",
        "{ store_id: 58213, variants: { pro: 912744 }, products: { pro: 588102 } }",
    )
}

fn key(nth: usize) -> String {
    format!("{nth:08x}-7b4d-4e8a-9d60-5c1b8e7f2a34")
}

fn sold(nth: usize) -> SoldKey {
    SoldKey {
        key: key(nth),
        variant: PRO,
        status: "inactive",
        until: None,
        limit: Some(3),
        instances: Vec::new(),
    }
}

async fn started(per_page: usize, licences: usize) -> (Mock, LemonSqueezyStore, Gateway) {
    let mock = Mock::start(Reply::chat()).await;
    let store = LemonSqueezyStore::start(per_page).await;
    (0..licences).for_each(|nth| store.sold(sold(nth)));
    let gateway = Gateway::start(config(&mock)).await;
    (mock, store, gateway)
}

/// The program runs for a moment, and the stand-ins of this process must answer it meanwhile.
async fn import_from(
    gateway: &Gateway,
    store: &LemonSqueezyStore,
    more: &[&str],
) -> (bool, String) {
    let url = store.url();
    let words = [&HEAD[..], &["--base-url", &url], more].concat();
    tokio::task::block_in_place(|| import(gateway, &words))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_moves_in_with_its_ends_limits_and_devices() {
    let (_mock, store, gateway) = started(2, 5).await;
    store.change(1, |one| {
        (one.status, one.until) = ("expired", Some("2026-02-03T04:05:06.000000Z"));
    });
    store.change(2, |one| one.status = "disabled");
    let device = ("f90ec370-fd83-46a5-8bbd-44a241e78665", "MAREN-LAPTOP");
    store.change(3, |one| {
        one.status = "active";
        one.until = Some("2100-02-03T04:05:06.000000Z");
        one.instances = vec![(device.0.into(), device.1.into())];
    });
    store.change(4, |one| one.variant = 1);
    let (fine, said) = import_from(&gateway, &store, &["--dry-run"]).await;
    assert!(!fine, "a variant that is no plan: {said}");
    assert!(
        said.contains("line 4: new, plan pro, active, until 2100-02-03T04:05:06Z, 1 device"),
        "{said}"
    );
    assert!(said.contains("line 5: wrong: plan: there is no plan"), "{said}");
    assert!(said.contains("Would be imported: 4 new, 0 changed, 0 unchanged, 1 wrong"), "{said}");
    assert_eq!(store.asked(), [1, 2, 3]);
    gateway.app().chat_as(&key(0)).await.is(403, "license_invalid");
    store.change(4, |one| one.variant = PRO);

    let (fine, said) = import_from(&gateway, &store, &[]).await;
    assert!(fine && said.contains("Imported: 5 new, 0 changed, 0 unchanged, 0 wrong"), "{said}");
    let (fine, said) = import_from(&gateway, &store, &[]).await;
    assert!(fine && said.contains("Imported: 0 new, 0 changed, 5 unchanged, 0 wrong"), "{said}");
    gateway.app().chat_as(&key(0).to_uppercase()).await.ok();
    gateway.app().chat_as(&key(1)).await.is(403, "license_expired");
    gateway.app().chat_as(&key(2)).await.is(403, "license_disabled");
    let shown = show(&gateway, &key(3)).await;
    assert_eq!(shown["devices"], json!({ "used": 1, "max": 3 }), "{shown}");
    assert_eq!(shown["until"], "2100-02-03T04:05:06Z");
    // Its app goes on as if nothing had happened.
    let form = [("license_key", &*key(3)), ("instance_id", device.0)];
    let answer = gateway.app().request("POST", "/v1/licenses/validate").form(&form);
    let said: Value = answer.send().await.unwrap().json().await.unwrap();
    assert_eq!(
        (&said["valid"], &said["instance"]["name"]),
        (&json!(true), &json!(device.1)),
        "{said}"
    );
    assert_eq!(said["meta"]["order_id"], 703);
    assert_eq!(
        (&said["meta"]["customer_name"], &said["meta"]["customer_email"]),
        (&json!(""), &json!(""))
    );
    // Nothing is kept of who the buyer is.
    let logs = gateway.logs();
    for private in ["Musterfrau", "maren@example.com", &key(0)] {
        assert!(!logs.contains(private), "{private}");
    }
    // What the shop changed since comes along.
    store.change(0, |one| one.status = "disabled");
    let (_, said) = import_from(&gateway, &store, &[]).await;
    assert!(said.contains("0 new, 1 changed, 4 unchanged"), "{said}");
    gateway.app().chat_as(&key(0)).await.is(403, "license_disabled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_fails_for_a_moment_is_asked_for_again() {
    let (_mock, store, gateway) = started(2, 6).await;
    store.fails(1, &[Fault::Status(429, Some(1))]);
    let broken = [Fault::Status(503, None), Fault::Body("<html>one moment</html>"), Fault::Cut];
    store.fails(2, &broken);
    store.fails(3, &[Fault::Body("{\"data\":null}")]);
    let (fine, said) = import_from(&gateway, &store, &[]).await;
    assert!(fine && said.contains("Imported: 6 new"), "{said}");
    assert_eq!(store.asked(), [1, 1, 2, 2, 2, 2, 3, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off_it_keeps_what_is_in_and_goes_on_when_it_is_run_again() {
    let (_mock, store, gateway) = started(2, 6).await;
    store.fails(2, &[const { Fault::Status(500, None) }; 5]);
    let (fine, said) = import_from(&gateway, &store, &[]).await;
    assert!(!fine && said.contains("Imported so far: 2 new"), "{said}");
    assert!(said.contains("run it again") && said.contains("page 2: status 500"), "{said}");
    gateway.app().chat_as(&key(1)).await.ok();
    gateway.app().chat_as(&key(2)).await.is(403, "license_invalid");
    let (fine, said) = import_from(&gateway, &store, &[]).await;
    assert!(fine && said.contains("Imported: 4 new, 0 changed, 2 unchanged, 0 wrong"), "{said}");
    gateway.app().chat_as(&key(5)).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_the_shop_refuses_is_told_and_shown_nowhere() {
    let (_mock, store, gateway) = started(2, 2).await;
    let url = store.url();
    let words = ["lemonsqueezy", "--api-key", "env:GATEKEEPER_TEST_KEK", "--base-url", &url];
    let (fine, said) = tokio::task::block_in_place(|| import(&gateway, &words));
    assert!(!fine && said.contains("refuses the API key (status 401)"), "{said}");
    assert!(!said.contains(crate::support::yaml::KEK), "{said}");
    let (fine, said) = tokio::task::block_in_place(|| import(&gateway, &["lemonsqueezy"]));
    assert!(!fine && said.contains("--api-key env:NAME"), "{said}");
}
