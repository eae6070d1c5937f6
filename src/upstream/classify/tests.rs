use super::*;

fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
    list.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap())).collect()
}

fn failure(status: u16, list: &[(&'static str, &str)], body: &str) -> Failure {
    match judge(Dialect::OpenAi, status, &headers(list), body.as_bytes()) {
        Judgement::Failed(failure) => failure,
        Judgement::Relay(relayed) => panic!("relayed {}", relayed.status),
    }
}

#[test]
fn each_status_says_what_the_key_showed_and_where_to_go() {
    let money = KeyNews::Broken(Why::NoMoney);
    for (status, body, cause, news, next) in [
        (401, "{}", Cause::BadCredential, KeyNews::Broken(Why::BadCredential), Next::Key),
        (402, "", Cause::NoMoney, money, Next::Key),
        (403, "<html>", Cause::NoPermission, KeyNews::Broken(Why::NoPermission), Next::Key),
        (404, "{}", Cause::ModelMissing, KeyNews::Fault, Next::Target),
        (408, "", Cause::Timeout, KeyNews::Fault, Next::OneMoreKey),
        (429, "", Cause::RateLimited, KeyNews::Limited(None), Next::Key),
        (429, r#"{"error":{"type":"insufficient_quota"}}"#, Cause::NoMoney, money, Next::Key),
        (429, r#"{"error":{"code":"credit_balance_exhausted"}}"#, Cause::NoMoney, money, Next::Key),
        (
            413,
            r#"{"error":{"type":"tokens","code":"rate_limit_exceeded"}}"#,
            Cause::RateLimited,
            KeyNews::Fault,
            Next::Key,
        ),
        (500, "", Cause::ProviderError, KeyNews::Fault, Next::OneMoreKey),
        (529, "", Cause::ProviderError, KeyNews::Fault, Next::OneMoreKey),
        (302, "", Cause::ProviderError, KeyNews::Fault, Next::OneMoreKey),
    ] {
        let failure = failure(status, &[], body);
        assert_eq!(
            (failure.cause, failure.news, failure.next),
            (cause, news, next),
            "{status} {body}"
        );
    }
}

#[test]
fn geminis_array_is_read_like_an_object() {
    let body = r#"[{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[
        {"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"20.5s"}]}}]"#;
    let failure = failure(429, &[], body);
    assert_eq!(failure.news, KeyNews::Limited(Some(Duration::from_millis(20_500))));
    let body = r#"[{"error":{"code":400,"details":[{"reason":"API_KEY_INVALID"}]}}]"#;
    assert_eq!(super::tests::failure(400, &[], body).cause, Cause::BadCredential);
}

#[test]
fn a_fault_of_the_request_is_relayed_without_the_account() {
    let body = r#"{"error":{"message":"Too long for org-Zx81qLmN0pT7vRw2, key sk-proj-abcdef1234567890.",
        "type":"invalid_request_error","code":"context_length_exceeded","param":"messages"}}"#;
    let Judgement::Relay(relayed) = judge(Dialect::OpenAi, 400, &HeaderMap::new(), body.as_bytes())
    else {
        panic!("not relayed")
    };
    let text = String::from_utf8(relayed.body.to_vec()).unwrap();
    assert!(text.contains("context_length_exceeded") && text.contains("Too long"), "{text}");
    assert!(!text.contains("Zx81") && !text.contains("sk-proj"), "{text}");
}
