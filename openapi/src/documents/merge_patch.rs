//! JSON merge patches (RFC 7396): their schemas are made of those of what they change, so that both always have the same fields.

use std::collections::BTreeMap;

use utoipa::openapi::schema::{AdditionalProperties, SchemaType, Type};
use utoipa::openapi::{Object, ObjectBuilder, OneOfBuilder, OpenApi as Document, Ref, RefOr, Schema};

use crate::MERGE_PATCH_JSON;

/// What a merge patch changes, every object within it, and how the patch of each is called.
const PATCHES: [(&str, &str); 5] = [
    ("NewSchedule", "SchedulePatch"),
    ("TaskTemplate", "TaskTemplatePatch"),
    ("HttpWork", "HttpWorkPatch"),
    ("RetryPolicy", "RetryPolicyPatch"),
    ("Callback", "CallbackPatch"),
];

/// Writes the patches, where the document has an operation that takes them. The first one has a text and an example of its own.
pub(super) fn add(schemas: &mut BTreeMap<String, RefOr<Schema>>) {
    let Some(RefOr::T(Schema::Object(first))) = schemas.get(PATCHES[0].1).cloned() else { return };
    for (whole, name) in PATCHES {
        let Some(RefOr::T(Schema::Object(whole))) = schemas.get(whole) else { continue };
        let mut patch = patch_of(whole.clone());
        if name == PATCHES[0].1 {
            (patch.description, patch.example) = (first.description.clone(), first.example.clone());
        }
        schemas.insert(name.into(), RefOr::T(Schema::Object(patch)));
    }
}

/// What `PATCH` takes is a merge patch, and may be announced as one.
pub(super) fn announce(document: &mut Document) {
    for operation in document.paths.paths.values_mut().filter_map(|item| item.patch.as_mut()) {
        let Some(RefOr::T(body)) = &mut operation.request_body else { continue };
        if let Some(json) = body.content.get("application/json").cloned() {
            body.content.insert(MERGE_PATCH_JSON.into(), json);
        }
    }
}

/// Nothing has to be there, and whatever the whole can do without may be taken away by `null`.
fn patch_of(mut whole: Object) -> Object {
    let kept = std::mem::take(&mut whole.required);
    for (name, field) in &mut whole.properties {
        if let RefOr::T(Schema::Object(object)) = field {
            object.default = None;
        }
        if let RefOr::T(Schema::Array(list)) = field {
            list.default = None;
        }
        refer_to_patch(field);
        if !kept.contains(name) {
            allow_null(field);
        }
    }
    let text = whole.description.unwrap_or_default();
    whole.description = Some(format!("What is left out stays, `null` takes away (RFC 7396). {text}"));
    whole
}

fn refer_to_patch(field: &mut RefOr<Schema>) {
    match field {
        RefOr::Ref(reference) => {
            let patch = PATCHES.into_iter().find(|(whole, _)| reference.ref_location.ends_with(&format!("/{whole}")));
            if let Some((_, patch)) = patch {
                reference.ref_location = Ref::from_schema_name(patch).ref_location;
            }
        }
        RefOr::T(Schema::OneOf(of)) => of.items.iter_mut().for_each(refer_to_patch),
        RefOr::T(_) => {}
    }
}

fn allow_null(field: &mut RefOr<Schema>) {
    match field {
        RefOr::Ref(reference) => {
            let null = ObjectBuilder::new().schema_type(Type::Null);
            *field = OneOfBuilder::new().item(reference.clone()).item(null).into();
        }
        RefOr::T(Schema::Object(object)) => {
            add_null(&mut object.schema_type);
            if let Some(AdditionalProperties::RefOr(values)) = object.additional_properties.as_deref_mut() {
                allow_null(values);
            }
        }
        RefOr::T(Schema::Array(list)) => add_null(&mut list.schema_type),
        RefOr::T(_) => {}
    }
}

fn add_null(types: &mut SchemaType) {
    match types {
        SchemaType::Type(one) => *types = SchemaType::Array(vec![one.clone(), Type::Null]),
        SchemaType::Array(several) if !several.contains(&Type::Null) => several.push(Type::Null),
        SchemaType::Array(_) | SchemaType::AnyValue => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    fn schemas() -> Value {
        serde_json::to_value(crate::documents::all().swap_remove(0).1).unwrap()["components"]["schemas"].take()
    }

    #[test]
    fn a_patch_has_the_fields_of_what_it_changes_at_every_depth() {
        let schemas = schemas();
        for (whole, patch) in super::PATCHES {
            let (whole, patch) = (&schemas[whole], &schemas[patch]);
            let names = |schema: &Value| schema["properties"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(whole), names(patch));
            assert_eq!((&patch["required"], &patch["additionalProperties"]), (&Value::Null, &json!(false)));
        }
        let task = &schemas["SchedulePatch"]["properties"]["task"];
        assert_eq!(task["$ref"], "#/components/schemas/TaskTemplatePatch", "what has to be there is not taken away");
        let http = &schemas["TaskTemplatePatch"]["properties"]["http"]["oneOf"];
        assert_eq!(http[0]["$ref"], "#/components/schemas/HttpWorkPatch");
        let fields = &schemas["HttpWorkPatch"]["properties"];
        assert_eq!((&fields["url"]["type"], &fields["body"]["type"]), (&json!("string"), &json!(["string", "null"])));
        assert_eq!(fields["method"]["oneOf"][1], json!({"type": "null"}));
        assert_eq!(fields["headers"]["additionalProperties"]["oneOf"][1], json!({"type": "null"}));
        assert_eq!(fields["headers"]["maxProperties"], 100);
        assert_eq!(schemas["RetryPolicyPatch"]["properties"]["jitter"].get("default"), None);
    }
}
