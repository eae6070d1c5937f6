//! The shop's side of a connection, and the calls that come over it.

use std::{
    future, io,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{Mood, Says, State};

/// A call as it arrived.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub fields: Vec<(String, String)>,
    /// As it was sent.
    pub key: String,
    pub at: Instant,
}

impl Call {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn parse(head: &str, body: &[u8]) -> Self {
        let mut lines = head.split("\r\n");
        let mut first = lines.next().unwrap_or("").split(' ');
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut call = Self {
            method: first.next().unwrap_or("").into(),
            path: first.next().unwrap_or("").into(),
            headers,
            fields: form(body),
            key: String::new(),
            at: Instant::now(),
        };
        call.key = call.field("license_key").unwrap_or("").to_owned();
        call
    }
}

pub(super) async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    // Those under way end with the shop.
    let mut connections = JoinSet::new();
    loop {
        let Ok((tcp, _)) = listener.accept().await else { continue };
        let _ = tcp.set_nodelay(true);
        connections.spawn(serve(tcp, state.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut tcp: TcpStream, state: Arc<Mutex<State>>) -> io::Result<()> {
    let mut pending = Vec::new();
    loop {
        let head = loop {
            if let Some(at) = memchr::memmem::find(&pending, b"\r\n\r\n") {
                let head: Vec<u8> = pending.drain(..at + 4).collect();
                break String::from_utf8_lossy(&head).into_owned();
            }
            fill(&mut tcp, &mut pending).await?;
        };
        let mut call = Call::parse(&head, b"");
        let length = call.header("content-length").and_then(|value| value.parse().ok());
        let length: usize = length.unwrap_or(0);
        while pending.len() < length {
            fill(&mut tcp, &mut pending).await?;
        }
        let body: Vec<u8> = pending.drain(..length).collect();
        call = Call { at: call.at, ..Call::parse(&head, &body) };
        let (answer, mood) = {
            let mut state = state.lock();
            (state.answer(&call), state.mood)
        };
        let Some(says) = answer else { return future::pending().await };
        if let Mood::Slow(time) = mood {
            tokio::time::sleep(time).await;
        }
        while mood == Mood::Held && state.lock().mood == mood {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tcp.write_all(&bytes(&says)).await?;
    }
}

async fn fill(tcp: &mut TcpStream, pending: &mut Vec<u8>) -> io::Result<()> {
    match tcp.read_buf(pending).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn bytes(says: &Says) -> Vec<u8> {
    // A page stands in a JSON string.
    let body = says.body.as_str().map_or_else(|| says.body.to_string(), str::to_owned);
    let mut text = format!("HTTP/1.1 {} Shop\r\n", says.status);
    for (name, value) in &says.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    text.into_bytes()
}

fn form(body: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(body);
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

fn decoded(text: &str) -> String {
    let mut plain = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'+' => b' ',
            b'%' => {
                let hex: String = bytes.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&hex, 16).unwrap_or(b'?')
            }
            byte => byte,
        });
    }
    String::from_utf8_lossy(&plain).into_owned()
}
