//! All licences of a Lemon Squeezy store, by its main API (<https://docs.lemonsqueezy.com/api/license-keys>): for
//! `licenses import`. Names and addresses of buyers are in the answers and are not read.

use std::time::Duration;

use anyhow::bail;
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
/// How often a page is asked for that can't be had for the moment; the API takes 300 questions a minute.
const TRIES: u32 = 5;
/// Before the second time; twice as long before each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Where the API says that it was asked too often, and not how long to wait.
const PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The licences of a store, page by page.
pub struct LicensePages<'a> {
    settings: &'a Settings,
    api_key: &'a SecretString,
    base: BaseUrl,
    client: ShopClient,
    /// Pages so far, and how many there are: 0 before the first.
    read: u64,
    pub total: u64,
    /// Licences so far.
    rows: u64,
}

impl<'a> LicensePages<'a> {
    /// # Errors
    /// The address is none, or there is no TLS.
    pub fn new(
        settings: &'a Settings,
        api_key: &'a SecretString,
        base: Option<&str>,
    ) -> anyhow::Result<Self> {
        let base = base_url::parse(base.unwrap_or(BASE), false).map_err(anyhow::Error::msg)?;
        let client = ShopClient::new()?;
        Ok(Self { settings, api_key, base, client, read: 0, total: 0, rows: 0 })
    }

    /// The rows of the next page, as `licenses import` sends them; `None` behind the last one.
    ///
    /// # Errors
    /// The API does not answer, or refuses the key.
    pub async fn next(&mut self) -> anyhow::Result<Option<Vec<Value>>> {
        if self.read > 0 && self.read >= self.total {
            return Ok(None);
        }
        let page = self.page(self.read + 1).await?;
        self.read += 1;
        self.total = page["meta"]["page"]["lastPage"].as_u64().unwrap_or_default();
        let list = page["data"].as_array().map_or(&[][..], Vec::as_slice);
        if list.is_empty() {
            self.total = self.read;
            return Ok(None);
        }
        let rows = list.iter().map(|license| {
            self.rows += 1;
            row(self.settings, license, &page["included"], self.rows)
        });
        Ok(Some(rows.collect()))
    }

    async fn page(&self, number: u64) -> anyhow::Result<Value> {
        let path = format!(
            "/v1/license-keys?include=order-item,license-key-instances&page[size]={PAGE}&page[number]={number}"
        );
        let request = ShopRequest::get(path).media(MEDIA).bearer(Some(self.api_key));
        let (mut why, mut pause) = (String::new(), FIRST_PAUSE);
        for nth in 0..TRIES {
            if nth > 0 {
                tokio::time::sleep(pause).await;
            }
            pause = FIRST_PAUSE * 2_u32.pow(nth + 1);
            let answer = self.client.send_for(&self.base, &request, LONGEST_ANSWER).await;
            let ShopResponse { status, retry_after, body } = match answer {
                Ok(answer) => answer,
                Err(trouble) => {
                    why = trouble.to_string();
                    continue;
                }
            };
            why = match status {
                200 => match serde_json::from_slice::<Value>(&body) {
                    Ok(page) if page["data"].is_array() => return Ok(page),
                    _ => "its answer is no list of licences".into(),
                },
                401 | 403 => bail!(
                    "Lemon Squeezy refuses the API key (status {status}): make one at Settings > API"
                ),
                429 => {
                    pause = retry_after.unwrap_or(PAUSE).min(LONGEST_PAUSE);
                    "too many questions in a minute".into()
                }
                500.. => format!("status {status}"),
                status => bail!("Lemon Squeezy refuses page {number}: status {status}"),
            };
        }
        bail!("Lemon Squeezy does not give page {number}: {why}")
    }
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
    let activations: Vec<Value> = others()
        .filter(|other| other["type"] == "license-key-instances")
        .map(|instance| &instance["attributes"])
        .filter(|instance| text(&instance["license_key_id"]) == id)
        .filter(|instance| !text(&instance["identifier"]).is_empty())
        .map(|instance| json!({ "id": text(&instance["identifier"]), "name": text(&instance["name"]) }))
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
