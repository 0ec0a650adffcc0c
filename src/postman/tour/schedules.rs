//! The part of the tour that is about schedules.

use super::Step;

/// No schedule has this id: its time is 1970.
const NO_SCHEDULE: &str = "00000000-0000-7000-8000-000000000000";

pub(super) fn steps() -> Vec<Step> {
    [life(), runs(), previews(), refusals()].into_iter().flatten().collect()
}

fn of(operation: &str, name: &str) -> Step {
    Step::new(operation, name).path("id", "{{schedule_id}}")
}

fn life() -> Vec<Step> {
    vec![
        Step::new("createSchedule", "Do something every weekday morning")
            .answers(&[201])
            .check(
                "the next run is shown",
                "pm.expect(new Date(body.next_run_at).getTime()).to.be.above(Date.now() - 60000)",
            )
            .check(
                "Location leads to it",
                "pm.expect(pm.response.headers.get(\"Location\")).to.equal(`/v1/schedules/${body.id}`)",
            )
            .saves("schedule_id", "body.id"),
        of("getSchedule", "Get it")
            .answers(&[200])
            .check("it goes on", "pm.expect(body).to.not.have.property(\"paused_at\")")
            .saves("schedule_etag", "pm.response.headers.get(\"ETag\")"),
        of("changeSchedule", "Change it, unless somebody has since")
            .header("If-Match", "{{schedule_etag}}")
            .answers(&[200])
            .check("what was given is changed", "pm.expect([body.cron, body.overlap]).to.deep.equal([\"0 9 * * MON-FRI\", \"skip\"])")
            .check("the rest stays", "pm.expect([body.time_zone, body.task.command]).to.deep.equal([\"Europe/Berlin\", \"echo good morning\"])"),
        of("changeSchedule", "Change what somebody has changed")
            .header("If-Match", "{{schedule_etag}}")
            .refused(412, "precondition_failed"),
        of("pauseSchedule", "Pause it")
            .answers(&[200])
            .check("with a reason", "pm.expect(body.pause_reason).to.equal(\"the target is being moved\")")
            .check("nothing is next", "pm.expect(body).to.not.have.property(\"next_run_at\")"),
        of("resumeSchedule", "Let it go on")
            .answers(&[200])
            .check("something is next", "pm.expect(body).to.have.property(\"next_run_at\")"),
        Step::new("listSchedules", "Which schedules are there?")
            .query("page_size", "10")
            .answers(&[200])
            .check("the newest first", "pm.expect(body.schedules[0].id).to.equal(pm.collectionVariables.get(\"schedule_id\"))"),
    ]
}

fn runs() -> Vec<Step> {
    vec![
        of("triggerSchedule", "Run it now")
            .answers(&[201])
            .check(
                "the task is the schedule's",
                "pm.expect(body.schedule_id).to.equal(pm.collectionVariables.get(\"schedule_id\"))",
            )
            .saves("task_id", "body.id"),
        of("backfillSchedule", "How many runs would a day's backfill make?")
            .answers(&[200])
            .check("it is only a look", "pm.expect(body.dry_run).to.equal(true)"),
        of("listScheduleRuns", "What has run?").answers(&[200]).check(
            "the one that was asked for by hand",
            "pm.expect([body.runs[0].trigger, body.runs[0].task_id]).to.deep.equal([\"manual\", pm.collectionVariables.get(\"task_id\")])",
        ),
    ]
}

fn previews() -> Vec<Step> {
    vec![
        of("previewSchedule", "When does it run next?")
            .query("count", "3")
            .answers(&[200])
            .check("three times", "pm.expect(body.occurrences.length).to.equal(3)"),
        Step::new("previewNewSchedule", "What does daylight saving do to 2:30 at night?").answers(&[200]).check(
            "once a day, and after the gap where there is one",
            "pm.expect(body.occurrences.map((o) => o.local_time)).to.deep.equal([\"2026-03-28T02:30:00+01:00\", \"2026-03-29T03:00:00+02:00\", \"2026-03-30T02:30:00+02:00\"])",
        ),
    ]
}

fn refusals() -> Vec<Step> {
    vec![
        Step::new("createSchedule", "A day that never comes")
            .json("{\n  \"cron\": \"0 0 30 2 *\",\n  \"task\": {\"command\": \"echo never\"}\n}")
            .refused(422, "validation_failed")
            .names("/cron"),
        Step::new("createSchedule", "Two kinds of time")
            .json("{\n  \"cron\": \"@daily\",\n  \"every_seconds\": 5,\n  \"task\": {\"command\": \"echo\"}\n}")
            .refused(422, "validation_failed")
            .names("/every_seconds"),
        of("deleteSchedule", "Delete it").answers(&[204]),
        of("getSchedule", "It is gone").refused(404, "schedule_not_found"),
        Step::new("triggerSchedule", "No such schedule").path("id", NO_SCHEDULE).refused(404, "schedule_not_found"),
        Step::new("getSchedule", "Not an id").path("id", "seven").refused(400, "invalid_path"),
    ]
}
