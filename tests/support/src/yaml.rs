//! The configuration of one test: a small working one, and what the test changes of it.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{
    ca,
    mock::Mock,
    shop::{PRODUCT, Shop},
};

/// The licence key of plan `free`.
pub const LICENSE: &str = "JSTAR-TEST-0001";
/// The public model of [`Config::new`], served as `p/m1`.
pub const MODEL: &str = "fast";
/// A key-encrypting key, so that gateways of one test agree on the pepper.
pub const KEK: &str = "Zm9yIHRoZSB0ZXN0cyBvZiBHYXRla2VlcGVyIG9ubHk=";
/// A plan that may do nearly everything.
const PLENTY: &str = "messages: 100000/month, concurrency: unlimited, models: [\"*\"]";

/// How the app talks to the gateway.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wire {
    Plain,
    Tls,
    H2,
}

#[derive(Clone, Debug)]
pub struct Provider {
    pub name: String,
    pub base_url: String,
    /// Further members, YAML.
    pub more: String,
    /// Secrets; ids are `NAME-1`, `NAME-2` and so on.
    pub keys: Vec<String>,
    /// `secret:` lines that replace those of `keys`, by place.
    pub secrets: Vec<(usize, String)>,
    /// Further members of a key, by place: YAML that begins with a comma.
    pub members: Vec<(usize, String)>,
}

/// A source of licences beside `static`.
#[derive(Clone, Debug)]
struct Source {
    kind: String,
    members: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
pub struct Config {
    pub wire: Wire,
    server: String,
    plans: Vec<(String, String)>,
    licenses: Vec<(String, String)>,
    sources: Vec<Source>,
    cache: Option<String>,
    providers: Vec<Provider>,
    models: Vec<(String, String)>,
    filters: Option<String>,
    admin: String,
    /// Top-level YAML, taken as it is.
    more: String,
    pub env: Vec<(String, String)>,
    /// The program that starts the gateway in its own place, with its arguments.
    pub under: Vec<String>,
    /// Keeps the store over gateways of different configuration.
    pub store: Option<PathBuf>,
    redis: Option<String>,
    store_members: String,
}

impl Config {
    /// Plan `free` may do nearly everything; [`MODEL`] goes to this provider with keys `sk-one` and
    /// `sk-two`.
    pub fn new(mock: &Mock) -> Self {
        Self::empty()
            .plan("free", PLENTY)
            .license(LICENSE, "free")
            .provider("p", mock, &["sk-one", "sk-two"])
            .model(MODEL, "[p/m1]")
    }

    pub fn empty() -> Self {
        Self {
            wire: Wire::Plain,
            server: "grace: 5s".into(),
            plans: Vec::new(),
            licenses: Vec::new(),
            sources: Vec::new(),
            cache: None,
            providers: Vec::new(),
            models: Vec::new(),
            filters: None,
            admin: String::new(),
            more: String::new(),
            env: Vec::new(),
            under: Vec::new(),
            store: None,
            redis: None,
            store_members: String::new(),
        }
    }

    pub fn over(mut self, wire: Wire) -> Self {
        self.wire = wire;
        self
    }

    /// Replaces the members of `server` beside `listen`, `threads` and `tls`.
    pub fn server(mut self, members: &str) -> Self {
        self.server = members.into();
        self
    }

    /// A plan in which no request of a crowd waits for a place, unless `members` limit that: on a busy
    /// machine the default would refuse some of them.
    pub fn plan(self, name: &str, members: &str) -> Self {
        match members.contains("concurrency") {
            true => self.plan_as_written(name, members),
            false => self.plan_as_written(name, &format!("{members}, concurrency: unlimited")),
        }
    }

    /// A plan of `members` and nothing else.
    pub fn plan_as_written(mut self, name: &str, members: &str) -> Self {
        put(&mut self.plans, name, members);
        self
    }

    pub fn license(mut self, key: &str, plan: &str) -> Self {
        put(&mut self.licenses, key, plan);
        self
    }

    /// Licences of this Lemon Squeezy shop, with the store and the product of its answers.
    pub fn lemonsqueezy(self, shop: &Shop) -> Self {
        self.plan_if_missing("pro")
            .of_shop("lemonsqueezy", "base_url", &format!("\"{}\"", shop.url()))
            .of_shop("lemonsqueezy", "store_id", "58213")
            .of_shop("lemonsqueezy", "products", "{ 588102: { 912744: pro } }")
    }

    /// The same for Gumroad: variant `(Pro)` is plan `pro`, all others are `basic`.
    pub fn gumroad(self, shop: &Shop) -> Self {
        let products = format!("{{ \"{PRODUCT}\": {{ \"(Pro)\": pro, \"*\": basic }} }}");
        self.plan_if_missing("pro")
            .plan_if_missing("basic")
            .of_shop("gumroad", "base_url", &format!("\"{}\"", shop.url()))
            .of_shop("gumroad", "products", &products)
    }

