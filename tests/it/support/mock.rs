//! A provider that fails on command: HTTP/1.1 by hand, so that every fault can be had byte by byte.
//!
//! What it answers depends on the bearer it sees and on how often it saw it. It keeps every request.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{ca, sse};

#[path = "mock_h2.rs"]
mod h2;

/// What the provider does, one thing after the other.
#[derive(Clone, Debug)]
pub enum Step {
    /// One write; in a chunked answer, one chunk.
    Write(Bytes),
    /// The same, one byte a write.
    Bytewise(Bytes),
    Wait(Duration),
    /// Waits until the test opens the gate.
    Gate(Gate),
    /// Closes with RST.
    Reset,
    /// HTTP/2: `REFUSED_STREAM`. Else as [`Step::Reset`].
    Refuse,
    /// Closes without a word.
    Close,
    /// Silent until the other side leaves.
    Hang,
    /// The same bytes for ever.
    Endless(Bytes, Duration),
}

/// Closed at first; opened by the test, for good.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Semaphore>, Arc<AtomicUsize>);

impl Gate {
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)), Arc::default())
    }

    pub fn open(&self) {
        self.0.add_permits(1_000_000);
    }

    /// How many wait in front of it.
    pub fn waiting(&self) -> usize {
        self.1.load(Ordering::SeqCst)
    }

    /// Waits until it is open.
    pub async fn pass(&self) {
        struct Waits<'a>(&'a AtomicUsize);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.1.fetch_add(1, Ordering::SeqCst);
        let _waits = Waits(&self.1);
        let _permit = self.0.acquire().await.expect("a gate is never taken away");
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Framing {
    Length,
    Chunked,
    /// The end of the connection is the end of the body.
    UntilClose,
}

