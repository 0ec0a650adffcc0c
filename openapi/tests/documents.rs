//! The OpenAPI documents: the committed copies are current, every operation says how it fails, and everything is bounded.

// Clippy knows tests by their attribute only; helpers beside them fail a test in the same way.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use serde_json::Value;
use taskmaster_openapi::{Code, documents};

fn all() -> Vec<(&'static str, Value)> {
    documents::all().into_iter().map(|(name, document)| (name, serde_json::to_value(document).unwrap())).collect()
}

/// Every operation of every document: its name, and itself.
fn operations(documents: &[(&str, Value)]) -> Vec<(String, Value)> {
    let paths = documents.iter().flat_map(|(name, document)| {
        let paths = document["paths"].as_object().unwrap().iter();
        paths.map(move |(path, item)| (format!("{name} {path}"), item))
    });
    paths
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().iter();
            methods.map(move |(method, operation)| (format!("{path} {method}"), operation.clone()))
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
fn every_operation_has_a_name_of_its_own_and_says_how_it_fails() {
    let documents = all();
    let mut names = std::collections::BTreeSet::new();
    for (place, operation) in operations(&documents) {
        let document = place.split(' ').next().unwrap().to_owned();
        let name = operation["operationId"].as_str().unwrap_or_else(|| panic!("{place} has no operationId")).to_owned();
        assert!(names.insert((document, name.clone())), "{name} is there twice");
        assert!(operation["summary"].is_string(), "{place} has no summary");
        let responses = operation["responses"].as_object().unwrap();
        for class in ['4', '5'] {
            let failure = responses.iter().find(|(status, _)| status.starts_with(class));
            let (status, failure) =
                failure.unwrap_or_else(|| panic!("{place} does not say how it fails with {class}XX"));
            let content = failure["content"].as_object().unwrap_or_else(|| panic!("{place} {status} has no body"));
            // `/readyz` answers 503 with what it waits for: its status is its contract.
            let own = place.ends_with("/readyz get") && status == "503";
            assert!(own || content.contains_key("application/problem+json"), "{place} {status} is no problem document");
        }
    }
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

#[test]
fn every_string_list_and_number_is_bounded() {
    let mut unbounded = Vec::new();
    for (name, document) in all() {
        for (place, operation) in operations(&[(name, document.clone())]) {
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                check(&parameter["schema"], &format!("{place} {}", parameter["name"]), &mut unbounded);
            }
        }
        for (schema_name, schema) in document["components"]["schemas"].as_object().unwrap() {
            check(schema, &format!("{name} {schema_name}"), &mut unbounded);
        }
    }
    assert!(unbounded.is_empty(), "without bounds:\n{}", unbounded.join("\n"));
}

/// Notes each part of a schema that has no bounds.
fn check(schema: &Value, place: &str, unbounded: &mut Vec<String>) {
    let has = |keys: &[&str]| keys.iter().any(|key| schema.get(key).is_some());
    let is = |name: &str| match &schema["type"] {
        Value::String(one) => one == name,
        Value::Array(several) => several.iter().any(|one| one == name),
        _ => false,
    };
    let fixed = has(&["enum", "const", "$ref"]);
    let bounded = fixed
        || !((is("string") && !has(&["maxLength", "format", "pattern"]))
            || (is("array") && !has(&["maxItems"]))
            || (is("integer") && !has(&["minimum"]))
            || (is("number") && !has(&["minimum"])));
    if !bounded {
        unbounded.push(place.to_owned());
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        check(property, &format!("{place}.{name}"), unbounded);
    }
    for key in ["items", "additionalProperties"] {
        if schema[key].is_object() {
            check(&schema[key], &format!("{place} {key}"), unbounded);
        }
    }
    for key in ["oneOf", "anyOf", "allOf"] {
        for (i, part) in schema[key].as_array().into_iter().flatten().enumerate() {
            check(part, &format!("{place} {key} {i}"), unbounded);
        }
    }
}
