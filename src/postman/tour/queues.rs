//! The part of the tour that is about queues.

use super::Step;

pub(super) fn steps() -> Vec<Step> {
    [limits(), pause(), purge(), refusals()].into_iter().flatten().collect()
}

fn of(operation: &str, name: &str) -> Step {
    Step::new(operation, name).path("queue", "tour")
}

fn limits() -> Vec<Step> {
    vec![
        of("changeQueue", "Three at once, and a hundred a minute")
            .answers(&[200])
            .check("so it is", "pm.expect([body.concurrency, body.rate.count]).to.deep.equal([3, 100])")
            .saves("queue_etag", "pm.response.headers.get(\"ETag\")"),
        of("changeQueue", "More at once, unless somebody has changed it since")
            .header("If-Match", "{{queue_etag}}")
            .json("{\n  \"concurrency\": 5,\n  \"rate\": null\n}")
            .answers(&[200])
            .check("what was given is changed", "pm.expect([body.concurrency, body.rate]).to.deep.equal([5, undefined])")
            .check("the rest stays", "pm.expect(body.max_attempts).to.equal(5)"),
        of("changeQueue", "Change what somebody has changed")
            .header("If-Match", "{{queue_etag}}")
            .refused(412, "precondition_failed"),
        Step::new("createTask", "A task of one tenant")
            .json("{\n  \"queue\": \"tour\",\n  \"flow_key\": \"tenant-7\",\n  \"command\": \"echo hello\",\n  \"delay_seconds\": 3600\n}")
            .answers(&[201])
            .check("it says whose it is", "pm.expect(body.flow_key).to.equal(\"tenant-7\")")
            .check("and has its queue's attempts", "pm.expect(body.max_attempts).to.equal(5)"),
        Step::new("listQueues", "Which queues are there?")
            .query("page_size", "500")
            .answers(&[200])
            .check("this one is", "pm.expect(body.queues.map((q) => q.queue)).to.include(\"tour\")"),
    ]
}

fn pause() -> Vec<Step> {
    vec![
        of("pauseQueue", "Pause it")
            .answers(&[200])
            .check("with a reason", "pm.expect(body.pause_reason).to.equal(\"the target is being moved\")"),
        of("getQueue", "Look at it").answers(&[200]).check("it is paused", "pm.expect(body.paused).to.equal(true)"),
        of("resumeQueue", "Let it go on").answers(&[200]).check("it does", "pm.expect(body.paused).to.equal(false)"),
    ]
}

fn purge() -> Vec<Step> {
    vec![
        of("purgeQueue", "How many would be cancelled?")
            .answers(&[200])
            .check("it is only a look", "pm.expect([body.dry_run, body.cancelled]).to.deep.equal([true, 0])")
            .check("one at least", "pm.expect(body.matched).to.be.above(0)"),
        of("purgeQueue", "Cancel them")
            .json("{\n  \"dry_run\": false\n}")
            .answers(&[200])
            .check("they are", "pm.expect(body.cancelled).to.equal(body.matched)"),
        of("resetQueue", "Forget its limits").answers(&[204]),
    ]
}

fn refusals() -> Vec<Step> {
    vec![
        of("changeQueue", "None at once")
            .json("{\n  \"concurrency\": 0\n}")
            .refused(422, "validation_failed")
            .names("/concurrency"),
        Step::new("getQueue", "No such queue").path("queue", "nobody-has-this").refused(404, "queue_not_found"),
        Step::new("getQueue", "No name").path("queue", "a b").refused(400, "invalid_path"),
    ]
}
