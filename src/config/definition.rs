//! The description of the whole configuration file: the check, the defaults and the JSON schema
//! all come from here. A field that is not here does not exist.

use std::sync::LazyLock;

use super::field_type::{Field, FieldType, TextFormat, Variant};
use crate::shops::{self, Role, Shop};

const DURATION: FieldType = FieldType::Text(TextFormat::Duration);
const SIZE: FieldType = FieldType::Text(TextFormat::Size);
const LIMIT: FieldType = FieldType::Text(TextFormat::Limit);
const NAME: FieldType = FieldType::Text(TextFormat::Name);
const PATH: FieldType = FieldType::Text(TextFormat::Path);
const LINK: FieldType = FieldType::Text(TextFormat::Link);
const ADDRESS: FieldType = FieldType::Text(TextFormat::Address);
const TARGET: FieldType = FieldType::Text(TextFormat::Target);
const ANY_TEXT: FieldType = FieldType::Text(TextFormat::Any);
const COUNT: FieldType = FieldType::Int { min: 1, max: i64::MAX as u64 };
const TEXTS: FieldType = FieldType::List { of: &ANY_TEXT, min: 0 };

/// The file itself.
pub const FILE: FieldType = FieldType::Record(&[
    Field::new("server", &FieldType::Record(SERVER), "The listener for apps."),
    Field::new(
        "admin",
        &FieldType::Record(ADMIN),
        "The listener for the operator: dashboard, status, metrics.",
    ),
    Field::new(
        "vault",
        &FieldType::Record(VAULT),
        "Keys that open sealed secrets. Not needed where no secret is sealed.",
    ),
    Field::new("store", &FieldType::Record(STORE), "Where usage is counted and stored."),
    Field::new("licenses", &FieldType::Record(LICENSES), "Accepted licences and their sources.")
        .required(),
    Field::new("plans", &PLANS, "What a licence may use, by plan name.").required(),
    Field::new("providers", &PROVIDERS, "AI providers and their API keys.").required(),
    Field::new("models", &MODELS, "Public model names and the targets behind them.").required(),
    Field::new(
        "prompts",
        &PROMPTS,
        "Prompts by name: apps choose one and send its variables, and nothing else about the model.",
    ),
    Field::new(
        "prices",
        &PRICES,
        "Dollars per million tokens by `provider/model`, with at most six decimals.",
    ),
    Field::new(
        "budget",
        &FieldType::Record(WHOLE_BUDGET),
        "Budget of all providers together. Answers in progress are finished, so it can be passed slightly.",
    ),
    Field::new(
        "filters",
        &FILTERS,
        "The chain, in order. Default: license, rate_limit, route, quota, meter.",
    ),
    Field::new("log", &FieldType::Record(LOG), "Logging."),
]);

const SERVER: &[Field] = &[
    Field::new("listen", &ADDRESS, "IP address and port.").or("127.0.0.1:8080"),
    Field::new(
        "threads",
        &FieldType::Int { min: 1, max: 1024 },
        "Worker threads. Default: one per core.",
    ),
    Field::new("grace", &DURATION, "How long open streams may continue after SIGTERM.").or("300s"),
    Field::new(
        "tls",
        &FieldType::Record(TLS),
        "Serve TLS 1.2 and 1.3. Required off loopback, unless behind_tls.",
    ),
    Field::new(
        "behind_tls",
        &FieldType::Bool,
        "A proxy in front of the gateway terminates TLS for the apps.",
    )
    .or("false"),
    Field::new(
        "trusted_proxies",
        &FieldType::List { of: &FieldType::Text(TextFormat::Network), min: 0 },
        "Networks whose X-Forwarded-For header is trusted.",
    ),
    Field::new("limits", &FieldType::Record(SERVER_LIMITS), "Limits of requests."),
];

const TLS: &[Field] = &[
    Field::new("cert", &PATH, "PEM file: the certificate and its chain.").required(),
    Field::new("key", &PATH, "PEM file: the private key.").required(),
];

