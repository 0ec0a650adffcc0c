//! API keys: made, scoped, rotated, revoked; by the command and over HTTP; and seen by every gateway.

use std::process::Output;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use taskmaster_openapi::key::{IssuedKey, Key, KeyList, KeyStatus, Scope, Scopes};

use crate::support::{Api, Cluster, Database, Process, command_line, until};

/// So long a revocation takes at most to be seen by every gateway.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);

fn try_command(database: &Database, arguments: &[&str]) -> Output {
    command_line(&[&["keys"], arguments].concat()).env("DATABASE_URL", &database.url).output().expect("it runs")
}

/// What `taskmaster keys …` prints.
fn command(database: &Database, arguments: &[&str]) -> String {
    let output = try_command(database, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn token(database: &Database, scopes: &str) -> String {
    command(database, &["create", "--name", "of a test", "--scopes", scopes])
}

fn spawn(database: &Database, arguments: &[&str]) -> Process {
    let environment = [("DATABASE_URL", database.url.as_str()), ("TASKMASTER_DATABASE_POOL_MAX", "4")];
    Process::spawn("gateway", &[&["gateway"], arguments].concat(), &environment)
}

/// A gateway that wants keys, ready.
async fn gateway(database: &Database) -> (Process, Api) {
    // Tests present wrong keys all the time.
    let arguments = ["--listen", "127.0.0.1:0", "--require-keys", "--rate-limit-wrong-keys", "0"];
    let mut process = spawn(database, &arguments);
    let address = process.logged("gateway").await["address"].as_str().unwrap().to_owned();
    let api = Api::new(&format!("http://{address}"));
    until("ready", async || api.readyz().await.filter(|status| *status == 200)).await;
    (process, api)
}

/// The status and the code of an answer without a body that is looked at.
async fn asked(api: &Api, method: Method, path: &str, body: Option<&Value>) -> (u16, String) {
    let mut request = api.http().request(method.clone(), format!("{}{path}", api.url));
    request = match (body, method == Method::POST) {
        (Some(body), _) => request.json(body),
        (None, true) => request.header("content-type", "application/json"),
        (None, false) => request,
    };
    let answer = request.send().await.unwrap();
    let status = answer.status();
    // A stream of events has no end.
    let text = if status.is_success() { String::new() } else { answer.text().await.unwrap() };
    let code = serde_json::from_str::<Value>(&text).ok().and_then(|problem| Some(problem["code"].as_str()?.to_owned()));
    (status.as_u16(), code.unwrap_or_default())
}

async fn status(api: &Api, token: &str) -> u16 {
    asked(&api.with_key(token), Method::GET, "/v1/tasks", None).await.0
}

#[tokio::test]
async fn a_key_lives_from_the_command_over_rotation_to_revocation_on_every_gateway() {
    let database = Database::new().await;
    let first = token(&database, "admin");
    let ((one, api), (other, elsewhere)) = (gateway(&database).await, gateway(&database).await);
    let admin = api.with_key(&first);

    let made = admin.post("/v1/keys", &json!({"name": "ci", "scopes": ["tasks:read"]})).await;
    let issued: IssuedKey = made.expect(201);
    let path = format!("/v1/keys/{}", issued.key.id);
    assert_eq!(made.header("location"), Some(path.as_str()));
    for api in [&api, &elsewhere] {
        assert_eq!(status(api, &issued.token).await, 200);
    }
    let used = async || admin.fetch(&path).await.expect::<Key>(200).last_used_at;
    until("its use is noted", used).await;

    // Rotated: both secrets work, on the gateway that knew the old one as well; without an overlap only the new one.
    let rotated: IssuedKey = admin.post(&format!("{path}/rotate"), &json!({"overlap_seconds": 600})).await.expect(200);
    assert!(rotated.key.previous_secret_expires_at.is_some() && rotated.token != issued.token);
    for api in [&api, &elsewhere] {
        for token in [&rotated.token, &issued.token] {
            assert_eq!(status(api, token).await, 200);
        }
    }
    let at_once = command(&database, &["rotate", &issued.key.id, "--overlap-seconds", "0", "--json"]);
    let again: IssuedKey = serde_json::from_str(&at_once).unwrap();
    let began = Instant::now();
    for api in [&api, &elsewhere] {
        assert_eq!(status(api, &again.token).await, 200);
        for old in [&rotated.token, &issued.token] {
            until("the old secret is refused", async || (status(api, old).await == 401).then_some(())).await;
        }
    }
    assert!(began.elapsed() < REVOKED_WITHIN, "{:?}", began.elapsed());

    // Revoked: at once where it was asked for, within 5 s elsewhere, and for good.
    assert_eq!(status(&elsewhere, &again.token).await, 200);
    let began = Instant::now();
    for _ in 0..2 {
        assert_eq!(asked(&admin, Method::DELETE, &path, None).await, (204, String::new()));
    }
    assert_eq!(status(&api, &again.token).await, 401);
    until("revoked elsewhere", async || (status(&elsewhere, &again.token).await == 401).then_some(())).await;
    assert!(began.elapsed() < REVOKED_WITHIN, "{:?}", began.elapsed());
    let refused = admin.post(&format!("{path}/rotate"), &json!({})).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["code"]), (409, &json!("key_not_active")));
    let key: Key = admin.fetch(&path).await.expect(200);
    assert!(key.status == KeyStatus::Revoked && key.revoked_at.is_some(), "{key:?}");

    // Nobody keeps a secret.
    let secrets =
        [&first, &issued.token, &rotated.token, &again.token].map(|token| token.rsplit('_').next().unwrap().to_owned());
    let mut connection = database.connect().await;
    let rows: Vec<String> =
        sqlx::query_scalar("select k::text from api_keys k").fetch_all(&mut connection).await.unwrap();
    assert_eq!(rows.len(), 2);
    for secret in &secrets {
        let kept = [one.log(), other.log(), one.output(), rows.clone()].concat();
        assert!(!kept.iter().any(|line| line.contains(secret)), "a secret is kept");
    }
}

