//! App, provider and Redis around one proxy, in lockstep: nothing is written to the proxy before all of it
//! sleeps, so what it does for a request is the same on any machine and under any load.
//!
//! On several connections the proxy is stopped while all of them are written to: it finds the bytes of
//! all when it goes on, as a busy proxy does.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;

use super::process::Process;
use crate::traffic::{Ask, Asked, Kind, LAST_EVENTS, Replies, UNKNOWN, content_length};

const PATIENCE: Duration = Duration::from_secs(60);
/// Between two chunks of a stream: Gatekeeper gathers what comes within a millisecond of its last
/// write, so each of these is written by itself.
const PACE: Duration = Duration::from_millis(2);
/// When the proxy sleeps and nothing is there to be passed on, it waits for its own clock.
const LOOK: Duration = Duration::from_micros(200);

/// What an app asks and what it is to get.
#[derive(Clone)]
pub struct Errand {
    pub ask: Ask,
    /// Empty for none.
    pub key: &'static str,
    pub status: u16,
    /// A word of the answer.
    pub says: &'static str,
}

/// Everything around the proxy.
pub struct Stage {
    provider: TcpListener,
    replies: Replies,
    upstreams: Vec<Upstream>,
    relay: Option<Relay>,
    apps: Vec<App>,
    process: Option<Process>,
    /// How often the proxy was stopped and let go again.
    pub holds: u64,
}

/// A connection from the proxy to the provider.
struct Upstream {
    socket: TcpStream,
    buf: Vec<u8>,
    streaming: Option<Streaming>,
    next: Option<Asked>,
}

struct Streaming {
    chunks: u32,
    sent: u32,
    usage: bool,
}

/// Connections from the proxy to Redis, each with the one that continues it.
struct Relay {
    listener: TcpListener,
    redis: SocketAddr,
    pairs: Vec<Pair>,
}

struct Pair {
    proxy: TcpStream,
    redis: TcpStream,
    /// Redis' answers, for the proxy.
    held: Vec<u8>,
}

#[derive(Default)]
struct App {
    socket: Option<TcpStream>,
    buf: Vec<u8>,
}

impl Stage {
    /// A provider that listens, and where there is a Redis, a relay to it.
    pub fn new(redis: Option<SocketAddr>) -> Result<Self> {
        let listen = || -> Result<TcpListener> {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let relay = match redis {
            Some(redis) => Some(Relay { listener: listen()?, redis, pairs: Vec::new() }),
            None => None,
        };
        Ok(Self {
            provider: listen()?,
            replies: Replies::default(),
            upstreams: Vec::new(),
            relay,
            apps: Vec::new(),
            process: None,
            holds: 0,
        })
    }

    pub fn provider(&self) -> Result<SocketAddr> {
        Ok(self.provider.local_addr()?)
    }

    /// Where the proxy finds Redis.
    pub fn redis(&self) -> Result<Option<SocketAddr>> {
        Ok(self.relay.as_ref().map(|relay| relay.listener.local_addr()).transpose()?)
    }

    /// Waits until the proxy at `address` answers as it should.
    pub fn start(&mut self, process: Process, address: SocketAddr, errand: &Errand) -> Result<()> {
        self.process = Some(process);
        let until = Instant::now() + PATIENCE;
        loop {
            self.pass_on()?;
            let ready = TcpStream::connect(address).is_ok();
            let result = if ready { self.round(address, errand, 1) } else { Ok(()) };
            match result {
                Ok(()) if ready => return Ok(()),
                Err(e) if Instant::now() > until => return Err(e),
                Ok(()) if Instant::now() > until => bail!("nothing listens"),
                _ => self.apps.clear(),
            }
            sleep(Duration::from_millis(5));
        }
    }

    /// So many requests, each connection asking again when all of them have their answers. Returns how
    /// many they were: whole rounds.
    pub fn run(
        &mut self,
        address: SocketAddr,
        errand: &Errand,
        connections: usize,
        requests: usize,
    ) -> Result<usize> {
        let rounds = requests.div_ceil(connections);
        for _ in 0..rounds {
            self.round(address, errand, connections)?;
            if self.relay.is_some() {
                // What was used is told to Redis a millisecond after the answer, not with the next request.
                self.rest(PACE)?;
            }
        }
        Ok(rounds * connections)
    }

    /// Lets the proxy do what it put off.
    pub fn rest(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.pass_on()?;
            sleep(LOOK);
        }
        self.process()?.settle()
    }

