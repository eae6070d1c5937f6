use http::HeaderValue;
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::*;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| {
            (http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        })
        .collect()
}

/// The example of the specification's libraries (<https://github.com/standard-webhooks/standard-webhooks>).
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const BODY: &[u8] = br#"{"test": 2432232314}"#;
const SIGNED: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
const AT: UnixMs = UnixMs(1_614_265_330_000);

fn standard(signature: &str, now: UnixMs) -> Result<Signature, HeadError> {
    let headers = headers(&[
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", signature),
    ]);
    of_head(Scheme::Standard, &headers, now)
}

#[test]
fn the_example_of_standard_webhooks_is_genuine() {
    let signature = standard(SIGNED, AT).unwrap();
    assert!(signature.is_of(SECRET, BODY));
    assert!(signature.is_of("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", BODY), "without the prefix");
    assert!(!signature.is_of(SECRET, b"{}"));
    assert!(!signature.is_of("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", BODY));
    // While a secret is replaced there are several; other versions are passed over.
    let several = format!("v1a,AAAA v1,{} {SIGNED}", STANDARD.encode([0; 32]));
    assert!(standard(&several, AT).unwrap().is_of(SECRET, BODY));
}

#[test]
fn polar_signs_with_the_bytes_of_the_secrets_text() {
    let with = |secret: &str, signature: &str| standard(signature, AT).unwrap().is_of(secret, BODY);
    assert!(with("polar_whs_0123456789abcdef", "v1,zttW3MbpRiWtswSIFeIxh510C0RuV6AyAQ178R69vTU="));
    assert!(with(SECRET, "v1,TcxlhK9b6UD6iVI1ZU2tTqp8PEVfYRseNNfa6b+LcUg="), "not decoded");
}

#[test]
fn creem_signs_the_body_in_hex() {
    let body = br#"{"id":"evt_1","eventType":"refund.created"}"#;
    let hex = "c3a79998c540cc67618afa3ede2a8c5045260de77d60540105b1543938689752";
    let scheme = Scheme::Hex("creem-signature");
    let signature = of_head(scheme, &headers(&[("creem-signature", hex)]), AT).unwrap();
    assert!(signature.is_of("creem_secret_0123456789", body));
    assert!(!signature.is_of("creem_secret_0123456780", body));
    assert!(!signature.is_of("creem_secret_0123456789", b"{}"));
    assert_eq!(
        of_head(scheme, &headers(&[("creem-signature", "00")]), AT),
        Err(HeadError::Unsigned)
    );
}

#[test]
fn five_minutes_are_the_most_that_clocks_may_differ() {
    for (apart, fits) in [(299_000, true), (300_000, true), (301_000, false)] {
        for now in [UnixMs(AT.0 + apart), UnixMs(AT.0 - apart)] {
            let said = standard(SIGNED, now);
            assert_eq!(said.is_ok(), fits, "{apart}");
            assert!(fits || said == Err(HeadError::Skewed));
        }
    }
}

#[test]
fn a_head_that_proves_nothing_is_refused_before_the_body() {
    let all =
        [("webhook-id", "m"), ("webhook-timestamp", "1614265330"), ("webhook-signature", SIGNED)];
    for (place, wrong) in
        [(0, ""), (1, "soon"), (1, "-1"), (2, "v1"), (2, "v1,AAAA"), (2, "v2,AAAA")]
    {
        let mut pairs = all;
        pairs[place].1 = wrong;
        assert_eq!(
            of_head(Scheme::Standard, &headers(&pairs), AT),
            Err(HeadError::Unsigned),
            "{wrong}"
        );
    }
    for missing in 0..3 {
        let pairs: Vec<_> =
            (0..3).filter(|place| *place != missing).map(|place| all[place]).collect();
        assert_eq!(of_head(Scheme::Standard, &headers(&pairs), AT), Err(HeadError::Unsigned));
    }
    let mut doubled = headers(&all);
    doubled.append("webhook-signature", HeaderValue::from_static("v1,AAAA"));
    assert_eq!(of_head(Scheme::Standard, &doubled, AT), Err(HeadError::Unsigned));
}

#[test]
fn keygen_signs_with_ed25519_what_was_asked_for_and_the_digest() {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let public: String = pair.public_key().as_ref().iter().map(|b| format!("{b:02x}")).collect();
    let body = br#"{"data":{}}"#;
    let digest = format!("sha-256={}", STANDARD.encode(Sha256::digest(body)));
    let date = "Thu, 25 Feb 2021 15:02:10 GMT";
    let text = format!(
        "(request-target): post /webhooks/keygen\nhost: gate.example.com\ndate: {date}\ndigest: {digest}"
    );
    let signed = STANDARD.encode(pair.sign(text.as_bytes()));
    let header = format!(
        r#"keyid="x", algorithm="ed25519", signature="{signed}", headers="(request-target) host date digest""#
    );
    let head = |host: &str| {
        let pairs =
            [("host", host), ("date", date), ("digest", &*digest), ("keygen-signature", &*header)];
        of_head(Scheme::Ed25519("keygen-signature"), &headers(&pairs), AT)
    };
    let signature = head("gate.example.com").unwrap();
    assert!(signature.is_of(&public, body));
    assert!(!signature.is_of(&public, b"{}"), "another body");
    assert!(!signature.is_of(&"0".repeat(64), body), "another key");
    assert!(!head("other.example.com").unwrap().is_of(&public, body));
    let later = of_head(
        Scheme::Ed25519("keygen-signature"),
        &headers(&[
            ("host", "h"),
            ("date", date),
            ("digest", &digest),
            ("keygen-signature", &header),
        ]),
        UnixMs(AT.0 + 301_000),
    );
    assert_eq!(later, Err(HeadError::Skewed));
}
