//! A provider that fails on command: HTTP/1.1 by hand, so that every fault can be had byte by byte.
//!
//! What it answers depends on the bearer it sees and on how often it saw it. It keeps every request.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::{TlsAcceptor, rustls::HandshakeKind};

use self::http1::{Connection, Io};
pub use self::reply::{Gate, Reply, Step};
use super::ca;

mod h2;
mod http1;
mod reply;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Connection it came on, counted from 0.
    pub connection: usize,
    /// Request line and headers, as received.
    pub head: Vec<u8>,
    pub method: String,
    /// With the query, if one came.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Without chunk framing.
    pub body: Vec<u8>,
    /// The bearer token, or what another dialect sends for it.
    pub key: String,
    pub at: Instant,
    /// When the other side left before the answer was out.
    pub left: Option<Instant>,
    /// The answer was written whole.
    pub answered: bool,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn header_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the gateway sends JSON")
    }
}

#[derive(Default)]
struct State {
    by_path: HashMap<String, Reply>,
    by_key: HashMap<String, Vec<Reply>>,
    /// By what stands in the body.
    by_text: Vec<(String, Reply)>,
    default: Vec<Reply>,
    count: HashMap<String, usize>,
    seen: Vec<Seen>,
    /// Over HTTP/2, at one time on a connection.
    streams: Option<u32>,
    /// TLS sessions that went on.
    resumed: usize,
}

impl State {
    /// The answer for this request; the last of a list stays.
    fn reply(&mut self, seen: &Seen) -> Reply {
        if let Some(reply) = self.by_path.get(&seen.path) {
            return reply.clone();
        }
        let in_body = |text: &str| memchr::memmem::find(&seen.body, text.as_bytes()).is_some();
        if let Some((_, reply)) = self.by_text.iter().find(|(text, _)| in_body(text)) {
            return reply.clone();
        }
        let (key, method) = (&*seen.key, &*seen.method);
        let names = [format!("{method} {key}"), method.into(), key.into(), family(key).into()];
        let known = names.into_iter().find_map(|name| Some((self.by_key.get(&name)?, name)));
        let (replies, name) = known.unwrap_or((&self.default, String::new()));
        let count = self.count.entry(name).or_default();
        let reply = replies[(*count).min(replies.len() - 1)].clone();
        *count += 1;
        reply
    }
}