    fn process(&self) -> Result<Process> {
        self.process.context("no process yet")
    }

    fn round(&mut self, address: SocketAddr, errand: &Errand, connections: usize) -> Result<()> {
        let process = self.process()?;
        let request = errand.ask.request(address, errand.key);
        self.apps.resize_with(self.apps.len().max(connections), App::default);
        for app in &mut self.apps[..connections] {
            app.connect(address)?;
        }
        process.settle()?;
        self.hold(connections > 1)?;
        for app in &mut self.apps[..connections] {
            app.send(&request)?;
        }
        self.release(connections > 1)?;
        let until = Instant::now() + PATIENCE;
        loop {
            process.settle()?;
            self.take()?;
            let mut done = true;
            for app in &mut self.apps[..connections] {
                done &= app.is_answered(errand)?;
            }
            if done {
                return Ok(());
            }
            ensure!(Instant::now() < until, "no answer within {} s", PATIENCE.as_secs());
            let events = self.apps[..connections].iter().map(App::events).min();
            let writes = self.writes(events.unwrap_or_default());
            if writes == 0 {
                sleep(LOOK);
                continue;
            }
            if self.upstreams.iter().any(|upstream| upstream.streaming.is_some()) {
                sleep(PACE);
            }
            self.hold(writes > 1)?;
            self.answer(events.unwrap_or_default())?;
            self.release(writes > 1)?;
        }
    }

    /// Passes on whatever is there, proxy asleep or not.
    fn pass_on(&mut self) -> Result<()> {
        self.take()?;
        self.answer(usize::MAX)
    }

    fn hold(&mut self, needed: bool) -> Result<()> {
        if needed {
            self.holds += 1;
            self.process()?.hold()?;
        }
        Ok(())
    }

    fn release(&self, needed: bool) -> Result<()> {
        if needed { self.process()?.release() } else { Ok(()) }
    }

    /// Reads what the proxy wrote, to anyone.
    fn take(&mut self) -> Result<()> {
        while let Some(socket) = accept(&self.provider)? {
            let buf = Vec::with_capacity(8 << 10);
            self.upstreams.push(Upstream { socket, buf, streaming: None, next: None });
        }
        self.upstreams.retain_mut(|upstream| {
            let open = read(&mut upstream.socket, &mut upstream.buf);
            if upstream.next.is_none() && upstream.streaming.is_none() {
                upstream.next = Asked::take(&mut upstream.buf);
            }
            open
        });
        for app in &mut self.apps {
            if let Some(socket) = &mut app.socket
                && !read(socket, &mut app.buf)
            {
                app.socket = None;
            }
        }
        if let Some(relay) = &mut self.relay {
            relay.take()?;
        }
        Ok(())
    }

    /// How many sockets have something for the proxy.
    fn writes(&self, events: usize) -> usize {
        let upstreams = self.upstreams.iter().filter(|upstream| upstream.is_due(events)).count();
        let pairs = self.relay.iter().flat_map(|relay| &relay.pairs);
        upstreams + pairs.filter(|pair| !pair.held.is_empty()).count()
    }

    /// Writes one thing to each of them.
    fn answer(&mut self, events: usize) -> Result<()> {
        for upstream in &mut self.upstreams {
            if upstream.is_due(events) {
                upstream.answer(&self.replies)?;
            }
        }
        for pair in self.relay.iter_mut().flat_map(|relay| &mut relay.pairs) {
            let held = std::mem::take(&mut pair.held);
            if !held.is_empty() && !write(&mut pair.proxy, &held)? {
                bail!("the proxy left Redis");
            }
        }
        Ok(())
    }
}

impl Upstream {
    /// `events` is how many of the streams' events all apps have.
    fn is_due(&self, events: usize) -> bool {
        match &self.streaming {
            Some(streaming) => events >= streaming.sent as usize,
            None => self.next.is_some(),
        }
    }