const SERVER_LIMITS: &[Field] = &[
    Field::new("body", &SIZE, "Largest request body.").or("10MiB"),
    Field::new(
        "header_timeout",
        &DURATION,
        "From the first byte of a request to the end of its headers; also for a TLS handshake, and for the first \
         frame of HTTP/2.",
    )
    .or("10s"),
    Field::new(
        "buffered",
        &SIZE,
        "Memory that requests and answers hold at one time, all together; a licence and an address may hold a \
         quarter. Default: an eighth of the memory there is, 256MiB at most.",
    ),
    Field::new(
        "requests",
        &COUNT,
        "Requests open at one time; above it 503. Default: what half of the memory carries.",
    ),
    Field::new(
        "connections_per_address",
        &COUNT,
        "Connections of one address (IPv6: of a /64) while less than half of the room is free. Default: a quarter of \
         the room. Loopback and trusted proxies may have any number.",
    ),
];

const ADMIN: &[Field] = &[
    Field::new("listen", &ADDRESS, "IP address and port.").or("127.0.0.1:9090"),
    Field::new(
        "token",
        &FieldType::Text(TextFormat::Token),
        "`env:NAME` or `file:PATH`, 16 characters or more. Where it is set, everything except health and the page itself requires it. Required off \
         loopback. `none`: no token; a reload removes a token only if `none` is written.",
    ),
    Field::new(
        "read_token",
        &FieldType::Text(TextFormat::Source),
        "A second token, for GET only: `/metrics`, `/status`, `/feed` and the page. For Prometheus and for \
         read-only users. `env:NAME` or `file:PATH`, 16 characters or more.",
    ),
    Field::new(
        "tls",
        &FieldType::Record(TLS),
        "Serve the admin listener over TLS. Required off loopback, unless behind_tls.",
    ),
    Field::new(
        "behind_tls",
        &FieldType::Bool,
        "TLS ends in front of the admin listener, or its network is private: the token crosses it in clear.",
    )
    .or("false"),
    Field::new(
        "hosts",
        &TEXTS,
        "Host names that requests may carry beside loopback and the listen address; with a port where a \
         proxy serves the page on one of its own.",
    ),
];

const VAULT: &[Field] = &[
    Field::new(
        "kek",
        &FieldType::Text(TextFormat::Source),
        "The key that seals the others: 32 bytes in base64, `file:PATH` or `env:NAME`.",
    )
    .required(),
    Field::new(
        "previous",
        &FieldType::Text(TextFormat::Source),
        "The previous key. Opens secrets until `rewrap` has run.",
    ),
    Field::new(
        "pepper",
        &FieldType::Text(TextFormat::Secret),
        "32 bytes in base64 under which licences are hashed. Default: derived from the KEK. \
         `rewrap` writes it.",
    ),
];

const STORE: &[Field] = &[
    Field::new(
        "kind",
        &FieldType::Choice(&[Variant::new("embedded"), Variant::new("redis")]),
        "The kind of store. `redis`: several gateways count together and share what they know.",
    )
    .or("embedded"),
    Field::new("path", &PATH, "Database file of this gateway; its directory is created.")
        .or("data/gatekeeper.db"),
    Field::new("keep", &DURATION, "How long records of requests are kept.").or("90d"),
    Field::new(
        "url",
        &FieldType::Text(TextFormat::RedisUrl),
        "URL of Redis or Valkey: `redis://HOST:PORT/DB`, `rediss://...` with TLS, \
         `redis+sentinel://HOST:PORT,HOST:PORT/SERVICE`, `redis+cluster://HOST:PORT,HOST:PORT`. With \
         a password `env:NAME` or `file:PATH` that holds the whole URL.",
    )
    .with("kind", "redis"),
    Field::new(
        "on_store_down",
        &FieldType::Choice(&[Variant::new("lease"), Variant::new("closed")]),
        "While Redis is unavailable: `lease` lets a recently seen licence spend 2 % of its limits, once per \
         period and gateway, for 60 s; `closed` refuses at once.",
    )
    .or("lease")
    .with("kind", "redis"),
    Field::new(
        "unsafe_eviction",
        &FieldType::Bool,
        "Accepts a Redis that may evict keys or does not persist to disk.",
    )
    .or("false")
    .with("kind", "redis"),
];

const LICENSES: &[Field] = &[
    Field::new("cache", &FieldType::Record(CACHE), "How long answers of a shop are cached."),
    Field::new("buy_url", &LINK, "Where a buyer can get a licence; shown with refusals."),
    Field::new(
        "sources",
        &FieldType::Either(&[
            FieldType::List { of: &FieldType::OneOf(sources), min: 1 },
            FieldType::Choice(&[Variant::new("none")]),
        ]),
        "Sources of licences, checked in this order. `none` refuses every licence.",
    )
    .required(),
];

