//! A real redis-server as a process of its own, and just enough of its protocol to look inside.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tempfile::TempDir;

use super::{eventually, gateway::free_port};

pub struct Redis {
    dir: TempDir,
    addr: SocketAddr,
    args: Vec<String>,
    child: Child,
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Redis {
    /// Starts it and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with more on its command line.
    pub async fn start_with(args: &[&str]) -> Self {
        for _ in 0..3 {
            let dir = TempDir::new().unwrap();
            let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
            let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            let child = spawn(dir.path(), addr.port(), &args);
            let mut redis = Self { dir, addr, args, child };
            if redis.answers().await {
                return redis;
            }
        }
        panic!("redis-server does not start");
    }

    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on what it wrote, on the same port.
    pub async fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.dir.path(), self.addr.port(), &self.args);
        assert!(self.answers().await, "redis-server does not start again");
    }

    /// Waits for its first answer; `false` when the process ends instead.
    async fn answers(&mut self) -> bool {
        let mut alive = true;
        let (addr, child) = (self.addr, &mut self.child);
        eventually("redis answers", Duration::from_secs(10), || {
            alive = child.try_wait().unwrap().is_none();
            let ready = !alive || ask(addr, &[b"PING"]).is_some_and(|said| said.text() == "PONG");
            async move { ready }
        })
        .await;
        alive
    }

    pub fn ask(&self, words: &[&str]) -> Said {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        ask(self.addr, &words).unwrap_or_else(|| panic!("redis does not answer {words:?}"))
    }

    /// Writes down what it is asked from now on.
    pub fn monitor(&self) -> Monitor {
        let mut tcp = TcpStream::connect(self.addr).unwrap();
        tcp.write_all(b"*1\r\n$7\r\nMONITOR\r\n").unwrap();
        let mut lines = BufReader::new(tcp).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "+OK");
        let calls = Arc::<Mutex<Vec<Vec<String>>>>::default();
        let heard = calls.clone();
        std::thread::spawn(move || {
            // What scripts ask is not of interest: they are.
            for line in lines.map_while(Result::ok).filter(|line| !line.contains(" lua] ")) {
                heard.lock().push(words(&line));
            }
        });
        Monitor { calls }
    }

    pub fn flush(&self) {
        assert_eq!(self.ask(&["FLUSHALL"]).text(), "OK");
    }

    /// Every key with its value.
    pub fn content(&self) -> Vec<u8> {
        let mut content = Vec::new();
        for key in self.ask(&["KEYS", "*"]).list() {
            let key = key.text();
            let words: &[&str] = match self.ask(&["TYPE", &key]).text().as_str() {
                "string" => &["GET", &key],
                "hash" => &["HGETALL", &key],
                "set" => &["SMEMBERS", &key],
                "zset" => &["ZRANGE", &key, "0", "-1", "WITHSCORES"],
                "list" => &["LRANGE", &key, "0", "-1"],
                "stream" => &["XRANGE", &key, "-", "+"],
                // It expired meanwhile.
                "none" => continue,
                other => panic!("a key of kind {other}"),
            };
            content.extend_from_slice(key.as_bytes());
            content.push(b'\n');
            self.ask(words).write_to(&mut content);
        }
        content
    }

    /// Every file it wrote; nothing in them is compressed.
    pub fn files(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        read_below(self.dir.path(), &mut bytes);
        bytes
    }
}

/// What a Redis was asked since then.
pub struct Monitor {
    calls: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Monitor {
    /// Calls with a word that ends so, oldest first.
    pub fn calls(&self, end: &str) -> Vec<Vec<String>> {
        let is_meant = |call: &&Vec<String>| call.iter().any(|word| word.ends_with(end));
        self.calls.lock().iter().filter(is_meant).cloned().collect()
    }
}

/// The words of a call in a line of MONITOR; none of those of interest has a quote in it.
fn words(line: &str) -> Vec<String> {
    line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn spawn(dir: &Path, port: u16, args: &[String]) -> Child {
    Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"])
        .arg(dir)
        .args(["--appendonly", "yes", "--aof-use-rdb-preamble", "no", "--save", ""])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed")
}

fn read_below(dir: &Path, bytes: &mut Vec<u8>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => read_below(&path, bytes),
            false => bytes.extend(fs::read(&path).unwrap()),
        }
    }
}

/// An answer of Redis.
#[derive(Debug)]
pub enum Said {
    Text(Vec<u8>),
    List(Vec<Said>),
    Nothing,
}

impl Said {
    pub fn text(&self) -> String {
        match self {
            Said::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("no text: {other:?}"),
        }
    }

    pub fn list(self) -> Vec<Said> {
        match self {
            Said::List(list) => list,
            other => panic!("no list: {other:?}"),
        }
    }

    fn write_to(&self, bytes: &mut Vec<u8>) {
        match self {
            Said::Text(text) => {
                bytes.extend_from_slice(text);
                bytes.push(b'\n');
            }
            Said::List(list) => list.iter().for_each(|said| said.write_to(bytes)),
            Said::Nothing => {}
        }
    }
}

/// One command over a connection of its own; `None` when nobody answers.
fn ask(addr: SocketAddr, words: &[&[u8]]) -> Option<Said> {
    let mut tcp = TcpStream::connect(addr).ok()?;
    tcp.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let mut command = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        command.extend(format!("${}\r\n", word.len()).into_bytes());
        command.extend_from_slice(word);
        command.extend_from_slice(b"\r\n");
    }
    tcp.write_all(&command).ok()?;
    read(&mut BufReader::new(tcp))
}

fn read(from: &mut impl BufRead) -> Option<Said> {
    let mut line = String::new();
    from.read_line(&mut line).ok()?;
    let line = line.trim_end();
    let (kind, rest) = line.split_at_checked(1)?;
    match (kind, rest.parse::<i64>()) {
        ("$" | "*", Ok(-1)) => Some(Said::Nothing),
        ("$", Ok(length)) => {
            let mut bytes = vec![0; usize::try_from(length).ok()? + 2];
            from.read_exact(&mut bytes).ok()?;
            bytes.truncate(bytes.len() - 2);
            Some(Said::Text(bytes))
        }
        ("*", Ok(length)) => (0..length).map(|_| read(from)).collect::<Option<_>>().map(Said::List),
        ("+" | ":", _) => Some(Said::Text(rest.as_bytes().to_vec())),
        // An error, such as the one while it still loads.
        _ => None,
    }
}

/// One command to whoever listens on a port of this machine.
pub fn ask_port(port: u16, words: &[&str]) -> Option<Said> {
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    ask(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), &words)
}
