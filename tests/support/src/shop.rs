//! A shop that sells licences: the licence calls of Lemon Squeezy and of Gumroad, HTTP/1.1 by hand.
//!
//! What it says depends on the key, unless the whole shop is in a mood. It keeps every call.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{net::TcpSocket, task::JoinHandle};

use super::gateway::free_port;

mod says;
mod wire;

pub use says::{BUYER, EMAIL, Says};
pub use wire::Call;

/// The keys of the recorded answers.
pub const BOUGHT: &str = "3F2A9C1E-7B4D-4E8A-9D60-5C1B8E7F2A34";
pub const GUMROAD: &str = "85DB562A-C11D4B06-A2335A6B-8C079166";
/// The Gumroad product of the recorded answers.
pub const PRODUCT: &str = "7Hn-wQx3LdTz5BpKcYfRjA==";
/// The Lemon Squeezy order of [`Says::license`].
pub const ORDER: &str = "6120947";

const MINUTE: Duration = Duration::from_secs(60);

/// Another key in Lemon Squeezy's shape.
pub fn license_key(number: usize) -> String {
    format!("{number:08X}-7B4D-4E8A-9D60-5C1B8E7F2A34")
}

/// Another key in Gumroad's shape.
pub fn gumroad_key(number: usize) -> String {
    format!("{number:08X}-C11D4B06-A2335A6B-8C079166")
}

/// How the whole shop is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mood {
    Well,
    /// Well, but late.
    Slow(Duration),
    Status(u16),
    /// 429, to be asked again after this many seconds.
    TooMany(u64),
    /// A page with status 200, as somebody between shop and gateway would send it.
    Html,
    /// Takes the call and never answers.
    Hangs,
    /// Takes the call, and answers when it is in another mood.
    Held,
    /// Gumroad wants a `product_id` of a product that has none; Lemon Squeezy is well.
    ProductId,
}

struct State {
    mood: Mood,
    /// Calls a minute before it answers 429.
    allows: usize,
    says: HashMap<String, Says>,
    /// Keys whose case counts.
    spelled: Vec<String>,
    /// Activated devices by key: id and name.
    devices: HashMap<String, Vec<(String, String)>>,
    activated: usize,
    calls: Vec<Call>,
}

pub struct Shop {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Shop {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut() {
            task.abort();
        }
    }
}

impl Shop {
    /// A shop that has sold nothing yet.
    pub async fn open() -> Self {
        let state = State {
            mood: Mood::Well,
            allows: usize::MAX,
            says: HashMap::new(),
            spelled: Vec::new(),
            devices: HashMap::new(),
            activated: 0,
            calls: Vec::new(),
        };
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let shop = Self { addr, state: Arc::new(Mutex::new(state)), task: Mutex::new(None) };
        shop.reopen();
        shop
    }

    /// Its `base_url`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What it says of this key from now on, in any spelling.
    pub fn sells(&self, key: &str, says: Says) -> &Self {
        self.state.lock().says.insert(key.to_ascii_uppercase(), says);
        self
    }

    /// The same, in this spelling only.
    pub fn sells_spelled(&self, key: &str, says: Says) -> &Self {
        self.state.lock().spelled.push(key.to_owned());
        self.sells(key, says)
    }

    pub fn mood(&self, mood: Mood) {
        self.state.lock().mood = mood;
    }

    /// Answers 429 beyond this many calls a minute.
    pub fn allows(&self, calls: usize) {
        self.state.lock().allows = calls;
    }

    /// Nobody listens any more, and whoever was connected is cut off.
    pub async fn close(&self) {
        let task = self.task.lock().take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
    }

    /// Listens again, on the same port, as soon as no process that was just started has a copy of the last listener.
    pub fn reopen(&self) {
        let listen = || {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind(self.addr)?;
            socket.listen(4096)
        };
        let deadline = Instant::now() + Duration::from_secs(5);
        let listener = loop {
            match listen() {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < deadline, "{}: {error}", self.addr),
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        *self.task.lock() = Some(tokio::spawn(wire::accept(listener, self.state.clone())));
    }

    pub fn calls(&self) -> Vec<Call> {
        self.state.lock().calls.clone()
    }

    /// The calls about this key, in any spelling.
    pub fn calls_for(&self, key: &str) -> Vec<Call> {
        let mut calls = self.calls();
        calls.retain(|call| call.key.eq_ignore_ascii_case(key));
        calls
    }

    pub fn forget(&self) {
        self.state.lock().calls.clear();
    }

    /// The most calls that came within any minute.
    pub fn most_in_a_minute(&self) -> usize {
        let times: Vec<Instant> = self.calls().into_iter().map(|call| call.at).collect();
        let from = |start: &Instant| {
            times.iter().filter(|at| **at >= *start && **at - *start < MINUTE).count()
        };
        times.iter().map(from).max().unwrap_or(0)
    }

    /// Activates a device without the gateway; returns its id.
    pub fn activate(&self, key: &str, name: &str) -> String {
        self.state.lock().add_device(key, name)
    }

    /// The names of the devices that are activated.
    pub fn devices(&self, key: &str) -> Vec<String> {
        let state = self.state.lock();
        state.devices_of(key).iter().map(|(_, name)| name.clone()).collect()
    }

    /// Waits until it was called this often about this key.
    pub async fn saw(&self, key: &str, count: usize) {
        super::eventually(
            &format!("the shop is called {count} times"),
            Duration::from_secs(10),
            || async { self.calls_for(key).len() >= count },
        )
        .await;
    }

    /// The same about whatever key.
    pub async fn saw_any(&self, count: usize) {
        super::eventually(
            &format!("the shop is called {count} times in all"),
            Duration::from_secs(10),
            || async { self.calls().len() >= count },
        )
        .await;
    }
}

impl State {
    /// The answer to this call; `None` for silence.
    fn answer(&mut self, call: &Call) -> Option<Says> {
        let recent = self.calls.iter().filter(|known| known.at.elapsed() < MINUTE).count();
        self.calls.push(call.clone());
        if recent >= self.allows {
            return Some(too_many(60));
        }
        let gumroad = call.path == "/v2/licenses/verify";
        match self.mood {
            Mood::Hangs => return None,
            Mood::Status(status) => {
                return Some(Says::json(status, json!({ "message": "Server Error" })));
            }
            Mood::TooMany(seconds) => return Some(too_many(seconds)),
            Mood::Html => return Some(page(200)),
            Mood::ProductId if gumroad => return Some(no_product()),
            Mood::ProductId | Mood::Well | Mood::Held | Mood::Slow(_) => {}
        }
        Some(match call.path.as_str() {
            _ if call.method != "POST" => page(405),
            "/v1/licenses/validate" => self.validate(call),
            "/v1/licenses/activate" => self.activate(call),
            "/v1/licenses/deactivate" => self.deactivate(call),
            _ if gumroad => self.verify(call),
            _ => page(404),
        })
    }