    fn answer(&mut self, replies: &Replies) -> Result<()> {
        if let Some(streaming) = &mut self.streaming {
            if streaming.sent < streaming.chunks {
                streaming.sent += 1;
                write(&mut self.socket, &replies.chunk)?;
            } else {
                let usage = streaming.usage;
                self.streaming = None;
                write(&mut self.socket, replies.last(usage))?;
            }
            return Ok(());
        }
        let bytes = match self.next.take() {
            None => return Ok(()),
            Some(Asked::License) => &replies.license,
            Some(Asked::Unknown) => UNKNOWN,
            Some(Asked::Chat { ask, usage }) => match ask.kind {
                Kind::Json | Kind::Prompt => replies.json(ask.headers),
                Kind::Stream { chunks, .. } => {
                    self.streaming = Some(Streaming { chunks, sent: 1, usage });
                    replies.first(ask.headers)
                }
            },
        };
        write(&mut self.socket, bytes)?;
        Ok(())
    }
}

impl Relay {
    fn take(&mut self) -> Result<()> {
        while let Some(proxy) = accept(&self.listener)? {
            let redis = TcpStream::connect(self.redis).context("redis-server")?;
            redis.set_nodelay(true)?;
            redis.set_nonblocking(true)?;
            self.pairs.push(Pair { proxy, redis, held: Vec::new() });
        }
        let mut asked = Vec::new();
        self.pairs.retain_mut(|pair| {
            asked.clear();
            let open = read(&mut pair.proxy, &mut asked);
            let passed = asked.is_empty() || write(&mut pair.redis, &asked).unwrap_or(false);
            open && passed && read(&mut pair.redis, &mut pair.held)
        });
        Ok(())
    }
}

impl App {
    fn connect(&mut self, to: SocketAddr) -> Result<()> {
        self.buf.clear();
        if self.socket.is_none() {
            let socket = TcpStream::connect(to)?;
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            self.socket = Some(socket);
        }
        Ok(())
    }

    fn send(&mut self, request: &[u8]) -> Result<()> {
        let socket = self.socket.as_mut().context("the proxy closed an idle connection")?;
        ensure!(write(socket, request)?, "the proxy closed an idle connection");
        Ok(())
    }

    fn events(&self) -> usize {
        memmem::find_iter(&self.buf, b"data: ").count()
    }

    /// Whether the whole answer is there; an error when it is not the expected one.
    fn is_answered(&self, errand: &Errand) -> Result<bool> {
        let Some(head) = memmem::find(&self.buf, b"\r\n\r\n") else {
            ensure!(self.socket.is_some(), "the connection was closed");
            return Ok(false);
        };
        let body = &self.buf[head + 4..];
        let complete = match content_length(&self.buf[..head]) {
            Some(length) => body.len() >= length,
            None => self.buf.ends_with(b"\r\n0\r\n\r\n"),
        };
        if !complete {
            ensure!(self.socket.is_some(), "an answer broke off");
            return Ok(false);
        }
        let status = format!("HTTP/1.1 {} ", errand.status);
        let is_expected = self.buf.starts_with(status.as_bytes())
            && memmem::find(body, errand.says.as_bytes()).is_some();
        ensure!(is_expected, "another answer:\n{}", String::from_utf8_lossy(&self.buf));
        if let (Kind::Stream { chunks, .. }, 200) = (errand.ask.kind, errand.status) {
            let events = self.events();
            ensure!(events == chunks as usize + LAST_EVENTS, "{events} events in a stream");
        }
        Ok(true)
    }
}

fn accept(listener: &TcpListener) -> Result<Option<TcpStream>> {
    match listener.accept() {
        Ok((socket, _)) => {
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            Ok(Some(socket))
        }
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Reads what there is; false when the other side has closed.
fn read(socket: &mut TcpStream, buf: &mut Vec<u8>) -> bool {
    let mut some = [0; 16 << 10];
    loop {
        match socket.read(&mut some) {
            Ok(0) => return false,
            Ok(n) => buf.extend_from_slice(&some[..n]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return true,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

/// Writes all of it, which always fits; false when the other side has closed.
fn write(socket: &mut TcpStream, bytes: &[u8]) -> Result<bool> {
    match socket.write(bytes) {
        Ok(n) if n == bytes.len() => Ok(true),
        Ok(n) => bail!("only {n} of {} bytes were taken", bytes.len()),
        Err(e) if e.kind() == ErrorKind::WouldBlock => bail!("a socket is full"),
        Err(_) => Ok(false),
    }
}
