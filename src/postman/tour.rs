//! The requests of the collection, in the order in which they tell a story: what comes later uses the ids of what came before.

mod hooks;
mod http_tasks;
mod queues;
mod schedules;

/// One request: of which operation, with what, and what must come of it.
pub(super) struct Step {
    pub operation: String,
    pub name: String,
    pub body: Sent,
    pub path: Vec<(String, String)>,
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
    /// Whatever key there is, it is not sent.
    pub without_key: bool,
    /// The statuses that are right; the first one's body is the one that `checks` look at. Any documented one when empty.
    pub answers: Vec<u16>,
    /// Name and JavaScript of each check; `body` is the answer's.
    pub checks: Vec<(String, String)>,
    /// Name and JavaScript of each variable to keep for later requests.
    pub saves: Vec<(String, String)>,
}

/// The body of a request.
pub(super) enum Sent {
    /// The document's example, where it has one.
    Example,
    Json(String),
    /// Media type and text.
    Other(String, String),
}

impl Step {
    pub fn new(operation: &str, name: &str) -> Self {
        Self {
            operation: operation.into(),
            name: name.into(),
            body: Sent::Example,
            path: Vec::new(),
            query: Vec::new(),
            headers: Vec::new(),
            without_key: false,
            answers: Vec::new(),
            checks: Vec::new(),
            saves: Vec::new(),
        }
    }

    fn json(mut self, text: &str) -> Self {
        self.body = Sent::Json(text.into());
        self
    }

    fn other(mut self, media_type: &str, text: &str) -> Self {
        self.body = Sent::Other(media_type.into(), text.into());
        self
    }

    fn path(mut self, name: &str, value: &str) -> Self {
        self.path.push((name.into(), value.into()));
        self
    }

    fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.into(), value.into()));
        self
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    fn without_key(self) -> Self {
        Self { without_key: true, ..self }
    }

    /// The answer may wait for the task's end.
    fn waits(self) -> Self {
        self.header("Prefer", "wait=10")
    }

    fn answers(mut self, statuses: &[u16]) -> Self {
        self.answers.extend(statuses);
        self
    }

    fn check(mut self, name: &str, script: &str) -> Self {
        self.checks.push((name.into(), script.into()));
        self
    }

    /// The body is a task in this state.
    fn task_is(self, status: &str) -> Self {
        self.check(&format!("the task is {status}"), &format!("pm.expect(body.status).to.equal(\"{status}\")"))
    }

    /// The answer is a problem document with this code.
    fn refused(self, status: u16, code: &str) -> Self {
        self.answers(&[status])
            .check(&format!("the code is {code}"), &format!("pm.expect(body.code).to.equal(\"{code}\")"))
    }

    /// The problem document names this place in the request.
    fn names(self, pointer: &str) -> Self {
        let check = format!("pm.expect(body.errors.map((e) => e.pointer)).to.include(\"{pointer}\")");
        self.check(&format!("{pointer} is named"), &check)
    }

    fn saves(mut self, variable: &str, value: &str) -> Self {
        self.saves.push((variable.into(), value.into()));
        self
    }
}

/// No task has this id: its time is 1970.
const NO_TASK: &str = "00000000-0000-7000-8000-000000000000";

/// No key has this id, in all likelihood.
const NO_KEY: &str = "000000000000";

/// No webhook has this id: its time is 1970.
const NO_WEBHOOK: &str = NO_TASK;

/// What comes after QUEUED may come before the answer.
const NOT_CANCELLED: &str = "pm.expect(body.status).to.be.oneOf([\"QUEUED\", \"PICKED\", \"STARTED\", \"COMPLETE\"])";

/// Requests that belong together: a folder within that of their resource.
pub(super) struct Chapter {
    pub name: &'static str,
    pub steps: Vec<Step>,
}

