use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use taskmaster_openapi::Code;
use taskmaster_service::extract::parse_json;

fn create(body: &Value) -> Result<TaskToCreate, Problem> {
    parse_json::<NewTask>(body.to_string().as_bytes()).and_then(task)
}

/// The code and the pointers of a refusal.
fn refusal(body: &Value) -> (Code, Vec<String>) {
    let problem = create(body).expect_err(&body.to_string());
    assert_eq!(problem.status, 422, "{body}");
    (problem.code, problem.errors.into_iter().map(|error| error.pointer).collect())
}

#[test]
fn a_task_that_says_only_what_to_do_gets_the_documented_defaults() {
    let task = create(&json!({"command": "echo hello"})).unwrap();
    assert_eq!((task.queue.as_str(), task.priority, task.max_attempts, task.timeout_seconds), ("default", 0, 3, 300));
    assert_eq!((task.due, task.retry, task.tags.len()), (Due::Now, None, 0));
    assert_eq!(task.id.get_version_num(), 7);
}

#[test]
fn values_at_their_limits_are_accepted() {
    for body in [
        json!({"argv": vec!["x"; limits::ARGV_MAX]}),
        json!({"command": "x".repeat(limits::COMMAND_BYTES_MAX)}),
        json!({"command": "x", "scheduled_at": "9999-12-31T23:59:59.999999Z"}),
        json!({"command": "x", "scheduled_at": "1970-01-01T00:00:00+00:00"}),
        json!({"command": "x", "delay_seconds": limits::DELAY_SECONDS_MAX}),
        json!({"command": "x", "priority": 9, "max_attempts": 100, "timeout_seconds": 86_400}),
        json!({"command": "x", "queue": "a".repeat(64), "tags": ["\u{e9}".repeat(100)]}),
        json!({"command": "x", "retry": {"delays_seconds": [0, 604_800], "jitter": 0}}),
        json!({"http": {"url": "HTTPS://user.example:8443/p?q=1#f", "headers": {"X-A": "a \t b", "Empty": ""}, "body": ""}}),
        json!({"http": {"url": "http://[::1]:8080/", "body_base64": "AAECAw=="}}),
        json!({"http": {"url": "http://b\u{fc}cher.example/\u{fc}", "method": "GET"}}),
    ] {
        assert!(create(&body).is_ok(), "{:?}", create(&body));
    }
}

#[test]
fn what_has_a_wrong_shape_is_named() {
    for (body, pointer) in [
        (json!({"command": 7}), "/command"),
        (json!(["echo positional"]), ""),
        (json!({"http": ["GET", "http://x"]}), "/http"),
        (json!({"commmand": "x"}), "/commmand"),
        (json!({"command": "x", "priority": 1.5}), "/priority"),
        (json!({"command": "x", "priority": "high"}), "/priority"),
        (json!({"command": "x", "scheduled_at": "tomorrow"}), "/scheduled_at"),
        (json!({"command": "x", "scheduled_at": "2026-01-01T00:00:00"}), "/scheduled_at"),
        (json!({"command": "x", "scheduled_at": 1_700_000_000}), "/scheduled_at"),
        (json!({"command": "x", "scheduled_at": "+300000-01-01T00:00:00Z"}), "/scheduled_at"),
        (json!({"command": "x", "scheduled_at": "2026-02-30T00:00:00Z"}), "/scheduled_at"),
        (json!({"http": {"method": "GET"}}), "/http"),
        (json!({"http": {"url": "http://x", "method": "BREW"}}), "/http/method"),
        (json!({"http": {"url": "http://x", "headers": {"A": 1}}}), "/http/headers/A"),
        (json!({"command": "x", "retry": {"jitters": 1}}), "/retry/jitters"),
        (json!({"command": "x", "tags": "a"}), "/tags"),
    ] {
        assert_eq!(refusal(&body), (Code::InvalidBody, vec![pointer.into()]), "{body}");
    }
}

#[test]
fn what_to_do_must_be_said_exactly_once_and_make_sense() {
    let long = "x".repeat(limits::COMMAND_BYTES_MAX + 1);
    for (body, pointer) in [
        (json!({}), ""),
        (json!({"command": null}), ""),
        (json!({"command": "x", "argv": ["x"]}), ""),
        (json!({"command": " \n"}), "/command"),
        (json!({"command": "a\u{0}b"}), "/command"),
        (json!({"command": long}), "/command"),
        (json!({"argv": []}), "/argv"),
        (json!({"argv": vec!["x"; limits::ARGV_MAX + 1]}), "/argv"),
        (json!({"argv": [long]}), "/argv"),
        (json!({"argv": [""]}), "/argv/0"),
        (json!({"argv": ["x", "\u{0}"]}), "/argv/1"),
    ] {
        assert_eq!(refusal(&body), (Code::ValidationFailed, vec![pointer.into()]), "{body}");
    }
}