/// One answer, faults included.
#[derive(Clone, Debug)]
pub struct Reply {
    before_head: Vec<Step>,
    status: u16,
    headers: Vec<(String, String)>,
    framing: Framing,
    /// Content-Length when it lies.
    length: Option<usize>,
    body: Vec<Step>,
    /// Answers before it has read the request's body.
    early: bool,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self {
            before_head: Vec::new(),
            status,
            headers: Vec::new(),
            framing: Framing::Length,
            length: None,
            body: Vec::new(),
            early: false,
        }
    }

    pub fn json(status: u16, body: impl Into<Bytes>) -> Self {
        Self::status(status).header("content-type", "application/json").write(body)
    }

    /// A provider's error in its usual envelope.
    pub fn error(status: u16) -> Self {
        let body = format!(
            "{{\"error\":{{\"message\":\"The provider says {status} (sk-SECRETprovider)\",\
             \"type\":\"provider_error\",\"param\":null,\"code\":\"provider_{status}\"}}}}"
        );
        Self::json(status, body)
    }

    /// A whole chat answer.
    pub fn chat() -> Self {
        Self::json(200, sse::CHAT)
    }

    pub fn sse<T: Into<Bytes> + Clone>(events: &[T]) -> Self {
        let mut reply = Self::status(200).header("content-type", "text/event-stream");
        reply.framing = Framing::Chunked;
        reply.body.extend(events.iter().cloned().map(|event| Step::Write(event.into())));
        reply
    }

    /// A whole chat stream, usage chunk included.
    pub fn stream() -> Self {
        Self::sse(&sse::with_usage(&["Hel", "lo"]))
    }

    /// No answer at all, but these steps.
    pub fn instead(steps: impl Into<Vec<Step>>) -> Self {
        let mut reply = Self::status(200);
        reply.before_head = steps.into();
        reply
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn before_head(mut self, step: Step) -> Self {
        self.before_head.push(step);
        self
    }

    /// An interim answer, such as 103.
    pub fn interim(self, status: u16) -> Self {
        let head = format!("HTTP/1.1 {status} Interim\r\nlink: </x>; rel=preload\r\n\r\n");
        self.before_head(Step::Write(head.into()))
    }

    pub fn write(self, bytes: impl Into<Bytes>) -> Self {
        self.then(Step::Write(bytes.into()))
    }

    pub fn then(mut self, step: Step) -> Self {
        self.body.push(step);
        self
    }

    /// Every write becomes one write a byte.
    pub fn bytewise(mut self) -> Self {
        for step in &mut self.body {
            if let Step::Write(bytes) = step {
                *step = Step::Bytewise(bytes.clone());
            }
        }
        self
    }

    pub fn chunked(mut self) -> Self {
        self.framing = Framing::Chunked;
        self
    }

    pub fn until_close(mut self) -> Self {
        self.framing = Framing::UntilClose;
        self
    }

    /// Says `length` and closes after what it really has.
    pub fn lying_length(mut self, length: usize) -> Self {
        self.length = Some(length);
        self.then(Step::Close)
    }

    pub fn early(mut self) -> Self {
        self.early = true;
        self
    }

    fn head(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} Mock\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match self.framing {
            Framing::Chunked => head.push_str("transfer-encoding: chunked\r\n"),
            Framing::UntilClose => head.push_str("connection: close\r\n"),
            Framing::Length => {
                let length = self.length.unwrap_or_else(|| self.body.iter().map(size).sum());
                head.push_str(&format!("content-length: {length}\r\n"));
            }
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    fn closes(&self) -> bool {
        self.framing == Framing::UntilClose
            || self.headers.iter().any(|(name, value)| {
                name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close")
            })
    }
}

fn size(step: &Step) -> usize {
    match step {
        Step::Write(bytes) | Step::Bytewise(bytes) => bytes.len(),
        _ => 0,
    }
}

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
                Some(tls) => match tls.accept(tcp).await {
                    Ok(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                        return h2::serve(stream, index, state).await;
                    }
                    Ok(stream) => Io::Tls(Box::new(stream)),
                    Err(_) => return,
                },
            };
            let connection = Connection { io, index, pending: Vec::new(), state };
            let _ = connection.serve().await;
        });
    }
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Io {
    fn tcp(&self) -> &TcpStream {
        match self {
            Io::Plain(tcp) => tcp,
            Io::Tls(tls) => tls.get_ref().0,
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Io::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Io::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Io::Plain(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Io::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

/// Why a connection ends.
enum End {
    /// By the script.
    Ours,
    /// The other side left.
    Theirs,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        End::Theirs
    }
}

struct Connection {
    io: Io,
    index: usize,
    /// Bytes read and not used yet.
    pending: Vec<u8>,
    state: Arc<Mutex<State>>,
}

impl Connection {
    async fn serve(mut self) -> Result<(), End> {
        loop {
            let (mut seen, mut at) = (self.read_head().await?, None);
            let by_text = !self.state.lock().by_text.is_empty();
            if by_text {
                self.read_body(&mut seen).await?;
            }
            let (reply, place) = {
                let mut state = self.state.lock();
                let reply = state.reply(&seen);
                if reply.early {
                    state.seen.push(seen.clone());
                    at = Some(state.seen.len() - 1);
                }
                (reply, at)
            };
            if !reply.early && !by_text {
                self.read_body(&mut seen).await?;
            }
            let place = place.unwrap_or_else(|| {
                let mut state = self.state.lock();
                state.seen.push(seen.clone());
                state.seen.len() - 1
            });
            let end = self.answer(&reply).await;
            {
                let mut state = self.state.lock();
                // `forget` may have emptied the list meanwhile.
                if let Some(entry) = state.seen.get_mut(place).filter(|entry| entry.at == seen.at) {
                    entry.answered = end.is_ok();
                    entry.left = matches!(end, Err(End::Theirs)).then(Instant::now);
                }
            }
            end?;
            if reply.closes() {
                let _ = self.io.shutdown().await;
                return Ok(());
            }
            if reply.early {
                self.read_body(&mut seen).await?;
            }
        }
    }

    async fn fill(&mut self) -> Result<(), End> {
        let mut buffer = [0; 64 * 1024];
        let count = self.io.read(&mut buffer).await?;
        if count == 0 {
            return Err(End::Theirs);
        }
        self.pending.extend_from_slice(&buffer[..count]);
        Ok(())
    }

    async fn read_head(&mut self) -> Result<Seen, End> {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&self.pending, b"\r\n\r\n") {
                break at + 4;
            }
            self.fill().await?;
        };
        let head: Vec<u8> = self.pending.drain(..end).collect();
        let text = String::from_utf8_lossy(&head).into_owned();
        let mut lines = text.split("\r\n");
        let mut first = lines.next().unwrap_or("").split(' ');
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let key = key_of(&headers);
        Ok(Seen {
            connection: self.index,
            method: first.next().unwrap_or("").into(),
            path: first.next().unwrap_or("").into(),
            head,
            headers,
            body: Vec::new(),
            key,
            at: Instant::now(),
            left: None,
            answered: false,
        })
    }

    async fn read_body(&mut self, seen: &mut Seen) -> Result<(), End> {
        if seen.header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            loop {
                let line = self.read_line().await?;
                let size = usize::from_str_radix(line.trim(), 16).map_err(|_| End::Ours)?;
                if size == 0 {
                    while !self.read_line().await?.is_empty() {}
                    return Ok(());
                }
                let chunk = self.take(size).await?;
                seen.body.extend_from_slice(&chunk);
                self.read_line().await?;
            }
        }
        let length = seen.header("content-length").and_then(|value| value.parse().ok());
        seen.body = self.take(length.unwrap_or(0)).await?;
        Ok(())
    }

    async fn read_line(&mut self) -> Result<String, End> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.pending, b"\r\n") {
                let line: Vec<u8> = self.pending.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            self.fill().await?;
        }
    }

    async fn take(&mut self, size: usize) -> Result<Vec<u8>, End> {
        while self.pending.len() < size {
            self.fill().await?;
        }
        Ok(self.pending.drain(..size).collect())
    }

    async fn answer(&mut self, reply: &Reply) -> Result<(), End> {
        for step in &reply.before_head {
            self.step(step, Framing::UntilClose).await?;
        }
        self.put(&reply.head()).await?;
        for step in &reply.body {
            self.step(step, reply.framing).await?;
        }
        if reply.framing == Framing::Chunked {
            self.put(b"0\r\n\r\n").await?;
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step, framing: Framing) -> Result<(), End> {
        match step {
            Step::Write(bytes) => self.write(bytes, framing).await,
            Step::Bytewise(bytes) => {
                for byte in bytes.chunks(1) {
                    self.write(byte, framing).await?;
                    tokio::task::yield_now().await;
                }
                Ok(())
            }
            Step::Wait(time) => self.watch(tokio::time::sleep(*time)).await,
            Step::Gate(gate) => self.watch(gate.pass()).await,
            Step::Hang => self.watch(std::future::pending()).await,
            Step::Close => {
                let _ = self.io.shutdown().await;
                Err(End::Ours)
            }
            Step::Reset | Step::Refuse => {
                let _ = self.io.tcp().set_zero_linger();
                Err(End::Ours)
            }
            Step::Endless(bytes, pause) => loop {
                self.write(bytes, framing).await?;
                self.watch(tokio::time::sleep(*pause)).await?;
            },
        }
    }

    async fn write(&mut self, bytes: &[u8], framing: Framing) -> Result<(), End> {
        if framing != Framing::Chunked {
            return self.put(bytes).await;
        }
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.put(&chunk).await
    }

    async fn put(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.io.write_all(bytes).await?;
        Ok(self.io.flush().await?)
    }

    /// Waits for `done`, and notices when the other side leaves meanwhile.
    async fn watch(&mut self, done: impl Future<Output = ()>) -> Result<(), End> {
        tokio::pin!(done);
        loop {
            tokio::select! {
                () = &mut done => return Ok(()),
                more = self.fill() => more?,
            }
        }
    }
}
