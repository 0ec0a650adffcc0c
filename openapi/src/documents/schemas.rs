//! What attributes of the types cannot say in the documents: bounds that follow from a format, and rules between fields.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::Modify;
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{AdditionalProperties, ArrayItems, KnownFormat, SchemaFormat, SchemaType, Type};
use utoipa::openapi::{Object, ObjectBuilder, OpenApi as Document, RefOr, Schema};

use super::merge_patch;
use crate::limits;

/// Adds them.
pub(crate) struct Schemas;

impl Modify for Schemas {
    fn modify(&self, document: &mut Document) {
        let schemas = &mut document.components.get_or_insert_default().schemas;
        for (name, object) in objects(schemas) {
            bound_maps(name, object);
            name_program(name, object);
        }
        merge_patch::add(schemas);
        for (name, object) in objects(schemas) {
            add_rules(name, object);
            forbid_repetitions(name, object);
            describe_data(name, object);
        }
        for schema in schemas.values_mut() {
            close_variants(schema);
            each(schema, &mut bound_by_format);
        }
        merge_patch::announce(document);
        for operation in super::operations_mut(document) {
            each_of(operation, &mut bound_by_format);
        }
    }
}

fn objects(schemas: &mut BTreeMap<String, RefOr<Schema>>) -> impl Iterator<Item = (&str, &mut Object)> {
    schemas.iter_mut().filter_map(|(name, schema)| match schema {
        RefOr::T(Schema::Object(object)) => Some((name.as_str(), object)),
        _ => None,
    })
}

/// Ids and times have one length, or nearly so.
fn bound_by_format(object: &mut Object) {
    match &object.format {
        Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)) => {
            object.min_length = Some(limits::UUID_CHARS);
            object.max_length = Some(limits::UUID_CHARS);
        }
        Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)) => object.max_length = Some(limits::TIME_CHARS_MAX),
        _ => {}
    }
}

/// What the text of a server-sent event is, once it is read as JSON.
fn describe_data(schema: &str, object: &mut Object) {
    if schema == "ServerSentEvent"
        && let Some(RefOr::T(Schema::Object(data))) = object.properties.get_mut("data")
    {
        let of = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
        add(data, "contentSchema", json!({"anyOf": [of("Event"), of("LogTruncated")]}));
    }
}

/// The names of headers are tokens (RFC 9110, 5.1).
const TOKEN: &str = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$";

/// No control characters.
const PRINTABLE: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$";

/// Fields that are maps: the schema, the field, how many entries, how long a name may be, and its pattern.
const MAPS: [(&str, &str, usize, usize, &str); 15] = [
    ("HttpWork", "headers", limits::HEADERS_MAX, limits::HEADER_NAME_CHARS_MAX, TOKEN),
    ("TaskResult", "headers", limits::RESULT_HEADERS_MAX, limits::HEADER_NAME_CHARS_MAX, TOKEN),
    ("Callback", "headers", limits::WEBHOOK_HEADERS_MAX, limits::HEADER_NAME_CHARS_MAX, TOKEN),
    ("NewWebhook", "headers", limits::WEBHOOK_HEADERS_MAX, limits::HEADER_NAME_CHARS_MAX, TOKEN),
    ("WebhookChange", "headers", limits::WEBHOOK_HEADERS_MAX, limits::HEADER_NAME_CHARS_MAX, TOKEN),
    ("Webhook", "headers", limits::WEBHOOK_HEADERS_MAX, limits::HEADER_NAME_CHARS_MAX, TOKEN),
    ("DeliveryRequest", "headers", limits::HEADERS_MAX, limits::HEADER_NAME_CHARS_MAX, TOKEN),
    ("HeartbeatRequest", "labels", limits::LABELS_MAX, limits::LABEL_NAME_CHARS_MAX, PRINTABLE),
    ("Worker", "labels", limits::LABELS_MAX, limits::LABEL_NAME_CHARS_MAX, PRINTABLE),
    ("NewUrlWorker", "labels", limits::LABELS_MAX, limits::LABEL_NAME_CHARS_MAX, PRINTABLE),
    ("UrlWorker", "labels", limits::LABELS_MAX, limits::LABEL_NAME_CHARS_MAX, PRINTABLE),
    ("NewTask", "requires", limits::REQUIRES_MAX, limits::LABEL_NAME_CHARS_MAX, PRINTABLE),
    ("TaskTemplate", "requires", limits::REQUIRES_MAX, limits::LABEL_NAME_CHARS_MAX, PRINTABLE),
    ("Task", "requires", limits::REQUIRES_MAX, limits::LABEL_NAME_CHARS_MAX, PRINTABLE),
    ("UnservedTasks", "requires", limits::REQUIRES_MAX, limits::LABEL_NAME_CHARS_MAX, PRINTABLE),
];