#[test]
fn urls_that_no_worker_could_call_are_refused() {
    for url in [
        "",
        "example.com",
        "/path",
        "ftp://example.com",
        "javascript:alert(1)",
        "http:example.com",
        "http:/example.com",
        "http://",
        "http:///path",
        "http://exa mple.com",
        "http://example.com/\u{0}",
        "http://example.com/a\nb",
        "\thttp://example.com",
        "http:\\\\example.com",
        "http://example.com\\@evil.example",
        "http://user@example.com",
        "http://user:secret@example.com",
        "http://:secret@example.com",
        "http://example.com:0",
        "http://example.com:99999",
        "http://[::1",
        "http://0.0.0.0/",
        "http://0/",
        "http://0x0.0/",
        "http://[::]:8080/",
        "http://[::ffff:0:0]/",
        "http://224.0.0.1/",
        "http://3758096385/",
        "http://[ff02::1]/",
        "http://255.255.255.255/",
        "http://0xffffffff/",
        "http://256.0.0.1/",
        "http://1.2.3.4.5/",
        "http://09.0.0.1/",
        &format!("http://example.com/{}", "x".repeat(limits::URL_BYTES_MAX)),
    ] {
        assert_eq!(
            refusal(&json!({"http": {"url": url}})),
            (Code::ValidationFailed, vec!["/http/url".into()]),
            "{url:?}"
        );
    }
}

#[test]
fn headers_that_cannot_or_must_not_be_sent_are_refused() {
    let long = "x".repeat(limits::HEADER_VALUE_BYTES_MAX + 1);
    for (name, value) in [
        ("", "x"),
        ("a b", "x"),
        ("a:b", "x"),
        ("a\u{0}", "x"),
        ("\u{e9}", "x"),
        ("Host", "x"),
        ("content-length", "1"),
        ("Transfer-Encoding", "chunked"),
        ("Connection", "close"),
        ("Upgrade", "h2c"),
        ("TE", "trailers"),
        ("TaskMaster-Task-Id", "x"),
        ("x", "a\r\nb: c"),
        ("x", "a\u{0}b"),
        ("x", " a"),
        ("x", "a\t"),
        ("x", "\u{e9}"),
        ("x", "\u{7f}"),
        ("x", &long),
    ] {
        let (code, pointers) = refusal(&json!({"http": {"url": "http://x", "headers": {name: value}}}));
        assert_eq!(
            (code, pointers),
            (Code::ValidationFailed, vec![format!("/http/headers/{name}")]),
            "{name:?}: {value:?}"
        );
    }
    let twice = json!({"http": {"url": "http://x", "headers": {"X-A": "1", "x-a": "2"}}});
    assert_eq!(refusal(&twice).1, ["/http/headers/x-a"]);
    let escaped = json!({"http": {"url": "http://x", "headers": {"a/b~": "1"}}});
    assert_eq!(refusal(&escaped).1, ["/http/headers/a~1b~0"]);
    let many: serde_json::Map<String, Value> =
        (0..=limits::HEADERS_MAX).map(|i| (format!("h{i}"), json!(""))).collect();
    assert_eq!(refusal(&json!({"http": {"url": "http://x", "headers": many}})).1, ["/http/headers"]);
}

#[test]
fn bodies_are_text_or_base64_and_not_both() {
    for (body, pointer) in [
        (json!({"body": "a", "body_base64": "AA=="}), "/http/body_base64"),
        (json!({"body_base64": "A"}), "/http/body_base64"),
        (json!({"body_base64": "AA"}), "/http/body_base64"),
        (json!({"body_base64": "A A="}), "/http/body_base64"),
        (json!({"body": "a\u{0}"}), "/http/body"),
        (json!({"body": "x".repeat(limits::BODY_BYTES_MAX + 1)}), "/http/body"),
    ] {
        let mut http = body;
        http["url"] = json!("http://x");
        assert_eq!(refusal(&json!({"http": http})), (Code::ValidationFailed, vec![pointer.into()]));
    }
}