#[tokio::test]
async fn the_list_of_keys_is_paged_and_the_command_shows_and_revokes_what_is_in_it() {
    let database = Database::new().await;
    let admin = token(&database, "admin");
    let (_process, api) = gateway(&database).await;
    let api = api.with_key(&admin);
    let mut made = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let issued: IssuedKey = api.post("/v1/keys", &json!({"name": name, "scopes": ["workers"]})).await.expect(201);
        made.push(issued.key.name);
    }
    let (mut names, mut path) = (Vec::new(), "/v1/keys?page_size=2".to_owned());
    loop {
        let reply = api.fetch(&path).await;
        let page: KeyList = reply.expect(200);
        assert!(page.keys.len() <= 2);
        names.extend(page.keys.into_iter().map(|key| key.name));
        let Some(link) = reply.header("link") else {
            assert_eq!(page.next_page_token, "");
            break;
        };
        path = link.trim_start_matches('<').split('>').next().unwrap().to_owned();
    }
    made.reverse();
    made.push("of a test".into());
    assert_eq!(names, made);

    let listed: KeyList = serde_json::from_str(&command(&database, &["list", "--json"])).unwrap();
    assert!(listed.keys.iter().map(|key| &key.name).eq(&names));
    let table = command(&database, &["list"]);
    assert!(table.starts_with("ID ") && table.lines().count() == 6, "{table}");
    let revoked: Key = serde_json::from_str(&command(&database, &["revoke", &listed.keys[0].id, "--json"])).unwrap();
    assert_eq!(revoked.status, KeyStatus::Revoked);
    for wrong in [&["revoke", "000000000000"][..], &["rotate", &revoked.id], &["revoke", "x"]] {
        let output = try_command(&database, wrong);
        assert!(!output.status.success() && !output.stderr.is_empty(), "{wrong:?}");
    }
}

