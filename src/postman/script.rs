//! What each request checks, as Postman's test scripts: what the document promises, then what the step adds.

use std::collections::BTreeMap;

use super::document::Operation;
use super::tour::Step;

/// Checks of every answer, whatever the request.
pub(super) fn every_answer() -> Vec<String> {
    lines(
        r#"pm.test("the answer has a request id", () => pm.expect(pm.response.headers.get("X-Request-Id")).to.not.be.empty);
if ((pm.response.headers.get("Content-Type") || "").includes("problem+json")) {
    const problem = pm.response.json();
    pm.test("the problem document is complete", () => {
        pm.expect(problem).to.include.all.keys("type", "title", "status", "detail", "code");
        pm.expect(problem.status).to.equal(pm.response.code);
    });
}"#,
    )
}

/// Leaves out a stream, which never ends by itself, unless it is asked for.
pub(super) fn skip_unless_followed() -> Vec<String> {
    lines(r#"if (pm.variables.get("follow_events") !== "true") pm.execution.skipRequest();"#)
}

/// The checks of one request.
pub(super) fn of(operation: &Operation, step: &Step) -> Vec<String> {
    let types: BTreeMap<&String, &str> = operation
        .answers
        .iter()
        .map(|(status, answer)| (status, answer.media_type.as_deref().unwrap_or_default()))
        .collect();
    let mut script = vec![format!("const documented = {};", json(&types))];
    script.extend(lines(
        r#"const status = String(pm.response.code);
const mediaType = documented[status] ?? documented[status[0] + "XX"];
pm.test("the status is documented", () => pm.expect(mediaType, status).to.be.a("string"));
if (mediaType) pm.test("the media type is the documented one", () => pm.expect(pm.response.headers.get("Content-Type")).to.include(mediaType));"#,
    ));
    if let Some(answers) = words(&step.answers) {
        let expected = json(&step.answers);
        script.push(format!(
            "pm.test(\"answers {answers}\", () => pm.expect(pm.response.code).to.be.oneOf({expected}));"
        ));
    }
    script.extend(body_checks(operation, step));
    script
}

fn body_checks(operation: &Operation, step: &Step) -> Vec<String> {
    let answer = step.answers.first().and_then(|status| operation.answer(*status));
    let is_json = |media_type: &String| media_type.ends_with("json");
    let Some(answer) = answer.filter(|answer| answer.media_type.as_ref().is_some_and(is_json)) else {
        return Vec::new();
    };
    let mut script = vec!["const body = pm.response.json();".to_owned()];
    // A refusal's fields are checked for every answer.
    if step.answers.iter().all(|status| *status < 400) {
        let fields = json(&answer.required);
        script.push(format!(
            "pm.test(\"every required field is there\", () => pm.expect(body).to.include.all.keys({fields}));"
        ));
    }
    script.extend(step.checks.iter().map(|(name, check)| format!("pm.test({}, () => {check});", json(name))));
    script
        .extend(step.saves.iter().map(|(name, value)| format!("pm.collectionVariables.set({}, {value});", json(name))));
    script
}

/// `200 or 501`.
fn words(statuses: &[u16]) -> Option<String> {
    let words: Vec<String> = statuses.iter().map(u16::to_string).collect();
    (!words.is_empty()).then(|| words.join(" or "))
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}