pub struct Mock {
    pub addr: SocketAddr,
    tls: bool,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Mock {
    /// Answers every request alike.
    pub async fn start(reply: Reply) -> Self {
        Self::start_with(None, vec![reply]).await
    }

    /// The first answer for the first request, whichever key it carries, and so on; the last stays.
    pub async fn sequence(replies: impl Into<Vec<Reply>>) -> Self {
        Self::start_with(None, replies.into()).await
    }

    /// Over TLS, with a certificate for these names.
    pub async fn tls(names: &[&str], reply: Reply) -> Self {
        Self::start_with(Some(ca::acceptor(names, &[])), vec![reply]).await
    }

    /// Over HTTP/2 in TLS, for `localhost`. A `Close` is a reset stream there, bytes in front of
    /// the head are left out, and `Seen::head` is written down from the fields.
    pub async fn h2(replies: impl Into<Vec<Reply>>) -> Self {
        Self::start_with(Some(ca::acceptor(&["localhost"], &[b"h2"])), replies.into()).await
    }

    /// The same, with so many streams at one time on a connection.
    pub async fn h2_of_few_streams(streams: u32, reply: Reply) -> Self {
        let mock = Self::h2([reply]).await;
        mock.state.lock().streams = Some(streams);
        mock
    }

    /// At every address of the loopback network, so that one mock can be many providers of which none
    /// shares a connection with another.
    pub async fn everywhere(reply: Reply) -> Self {
        Self::start_at((Ipv4Addr::UNSPECIFIED, 0).into(), None, vec![reply]).await
    }

    /// At the same port of another address.
    pub async fn beside(&self, address: Ipv4Addr, reply: Reply) -> Self {
        Self::start_at((address, self.addr.port()).into(), None, vec![reply]).await
    }

    async fn start_with(tls: Option<TlsAcceptor>, default: Vec<Reply>) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), tls, default).await
    }

    async fn start_at(at: SocketAddr, tls: Option<TlsAcceptor>, default: Vec<Reply>) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(at).unwrap();
        let listener = socket.listen(4096).unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { default, ..State::default() }));
        let is_tls = tls.is_some();
        let task = tokio::spawn(accept(listener, tls, state.clone()));
        Self { addr, tls: is_tls, state, task }
    }

    /// Its `base_url`.
    pub fn url(&self) -> String {
        match self.tls {
            true => format!("https://localhost:{}/v1", self.addr.port()),
            false => format!("http://{}/v1", self.addr),
        }
    }

    /// What requests with this bearer get, or with any of the family `BEARER.1`, `BEARER.2` and so on,
    /// first to last; the last stays. `GET BEARER` and `GET` are the list of models alone.
    pub fn key(&self, bearer: &str, replies: impl Into<Vec<Reply>>) -> &Self {
        self.state.lock().by_key.insert(bearer.into(), replies.into());
        self
    }

    /// What requests get whose body holds `text`, whatever their key.
    pub fn text(&self, text: &str, reply: Reply) -> &Self {
        self.state.lock().by_text.push((text.into(), reply));
        self
    }

    /// Answers requests for this path alike, whichever key they carry.
    pub fn path(&self, path: &str, reply: Reply) -> &Self {
        self.state.lock().by_path.insert(path.to_owned(), reply);
        self
    }

    /// What all others get from now on.
    pub fn answer(&self, replies: impl Into<Vec<Reply>>) {
        let mut state = self.state.lock();
        state.default = replies.into();
        state.count.remove("");
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.lock().seen.clone()
    }

    /// The bearers of a family seen so far, in order.
    pub fn keys_of(&self, name: &str) -> Vec<String> {
        let state = self.state.lock();
        let own = state.seen.iter().filter(|seen| family(&seen.key) == name);
        own.map(|seen| seen.key.clone()).collect()
    }

    /// The same without probes, which ask for the list of models.
    pub fn asked_of(&self, name: &str) -> Vec<String> {
        let state = self.state.lock();
        let own = state.seen.iter().filter(|seen| family(&seen.key) == name);
        own.filter(|seen| seen.method != "GET").map(|seen| seen.key.clone()).collect()
    }

    pub fn count(&self) -> usize {
        self.state.lock().seen.len()
    }

    /// How many TLS sessions were resumed.
    pub fn resumed(&self) -> usize {
        self.state.lock().resumed
    }

    /// How many requests for this path it has seen.
    pub fn count_of(&self, path: &str) -> usize {
        self.state.lock().seen.iter().filter(|seen| seen.path == path).count()
    }

    /// The bearers seen so far, in order.
    pub fn keys(&self) -> Vec<String> {
        self.state.lock().seen.iter().map(|seen| seen.key.clone()).collect()
    }

    /// The only request it has seen.
    pub fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "the provider should have seen one request");
        seen.into_iter().next().unwrap()
    }

    pub fn last(&self) -> Seen {
        self.seen().pop().expect("the provider has seen no request")
    }

    pub fn forget(&self) {
        self.state.lock().seen.clear();
    }

    /// Waits until it has seen this many requests.
    pub async fn saw(&self, count: usize) {
        super::eventually(
            &format!("the provider sees {count} requests"),
            Duration::from_secs(10),
            || async { self.count() >= count },
        )
        .await;
    }

    /// Waits until the other side has left request `index`, and tells when that was.
    pub async fn left(&self, index: usize) -> Instant {
        super::eventually("the provider is cancelled", Duration::from_secs(10), || async {
            self.state.lock().seen[index].left.is_some()
        })
        .await;
        self.state.lock().seen[index].left.unwrap()
    }
}

/// `a` of the key `a.1`.
fn family(key: &str) -> &str {
    key.split_once('.').map_or(key, |(family, _)| family)
}

/// The key, wherever a dialect puts it.
pub fn key_of(headers: &[(String, String)]) -> String {
    let named = |wanted: &str| {
        headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
    };
    let bearer = named("authorization").and_then(|value| value.strip_prefix("Bearer "));
    bearer.or(named("x-api-key")).or(named("x-goog-api-key")).unwrap_or("").to_owned()
}

/// A `base_url` where nobody listens.
pub fn nobody() -> String {
    let port = super::gateway::free_port();
    format!("http://127.0.0.1:{port}/v1")
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<Mutex<State>>) {
    let connections = AtomicUsize::new(0);
    loop {
        let Ok((tcp, _)) = listener.accept().await else { continue };
        let _ = tcp.set_nodelay(true);
        let index = connections.fetch_add(1, Ordering::Relaxed);
        let (tls, state) = (tls.clone(), state.clone());
        tokio::spawn(async move {
            let io = match tls {
                None => Io::Plain(tcp),
                Some(tls) => match tls.accept(tcp).await.inspect(|stream| {
                    let kind = stream.get_ref().1.handshake_kind();
                    state.lock().resumed += usize::from(kind == Some(HandshakeKind::Resumed));
                }) {
                    Ok(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                        return h2::serve(stream, index, state).await;
                    }
                    Ok(stream) => Io::Tls(Box::new(stream)),
                    Err(_) => return,
                },
            };
            let _ = Connection::new(io, index, state).serve().await;
        });
    }
}