#[tokio::test]
async fn every_operation_is_allowed_by_its_scope_and_by_admin_and_by_no_other() {
    let database = Database::new().await;
    let keys = Scope::ALL.map(|scope| (scope, token(&database, scope.as_str())));
    let (_process, api) = gateway(&database).await;
    let document: Value = api.fetch("/openapi/v1/gateway.json").await.expect(200);
    let mut looked_at = 0;
    for (path, item) in document["paths"].as_object().unwrap().iter().filter(|(path, _)| path.starts_with("/v1/")) {
        for (method, operation) in item.as_object().unwrap() {
            if operation["security"] == json!([{"hook_signature": []}]) {
                // Senders have no keys; who they are, `hooks` tests.
                continue;
            }
            if operation["security"][0]["attempt_token"].is_array() {
                // Wants another token: see `http_tasks`.
                continue;
            }
            let wanted: Scope = operation["security"][1]["api_key"][0].as_str().unwrap().parse().unwrap();
            let id = if path.contains("/keys/") { "000000000000" } else { "01890a5d-ac96-774b-bcce-b302099a8057" };
            let concrete = path
                .replace("{id}", id)
                .replace("{delivery_id}", id)
                .replace("{worker_id}", "nobody")
                .replace("{queue}", "mail");
            let method: Method = method.to_uppercase().parse().unwrap();
            for (held, token) in &keys {
                let (status, code) = asked(&api.with_key(token), method.clone(), &concrete, None).await;
                let allowed = Scopes::from_iter([*held]).allow(wanted);
                assert_eq!(code != "insufficient_scope", allowed, "{method} {path} with {held:?}: {status} {code}");
                assert!(allowed == (status != 403) && status != 401, "{method} {path} with {held:?}: {status} {code}");
                looked_at += 1;
            }
            assert_eq!(asked(&api, method, &concrete, None).await, (401, "unauthorized".into()), "{path}");
        }
    }
    assert!(looked_at >= 95, "{looked_at}");
}

#[tokio::test]
async fn tasks_that_run_commands_want_a_scope_of_their_own() {
    let database = Database::new().await;
    let (_process, api) = {
        token(&database, "admin");
        gateway(&database).await
    };
    let (plain, commands) = (token(&database, "tasks:write"), token(&database, "tasks:write,commands:run"));
    let request = json!({"http": {"url": "http://127.0.0.1:9/"}, "delay_seconds": 3600});
    for (path, body, pointer) in [
        ("/v1/tasks", json!({"command": "true", "delay_seconds": 3600}), "/command"),
        ("/v1/tasks", json!({"argv": ["true"], "delay_seconds": 3600}), "/argv"),
        ("/v1/tasks/batch", json!({"tasks": [request, {"argv": ["true"], "delay_seconds": 3600}]}), "/tasks/1/argv"),
    ] {
        let refused = api.with_key(&plain).post(path, &body).await;
        assert_eq!((refused.status.as_u16(), &refused.json()["code"]), (403, &json!("insufficient_scope")));
        assert_eq!(refused.json()["errors"][0]["pointer"], pointer);
        assert!(refused.json()["detail"].as_str().unwrap().contains("commands:run"));
        assert_eq!(api.with_key(&commands).post(path, &body).await.status, 201);
    }
    assert_eq!(api.with_key(&plain).post("/v1/tasks", &request).await.status, 201);
    assert_eq!(database.number("select count(*) from tasks").await, 5);
}

#[tokio::test]
async fn idempotency_keys_of_one_api_key_are_not_those_of_another() {
    let database = Database::new().await;
    let (one, other) = (token(&database, "tasks:write"), token(&database, "tasks:write"));
    let (_process, api) = gateway(&database).await;
    let task = json!({"http": {"url": "http://127.0.0.1:9/"}, "delay_seconds": 3600});
    let create = async |token: &str| {
        let reply = api.with_key(token).send(Method::POST, "/v1/tasks", Some(&task), &[("idempotency-key", "k")]).await;
        reply.expect::<Value>(201)["id"].clone()
    };
    let created = create(&one).await;
    assert_eq!(create(&one).await, created);
    assert_ne!(create(&other).await, created);
}

