//! The part of the tour that is about incoming webhooks.

use super::Step;

/// No hook has this id: its time is 1970.
const NO_HOOK: &str = "00000000-0000-7000-8000-000000000000";

pub(super) fn steps() -> Vec<Step> {
    [life(), received(), refusals()].into_iter().flatten().collect()
}

fn of(operation: &str, name: &str) -> Step {
    Step::new(operation, name).path("id", "{{hook_id}}")
}

fn life() -> Vec<Step> {
    vec![
        Step::new("createHook", "Take what GitHub sends")
            .answers(&[201])
            .check("its secret is shown", "pm.expect(body.secret).to.equal(\"It's a Secret to Everybody\")")
            .check(
                "Location leads to it",
                "pm.expect(pm.response.headers.get(\"Location\")).to.equal(`/v1/hooks/${body.id}`)",
            )
            .saves("hook_id", "body.id"),
        of("getHook", "Get it")
            .answers(&[200])
            .check("nobody sees its secret", "pm.expect(body).to.not.have.property(\"secret\")")
            .check("where deliveries go", "pm.expect(body.receive_path).to.equal(`/v1/hooks/${body.id}/receive`)")
            .saves("hook_etag", "pm.response.headers.get(\"ETag\")"),
        of("changeHook", "Change it, unless somebody has since")
            .header("If-Match", "{{hook_etag}}")
            .answers(&[200])
            .check(
                "it is changed",
                "pm.expect([body.name, body.revision]).to.deep.equal([\"pushes and releases\", 2])",
            ),
        of("changeHook", "Change what somebody has changed")
            .header("If-Match", "{{hook_etag}}")
            .refused(412, "precondition_failed"),
        Step::new("listHooks", "Which are there?").query("page_size", "10").answers(&[200]).check(
            "the new one is the first",
            "pm.expect(body.hooks[0].id).to.equal(pm.collectionVariables.get(\"hook_id\"))",
        ),
        of("rotateHook", "Give it a new secret")
            .answers(&[200])
            .check("both are taken for a while", "pm.expect(body).to.have.property(\"previous_secret_expires_at\")"),
        of("deleteHook", "Take nothing more").answers(&[204]),
    ]
}

fn received() -> Vec<Step> {
    // As an app would: without an API key.
    let sent = |name: &str| of("receiveHook", name).query("token", "{{hook_token}}").without_key();
    let once = |name: &str| sent(name).header("X-Delivery", "postman-{{hook_id}}");
    vec![
        Step::new("createHook", "Take what comes to a secret URL")
            .json("{\n  \"verification\": \"secret_url\",\n  \"delivery_id_header\": \"X-Delivery\",\n  \"task\": {\"command\": \"printf %s \\\"$1\\\"\"}\n}")
            .answers(&[201])
            .saves("hook_id", "body.id")
            .saves("hook_token", "body.secret"),
        once("A delivery")
            .json("{\"ref\": \"refs/heads/main\"}")
            .answers(&[202])
            .check("it is new", "pm.expect(body.duplicate).to.be.false")
            .saves("task_id", "body.task_id"),
        once("The same again makes no second task")
            .json("{\"ref\": \"refs/heads/main\"}")
            .answers(&[200])
            .check("it is known", "pm.expect(body.duplicate).to.be.true")
            .check("it is the same task", "pm.expect(body.task_id).to.equal(pm.collectionVariables.get(\"task_id\"))"),
        of("listHookDeliveries", "What came?").answers(&[200]).check(
            "both are there, the newest first",
            "pm.expect(body.deliveries.map((d) => d.outcome)).to.deep.equal([\"duplicate\", \"accepted\"])",
        ),
    ]
}

fn refusals() -> Vec<Step> {
    vec![
        of("receiveHook", "Without the token").without_key().refused(401, "unauthorized"),
        of("changeHook", "Disable it")
            .json("{\n  \"enabled\": false\n}")
            .answers(&[200])
            .check("it is disabled", "pm.expect(body.enabled).to.be.false"),
        of("receiveHook", "A disabled one takes nothing")
            .query("token", "{{hook_token}}")
            .without_key()
            .refused(409, "hook_disabled"),
        Step::new("createHook", "A body of its own, and one that is sent")
            .json("{\n  \"verification\": \"github\",\n  \"secret\": \"short\",\n  \"task\": {\"http\": {\"url\": \"https://example.com\", \"body\": \"x\"}}\n}")
            .refused(422, "validation_failed")
            .names("/secret")
            .names("/task/http/body"),
        of("deleteHook", "Delete it").answers(&[204]),
        Step::new("getHook", "No such hook").path("id", NO_HOOK).refused(404, "hook_not_found"),
        Step::new("receiveHook", "A hook that is not there is none that believes")
            .path("id", NO_HOOK)
            .without_key()
            .refused(401, "unauthorized"),
    ]
}
