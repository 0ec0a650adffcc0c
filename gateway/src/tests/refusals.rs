//! What every operation of the document refuses before the database is asked. Operations that are added come in by themselves.

use super::*;
use serde_json::json;
use taskmaster_openapi::gateway::{GatewayApi, paths};
use taskmaster_openapi::limits;
use utoipa::OpenApi;

/// An operation of the document.
struct Operation {
    method: String,
    path: String,
    parameters: Vec<Value>,
    /// An example of its body.
    body: Option<Value>,
    /// Its whole numbers: the pointer of each, and how few it may be.
    whole_numbers: Vec<(String, u64)>,
}

fn operations() -> Vec<Operation> {
    let document = serde_json::to_value(GatewayApi::openapi()).unwrap();
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            // Who has no key, but a signature or a token, is refused for that first.
            if operation["security"].as_array().is_some_and(|ways| !ways.contains(&json!({}))) {
                continue;
            }
            let mut whole_numbers = Vec::new();
            let content = &operation["requestBody"]["content"]["application/json"];
            let schema =
                content["schema"]["$ref"].as_str().map(|name| &document.pointer(&name[1..]).unwrap()["example"]);
            let named = content["examples"].as_object().and_then(|named| named.values().next());
            if let Some(name) = content["schema"]["$ref"].as_str() {
                find_whole_numbers(&document, document.pointer(&name[1..]).unwrap(), "", &mut whole_numbers);
            }
            found.push(Operation {
                whole_numbers,
                method: method.to_uppercase(),
                path: path.clone(),
                parameters: operation["parameters"].as_array().cloned().unwrap_or_default(),
                body: named.map(|example| &example["value"]).or(schema).cloned(),
            });
        }
    }
    found
}

/// Those of an object, and of all objects in it.
fn find_whole_numbers(document: &Value, schema: &Value, at: &str, found: &mut Vec<(String, u64)>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let place = format!("{at}/{name}");
        if field["type"] == "integer" || field["type"][0] == "integer" {
            found.push((place.clone(), field["minimum"].as_u64().unwrap()));
        }
        if let Some(name) = field["$ref"].as_str().or(field["oneOf"][0]["$ref"].as_str()) {
            find_whole_numbers(document, document.pointer(&name[1..]).unwrap(), &place, found);
        }
    }
}

impl Operation {
    fn parameters(&self, place: &str) -> Vec<&Value> {
        self.parameters.iter().filter(|parameter| parameter["in"] == place).collect()
    }

    /// The path, with something in the place of every parameter.
    fn concrete(&self) -> String {
        self.parameters("path").iter().fold(self.path.clone(), |path, parameter| {
            let value = if parameter["schema"]["format"] == "uuid" { NIL } else { "k7f3m2q9x0ab" };
            path.replace(&format!("{{{}}}", parameter["name"].as_str().unwrap()), value)
        })
    }

    async fn ask(&self, gateway: &Gateway, path: &str, header: (&str, &str), body: impl Into<Body>) -> Answer {
        let request = request(&self.method, path).header(header.0, header.1);
        let typed = header.0 == "content-type" || self.body.is_none();
        let request = if typed { request } else { request.header("content-type", "application/json") };
        gateway.send(request.body(body.into()).unwrap()).await
    }

    async fn expect(&self, gateway: &Gateway, path: &str, header: (&str, &str), code: &str, name: &str) {
        let body = self.body.as_ref().map(Value::to_string).unwrap_or_default();
        let answer = self.ask(gateway, path, header, body).await;
        let found = (answer.code(), answer.json()["errors"][0]["pointer"].clone());
        assert_eq!(found, (code.to_owned(), json!(name)), "{} {path} with {header:?}: {}", self.method, answer.json());
    }
}

#[tokio::test]
async fn everything_that_needs_the_database_while_that_is_away() {
    let gateway = Gateway::new(Config::default());
    let without = [paths::SCHEDULES_PREVIEW, paths::WORKERS_SCALE, "/livez", "/readyz"];
    let operations = operations();
    let asked = operations.iter().filter(|operation| !without.contains(&operation.path.as_str()));
    let answers = asked.map(async |operation| {
        let body = operation.body.as_ref().map(Value::to_string).unwrap_or_default();
        (operation, operation.ask(&gateway, &operation.concrete(), NO_HEADER, body).await)
    });
    for (operation, answer) in futures::future::join_all(answers).await {
        let place = format!("{} {}", operation.method, operation.path);
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "database_unavailable"), "{place}");
        assert!(!answer.header("retry-after").is_empty(), "{place}");
    }
    let heartbeat = gateway.post("/v1/workers/w-1/heartbeat", "{}").await;
    assert_eq!(
        (heartbeat.code().as_str(), heartbeat.header("retry-after").is_empty()),
        ("database_unavailable", false)
    );
    assert_eq!(gateway.get("/livez").await.status, 200);
}

