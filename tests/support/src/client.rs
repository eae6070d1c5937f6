//! Two clients: one that behaves (`Http`), one that sends whatever bytes it is told (`Raw`).

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Once,
    time::Duration,
};

use bytes::Bytes;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::rustls::{crypto::ring, pki_types::ServerName};

use super::{
    ca,
    yaml::{LICENSE, MODEL, Wire},
};

/// A real HTTP client, as an app has one.
#[derive(Clone)]
pub struct Http {
    client: reqwest::Client,
    base: String,
    /// The admin token, which goes along with every request.
    token: Option<String>,
}

impl Http {
    pub fn new(addr: SocketAddr, wire: Wire) -> Self {
        static RING: Once = Once::new();
        RING.call_once(|| {
            let _ = ring::default_provider().install_default();
        });
        let root = reqwest::Certificate::from_pem(ca::root().as_bytes()).unwrap();
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .tls_certs_only([root])
            .timeout(Duration::from_secs(60));
        if wire != Wire::H2 {
            builder = builder.http1_only();
        }
        let scheme = if wire == Wire::Plain { "http" } else { "https" };
        let base = format!("{scheme}://{addr}");
        Self { client: builder.build().unwrap(), base, token: None }
    }

    /// With this admin token in every request.
    pub fn bearing(mut self, token: Option<String>) -> Self {
        self.token = token;
        self
    }

    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.request("GET", path)
    }

    /// A POST with the test's licence.
    pub fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        self.request("POST", path)
            .bearer_auth(LICENSE)
            .header("content-type", "application/json")
            .body(body)
    }

    /// One chat question that is answered with JSON.
    pub async fn chat(&self) -> Answer {
        self.ask(&chat(&json!({}))).await
    }

    /// One chat question that is answered with a stream, read to its end.
    pub async fn stream(&self) -> Answer {
        self.ask(&chat(&json!({ "stream": true }))).await
    }

    /// Any chat body.
    pub async fn ask(&self, body: &Value) -> Answer {
        self.ask_as(LICENSE, body).await
    }

    pub async fn ask_as(&self, key: &str, body: &Value) -> Answer {
        let request = self
            .request("POST", "/v1/chat/completions")
            .bearer_auth(key)
            .header("content-type", "application/json")
            .body(body.to_string());
        Answer::of(request).await
    }

    /// One chat question of this licence.
    pub async fn chat_as(&self, key: &str) -> Answer {
        self.ask_as(key, &chat(&json!({}))).await
    }

    /// The same, through a proxy that saw it come from this address.
    pub async fn chat_from(&self, address: &str, key: &str) -> Answer {
        let request = self
            .request("POST", "/v1/chat/completions")
            .bearer_auth(key)
            .header("x-forwarded-for", address)
            .header("content-type", "application/json")
            .body(chat(&json!({})).to_string());
        Answer::of(request).await
    }

    /// Begins a stream and hands it over unread.
    pub async fn open(&self, body: &Value) -> reqwest::Response {
        self.post("/v1/chat/completions", body.to_string()).send().await.unwrap()
    }
}

/// A small chat body with these members added.
pub fn chat(more: &Value) -> Value {
    let mut body =
        json!({ "model": MODEL, "messages": [{ "role": "user", "content": "Hi there" }] });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The body ended as the protocol wants it.
    pub whole: bool,
}

impl Answer {
    pub async fn of(request: reqwest::RequestBuilder) -> Self {
        let response = super::within(Duration::from_secs(60), "an answer", request.send()).await;
        Self::read(response.expect("an answer")).await
    }