const CACHE: &[Field] = &[
    Field::new("fresh", &DURATION, "How long a cached licence is used without revalidation.")
        .or("24h"),
    Field::new(
        "stale",
        &DURATION,
        "How much longer it is used while it is revalidated in the background.",
    )
    .or("72h"),
    Field::new(
        "negative",
        &DURATION,
        "How long an invalid key is cached. Doubles on every repeat, up to 5 minutes.",
    )
    .or("60s"),
];

/// What a source can be: `static`, `signed`, `issued`, and every shop of the registry with the members it declares.
fn sources() -> &'static [Field] {
    static SOURCES: LazyLock<Vec<Field>> = LazyLock::new(|| {
        let here = [
            Field::new("static", &FieldType::Record(STATIC), "Keys written in this file."),
            Field::new(
                "signed",
                &FieldType::Record(SIGNED),
                "Licences signed with a key of your own.",
            ),
            Field::new("issued", &FieldType::Record(ISSUED), "Licences issued by this gateway."),
        ];
        here.into_iter().chain(shops::ALL.iter().map(|shop| shop_fields(*shop))).collect()
    });
    &SOURCES
}

/// The members of one shop's source. Made once, and there as long as the process.
fn shop_fields(shop: &'static dyn Shop) -> Field {
    let own = shop.fields().iter().map(|field| Field {
        required: field.required,
        default: (field.role == Role::TestMode).then_some("false"),
        ..Field::new(field.name, shape_of(field.role), field.doc)
    });
    let mut fields: Vec<Field> = own.collect();
    if shop.webhook().is_some() {
        fields.push(WEBHOOK_SECRET);
    }
    if shop.constants().base.is_some() {
        fields.push(SHOP_BASE_URL);
    }
    fields.extend([SHOP_ALLOW_PRIVATE, SHOP_BUDGET]);
    let fields: &'static [Field] = Vec::leak(fields);
    Field::new(shop.name(), Box::leak(Box::new(FieldType::Record(fields))), shop.constants().doc)
}

fn shape_of(role: Role) -> &'static FieldType {
    match role {
        Role::SellerNumber => &COUNT,
        Role::Seller | Role::Scope => &ANY_TEXT,
        Role::Products | Role::Labels => {
            &FieldType::Map { key: TextFormat::Any, of: &NAME, min: 1 }
        }
        Role::NumberedVariants => {
            &FieldType::Map { key: TextFormat::ShopId, of: &NUMBERED_VARIANTS, min: 1 }
        }
        Role::NamedVariants => {
            &FieldType::Map { key: TextFormat::Any, of: &NAMED_VARIANTS, min: 1 }
        }
        Role::ApiKey => &FieldType::Text(TextFormat::Source),
        Role::TestMode => &FieldType::Bool,
        Role::Url => &FieldType::Text(TextFormat::BaseUrl),
    }
}

const NUMBERED_VARIANTS: FieldType =
    FieldType::Map { key: TextFormat::ShopVariant, of: &NAME, min: 1 };
const NAMED_VARIANTS: FieldType = FieldType::Map { key: TextFormat::Any, of: &NAME, min: 1 };

const WEBHOOK_SECRET: Field = Field::new(
    "webhook_secret",
    &FieldType::Text(TextFormat::Source),
    "16 characters or more, `env:NAME` or `file:PATH`. Without it the shop's webhooks are refused. For Keygen, the \
     account's Ed25519 public key in hex.",
);
const SHOP_BASE_URL: Field = Field::new(
    "base_url",
    &FieldType::Text(TextFormat::BaseUrl),
    "Base URL of the shop's API, for tests.",
);
const SHOP_ALLOW_PRIVATE: Field = Field::new(
    "allow_private",
    &FieldType::Bool,
    "Allows plain HTTP and private addresses (disables the SSRF guard for this URL).",
)
.or("false");
const SHOP_BUDGET: Field = Field::new(
    "budget",
    &FieldType::Text(TextFormat::CallLimit),
    "Most calls to this source, like `50/minute`. Default: what the shop documents.",
);