const NO_HEADER: (&str, &str) = ("x-nothing", "");

#[tokio::test]
async fn bodies_of_other_types_sizes_and_shapes() {
    let gateway = Gateway::new(Config::default());
    let json_type = ("content-type", "application/json");
    let large = vec![b' '; limits::BODY_BYTES_MAX + 1];
    let mut count = 0;
    for operation in operations().into_iter().filter(|operation| operation.body.is_some()) {
        let path = operation.concrete();
        // A batch may be larger; what it is refused for then is that there is nothing in it.
        let too_large = if operation.path == paths::TASKS_BATCH { "invalid_json" } else { "body_too_large" };
        for (header, body, code) in [
            (("content-type", "text/plain"), &b"{}"[..], "unsupported_media_type"),
            (json_type, b"{", "invalid_json"),
            (json_type, b"[]", "invalid_body"),
            (json_type, br#"{"no such field": null}"#, "invalid_body"),
            (json_type, &large, too_large),
        ] {
            let answer = operation.ask(&gateway, &path, header, body.to_vec()).await;
            let shown = String::from_utf8_lossy(&body[..body.len().min(50)]);
            assert_eq!(answer.code(), code, "{} {path} with {shown}: {}", operation.method, answer.json());
        }
        count += 1;
    }
    assert!(count > 15, "{count}");
}

#[tokio::test]
async fn parameters_that_are_unknown_too_long_or_no_ids() {
    let gateway = Gateway::new(Config::default());
    for operation in operations() {
        let path = operation.concrete();
        for parameter in operation.parameters("path").into_iter().filter(|one| one["schema"]["format"] == "uuid") {
            let name = parameter["name"].as_str().unwrap();
            let wrong = operation.path.replace(&format!("{{{name}}}"), "no-id").replace("{id}", NIL);
            let wrong = wrong.replace("{delivery_id}", NIL);
            operation.expect(&gateway, &wrong, NO_HEADER, "invalid_path", name).await;
        }
        if !operation.parameters("query").is_empty() {
            let wrong = format!("{path}?no_such_parameter=1");
            operation.expect(&gateway, &wrong, NO_HEADER, "invalid_query", "no_such_parameter").await;
        }
        for parameter in operation.parameters("header") {
            let (name, schema) = (parameter["name"].as_str().unwrap(), &parameter["schema"]);
            let too_long = match schema["maxLength"].as_u64() {
                Some(max) => "7".repeat(max as usize + 1),
                None => "no number".into(),
            };
            operation.expect(&gateway, &path, (name, &too_long), "invalid_header", name).await;
        }
    }
}

/// JSON Schema takes `3.0` for a whole number.
#[tokio::test]
async fn whole_numbers_may_be_written_with_a_point() {
    let gateway = &Gateway::new(Config::default());
    let operations = operations();
    let numbers = operations.iter().flat_map(|operation| {
        operation.whole_numbers.iter().map(move |(pointer, number)| (operation, pointer, *number as f64))
    });
    let asked = numbers.map(async |(operation, pointer, number)| {
        let names = pointer.rsplit('/').filter(|name| !name.is_empty());
        let body = names.fold(json!(number), |value, name| json!({name: value})).to_string();
        assert!(body.contains(".0}"), "{body}");
        let answer = operation.ask(gateway, &operation.concrete(), NO_HEADER, body).await;
        let found = answer.json()["errors"][0].clone();
        assert_ne!(found["pointer"], json!(pointer), "{} {}: {found}", operation.method, operation.path);
    });
    let count = futures::future::join_all(asked).await.len();
    assert!(count > 30, "{count}");
}

#[tokio::test]
async fn headers_are_as_long_as_the_documents_say() {
    let gateway = Gateway::new(Config::default());
    let longest = "x".repeat(limits::REQUEST_HEADER_CHARS_MAX);
    for name in ["prefer", "if-none-match"] {
        let asked = request("GET", &format!("/v1/tasks/{NIL}")).header(name, &longest).body(Body::empty()).unwrap();
        assert_eq!(gateway.send(asked).await.code(), "database_unavailable", "{name}");
    }
}