fn bound_maps(schema: &str, object: &mut Object) {
    let of_this = MAPS.into_iter().filter(|(name, ..)| *name == schema);
    for (_, name, entries_max, chars_max, pattern) in of_this {
        if let Some(RefOr::T(Schema::Object(map))) = object.properties.get_mut(name) {
            let names =
                ObjectBuilder::new().schema_type(Type::String).max_length(Some(chars_max)).pattern(Some(pattern));
            map.max_properties = Some(entries_max);
            map.property_names = Some(Box::new(names.build().into()));
        }
    }
}

/// Rules between the fields of a request.
fn add_rules(name: &str, object: &mut Object) {
    let (keyword, rule) = match name {
        "NewTask" => {
            let one = json!({"oneOf": any(&["command", "argv", "http"])});
            ("allOf", json!([one, {"not": given(&["scheduled_at", "delay_seconds"])}]))
        }
        "TaskTemplate" => ("oneOf", any(&["command", "argv", "http"])),
        "TaskTemplatePatch" => {
            let pairs = [["command", "argv"], ["command", "http"], ["argv", "http"]];
            ("not", json!({"anyOf": pairs.map(|pair| given(&pair))}))
        }
        "HttpWork" | "HttpWorkPatch" => ("not", given(&["body", "body_base64"])),
        "NewUrlWorker" => {
            let nothing = json!({"http": {"const": false}, "commands": {"enum": [false, null]}});
            ("not", json!({"required": ["http"], "properties": nothing}))
        }
        "NewSchedule" | "PreviewRequest" => ("oneOf", any(&["cron", "every_seconds"])),
        "SchedulePatch" => ("not", given(&["cron", "every_seconds"])),
        "NewWebhook" | "WebhookChange" => ("not", given(&["events", "only"])),
        // They are on their way.
        "ReplayRequest" => {
            ("not", json!({"properties": {"status": {"enum": ["PICKED", "STARTED"]}}, "required": ["status"]}))
        }
        "NewKey" => ("not", given(&["expires_in_seconds", "expires_at"])),
        "BulkFilter" => {
            let names: Vec<&str> = object.properties.keys().map(String::as_str).collect();
            ("anyOf", any(&names))
        }
        // A list takes the place of what is computed; whatever of that is given besides is what it would be anyway.
        "RetryPolicy" => {
            let names = ["initial_seconds", "multiplier", "max_seconds"];
            let default = |name: &str| match object.properties.get(name) {
                Some(RefOr::T(Schema::Object(property))) => property.default.clone(),
                _ => None,
            };
            let defaults: Value =
                names.iter().map(|name| (name.to_string(), json!({"const": default(name)}))).collect();
            ("anyOf", json!([{"properties": {"delays_seconds": {"type": "null"}}}, {"properties": defaults}]))
        }
        _ => return,
    };
    add(object, keyword, rule);
}

/// Lists of requests whose items must differ, and the schemas that have them.
const WITHOUT_REPETITIONS: [(&str, &[&str]); 6] = [
    ("NewTask", &["tags"]),
    ("TaskTemplate", &["tags"]),
    ("TaskTemplatePatch", &["tags"]),
    ("NewKey", &["scopes"]),
    ("NewWebhook", &["events", "queues", "tags"]),
    ("WebhookChange", &["events", "queues", "tags"]),
];