const ISSUED: &[Field] = &[
    Field::new(
        "prefix",
        &ANY_TEXT,
        "What keys begin with: `JSTAR` makes `JSTAR-XXXXX-XXXXX-XXXXX-XXXXX`.",
    )
    .required(),
    Field::new(
        "stripe",
        &FieldType::Record(STRIPE),
        "Issues a licence for each purchase, and ends it with a refund or the subscription.",
    ),
    Field::new(
        "lemonsqueezy_api",
        &FieldType::Record(LEMONSQUEEZY_API),
        "Serves `POST /v1/licenses/{activate,validate,deactivate}` in Lemon Squeezy's form, for apps whose base \
         URL can be changed.",
    ),
    Field::new(
        "adopt",
        &FieldType::List { of: &FieldType::Choice(ADOPTABLE), min: 1 },
        "Shops whose valid keys become licences of this source when they are first used.",
    ),
    SHOP_BASE_URL,
    SHOP_ALLOW_PRIVATE,
];

const ADOPTABLE: &[Variant] =
    &[Variant::new("lemonsqueezy"), Variant::new("gumroad"), Variant::new("polar")];

const STRIPE: &[Field] = &[
    Field::new(
        "api_key",
        &FieldType::Text(TextFormat::Source),
        "A restricted key (`rk_live_...`), `env:NAME` or `file:PATH`. One of test mode makes licences that a live \
         one refuses.",
    )
    .required(),
    Field::new(
        "webhook_secret",
        &FieldType::Text(TextFormat::Source),
        "Of the endpoint `/webhooks/stripe` (`whsec_...`), `env:NAME` or `file:PATH`. Without it webhooks are \
         refused, and purchases are found by the sweep alone.",
    ),
    Field::new(
        "prices",
        &FieldType::Map { key: TextFormat::Any, of: &NAME, min: 1 },
        "Price id (`price_...`) to plan.",
    )
    .required(),
    Field::new("grace", &DURATION, "How long a licence holds past the end of the paid period.")
        .or("3d"),
    Field::new("sweep", &DURATION, "Between two looks for events whose webhooks were lost.")
        .or("1h"),
    Field::new(
        "deep_link",
        &ANY_TEXT,
        "What \"open in the app\" on `/claim` opens, like `jstar://license`; a one-time code is added.",
    ),
    SHOP_BASE_URL,
    SHOP_ALLOW_PRIVATE,
];

const LEMONSQUEEZY_API: &[Field] = &[
    Field::new("store_id", &COUNT, "The store that apps compare `meta.store_id` with.").required(),
    Field::new("variants", &PLAN_NUMBERS, "Plan to `meta.variant_id`.").required(),
    Field::new("products", &PLAN_NUMBERS, "Plan to `meta.product_id`. Default: as its variant."),
];

const PLAN_NUMBERS: FieldType = FieldType::Map { key: TextFormat::Name, of: &COUNT, min: 1 };

const SIGNED: &[Field] = &[
    Field::new(
        "keys",
        &FieldType::Map { key: TextFormat::Any, of: &ANY_TEXT, min: 1 },
        "Key id (`kid`) to public key, `ed25519:BASE64`.",
    )
    .required(),
    Field::new(
        "format",
        &FieldType::Choice(&[Variant::new("jwt"), Variant::new("keygen")]),
        "`jwt`, or `keygen` for Keygen's signed keys.",
    )
    .or("jwt"),
    Field::new(
        "audience",
        &ANY_TEXT,
        "What `aud` must name; for `keygen` the product's UUID.",
    )
    .required(),
    Field::new(
        "id",
        &ANY_TEXT,
        "The claim that says whose licence it is: usage belongs to it. Default: `sub`; for `keygen` `license.id`.",
    ),
    Field::new(
        "plan",
        &FieldType::Either(&[
            ANY_TEXT,
            FieldType::Map { key: TextFormat::Any, of: &FieldType::Map { key: TextFormat::Any, of: &NAME, min: 1 }, min: 1 },
        ]),
        "`claim:NAME` for a claim that holds the plan's name, or a claim with what its words stand for: \
         `{ tier: { gold: pro } }`.",
    )
    .required(),
    Field::new("perpetual", &FieldType::Bool, "Takes licences that have no end (`exp`), too.").or("false"),
    Field::new(
        "revoked",
        &ANY_TEXT,
        "`file:PATH`: ids or `jti` that are refused, one a line. Read again when it is saved.",
    ),
];

const STATIC: &[Field] = &[Field::new(
    "keys",
    &FieldType::List { of: &FieldType::Record(STATIC_KEY), min: 0 },
    "The keys.",
)
.required()];

