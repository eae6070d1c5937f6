//! A shop of any kind, HTTP/1.1 by hand: what it answers is a function of the call. It keeps every call.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A call as it arrived.
#[derive(Clone, Debug)]
pub struct VendorCall {
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Value,
}

impl VendorCall {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.path == path
    }
}

/// Status and body.
pub type VendorAnswer = (u16, String);
type Script = Box<dyn Fn(&VendorCall) -> VendorAnswer + Send>;

pub struct Vendor {
    addr: SocketAddr,
    script: Arc<Mutex<Script>>,
    calls: Arc<Mutex<Vec<VendorCall>>>,
    task: JoinHandle<()>,
}

impl Drop for Vendor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Vendor {
    pub async fn open(script: impl Fn(&VendorCall) -> VendorAnswer + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(script)));
        let calls: Arc<Mutex<Vec<VendorCall>>> = Arc::default();
        let (said, kept) = (script.clone(), calls.clone());
        let task = tokio::spawn(async move {
            loop {
                let Ok((tcp, _)) = listener.accept().await else { continue };
                let (said, kept) = (said.clone(), kept.clone());
                tokio::spawn(async move { serve(tcp, &said, &kept).await });
            }
        });
        Self { addr, script, calls, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What it answers from now on.
    pub fn says(&self, script: impl Fn(&VendorCall) -> VendorAnswer + Send + 'static) {
        *self.script.lock() = Box::new(script);
    }

    pub fn calls(&self) -> Vec<VendorCall> {
        self.calls.lock().clone()
    }
}

async fn serve(
    mut tcp: TcpStream,
    script: &Mutex<Script>,
    calls: &Mutex<Vec<VendorCall>>,
) -> io::Result<()> {
    let mut pending = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&pending, b"\r\n\r\n") {
                break at + 4;
            }
            if tcp.read_buf(&mut pending).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&pending[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let mut first = lines.next().unwrap_or("").split(' ').map(str::to_owned);
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
        while pending.len() < end + length {
            if tcp.read_buf(&mut pending).await? == 0 {
                return Ok(());
            }
        }
        let body = serde_json::from_slice(&pending[end..end + length]).unwrap_or_default();
        pending.drain(..end + length);
        let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
        let call = VendorCall { method, path, headers, body };
        let (status, body) = script.lock()(&call);
        calls.lock().push(call);
        let answer =
            format!("HTTP/1.1 {status} Shop\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        tcp.write_all(answer.as_bytes()).await?;
    }
}
