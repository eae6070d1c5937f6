//! `licenses`: the cache and the sources. Shops declare the members of their sources themselves.

use std::sync::LazyLock;

use super::types::{ANY_TEXT, COUNT, DURATION, LINK, NAME};
use crate::config::field_type::{Field, FieldType, TextFormat, Variant};
use crate::shops::{self, Role, Shop};

pub const LICENSES: &[Field] = &[
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