const STATIC_KEY: &[Field] = &[
    Field::new(
        "key",
        &FieldType::Text(TextFormat::LicenseKey),
        "8 to 128 printable ASCII characters; case and surrounding spaces do not count.",
    )
    .required(),
    Field::new("plan", &NAME, "A plan of this file.").required(),
];

const PLANS: FieldType =
    FieldType::Map { key: TextFormat::Name, of: &FieldType::Record(PLAN), min: 1 };

const CONCURRENCY: FieldType = FieldType::Either(&[
    FieldType::Int { min: 1, max: u32::MAX as u64 },
    FieldType::Choice(&[Variant::new("unlimited")]),
]);

const PLAN: &[Field] = &[
    Field::new("messages", &LIMIT, "Requests that reach a provider. Default: unlimited."),
    Field::new("tokens", &LIMIT, "Input and output tokens together. Default: unlimited."),
    Field::new("rate", &LIMIT, "Requests of any kind. Default: unlimited."),
    Field::new(
        "concurrency",
        &CONCURRENCY,
        "Open requests at one time. At the default of 16 a request waits up to 5 s for a place before it is \
         refused; at a number written here it is refused at once. `unlimited` lifts the limit.",
    ),
    Field::new(
        "models",
        &FieldType::List { of: &ANY_TEXT, min: 1 },
        "Public model names, or `*` for all. Required, unless `prompts` is set.",
    ),
    Field::new(
        "prompts",
        &FieldType::List { of: &ANY_TEXT, min: 1 },
        "Prompts that may be asked, or `*` for all. Their models need not be among `models`.",
    ),
    Field::new(
        "prompts_only",
        &FieldType::Bool,
        "Nothing but prompts may be asked: other requests get 403 `prompt_required`.",
    )
    .or("false"),
    Field::new(
        "conversation",
        &FieldType::Record(CONVERSATION),
        "Limits of one conversation. Requests must name theirs (`x-conversation-id`).",
    ),
    Field::new(
        "idempotency",
        &DURATION,
        "How long a request that comes again, with the same `x-message-id` and body, gets the same answer without a \
         provider or a charge. In memory of one gateway; answers up to 64 KiB. At most `24h`. Default: not at all.",
    ),
    Field::new(
        "max_output_tokens",
        &COUNT,
        "Caps each answer. Default: 4096 where `tokens` is set, else none.",
    ),
    Field::new("min_output_tokens", &COUNT, "An answer's cap never shrinks below this.").or("256"),
    Field::new(
        "max_input_tokens",
        &COUNT,
        "Requests with more input are refused. Default: unlimited.",
    ),
    Field::new("upgrade_url", &LINK, "Shown when a limit is reached. Default: `licenses.buy_url`."),
    Field::new(
        "devices",
        &FieldType::Choice(&[Variant::new("optional"), Variant::new("required")]),
        "`required`: requests must carry the id of an activated device (`x-instance-id`).",
    )
    .or("optional"),
    Field::new(
        "max_devices",
        &COUNT,
        "Devices of one licence, where its shop has no list of devices with a limit of its own.",
    ),
    Field::new(
        "price",
        &FieldType::Text(TextFormat::Price),
        "What the plan costs its buyer, like `$9/month` or `$90/year`; for `gatekeeper usage`.",
    ),
    Field::new(
        "on_disconnect",
        &FieldType::Choice(&[Variant::new("cut"), Variant::new("drain")]),
        "When the app leaves in the middle of an answer. `cut`: the provider is left at once, what \
         came is charged. `drain`: the answer is read on for the provider's own count, 30 s and \
         1 MiB at most, 32 answers at one time.",
    )
    .or("cut"),
];

const CONVERSATION: &[Field] = &[
    Field::new("rate", &LIMIT, "Messages a minute or hour. Above it 429 `conversation_limited`."),
    Field::new("messages", &LIMIT, "Messages an hour or day. Above it 403 `conversation_limited`."),
    Field::new(
        "repeats",
        &FieldType::Int { min: 1, max: 250 },
        "How often the user's last turn may be the same within 10 minutes. Requests of one `x-message-id` count once.",
    ),
];

const PROVIDERS: FieldType =
    FieldType::Map { key: TextFormat::Name, of: &FieldType::Record(PROVIDER), min: 1 };