fn forbid_repetitions(schema: &str, object: &mut Object) {
    let names = WITHOUT_REPETITIONS.iter().filter(|(name, _)| *name == schema).flat_map(|(_, names)| *names);
    for name in names {
        if let Some(RefOr::T(Schema::Array(list))) = object.properties.get_mut(*name) {
            list.unique_items = true;
        }
    }
}

/// The first item of `argv` is the program; only what follows may be empty.
fn name_program(schema: &str, object: &mut Object) {
    if ["NewTask", "TaskTemplate"].contains(&schema)
        && let Some(RefOr::T(Schema::Array(argv))) = object.properties.get_mut("argv")
    {
        let program = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
        argv.prefix_items = vec![program.max_length(Some(limits::COMMAND_BYTES_MAX)).into()];
    }
}

/// Variants of an enum that are written as `{"variant": …}`: one field, and none beside it.
fn close_variants(schema: &mut RefOr<Schema>) {
    let RefOr::T(Schema::OneOf(of)) = schema else { return };
    for variant in &mut of.items {
        if let RefOr::T(Schema::Object(variant)) = variant
            && variant.properties.len() == 1
        {
            variant.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
        }
    }
}

/// Adds a keyword that `Object` has no field for: what it calls extensions goes into the document as it is. One at most, since
/// their order changes from run to run.
fn add(object: &mut Object, keyword: &str, rule: Value) {
    object.extensions.get_or_insert_default().insert(keyword.into(), rule);
}

/// Given, and not as `null`, which is the same as left out.
fn given(names: &[&str]) -> Value {
    let properties: Value = names.iter().map(|name| (name.to_string(), json!({"not": {"type": "null"}}))).collect();
    json!({"required": names, "properties": properties})
}

fn any(names: &[&str]) -> Value {
    names.iter().map(|name| given(&[name])).collect()
}

/// Every schema of an operation that is written in its place.
fn each_of(operation: &mut Operation, change: &mut impl FnMut(&mut Object)) {
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter {
            parameter.schema.iter_mut().for_each(|schema| {
                without_null(schema);
                each(schema, change);
            });
        }
    }
    for response in operation.responses.responses.values_mut() {
        let RefOr::T(response) = response else { continue };
        for header in response.headers.values_mut() {
            if let RefOr::T(header) = header {
                header.schema.iter_mut().for_each(|schema| each(schema, change));
            }
        }
    }
}

/// A parameter that is not required can be left out; there is no `null` outside of JSON.
fn without_null(schema: &mut RefOr<Schema>) {
    if let RefOr::T(Schema::Object(object)) = schema
        && let SchemaType::Array(types) = &mut object.schema_type
    {
        types.retain(|one| *one != Type::Null);
        if let [only] = types.as_slice() {
            object.schema_type = SchemaType::Type(only.clone());
        }
    }
    let inner = match schema {
        RefOr::T(Schema::OneOf(of)) => of.items.iter().find(|item| matches!(item, RefOr::Ref(_))).cloned(),
        _ => None,
    };
    if let Some(inner) = inner {
        *schema = inner;
    }
}

/// A schema, and all in it.
fn each(schema: &mut RefOr<Schema>, change: &mut impl FnMut(&mut Object)) {
    let RefOr::T(schema) = schema else { return };
    match schema {
        Schema::Object(object) => {
            change(object);
            object.properties.values_mut().for_each(|property| each(property, change));
            if let Some(AdditionalProperties::RefOr(values)) = object.additional_properties.as_deref_mut() {
                each(values, change);
            }
        }
        Schema::Array(array) => {
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                each(items, change);
            }
        }
        Schema::OneOf(of) => of.items.iter_mut().for_each(|part| each(part, change)),
        Schema::AllOf(of) => of.items.iter_mut().for_each(|part| each(part, change)),
        Schema::AnyOf(of) => of.items.iter_mut().for_each(|part| each(part, change)),
        _ => {}
    }
}
