use std::time::Duration;

use super::*;

fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
    list.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap())).collect()
}

fn failure(status: u16, list: &[(&'static str, &str)], body: &str) -> Failure {
    match judge(Dialect::OpenAi, status, &headers(list), body.as_bytes()) {
        Classification::Failed(failure) => failure,
        Classification::Relay(relayed) => panic!("relayed {}", relayed.status),
    }
}

#[test]
#[allow(clippy::too_many_lines, reason = "one table")]
fn each_status_says_what_the_key_showed_and_where_to_go() {
    let money = AttemptFeedback::Spent(QuarantineReason::NoMoney, Scope::Account, None);
    let refused = AttemptFeedback::Refused;
    for (status, body, cause, news, next) in [
        (
            401,
            "{}",
            FailureCause::BadCredential,
            refused(QuarantineReason::BadCredential),
            FailoverScope::Key,
        ),
        (402, "", FailureCause::NoMoney, money, FailoverScope::Key),
        (
            403,
            r#"{"error":{"code":"model_not_found","message":"Project `proj_a` does not have access to model `x`."}}"#,
            FailureCause::ModelMissing,
            AttemptFeedback::Unfit,
            FailoverScope::Account,
        ),
        (
            429,
            r#"{"error":{"status":"RESOURCE_EXHAUSTED","message":"Quota exceeded, limit: 0\nPlease retry in 5s."}}"#,
            FailureCause::ModelMissing,
            AttemptFeedback::Unfit,
            FailoverScope::Account,
        ),
        (
            429,
            r#"{"error":{"message":"Quota exceeded, limit: 0. Upgrade your tier."}}"#,
            FailureCause::ModelMissing,
            AttemptFeedback::Unfit,
            FailoverScope::Account,
        ),
        (
            429,
            r#"{"error":{"message":"Too fast, limit: 0.5 a second."}}"#,
            FailureCause::RateLimited,
            AttemptFeedback::Limited(Scope::Model, None),
            FailoverScope::Key,
        ),
        (
            403,
            r#"{"error":{"type":"permissions_error","code":"model_permission_blocked_project"}}"#,
            FailureCause::ModelMissing,
            AttemptFeedback::Unfit,
            FailoverScope::Account,
        ),
        (403, "<html>", FailureCause::Firewall, AttemptFeedback::None, FailoverScope::Target),
        (403, "", FailureCause::Firewall, AttemptFeedback::None, FailoverScope::Target),
        (
            403,
            r#"{"message":"Forbidden"}"#,
            FailureCause::NoPermission,
            AttemptFeedback::Doubtful,
            FailoverScope::Key,
        ),
        (
            403,
            r#"{"error":{"code":403,"status":"PERMISSION_DENIED","message":"Permission denied."}}"#,
            FailureCause::NoPermission,
            AttemptFeedback::Doubtful,
            FailoverScope::Key,
        ),
        (
            403,
            r#"{"error":{"code":403,"status":"PERMISSION_DENIED","details":[{"reason":"CONSUMER_SUSPENDED"}]}}"#,
            FailureCause::NoPermission,
            refused(QuarantineReason::NoPermission),
            FailoverScope::Key,
        ),
        (
            400,
            r#"{"code":"Client specified an invalid argument","error":"Incorrect API key provided: xa***01. You can obtain an API key from https://console.x.ai."}"#,
            FailureCause::BadCredential,
            refused(QuarantineReason::BadCredential),
            FailoverScope::Key,
        ),
        (
            403,
            r#"{"code":"The caller does not have permission to execute the specified operation","error":"Your team 7f0e has either used all available credits or reached its monthly spending limit."}"#,
            FailureCause::NoMoney,
            money,
            FailoverScope::Key,
        ),
        (
            403,
            r#"{"error":"Your newly created teams doesn't have any credits yet."}"#,
            FailureCause::NoMoney,
            money,
            FailoverScope::Key,
        ),
        (
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"This organization has been disabled."}}"#,
            FailureCause::NoMoney,
            money,
            FailoverScope::Key,
        ),
        (
            402,
            r#"{"error":{"code":402,"message":"This request requires more credits, or fewer max_tokens. You requested up to 65,536 tokens, but can only afford 4,012."}}"#,
            FailureCause::TooLarge,
            AttemptFeedback::TooDear,
            FailoverScope::Account,
        ),
        (
            402,
            r#"{"error":{"code":402,"message":"You requested up to 9 tokens, but can only afford 0."}}"#,
            FailureCause::NoMoney,
            money,
            FailoverScope::Key,
        ),
        (
            429,
            r#"{"error":{"message":"Request too large for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Requested 36278.","type":"tokens","code":"rate_limit_exceeded"}}"#,
            FailureCause::TooLarge,
            AttemptFeedback::Unfit,
            FailoverScope::Larger,
        ),
        (413, "<html>", FailureCause::TooLarge, AttemptFeedback::Rejected, FailoverScope::Target),
        (
            400,
            r#"{"error":{"code":"context_length_exceeded","message":"Too long."}}"#,
            FailureCause::TooLarge,
            AttemptFeedback::Rejected,
            FailoverScope::Target,
        ),
        (
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 213462 tokens > 200000 maximum"}}"#,
            FailureCause::TooLarge,
            AttemptFeedback::Rejected,
            FailoverScope::Target,
        ),
        (
            400,
            r#"{"error":{"code":400,"type":"exceed_context_size_error","message":"the request exceeds the available context size"}}"#,
            FailureCause::TooLarge,
            AttemptFeedback::Rejected,
            FailoverScope::Target,
        ),
        (
            400,
            r#"{"error":{"code":"tool_use_failed","failed_generation":"<f>"}}"#,
            FailureCause::ToolUseFailed,
            AttemptFeedback::Rejected,
            FailoverScope::Again,
        ),
        (404, "{}", FailureCause::ModelMissing, AttemptFeedback::Unfit, FailoverScope::Target),
        (
            400,
            r#"{"error":{"code":"model_decommissioned"}}"#,
            FailureCause::ModelMissing,
            AttemptFeedback::Unfit,
            FailoverScope::Target,
        ),
        (408, "", FailureCause::Timeout, AttemptFeedback::Fault, FailoverScope::OneMoreKey),
        (
            429,
            "",
            FailureCause::RateLimited,
            AttemptFeedback::Limited(Scope::Model, None),
            FailoverScope::Key,
        ),
        (
            429,
            r#"{"error":{"type":"insufficient_quota"}}"#,
            FailureCause::NoMoney,
            money,
            FailoverScope::Key,
        ),
        (
            429,
            r#"{"error":{"code":"credit_balance_exhausted"}}"#,
            FailureCause::NoMoney,
            money,
            FailoverScope::Key,
        ),
        (
            429,
            r#"{"type":"error","error":{"type":"rate_limit_error","details":{"error_code":"enforced_spend_limit_reached"}}}"#,
            FailureCause::NoMoney,
            money,
            FailoverScope::Key,
        ),
        (
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the API."}}"#,
            FailureCause::NoMoney,
            money,
            FailoverScope::Key,
        ),
        (
            413,
            r#"{"error":{"type":"tokens","code":"rate_limit_exceeded"}}"#,
            FailureCause::TooLarge,
            AttemptFeedback::Unfit,
            FailoverScope::Larger,
        ),
        (500, "", FailureCause::ProviderError, AttemptFeedback::Fault, FailoverScope::OneMoreKey),
        (529, "", FailureCause::ProviderError, AttemptFeedback::Fault, FailoverScope::OneMoreKey),
        (302, "", FailureCause::ProviderError, AttemptFeedback::Fault, FailoverScope::OneMoreKey),
    ] {
        let failure = failure(status, &[], body);
        assert_eq!(
            (failure.cause, failure.news, failure.next),
            (cause, news, next),
            "{status} {body}"
        );
    }
}