#[tokio::test]
async fn a_key_that_expires_works_until_then() {
    let database = Database::new().await;
    let (_process, api) = {
        token(&database, "admin");
        gateway(&database).await
    };
    let create = ["create", "--name", "short", "--scopes", "tasks:read", "--expires-in-seconds", "6", "--json"];
    let issued: IssuedKey = serde_json::from_str(&command(&database, &create)).unwrap();
    assert_eq!(status(&api, &issued.token).await, 200);
    let expired = async || {
        let reply = api.with_key(&issued.token).fetch("/v1/tasks").await;
        (reply.status == 401).then(|| reply.json()["detail"].as_str().unwrap().to_owned())
    };
    assert!(until("it has expired", expired).await.contains("expired"));
    let left = "select ceil(extract(epoch from expires_at - now()) * 1000)::bigint from api_keys where name = 'short'";
    // A request was sent before the database said that it has expired: at most as long as that took.
    assert!(database.number(left).await < 200, "refused too early");
    let listed: KeyList = serde_json::from_str(&command(&database, &["list", "--json"])).unwrap();
    assert_eq!(listed.keys[0].status, KeyStatus::Expired);
}

#[tokio::test]
async fn a_gateway_that_others_can_reach_and_that_has_no_key_ends_with_one_line_that_says_what_to_do() {
    let database = Database::new().await;
    for arguments in [&["--listen", "0.0.0.0:0"][..], &["--listen", "127.0.0.1:0", "--require-keys"]] {
        let mut gateway = spawn(&database, arguments);
        assert!(!gateway.ended().await.success());
        // The reader of the pipe may be a moment behind the end. All before is JSON.
        let last =
            until("its last words", async || gateway.log().into_iter().find(|line| !line.starts_with('{'))).await;
        assert!(last.starts_with("taskmaster: ") && last.contains("taskmaster keys create"), "{last}");
    }
    let mut told_so = spawn(&database, &["--listen", "0.0.0.0:0", "--allow-anonymous"]);
    told_so.logged("gateway").await;
    // A key of the database opens a gateway, and a database that is not there yet ends none.
    token(&database, "tasks:read");
    let mut with_key = spawn(&database, &["--listen", "0.0.0.0:0"]);
    with_key.logged("available").await;
    let nowhere = Database { url: "postgres://nobody@127.0.0.1:1/nothing".into() };
    let mut without_database = spawn(&nowhere, &["--listen", "0.0.0.0:0"]);
    without_database.logged("not ready").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!told_so.has_ended() && !with_key.has_ended() && !without_database.has_ended());
}

#[tokio::test]
async fn a_stream_of_events_ends_when_its_key_is_revoked() {
    let database = Database::new().await;
    let reader = token(&database, "tasks:read");
    let (_process, api) = gateway(&database).await;
    let mut stream = api.with_key(&reader).http().get(format!("{}/v1/events", api.url)).send().await.unwrap();
    assert!(stream.chunk().await.unwrap().is_some());
    let began = Instant::now();
    command(&database, &["revoke", reader.split('_').nth(1).unwrap()]);
    // Comments may come before the end.
    while stream.chunk().await.unwrap().is_some() {}
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn while_the_database_is_away_known_keys_are_believed_and_others_told_to_come_back() {
    let mut cluster = Cluster::start().await;
    let database = cluster.database();
    assert!(command_line(&["migrate"]).env("DATABASE_URL", &database.url).status().unwrap().success());
    let (known, unknown) = (token(&database, "tasks:read"), token(&database, "tasks:read"));
    let (_process, api) = gateway(&database).await;
    assert_eq!(status(&api, &known).await, 200);
    cluster.stop().await;
    // Refused for its path, once the key was accepted: no database is needed for that.
    let path = "/v1/tasks/not-an-id";
    for _ in 0..3 {
        assert_eq!(asked(&api.with_key(&known), Method::GET, path, None).await, (400, "invalid_path".into()));
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let (status, code) = asked(&api.with_key(&unknown), Method::GET, path, None).await;
    assert_eq!((status, code.as_str()), (503, "database_unavailable"));
}