/// The whole tour.
pub(super) fn chapters() -> Vec<Chapter> {
    [
        ("Is it there?", health()),
        ("Run a command", commands()),
        ("Later", delayed()),
        ("Once only", once()),
        ("What fails, and is tried again", failing()),
        ("Make an HTTP request", requests()),
        ("Answers, traces, signatures, callbacks", http_tasks::answers()),
        ("Many together", batches()),
        ("Cancel and retry by filter", bulk()),
        ("List and filter", lists()),
        ("What is refused", refusals()),
        ("Again and again", schedules::steps()),
        ("Queues", queues::steps()),
        ("Follow what happens", events()),
        ("Figures and workers", fleet()),
        ("API keys", keys()),
        ("Signing secrets", http_tasks::secrets()),
        ("Webhooks", webhooks()),
        ("Incoming webhooks", hooks::steps()),
    ]
    .into_iter()
    .map(|(name, steps)| Chapter { name, steps })
    .collect()
}

fn health() -> Vec<Step> {
    vec![
        Step::new("livez", "Does it run?").answers(&[200]),
        Step::new("readyz", "Can it work?")
            .answers(&[200])
            .check("it waits for nothing", "pm.expect(body).to.deep.include({ready: true, waiting_for: []})"),
    ]
}

fn commands() -> Vec<Step> {
    vec![
        Step::new("createTask", "Run a command, and wait for its end")
            .waits()
            .answers(&[201])
            .task_is("COMPLETE")
            .check("its output is there", "pm.expect(body.result).to.include({exit_code: 0, stdout: \"hello\\n\"})")
            .check(
                "Location leads to it",
                "pm.expect(pm.response.headers.get(\"Location\")).to.equal(`/v1/tasks/${body.id}`)",
            )
            .check(
                "the wait was honoured",
                "pm.expect(pm.response.headers.get(\"Preference-Applied\")).to.equal(\"wait=10\")",
            )
            .saves("task_id", "body.id"),
        Step::new("getTask", "Get the task").answers(&[200]).task_is("COMPLETE").check(
            "it is the one that was created",
            "pm.expect(body.id).to.equal(pm.collectionVariables.get(\"task_id\"))",
        ),
        Step::new("listTaskAttempts", "List its attempts").answers(&[200]).check(
            "there was one",
            "pm.expect(body.attempts.map((a) => [a.attempt, a.status])).to.deep.equal([[1, \"COMPLETE\"]])",
        ),
        Step::new("retryTask", "A complete task cannot be retried").refused(409, "task_state_conflict"),
        Step::new("cancelTask", "Nor can it be cancelled").refused(409, "task_state_conflict"),
    ]
}

fn delayed() -> Vec<Step> {
    vec![
        Step::new("createTask", "Create a task for later")
            .json("{\n  \"command\": \"echo later\",\n  \"delay_seconds\": 3600,\n  \"tags\": [\"postman\"]\n}")
            .answers(&[201])
            .task_is("QUEUED")
            .check(
                "it is due in an hour",
                "pm.expect(new Date(body.run_at) - new Date(body.created_at)).to.equal(3600000)",
            )
            .saves("task_id", "body.id"),
        Step::new("cancelTask", "Cancel it").answers(&[200]).task_is("CANCELLED"),
        Step::new("cancelTask", "Cancelling again changes nothing").answers(&[200]).task_is("CANCELLED"),
        Step::new("retryTask", "Run it after all").answers(&[200]).check("it is no longer cancelled", NOT_CANCELLED),
        Step::new("getTask", "Wait for its end").waits().answers(&[200]).task_is("COMPLETE"),
    ]
}

fn once() -> Vec<Step> {
    // Another run has another key: the id is that of a task of this one.
    let with_key = |name| Step::new("createTask", name).header("Idempotency-Key", "postman-{{task_id}}");
    vec![
        with_key("Create a task once")
            .json("{\n  \"command\": \"echo once\"\n}")
            .answers(&[201])
            .check("it is new", "pm.expect(pm.response.headers.get(\"Idempotency-Replayed\")).to.not.equal(\"true\")")
            .saves("once_id", "body.id"),
        with_key("The same again creates nothing")
            .json("{\n  \"command\": \"echo once\"\n}")
            .answers(&[201])
            .check("it is the same task", "pm.expect(body.id).to.equal(pm.collectionVariables.get(\"once_id\"))")
            .check(
                "the answer says so",
                "pm.expect(pm.response.headers.get(\"Idempotency-Replayed\")).to.equal(\"true\")",
            ),
        with_key("The same key for another task")
            .json("{\n  \"command\": \"echo twice\"\n}")
            .refused(422, "idempotency_mismatch"),
    ]
}

