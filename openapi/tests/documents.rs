//! The OpenAPI documents: the committed copies are current, every operation says how it fails, everything is bounded, and every
//! example is one.

// Clippy knows tests by their attribute only; helpers beside them fail a test in the same way.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};
use taskmaster_openapi::{Code, documents, limits};

fn all() -> Vec<(&'static str, Value)> {
    documents::all().into_iter().map(|(name, document)| (name, serde_json::to_value(document).unwrap())).collect()
}

/// The fields of an object; none of anything else.
fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// What a reference leads to; anything else is itself.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let pointer = value["$ref"].as_str().map(|reference| reference.trim_start_matches('#'));
    pointer.map_or(value, |pointer| document.pointer(pointer).unwrap_or_else(|| panic!("{pointer} leads nowhere")))
}

/// Every operation of every document: its name, and itself.
fn operations(documents: &[(&str, Value)]) -> Vec<(String, Value)> {
    let paths = documents.iter().flat_map(|(name, document)| {
        fields(&document["paths"]).map(move |(path, item)| (format!("{name} {path}"), item))
    });
    paths
        .flat_map(|(path, item)| {
            fields(item).map(move |(method, operation)| (format!("{path} {method}"), operation.clone()))
        })
        .collect()
}

#[test]
fn the_committed_documents_are_current() {
    for (name, document) in documents::all() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("v1").join(name);
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        let current = documents::to_json(&document).unwrap();
        assert!(committed == current, "{} is stale: `cargo run -- openapi --write` writes it anew", path.display());
    }
}

#[test]
fn every_operation_is_described() {
    for (name, document) in all() {
        let tags: BTreeSet<&str> = items(&document["tags"])
            .inspect(|tag| assert!(tag["description"].is_string(), "{name}: the tag {tag} says nothing"))
            .filter_map(|tag| tag["name"].as_str())
            .collect();
        let mut names = BTreeSet::new();
        for (place, operation) in operations(&[(name, document.clone())]) {
            let id =
                operation["operationId"].as_str().unwrap_or_else(|| panic!("{place} has no operationId")).to_owned();
            assert!(names.insert(id.clone()), "{id} is there twice");
            assert!(operation["summary"].is_string(), "{place} has no summary");
            let tag = operation["tags"][0].as_str().unwrap_or_default();
            assert!(tags.contains(tag), "{place}: the tag {tag:?} has no text");
            for parameter in items(&operation["parameters"]) {
                let text = parameter["description"].as_str().unwrap_or_default();
                assert!(!text.is_empty(), "{place}: {} says nothing", parameter["name"]);
            }
        }
    }
}

#[test]
fn every_operation_says_by_which_codes_it_fails() {
    let mut seen = BTreeSet::new();
    let documents = all();
    for (place, operation) in operations(&documents) {
        let (_, document) = documents.iter().find(|(name, _)| place.starts_with(name)).unwrap();
        let failures = fields(&operation["responses"]).filter(|(status, _)| status.starts_with(['4', '5']));
        let failures: BTreeMap<&String, &Value> = failures.collect();
        for class in ['4', '5'] {
            assert!(failures.keys().any(|status| status.starts_with(class)), "{place} never fails with {class}XX");
        }
        // Health has no codes: its status is its contract.
        if operation["tags"][0] == "health" {
            continue;
        }
        for (status, failure) in failures {
            let content = &failure["content"]["application/problem+json"];
            let mut count = 0;
            for (code, example) in fields(&content["examples"]) {
                let example = &resolved(document, example)["value"];
                assert_eq!(&example["status"].to_string(), status, "{place} {status}: {code}");
                assert!(failure["description"].as_str().unwrap().contains(&format!("`{code}`")), "{place} {status}");
                seen.insert(code.clone());
                count += 1;
            }
            assert!(count > 0, "{place} {status} has no codes");
        }
    }
    // Those that no operation answers, but paths that are none, and methods that are none of a path's.
    seen.extend(["not_found".to_owned(), "method_not_allowed".to_owned()]);
    let missing: Vec<String> = Code::ALL.iter().map(|code| code.as_str()).filter(|code| !seen.contains(code)).collect();
    assert!(missing.is_empty(), "no operation is documented to answer {missing:?}");
}

#[test]
fn every_code_is_documented() {
    for (name, document) in all() {
        let documented = &document["components"]["schemas"]["Code"];
        let text = documented.to_string();
        for code in Code::ALL {
            assert!(text.contains(&format!("\"{}\"", code.as_str())), "{name} does not have {}", code.as_str());
        }
    }
}