/// Every error that a provider's reference, or a log of the field, shows.
#[test]
fn each_fixture_is_classified() {
    let secs = |secs: f64| Some(Duration::from_secs_f64(secs));
    let limited = |pause| {
        (
            FailureCause::RateLimited,
            AttemptFeedback::Limited(Scope::Model, pause),
            FailoverScope::Key,
        )
    };
    let fault = (FailureCause::ProviderError, AttemptFeedback::Fault, FailoverScope::OneMoreKey);
    for (name, dialect, status, headers, expected) in [
        ("gemini/gemini_429.json", Dialect::Gemini, 429, &[][..], limited(secs(20.0))),
        ("openai/gemini_compat_429.json", Dialect::OpenAi, 429, &[], limited(secs(20.0))),
        ("gemini/gemini_503.json", Dialect::Gemini, 503, &[], fault),
        ("openai/groq_429.json", Dialect::OpenAi, 429, &[], limited(secs(5.4975))),
        ("openai/groq_429.json", Dialect::OpenAi, 429, &[("retry-after", "6")], limited(secs(6.0))),
        ("openai/openai_429_rate.json", Dialect::OpenAi, 429, &[], limited(secs(0.885))),
        ("openai/openai_503.json", Dialect::OpenAi, 503, &[], fault),
        ("anthropic/anthropic_529.json", Dialect::Anthropic, 529, &[], fault),
        (
            "openai/openai_429_quota.json",
            Dialect::OpenAi,
            429,
            &[],
            (
                FailureCause::NoMoney,
                AttemptFeedback::Spent(QuarantineReason::NoMoney, Scope::Account, None),
                FailoverScope::Key,
            ),
        ),
        (
            "openai/openai_401.json",
            Dialect::OpenAi,
            401,
            &[],
            (
                FailureCause::BadCredential,
                AttemptFeedback::Refused(QuarantineReason::BadCredential),
                FailoverScope::Key,
            ),
        ),
    ] {
        let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
        let body = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let Classification::Failed(failure) =
            judge(dialect, status, &self::headers(headers), &body)
        else {
            panic!("{name} is relayed")
        };
        assert_eq!((failure.cause, failure.news, failure.next), expected, "{name}");
        let Classification::Failed(inside) = judge_inside(dialect, &body) else { panic!("{name}") };
        // A record with a header of its own, or without a status, is classified by its text.
        if headers.is_empty() {
            assert_eq!((inside.cause, inside.news, inside.next), expected, "inside: {name}");
        }
    }
}