fn failing() -> Vec<Step> {
    vec![
        Step::new("createTask", "Create a task that fails")
            .json("{\n  \"argv\": [\"false\"],\n  \"max_attempts\": 2,\n  \"retry\": {\"delays_seconds\": [0]}\n}")
            .waits()
            .answers(&[201])
            .task_is("FAILED")
            .check("the error says why", "pm.expect(body.error.code).to.equal(\"exit_status\")")
            .check("all attempts are used", "pm.expect(body.attempt).to.equal(2)")
            .saves("task_id", "body.id"),
        Step::new("listTaskAttempts", "List the failed attempts").answers(&[200]).check(
            "each is there",
            "pm.expect(body.attempts.map((a) => a.status)).to.deep.equal([\"FAILED\", \"FAILED\"])",
        ),
        Step::new("retryTask", "Give it another chance")
            .answers(&[200])
            .check("under the same id", "pm.expect(body.id).to.equal(pm.collectionVariables.get(\"task_id\"))"),
    ]
}

fn requests() -> Vec<Step> {
    vec![
        Step::new("createTask", "Make an HTTP request")
            .json("{\n  \"http\": {\"method\": \"GET\", \"url\": \"{{base_url}}/livez\"},\n  \"max_attempts\": 1,\n  \"priority\": 9\n}")
            .waits()
            .answers(&[201])
            // The address of this gateway may mean something else where the worker runs, or be forbidden there.
            .check(
                "the answer is there, or the worker says why not",
                "body.error ? pm.expect(body.error.code).to.be.oneOf([\"target_refused\", \"connect\"]) : pm.expect(body.result).to.include({http_status: 200, body: \"ok\\n\"})",
            ),
    ]
}

fn batches() -> Vec<Step> {
    vec![
        Step::new("createTaskBatch", "Create tasks together")
            .answers(&[201])
            .check("each has an id", "pm.expect(new Set(body.tasks.map((task) => task.id)).size).to.equal(2)")
            .saves("task_id", "body.tasks[0].id"),
        Step::new("getTask", "Wait for the first of them").waits().answers(&[200]).task_is("COMPLETE"),
        Step::new("createTaskBatch", "One bad item, and none is created")
            .json("{\n  \"tasks\": [\n    {\"command\": \"echo fine\"},\n    {\"command\": \"echo\", \"priority\": 10}\n  ]\n}")
            .refused(422, "validation_failed")
            .names("/tasks/1/priority"),
    ]
}

fn bulk() -> Vec<Step> {
    let counts = |script: &str| format!("pm.expect([body.matched, body.changed, body.more]).to.deep.equal({script})");
    vec![
        Step::new("createTaskBatch", "Create two tasks for tomorrow")
            .json("{\n  \"tasks\": [\n    {\"command\": \"echo one\", \"delay_seconds\": 86400, \"tags\": [\"postman-bulk\"]},\n    {\"command\": \"echo two\", \"delay_seconds\": 86400, \"tags\": [\"postman-bulk\"]}\n  ]\n}")
            .answers(&[201]),
        Step::new("cancelTasks", "How many would be cancelled?")
            .json("{\n  \"dry_run\": true,\n  \"filter\": {\"tag\": \"postman-bulk\"}\n}")
            .answers(&[200])
            .check("both, and none is", &counts("[2, 0, false]")),
        Step::new("cancelTasks", "Cancel them")
            .json("{\n  \"filter\": {\"tag\": \"postman-bulk\"}\n}")
            .answers(&[200])
            .check("both are cancelled", &counts("[2, 2, false]")),
        Step::new("retryTasks", "Run them now")
            .json("{\n  \"filter\": {\"tag\": \"postman-bulk\", \"status\": \"CANCELLED\"}\n}")
            .answers(&[200])
            .check("both are queued", &counts("[2, 2, false]")),
        Step::new("cancelTasks", "Without a filter nothing is cancelled")
            .json("{\n  \"filter\": {}\n}")
            .refused(422, "validation_failed"),
    ]
}

