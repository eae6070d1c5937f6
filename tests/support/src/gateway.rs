//! The built gateway as a process of its own.

use std::{
    fs::{self, File},
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpSocket;

use super::{
    client::{Http, Raw},
    yaml::Config,
};

/// The program under test: that of the package whose tests run, which cargo names to them.
pub fn program() -> &'static str {
    static PROGRAM: LazyLock<String> = LazyLock::new(|| {
        let named = |name: &str| std::env::var(format!("CARGO_BIN_EXE_{name}")).ok();
        let program = ["gatekeeper", "custom-filter"].into_iter().find_map(named);
        program.expect("CARGO_BIN_EXE_gatekeeper: run the tests through cargo")
    });
    &PROGRAM
}

/// A port without a listener, below those the kernel gives to outgoing connections. It is bound for the test, not
/// listened on: a process that another thread starts right then has a copy of the socket until its exec, and
/// a copy that listens would keep the port from its user.
pub fn free_port() -> u16 {
    let is_free = |port: u16| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, port).into()).is_ok()
    };
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(97);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + (start.wrapping_add(step) % 20_000) as u16;
        if is_free(port) {
            return port;
        }
    }
}

/// Runs the program to its end.
pub fn run(args: &[&str], dir: &Path) -> Output {
    run_with_input(args, dir, "")
}

/// Runs the program to its end with this on standard input.
pub fn run_with_input(args: &[&str], dir: &Path, input: &str) -> Output {
    let mut command = Command::new(program());
    command.args(args).current_dir(dir);
    feed(command, input)
}

/// Runs a command to its end with this on standard input.
pub fn feed(mut command: Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that does not read its input closes the pipe: not this side's fault.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

pub struct Gateway {
    pub dir: Arc<TempDir>,
    pub config: Config,
    pub public: SocketAddr,
    pub admin: SocketAddr,
    /// Holds the admin token that it runs with.
    token_file: Option<PathBuf>,
    child: Child,
    exit: Option<ExitStatus>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.logs();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- the gateway's last words ---");
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
        }
    }
}

impl Gateway {
    /// Starts the gateway and waits until it is ready.
    pub async fn start(config: Config) -> Self {
        Self::start_in(Arc::new(TempDir::new().unwrap()), config).await
    }

    /// The same in a directory that may hold a store already.
    pub async fn start_in(dir: Arc<TempDir>, config: Config) -> Self {
        for _ in 0..3 {
            let mut gateway = Self::spawn(dir.clone(), config.clone());
            if gateway.ready().await {
                return gateway;
            }
            let logs = gateway.logs();
            // Another process may have taken the port meanwhile: take the next.
            assert!(logs.contains("in use"), "the gateway does not start:\n{logs}");
        }
        panic!("no free port for the gateway");
    }

    /// Starts it without waiting for anything.
    pub fn spawn(dir: Arc<TempDir>, config: Config) -> Self {
        let address = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let (public, admin) = (address(), address());
        let file = config.write(dir.path(), public, admin);
        Self::spawn_file(dir, config, public, admin, &file)
    }

    /// Starts it on a file that is there already.
    pub fn spawn_file(
        dir: Arc<TempDir>,
        config: Config,
        public: SocketAddr,
        admin: SocketAddr,
        file: &Path,
    ) -> Self {
        Self::spawn_with(dir, config, public, admin, file, &[])
    }

