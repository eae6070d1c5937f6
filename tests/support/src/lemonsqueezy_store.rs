//! A stand-in for Lemon Squeezy's main API, of which `/v1/license-keys` is asked
//! (<https://docs.lemonsqueezy.com/api/license-keys/list-all-license-keys>): its shapes, its pages, its faults.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

pub const API_KEY: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.ls-api-key";

/// What is answered instead of a page, once.
#[derive(Debug, Clone)]
pub enum Fault {
    /// A status, and `Retry-After` in seconds.
    Status(u16, Option<u64>),
    /// 200, and no JSON of a list.
    Body(&'static str),
    /// Half an answer.
    Cut,
}

#[derive(Debug, Clone)]
pub struct SoldKey {
    pub key: String,
    pub variant: u64,
    pub status: &'static str,
    pub until: Option<&'static str>,
    pub limit: Option<u64>,
    /// Identifier and name.
    pub instances: Vec<(String, String)>,
}

#[derive(Default)]
struct State {
    keys: Vec<SoldKey>,
    /// By page; the first of each comes first.
    faults: Vec<(u64, VecDeque<Fault>)>,
    asked: Vec<u64>,
    per_page: usize,
}

pub struct LemonSqueezyStore {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl LemonSqueezyStore {
    /// Gives so many licences a page, whatever is asked for.
    pub async fn start(per_page: usize) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { per_page, ..State::default() }));
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, shared.clone()));
            }
        });
        Self { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn sold(&self, key: SoldKey) {
        self.state.lock().unwrap().keys.push(key);
    }

    pub fn change(&self, place: usize, change: impl FnOnce(&mut SoldKey)) {
        change(&mut self.state.lock().unwrap().keys[place]);
    }

    pub fn fails(&self, page: u64, faults: &[Fault]) {
        self.state.lock().unwrap().faults.push((page, faults.iter().cloned().collect()));
    }

    /// The pages that were asked for, in their order.
    pub fn asked(&self) -> Vec<u64> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }
}

async fn serve(socket: TcpStream, state: Arc<Mutex<State>>) {
    let mut socket = BufReader::new(socket);
    loop {
        let mut head = String::new();
        loop {
            let mut line = String::new();
            match socket.read_line(&mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) if line == "\r\n" => break,
                Ok(_) => head.push_str(&line),
            }
        }
        let (status, retry, body, cut) = answer(&mut state.lock().unwrap(), &head);
        let retry = retry.map(|seconds| format!("retry-after: {seconds}\r\n")).unwrap_or_default();
        let length = body.len() + usize::from(cut) * 100;
        let answer = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/vnd.api+json\r\n{retry}content-length: {length}\r\n\r\n{body}"
        );
        if socket.get_mut().write_all(answer.as_bytes()).await.is_err() || cut {
            return;
        }
    }
}

fn answer(state: &mut State, head: &str) -> (u16, Option<u64>, String, bool) {
    let lower = head.to_ascii_lowercase();
    let key = format!("authorization: bearer {}", API_KEY.to_ascii_lowercase());
    if !lower.contains(&key) {
        let error = json!({ "errors": [{ "status": "401", "title": "Unauthorized", "detail": "Unauthenticated." }] });
        return (401, None, error.to_string(), false);
    }
    if !lower.contains("accept: application/vnd.api+json") {
        return (406, None, "{}".into(), false);
    }
    let target = head.split(' ').nth(1).unwrap_or_default();
    let Some(query) = target.strip_prefix("/v1/license-keys?") else {
        return (404, None, "{}".into(), false);
    };
    let pairs: Vec<(String, String)> =
        url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let of = |name: &str| pairs.iter().find(|(known, _)| known == name).map(|(_, v)| v.as_str());
    let page: u64 = of("page[number]").and_then(|text| text.parse().ok()).unwrap_or(1);
    state.asked.push(page);
    let fault = state.faults.iter_mut().find(|(of, faults)| *of == page && !faults.is_empty());
    match fault.and_then(|(_, faults)| faults.pop_front()) {
        Some(Fault::Status(status, retry)) => {
            return (status, retry, json!({ "errors": [{ "status": status }] }).to_string(), false);
        }
        Some(Fault::Body(body)) => return (200, None, body.to_owned(), false),
        Some(Fault::Cut) => return (200, None, "{\"data\":[".into(), true),
        None => {}
    }
    let included = of("include").unwrap_or_default();
    (200, None, list(state, page, included).to_string(), false)
}

fn list(state: &State, page: u64, included: &str) -> Value {
    let (size, total) = (state.per_page, state.keys.len());
    let first = (page as usize - 1) * size;
    let shown: Vec<(usize, &SoldKey)> =
        state.keys.iter().enumerate().skip(first).take(size).collect();
    let mut others = Vec::new();
    for (nth, sold) in &shown {
        if included.contains("order-item") {
            others.push(json!({
                "type": "order-items", "id": (nth + 900).to_string(),
                "attributes": {
                    "order_id": nth + 700, "product_id": 588_102, "variant_id": sold.variant, "price_id": 1,
                    "product_name": "App", "variant_name": "Pro", "price": 900, "quantity": 1,
                    "created_at": "2026-01-02T03:04:05.000000Z", "test_mode": false,
                },
            }));
        }
        if included.contains("license-key-instances") {
            others.extend(sold.instances.iter().enumerate().map(|(at, (id, name))| json!({
                "type": "license-key-instances", "id": (nth * 100 + at).to_string(),
                "attributes": {
                    "license_key_id": nth + 1, "identifier": id, "name": name,
                    "created_at": "2026-01-02T03:04:05.000000Z", "updated_at": "2026-01-02T03:04:05.000000Z",
                },
            })));
        }
    }
    let data: Vec<Value> = shown.iter().map(|(nth, sold)| license(*nth, sold)).collect();
    json!({
        "meta": { "page": {
            "currentPage": page, "from": first + 1, "lastPage": total.div_ceil(size).max(1), "perPage": size,
            "to": first + data.len(), "total": total,
        } },
        "jsonapi": { "version": "1.0" },
        "links": { "first": "https://api.lemonsqueezy.com/v1/license-keys?page%5Bnumber%5D=1" },
        "data": data, "included": others,
    })
}

fn license(nth: usize, sold: &SoldKey) -> Value {
    let related = |name: &str| {
        let url = format!("https://api.lemonsqueezy.com/v1/license-keys/{}/{name}", nth + 1);
        json!({ "links": { "related": url } })
    };
    json!({
        "type": "license-keys", "id": (nth + 1).to_string(),
        "attributes": {
            "store_id": 58_213, "customer_id": 5, "order_id": nth + 700, "order_item_id": nth + 900,
            "product_id": 588_102, "user_name": "Maren Musterfrau", "user_email": "maren@example.com",
            "key": sold.key, "key_short": format!("XXXX-{}", &sold.key[sold.key.len() - 12..]),
            "activation_limit": sold.limit, "instances_count": sold.instances.len(),
            "disabled": u8::from(sold.status == "disabled"), "status": sold.status,
            "status_formatted": sold.status, "expires_at": sold.until,
            "created_at": "2026-01-02T03:04:05.000000Z", "updated_at": "2026-01-02T03:04:05.000000Z",
        },
        "relationships": {
            "store": related("store"), "customer": related("customer"), "order": related("order"),
            "order-item": related("order-item"), "product": related("product"),
            "license-key-instances": related("license-key-instances"),
        },
    })
}