const DIALECT: FieldType =
    FieldType::Choice(&[Variant::new("openai"), Variant::new("anthropic"), Variant::new("gemini")]);

const STRATEGY: FieldType = FieldType::Choice(&[
    Variant::new("round_robin"),
    Variant::new("least_busy"),
    Variant::new("fastest"),
]);

const KEYS: FieldType = FieldType::List { of: &FieldType::Record(KEY), min: 1 };

const PROVIDER: &[Field] = &[
    Field::new(
        "base_url",
        &FieldType::Text(TextFormat::BaseUrl),
        "The endpoint's path is appended: `https://api.groq.com/openai/v1`. `stand-in` is a \
         provider inside this process.",
    )
    .required(),
    Field::new(
        "dialect",
        &DIALECT,
        "The API the provider speaks. It serves apps that speak the same; `anthropic` also those of \
         OpenAI's chat, by translation.",
    )
    .or("openai"),
    Field::new(
        "strategy",
        &STRATEGY,
        "Which key is next. `round_robin`: in turn, by weight; `least_busy`: with the fewest open \
         requests for its weight; `fastest`: of two at random the one whose first output comes \
         sooner.",
    )
    .or("round_robin"),
    Field::new("allow_private", &FieldType::Bool, "Allows plain HTTP and private addresses (disables the SSRF guard for this URL).")
        .or("false"),
    Field::new("timeouts", &FieldType::Record(TIMEOUTS), "When an attempt is aborted."),
    Field::new("allow_fields", &TEXTS, "Request fields that are passed on in addition to the known ones."),
    Field::new(
        "output_cap_field",
        &ANY_TEXT,
        "Request field for an output cap where the app set none.",
    )
    .or("max_completion_tokens"),
    Field::new(
        "identify",
        &FieldType::Choice(&[Variant::new("on"), Variant::new("off")]),
        "`on`: each request carries the licence's hash in the provider's field for its users (`user`, \
         `safety_identifier`, `metadata.user_id`), so that one buyer's abuse is not the whole account's.",
    )
    .or("on"),
    IMAGE_TOKENS,
    Field::new(
        "keys",
        &KEYS,
        "Required, except for the stand-in, on loopback and with allow_private.",
    ),
    Field::new(
        "budget",
        &FieldType::Record(BUDGET),
        "Budget of this provider. When it is spent, its targets are skipped.",
    ),
];

const IMAGE_TOKENS: Field = Field::new(
    "image_tokens",
    &FieldType::Text(TextFormat::ImageTokens),
    "How images count: by the rule of `openai`, `anthropic` or `gemini` and the size of the image, or a \
     number of tokens for each. Default: the rule of the provider's dialect.",
);

const BUDGET: &[Field] =
    &[Field::new("day", &FieldType::Text(TextFormat::Dollars), "Dollars a day (UTC), like `$20`.")
        .required()];

const WHOLE_BUDGET: &[Field] = &[
    Field::new("day", &FieldType::Text(TextFormat::Dollars), "Dollars a day (UTC), like `$20`.").required(),
    Field::new(
        "waste_per_licence",
        &FieldType::Text(TextFormat::Percent),
        "The most of a day's budget that one licence may waste on answers that reach no app, such as \
         timeouts; above it requests get 429.",
    )
    .or("10%"),
];

const TIMEOUTS: &[Field] = &[
    Field::new("connect", &DURATION, "Until a connection is established, TLS included.").or("3s"),
    Field::new("first_byte", &DURATION, "Until the response head arrives.").or("120s"),
    Field::new(
        "first_token",
        &DURATION,
        "From the start of an attempt to the first output of a stream or to the end of a JSON answer; \
         after it the next target is tried.",
    )
    .or("120s"),
    Field::new("idle", &DURATION, "Between two chunks of an answer.").or("60s"),
    Field::new("total", &DURATION, "For the whole answer.").or("600s"),
];

const KEY: &[Field] = &[
    Field::new("id", &NAME, "Its name in status, metrics and logs; unique at its provider.")
        .required(),
    Field::new(
        "secret",
        &FieldType::Text(TextFormat::Secret),
        "`sealed:v1:...` (see `gatekeeper seal`), `env:NAME` or `file:PATH`.",
    )
    .required(),
    Field::new(
        "group",
        &NAME,
        "Keys of one account share its limits. Default: a group of its own.",
    ),
    Field::new("weight", &FieldType::Int { min: 1, max: 1000 }, "Its share of the requests.")
        .or("1"),
    Field::new(
        "state",
        &FieldType::Choice(&[Variant::new("on"), Variant::new("off")]),
        "`off` keeps the key from being used.",
    )
    .or("on"),
];

