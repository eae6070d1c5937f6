//! All licences of a Lemon Squeezy store, by its main API (<https://docs.lemonsqueezy.com/api/license-keys>): for
//! `licenses import`. Names and addresses of buyers are in the answers and are not read.

use std::time::Duration;

use anyhow::{Context, bail};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::shop_client::ShopClient;
use crate::{
    config::{
        base_url,
        settings::{BaseUrl, LicenseSource, Settings},
    },
    shops::{ShopRequest, ShopResponse},
};

const BASE: &str = "https://api.lemonsqueezy.com";
const MEDIA: &str = "application/vnd.api+json";
/// Licences of one page, the most that the API gives.
const PAGE: usize = 100;
const LONGEST_ANSWER: usize = 8 << 20;
/// How often a page is asked for that is refused for the moment; the API takes 300 a minute.
const TRIES: usize = 5;

/// Rows as `licenses import` sends them.
///
/// # Errors
/// The API does not answer, or refuses the key.
pub async fn all(
    settings: &Settings,
    api_key: &SecretString,
    base: Option<&str>,
) -> anyhow::Result<Vec<Value>> {
    let base = base_url::parse(base.unwrap_or(BASE), false).map_err(anyhow::Error::msg)?;
    let client = ShopClient::new()?;
    let mut rows = Vec::new();
    for number in 1.. {
        let page = page(&client, &base, api_key, number).await?;
        let list = page["data"].as_array().map_or(&[][..], Vec::as_slice);
        for license in list {
            rows.push(row(settings, license, &page["included"], rows.len() as u64 + 1));
        }
        let last = page["meta"]["page"]["lastPage"].as_u64().unwrap_or_default();
        if list.is_empty() || number >= last {
            break;
        }
    }
    Ok(rows)
}

async fn page(
    client: &ShopClient,
    base: &BaseUrl,
    api_key: &SecretString,
    number: u64,
) -> anyhow::Result<Value> {
    let path = format!(
        "/v1/license-keys?include=order-item,license-key-instances&page[size]={PAGE}&page[number]={number}"
    );
    let request = ShopRequest::get(path).media(MEDIA).bearer(Some(api_key));
    for _ in 0..TRIES {
        let answer = client.send_for(base, &request, LONGEST_ANSWER).await;
        let ShopResponse { status, retry_after, body } =
            answer.map_err(|why| anyhow::anyhow!("Lemon Squeezy does not answer: {why}"))?;
        match status {
            200 => {
                return serde_json::from_slice(&body).context("Lemon Squeezy's answer is no JSON");
            }
            429 => tokio::time::sleep(retry_after.unwrap_or(Duration::from_secs(5))).await,
            status => bail!("Lemon Squeezy refuses page {number}: status {status}"),
        }
    }
    bail!("Lemon Squeezy refuses page {number}: too many questions in a minute")
}

fn row(settings: &Settings, license: &Value, included: &Value, line: u64) -> Value {
    let of = &license["attributes"];
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    };
    let id = text(&license["id"]);
    let others = || included.as_array().into_iter().flatten();
    let item = text(&of["order_item_id"]);
    let variant = others()
        .find(|other| other["type"] == "order-items" && text(&other["id"]) == item)
        .map(|item| text(&item["attributes"]["variant_id"]))
        .unwrap_or_default();
    let activations: Vec<String> = others()
        .filter(|other| other["type"] == "license-key-instances")
        .filter(|instance| text(&instance["attributes"]["license_key_id"]) == id)
        .map(|instance| text(&instance["attributes"]["identifier"]))
        .filter(|identifier| !identifier.is_empty())
        .collect();
    let (store, product) = (text(&of["store_id"]), text(&of["product_id"]));
    let is_disabled = of["disabled"] == true || of["disabled"] == 1;
    json!({
        "line": line,
        "key": text(&of["key"]),
        "plan": plan(settings, &store, &product, &variant),
        "until": text(&of["expires_at"]),
        "status": if is_disabled { "disabled".to_owned() } else { text(&of["status"]) },
        "max_devices": text(&of["activation_limit"]),
        "store_id": store,
        "product_id": product,
        "variant_id": variant,
        "order_id": text(&of["order_id"]),
        "created_at": text(&of["created_at"]),
        "activations": activations,
    })
}

/// The plan of a variant: as a source `lemonsqueezy` says, else as `lemonsqueezy_api` does.
fn plan(settings: &Settings, store: &str, product: &str, variant: &str) -> String {
    let sources = &settings.licenses.sources;
    let of_shop = sources.iter().find_map(|source| match source {
        LicenseSource::Shop(account) if account.source.seller() == store => {
            Some(account.source.variants(product)?.plan(variant)?.name.clone())
        }
        _ => None,
    });
    let of_api = || {
        sources.iter().find_map(|source| match source {
            LicenseSource::Issued(account) => {
                let api = account.source.lemonsqueezy_api.as_ref()?;
                let mut variants = api.variants.iter();
                let found = variants.find(|(_, id)| id.to_string() == variant);
                found.map(|(plan, _)| plan.clone())
            }
            _ => None,
        })
    };
    of_shop.or_else(of_api).map(|name| name.to_string()).unwrap_or_default()
}
