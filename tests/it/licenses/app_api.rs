//! The licence API of another shop, served for licences of our own: an app that only has another base URL goes on.

use serde_json::{Value, json};

use crate::{
    license_admin::operator::done,
    licenses::issued::{issue, issued},
    support::{Config, Gateway, Mock, Reply},
};

fn config(mock: &Mock) -> Config {
    issued(mock)
        .plan("pro", "messages: 1000/month, tokens: 1000000/month, models: [\"*\"], max_devices: 2")
        .of_shop(
            "issued",
            "lemonsqueezy_api",
            "{ store_id: 58213, variants: { pro: 912744 }, products: { pro: 588102 } }",
        )
}

async fn ask(gateway: &Gateway, call: &str, members: &[(&str, &str)]) -> (u16, Value) {
    let request = gateway.app().request("POST", &format!("/v1/licenses/{call}"));
    let answer = request.form(members).send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap())
}

/// The members of an object and of those in it, without what differs from licence to licence.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.clone(), shape(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Bool(_) => json!("bool"),
        Value::Number(_) => json!("number"),
        Value::String(_) => json!("string"),
        other => other.clone(),
    }
}

fn meta() -> Value {
    json!({
        "store_id": "number", "order_id": "number", "order_item_id": "number", "variant_id": "number",
        "variant_name": "string", "product_id": "number", "product_name": "string", "customer_id": "number",
        "customer_name": "string", "customer_email": "string",
    })
}

fn license_key() -> Value {
    json!({
        "id": "number", "status": "string", "key": "string", "activation_limit": "number",
        "activation_usage": "number", "created_at": "string", "expires_at": "string", "test_mode": "bool",
    })
}

#[tokio::test]
async fn an_app_activates_validates_and_deactivates_as_before() {
    let mock = Mock::start(Reply::chat()).await;
    let mut gateway = Gateway::start(config(&mock)).await;
    let key = &issue(&gateway, &json!({ "until": "2100-01-31" })).await[0];
    let (status, fresh) = ask(&gateway, "validate", &[("license_key", key)]).await;
    assert_eq!(
        (status, &fresh["valid"], &fresh["error"]),
        (200, &json!(true), &Value::Null),
        "{fresh}"
    );
    assert_eq!(
        shape(&fresh),
        json!({ "valid": "bool", "error": null, "license_key": license_key(), "instance": null, "meta": meta() })
    );
    assert_eq!(fresh["license_key"]["status"], "inactive");
    assert_eq!(fresh["license_key"]["expires_at"], "2100-01-31T23:59:59.000000Z");
    assert_eq!(fresh["meta"]["store_id"], 58213);
    assert_eq!(
        (&fresh["meta"]["product_id"], &fresh["meta"]["variant_id"]),
        (&json!(588102), &json!(912744))
    );
    assert_eq!(
        (&fresh["meta"]["customer_name"], &fresh["meta"]["customer_email"]),
        (&json!(""), &json!(""))
    );

    let name = ("instance_name", "MAREN-LAPTOP");
    let (status, first) = ask(&gateway, "activate", &[("license_key", key), name]).await;
    assert_eq!((status, &first["activated"]), (200, &json!(true)), "{first}");
    let instance = json!({ "id": "string", "name": "string", "created_at": "string" });
    assert_eq!(
        shape(&first),
        json!({ "activated": "bool", "error": null, "license_key": license_key(), "instance": instance, "meta": meta() })
    );
    assert_eq!(
        (&first["instance"]["name"], &first["license_key"]["activation_usage"]),
        (&json!("MAREN-LAPTOP"), &json!(1))
    );
    assert_eq!(first["license_key"]["activation_limit"], 2);
    let id = first["instance"]["id"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 36, "{id}");
    // JSON is taken as well.
    let request = gateway.app().request("POST", "/v1/licenses/activate");
    let second =
        request.json(&json!({ "license_key": key, "instance_name": "B" })).send().await.unwrap();
    assert_eq!(second.status(), 200);
    let (status, full) = ask(&gateway, "activate", &[("license_key", key), name]).await;
    assert_eq!((status, &full["activated"]), (400, &json!(false)));
    assert_eq!(full["error"], "This license key has reached the activation limit.");

    let with = [("license_key", &**key), ("instance_id", &*id)];
    let (status, known) = ask(&gateway, "validate", &with).await;
    assert_eq!((status, &known["valid"]), (200, &json!(true)));
    assert_eq!(known["instance"], first["instance"], "with its name and its day");
    assert_eq!(
        shape(&known),
        json!({ "valid": "bool", "error": null, "license_key": license_key(), "instance": instance, "meta": meta() })
    );
    gateway.restart().await;
    let (_, known) = ask(&gateway, "validate", &with).await;
    assert_eq!(known["instance"], first["instance"], "over a restart, too");
    let other = [("license_key", &**key), ("instance_id", "00000000-0000-0000-0000-000000000000")];
    let (status, stranger) = ask(&gateway, "validate", &other).await;
    assert_eq!(
        (status, &stranger["valid"], &stranger["error"]),
        (404, &json!(false), &json!("instance_id not found."))
    );
    let (status, gone) = ask(&gateway, "deactivate", &with).await;
    assert_eq!((status, &gone["deactivated"]), (200, &json!(true)), "{gone}");
    assert_eq!(
        shape(&gone),
        json!({ "deactivated": "bool", "error": null, "license_key": license_key(), "meta": meta() })
    );
    assert_eq!(gone["license_key"]["activation_usage"], 1);
}

