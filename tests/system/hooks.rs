//! Incoming webhooks: who is believed, what becomes of what is sent, and that the same delivery makes one task.

use std::collections::HashSet;
use std::process::Command;

use futures::future::join_all;
use hmac::{Hmac, Mac};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;
use taskmaster_openapi::hook::{Hook, HookDelivery, HookDeliveryList, HookList, HookOutcome, HookReceipt, IssuedHook};
use taskmaster_openapi::task::TaskStatus;
use taskmaster_store::webhooks::WebhookSecret;
use uuid::Uuid;

use crate::support::{Api, Database, Process, Reply, System, Target, Up, command_line, until};

/// A delivery as a sender makes it.
#[derive(Debug, Clone)]
struct Sent {
    query: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Sent {
    fn new(headers: &[(&str, &str)], body: &[u8]) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { query: String::new(), headers, body: body.to_vec() }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

fn hex_signature(secret: &str, message: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn by_github(secret: &str, id: &str, body: &[u8]) -> Sent {
    let signature = format!("sha256={}", hex_signature(secret, body));
    let headers = [("x-hub-signature-256", &*signature), ("x-github-delivery", id), ("x-github-event", "push")];
    Sent::new(&headers, body).with("content-type", "application/json")
}

fn by_stripe(secret: &str, at: i64, body: &[u8]) -> Sent {
    let signature = hex_signature(secret, &[format!("{at}.").as_bytes(), body].concat());
    Sent::new(&[("stripe-signature", &format!("t={at},v1={signature},v0=00"))], body)
}

fn by_standard_webhooks(secret: &str, id: &str, at: i64, body: &str) -> Sent {
    let signature = WebhookSecret::parse(secret).unwrap().sign(id, at, body);
    let headers = [("webhook-id", id), ("webhook-timestamp", &at.to_string()), ("webhook-signature", &*signature)];
    Sent::new(&headers, body.as_bytes())
}

fn now() -> i64 {
    chrono::Utc::now().timestamp()
}

async fn send(api: &Api, hook: &Hook, sent: &Sent) -> Reply {
    send_to(api, &hook.receive_path, sent).await
}

async fn send_to(api: &Api, path: &str, sent: &Sent) -> Reply {
    let mut request = api.http().post(format!("{}{path}?{}", api.url, sent.query)).body(sent.body.clone());
    for (name, value) in &sent.headers {
        request = request.header(name, value);
    }
    let answer = request.send().await.unwrap();
    Reply { status: answer.status(), headers: answer.headers().clone(), text: answer.text().await.unwrap() }
}

async fn make(api: &Api, hook: Value) -> IssuedHook {
    api.post("/v1/hooks", &hook).await.expect(201)
}

async fn deliveries(api: &Api, id: Uuid) -> Vec<HookDelivery> {
    api.fetch(&format!("/v1/hooks/{id}/deliveries")).await.expect::<HookDeliveryList>(200).deliveries
}

fn outcomes(deliveries: &[HookDelivery]) -> Vec<HookOutcome> {
    deliveries.iter().map(|delivery| delivery.outcome).collect()
}

#[tokio::test]
async fn deliveries_of_every_kind_become_requests_with_the_body_as_it_came() {
    let target = Target::quick().await;
    let system = System::builder().start().await;
    let api = &system.api;
    let body = "{\"id\": \"evt_1\",  \"é\": [1]}";
    let bytes = body.as_bytes();
    let template = json!({"http": {"url": target.url("/taken"), "headers": {"X-Own": "1"}}, "queue": "hooks"});
    let kinds = ["github", "stripe", "standard_webhooks", "shared_secret", "secret_url"];
    for (number, kind) in kinds.into_iter().enumerate() {
        let IssuedHook { hook, secret } =
            make(api, json!({"name": kind, "verification": kind, "task": template, "pass_headers": ["X-Kept"]})).await;
        let secret = secret.unwrap();
        let right = match kind {
            "github" => by_github(&secret, "d-1", bytes),
            "stripe" => by_stripe(&secret, now(), bytes),
            "standard_webhooks" => by_standard_webhooks(&secret, "msg_1", now(), body),
            "shared_secret" => Sent::new(&[("authorization", &format!("Bearer {secret}"))], bytes),
            _ => Sent { query: format!("token={secret}"), ..Sent::new(&[], bytes) },
        };
        let right = right.with("x-kept", "kept").with("x-other", "other");
        let reply = send(api, &hook, &right).await;
        let receipt: HookReceipt = reply.expect(202);
        assert!(!receipt.duplicate);
        let id = receipt.task_id.unwrap();
        assert_eq!(reply.header("location"), Some(format!("/v1/tasks/{id}").as_str()));
        assert_eq!(api.ended(id).await.status, TaskStatus::Complete, "{kind}");
        assert_eq!(api.get(id).await.queue, "hooks");
        let arrival = target.arrived(number + 1).await.pop().unwrap();
        assert_eq!((arrival.task_id, &*arrival.body), (Some(id), bytes), "{kind}");
        assert_eq!(["x-own", "x-kept", "x-other"].map(|name| arrival.headers.get(name).is_some()), [true, true, false]);
        assert!(arrival.headers.get("authorization").is_none());

        // Whatever is wrong, and wherever there is nothing: the same answer.
        let nowhere = format!("/v1/hooks/{}/receive", Uuid::now_v7());
        let mut altered = right.clone();
        altered.body.push(b' ');
        let unsigned = Sent::new(&[("content-type", "application/json")], bytes);
        let wrong_token = Sent { query: "token=0000".into(), ..unsigned.clone() };
        let mut refused = vec![send_to(api, &nowhere, &right).await, send(api, &hook, &unsigned).await];
        refused.push(send(api, &hook, &wrong_token).await);
        if !["shared_secret", "secret_url"].contains(&kind) {
            refused.push(send(api, &hook, &altered).await);
        }
        for reply in &refused {
            let (one, other) = (reply.json(), refused[0].json());
            assert_eq!((reply.status.as_u16(), one["code"].as_str()), (401, Some("unauthorized")), "{kind}");
            assert_eq!((&one["detail"], &one["title"]), (&other["detail"], &other["title"]));
        }
    }
    assert_eq!(api.list("queue=hooks").await.len(), kinds.len());
}

#[tokio::test]
async fn times_that_are_too_far_off_are_refused_and_the_owner_is_told() {
    let system = System::builder().workers(0).start().await;
    let api = &system.api;
    let task = json!({"command": "true"});
    let stripe = make(api, json!({"verification": "stripe", "secret": "whsec_0123456789abcdef", "task": task})).await;
    let standard = make(api, json!({"verification": "standard_webhooks", "task": task})).await;
    for (late, status) in [(-290, 202), (290, 202), (-310, 401), (310, 401)] {
        let body = json!({"id": format!("evt_{late}")}).to_string();
        let sent = by_stripe("whsec_0123456789abcdef", now() + late, body.as_bytes());
        assert_eq!(send(api, &stripe.hook, &sent).await.status, status, "{late}");
        let secret = standard.secret.as_deref().unwrap();
        let sent = by_standard_webhooks(secret, &format!("msg_{late}"), now() + late, &body);
        assert_eq!(send(api, &standard.hook, &sent).await.status, status, "{late}");
    }
    use HookOutcome::{Accepted, Stale};
    for hook in [&stripe.hook, &standard.hook] {
        assert_eq!(outcomes(&deliveries(api, hook.id).await), [Stale, Stale, Accepted, Accepted]);
    }
}

#[tokio::test]
async fn a_command_takes_the_body_as_an_argument_and_runs_nothing_of_it() {
    let system = System::builder().start().await;
    let api = &system.api;
    let command = r#"printf '%s|%s|%s' "$1" "$2" "$#""#;
    let shell =
        make(api, json!({"verification": "github", "secret": "0123456789abcdef", "task": {"command": command}})).await;
    let program = json!({"argv": ["printf", "%s|%s"], "max_attempts": 1});
    let program = make(api, json!({"verification": "github", "secret": "0123456789abcdef", "task": program})).await;
    let body = r#"{"a": "$(touch /tmp/never); `id` ' \" ; exit 1"}"#;
    let headers = r#"{"content-type":"application/json","x-github-delivery":"d-1","x-github-event":"push"}"#;
    for (issued, expected) in [(&shell, format!("{body}|{headers}|2")), (&program, format!("{body}|{headers}"))] {
        let sent = by_github("0123456789abcdef", "d-1", body.as_bytes());
        let receipt: HookReceipt = send(api, &issued.hook, &sent).await.expect(202);
        let task = api.ended(receipt.task_id.unwrap()).await;
        assert_eq!(task.result.unwrap().stdout.unwrap(), expected);
    }
    // What a command cannot take is refused, once its sender is verified.
    for body in [&b"\xff"[..], b"a\0b", &[b'x'; 200_000]] {
        let reply = send(api, &shell.hook, &by_github("0123456789abcdef", "d-2", body)).await;
        assert_eq!((reply.status.as_u16(), reply.json()["code"].as_str()), (422, Some("validation_failed")));
    }
    assert_eq!(outcomes(&deliveries(api, shell.hook.id).await)[..3], [HookOutcome::Unusable; 3]);
    let large = by_github("0123456789abcdef", "d-3", &vec![b'x'; 1024 * 1024 + 1]);
    let reply = send(api, &shell.hook, &large).await;
    assert_eq!((reply.status.as_u16(), reply.json()["code"].as_str()), (413, Some("body_too_large")));
}

#[tokio::test]
async fn the_same_delivery_fifty_times_at_once_by_two_gateways_is_one_task() {
    let mut system = System::builder().workers(0).start().await;
    let other = Api::new(&system.add_gateway().await);
    let api = &system.api;
    until("ready", async || other.readyz().await.filter(|status| *status == 200)).await;
    let issued = make(api, json!({"verification": "github", "task": {"command": "true"}})).await;
    let secret = issued.secret.as_deref().unwrap();
    let sent = by_github(secret, "72d3162e-cc78-11e3-81ab-4c9367dc0958", b"{}");
    let replies = join_all((0..50).map(|n| send(if n % 2 == 0 { api } else { &other }, &issued.hook, &sent))).await;
    let receipts: Vec<HookReceipt> =
        replies.iter().map(|reply| reply.expect(if reply.status == 202 { 202 } else { 200 })).collect();
    let ids: HashSet<Option<Uuid>> = receipts.iter().map(|receipt| receipt.task_id).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(receipts.iter().filter(|receipt| !receipt.duplicate).count(), 1);
    assert_eq!(replies.iter().filter(|reply| reply.status == 202).count(), 1);
    assert_eq!(system.database.number("select count(*) from tasks").await, 1);

    // Another delivery is another task, and so is the same one to another hook.
    assert_eq!(send(api, &issued.hook, &by_github(secret, "another", b"{}")).await.status, 202);
    let second = make(api, json!({"verification": "github", "secret": secret, "task": {"command": "true"}})).await;
    assert_eq!(send(api, &second.hook, &sent).await.status, 202);
    // One whose body has changed meanwhile is the same: Stripe counts in it how many are pending.
    let stripe = make(api, json!({"verification": "stripe", "task": {"command": "true"}})).await;
    let secret = stripe.secret.as_deref().unwrap();
    for (pending, status) in [(2, 202), (1, 200)] {
        let body = json!({"id": "evt_1", "pending_webhooks": pending}).to_string();
        assert_eq!(send(api, &stripe.hook, &by_stripe(secret, now(), body.as_bytes())).await.status, status);
    }
    assert_eq!(system.database.number("select count(*) from tasks").await, 4);
    // GitHub's first delivery only asks whether somebody is there.
    let mut ping = by_github(issued.secret.as_deref().unwrap(), "ping", b"{}");
    ping.headers.retain(|(name, _)| name != "x-github-event");
    let ping = ping.with("x-github-event", "ping");
    assert_eq!(send(api, &issued.hook, &ping).await.expect::<HookReceipt>(200).task_id, None);
    assert_eq!(deliveries(api, issued.hook.id).await[0].outcome, HookOutcome::Ping);
}

#[tokio::test]
async fn a_hook_is_made_once_listed_changed_with_care_rotated_and_deleted() {
    let system = System::builder().workers(0).start().await;
    let api = &system.api;
    let task = json!({"http": {"url": "http://127.0.0.1:9/", "headers": {"X-Api-Key": "hunter2", "X-Plain": "1"}}});
    let new = json!({"name": "one", "verification": "shared_secret", "secret_header": "X-Token", "delivery_id_header": "X-Id", "task": task});
    let made = async |body: &Value| api.send(Method::POST, "/v1/hooks", Some(body), &[("Idempotency-Key", "k")]).await;
    let first = made(&new).await;
    let issued: IssuedHook = first.expect(201);
    let secret = issued.secret.clone().unwrap();
    let path = format!("/v1/hooks/{}", issued.hook.id);
    assert_eq!(first.header("location"), Some(path.as_str()));
    assert_eq!(first.header("cache-control"), Some("no-store"));
    let again = made(&new).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.expect::<IssuedHook>(201), IssuedHook { hook: issued.hook.clone(), secret: None });
    assert_eq!(made(&json!({"verification": "github", "task": task})).await.json()["code"], "idempotency_mismatch");
    assert_eq!(issued.hook.task.http.as_ref().unwrap().headers["X-Api-Key"], "***");
    for name in ["two", "three"] {
        make(api, json!({"name": name, "verification": "github", "task": task})).await;
    }
    let page: HookList = api.fetch("/v1/hooks?page_size=2").await.expect(200);
    let rest: HookList = api.fetch(&format!("/v1/hooks?page_token={}", page.next_page_token)).await.expect(200);
    assert_eq!((rest.hooks.as_slice(), rest.next_page_token.as_str()), (&[issued.hook.clone()][..], ""));
    assert_eq!(page.hooks.iter().map(|hook| hook.name.as_deref()).collect::<Vec<_>>(), [Some("three"), Some("two")]);

    let with = |secret: &str, id: &str| Sent::new(&[("x-token", secret), ("x-id", id)], b"{}");
    assert_eq!(send(api, &issued.hook, &with(&secret, "1")).await.status, 202);
    assert_eq!(send(api, &issued.hook, &with(&secret, "1")).await.status, 200);
    // What cannot be read back is still there after a change.
    let tag = api.fetch(&path).await.header("etag").unwrap().to_owned();
    let patch = json!({"name": null, "task": {"queue": "q"}, "delivery_id_header": null});
    let changed = api.send(Method::PATCH, &path, Some(&patch), &[("If-Match", &tag)]).await;
    let hook: Hook = changed.expect(200);
    assert_eq!((hook.revision, &hook.name, hook.task.queue.as_deref()), (2, &None, Some("q")));
    let stale = api.send(Method::PATCH, &path, Some(&patch), &[("If-Match", &tag)]).await;
    assert_eq!((stale.status.as_u16(), stale.json()["code"].as_str()), (412, Some("precondition_failed")));
    let fixed = api.send(Method::PATCH, &path, Some(&json!({"verification": "github", "secret": "x"})), &[]).await;
    assert_eq!((fixed.status.as_u16(), fixed.json()["errors"].as_array().unwrap().len()), (422, 2));
    // Without names each delivery is another.
    for _ in 0..2 {
        assert_eq!(send(api, &issued.hook, &with(&secret, "1")).await.status, 202);
    }
    let kept = "select count(*) from tasks where work::text like '%hunter2%'";
    assert_eq!(system.database.number(kept).await, 3);

    // Either secret, until the overlap is over.
    let rotate = async |body: Value| -> IssuedHook { api.post(&format!("{path}/rotate"), &body).await.expect(200) };
    let rotated = rotate(json!({})).await;
    let newer = rotated.secret.unwrap();
    assert!(newer != secret && rotated.hook.previous_secret_expires_at.is_some());
    for secret in [&secret, &newer] {
        assert_eq!(send(api, &issued.hook, &with(secret, "")).await.status, 202);
    }
    let given = rotate(json!({"secret": "known to both of us", "overlap_seconds": 0})).await;
    assert_eq!(given.secret.as_deref(), Some("known to both of us"));
    assert_eq!(send(api, &issued.hook, &with(&newer, "")).await.status, 401);
    assert_eq!(send(api, &issued.hook, &with("Bearer known to both of us", "")).await.status, 202);

    let off: Hook = api.send(Method::PATCH, &path, Some(&json!({"enabled": false})), &[]).await.expect(200);
    assert!(!off.enabled);
    let refused = send(api, &off, &with("known to both of us", "")).await;
    assert_eq!((refused.status.as_u16(), refused.json()["code"].as_str()), (409, Some("hook_disabled")));
    assert_eq!(send(api, &off, &with("something else", "")).await.status, 401, "strangers do not learn that");
    let listed = outcomes(&deliveries(api, off.id).await);
    assert!(listed.contains(&HookOutcome::Disabled) && listed.contains(&HookOutcome::Unverified), "{listed:?}");

    // No secret in whatever is read, logged or kept.
    let mut seen =
        api.fetch("/v1/hooks").await.text + &api.fetch(&path).await.text + &api.fetch("/v1/tasks").await.text;
    for process in &system.gateways {
        seen += &process.log().join("\n");
    }
    let secrets = [&*secret, &*newer, "known to both of us", "hunter2"];
    assert!(secrets.iter().all(|secret| !seen.contains(secret)));
    assert_eq!(api.send(Method::DELETE, &path, None, &[("If-Match", &tag)]).await.status, 412);
    assert_eq!(api.send(Method::DELETE, &path, None, &[]).await.status, 204);
    for (method, path) in [(Method::GET, path.clone()), (Method::DELETE, path.clone())] {
        assert_eq!(api.send(method, &path, None, &[]).await.json()["code"], "hook_not_found");
    }
    assert_eq!(api.fetch(&format!("{path}/deliveries")).await.json()["code"], "hook_not_found");
    assert_eq!(send(api, &off, &with("known to both of us", "")).await.status, 401);
}

#[tokio::test]
async fn the_log_of_deliveries_is_bounded_and_strangers_do_not_push_out_what_was_sent() {
    let system = System::builder().workers(0).start().await;
    let api = &system.api;
    let issued = make(api, json!({"verification": "github", "task": {"command": "true"}})).await;
    let secret = issued.secret.as_deref().unwrap();
    let stranger = by_github("another secret", "x", b"{}");
    for _ in 0..3 {
        assert_eq!(send(api, &issued.hook, &stranger).await.status, 401);
    }
    for number in 0..110 {
        let sent = by_github(secret, &format!("d-{number}"), b"{}");
        assert_eq!(send(api, &issued.hook, &sent).await.status, 202);
    }
    let listed = deliveries(api, issued.hook.id).await;
    let strangers = listed.iter().filter(|delivery| delivery.outcome == HookOutcome::Unverified).count();
    assert!((1..=3).contains(&strangers), "one a second: {strangers}");
    let accepted: Vec<&HookDelivery> =
        listed.iter().filter(|delivery| delivery.outcome == HookOutcome::Accepted).collect();
    assert_eq!(accepted.len(), 100);
    assert_eq!(accepted[0].delivery_id.as_deref(), Some("d-109"));
    assert!(accepted.iter().all(|delivery| delivery.task_id.is_some()));
    assert!(system.database.number("select count(*) from hook_deliveries").await <= 103);
    assert_eq!(api.send(Method::DELETE, &format!("/v1/hooks/{}", issued.hook.id), None, &[]).await.status, 204);
    assert_eq!(system.database.number("select count(*) from hook_deliveries").await, 0);
}

#[tokio::test]
async fn a_gateway_that_wants_keys_takes_deliveries_without_one_and_nothing_else() {
    let database = Database::new().await;
    let key = |scopes: &str| {
        let made = command_line(&["keys", "create", "--name", "of a test", "--scopes", scopes])
            .env("DATABASE_URL", &database.url)
            .output()
            .unwrap();
        String::from_utf8(made.stdout).unwrap().trim_end().to_owned()
    };
    let (plain, commands) = (key("tasks:write"), key("tasks:write,commands:run"));
    let mut process = Process::spawn(
        "gateway",
        &["gateway", "--listen", "127.0.0.1:0", "--require-keys", "--rate-limit-writes", "1000"],
        &[("DATABASE_URL", &database.url), ("TASKMASTER_LOG", "debug")],
    );
    let address = process.logged("gateway").await["address"].as_str().unwrap().to_owned();
    let api = Api::new(&format!("http://{address}"));
    until("ready", async || api.readyz().await.filter(|status| *status == 200)).await;

    let runs = json!({"verification": "secret_url", "task": {"command": "true"}});
    let asks = json!({"verification": "secret_url", "task": {"http": {"url": "https://example.com/"}}});
    let refused = api.with_key(&plain).post("/v1/hooks", &runs).await;
    assert_eq!(
        (refused.status.as_u16(), refused.json()["errors"][0]["pointer"].as_str()),
        (403, Some("/task/command"))
    );
    assert_eq!(api.with_key(&plain).post("/v1/hooks", &asks).await.status, 201);
    let issued: IssuedHook = api.with_key(&commands).post("/v1/hooks", &runs).await.expect(201);
    let path = format!("/v1/hooks/{}", issued.hook.id);
    let renamed = api.with_key(&plain).send(Method::PATCH, &path, Some(&json!({"name": "x"})), &[]).await;
    assert_eq!(renamed.status, 403, "whoever changes it answers for its command");

    let secret = issued.secret.unwrap();
    let sent = Sent { query: format!("token={secret}"), ..Sent::new(&[("host", "hooks.example.com")], b"{}") };
    assert_eq!(send(&api, &issued.hook, &sent).await.status, 202);
    let wrong = Sent { query: "token=wrong-0123456789".into(), ..sent.clone() };
    assert_eq!(send(&api, &issued.hook, &wrong).await.status, 401);
    assert_eq!(api.fetch(&path).await.status, 401);
    // The log has the request, and the token nowhere.
    let lines = until("both are logged", async || {
        let lines: Vec<String> = process.log().into_iter().filter(|line| line.contains("/receive")).collect();
        (lines.len() >= 2).then(|| process.log().join("\n"))
    })
    .await;
    assert!(!lines.contains(&secret) && !lines.contains("wrong-0123456789"));
}

#[tokio::test]
async fn deliveries_reach_a_gateway_without_keys_under_any_name_and_other_requests_do_not() {
    let up = Up::start(&["--ephemeral", "--simulate", "0"]).await;
    let issued = make(&up.api, json!({"verification": "github", "task": {"command": "true"}})).await;
    let sent = by_github(issued.secret.as_deref().unwrap(), "d-1", b"{}").with("host", "abc.tunnel.example");
    assert_eq!(send(&up.api, &issued.hook, &sent).await.status, 202);
    let other = up.api.send(Method::GET, "/v1/hooks", None, &[("host", "abc.tunnel.example")]).await;
    assert_eq!(other.json()["code"], "forbidden_origin");
}

/// What the reference libraries of the senders sign: with `TASKMASTER_HOOK_SIGNED` from a file that they wrote (`.ci/webhooks`), a delivery
/// a line; without, the same signed here.
#[tokio::test]
async fn what_reference_libraries_sign_is_taken() {
    let system = System::builder().workers(0).start().await;
    let api = &system.api;
    let signed: Vec<(String, String, Sent)> = match std::env::var("TASKMASTER_HOOK_SIGNED") {
        Ok(path) => std::fs::read_to_string(path).unwrap().lines().map(read_signed).collect(),
        Err(_) => {
            let (shared, standard) = ("a secret that both know", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
            vec![
                ("github".into(), shared.into(), by_github(shared, "1", b"{}")),
                ("stripe".into(), shared.into(), by_stripe(shared, now(), b"{}")),
                ("standard_webhooks".into(), standard.into(), by_standard_webhooks(standard, "1", now(), "{}")),
            ]
        }
    };
    let kinds: HashSet<&str> = signed.iter().map(|(kind, ..)| kind.as_str()).collect();
    assert_eq!(kinds, HashSet::from(["github", "stripe", "standard_webhooks"]));
    for (kind, secret, sent) in signed {
        let hook = json!({"verification": kind, "secret": secret, "task": {"command": "true"}});
        let issued = make(api, hook).await;
        assert_eq!(send(api, &issued.hook, &sent).await.status, 202, "{kind}: {sent:?}");
        let altered = Sent { body: [&sent.body[..], b" "].concat(), ..sent };
        assert_eq!(send(api, &issued.hook, &altered).await.status, 401, "{kind}");
    }
}

fn read_signed(line: &str) -> (String, String, Sent) {
    let line: Value = serde_json::from_str(line).unwrap();
    let text = |name: &str| line[name].as_str().unwrap().to_owned();
    let headers = line["headers"].as_object().unwrap();
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, value.as_str().unwrap())).collect();
    (text("verification"), text("secret"), Sent::new(&headers, text("body").as_bytes()))
}

#[tokio::test]
async fn every_command_of_the_documentation_works_as_it_stands() {
    let document = include_str!("../../docs/hooks.md");
    let target = Target::quick().await;
    let up = Up::start(&["--ephemeral"]).await;
    let blocks: Vec<&str> = document.split("\n```").filter_map(|part| part.strip_prefix("sh\n")).collect();
    assert!(blocks.len() >= 4);
    let curl = "curl() { command curl --fail-with-body --show-error --max-time 60 \"$@\"; }";
    let address = |url: &str| url.trim_start_matches("http://").to_owned();
    let script = format!("set -eu\n{curl}\n{}", blocks.join("\n"))
        .replace("127.0.0.1:8081", &address(&up.api.url))
        .replace("127.0.0.1:9900", &address(&target.url("")));
    let ran = tokio::task::spawn_blocking(|| Command::new("sh").arg("-c").arg(script).output().unwrap()).await.unwrap();
    let (answers, error) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{answers}\n{error}");
    // GitHub's, Stripe's, Standard Webhooks' and the one by secret URL are requests; the one with a shared secret runs a command.
    let paths: HashSet<String> = target.arrived(4).await.into_iter().map(|arrival| arrival.path).collect();
    assert_eq!(paths, HashSet::from(["/pushes", "/payments", "/events", "/anything"].map(str::to_owned)));
    let runs = until("the command has run", async || {
        let tasks = up.api.list("tag=from-gitlab&status=COMPLETE").await;
        tasks.first().cloned()
    })
    .await;
    assert_eq!(runs.result.unwrap().stdout.as_deref(), Some("refs/heads/main\n"));
}
