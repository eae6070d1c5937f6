//! A stand-in for Stripe: objects that a test changes, the questions that were asked, signed events.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

pub const SECRET: &str = "whsec_0123456789abcdef";

#[derive(Default)]
struct State {
    /// By their path, such as `checkout/sessions/cs_test_1`.
    objects: BTreeMap<String, Value>,
    /// The oldest first.
    events: Vec<Value>,
    asked: Vec<String>,
    is_down: bool,
    /// Paths that the key may not read.
    denied: Vec<String>,
}

pub struct Stripe {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Stripe {
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
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

    pub fn put(&self, path: &str, object: Value) {
        self.state.lock().unwrap().objects.insert(path.to_owned(), object);
    }

    pub fn change(&self, path: &str, member: &str, value: Value) {
        let mut state = self.state.lock().unwrap();
        let object = state.objects.get_mut(path).expect("an object of that path");
        object[member] = value;
    }

    pub fn object(&self, path: &str) -> Value {
        self.state.lock().unwrap().objects.get(path).cloned().unwrap_or_default()
    }

    pub fn down(&self, is_down: bool) {
        self.state.lock().unwrap().is_down = is_down;
    }

    /// The restricted key has no permission for these paths.
    pub fn denies(&self, paths: &[&str]) {
        self.state.lock().unwrap().denied = paths.iter().map(|&path| path.to_owned()).collect();
    }

    /// Questions whose address begins so.
    pub fn asked(&self, prefix: &str) -> usize {
        self.state.lock().unwrap().asked.iter().filter(|path| path.starts_with(prefix)).count()
    }

    /// A new event about an object as it is now; the list has it from now on.
    pub fn event(&self, kind: &str, path: &str) -> Value {
        let mut state = self.state.lock().unwrap();
        let object = state.objects.get(path).cloned().unwrap_or_default();
        let event = json!({
            "id": format!("evt_{:06}", state.events.len()), "object": "event", "created": seconds(),
            "livemode": object["livemode"].as_bool().unwrap_or(true), "type": kind,
            "data": { "object": object },
        });
        state.events.push(event.clone());
        event
    }

    /// A session of payment mode with its payment and its charge, all named alike.
    pub fn sell(&self, name: &str, price: &str, payment_status: &str) -> String {
        let (session, intent, charge) =
            (format!("cs_test_{name}"), format!("pi_{name}"), format!("ch_{name}"));
        self.put(&format!("charges/{charge}"), json!({
            "id": charge, "object": "charge", "created": seconds(), "livemode": false, "refunded": false,
            "disputed": false, "payment_intent": intent, "customer": null, "invoice": null,
        }));
        self.put(&format!("payment_intents/{intent}"), json!({
            "id": intent, "object": "payment_intent", "latest_charge": charge, "livemode": false,
        }));
        self.put(
            &format!("checkout/sessions/{session}"),
            json!({
                "id": session, "object": "checkout.session", "livemode": false, "mode": "payment",
                "status": "complete", "payment_status": payment_status, "payment_intent": intent,
                "subscription": null, "customer": null,
                "line_items": { "data": [{ "price": { "id": price } }] },
            }),
        );
        session
    }

    /// A session of subscription mode; the subscription is named alike.
    pub fn subscribe(&self, name: &str, price: &str, until: u64) -> String {
        let (session, sub) = (self.sell(name, price, "paid"), format!("sub_{name}"));
        let (invoice, charge) = (format!("in_{name}"), format!("ch_{name}"));
        self.put(
            &format!("invoices/{invoice}"),
            json!({
                "id": invoice, "subscription": sub, "charge": charge, "livemode": false,
            }),
        );
        self.put(&format!("subscriptions/{sub}"), json!({
            "id": sub, "object": "subscription", "livemode": false, "status": "active", "customer": format!("cus_{name}"),
            "current_period_start": until - 2_592_000, "current_period_end": until,
            "latest_invoice": invoice, "items": { "data": [{ "price": { "id": price } }] },
        }));
        let path = format!("checkout/sessions/{session}");
        self.change(&path, "mode", json!("subscription"));
        self.change(&path, "payment_intent", Value::Null);
        self.change(&path, "subscription", json!(sub));
        self.change(&path, "customer", json!(format!("cus_{name}")));
        self.change(&format!("charges/{charge}"), "invoice", json!(invoice));
        session
    }
}

pub fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The header of a body that is signed now.
pub fn signed(secret: &str, at: u64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{at}.{body}").as_bytes());
    let hex: String =
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={at},v1={hex}")
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
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let has_key = head.to_ascii_lowercase().contains("authorization: bearer rk_");
        let (status, body) = match has_key {
            true => answer(&mut state.lock().unwrap(), &target),
            false => (401, json!({ "error": { "message": "no key" } })),
        };
        let body = body.to_string();
        let answer = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        if socket.get_mut().write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn answer(state: &mut State, target: &str) -> (u16, Value) {
    state.asked.push(target.to_owned());
    if state.is_down {
        return (500, json!({ "error": {} }));
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = path.trim_start_matches("/v1/");
    let pairs: Vec<(String, String)> =
        url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    if state.denied.iter().any(|denied| path.starts_with(&**denied)) {
        let message = "The provided key 'rk_test_***' does not have the required \
                       permissions for this endpoint on account 'acct_1'.";
        return (403, json!({ "error": { "message": message, "type": "invalid_request_error" } }));
    }
    let of =
        |name: &str| pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    match path {
        "events" => {
            let since: u64 = of("created[gte]").and_then(|text| text.parse().ok()).unwrap_or(0);
            let mut list: Vec<&Value> = state.events.iter().rev().collect();
            list.retain(|event| event["created"].as_u64().unwrap() >= since);
            if let Some(after) = of("starting_after") {
                let place = list.iter().position(|event| event["id"] == after.as_str()).unwrap();
                list.drain(..=place);
            }
            let has_more = list.len() > 100;
            list.truncate(100);
            (200, json!({ "object": "list", "data": list, "has_more": has_more }))
        }
        "checkout/sessions" | "disputes" | "subscriptions" | "charges" | "payment_intents"
        | "invoices" => {
            let wanted: Vec<(&str, String)> = ["subscription", "payment_intent", "charge"]
                .into_iter()
                .filter_map(|name| Some((name, of(name)?)))
                .collect();
            let prefix = format!("{path}/");
            let fits =
                |object: &&Value| wanted.iter().all(|(name, id)| object[*name] == id.as_str());
            let list: Vec<&Value> = state
                .objects
                .iter()
                .filter(|(at, _)| at.starts_with(&prefix))
                .map(|(_, object)| object)
                .filter(fits)
                .collect();
            (200, json!({ "object": "list", "data": list, "has_more": false }))
        }
        path => match state.objects.get(path) {
            Some(object) => (200, object.clone()),
            None => (404, json!({ "error": { "code": "resource_missing" } })),
        },
    }
}