#[tokio::test]
async fn refusals_have_the_shapes_that_apps_know() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(config(&mock)).await;
    let key = &issue(&gateway, &json!({})).await[0];
    let (status, missing) = ask(&gateway, "validate", &[]).await;
    assert_eq!(status, 422);
    assert_eq!(
        missing["errors"]["license_key"][0], "The license key field is required.",
        "{missing}"
    );
    let (status, missing) = ask(&gateway, "activate", &[("license_key", key)]).await;
    assert_eq!((status, missing["errors"]["instance_name"].is_array()), (422, true));
    let (status, unknown) =
        ask(&gateway, "validate", &[("license_key", "3F2A9C1E-7B4D-4E8A-9D60-5C1B8E7F2A34")]).await;
    assert_eq!(status, 404);
    assert_eq!(
        unknown,
        json!({ "valid": false, "error": "license_key not found.", "license_key": null, "instance": null, "meta": null })
    );
    done(&gateway, "expire", key, &json!({})).await;
    let (_, expired) = ask(&gateway, "validate", &[("license_key", key)]).await;
    assert_eq!(
        (&expired["valid"], &expired["license_key"]["status"]),
        (&json!(false), &json!("expired"))
    );
    assert_eq!(expired["error"], "This license key is expired.");
    done(&gateway, "extend", key, &json!({ "by": "1d" })).await;
    done(&gateway, "revoke", key, &json!({})).await;
    let (_, disabled) = ask(&gateway, "validate", &[("license_key", key)]).await;
    assert_eq!(
        (&disabled["valid"], &disabled["license_key"]["status"]),
        (&json!(false), &json!("disabled"))
    );
    done(&gateway, "restore", key, &json!({})).await;
    // Five activations a minute, whatever becomes of them.
    let mut statuses = Vec::new();
    for number in 0..6 {
        let name = format!("D{number}");
        statuses.push(
            ask(&gateway, "activate", &[("license_key", key), ("instance_name", &name)]).await.0,
        );
    }
    assert_eq!(statuses, [200, 200, 400, 400, 400, 429]);
    assert!(!gateway.logs().contains(key.as_str()));
    let plain = Gateway::start(issued(&mock)).await;
    let request =
        plain.app().request("POST", "/v1/licenses/validate").form(&[("license_key", "x")]);
    assert_eq!(
        request.send().await.unwrap().status(),
        404,
        "where it is not configured it is not served"
    );
}