    pub async fn read(mut response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut body = Vec::new();
        let whole = loop {
            match response.chunk().await {
                Ok(Some(bytes)) => body.extend_from_slice(&bytes),
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        Self { status, headers, body: body.into(), whole }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn number(&self, name: &str) -> u64 {
        let value = self.header(name).unwrap_or_else(|| panic!("no {name} in {self:?}"));
        value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    /// A member of the error.
    pub fn error(&self, member: &str) -> Value {
        self.json()["error"][member].clone()
    }

    /// Asserts status and code of a refusal, its envelope and its words.
    #[track_caller]
    pub fn is(&self, status: u16, code: &str) -> &Self {
        assert_eq!(self.status, status, "{}", self.text());
        let error = &self.json()["error"];
        assert_eq!(error["code"], code, "{error}");
        assert!(error["message"].as_str().is_some_and(|words| words.len() > 10), "{error}");
        assert!(error["type"].is_string() && error.get("param").is_some(), "{error}");
        assert!(self.header("x-request-id").is_some(), "no x-request-id on a {status}");
        self
    }

    #[track_caller]
    pub fn ok(&self) -> &Self {
        assert_eq!(self.status, 200, "{}", self.text());
        assert!(self.whole, "the answer broke off: {}", self.text());
        self
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A bare connection.
pub struct Raw {
    stream: Box<dyn Stream>,
    pending: Vec<u8>,
}

/// An HTTP/1.1 answer as it came over a bare connection.
#[derive(Debug, Clone)]
pub struct RawAnswer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl RawAnswer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.split("\r\n").skip(1).find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn code(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["error"]["code"].as_str().unwrap_or("").to_owned()
    }
}

impl Raw {
    pub async fn to(addr: SocketAddr) -> io::Result<Self> {
        let tcp = TcpStream::connect(addr).await?;
        tcp.set_nodelay(true)?;
        Ok(Self { stream: Box::new(tcp), pending: Vec::new() })
    }

    /// From this address, which is one of the machine's.
    pub async fn from(source: IpAddr, addr: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((source, 0).into())?;
        let tcp = socket.connect(addr).await?;
        tcp.set_nodelay(true)?;
        Ok(Self { stream: Box::new(tcp), pending: Vec::new() })
    }

    /// HTTP/1.1, over TLS unless the wire is plain.
    pub async fn connect(addr: SocketAddr, wire: Wire) -> Self {
        let plain = Self::to(addr).await.unwrap();
        if wire == Wire::Plain {
            return plain;
        }
        plain.shake(b"http/1.1").await.unwrap()
    }

    /// TLS on this connection, with this protocol.
    pub async fn shake(self, alpn: &[u8]) -> io::Result<Self> {
        let name = ServerName::try_from("localhost").unwrap();
        let stream = ca::connector(&[alpn]).connect(name, self.stream).await?;
        Ok(Self { stream: Box::new(stream), pending: Vec::new() })
    }

    /// The stream itself.
    pub fn into_stream(self) -> impl AsyncRead + AsyncWrite + Send + Unpin + 'static {
        self.stream
    }

    /// Sends bytes; a connection that is closed already does not mind.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let sent = self.stream.write_all(bytes.as_ref()).await.is_ok();
        sent && self.stream.flush().await.is_ok()
    }

    async fn fill(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer).await {
            Ok(count) if count > 0 => {
                self.pending.extend_from_slice(&buffer[..count]);
                true
            }
            _ => false,
        }
    }

    /// The next answer; `None` when the connection ends first.
    pub async fn answer(&mut self) -> Option<RawAnswer> {
        super::soon("an answer on a bare connection", self.next_answer()).await
    }

    async fn next_answer(&mut self) -> Option<RawAnswer> {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&self.pending, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill().await {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&self.pending.drain(..end).collect::<Vec<u8>>()).into();
        let mut answer = RawAnswer { status: 0, head, body: Vec::new() };
        answer.status = answer.head.split(' ').nth(1)?.parse().ok()?;
        if answer.status < 200 || answer.status == 204 {
            return Some(answer);
        }
        if answer.header("transfer-encoding").is_some() {
            loop {
                let line = self.line().await?;
                let size = usize::from_str_radix(line.trim(), 16).ok()?;
                let chunk = self.take(size).await?;
                answer.body.extend_from_slice(&chunk);
                self.line().await?;
                if size == 0 {
                    return Some(answer);
                }
            }
        }
        let length = answer.header("content-length").and_then(|value| value.parse().ok());
        answer.body = self.take(length.unwrap_or(0)).await?;
        Some(answer)
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.pending, b"\r\n") {
                let line: Vec<u8> = self.pending.drain(..at + 2).collect();
                return Some(String::from_utf8_lossy(&line).into());
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    async fn take(&mut self, size: usize) -> Option<Vec<u8>> {
        while self.pending.len() < size {
            if !self.fill().await {
                return None;
            }
        }
        Some(self.pending.drain(..size).collect())
    }

    /// Everything until the other side closes; `None` when it does not within `limit`.
    pub async fn rest(&mut self, limit: Duration) -> Option<Vec<u8>> {
        let all = async { while self.fill().await {} };
        tokio::time::timeout(limit, all).await.ok()?;
        Some(std::mem::take(&mut self.pending))
    }

    /// Reads until this has come; what follows it may have come, too.
    pub async fn until(&mut self, text: &str) {
        let read = async {
            while !super::contains(&self.pending, text) {
                assert!(self.fill().await, "the connection ended before {text:?}");
            }
        };
        super::soon(text, read).await;
    }

    /// What has come and was not taken yet.
    pub fn so_far(&self) -> Vec<u8> {
        self.pending.clone()
    }

    /// Ends its own side and waits until the other side has ended, too.
    pub async fn leave(mut self) {
        let _ = self.stream.shutdown().await;
        let rest = self.rest(Duration::from_secs(10)).await;
        assert!(rest.is_some(), "the gateway holds on to the connection of an app that has left");
    }

    /// Splits the connection for tests that read while they write.
    pub fn into_halves(
        self,
    ) -> (tokio::io::ReadHalf<impl AsyncRead + Send>, tokio::io::WriteHalf<impl AsyncWrite + Send>)
    {
        tokio::io::split(self.stream)
    }
}

/// How many answers stand in these bytes.
pub fn count_answers(bytes: &[u8]) -> usize {
    memchr::memmem::find_iter(bytes, b"HTTP/1.1 ").count()
}

/// A whole request of the test's licence over a bare connection.
pub fn post(path: &str, body: &Value) -> String {
    let body = body.to_string();
    format!("{}content-length: {}\r\n\r\n{body}", post_head(path), body.len())
}

/// A head for a POST to the chat endpoint with the test's licence, without a framing header.
pub fn post_head(path: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: gateway.test\r\nauthorization: Bearer {LICENSE}\r\n\
         content-type: application/json\r\n"
    )
}
