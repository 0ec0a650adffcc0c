//! The part of the tour that is about what goes with HTTP tasks: rules, traces, signatures, callbacks.

use super::Step;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

pub(super) fn answers() -> Vec<Step> {
    vec![
        Step::new("createTask", "Take a 404 for success")
            .json("{\n  \"http\": {\n    \"method\": \"DELETE\",\n    \"url\": \"{{base_url}}/nothing\",\n    \"response\": {\"success\": [\"200-299\", 404], \"final\": [\"400-403\"]}\n  }\n}")
            .waits()
            .answers(&[201])
            .task_is("COMPLETE")
            .check("its target had nothing", "pm.expect(body.result.http_status).to.equal(404)"),
        Step::new("createTask", "A status in two lists")
            .json("{\n  \"http\": {\n    \"url\": \"{{base_url}}/livez\",\n    \"response\": {\"success\": [404], \"final\": [\"400-499\"]}\n  }\n}")
            .refused(422, "validation_failed")
            .names("/http/response/final/0"),
        Step::new("createTask", "Signed, and part of a trace")
            .json("{\n  \"http\": {\n    \"method\": \"GET\",\n    \"url\": \"{{base_url}}/livez\",\n    \"sign\": true\n  }\n}")
            .header("traceparent", TRACE)
            .waits()
            .answers(&[201])
            .task_is("COMPLETE")
            .check("the trace is the caller's", &format!("pm.expect(body.traceparent).to.equal(\"{TRACE}\")")),
        Step::new("createTask", "Finish later, where the target answers 202")
            .json("{\n  \"http\": {\n    \"method\": \"GET\",\n    \"url\": \"{{base_url}}/livez\",\n    \"completion\": \"callback\",\n    \"heartbeat_timeout_seconds\": 60\n  }\n}")
            .waits()
            .answers(&[201])
            .task_is("COMPLETE"),
        Step::new("reportAttempt", "A token that is made up")
            .query("token", "made.up")
            .without_key()
            .refused(401, "unauthorized"),
    ]
}

pub(super) fn secrets() -> Vec<Step> {
    vec![
        Step::new("listSigningSecrets", "What are requests signed with?")
            .answers(&[200])
            .check("one at least", "pm.expect(body.secrets[0].secret).to.match(/^whsec_/)")
            .saves("signing_secret", "body.secrets[0].secret"),
        Step::new("rotateSigningSecret", "Take a new secret").answers(&[200]).check(
            "the old one is used for a while",
            "pm.expect(body.secrets[1].secret).to.equal(pm.collectionVariables.get(\"signing_secret\"))",
        ),
        Step::new("rotateSigningSecret", "For how long?")
            .json("{\n  \"overlap_seconds\": -1\n}")
            .refused(422, "validation_failed")
            .names("/overlap_seconds"),
    ]
}
