//! Licences of our own: issued, found again in every spelling, changed by the operator, and kept.

use std::{fs, sync::Arc, time::Duration};

use serde_json::{Value, json};

use crate::{
    license_admin::operator::{done, order, show},
    support::{Config, Gateway, Mock, Noise, Redis, Reply, eventually, repeat, run_with_input},
};

const PRO: &str = "messages: 1000/month, tokens: 1000000/month, models: [\"*\"]";

pub fn issued(mock: &Mock) -> Config {
    Config::new(mock).plan("pro", PRO).vault().of_shop("issued", "prefix", "JSTAR")
}

/// Issues licences of plan `pro`; their keys.
pub async fn issue(gateway: &Gateway, more: &Value) -> Vec<String> {
    let mut body = json!({ "plan": "pro" });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    let answer = order(gateway, "issue", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let licenses = answer.json()["licenses"].as_array().unwrap().clone();
    licenses.iter().map(|one| one["key"].as_str().unwrap().to_owned()).collect()
}

async fn started() -> (Mock, Gateway) {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(issued(&mock)).await;
    (mock, gateway)
}

#[tokio::test]
async fn an_issued_key_serves_in_every_spelling_and_a_typing_error_does_not() {
    let (_mock, gateway) = started().await;
    let keys = issue(&gateway, &json!({ "until": "2100-01-31", "count": 3, "note": "beta" })).await;
    assert_eq!(keys.len(), 3);
    let key = &keys[0];
    assert!(key.starts_with("JSTAR-") && key.len() == 29, "{key}");
    for spelling in [
        key.clone(),
        key.to_ascii_lowercase(),
        key.replace('-', ""),
        key.replace('0', "O").replace('1', "l"),
    ] {
        gateway.app().chat_as(&spelling).await.ok();
    }
    assert_eq!(gateway.messages(key).await, 4);
    let me = gateway.me(key).await;
    assert_eq!((&me["plan"], &me["until"]), (&json!("pro"), &json!("2100-01-31T23:59:59Z")));
    assert_eq!(gateway.messages(&keys[1]).await, 0, "each has its own usage");
    let last = key.chars().last().unwrap();
    let wrong = format!("{}{}", &key[..28], if last == '7' { '8' } else { '7' });
    gateway.app().chat_as(&wrong).await.is(403, "license_invalid");
    let shown = show(&gateway, key).await;
    assert_eq!((&shown["source"], &shown["status"]), (&json!("issued"), &json!("valid")));
    assert_eq!(shown["actions"][0]["action"], "issue", "{shown}");
    assert_eq!(shown["actions"][0]["note"], "beta", "{shown}");
    assert!(!gateway.logs().contains(key.as_str()), "no key stands in a log");
}

#[tokio::test]
async fn an_operator_ends_extends_and_takes_back_what_was_issued() {
    let (_mock, mut gateway) = started().await;
    let key = &issue(&gateway, &json!({})).await[0];
    gateway.app().chat_as(key).await.ok();
    done(&gateway, "expire", key, &json!({ "note": "left" })).await;
    gateway.app().chat_as(key).await.is(403, "license_expired");
    let extended = done(&gateway, "extend", key, &json!({ "until": "2100-01-31" })).await;
    assert_eq!(extended["until"], "2100-01-31T23:59:59Z", "{extended}");
    gateway.app().chat_as(key).await.ok();
    let further = done(&gateway, "extend", key, &json!({ "by": "1d", "id": "x" })).await;
    assert_eq!(further["until"], "2100-02-01T23:59:59Z");
    let again = done(&gateway, "extend", key, &json!({ "by": "1d", "id": "x" })).await;
    assert_eq!((&again["until"], &again["done"]["repeated"]), (&further["until"], &json!(true)));
    done(&gateway, "revoke", key, &json!({})).await;
    gateway.app().chat_as(key).await.is(403, "license_disabled");
    done(&gateway, "restore", key, &json!({})).await;
    gateway.restart().await;
    gateway.app().chat_as(key).await.ok();
    assert_eq!(gateway.messages(key).await, 3);
    let shown = show(&gateway, key).await;
    let actions: Vec<&str> = shown["actions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["restore", "revoke", "extend", "extend", "expire", "issue"]);
    let list = order(&gateway, "list", &json!({ "plan": "pro", "state": "active" })).await.json();
    assert_eq!(list["total"], 1, "{list}");
    assert!(!list.to_string().contains(key.as_str()), "no key stands in the list");
    let none = order(&gateway, "list", &json!({ "state": "expired" })).await.json();
    assert_eq!(none["total"], 0);
    for (command, body, says) in [
        ("issue", json!({ "plan": "gold" }), "there are free, pro"),
        ("issue", json!({ "plan": "pro", "count": 0 }), "count"),
        ("issue", json!({ "plan": "pro", "until": "2000-01-01" }), "is over"),
        ("issue", json!({ "plan": "pro", "keys": 1 }), "unknown field"),
        ("rotate", json!({ "key": "JSTAR-TEST-0001" }), "source `static`"),
        ("extend", json!({ "key": key }), "name the new end"),
    ] {
        let answer = order(&gateway, command, &body).await;
        assert!((400..500).contains(&answer.status), "{}", answer.text());
        assert!(answer.text().contains(says), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_rotated_key_keeps_usage_and_the_old_one_ends_with_its_grace() {
    let (_mock, gateway) = started().await;
    let old = &issue(&gateway, &json!({})).await[0];
    gateway.app().chat_as(old).await.ok();
    let rotated = done(&gateway, "rotate", old, &json!({ "grace": "1h", "id": "r-1" })).await;
    let new = rotated["key"].as_str().unwrap().to_owned();
    let again = done(&gateway, "rotate", old, &json!({ "grace": "1h", "id": "r-1" })).await;
    assert_eq!(again["key"], json!(new), "the same order makes no other key");
    gateway.app().chat_as(old).await.ok();
    gateway.app().chat_as(&new).await.ok();
    assert_eq!(gateway.messages(&new).await, 3);
    // Another one, at once.
    let third =
        done(&gateway, "rotate", &new, &json!({})).await["key"].as_str().unwrap().to_owned();
    gateway.app().chat_as(&new).await.is(403, "license_disabled");
    // And the one before it, whose grace would have lasted.
    gateway.app().chat_as(old).await.is(403, "license_disabled");
    gateway.app().chat_as(&third).await.ok();
    assert_eq!(gateway.messages(&third).await, 4);
    // A grace makes no key serve again.
    let grace = json!({ "grace": "1h" });
    let fourth = done(&gateway, "rotate", &third, &grace).await["key"].as_str().unwrap().to_owned();
    for (key, serves) in [(old, false), (&new, false), (&third, true), (&fourth, true)] {
        assert_eq!(gateway.app().chat_as(key).await.status == 200, serves, "{key}");
    }
    done(&gateway, "revoke", &third, &json!({})).await;
    gateway.app().chat_as(&third).await.is(403, "license_disabled");
    gateway.app().chat_as(old).await.is(403, "license_disabled");
}

#[tokio::test]
async fn no_key_lies_in_the_store() {
    let (_mock, mut gateway) = started().await;
    let keys = issue(&gateway, &json!({ "count": 5 })).await;
    gateway.app().chat_as(&keys[0]).await.ok();
    gateway.kill();
    let store = gateway.store();
    let mut files = 0;
    let mut folders = vec![store.parent().unwrap().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // A socket, for one, can't be read.
            let Ok(bytes) = fs::read(&path) else { continue };
            files += 1;
            for key in &keys {
                for text in [key.clone(), key.replace('-', ""), key[6..].to_owned()] {
                    assert!(!crate::support::contains(&bytes, &text), "{}", path.display());
                }
            }
        }
    }
    assert!(files > 1);
}

#[tokio::test]
async fn all_gateways_know_what_one_issued_even_after_the_shared_store_lost_it() {
    let mock = Mock::start(Reply::chat()).await;
    let redis = Redis::start().await;
    let one = Gateway::start(issued(&mock).redis(&redis.url())).await;
    let other = Gateway::start(issued(&mock).redis(&redis.url())).await;
    let key = &issue(&one, &json!({})).await[0];
    other.app().chat_as(key).await.ok();
    let unused = &issue(&one, &json!({})).await[0];
    eventually("the other gateway keeps it, too", Duration::from_secs(5), || async {
        order(&other, "list", &json!({})).await.json()["total"] == 2
    })
    .await;
    drop(one);
    redis.flush();
    other.app().chat_as(unused).await.ok();
    let third = Gateway::start(issued(&mock).redis(&redis.url())).await;
    eventually("a new gateway gets them", Duration::from_secs(5), || async {
        order(&third, "list", &json!({})).await.json()["total"] == 2
    })
    .await;
    done(&third, "expire", key, &json!({})).await;
    eventually("an end acts everywhere", Duration::from_secs(2), || async {
        other.app().chat_as(key).await.status == 403
    })
    .await;
    let rotated = done(&third, "rotate", unused, &json!({})).await;
    let new = rotated["key"].as_str().unwrap();
    other.app().chat_as(new).await.ok();
    eventually("the old key, too", Duration::from_secs(2), || async {
        other.app().chat_as(unused).await.status == 403
    })
    .await;
}

#[tokio::test]
async fn without_a_vault_check_says_so() {
    let mock = Mock::start(Reply::chat()).await;
    let dir = tempfile::tempdir().unwrap();
    let file = Config::new(&mock).of_shop("issued", "prefix", "JSTAR").file(dir.path());
    let said = run_with_input(&["check", file.to_str().unwrap()], dir.path(), "");
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    assert_eq!(said.status.code(), Some(1), "{text}");
    assert!(text.contains("need a vault"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_issues_lists_and_rotates() {
    let (_mock, mut gateway) = started().await;
    let dir = gateway.dir.clone();
    let file = dir.path().join("gatekeeper.yaml");
    let run = |words: &[&str], input: &str| {
        let mut command = std::process::Command::new(crate::support::gateway::program());
        command.arg("licenses").args(words).arg("-c").arg(&file).current_dir(dir.path());
        command.envs(gateway_env());
        let said = crate::support::gateway::feed(command, input);
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.status.success(), "{words:?}: {}", String::from_utf8_lossy(&said.stderr));
        text
    };
    let keys = run(&["issue", "--plan", "pro", "--count", "2", "--note", "beta"], "");
    let keys: Vec<&str> = keys.lines().collect();
    assert!(keys.len() == 2 && keys.iter().all(|key| key.starts_with("JSTAR-")), "{keys:?}");
    gateway.app().chat_as(keys[0]).await.ok();
    gateway.kill();
    // The store itself is asked while no gateway runs.
    let csv = run(&["issue", "--plan", "pro", "--until", "2100-01-31", "--csv"], "");
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines[0], "key,plan,until,license", "{csv}");
    assert!(lines[1].contains(",pro,2100-01-31T23:59:59Z,"), "{csv}");
    let new = run(&["rotate", "--grace", "7d"], keys[0]);
    let said = run(&["expire"], keys[1]);
    assert!(said.contains("Ended") && said.contains("expired"), "{said}");
    let said = run(&["extend", "--by", "30d"], keys[1]);
    assert!(said.contains("Extended") && said.contains("valid until"), "{said}");
    let list = run(&["list"], "");
    assert_eq!(list.lines().count(), 4, "{list}");
    assert!(list.contains("beta") && !list.contains(keys[0]), "{list}");
    gateway.restart().await;
    gateway.app().chat_as(new.trim()).await.ok();
}

fn gateway_env() -> [(&'static str, &'static str); 1] {
    [("GATEKEEPER_TEST_KEK", crate::support::yaml::KEK)]
}

/// Each key that was handed out is a licence, and each licence's key can still be had by its order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_while_keys_are_issued_rotated_and_imported_lose_none() {
    let times: usize = repeat::times("GATEKEEPER_ISSUE_KILLS", 6);
    let mock = Mock::start(Reply::chat()).await;
    let mut gateway = Gateway::start(issued(&mock)).await;
    let mut noise = Noise::new(22);
    let mut handed: Vec<String> = Vec::new();
    let mut orders: Vec<(String, usize)> = Vec::new();
    let (mut rotated, mut lists) = (0, Vec::new());
    for round in 0..times {
        let http = Arc::new(gateway.operator());
        let worker = tokio::spawn({
            let handed = handed.clone();
            async move {
                let (mut new, mut asked, mut rotated) = (Vec::new(), Vec::new(), 0);
                let mut lists = Vec::new();
                for step in 0.. {
                    let (id, count) = (format!("k-{round}-{step}"), 1 + step % 3);
                    let old = handed.last().filter(|_| step % 4 == 3);
                    let (path, body) = match old {
                        Some(key) => {
                            rotated += 1;
                            ("rotate", json!({ "key": key, "grace": "1h", "id": id }))
                        }
                        None if step % 5 == 1 => {
                            let keys = [0, 1, 2].map(|row| format!("OLD-{round}-{step}-{row}"));
                            let row = |key: &String| json!({ "key": key, "plan": "pro" });
                            let rows: Vec<Value> = keys.iter().map(row).collect();
                            lists.push((keys, false));
                            ("import", json!({ "rows": rows, "id": id }))
                        }
                        None => {
                            asked.push((id.clone(), count));
                            ("issue", json!({ "plan": "pro", "count": count, "id": id }))
                        }
                    };
                    let request = http.request("POST", &format!("/api/licenses/{path}"));
                    let answer = request.body(body.to_string()).send().await;
                    let Ok(answer) = answer else { break };
                    let Ok(answer) = answer.json::<Value>().await else { break };
                    if path == "import" {
                        lists.last_mut().unwrap().1 = answer["licenses"][2]["outcome"] == "new";
                        continue;
                    }
                    for one in answer["licenses"].as_array().into_iter().flatten() {
                        new.push(one["key"].as_str().unwrap().to_owned());
                    }
                    new.extend(answer["key"].as_str().map(str::to_owned));
                }
                (new, asked, rotated, lists)
            }
        });
        tokio::time::sleep(Duration::from_millis(noise.below(60))).await;
        gateway.kill();
        let (new, asked, more, some) = worker.await.unwrap();
        rotated += more;
        lists.extend(some);
        handed.extend(new);
        orders.extend(asked);
        gateway = Gateway::start_in(gateway.dir.clone(), gateway.config.clone()).await;
    }
    let (mut licenses, mut lost) = (0, 0);
    for (id, count) in &orders {
        let body = json!({ "plan": "pro", "count": count, "id": id });
        let made = order(&gateway, "issue", &body).await.json();
        let made = made["licenses"].as_array().unwrap().clone();
        assert_eq!(made.len(), *count, "{id} was carried out whole");
        licenses += count;
        lost += made.iter().filter(|one| one["key"].is_null()).count();
    }
    // A list is there whole or not at all, and what was answered is there.
    for (keys, is_told) in &lists {
        let mut there = 0;
        for key in keys {
            there += usize::from(
                gateway.app().get("/v1/me").bearer_auth(key).send().await.unwrap().status() == 200,
            );
        }
        assert!(there == 3 || there == 0 && !is_told, "{there} of {keys:?}, told: {is_told}");
        licenses += there;
    }
    let total = order(&gateway, "list", &json!({})).await.json()["total"].as_u64().unwrap();
    assert_eq!(total, licenses as u64, "no licence is there that no order or list can show");
    assert!(lost <= rotated, "{lost} keys can't be shown again, {rotated} were replaced");
    for key in &handed {
        assert_eq!(gateway.me(key).await["plan"], "pro");
    }
}
