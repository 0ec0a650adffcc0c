use super::*;
use crate::router::Access;
use axum::body::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use serde_json::json;
use std::collections::BTreeSet;
use taskmaster_openapi::coordinator::CoordinatorApi;
use taskmaster_openapi::gateway::{GatewayApi, ScaleResponse};
use taskmaster_openapi::{Problem, documents, health, limits};
use utoipa::OpenApi;

fn documented() -> BTreeSet<(String, String)> {
    documents::operations(&GatewayApi::openapi()).into_iter().collect()
}

fn served(operations: Vec<crate::router::Operation>) -> BTreeSet<(String, String)> {
    operations.into_iter().map(|operation| (operation.method.to_string(), operation.path.to_owned())).collect()
}

#[test]
fn the_router_serves_what_the_document_says_no_more_and_no_less() {
    let mut public = served(crate::router::public());
    public.extend(served(crate::router::receiving()));
    public.extend([health::LIVEZ, health::READYZ].map(|path| ("GET".to_owned(), path.to_owned())));
    assert_eq!(public, documented());
}

#[test]
fn what_is_passed_on_is_the_coordinators_contract_but_for_its_list_of_workers() {
    let mut contract: BTreeSet<_> = documents::operations(&CoordinatorApi::openapi()).into_iter().collect();
    contract.retain(|(_, path)| path.starts_with("/v1/") && path != "/v1/workers");
    assert_eq!(served(crate::router::forwarded()), contract);

    // A stranger finds it from either document.
    let (gateway, coordinator) = (GatewayApi::openapi(), serde_json::to_value(CoordinatorApi::openapi()).unwrap());
    let told = gateway.info.description.unwrap();
    for (method, path) in &contract {
        let name = coordinator["paths"][path][method.to_lowercase()]["operationId"].as_str().unwrap();
        assert!(told.contains(&format!("`{name}`")), "gateway.json does not say that {name} is passed on");
    }
    assert!(told.contains(taskmaster_openapi::coordinator::paths::DOCUMENT));
    assert_eq!(coordinator["servers"][0]["url"], "/");
    assert!(coordinator["servers"][0]["description"].as_str().unwrap().contains("gateway"));
}

#[test]
fn every_operation_of_the_document_names_the_scope_that_the_router_wants() {
    let document = serde_json::to_value(GatewayApi::openapi()).unwrap();
    for operation in crate::router::public() {
        let Access::Key(scope) = operation.access else { panic!("{} is public, and has no scope", operation.path) };
        let documented = &document["paths"][operation.path][operation.method.as_str().to_lowercase()];
        let security = json!([{}, {"api_key": [scope.as_str()]}]);
        assert_eq!(documented["security"], security, "{} {}", operation.method, operation.path);
        for status in ["401", "403"] {
            assert!(documented["responses"][status].is_object(), "{} {} {status}", operation.method, operation.path);
        }
    }
    assert!(crate::router::forwarded().iter().all(|operation| operation.access == Access::Worker));
    for operation in crate::router::receiving() {
        assert_eq!(operation.access, Access::Token);
        let documented = &document["paths"][operation.path][operation.method.as_str().to_lowercase()];
        let scheme = if operation.path.starts_with("/v1/attempts") { "attempt_token" } else { "hook_signature" };
        assert_eq!(documented["security"], json!([{scheme: []}]), "{}", operation.path);
    }
}