/// Every schema of a document that stands by itself, with its place: those with names, and those of parameters, headers and bodies.
fn schemas(document: &Value) -> Vec<(String, &Value)> {
    let named = fields(&document["components"]["schemas"]).map(|(name, schema)| (name.clone(), schema));
    let mut found: Vec<(String, &Value)> = named.collect();
    for (path, item) in fields(&document["paths"]) {
        for (method, operation) in fields(item) {
            let place = format!("{method} {path}");
            for parameter in items(&operation["parameters"]) {
                found.push((format!("{place} {}", parameter["name"]), &parameter["schema"]));
            }
            let answers = fields(&operation["responses"]).map(|(status, answer)| (status.as_str(), answer));
            for (status, answer) in answers.chain([("body", &operation["requestBody"])]) {
                for (name, header) in fields(&answer["headers"]) {
                    found.push((format!("{place} {status} {name}"), &resolved(document, header)["schema"]));
                }
                for (media_type, content) in fields(&answer["content"]) {
                    found.push((format!("{place} {status} {media_type}"), &content["schema"]));
                }
            }
        }
    }
    found
}

/// The schema and all in it, with their places.
fn parts(place: String, schema: &Value, found: &mut Vec<(String, Value)>) {
    found.push((place.clone(), schema.clone()));
    for (name, property) in fields(&schema["properties"]) {
        parts(format!("{place}.{name}"), property, found);
    }
    for key in ["items", "additionalProperties", "propertyNames"] {
        if schema[key].is_object() {
            parts(format!("{place} {key}"), &schema[key], found);
        }
    }
    for key in ["oneOf", "anyOf", "allOf"] {
        // Rules between fields say nothing of their types: those stand beside.
        let typed =
            |part: &&Value| part.get("type").is_some() || part.get("$ref").is_some() || part.get("oneOf").is_some();
        for (i, part) in items(&schema[key]).filter(typed).enumerate() {
            parts(format!("{place} {key} {i}"), part, found);
        }
    }
}

fn is_bounded(schema: &Value) -> bool {
    let has = |keys: &[&str]| keys.iter().all(|key| schema.get(key).is_some());
    let is = |name: &str| match &schema["type"] {
        Value::String(one) => one == name,
        Value::Array(several) => several.iter().any(|one| one == name),
        _ => false,
    };
    let is_map = is("object") && schema["additionalProperties"].is_object();
    let is_typed =
        ["type", "$ref", "enum", "const", "oneOf", "anyOf", "allOf"].iter().any(|key| schema.get(key).is_some());
    has(&["enum"])
        || has(&["const"])
        || (is_typed
            && (!is("string") || has(&["maxLength"]))
            && (!is("array") || has(&["maxItems"]))
            && (!(is("integer") || is("number")) || has(&["minimum", "maximum"]))
            && (!is_map || has(&["maxProperties", "propertyNames"])))
}

#[test]
fn every_string_list_map_and_number_is_bounded() {
    let mut unbounded = Vec::new();
    for (name, document) in all() {
        let mut found = Vec::new();
        for (place, schema) in schemas(&document) {
            parts(format!("{name} {place}"), schema, &mut found);
        }
        unbounded.extend(found.into_iter().filter(|(_, schema)| !is_bounded(schema)).map(|(place, _)| place));
    }
    assert!(unbounded.is_empty(), "without bounds:\n{}", unbounded.join("\n"));
}

#[test]
fn a_part_without_a_bound_is_found() {
    for fine in [json!({"type": "string", "maxLength": 1}), json!({"type": "boolean"}), json!({"$ref": "#/x"})] {
        assert!(is_bounded(&fine), "{fine}");
    }
    for wrong in [
        json!({"type": ["string", "null"], "format": "uuid"}),
        json!({"type": "array", "items": {"type": "boolean"}}),
        json!({"type": "integer", "minimum": 0}),
        json!({"type": "object", "additionalProperties": {"type": "boolean"}, "maxProperties": 1}),
        json!({}),
    ] {
        assert!(!is_bounded(&wrong), "{wrong}");
    }
}