#[test]
fn a_days_limit_rests_until_its_end() {
    let groq = r#"{"error":{"message":"Rate limit reached for model `m` in organization `o` on tokens per day (TPD): Limit 100000, Used 97050, Requested 3619. Please try again in 9m38.016s.","type":"tokens","code":"rate_limit_exceeded"}}"#;
    let groq = failure(429, &[], groq);
    let stated = Some(Duration::from_millis(578_016));
    assert_eq!(
        groq.news,
        AttemptFeedback::Spent(QuarantineReason::DailyLimit, Scope::Model, stated)
    );
    let gemini = |quota: &str, value: &str| {
        format!(
            r#"{{"error":{{"code":429,"status":"RESOURCE_EXHAUSTED","details":[
            {{"violations":[{{"quotaId":"{quota}","quotaValue":"{value}"}}]}},{{"retryDelay":"26s"}}]}}}}"#
        )
    };
    let daily =
        failure(429, &[], &gemini("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "20"));
    let AttemptFeedback::Spent(QuarantineReason::DailyLimit, Scope::Model, Some(until)) =
        daily.news
    else {
        panic!("{daily:?}")
    };
    assert!(until <= Duration::from_secs(25 * 3600), "{until:?}");
    // A limit of zero: waiting does not help.
    let none = failure(429, &[], &gemini("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "0"));
    assert_eq!((none.news, none.next), (AttemptFeedback::Unfit, FailoverScope::Account));
}

#[test]
fn an_error_inside_a_200_is_judged_by_its_words() {
    for (body, cause) in [
        (r#"{"error":{"code":429,"message":"x"}}"#, FailureCause::RateLimited),
        (r#"{"error":{"code":402}}"#, FailureCause::NoMoney),
        (r#"{"type":"error","error":{"type":"overloaded_error"}}"#, FailureCause::ProviderError),
        (
            r#"{"type":"error","error":{"type":"authentication_error"}}"#,
            FailureCause::BadCredential,
        ),
        (r#"{"error":{"type":"insufficient_quota"}}"#, FailureCause::NoMoney),
        (r#"{"error":{"type":"invalid_request_error"}}"#, FailureCause::ProviderError),
        (r#"{"error":"something"}"#, FailureCause::ProviderError),
        (
            r#"{"type":"error","code":"rate_limit_exceeded","message":"x"}"#,
            FailureCause::RateLimited,
        ),
        (
            r#"{"type":"response.failed","response":{"error":{"code":"insufficient_quota"}}}"#,
            FailureCause::NoMoney,
        ),
        (
            r#"{"type":"response.failed","error":null,"response":{"error":{"code":"server_error"}}}"#,
            FailureCause::ProviderError,
        ),
        ("no JSON", FailureCause::ProviderError),
    ] {
        let Classification::Failed(failure) = judge_inside(Dialect::OpenAi, body.as_bytes()) else {
            panic!("{body} is relayed")
        };
        assert_eq!(failure.cause, cause, "{body}");
    }
}

#[test]
fn geminis_array_is_read_like_an_object() {
    let body = r#"[{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[
        {"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"20.5s"}]}}]"#;
    let failure = failure(429, &[], body);
    assert_eq!(
        failure.news,
        AttemptFeedback::Limited(Scope::Model, Some(Duration::from_millis(20_500)))
    );
    let body = r#"[{"error":{"code":400,"details":[{"reason":"API_KEY_INVALID"}]}}]"#;
    assert_eq!(super::tests::failure(400, &[], body).cause, FailureCause::BadCredential);
}

#[test]
fn what_a_filter_refuses_is_the_request_s_fault_and_told_in_our_words() {
    let body = r#"{"error":{"code":403,"message":"acme needs moderation: see acme.example/billing",
        "metadata":{"reasons":["violence"],"flagged_input":"...","provider_name":"acme"}}}"#;
    let Classification::Relay(relayed) =
        judge(Dialect::OpenAi, 403, &HeaderMap::new(), body.as_bytes())
    else {
        panic!("not the request's fault")
    };
    assert_eq!(relayed.status, 400);
    assert!(!format!("{:?}", relayed.said).contains("acme"), "{:?}", relayed.said);
}

/// The error for an app whose request is at fault, if no other target can serve it.
fn told(status: u16, body: &str) -> ClientError {
    match judge(Dialect::OpenAi, status, &HeaderMap::new(), body.as_bytes()) {
        Classification::Relay(relayed) => relayed,
        Classification::Failed(failure) => *failure.instead.expect("something to tell"),
    }
}

#[test]
fn a_fault_of_the_request_is_relayed_without_the_account() {
    for code in ["context_length_exceeded", "invalid_value", "tool_use_failed"] {
        let body = format!(
            r#"{{"error":{{"message":"Too long for org-Zx81qLmN0pT7vRw2, key sk-proj-abcdef1234567890.",
            "type":"invalid_request_error","code":"{code}","param":"messages"}}}}"#
        );
        let relayed = told(400, &body);
        let text = relayed.said.message + &relayed.said.code;
        assert!(text.contains(code) && text.contains("Too long"), "{text}");
        assert!(!text.contains("Zx81") && !text.contains("sk-proj"), "{text}");
    }
}

/// A page, a tier and a filter say nothing that an app needs to read: it gets the gateway's words.
#[test]
fn what_is_not_worth_relaying_is_told_in_our_words() {
    let xai = r#"{"error":"Content violates usage guidelines. Team: 7f0e, API key ID: 91d2, Failed check: SAFETY_CHECK_TYPE_BIO"}"#;
    let tier = r#"{"error":{"message":"Request too large for gpt-4o in organization org-1","type":"tokens"}}"#;
    for (status, body, expected) in [
        (403, xai, 400),
        (403, "<html>Ray ID: 7f0e</html>", 400),
        (413, "<html>nginx/1.2</html>", 413),
        (413, r#"{"error":{"type":"tokens","message":"7f0e"}}"#, 413),
        (429, tier, 413),
    ] {
        let relayed = told(status, body);
        assert_eq!(relayed.status, expected, "{body}");
        let text = format!("{:?}", relayed.said);
        for leak in ["Team", "7f0e", "nginx", "gpt-4o", "org-1", "SAFETY"] {
            assert!(!text.contains(leak), "{text}");
        }
    }
}

/// An app's words, quoted in a provider's message, take no account out.
#[test]
fn quoted_words_are_not_believed() {
    for quoted in [
        "Incorrect API key provided",
        "API key not valid",
        "Your credit balance is too low",
        "This organization has been disabled",
        "Your team has used all available credits",
    ] {
        let body = format!(r#"{{"error":{{"message":"Invalid value: '{quoted}'."}}}}"#);
        assert_eq!(told(400, &body).status, 400, "{quoted}");
        let body = format!(r#"{{"error":{{"message":"'{quoted}' is not allowed here."}}}}"#);
        assert_eq!(failure(403, &[], &body).news, AttemptFeedback::Doubtful, "{quoted}");
    }
}

#[test]
fn content_refused_inside_a_200_is_no_fault_either() {
    for body in [
        r#"{"error":"Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO"}"#,
        r#"{"error":{"code":403,"metadata":{"flagged_input":"x"}}}"#,
        r#"{"error":{"code":"content_filter"}}"#,
    ] {
        let Classification::Failed(failure) = judge_inside(Dialect::OpenAi, body.as_bytes()) else {
            panic!("{body} is relayed")
        };
        assert_eq!(
            (failure.news, failure.next),
            (AttemptFeedback::Rejected, FailoverScope::Target),
            "{body}"
        );
        assert_eq!(failure.instead.unwrap().status, 400, "{body}");
    }
}

/// Limits apply to a model unless the answer says that they are the account's.
#[test]
fn a_limit_is_the_models_unless_the_answer_says_otherwise() {
    let words = |message: &str| format!(r#"{{"error":{{"message":"{message}"}}}}"#);
    let quota = |id: &str, more: &str| {
        format!(
            r#"{{"error":{{"code":429,"status":"RESOURCE_EXHAUSTED","message":"You exceeded your current quota.",
            "details":[{{"violations":[{{"quotaId":"{id}"{more}}}]}}]}}}}"#
        )
    };
    let dimensions = r#","quotaDimensions":{"model":"gemini-2.5-pro","location":"global"}"#;
    for (body, scope) in [
        (String::new(), Scope::Model),
        (words("Too many requests"), Scope::Model),
        (
            words(
                "Rate limit reached for model `llama-3.3-70b` in organization `org_1` service tier `on_demand` on tokens per minute (TPM): Limit 6000, Used 5000.",
            ),
            Scope::Model,
        ),
        (
            words(
                "Rate limit reached for gpt-4o in organization org-1 on requests per min (RPM): Limit 3.",
            ),
            Scope::Model,
        ),
        (
            words(
                "This request would exceed your organization's rate limit of 30,000 input tokens per minute (org: o, model: claude-sonnet-4).",
            ),
            Scope::Model,
        ),
        (words("Rate limit reached for organization org-1 on requests per min."), Scope::Account),
        (
            words(
                "This request would exceed the rate limit for your organization (o) of 40,000 input tokens per minute.",
            ),
            Scope::Account,
        ),
        (words("Your account has reached its rate limit across all models."), Scope::Account),
        (quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", ""), Scope::Model),
        (quota("GenerateRequestsPerMinutePerProject", dimensions), Scope::Model),
        (quota("GenerateRequestsPerMinutePerProject", ""), Scope::Account),
        (quota("GenerateRequestsPerDayPerProject", ""), Scope::Account),
    ] {
        let failure = failure(429, &[], &body);
        let found = match failure.news {
            AttemptFeedback::Limited(scope, _)
            | AttemptFeedback::Spent(QuarantineReason::DailyLimit, scope, _) => scope,
            other => panic!("{other:?} for {body}"),
        };
        assert_eq!(found, scope, "{body}");
    }
    let groq = words(
        "Rate limit reached for model `m` in organization `o` on tokens per day (TPD): Limit 100000. Please try again in 9m38s.",
    );
    assert!(matches!(
        failure(429, &[], &groq).news,
        AttemptFeedback::Spent(_, Scope::Model, Some(_))
    ));
}

#[test]
fn what_may_have_passed_is_asked_again_where_nothing_else_is_left() {
    for (status, again) in [
        (500, true),
        (502, true),
        (503, true),
        (529, true),
        (504, false),
        (520, false),
        (302, false),
        (401, false),
    ] {
        assert_eq!(failure(status, &[], "").again, again, "{status}");
    }
    assert!(Failure::reset("").again && Failure::cut("").again);
    assert!(!Failure::timeout("first byte").again && !Failure::broken("HTML").again);
    assert!(!Failure::connect("refused").again && !Failure::connect_timeout("").again);
}