fn lists() -> Vec<Step> {
    vec![
        Step::new("listTasks", "List what is complete, two at a time")
            .query("status", "COMPLETE")
            .query("page_size", "2")
            .answers(&[200])
            .check("two at most", "pm.expect(body.tasks.length).to.be.at.most(2)")
            .check("all are complete", "body.tasks.forEach((task) => pm.expect(task.status).to.equal(\"COMPLETE\"))")
            .saves("page_token", "body.next_page_token"),
        Step::new("listTasks", "The next page")
            .query("status", "COMPLETE")
            .query("page_size", "2")
            .query("page_token", "{{page_token}}")
            .answers(&[200]),
        Step::new("listTasks", "Find tasks by tag")
            .query("tag", "postman")
            .answers(&[200])
            .check("only such", "body.tasks.forEach((task) => pm.expect(task.tags).to.include(\"postman\"))"),
        Step::new("listTasks", "A page token of other filters")
            .query("status", "FAILED")
            .query("page_token", "{{page_token}}")
            .refused(400, "invalid_page_token"),
        Step::new("listTasks", "A filter that does not exist")
            .query("colour", "red")
            .refused(400, "invalid_query")
            .names("colour"),
        Step::new("listTasks", "A status that does not exist")
            .query("status", "RED")
            .refused(400, "invalid_query")
            .names("status"),
    ]
}

fn refusals() -> Vec<Step> {
    vec![
        Step::new("listTasks", "No key, where the gateway wants one").without_key().answers(&[200, 401]).check(
            "it is refused where a key is set",
            "pm.expect(pm.response.code).to.equal(pm.variables.get(\"api_key\") ? 401 : 200)",
        ),
        Step::new("createTask", "No work").json("{}").refused(422, "validation_failed"),
        Step::new("createTask", "Two kinds of work")
            .json("{\n  \"command\": \"echo\",\n  \"argv\": [\"echo\"]\n}")
            .refused(422, "validation_failed"),
        Step::new("createTask", "A value out of bounds")
            .json("{\n  \"command\": \"echo\",\n  \"priority\": 10\n}")
            .refused(422, "validation_failed")
            .names("/priority"),
        Step::new("createTask", "An unknown field")
            .json("{\n  \"command\": \"echo\",\n  \"colour\": \"red\"\n}")
            .refused(422, "invalid_body")
            .names("/colour"),
        Step::new("createTask", "Not JSON").json("{\"command\"").refused(400, "invalid_json"),
        Step::new("createTask", "Not the right media type")
            .other("text/plain", "echo hello")
            .refused(415, "unsupported_media_type"),
        Step::new("getTask", "Get a task that is not there").path("id", NO_TASK).refused(404, "task_not_found"),
        Step::new("getTask", "Not an id").path("id", "seven").refused(400, "invalid_path"),
        Step::new("listTaskAttempts", "List the attempts of one that is not there")
            .path("id", NO_TASK)
            .refused(404, "task_not_found"),
        Step::new("cancelTask", "Cancel one that is not there").path("id", NO_TASK).refused(404, "task_not_found"),
        Step::new("retryTask", "Retry one that is not there").path("id", NO_TASK).refused(404, "task_not_found"),
    ]
}

fn events() -> Vec<Step> {
    vec![
        Step::new("streamEvents", "Follow what happens (endless)").answers(&[200]),
        Step::new("streamEvents", "A kind of event that does not exist")
            .query("types", "task.eaten")
            .refused(400, "invalid_query")
            .names("types"),
    ]
}

