//! JSON merge patches (RFC 7396).

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use taskmaster_openapi::queue::Rate;
use taskmaster_openapi::response::ResponseRules;
use taskmaster_openapi::schedule::TaskTemplate;
use taskmaster_openapi::task::{Callback, HttpWork, RetryPolicy};
use taskmaster_openapi::{Code, Problem, fields};
use taskmaster_service::extract::parse_json;

/// A change without `If-Match` that others keep getting ahead of is given up after so many tries.
pub(crate) const TRIES_MAX: usize = 5;

/// Refuses a patch that names what the thing does not have: where that is to be taken away, the merge would not show it.
///
/// # Errors
/// `invalid_body`.
pub(crate) fn check<'de, T: Deserialize<'de>>(patch: &Map<String, Value>) -> Result<(), Problem> {
    check_names(patch, fields::names::<T>(), "")
}

fn check_names(patch: &Map<String, Value>, known: &[&str], at: &str) -> Result<(), Problem> {
    for (name, value) in patch {
        let shown: String = name.chars().take(100).collect();
        let pointer = format!("{at}/{}", shown.replace('~', "~0").replace('/', "~1"));
        if !known.contains(&name.as_str()) {
            let known: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
            let detail = format!("unknown field `{shown}`, expected one of {}", known.join(", "));
            return Err(Problem::field(Code::InvalidBody, pointer, detail));
        }
        let within = match name.as_str() {
            "task" => fields::names::<TaskTemplate>(),
            "http" => fields::names::<HttpWork>(),
            "retry" => fields::names::<RetryPolicy>(),
            "response" => fields::names::<ResponseRules>(),
            "rate" | "rate_by_key" => fields::names::<Rate>(),
            "callback" | "failure_callback" => fields::names::<Callback>(),
            _ => continue,
        };
        if let Value::Object(fields) = value {
            check_names(fields, within, &pointer)?;
        }
    }
    Ok(())
}

/// What something is like once a patch has been applied to it.
///
/// # Errors
/// `invalid_body`, by what the whole would be.
pub(crate) fn applied<T: DeserializeOwned>(known: &impl Serialize, patch: &Map<String, Value>) -> Result<T, Problem> {
    let mut merged = serde_json::to_value(known).map_err(|_| Problem::internal())?;
    merge(&mut merged, Value::Object(patch.clone()));
    parse_json(merged.to_string().as_bytes())
}

/// Applies a patch (RFC 7396, 2).
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return };
    for (name, value) in patch {
        match value {
            Value::Null => drop(fields.remove(&name)),
            value => merge(fields.entry(name).or_insert(Value::Null), value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use taskmaster_openapi::schedule::NewSchedule;

    #[test]
    fn a_merge_patch_does_what_the_rfc_says() {
        // RFC 7396, appendix A.
        for (target, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut merged = target.clone();
            merge(&mut merged, patch.clone());
            assert_eq!(merged, expected, "{target} {patch}");
        }
    }

    #[test]
    fn what_no_schedule_has_is_refused_even_to_be_taken_away() {
        let refused = |patch: Value| {
            let Value::Object(patch) = patch else { return None };
            check::<NewSchedule>(&patch).err().map(|problem| (problem.code, problem.errors[0].pointer.clone()))
        };
        for fine in [
            json!({}),
            json!({"name": null, "task": {"http": {"headers": {"X-Any": null}}, "retry": null}}),
            json!({"task": {"callback": {"url": 5}}, "overlap": {"any": 1}}),
        ] {
            assert_eq!(refused(fine.clone()), None, "{fine}");
        }
        for (patch, pointer) in [
            (json!({"nmae": null}), "/nmae"),
            (json!({"task": {"retry": {"a/b": null}}}), "/task/retry/a~1b"),
            (json!({"task": {"failure_callback": {"ulr": "x"}}}), "/task/failure_callback/ulr"),
        ] {
            assert_eq!(refused(patch.clone()), Some((Code::InvalidBody, pointer.to_owned())), "{patch}");
        }
    }
}