const MODELS: FieldType = FieldType::Map {
    key: TextFormat::Model,
    of: &FieldType::Either(&[
        TARGETS,
        FieldType::Record(MODEL),
        FieldType::Text(TextFormat::Model),
    ]),
    min: 1,
};

const TARGETS: FieldType = FieldType::List { of: &TARGET, min: 1 };

const MODEL: &[Field] = &[
    Field::new(
        "targets",
        &TARGETS,
        "`provider/model`: the first is asked first, the rest are fallbacks.",
    ),
    Field::new(
        "accepts",
        &FieldType::List { of: &FieldType::Choice(MEDIA), min: 0 },
        "Content parts that the targets take beside text and images.",
    ),
    Field::new(
        "smart",
        &FieldType::Record(SMART),
        "Two other models: each request goes to one of them, by its difficulty. Replaces `targets`.",
    ),
    Field::new(
        "delivery",
        &FieldType::Choice(&[Variant::new("stream"), Variant::new("whole")]),
        "`whole`: a stream is read to its end before it is sent, so that another key or target can \
         replace even an answer that breaks in the middle.",
    )
    .or("stream"),
    Field::new(
        "on_empty",
        &FieldType::Choice(&[Variant::new("retry"), Variant::new("deliver")]),
        "Handling of an answer that ends normally with 0 tokens and no text, or with a tool call that the \
         provider could not parse: `retry` retries once before the app sees it, `deliver` passes it on.",
    )
    .or("retry"),
    Field::new(
        "timeouts",
        &FieldType::Record(MODEL_TIMEOUTS),
        "Timeouts of this model. Default, one by one: those of the provider.",
    ),
    Field::new(
        "sticky",
        &FieldType::Bool,
        "Keeps each conversation on its target and account, known by its first messages where the app \
         sends no `x-conversation-id`: the provider's prompt cache stays warm.",
    )
    .or("false"),
    Field::new(
        "vocabulary",
        &FieldType::Choice(&[Variant::new("o200k"), Variant::new("cl100k")]),
        "The vocabulary that estimates go by. Default: by the names of the targets' models; the larger \
         estimate where a name says nothing.",
    ),
    IMAGE_TOKENS,
    Field::new(
        "file_tokens",
        &COUNT,
        "Tokens reserved for a KiB of a file, such as a PDF, where `accepts` lists it.",
    )
    .or("64"),
    Field::new(
        "audio_tokens",
        &COUNT,
        "Tokens reserved for a KiB of audio, where `accepts` lists it.",
    )
    .or("4"),
];

const MODEL_TIMEOUTS: &[Field] = &[
    Field::new("first_byte", &DURATION, "Until the response head arrives."),
    Field::new(
        "first_token",
        &DURATION,
        "From the start of an attempt to the first output of a stream or to the end of a JSON answer; \
         after it the next target is tried.",
    ),
    Field::new("idle", &DURATION, "Between two chunks of an answer."),
    Field::new("total", &DURATION, "For all attempts together."),
];

const SMART: &[Field] = &[
    Field::new("simple", &FieldType::Text(TextFormat::Model), "The model for easy requests.").required(),
    Field::new("complex", &FieldType::Text(TextFormat::Model), "The model for hard requests.").required(),
    Field::new(
        "threshold",
        &FieldType::Fraction,
        "Requests that score this or more are hard. A higher value saves more and uses the better model less.",
    )
    .or("0.5"),
];

const MEDIA: &[Variant] =
    &[Variant::new("input_audio"), Variant::new("file"), Variant::new("video_url")];

const PROMPTS: FieldType =
    FieldType::Map { key: TextFormat::Name, of: &FieldType::Record(PROMPT), min: 0 };