#[tokio::test]
async fn where_targets_cannot_call_back_nobody_creates_tasks_that_want_it() {
    let listen = "0.0.0.0:8081".parse().unwrap();
    let unreached =
        Gateway::new(Config { listen, api_key: vec![taskmaster_service::Secret::new("k")], ..Config::default() });
    let task = json!({"http": {"url": "http://127.0.0.1:9/", "completion": "callback"}});
    let schedule = json!({"cron": "@daily", "task": task});
    for (path, body, pointer) in [
        ("/v1/tasks", task.clone(), "/http/completion"),
        ("/v1/tasks/batch", json!({"tasks": [{"command": "x"}, task]}), "/tasks/1/http/completion"),
        ("/v1/schedules", schedule, "/task/http/completion"),
    ] {
        let asked =
            request("POST", path).header("content-type", "application/json").header("authorization", "Bearer k");
        let answer = unreached.send(asked.body(body.to_string().into()).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (422, "validation_failed"), "{path}");
        let error = &answer.json()["errors"][0];
        assert_eq!(error["pointer"], pointer);
        assert!(error["detail"].as_str().unwrap().contains("TASKMASTER_PUBLIC_URL"));
    }
    let reached = Gateway::new(Config::default());
    let created = reached
        .post("/v1/tasks", json!({"http": {"url": "http://127.0.0.1:9/", "completion": "callback"}}).to_string());
    assert_eq!(created.await.code(), "database_unavailable");
}

#[tokio::test]
async fn every_operation_is_reached_and_other_methods_are_refused_with_allow() {
    let gateway = Gateway::new(Config::default());
    let operations: BTreeSet<_> = documented().into_iter().chain(served(crate::router::forwarded())).collect();
    let paths: BTreeSet<&String> = operations.iter().map(|(_, path)| path).collect();
    let tries =
        paths.into_iter().flat_map(|path| ["GET", "POST", "DELETE", "PUT", "PATCH"].map(|method| (method, path)));
    join_all(tries.map(async |(method, path)| {
        let allowed: Vec<&str> = operations.iter().filter(|(_, p)| p == path).map(|(m, _)| m.as_str()).collect();
        let concrete = path
            .replace("{id}", NIL)
            .replace("{delivery_id}", NIL)
            .replace("{worker_id}", "w-1")
            .replace("{queue}", "mail");
        let answer = gateway.send(request(method, &concrete).body(Body::empty()).unwrap()).await;
        let refused = answer.status == StatusCode::METHOD_NOT_ALLOWED;
        assert_eq!(refused, !allowed.contains(&method), "{method} {concrete}: {}", answer.status);
        if refused {
            assert_eq!(answer.code(), "method_not_allowed");
            assert!(allowed.iter().all(|method| answer.header("allow").contains(method)), "{method} {concrete}");
        } else {
            assert_ne!(answer.status, StatusCode::NOT_FOUND, "{method} {concrete}");
        }
    }))
    .await;
}

#[tokio::test]
async fn bodies_are_refused_by_type_size_and_shape_before_the_database_is_asked() {
    let gateway = Gateway::new(Config::default());
    let plain = request("POST", "/v1/tasks").header("content-type", "text/plain").body("{}".into()).unwrap();
    assert_eq!(gateway.send(plain).await.code(), "unsupported_media_type");
    let no_type = request("POST", "/v1/tasks/batch").body("{}".into()).unwrap();
    assert_eq!(gateway.send(no_type).await.code(), "unsupported_media_type");
    let large = vec![b' '; limits::BODY_BYTES_MAX + 1];
    assert_eq!(gateway.post("/v1/tasks", large.clone()).await.code(), "body_too_large");
    // Without a length, and larger than a single task may be: the batch reads it, and finds no JSON.
    let chunks = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(large))]);
    assert_eq!(gateway.post("/v1/tasks/batch", Body::from_stream(chunks)).await.code(), "invalid_json");
    assert_eq!(gateway.post("/v1/tasks", "{").await.code(), "invalid_json");
    let wrong = gateway.post("/v1/tasks", r#"{"command":"x","scheduled_at":"soon"}"#).await;
    assert_eq!(
        (wrong.code().as_str(), &wrong.json()["errors"][0]["pointer"]),
        ("invalid_body", &json!("/scheduled_at"))
    );
    let batch = gateway.post("/v1/tasks/batch", r#"{"tasks":[{"command":"x"},{"http":{"url":"x"}}]}"#).await;
    assert_eq!(batch.json()["errors"][0]["pointer"], "/tasks/1/http/url");
    assert_eq!((batch.status.as_u16(), batch.code().as_str()), (422, "validation_failed"));
}

#[tokio::test]
async fn wrong_parameters_are_refused_with_their_codes() {
    let gateway = Gateway::new(Config::default());
    for (path, status, code) in [
        ("/v1/tasks/no-id", 400, "invalid_path"),
        ("/v1/tasks?colour=red", 400, "invalid_query"),
        ("/v1/tasks?page_size=0", 400, "invalid_query"),
        ("/v1/tasks?page_token=x", 400, "invalid_page_token"),
        ("/v1/events?types=task.done", 400, "invalid_query"),
        ("/v1/events?colour=red", 400, "invalid_query"),
        ("/v1/events?task_id=x", 400, "invalid_query"),
        ("/v1/nothing", 404, "not_found"),
        ("/v2/tasks", 404, "not_found"),
        ("/nothing", 404, "not_found"),
    ] {
        let answer = gateway.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{path}");
    }
    assert_eq!(gateway.post("/v1/workers/a%20b/drain", "").await.code(), "worker_not_found");
    assert_eq!(gateway.post("/v1/workers/a%20b/heartbeat", "{}").await.code(), "invalid_path");
}

struct Recorder;

impl Scaler for Recorder {
    fn scale<'a>(&'a self, workers: usize) -> BoxFuture<'a, Result<ScaleResponse, Problem>> {
        async move { Ok(ScaleResponse { previous: 1, workers: workers as i64 }) }.boxed()
    }
}