#[test]
fn the_other_fields_are_checked_against_their_limits() {
    for (field, value, pointer) in [
        ("scheduled_at", json!("1969-12-31T23:59:59Z"), "/scheduled_at"),
        ("scheduled_at", json!("+10000-01-01T00:00:00Z"), "/scheduled_at"),
        ("delay_seconds", json!(-0.001), "/delay_seconds"),
        ("delay_seconds", json!(limits::DELAY_SECONDS_MAX * 1.01), "/delay_seconds"),
        ("delay_seconds", json!(1e300), "/delay_seconds"),
        ("queue", json!(""), "/queue"),
        ("queue", json!("a b"), "/queue"),
        ("queue", json!("\u{0}"), "/queue"),
        ("queue", json!("a".repeat(65)), "/queue"),
        ("priority", json!(-1), "/priority"),
        ("priority", json!(10), "/priority"),
        ("priority", json!(i64::MAX), "/priority"),
        ("max_attempts", json!(0), "/max_attempts"),
        ("max_attempts", json!(101), "/max_attempts"),
        ("timeout_seconds", json!(0), "/timeout_seconds"),
        ("timeout_seconds", json!(86_401), "/timeout_seconds"),
        ("tags", json!(vec!["x"; 21]), "/tags"),
        ("tags", json!([""]), "/tags/0"),
        ("tags", json!(["a", "a"]), "/tags/1"),
        ("tags", json!(["a\u{0}"]), "/tags/0"),
        ("tags", json!(["x".repeat(101)]), "/tags/0"),
        ("retry", json!({"initial_seconds": -1}), "/retry/initial_seconds"),
        ("retry", json!({"initial_seconds": 10, "max_seconds": 5}), "/retry/initial_seconds"),
        ("retry", json!({"multiplier": 0.5}), "/retry/multiplier"),
        ("retry", json!({"multiplier": 101}), "/retry/multiplier"),
        ("retry", json!({"max_seconds": 604_801}), "/retry/max_seconds"),
        ("retry", json!({"jitter": 1.1}), "/retry/jitter"),
        ("retry", json!({"delays_seconds": []}), "/retry/delays_seconds"),
        ("retry", json!({"delays_seconds": vec![1; 101]}), "/retry/delays_seconds"),
        ("retry", json!({"delays_seconds": [1, -1]}), "/retry/delays_seconds/1"),
        ("retry", json!({"delays_seconds": [1], "multiplier": 3}), "/retry/delays_seconds"),
    ] {
        let mut body = json!({"command": "x"});
        body[field] = value;
        assert_eq!(refusal(&body), (Code::ValidationFailed, vec![pointer.into()]), "{body}");
    }
    let both = json!({"command": "x", "scheduled_at": "2026-01-01T00:00:00Z", "delay_seconds": 1});
    assert_eq!(refusal(&both).1, ["/delay_seconds"]);
}

#[test]
fn required_labels_are_bounded_as_labels_are() {
    let labels = |count: usize| (0..count).map(|i| (format!("label-{i}"), json!("x"))).collect::<Value>();
    let accepted = |body: &Value| create(body).unwrap();
    let with = |requires: Value| json!({"command": "x", "requires": requires});
    assert_eq!(accepted(&with(labels(limits::REQUIRES_MAX))).requires.len(), limits::REQUIRES_MAX);
    assert_eq!(accepted(&with(json!({"zone": "größer als \"1\"", "": ""}))).requires.len(), 2);
    assert!(accepted(&with(Value::Null)).requires.is_empty());
    assert_eq!(refusal(&with(labels(limits::REQUIRES_MAX + 1))).1, ["/requires"]);
    let (name, text) = ("n".repeat(limits::LABEL_NAME_CHARS_MAX), "t".repeat(limits::LABEL_CHARS_MAX));
    assert_eq!(accepted(&with(json!({name.clone(): text.clone()}))).requires[&name], text);
    assert_eq!(refusal(&with(json!({"a/b~": format!("{text}t")}))).1, ["/requires/a~1b~0"]);
    assert_eq!(refusal(&with(json!({format!("{name}n"): "x"}))).1, [format!("/requires/{name}n")]);
    assert_eq!(refusal(&with(json!({"a": "\u{0}"}))).1, ["/requires/a"]);
}

#[test]
fn every_wrong_field_is_named_at_once() {
    let body = json!({"priority": 10, "queue": "a b", "http": {"url": "x", "headers": {"Host": "x"}}, "tags": [""]});
    assert_eq!(refusal(&body).1, ["/http/url", "/http/headers/Host", "/queue", "/priority", "/tags/0"]);
}

#[test]
fn a_batch_names_the_item_and_lists_at_most_a_hundred_errors() {
    let bad = || NewTask { priority: Some(10), ..NewTask::default() };
    let good = || NewTask { command: Some("x".into()), ..NewTask::default() };
    let problem = batch(vec![good(), bad()], 2).unwrap_err();
    let pointers: Vec<&str> = problem.errors.iter().map(|error| error.pointer.as_str()).collect();
    assert_eq!(pointers, ["/tasks/1", "/tasks/1/priority"]);
    let problem = batch((0..200).map(|_| bad()).collect(), 200).unwrap_err();
    assert_eq!(problem.errors.len(), limits::PROBLEM_ERRORS_MAX);
    assert!(problem.detail.starts_with("400 values"), "{}", problem.detail);
    assert_eq!(batch(Vec::new(), 0).unwrap_err().errors[0].pointer, "/tasks");
    assert_eq!(batch(vec![good()], limits::BATCH_TASKS_MAX + 1).unwrap_err().errors[0].pointer, "/tasks");
    let ids: Vec<Uuid> = batch(vec![good(), good(), good()], 3).unwrap().iter().map(|task| task.id).collect();
    assert!(ids.is_sorted(), "ids sort by creation, within a batch as well");
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(json!("http://example.com")),
        Just(json!("2026-01-01T00:00:00Z")),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(any_name(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect::<serde_json::Map<_, _>>())),
        ]
    })
}

