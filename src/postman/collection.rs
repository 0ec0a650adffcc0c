//! Postman's formats: collection 2.1 and environment. The order of the fields is the order in the files.

use serde::Serialize;

const SCHEMA: &str = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json";

#[derive(Serialize)]
pub(super) struct Collection {
    info: Info,
    pub item: Vec<Folder>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth: Option<Auth>,
    event: Vec<Event>,
}

#[derive(Serialize)]
struct Info {
    _postman_id: &'static str,
    name: String,
    description: String,
    schema: &'static str,
}

impl Collection {
    pub fn new(id: &'static str, name: &str, description: &str, item: Vec<Folder>) -> Self {
        let info = Info { _postman_id: id, name: name.into(), description: description.into(), schema: SCHEMA };
        Self { info, item, auth: None, event: Vec::new() }
    }

    pub fn with_auth(mut self, auth: Auth) -> Self {
        self.auth = Some(auth);
        self
    }

    pub fn with_event(mut self, event: Event) -> Self {
        self.event.push(event);
        self
    }
}

#[derive(Serialize)]
pub(super) struct Folder {
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    pub item: Vec<Entry>,
}

/// What a folder has in it.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Entry {
    Folder(Folder),
    Item(Box<Item>),
}

/// A request, and what is done before and after it.
#[derive(Serialize)]
pub(super) struct Item {
    pub id: String,
    pub name: String,
    pub event: Vec<Event>,
    pub request: Request,
    /// Answers as examples.
    pub response: Vec<Saved>,
}

/// An answer that is kept as an example.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Saved {
    name: String,
    original_request: Request,
    status: &'static str,
    code: u16,
    #[serde(rename = "_postman_previewlanguage")]
    language: &'static str,
    header: [Pair; 1],
    cookie: [(); 0],
    body: String,
}

impl Saved {
    /// The answer to this request, in JSON.
    pub fn json(request: &Request, status: reqwest::StatusCode, media_type: &str, body: String) -> Self {
        let (code, status) = (status.as_u16(), status.canonical_reason().unwrap_or_default());
        Self {
            name: format!("{code} {status}"),
            original_request: request.clone(),
            status,
            code,
            language: "json",
            header: [Pair::on("Content-Type", media_type, None)],
            cookie: [],
            body,
        }
    }
}

#[derive(Serialize)]
pub(super) struct Event {
    listen: &'static str,
    script: Script,
}

#[derive(Serialize)]
struct Script {
    r#type: &'static str,
    exec: Vec<String>,
}

impl Event {
    /// Runs after the answer.
    pub fn test(lines: Vec<String>) -> Self {
        Self { listen: "test", script: Script { r#type: "text/javascript", exec: lines } }
    }

    /// Runs before the request.
    pub fn before(lines: Vec<String>) -> Self {
        Self { listen: "prerequest", script: Script { r#type: "text/javascript", exec: lines } }
    }
}

#[derive(Clone, Serialize)]
pub(super) struct Request {
    pub method: String,
    pub header: Vec<Pair>,
    pub url: Url,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Body>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    pub description: String,
}

/// A header, a query parameter or a path variable.
#[derive(Clone, Serialize)]
pub(super) struct Pair {
    pub key: String,
    value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    disabled: bool,
}

impl Pair {
    /// One that is sent.
    pub fn on(key: &str, value: &str, description: Option<&str>) -> Self {
        Self { key: key.into(), value: value.into(), description: description.map(str::to_owned), disabled: false }
    }

    /// One that is only shown.
    pub fn off(key: &str, value: &str, description: Option<&str>) -> Self {
        Self { disabled: true, ..Self::on(key, value, description) }
    }
}

#[derive(Clone, Serialize)]
pub(super) struct Url {
    raw: String,
    host: Vec<String>,
    path: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    query: Vec<Pair>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    variable: Vec<Pair>,
}

impl Url {
    pub fn new(host: &str, path: Vec<String>, query: Vec<Pair>, variable: Vec<Pair>) -> Self {
        let sent = query.iter().filter(|pair| !pair.disabled);
        let sent: Vec<String> = sent.map(|pair| format!("{}={}", pair.key, pair.value)).collect();
        let mark = if sent.is_empty() { "" } else { "?" };
        let raw = format!("{host}/{}{mark}{}", path.join("/"), sent.join("&"));
        Self { raw, host: vec![host.into()], path, query, variable }
    }
}

#[derive(Clone, Serialize)]
pub(super) struct Body {
    mode: &'static str,
    raw: String,
}

impl Body {
    pub fn raw(text: String) -> Self {
        Self { mode: "raw", raw: text }
    }
}

#[derive(Clone, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Auth {
    NoAuth,
    Bearer { bearer: [Token; 1] },
}

#[derive(Clone, Serialize)]
pub(super) struct Token {
    key: &'static str,
    value: String,
    r#type: &'static str,
}

impl Auth {
    /// Not the collection's: none.
    pub fn none() -> Self {
        Self::NoAuth
    }

    /// Sent only when it is not empty.
    pub fn bearer(token: &str) -> Self {
        Self::Bearer { bearer: [Token { key: "token", value: token.into(), r#type: "string" }] }
    }
}

#[derive(Serialize)]
pub(super) struct Environment {
    id: &'static str,
    name: String,
    values: Vec<Variable>,
    _postman_variable_scope: &'static str,
}

#[derive(Serialize)]
struct Variable {
    key: String,
    value: String,
    r#type: String,
    enabled: bool,
}

impl Environment {
    /// Each value: its name, itself, and `default` or `secret`.
    pub fn new(id: &'static str, name: &str, values: &[(&str, &str, &str)]) -> Self {
        let values = values.iter().map(|(key, value, r#type)| Variable {
            key: (*key).into(),
            value: (*value).into(),
            r#type: (*r#type).into(),
            enabled: true,
        });
        Self { id, name: name.into(), values: values.collect(), _postman_variable_scope: "environment" }
    }
}