    /// Starts a second process on the same file, which waits until this one hands over to it.
    pub async fn successor(&self) -> Self {
        let file = self.dir.path().join("gatekeeper.yaml");
        let (dir, config) = (self.dir.clone(), self.config.clone());
        let mut next =
            Self::spawn_with(dir, config, self.public, self.admin, &file, &["--upgrade"]);
        let waits = format!("A successor waits: process {}.", next.pid());
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.logs().contains(&waits) {
            let ended = next.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "{ended:?}:\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        next
    }

    /// Starts a process that takes over from a gateway, without waiting for anything.
    pub fn spawn_upgrade(gateway: &Self, file: &Path) -> Self {
        let (dir, config) = (gateway.dir.clone(), gateway.config.clone());
        Self::spawn_with(dir, config, gateway.public, gateway.admin, file, &["--upgrade"])
    }

    /// Puts a new process in the place of this one; the old one.
    pub async fn hand_over(&mut self) -> Self {
        let next = self.successor().await;
        self.signal(Signal::QUIT);
        let serves = format!("Process {} serves, after", next.pid());
        super::eventually("the successor serves", Duration::from_secs(20), async || {
            self.logs().contains(&serves)
        })
        .await;
        std::mem::replace(self, next)
    }

    fn spawn_with(
        dir: Arc<TempDir>,
        config: Config,
        public: SocketAddr,
        admin: SocketAddr,
        file: &Path,
        more: &[&str],
    ) -> Self {
        let log = |name| {
            let path = dir.path().join(name);
            File::options().create(true).append(true).open(path).unwrap()
        };
        let words = [&config.under[..], &[program().to_owned()]].concat();
        let child = Command::new(&words[0])
            .args(&words[1..])
            .args(["run", "-c"])
            .arg(file)
            .args(more)
            .current_dir(dir.path())
            .envs(config.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log("stdout.log"))
            .stderr(log("stderr.log"))
            .spawn()
            .unwrap();
        let token_file = config.token_file();
        Self { dir, config, public, admin, token_file, child, exit: None }
    }

    /// Waits for `/readyz`; `false` when the process ends instead.
    pub async fn ready(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.exit = Some(status);
                return false;
            }
            if self.readyz().await == Some(200) {
                return true;
            }
            assert!(Instant::now() < deadline, "the gateway is not ready:\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What the admin listener says of readiness; `None` when it does not listen.
    pub async fn readyz(&self) -> Option<u16> {
        let mut raw = Raw::to(self.admin).await.ok()?;
        let host = self.admin;
        raw.send(format!("GET /readyz HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        raw.answer().await.map(|answer| answer.status)
    }

    /// kill -9, and the store as it then is.
    pub fn kill(&mut self) {
        if self.exit.is_none() {
            let _ = self.child.kill();
            self.exit = self.child.wait().ok();
        }
    }

    /// Starts it again on the same store, on other ports.
    pub async fn restart(&mut self) {
        self.kill();
        let next = Self::start_in(self.dir.clone(), self.config.clone()).await;
        *self = next;
    }

    /// Gives the running gateway another configuration; whether it went live.
    pub async fn reload(&mut self, config: Config) -> bool {
        config.write(self.dir.path(), self.public, self.admin);
        self.config = config;
        let is_live = self.read_again().await;
        if is_live {
            self.token_file = self.config.token_file();
        }
        is_live
    }

    /// Has it read its file again; whether that went live.
    pub async fn read_again(&self) -> bool {
        let count = async |result| {
            self.metrics_now().await.sum("gatekeeper_config_reload_total", &[("result", result)])
        };
        let before = (count("success").await, count("failure").await);
        self.signal(Signal::HUP);
        let mut now = before;
        let deadline = Instant::now() + Duration::from_secs(10);
        while now == before {
            assert!(Instant::now() < deadline, "it does not reload");
            tokio::time::sleep(Duration::from_millis(5)).await;
            now = (count("success").await, count("failure").await);
        }
        now.0 > before.0
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    pub async fn exited(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        while self.exit.is_none() {
            self.exit = self.child.try_wait().unwrap();
            assert!(
                self.exit.is_some() || Instant::now() < deadline,
                "the gateway still runs after {within:?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.exit.unwrap()
    }

    pub fn store(&self) -> PathBuf {
        self.config.store_in(self.dir.path())
    }

    /// Processor time it has used.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // Behind the name, which may hold anything; in hundredths of a second.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(10 * ticks)
    }

    /// Open files.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// A line of `/proc/PID/status` in KiB: `VmHWM`, the most it ever had in memory, or `VmRSS`.
    pub fn memory(&self, line: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let found = status.lines().find_map(|known| known.strip_prefix(&format!("{line}:")));
        found.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Waits until these words stand in the log, whose lines are written a moment after what they tell.
    pub async fn logged(&self, words: impl AsRef<str>) {
        let (words, deadline) = (words.as_ref(), Instant::now() + Duration::from_secs(10));
        while !self.logs().contains(words) {
            assert!(Instant::now() < deadline, "not logged: {words}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Standard output and error so far.
    pub fn logs(&self) -> String {
        ["stdout.log", "stderr.log"]
            .map(|name| fs::read(self.dir.path().join(name)).unwrap_or_default())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .concat()
    }

    /// An app on the wire of this test.
    pub fn app(&self) -> Http {
        Http::new(self.public, self.config.wire)
    }

    /// A socket to the public listener.
    pub async fn raw(&self) -> Raw {
        Raw::connect(self.public, self.config.wire).await
    }

    /// Somebody who has the admin token, if one is configured.
    pub fn operator(&self) -> Http {
        let token = self.token_file.as_ref().map(|file| fs::read_to_string(file).unwrap());
        self.stranger().bearing(token)
    }

    /// Somebody at the admin listener who has no token.
    pub fn stranger(&self) -> Http {
        Http::new(self.admin, super::Wire::Plain)
    }

    pub async fn me(&self, key: &str) -> Value {
        let answer = self.app().get("/v1/me").bearer_auth(key).send().await.unwrap();
        let (status, body) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Messages used, by `/v1/me`.
    pub async fn messages(&self, key: &str) -> u64 {
        let me = self.me(key).await;
        me["limits"]["messages"]["used"].as_u64().unwrap_or_else(|| panic!("no messages in {me}"))
    }

    /// Tokens used, by `/v1/me`.
    pub async fn tokens(&self, key: &str) -> u64 {
        let me = self.me(key).await;
        me["limits"]["tokens"]["used"].as_u64().unwrap_or_else(|| panic!("no tokens in {me}"))
    }

    /// Requests of this day, as the page shows them.
    pub async fn requests_today(&self) -> u64 {
        let status = self.status().await;
        let models = status["figures"]["models_today"].as_array().unwrap();
        models.iter().map(|model| model["requests"].as_u64().unwrap()).sum()
    }

    /// An answer is recorded right after its last byte, which a test may overtake: requests on their way get a
    /// moment to end.
    pub async fn status(&self) -> Value {
        let mut status = self.status_now().await;
        for _ in 0..30 {
            if status["in_flight"] == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            status = self.status_now().await;
        }
        status
    }

    /// Without waiting for requests on their way.
    pub async fn status_now(&self) -> Value {
        let answer = self.operator().get("/status").header("accept", "application/json");
        answer.send().await.unwrap().json().await.unwrap()
    }

    pub async fn metrics(&self) -> Metrics {
        self.status().await;
        self.metrics_now().await
    }

    async fn metrics_now(&self) -> Metrics {
        let mut answer = self.operator().get("/metrics").send().await.unwrap();
        if answer.status() == 401 {
            // A reload has just taken the token away.
            answer = self.stranger().get("/metrics").send().await.unwrap();
        }
        assert_eq!(answer.status(), 200);
        Metrics(answer.text().await.unwrap())
    }
}

/// A scrape.
pub struct Metrics(pub String);

impl Metrics {
    /// The sum of all series of this name with at least these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        self.0
            .lines()
            .filter_map(|line| line.strip_prefix(name))
            .filter(|rest| rest.starts_with(['{', ' ']))
            .filter(|rest| wanted.iter().all(|label| rest.contains(label.as_str())))
            .map(|rest| rest.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }
}