    fn plan_if_missing(self, name: &str) -> Self {
        match self.plans.iter().any(|(known, _)| known == name) {
            true => self,
            false => self.plan(name, PLENTY),
        }
    }

    /// Sets one member of a shop, YAML.
    pub fn of_shop(mut self, kind: &str, member: &str, value: &str) -> Self {
        if !self.sources.iter().any(|known| known.kind == kind) {
            self.sources.push(Source { kind: kind.into(), members: Vec::new() });
        }
        let mut sources = self.sources.iter_mut();
        let source = sources.find(|known| known.kind == kind).expect("it was just added");
        put(&mut source.members, member, value);
        self
    }

    /// The secret of a shop's webhooks, through the environment.
    pub fn webhook_secret(self, kind: &str, secret: &str) -> Self {
        let name = format!("{}_WEBHOOK_SECRET", kind.to_ascii_uppercase());
        self.of_shop(kind, "webhook_secret", &format!("\"env:{name}\"")).env(&name, secret)
    }

    /// Members of `licenses.cache`, YAML.
    pub fn cache(mut self, members: &str) -> Self {
        self.cache = Some(members.into());
        self
    }

    /// Members of `store` beside `kind`, `url` and `path`.
    pub fn store_with(mut self, members: &str) -> Self {
        self.store_members = format!(", {members}");
        self
    }

    /// Counts together with others through Redis, under a pepper that comes from one KEK.
    pub fn redis(mut self, url: &str) -> Self {
        self.redis = Some(url.to_owned());
        self.vault()
    }

    /// A vault whose KEK comes from the environment.
    pub fn vault(self) -> Self {
        if self.more.contains("GATEKEEPER_TEST_KEK") {
            return self;
        }
        self.env("GATEKEEPER_TEST_KEK", KEK).more("vault: { kek: \"env:GATEKEEPER_TEST_KEK\" }")
    }

    pub fn provider(self, name: &str, mock: &Mock, keys: &[&str]) -> Self {
        self.provider_at(name, &mock.url(), "", keys)
    }

    /// `more` is YAML that begins with a comma, such as `, timeouts: { idle: 1s }`.
    pub fn provider_at(mut self, name: &str, base_url: &str, more: &str, keys: &[&str]) -> Self {
        self.providers.retain(|known| known.name != name);
        self.providers.push(Provider {
            name: name.into(),
            base_url: base_url.into(),
            more: more.into(),
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            secrets: Vec::new(),
            members: Vec::new(),
        });
        self
    }

    /// Replaces the keys of a provider.
    pub fn keys(mut self, provider: &str, keys: &[&str]) -> Self {
        self.provider_mut(provider).keys = keys.iter().map(|key| (*key).to_owned()).collect();
        self
    }

    /// Writes this as the secret of a key (counted from 0), instead of a file.
    pub fn secret(mut self, provider: &str, place: usize, secret: &str) -> Self {
        self.provider_mut(provider).secrets.push((place, secret.into()));
        self
    }

    /// Further members of a key (counted from 0), YAML.
    pub fn member(mut self, provider: &str, place: usize, member: &str) -> Self {
        self.provider_mut(provider).members.push((place, format!(", {member}")));
        self
    }

    pub fn weights(mut self, provider: &str, weights: &[u32]) -> Self {
        for (place, weight) in weights.iter().enumerate() {
            self = self.member(provider, place, &format!("weight: {weight}"));
        }
        self
    }

    /// Further members of `admin`, YAML.
    pub fn admin(mut self, members: &str) -> Self {
        self.admin = format!(", {members}");
        self
    }

    /// The file that holds the admin token.
    pub fn token_file(&self) -> Option<PathBuf> {
        let (_, rest) = self.admin.split_once("token: \"file:")?;
        rest.split_once('"').map(|(path, _)| path.into())
    }

    pub fn timeouts(mut self, provider: &str, timeouts: &str) -> Self {
        self.provider_mut(provider).more.push_str(&format!(", timeouts: {{ {timeouts} }}"));
        self
    }

    fn provider_mut(&mut self, name: &str) -> &mut Provider {
        self.providers.iter_mut().find(|known| known.name == name).expect("a provider of that name")
    }

    pub fn model(mut self, name: &str, targets: &str) -> Self {
        put(&mut self.models, name, targets);
        self
    }

    pub fn filters(mut self, list: &str) -> Self {
        self.filters = Some(list.into());
        self
    }