#[tokio::test]
async fn scaling_is_done_where_it_can_be_and_explained_where_not() {
    let gateway = Gateway::new(Config::default());
    let answer = gateway.post("/v1/workers/scale", r#"{"workers":3}"#).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (501, "scaling_unsupported"));
    assert!(answer.json()["detail"].as_str().unwrap().contains("docker compose up --scale worker=N"));
    let gateway = Gateway::with_scaler(Config::default(), Some(Arc::new(Recorder)));
    let answer = gateway.post("/v1/workers/scale", r#"{"workers":3}"#).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"previous": 1, "workers": 3})));
    for wrong in ["-1", "201"] {
        let answer = gateway.post("/v1/workers/scale", format!(r#"{{"workers":{wrong}}}"#)).await;
        assert_eq!(
            (answer.code().as_str(), &answer.json()["errors"][0]["pointer"]),
            ("validation_failed", &json!("/workers"))
        );
    }
}

#[tokio::test]
async fn the_documentation_is_served_whole_from_this_origin() {
    let gateway = Gateway::with_keys(&["key"]);
    for (from, to) in [("/", "/docs"), ("/docs", "/docs/")] {
        let answer = gateway.get(from).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (302, to));
    }
    let page = gateway.get("/docs/").await;
    assert!(page.status.is_success() && page.header("content-type").starts_with("text/html"));
    assert!(page.header("content-security-policy").contains("script-src 'self'"));
    let html = String::from_utf8(page.body).unwrap();
    assert!(!html.contains("http://") && !html.contains("https://") && !html.contains("<script>"), "{html}");
    assert!(html.contains(r#""keys_required":true"#), "{html}");
    let named = html.split(['"']).filter(|word| [".css", ".js", ".png"].iter().any(|end| word.ends_with(end)));
    let named: Vec<&str> = named.collect();
    assert!(named.len() >= 5, "{named:?}");
    for file in named {
        assert_eq!(gateway.get(format!("/docs/{file}")).await.status, 200, "{file}");
    }
    for other in ["nothing.js", "swagger-initializer.js", "../docs.rs"] {
        assert_eq!(gateway.get(format!("/docs/{other}")).await.code(), "not_found", "{other}");
    }
    let places: Vec<usize> = ["gateway", "coordinator", "worker"]
        .iter()
        .map(|name| html.find(&format!("/openapi/v1/{name}.json")).unwrap_or_else(|| panic!("{name}: {html}")))
        .collect();
    assert!(places.is_sorted(), "the gateway's document comes first");
    for (name, document) in documents::all() {
        let answer = gateway.get(format!("/openapi/v1/{name}")).await;
        assert_eq!(answer.json(), serde_json::to_value(&document).unwrap());
    }
}