fn any_name() -> impl Strategy<Value = String> {
    const NAMES: [&str; 25] = [
        "command",
        "argv",
        "http",
        "url",
        "method",
        "headers",
        "body",
        "body_base64",
        "scheduled_at",
        "delay_seconds",
        "queue",
        "requires",
        "priority",
        "max_attempts",
        "retry",
        "initial_seconds",
        "multiplier",
        "max_seconds",
        "jitter",
        "delays_seconds",
        "timeout_seconds",
        "tags",
        "tasks",
        "Host",
        "X-A",
    ];
    prop_oneof![8 => prop::sample::select(&NAMES[..]).prop_map(str::to_owned), 1 => any::<String>()]
}

/// Values of the right types, and anything in them.
fn any_task() -> impl Strategy<Value = NewTask> {
    let text = || prop::option::of(any::<String>());
    let http = (any::<String>(), prop::collection::btree_map(any::<String>(), any::<String>(), 0..3), text(), text());
    let http = http.prop_map(|(url, headers, body, body_base64)| taskmaster_openapi::task::HttpWork {
        url,
        headers,
        body,
        body_base64,
        ..Default::default()
    });
    let retry = (
        any::<f64>(),
        any::<f64>(),
        any::<f64>(),
        any::<f64>(),
        prop::option::of(prop::collection::vec(any::<f64>(), 0..4)),
    );
    let retry = retry.prop_map(|(initial_seconds, multiplier, max_seconds, jitter, delays_seconds)| RetryPolicy {
        initial_seconds,
        multiplier,
        max_seconds,
        jitter,
        delays_seconds,
    });
    let at = prop::option::of(any::<i64>().prop_map(|s| DateTime::from_timestamp(s >> 20, 0).unwrap_or_default()));
    (
        (text(), prop::option::of(prop::collection::vec(any::<String>(), 0..3)), prop::option::of(http)),
        (at, prop::option::of(any::<f64>()), text(), prop::option::of(any::<i64>())),
        (prop::option::of(any::<i64>()), prop::option::of(retry), prop::option::of(any::<i64>())),
        (
            prop::option::of(prop::collection::vec(any::<String>(), 0..4)),
            prop::option::of(prop::collection::btree_map(any::<String>(), any::<String>(), 0..3)),
        ),
    )
        .prop_map(
            |(
                (command, argv, http),
                (scheduled_at, delay_seconds, queue, priority),
                (max_attempts, retry, timeout_seconds),
                (tags, requires),
            )| {
                NewTask {
                    command,
                    argv,
                    http,
                    scheduled_at,
                    delay_seconds,
                    queue,
                    requires,
                    priority,
                    max_attempts,
                    retry,
                    timeout_seconds,
                    tags,
                    callback: None,
                    failure_callback: None,
                    flow_key: None,
                }
            },
        )
}

proptest! {
    #[test]
    fn arbitrary_json_is_accepted_or_refused_and_never_panics(body in any_json()) {
        if let Err(problem) = create(&body) {
            prop_assert_eq!(problem.status, 422);
            prop_assert!(problem.errors.iter().all(|error| error.pointer.chars().count() <= 500));
        }
    }

    #[test]
    fn what_is_accepted_holds_every_bound(new in any_task()) {
        if let Ok(task) = task(new) {
            prop_assert!(wrong_queue(&task.queue).is_none());
            prop_assert!((0..=9).contains(&task.priority) && (1..=100).contains(&task.max_attempts));
            prop_assert!((1..=86_400).contains(&task.timeout_seconds));
            prop_assert!(task.tags.len() <= limits::TAGS_MAX && task.requires.len() <= limits::REQUIRES_MAX);
            let is_plain = |text: &String| !text.chars().any(char::is_control);
            prop_assert!(task.requires.iter().all(|(name, text)| is_plain(name) && is_plain(text)));
            let text = serde_json::to_string(&task.work).unwrap();
            prop_assert!(!text.contains("\\u0000"), "no NUL gets through: {text}");
            prop_assert!(task.retry.is_none_or(|retry| retry.max_seconds.is_finite() && retry.jitter.is_finite()));
        }
    }
}