    fn says(&self, key: &str) -> Option<Says> {
        let spelled = self.spelled.iter().find(|known| known.eq_ignore_ascii_case(key));
        if spelled.is_some_and(|known| known != key) {
            return None;
        }
        self.says.get(&key.to_ascii_uppercase()).cloned()
    }

    fn devices_of(&self, key: &str) -> &[(String, String)] {
        self.devices.get(&key.to_ascii_uppercase()).map_or(&[], Vec::as_slice)
    }

    fn add_device(&mut self, key: &str, name: &str) -> String {
        self.activated += 1;
        let id = format!("b1f0c6d2-4a7e-4c39-8f15-{:012x}", self.activated);
        let devices = self.devices.entry(key.to_ascii_uppercase()).or_default();
        devices.push((id.clone(), name.to_owned()));
        id
    }

    /// The licence as it is now, below the member that says how the call went.
    fn license_of(&self, call: &Call, flag: &str, good: bool) -> Says {
        let mut says = self.says(&call.key).unwrap_or_else(Says::not_found);
        if says.body["license_key"].is_object() {
            says.body["license_key"]["key"] = json!(call.key);
            says.body["license_key"]["activation_usage"] = json!(self.devices_of(&call.key).len());
        }
        if flag != "valid"
            && let Some(members) = says.body.as_object_mut()
        {
            members.remove("valid");
            members.insert(flag.into(), json!(good));
        }
        says
    }

    fn is_valid(&self, key: &str) -> bool {
        self.says(key).is_some_and(|says| says.body["valid"] == true)
    }

    fn validate(&self, call: &Call) -> Says {
        let says = self.license_of(call, "valid", true);
        let Some(id) = call.field("instance_id").filter(|_| self.is_valid(&call.key)) else {
            return says;
        };
        match self.devices_of(&call.key).iter().find(|(known, _)| known == id) {
            Some((id, name)) => says.with("/instance", instance(id, name)),
            None => Says::not_found().with("/error", json!("instance_id not found.")),
        }
    }

    fn activate(&mut self, call: &Call) -> Says {
        if !self.is_valid(&call.key) {
            return self.license_of(call, "activated", false);
        }
        let limit = self.says(&call.key).and_then(|says| {
            says.body.pointer("/license_key/activation_limit").and_then(Value::as_u64)
        });
        if limit.is_some_and(|limit| self.devices_of(&call.key).len() as u64 >= limit) {
            let error = "This license key has reached the activation limit.";
            return self
                .license_of(call, "activated", false)
                .status(400)
                .with("/error", json!(error));
        }
        let name = call.field("instance_name").unwrap_or("");
        let id = self.add_device(&call.key, name);
        self.license_of(call, "activated", true).with("/instance", instance(&id, name))
    }

    fn deactivate(&mut self, call: &Call) -> Says {
        let id = call.field("instance_id").unwrap_or("");
        let devices = self.devices.entry(call.key.to_ascii_uppercase()).or_default();
        let before = devices.len();
        devices.retain(|(known, _)| known != id);
        if devices.len() == before {
            let body = json!({ "deactivated": false, "error": "instance_id not found." });
            return Says::json(404, body);
        }
        self.license_of(call, "deactivated", true)
    }

    fn verify(&self, call: &Call) -> Says {
        if call.field("product_id").is_none() {
            return no_product();
        }
        let Some(mut says) = self.says(&call.key) else {
            let message = "That license does not exist for the provided product.";
            return Says::json(404, json!({ "success": false, "message": message }));
        };
        if says.body["purchase"].is_object() {
            says.body["purchase"]["license_key"] = json!(call.key);
        }
        says
    }
}

fn instance(id: &str, name: &str) -> Value {
    json!({ "id": id, "name": name, "created_at": "2026-03-02T09:20:11.000000Z" })
}

fn too_many(seconds: u64) -> Says {
    let mut says = Says::json(429, json!({ "message": "Too Many Attempts." }));
    says.headers.push(("retry-after".into(), seconds.to_string()));
    says
}

fn page(status: u16) -> Says {
    let body = json!("<!doctype html><title>Back soon</title>");
    Says { status, headers: vec![("content-type".into(), "text/html".into())], body }
}

fn no_product() -> Says {
    let message = format!(
        "The 'product_id' parameter is required to verify the license for this product. Please \
         set 'product_id' to '{PRODUCT}' in the request."
    );
    Says::json(500, json!({ "success": false, "message": message }))
}
