//! What the OpenAPI document says of each operation, as far as a request and its checks need it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

const METHODS: [&str; 7] = ["get", "put", "post", "delete", "patch", "head", "options"];

/// The document: its operations by their ids.
pub(super) struct Document {
    pub title: String,
    pub description: String,
    /// What each tag says of itself.
    pub tags: BTreeMap<String, String>,
    pub operations: BTreeMap<String, Operation>,
}

#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub id: String,
    pub tag: String,
    pub method: String,
    pub path: String,
    pub summary: String,
    /// Summary and description.
    pub description: String,
    /// An API key may be asked for.
    pub secured: bool,
    pub parameters: Vec<Parameter>,
    /// An example of the body.
    pub example: Option<Value>,
    /// What may be answered, by status or class (`4XX`).
    pub answers: BTreeMap<String, Answer>,
}

#[derive(Debug, Clone)]
pub(super) struct Parameter {
    pub name: String,
    /// `path`, `query` or `header`.
    pub place: String,
    pub description: Option<String>,
    pub example: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub media_type: Option<String>,
    /// The fields that the body always has.
    pub required: Vec<String>,
    /// What a body looks like.
    pub example: Option<Value>,
}

impl Document {
    pub fn read(document: &Value) -> Self {
        let paths = document["paths"].as_object().into_iter().flatten();
        let operations = paths.flat_map(|(path, item)| {
            let present = METHODS.iter().filter(|method| item.get(**method).is_some());
            present.map(move |method| Operation::read(document, path, method, &item[*method]))
        });
        let tags = list(&document["tags"]).map(|tag| (text(&tag["name"]), text(&tag["description"])));
        Self {
            tags: tags.collect(),
            title: text(&document["info"]["title"]),
            description: text(&document["info"]["description"]),
            operations: operations.map(|operation| (operation.id.clone(), operation)).collect(),
        }
    }

    pub fn operation(&self, id: impl AsRef<str>) -> Option<&Operation> {
        self.operations.get(id.as_ref())
    }
}

impl Operation {
    fn read(document: &Value, path: &str, method: &str, operation: &Value) -> Self {
        let summary = text(&operation["summary"]);
        let description = match operation["description"].as_str() {
            Some(more) => format!("{summary}\n\n{more}"),
            None => summary.clone(),
        };
        let body = resolve(document, &operation["requestBody"]["content"]["application/json"]["schema"]);
        let answers = operation["responses"].as_object().into_iter().flatten();
        Self {
            id: text(&operation["operationId"]),
            tag: text(&operation["tags"][0]),
            method: method.to_uppercase(),
            path: path.to_owned(),
            summary,
            description,
            secured: operation["security"].as_array().is_some_and(|ways| ways.iter().any(|way| way != &json!({}))),
            parameters: list(&operation["parameters"]).map(Parameter::read).collect(),
            example: body.get("example").cloned(),
            answers: answers.map(|(status, answer)| (status.clone(), Answer::read(document, answer))).collect(),
        }
    }

    /// What is documented for a status: under itself, or under its class.
    pub fn answer(&self, status: u16) -> Option<&Answer> {
        self.answers.get(&status.to_string()).or_else(|| self.answers.get(&format!("{}XX", status / 100)))
    }

    /// Whether a success goes on and on.
    pub fn streams(&self) -> bool {
        self.answers.values().any(|answer| answer.media_type.as_deref() == Some("text/event-stream"))
    }
}

impl Parameter {
    fn read(parameter: &Value) -> Self {
        let example = match &parameter["example"] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        Self {
            name: text(&parameter["name"]),
            place: text(&parameter["in"]),
            description: parameter["description"].as_str().map(str::to_owned),
            example,
        }
    }
}

impl Answer {
    fn read(document: &Value, answer: &Value) -> Self {
        let content = answer["content"].as_object().and_then(|content| content.iter().next());
        let schema = content.map(|(_, content)| resolve(document, &content["schema"]));
        let written = content.and_then(|(_, content)| content.get("example")).cloned();
        Self {
            media_type: content.map(|(media_type, _)| media_type.clone()),
            required: schema.map(|schema| required(document, schema)).unwrap_or_default(),
            example: written.or_else(|| schema.map(|schema| sample(document, schema))),
        }
    }
}

/// The fields that a schema requires, those of its parts included.
fn required(document: &Value, schema: &Value) -> Vec<String> {
    let parts = list(&schema["allOf"]).map(|part| resolve(document, part));
    parts.chain([schema]).flat_map(|part| list(&part["required"]).map(text)).collect()
}

/// What a value of this schema looks like: its example, or what follows from its parts. Of an object only what it always has.
fn sample(document: &Value, schema: &Value) -> Value {
    let schema = resolve(document, schema);
    let first = |name: &str| list(&schema[name]).next().cloned();
    let written = schema.get("example").cloned().or_else(|| first("examples")).or_else(|| first("enum"));
    if let Some(example) = written.or_else(|| schema.get("default").cloned()) {
        return example;
    }
    if let Some(first) = list(&schema["oneOf"]).chain(list(&schema["anyOf"])).next() {
        return sample(document, first);
    }
    let mut fields = serde_json::Map::new();
    for part in list(&schema["allOf"]) {
        if let Value::Object(more) = sample(document, part) {
            fields.extend(more);
        }
    }
    for name in list(&schema["required"]).filter_map(Value::as_str) {
        fields.insert(name.to_owned(), sample(document, &schema["properties"][name]));
    }
    match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("string"), Some("uuid")) => json!("01890a5d-ac96-774b-bcce-b302099a8057"),
        (Some("string"), Some("date-time")) => json!("2026-01-31T12:00:00.000000Z"),
        (Some("string"), _) => json!(""),
        (Some("integer" | "number"), _) => schema.get("minimum").cloned().unwrap_or(json!(0)),
        (Some("boolean"), _) => json!(false),
        (Some("array"), _) => json!([sample(document, &schema["items"])]),
        _ => Value::Object(fields),
    }
}

/// The schema itself, where a reference to it is given.
fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let pointer = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    pointer.and_then(|pointer| document.pointer(pointer)).unwrap_or(schema)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
