//! A redis-server of the bench's own, and what it says of its work.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result, bail};

pub struct Redis {
    child: Child,
    address: SocketAddr,
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What it did so far.
#[derive(Clone, Copy, Default)]
pub struct Work {
    pub commands: u64,
    /// Scripts, which are what requests wait for.
    pub scripts: u64,
    /// Processor time.
    pub cpu: Duration,
}

impl Redis {
    /// As an operator would run it: append-only file, synced each second.
    pub fn start(dir: &Path) -> Result<Self> {
        Self::start_with(dir, &[])
    }

    fn start_with(dir: &Path, options: &[&str]) -> Result<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string(), "--dir"])
            .arg(dir)
            .args(["--appendonly", "yes", "--save", ""])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("redis-server")?;
        let redis = Self { child, address };
        for _ in 0..100 {
            if redis.info("server").is_ok() {
                return Ok(redis);
            }
            sleep(Duration::from_millis(50));
        }
        bail!("redis-server does not answer")
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Members of `store`.
    pub fn store(&self) -> String {
        format!("kind: redis, url: \"redis://{}\"", self.address)
    }

    pub fn work(&self) -> Result<Work> {
        let (stats, cpu) = (self.info("stats")?, self.info("cpu")?);
        let calls = self.info("commandstats")?;
        let scripts = calls.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        let scripts = scripts.and_then(|rest| rest.split(',').next()?.parse().ok());
        let seconds = number(&cpu, "used_cpu_user") + number(&cpu, "used_cpu_sys");
        Ok(Work {
            commands: number(&stats, "total_commands_processed") as u64,
            scripts: scripts.unwrap_or_default(),
            cpu: Duration::from_secs_f64(seconds),
        })
    }

    /// Memory of its data, in bytes.
    pub fn memory(&self) -> Result<u64> {
        Ok(number(&self.info("memory")?, "used_memory") as u64)
    }

    fn info(&self, section: &str) -> Result<String> {
        self.ask(&format!("INFO {section}"))
    }

    /// A command without spaces in its words, as people type it; the answer's text.
    fn ask(&self, command: &str) -> Result<String> {
        let mut tcp = TcpStream::connect(self.address)?;
        write!(tcp, "{command}\r\n")?;
        let mut answer = BufReader::new(tcp);
        let mut first = String::new();
        answer.read_line(&mut first)?;
        let first = first.trim();
        if let Some(error) = first.strip_prefix('-') {
            bail!("redis-server: {command}: {error}");
        }
        let Some(length) = first.strip_prefix('$') else { return Ok(first.to_owned()) };
        let mut text = vec![0; length.parse()?];
        answer.read_exact(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

fn number(info: &str, name: &str) -> f64 {
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|line| line.trim().parse().ok()).unwrap_or_default()
}

/// Slots of a cluster (Redis cluster specification).
const SLOTS: usize = 16_384;

/// Starts so many servers that share the slots; any of them leads to the others.
pub fn cluster(dir: &Path, size: usize) -> Result<Vec<Redis>> {
    let mut nodes = Vec::new();
    for nth in 0..size {
        let dir = dir.join(format!("node-{nth}"));
        std::fs::create_dir(&dir)?;
        let node = Redis::start_with(&dir, &["--cluster-enabled", "yes"])?;
        let (first, last) = (nth * SLOTS / size, (nth + 1) * SLOTS / size - 1);
        node.ask(&format!("CLUSTER ADDSLOTSRANGE {first} {last}"))?;
        // Two that met at the same epoch would quarrel about it for a while.
        node.ask(&format!("CLUSTER SET-CONFIG-EPOCH {}", nth + 1))?;
        nodes.push(node);
    }
    for node in &nodes[1..] {
        node.ask(&format!("CLUSTER MEET 127.0.0.1 {}", nodes[0].address.port()))?;
    }
    for _ in 0..200 {
        let knows_all = |node: &Redis| -> Result<bool> {
            let info = node.ask("CLUSTER INFO")?;
            Ok(info.contains("cluster_state:ok")
                && number(&info, "cluster_known_nodes") as usize == size)
        };
        let mut ready = true;
        for node in &nodes {
            ready &= knows_all(node)?;
        }
        if ready {
            return Ok(nodes);
        }
        sleep(Duration::from_millis(50));
    }
    bail!("the servers of the cluster do not find each other")
}