fn fleet() -> Vec<Step> {
    vec![
        Step::new("getStats", "Counts, backlog, rates")
            .answers(&[200])
            .check("this run is counted", "pm.expect(body.tasks.complete).to.be.at.least(2)")
            .check("somebody works", "pm.expect(body.fleet.workers).to.be.at.least(1)"),
        Step::new("listWorkers", "Who works?")
            .answers(&[200])
            .check("somebody does", "pm.expect(body.workers.length).to.be.at.least(1)")
            .saves("worker_id", "body.workers[0].worker_id"),
        Step::new("scaleWorkers", "Have more workers").answers(&[200, 501]).check(
            "it will be, or this host says how it scales",
            "body.code ? pm.expect(body.code).to.equal(\"scaling_unsupported\") : pm.expect(body.workers).to.equal(3)",
        ),
        Step::new("scaleWorkers", "Fewer than none")
            .json("{\n  \"workers\": -1\n}")
            .refused(422, "validation_failed")
            .names("/workers"),
        Step::new("drainWorker", "Have one worker leave").answers(&[202]),
        Step::new("drainWorker", "No such worker").path("worker_id", "nobody").refused(404, "worker_not_found"),
        Step::new("createTask", "A task that waits for a worker with a label")
            .json("{\n  \"command\": \"echo on a GPU\",\n  \"requires\": {\"gpu\": \"a100\"}\n}")
            .answers(&[201])
            .task_is("QUEUED")
            .check("it says what it requires", "pm.expect(body.requires).to.eql({ gpu: \"a100\" })")
            .saves("waiting_id", "body.id"),
        Step::new("cancelTask", "It need not be done").path("id", "{{waiting_id}}").answers(&[200]).task_is("CANCELLED"),
        Step::new("putUrlWorker", "A function, called once a task")
            .path("worker_id", "thumbnails")
            .answers(&[201, 200])
            .check("its secret is not shown", "pm.expect(body).to.not.have.property(\"push_secret\")"),
        Step::new("putUrlWorker", "A function without queues")
            .path("worker_id", "thumbnails")
            .json("{\n  \"url\": \"https://example.com/run\",\n  \"queues\": [],\n  \"push_secret\": \"a-secret-of-this-function\"\n}")
            .refused(422, "validation_failed")
            .names("/queues"),
        Step::new("listUrlWorkers", "Which URLs are called?")
            .answers(&[200])
            .check("it is among them", "pm.expect(body.url_workers.map((w) => w.worker_id)).to.include(\"thumbnails\")"),
        Step::new("getUrlWorker", "Does it take its calls?").path("worker_id", "thumbnails").answers(&[200]),
        Step::new("deleteUrlWorker", "Call it no more").path("worker_id", "thumbnails").answers(&[204]),
        Step::new("getUrlWorker", "It is gone").path("worker_id", "thumbnails").refused(404, "worker_not_found"),
    ]
}