const PROMPT: &[Field] = &[
    Field::new("model", &FieldType::Text(TextFormat::Model), "The model that answers.").required(),
    Field::new(
        "system",
        &ANY_TEXT,
        "The system text, or `file:PATH`, which is read again when it is saved. `{{name}}` stands for a variable.",
    )
    .required(),
    Field::new(
        "input",
        &FieldType::Map { key: TextFormat::Name, of: &FieldType::Record(INPUT), min: 0 },
        "Variables by name. One with `turns` is no variable: it says what messages apps may send.",
    ),
    Field::new("temperature", &FieldType::Temperature, "From 0 to 2. Default: the provider's."),
    Field::new(
        "max_output_tokens",
        &COUNT,
        "Caps each answer. Apps may ask for less, not for more. Default: the plan's.",
    ),
    Field::new(
        "response_format",
        &ANY_TEXT,
        "`file:PATH` of a JSON schema that answers must fit. With `additionalProperties: false` providers are asked \
         to hold the model to it strictly.",
    ),
    Field::new(
        "tools",
        &FieldType::Either(&[
            FieldType::List { of: &FieldType::Record(TOOL), min: 1 },
            FieldType::Choice(&[Variant::new("none")]),
        ]),
        "Functions that the app runs when the model calls them. Apps can send none of their own.",
    )
    .or("none"),
];

const INPUT: &[Field] = &[
    Field::new(
        "max",
        &COUNT,
        "Most characters of a value; of messages, all together. Default: 4000; of messages 20000.",
    ),
    Field::new("required", &FieldType::Bool, "A request without it is refused.").or("false"),
    Field::new(
        "one_of",
        &FieldType::List { of: &ANY_TEXT, min: 1 },
        "The values it may have, put into the system text as they are. The first stands where none is sent.",
    ),
    Field::new(
        "trusted",
        &FieldType::Bool,
        "The value is put into the system text as it is: every licence holder can write anything there.",
    )
    .or("false"),
    Field::new("turns", &COUNT, "Messages that apps may send, at most."),
    Field::new(
        "roles",
        &FieldType::List {
            of: &FieldType::Choice(&[Variant::new("user"), Variant::new("assistant")]),
            min: 1,
        },
        "Whose messages. Default: user, assistant.",
    ),
];

const TOOL: &[Field] = &[
    Field::new("name", &NAME, "The name of the function.").required(),
    Field::new("description", &ANY_TEXT, "What it does, for the model."),
    Field::new(
        "parameters",
        &FieldType::Anything,
        "The JSON schema of its arguments, or `file:PATH` of one. Default: no arguments.",
    ),
];

const PRICES: FieldType =
    FieldType::Map { key: TextFormat::Target, of: &FieldType::Record(PRICE), min: 0 };

const PRICE: &[Field] = &[
    Field::new("input", &FieldType::TokenPrice, "Input tokens.").required(),
    Field::new("output", &FieldType::TokenPrice, "Output tokens.").required(),
    Field::new("cached", &FieldType::TokenPrice, "Cached input tokens. Default: as input."),
    Field::new(
        "cache_write",
        &FieldType::TokenPrice,
        "Input tokens written to the provider's cache. Default: 1.25 times input in Anthropic's dialect, \
         as input in others.",
    ),
    Field::new(
        "cache_write_1h",
        &FieldType::TokenPrice,
        "The same, kept for an hour. Default: twice input in Anthropic's dialect, as input in others.",
    ),
];

const FILTERS: FieldType = FieldType::List {
    of: &FieldType::Either(&[
        NAME,
        FieldType::Map { key: TextFormat::Name, of: &FieldType::Anything, min: 1 },
    ]),
    min: 1,
};

const LEVEL: FieldType = FieldType::Choice(&[
    Variant::new("off"),
    Variant::new("error"),
    Variant::new("warn"),
    Variant::new("info"),
    Variant::new("debug"),
    Variant::new("trace"),
]);

/// What took the place of the gateway's own rotation of its access log.
const ROTATION: &str =
    "let logrotate move the file and send SIGHUP, as conf/logrotate/gatekeeper does.";

const LOG: &[Field] = &[
    Field::new("access", &ANY_TEXT, "One line per request: `stdout`, `off` or `file:PATH`.")
        .or("stdout"),
    Field::removed("access_max_size", ROTATION),
    Field::removed("access_keep", ROTATION),
    Field::new("level", &LEVEL, "Least severe log lines that are written.").or("info"),
    Field::new(
        "levels",
        &FieldType::Map { key: TextFormat::Name, of: &LEVEL, min: 0 },
        "Levels of single parts, like `pool: debug`. Third-party crates, like `pingora`, are capped at info.",
    ),
];
