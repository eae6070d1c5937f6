//! Licences that were sold elsewhere become our own: from a list, or when a key is first used. And buyers who ask what
//! is known of them, or to be forgotten.

use std::{
    fs,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::{
    license_admin::operator::{done, order, show},
    licenses::{
        issued::{issue, issued},
        webhooks::{DISABLED, SECRET, send_signed},
    },
    support::{
        Config, Gateway, Mock, Mood, Reply, Says, Shop, eventually,
        gateway::{feed, program},
        lemonsqueezy_store::API_KEY,
        shop::{BOUGHT, license_key},
        yaml::KEK,
    },
};

pub fn import(gateway: &Gateway, words: &[&str]) -> (bool, String) {
    let file = gateway.dir.path().join("gatekeeper.yaml");
    let mut command = std::process::Command::new(program());
    command.args(["licenses", "import"]).args(words).arg("-c").arg(&file);
    command
        .current_dir(gateway.dir.path())
        .env("GATEKEEPER_TEST_KEK", KEK)
        .env("LS_API_KEY", API_KEY);
    let said = feed(command, "");
    let text = [said.stdout, said.stderr].concat();
    (said.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn list(dir: &Path) -> String {
    let path = dir.join("old.csv");
    let one = "11111111-7B4D-4E8A-9D60-5C1B8E7F2A34,pro,2100-01-31,active,2,58213,588102,912744,77,2026-01-02,dev-1 dev-2";
    let two = "\"22222222-7B4D-4E8A-9D60-5C1B8E7F2A34\",pro,,disabled,,,,,,,";
    let head = "key,plan,until,status,max_devices,store_id,product_id,variant_id,order_id,created_at,activation_ids";
    fs::write(&path, format!("{head}\n{one}\n{two}\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_looked_at_taken_in_and_changes_nothing_the_second_time() {
    let mock = Mock::start(Reply::chat()).await;
    let config = issued(&mock).of_shop(
        "issued",
        "lemonsqueezy_api",
        "{ store_id: 1, variants: { pro: 2 } }",
    );
    let gateway = Gateway::start(config).await;
    let file = list(gateway.dir.path());
    let one = "11111111-7B4D-4E8A-9D60-5C1B8E7F2A34";
    let (fine, said) = import(&gateway, &[&file, "--dry-run"]);
    assert!(
        fine && said
            .contains("line 2: new, plan pro, active, until 2100-01-31T23:59:59Z, 2 devices"),
        "{said}"
    );
    assert!(said.contains("Would be imported: 2 new, 0 changed"), "{said}");
    gateway.app().chat_as(one).await.is(403, "license_invalid");
    let (fine, said) = import(&gateway, &[&file]);
    assert!(fine && said.contains("Imported: 2 new, 0 changed, 0 unchanged, 0 wrong"), "{said}");
    let (_, said) = import(&gateway, &[&file]);
    assert!(said.contains("0 new, 0 changed, 2 unchanged"), "{said}");
    gateway.app().chat_as(one).await.ok();
    gateway.app().chat_as("22222222-7b4d-4e8a-9d60-5c1b8e7f2a34").await.is(403, "license_disabled");
    let shown = show(&gateway, one).await;
    assert_eq!(
        (&shown["source"], &shown["devices"]["used"]),
        (&json!("issued"), &json!(2)),
        "{shown}"
    );
    assert_eq!(shown["actions"][0]["action"], "import");
    // As its app asks for it.
    let form = [("license_key", one), ("instance_id", "dev-1")];
    let answer =
        gateway.app().request("POST", "/v1/licenses/validate").form(&form).send().await.unwrap();
    let said: Value = answer.json().await.unwrap();
    assert_eq!(
        (&said["valid"], &said["meta"]["variant_id"]),
        (&json!(true), &json!(912744)),
        "{said}"
    );
    assert_eq!((&said["meta"]["order_id"], &said["meta"]["store_id"]), (&json!(77), &json!(58213)));
    assert_eq!(said["license_key"]["created_at"], "2026-01-02T00:00:00.000000Z", "a day begins");
    // What an operator did since is not undone by the same list.
    done(&gateway, "expire", one, &json!({})).await;
    import(&gateway, &[&file]);
    gateway.app().chat_as(one).await.is(403, "license_expired");
    let wrong = gateway.dir.path().join("wrong.csv");
    fs::write(
        &wrong,
        "key,plan,until\nABCD-EFGH-1,gold,\nABCD-EFGH-2,pro,soon\nABCD-EFGH-3,pro,\n",
    )
    .unwrap();
    let (fine, said) = import(&gateway, &[wrong.to_str().unwrap()]);
    assert!(!fine && said.contains("line 2: wrong: plan: there is no plan `gold`"), "{said}");
    assert!(said.contains("line 3: wrong: until") && said.contains("1 new"), "{said}");
    // A key that stands twice: either line would undo the other, each time.
    let twice = gateway.dir.path().join("twice.csv");
    let lines = ["ABCD-EFGH-5,pro,", "abcd-efgh-5,pro,2100-01-31", "ABCD-EFGH-5,pro,"];
    fs::write(&twice, format!("key,plan,until\n{}\n", lines.join("\n"))).unwrap();
    for outcome in
        ["1 new, 0 changed, 1 unchanged, 1 wrong", "0 new, 0 changed, 2 unchanged, 1 wrong"]
    {
        let (fine, said) = import(&gateway, &[twice.to_str().unwrap()]);
        assert!(!fine && said.contains("line 3: wrong: key: line 2 has it, too"), "{said}");
        assert!(said.contains(outcome), "{said}");
    }
}

fn adopting(mock: &Mock, shop: &Shop) -> Config {
    issued(mock)
        .of_shop("issued", "adopt", "[lemonsqueezy]")
        .lemonsqueezy(shop)
        .webhook_secret("lemonsqueezy", SECRET)
}

#[tokio::test]
async fn whoever_used_the_app_once_needs_the_shop_no_more() {
    let (mock, shop) = (Mock::start(Reply::chat()).await, Shop::open().await);
    let mut gateway = Gateway::start(adopting(&mock, &shop)).await;
    shop.sells(BOUGHT, Says::license());
    gateway.app().chat_as(BOUGHT).await.ok();
    let shown = show(&gateway, BOUGHT).await;
    assert_eq!((&shown["source"], &shown["plan"]), (&json!("issued"), &json!("pro")), "{shown}");
    shop.mood(Mood::Status(404));
    gateway.app().chat_as(BOUGHT).await.ok();
    gateway.app().chat_as(&license_key(9)).await;
    // The shop is gone from the configuration, too.
    let without = issued(&mock).of_shop("issued", "adopt", "[lemonsqueezy]");
    gateway.config = without;
    gateway.restart().await;
    gateway.app().chat_as(BOUGHT).await.ok();
    assert_eq!(gateway.messages(BOUGHT).await, 3, "its usage came along");
}

#[tokio::test]
async fn a_word_of_the_shop_still_ends_what_was_adopted() {
    let (mock, shop) = (Mock::start(Reply::chat()).await, Shop::open().await);
    let gateway = Gateway::start(adopting(&mock, &shop)).await;
    shop.sells(BOUGHT, Says::license());
    gateway.app().chat_as(BOUGHT).await.ok();
    shop.sells(BOUGHT, Says::refused("disabled"));
    gateway.app().chat_as(BOUGHT).await.ok();
    assert_eq!(send_signed(&gateway, DISABLED).await.status, 200);
    eventually("the webhook has the shop asked", Duration::from_secs(5), || async {
        gateway.app().chat_as(BOUGHT).await.status == 403
    })
    .await;
    gateway.app().chat_as(BOUGHT).await.is(403, "license_disabled");
}

#[tokio::test]
async fn an_operators_word_holds_until_the_shop_says_something_else() {
    let (mock, shop) = (Mock::start(Reply::chat()).await, Shop::open().await);
    let gateway = Gateway::start(adopting(&mock, &shop)).await;
    shop.sells(BOUGHT, Says::license());
    gateway.app().chat_as(BOUGHT).await.ok();
    done(&gateway, "expire", BOUGHT, &json!({})).await;
    gateway.app().chat_as(BOUGHT).await.is(403, "license_expired");
    // Asked again, the shop says what it said before.
    let asked = shop.calls_for(BOUGHT).len();
    assert_eq!(send_signed(&gateway, DISABLED).await.status, 200);
    eventually("the shop is asked again", Duration::from_secs(5), || async {
        gateway.app().chat_as(BOUGHT).await.is(403, "license_expired");
        shop.calls_for(BOUGHT).len() > asked
    })
    .await;
    gateway.app().chat_as(BOUGHT).await.is(403, "license_expired");
    done(&gateway, "extend", BOUGHT, &json!({ "until": "2100-01-31" })).await;
    gateway.app().chat_as(BOUGHT).await.ok();
    shop.sells(BOUGHT, Says::refused("disabled"));
    assert_eq!(send_signed(&gateway, [DISABLED, b"\n"].concat()).await.status, 200);
    eventually("the shop's new word ends it", Duration::from_secs(5), || async {
        gateway.app().chat_as(BOUGHT).await.status == 403
    })
    .await;
    gateway.app().chat_as(BOUGHT).await.is(403, "license_disabled");
}

#[tokio::test]
async fn a_buyer_is_told_all_and_forgotten_for_good() {
    let mock = Mock::start(Reply::chat()).await;
    let mut gateway = Gateway::start(issued(&mock)).await;
    let key = &issue(&gateway, &json!({ "note": "Maren" })).await[0];
    gateway.app().chat_as(key).await.ok();
    let id = show(&gateway, key).await["license"].as_str().unwrap().to_owned();
    eventually("the request is written down", Duration::from_secs(5), || async {
        let told = order(&gateway, "export", &json!({ "key": key })).await.json();
        told["rows"]["requests"].as_array().is_some_and(|rows| rows.len() == 1)
    })
    .await;
    let told = order(&gateway, "export", &json!({ "key": key })).await;
    assert_eq!(told.status, 200, "{}", told.text());
    assert!(told.text().contains("Maren") && !told.text().contains("sealed:"), "{}", told.text());
    assert!(!told.text().contains(key.as_str()));
    let gone = order(&gateway, "forget", &json!({ "key": key })).await;
    assert_eq!(gone.status, 200, "{}", gone.text());
    gateway.app().chat_as(key).await.is(403, "license_disabled");
    gateway.restart().await;
    gateway.app().chat_as(key).await.is(403, "license_disabled");
    assert_eq!(order(&gateway, "list", &json!({})).await.json()["total"], 0);
    let again = order(&gateway, "export", &json!({ "license": id })).await;
    assert_eq!(again.status, 404, "{}", again.text());
}

/// How long ago the licences were forgotten; it is written into the store of a gateway that does not run.
fn forgotten_before(gateway: &Gateway, days: u64) {
    let store = rusqlite::Connection::open(gateway.store()).unwrap();
    let at = (UNIX_EPOCH.elapsed().unwrap().as_secs() - days * 86_400) * 1000;
    let path = "$.issued.is.forgotten.at";
    let changed = store
        .execute(
            &format!("UPDATE licenses SET record = json_set(record, '{path}', {at}) WHERE record ->> '{path}'"),
            [],
        )
        .unwrap();
    assert!(changed >= 1, "{changed} records");
}

fn left_of_forgotten(gateway: &Gateway) -> u64 {
    let store = rusqlite::Connection::open(gateway.store()).unwrap();
    let query = "SELECT count(*) FROM licenses WHERE record LIKE '%forgotten%'";
    store.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap() as u64
}

async fn nothing_is_left_after_400_days(config: Config) {
    let mut gateway = Gateway::start(config).await;
    let keys = issue(&gateway, &json!({ "count": 2 })).await;
    let gone = order(&gateway, "forget", &json!({ "key": keys[0] })).await;
    assert_eq!(gone.status, 200, "{}", gone.text());
    gateway.kill();
    forgotten_before(&gateway, 399);
    gateway.restart().await;
    gateway.app().chat_as(&keys[0]).await.is(403, "license_disabled");
    gateway.app().chat_as(&keys[1]).await.ok();
    gateway.kill();
    assert!(left_of_forgotten(&gateway) >= 1);
    forgotten_before(&gateway, 401);
    gateway.restart().await;
    eventually("the record is gone", Duration::from_secs(20), || async {
        left_of_forgotten(&gateway) == 0
    })
    .await;
    gateway.app().chat_as(&keys[0]).await.is(403, "license_invalid");
    gateway.app().chat_as(&keys[1]).await.ok();
}

#[tokio::test]
async fn what_was_forgotten_is_known_for_400_days() {
    let mock = Mock::start(Reply::chat()).await;
    nothing_is_left_after_400_days(issued(&mock)).await;
}