/// Attributes take literals only: that these are what the code checks by is said here.
#[test]
fn the_bounds_of_the_documents_are_those_of_the_code() {
    let documents: BTreeMap<&str, Value> = all().into_iter().collect();
    let seconds = |seconds: f64| seconds as usize;
    let whole = |number: i64| usize::try_from(number).unwrap();
    let table: [(&str, &str, usize); 60] = [
        ("gateway", "/NewTaskBatch/properties/tasks/maxItems", limits::BATCH_TASKS_MAX),
        ("gateway", "/NewTask/properties/command/maxLength", limits::COMMAND_BYTES_MAX),
        ("gateway", "/NewTask/properties/argv/maxItems", limits::ARGV_MAX),
        ("gateway", "/NewTask/properties/delay_seconds/maximum", seconds(limits::DELAY_SECONDS_MAX)),
        ("gateway", "/NewTask/properties/queue/maxLength", limits::QUEUE_NAME_CHARS_MAX),
        ("gateway", "/NewTask/properties/requires/maxProperties", limits::REQUIRES_MAX),
        ("gateway", "/NewTask/properties/flow_key/maxLength", limits::FLOW_KEY_CHARS_MAX),
        ("gateway", "/QueueSettings/properties/concurrency/maximum", whole(limits::CONCURRENCY_MAX)),
        ("gateway", "/Rate/properties/count/maximum", whole(limits::RATE_COUNT_MAX)),
        ("gateway", "/Rate/properties/period_seconds/maximum", whole(limits::RATE_SECONDS_MAX)),
        ("gateway", "/PurgeResponse/properties/matched/maximum", whole(limits::PURGE_MAX)),
        ("gateway", "/NewTask/properties/priority/maximum", whole(limits::PRIORITY_MAX)),
        ("gateway", "/NewTask/properties/max_attempts/maximum", whole(limits::ATTEMPTS_MAX)),
        ("gateway", "/NewTask/properties/max_attempts/default", whole(limits::ATTEMPTS_DEFAULT)),
        ("gateway", "/NewTask/properties/timeout_seconds/maximum", whole(limits::TIMEOUT_SECONDS_MAX)),
        ("gateway", "/NewTask/properties/timeout_seconds/default", whole(limits::TIMEOUT_SECONDS_DEFAULT)),
        ("gateway", "/NewTask/properties/tags/maxItems", limits::TAGS_MAX),
        ("gateway", "/Argument/maxLength", limits::COMMAND_BYTES_MAX),
        ("gateway", "/HeaderText/maxLength", limits::HEADER_VALUE_BYTES_MAX),
        ("gateway", "/ReceivedHeader/maxLength", limits::HEADER_VALUE_BYTES_MAX),
        ("gateway", "/Tag/maxLength", limits::TAG_CHARS_MAX),
        ("gateway", "/QueueName/maxLength", limits::QUEUE_NAME_CHARS_MAX),
        ("gateway", "/LabelText/maxLength", limits::LABEL_CHARS_MAX),
        ("gateway", "/DelaySeconds/maximum", seconds(limits::RETRY_SECONDS_MAX)),
        ("gateway", "/RetryPolicy/properties/max_seconds/maximum", seconds(limits::RETRY_SECONDS_MAX)),
        ("gateway", "/HttpWork/properties/url/maxLength", limits::URL_BYTES_MAX),
        ("gateway", "/HttpWork/properties/body/maxLength", limits::BODY_BYTES_MAX),
        ("gateway", "/HttpWork/properties/body_base64/maxLength", limits::BODY_BYTES_MAX),
        ("gateway", "/TaskResult/properties/stdout/maxLength", limits::OUTPUT_BYTES_MAX),
        ("gateway", "/TaskResult/properties/body_base64/maxLength", limits::OUTPUT_BASE64_CHARS_MAX),
        ("gateway", "/TaskError/properties/message/maxLength", limits::ERROR_MESSAGE_CHARS_MAX),
        ("gateway", "/TaskList/properties/tasks/maxItems", whole(limits::PAGE_SIZE_MAX)),
        ("gateway", "/TaskList/properties/next_page_token/maxLength", limits::PAGE_TOKEN_CHARS_MAX),
        ("gateway", "/BulkResponse/properties/changed/maximum", whole(limits::BULK_TASKS_MAX)),
        ("gateway", "/Stats/properties/queues/maxItems", limits::QUEUES_MAX),
        ("gateway", "/Stats/properties/unserved/maxItems", limits::UNSERVED_MAX),
        ("gateway", "/UrlWorkerList/properties/url_workers/maxItems", whole(limits::URL_WORKERS_MAX)),
        ("gateway", "/NewUrlWorker/properties/url/maxLength", limits::ADDRESS_CHARS_MAX),
        ("gateway", "/NewUrlWorker/properties/queues/maxItems", limits::SERVED_QUEUES_MAX),
        ("gateway", "/ScaleRequest/properties/workers/maximum", whole(limits::SCALE_WORKERS_MAX)),
        ("gateway", "/NewKey/properties/name/maxLength", limits::KEY_NAME_CHARS_MAX),
        ("gateway", "/NewKey/properties/expires_in_seconds/maximum", whole(limits::KEY_SECONDS_MAX)),
        ("gateway", "/RotateKeyRequest/properties/overlap_seconds/maximum", whole(limits::KEY_OVERLAP_SECONDS_MAX)),
        ("gateway", "/RotateKeyRequest/properties/overlap_seconds/default", whole(limits::KEY_OVERLAP_SECONDS_DEFAULT)),
        ("gateway", "/Problem/properties/errors/maxItems", limits::PROBLEM_ERRORS_MAX),
        ("gateway", "/Problem/properties/detail/maxLength", limits::PROBLEM_DETAIL_CHARS_MAX),
        ("gateway", "/FieldError/properties/pointer/maxLength", limits::POINTER_CHARS_MAX),
        ("gateway", "/Event/properties/id/maximum", whole(limits::INTEGER_MAX)),
        ("coordinator", "/HeartbeatRequest/properties/slots/maximum", whole(limits::SLOTS_MAX)),
        ("coordinator", "/HeartbeatRequest/properties/held/maxItems", limits::HELD_TASKS_MAX),
        ("coordinator", "/HeartbeatRequest/properties/address/maxLength", limits::ADDRESS_CHARS_MAX),
        ("coordinator", "/HeartbeatRequest/properties/push_secret/maxLength", *limits::PUSH_SECRET_CHARS.end()),
        ("coordinator", "/HeartbeatRequest/properties/push_secret/minLength", *limits::PUSH_SECRET_CHARS.start()),
        ("coordinator", "/Abilities/properties/queues/maxItems", limits::SERVED_QUEUES_MAX),
        ("coordinator", "/UpdateTaskStatusRequest/properties/reports/maxItems", limits::REPORTS_MAX),
        ("coordinator", "/StatusReport/properties/started_ms_ago/maximum", whole(limits::MILLISECONDS_MAX)),
        ("coordinator", "/TaskClaim/properties/claim/maximum", whole(limits::INTEGER_MAX)),
        ("worker", "/SubmitTaskRequest/properties/tasks/maxItems", limits::REPORTS_MAX),
        ("worker", "/SubmitTaskRequest/properties/worker_id/maxLength", limits::WORKER_ID_CHARS_MAX),
        ("worker", "/ReleaseRequest/properties/tasks/maxItems", limits::HELD_TASKS_MAX),
    ];
    for (document, pointer, bound) in table {
        let schemas = &documents[format!("{document}.json").as_str()]["components"]["schemas"];
        let written = schemas.pointer(pointer).unwrap_or_else(|| panic!("{document} has no {pointer}"));
        assert_eq!(written.as_f64(), Some(bound as f64), "{document} {pointer}");
    }
}