    pub fn more(mut self, yaml: &str) -> Self {
        self.more.push_str(yaml);
        self.more.push('\n');
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Has this program become the gateway, such as `prlimit`.
    pub fn under(mut self, words: &[&str]) -> Self {
        self.under = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Has the store at this place.
    pub fn store_at(mut self, path: &Path) -> Self {
        self.store = Some(path.to_owned());
        self
    }

    /// Where the store of this configuration lies, by default.
    pub fn store_in(&self, dir: &Path) -> PathBuf {
        self.store.clone().unwrap_or_else(|| dir.join("data/gatekeeper.db"))
    }

    /// The file alone, for commands that start nothing.
    pub fn file(&self, dir: &Path) -> PathBuf {
        let port = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        self.write(dir, port(1), port(2))
    }

    /// Writes secrets, certificates and the file itself; returns the file.
    pub fn write(&self, dir: &Path, public: SocketAddr, admin: SocketAddr) -> PathBuf {
        let mut yaml = String::new();
        let tls = match self.wire {
            Wire::Plain => String::new(),
            Wire::Tls | Wire::H2 => {
                let (cert, key) = (dir.join("server.pem"), dir.join("server.key"));
                if !cert.exists() {
                    let pair = ca::issue(&["localhost", "127.0.0.1"]);
                    fs::write(&cert, pair.cert).unwrap();
                    write_private(&key, &pair.key);
                }
                format!(", tls: {{ cert: {}, key: {} }}", cert.display(), key.display())
            }
        };
        let server = &self.server;
        let more = if server.is_empty() { String::new() } else { format!(", {server}") };
        let store = self.store_in(dir);
        fs::create_dir_all(store.parent().unwrap()).unwrap();
        let kind = match &self.redis {
            Some(url) => format!("redis, url: \"{url}\""),
            None => "embedded".to_owned(),
        };
        write!(
            yaml,
            "server: {{ listen: \"{public}\", threads: 1{tls}{more} }}\n\
             admin: {{ listen: \"{admin}\"{} }}\n\
             store: {{ kind: {kind}, path: {}{} }}\n",
            self.admin,
            store.display(),
            self.store_members
        )
        .unwrap();
        self.write_licenses(&mut yaml);
        yaml.push_str("plans:\n");
        for (name, members) in &self.plans {
            writeln!(yaml, "  {name}: {{ {members} }}").unwrap();
        }
        yaml.push_str("providers:\n");
        for provider in &self.providers {
            self.write_provider(&mut yaml, dir, provider);
        }
        yaml.push_str("models:\n");
        for (name, targets) in &self.models {
            writeln!(yaml, "  {name}: {targets}").unwrap();
        }
        if let Some(filters) = &self.filters {
            writeln!(yaml, "filters: {filters}").unwrap();
        }
        yaml.push_str(&self.more);
        let file = dir.join("gatekeeper.yaml");
        fs::write(&file, yaml).unwrap();
        file
    }

    fn write_licenses(&self, yaml: &mut String) {
        yaml.push_str("licenses:\n  buy_url: \"https://example.com/buy\"\n");
        if let Some(cache) = &self.cache {
            writeln!(yaml, "  cache: {{ {cache} }}").unwrap();
        }
        yaml.push_str("  sources:\n");
        if self.sources.is_empty() || !self.licenses.is_empty() {
            yaml.push_str("    - static:\n        keys:\n");
        }
        for (key, plan) in &self.licenses {
            writeln!(yaml, "          - {{ key: \"{key}\", plan: {plan} }}").unwrap();
        }
        for source in &self.sources {
            writeln!(yaml, "    - {}:", source.kind).unwrap();
            for (name, value) in &source.members {
                writeln!(yaml, "        {name}: {value}").unwrap();
            }
        }
    }

    fn write_provider(&self, yaml: &mut String, dir: &Path, provider: &Provider) {
        let Provider { name, base_url, more, .. } = provider;
        let keys: Vec<String> = (0..provider.keys.len())
            .map(|place| {
                let own = provider.secrets.iter().rfind(|(at, _)| *at == place);
                let secret = match own {
                    Some((_, secret)) => secret.clone(),
                    None => {
                        let file = dir.join(format!("{name}-{}.key", place + 1));
                        write_private(&file, &provider.keys[place]);
                        format!("file:{}", file.display())
                    }
                };
                let own = provider.members.iter().filter(|(at, _)| *at == place);
                let more: String = own.map(|(_, member)| member.as_str()).collect();
                format!("{{ id: {name}-{}, secret: \"{secret}\"{more} }}", place + 1)
            })
            .collect();
        let keys = keys.join(", ");
        writeln!(yaml, "  {name}: {{ base_url: \"{base_url}\"{more}, keys: [ {keys} ] }}").unwrap();
    }
}

fn put(list: &mut Vec<(String, String)>, name: &str, value: &str) {
    list.retain(|(known, _)| known != name);
    list.push((name.into(), value.into()));
}

/// A file that only its owner can read.
pub fn write_private(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}
