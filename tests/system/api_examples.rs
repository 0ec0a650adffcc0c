//! Every example of a request in `openapi/v1/gateway.json` does what it shows.

use reqwest::Method;
use serde_json::{Value, json};
use taskmaster_openapi::documents;

use crate::support::{Api, Up};

/// One request as the document shows it.
struct Shown {
    operation: String,
    method: Method,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    body: Option<Value>,
    /// The statuses of success that are documented.
    successes: Vec<String>,
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Every request of the document: each example of a body, and without a body one; the first one with its headers.
fn shown(document: &Value) -> Vec<Shown> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            for (i, body) in bodies(document, operation).into_iter().enumerate() {
                let examples = |place: &str| -> Vec<(String, String)> {
                    let parameters = items(&operation["parameters"]);
                    let shown = parameters.filter(|one| one["in"] == place && one.get("example").is_some());
                    shown.map(|one| (text(&one["name"]), text(&one["example"]))).collect()
                };
                let query = examples("query").iter().map(|(name, value)| format!("{name}={value}&")).collect();
                let successes = operation["responses"].as_object().unwrap().keys().filter(|s| s.starts_with('2'));
                found.push(Shown {
                    operation: text(&operation["operationId"]),
                    method: method.to_uppercase().parse().unwrap(),
                    path: path.clone(),
                    query,
                    headers: if i == 0 { examples("header") } else { Vec::new() },
                    body,
                    successes: successes.cloned().collect(),
                });
            }
        }
    }
    found
}

/// The examples of an operation's body: those with names, else that of its schema; without a body one that is none.
fn bodies(document: &Value, operation: &Value) -> Vec<Option<Value>> {
    let content = &operation["requestBody"]["content"]["application/json"];
    if let Some(named) = content["examples"].as_object() {
        return named.values().map(|example| Some(example["value"].clone())).collect();
    }
    let Some(reference) = content["schema"]["$ref"].as_str() else { return vec![None] };
    let schema = document.pointer(reference.trim_start_matches('#')).unwrap();
    vec![Some(schema["example"].clone())]
}

/// The id of what the API has made of this.
async fn made(api: &Api, path: &str, body: Value) -> String {
    text(&api.post(path, &body).await.json()["id"])
}

/// The path, with the id of something that the operation can be done to.
async fn path_of(api: &Api, shown: &Shown) -> String {
    let path = shown.path.as_str();
    if path.starts_with("/v1/url-workers/") {
        let worker =
            json!({"url": "http://127.0.0.1:9/", "queues": ["functions"], "push_secret": "a-secret-of-this-test"});
        let path = path.replace("{worker_id}", "function");
        assert!(api.send(Method::PUT, &path, Some(&worker), &[]).await.status.is_success());
        return path;
    }
    if path.contains("{worker_id}") {
        return path.replace("{worker_id}", &api.worker_ids().await[0]);
    }
    if path.contains("{queue}") {
        api.create(json!({"command": "true", "queue": "shown"})).await;
        return path.replace("{queue}", "shown");
    }
    let id = match path {
        _ if !path.contains("{id}") => String::new(),
        "/v1/keys/{id}" | "/v1/keys/{id}/rotate" => {
            made(api, "/v1/keys", json!({"name": "of a test", "scopes": ["tasks:read"]})).await
        }
        _ if path.starts_with("/v1/schedules") => {
            made(api, "/v1/schedules", json!({"cron": "@daily", "task": {"command": "true"}})).await
        }
        _ if path.starts_with("/v1/hooks") => {
            let hook = json!({"verification": "secret_url", "task": {"command": "true"}});
            let made = api.post("/v1/hooks", &hook).await.json();
            let token = format!("?token={}", text(&made["secret"]));
            let query = if shown.operation == "receiveHook" { token.as_str() } else { "" };
            return format!("{}{query}", path.replace("{id}", &text(&made["id"])));
        }
        _ if path.starts_with("/v1/webhooks") => {
            let hook = json!({"url": "https://example.com/hooks", "events": ["task.failed"]});
            made(api, "/v1/webhooks", hook).await
        }
        _ => {
            // What can be cancelled has not ended; what is waited for ends.
            let delay_seconds = if ["cancelTask", "retryTask"].contains(&shown.operation.as_str()) { 3600 } else { 0 };
            let task = api.create(json!({"command": "true", "delay_seconds": delay_seconds})).await;
            if shown.operation == "retryTask" {
                api.cancel(task.id).await;
            }
            task.id.to_string()
        }
    };
    let path = path.replace("{id}", &id);
    if !path.contains("{delivery_id}") {
        return path;
    }
    let test: Value = api.send(Method::POST, &format!("/v1/webhooks/{id}/test"), None, &[]).await.json();
    path.replace("{delivery_id}", &text(&test["id"]))
}

#[tokio::test]
async fn every_example_of_a_request_is_answered_as_documented() {
    let up = Up::start(&["--ephemeral", "--simulate", "0"]).await;
    let (_, document) = documents::all().into_iter().find(|(name, _)| *name == "gateway.json").unwrap();
    let document = serde_json::to_value(document).unwrap();
    let all = shown(&document);
    assert!(all.len() >= 25 && all.iter().filter(|shown| shown.operation == "createTask").count() >= 5);
    for shown in &all {
        if shown.operation == "streamEvents" {
            // Has no end; that it begins is asserted here.
            up.api.events(&shown.query).await;
            continue;
        }
        if shown.operation == "reportAttempt" {
            // Its token is a target's: see `http_tasks`.
            let path = format!("{}?{}", shown.path, shown.query);
            assert_eq!(up.api.post(&path, shown.body.as_ref().unwrap()).await.status.as_u16(), 401);
            continue;
        }
        let path = path_of(&up.api, shown).await;
        let path = format!("{path}{}{}", if path.contains('?') { '&' } else { '?' }, shown.query);
        let headers: Vec<(&str, &str)> = shown.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let reply = up.api.send(shown.method.clone(), &path, shown.body.as_ref(), &headers).await;
        let status = reply.status.as_u16().to_string();
        assert!(shown.successes.contains(&status), "{} {:?}: {status} {}", shown.operation, shown.body, reply.text);
    }
}