/// What is wrong with the value by the schema.
fn wrong(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut root = schema.clone();
    root["components"] = document["components"].clone();
    let validator = jsonschema::draft202012::options().should_validate_formats(true).build(&root).unwrap();
    validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn every_example_holds_by_its_schema() {
    let mut count = 0;
    for (name, document) in all() {
        let mut check = |place: &str, schema: &Value, example: &Value| {
            count += 1;
            let wrong = wrong(&document, schema, example);
            assert!(wrong.is_empty(), "{name} {place}: {wrong:?} in {example}");
        };
        let mut found = Vec::new();
        for (place, schema) in schemas(&document) {
            parts(place, schema, &mut found);
        }
        for (place, schema) in found {
            if let Some(example) = schema.get("example") {
                check(&place, &schema, example);
            }
        }
        for (place, operation) in operations(&[(name, document.clone())]) {
            for parameter in items(&operation["parameters"]).filter(|parameter| parameter.get("example").is_some()) {
                check(&format!("{place} {}", parameter["name"]), &parameter["schema"], &parameter["example"]);
            }
            let bodies = fields(&operation["responses"]).map(|(_, answer)| answer).chain([&operation["requestBody"]]);
            for (media_type, content) in bodies.flat_map(|body| fields(&body["content"])) {
                let named = fields(&content["examples"]).map(|(_, example)| &resolved(&document, example)["value"]);
                for example in named.chain(content.get("example")) {
                    check(&format!("{place} {media_type}"), &content["schema"], example);
                }
            }
        }
    }
    assert!(count > 300, "only {count} examples were found");
}

#[test]
fn every_body_has_an_example() {
    for (name, document) in all() {
        for (place, operation) in operations(&[(name, document.clone())]) {
            let answers = fields(&operation["responses"]).map(|(_, answer)| answer);
            for (media_type, content) in
                answers.chain([&operation["requestBody"]]).flat_map(|body| fields(&body["content"]))
            {
                let schema = resolved(&document, &content["schema"]);
                let has = schema.get("example").is_some() || content.get("examples").is_some();
                assert!(has, "{place}: {media_type} has no example");
            }
        }
    }
}