fn keys() -> Vec<Step> {
    let id = |step: Step| step.path("id", "{{key_id}}");
    vec![
        Step::new("createKey", "Make a key")
            .answers(&[201])
            .check("its token is shown", "pm.expect(body.token).to.match(/^tm_[0-9A-Za-z]{12}_[0-9A-Za-z]{43}$/)")
            .saves("key_id", "body.id"),
        Step::new("createKey", "A scope that does not exist")
            .json("{\n  \"name\": \"x\",\n  \"scopes\": [\"tasks\"]\n}")
            .refused(422, "invalid_body")
            .names("/scopes/0"),
        Step::new("createKey", "No name, no scope")
            .json("{\n  \"name\": \"\",\n  \"scopes\": []\n}")
            .refused(422, "validation_failed")
            .names("/name"),
        Step::new("createKey", "Under an idempotency key")
            .header("Idempotency-Key", "once")
            .refused(400, "invalid_header")
            .names("Idempotency-Key"),
        Step::new("listKeys", "Which keys are there?").query("page_size", "10").answers(&[200]).check(
            "nobody sees a secret",
            "body.keys.forEach((key) => pm.expect(key).to.not.have.property(\"token\"))",
        ),
        id(Step::new("getKey", "One key"))
            .answers(&[200])
            .check("it works", "pm.expect(body.status).to.equal(\"ACTIVE\")"),
        id(Step::new("rotateKey", "Give it a new secret"))
            .answers(&[200])
            .check("the old one works for a while", "pm.expect(body).to.have.property(\"previous_secret_expires_at\")"),
        id(Step::new("revokeKey", "Revoke it")).answers(&[204]),
        id(Step::new("getKey", "It stays for the record"))
            .answers(&[200])
            .check("it is revoked", "pm.expect(body.status).to.equal(\"REVOKED\")"),
        id(Step::new("rotateKey", "Rotate a revoked key")).refused(409, "key_not_active"),
        Step::new("revokeKey", "No such key").path("id", NO_KEY).refused(404, "key_not_found"),
        Step::new("getKey", "Not an id").path("id", "seven").refused(400, "invalid_path"),
    ]
}

fn webhooks() -> Vec<Step> {
    let id = |step: Step| step.path("id", "{{webhook_id}}");
    vec![
        Step::new("createWebhook", "Be told when tasks fail")
            .answers(&[201])
            .check("its secret is shown", "pm.expect(body.secret).to.match(/^whsec_/)")
            .saves("webhook_id", "body.id"),
        Step::new("createWebhook", "Where nobody can be")
            .json("{\n  \"url\": \"ftp://example.com\",\n  \"events\": [\"task.failed\"],\n  \"only\": \"failures\"\n}")
            .refused(422, "validation_failed")
            .names("/url")
            .names("/only"),
        Step::new("listWebhooks", "Who is told of what?").answers(&[200]).check(
            "nobody sees a secret",
            "body.webhooks.forEach((webhook) => pm.expect(webhook).to.not.have.property(\"secret\"))",
        ),
        id(Step::new("getWebhook", "One webhook"))
            .answers(&[200])
            .check("it is enabled", "pm.expect(body.enabled).to.be.true"),
        id(Step::new("changeWebhook", "Be told of more"))
            .header("If-Match", "\"1\"")
            .answers(&[200])
            .check("it is another version", "pm.expect(body.version).to.equal(2)"),
        id(Step::new("changeWebhook", "What somebody else has changed"))
            .header("If-Match", "\"1\"")
            .refused(412, "precondition_failed"),
        id(Step::new("rotateWebhook", "Give it a new secret"))
            .answers(&[200])
            .check("both are used for a while", "pm.expect(body).to.have.property(\"previous_secret_expires_at\")"),
        id(Step::new("testWebhook", "Send a test event"))
            .answers(&[202])
            .check("it is one", "pm.expect(body.event_type).to.equal(\"webhook.test\")")
            .saves("delivery_id", "body.id"),
        id(Step::new("listDeliveries", "What was sent?"))
            .query("page_size", "10")
            .answers(&[200])
            .check("the test was", "pm.expect(body.deliveries.map((d) => d.event_type)).to.include(\"webhook.test\")"),
        id(Step::new("getDelivery", "What was answered?"))
            .answers(&[200])
            .check("it is a CloudEvent", "pm.expect(JSON.parse(body.request.body).specversion).to.equal(\"1.0\")"),
        id(Step::new("replayDelivery", "Send it once more")).answers(&[202]),
        id(Step::new("replayDeliveries", "Which failed?"))
            .answers(&[200])
            .check("nothing is sent", "pm.expect(body.replayed).to.equal(0)"),
        id(Step::new("deleteWebhook", "Be told no more")).answers(&[204]),
        Step::new("getWebhook", "No such webhook").path("id", NO_WEBHOOK).refused(404, "webhook_not_found"),
        Step::new("getDelivery", "No such delivery").path("id", NO_WEBHOOK).refused(404, "delivery_not_found"),
    ]
}
