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
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string(), "--dir"])
            .arg(dir)
            .args(["--appendonly", "yes", "--save", ""])
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
        let number = |info: &str, name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|line| line.trim().parse::<f64>().ok()).unwrap_or_default()
        };
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

    fn info(&self, section: &str) -> Result<String> {
        let mut tcp = TcpStream::connect(self.address)?;
        write!(tcp, "INFO {section}\r\n")?;
        let mut answer = BufReader::new(tcp);
        let mut length = String::new();
        answer.read_line(&mut length)?;
        let length = length.trim().strip_prefix('$').context("INFO")?.parse()?;
        let mut text = vec![0; length];
        answer.read_exact(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
