// Swagger UI as its users meet it: a gateway that wants keys, and one that does not.

import assert from "node:assert/strict";
import test, { after, before } from "node:test";
import { Docs, assertDocumented, exampleOf, operationsOf } from "./page.mjs";

/** A gateway that wants keys, a key of it that allows everything, and a gateway that wants none. */
const { KEYED_URL, KEY, OPEN_URL } = process.env;

let docs, document, operations;
const find = (id) => operations.find((operation) => operation.operationId === id);
const shown = (id) => docs.operation(find(id)).unfold();

before(async () => {
  docs = await Docs.open(KEYED_URL);
  document = await docs.document();
  operations = operationsOf(document);
});

after(() => docs?.close());

/** Takes what the browser has said about refused calls out of its complaints. */
function forgive(status) {
  const isThat = (complaint) => complaint.startsWith(`Failed to load resource: the server responded with a status of ${status} `);
  assert.ok(docs.complaints.some(isThat), `${status}: ${docs.complaints}`);
  docs.complaints = docs.complaints.filter((complaint) => !isThat(complaint));
}

test("whoever opens the page of a gateway that wants keys is asked for one", async () => {
  assert.equal(await docs.page.title(), "TaskMaster API");
  await docs.dialogue.waitFor();
  await docs.picture("key-dialogue");
  assert.match(await docs.dialogue.innerText(), /api_key[\s\S]*tm_<id>_<secret>/);
  await docs.dialogue.locator(".btn-done").click();
  assert.match(await docs.keyPrompt.innerText(), /wants an API key/);
  await docs.picture("key-prompt");

  const listed = await (await shown("listTasks")).execute();
  assert.equal(listed.status, 401);
  forgive(401);
});

test("a wrong key is said to be wrong, in the gateway's words", async () => {
  await docs.page.locator("#key-enter").click();
  await docs.authorise("tm_wrong");
  await docs.keyPrompt.waitFor({ state: "hidden" });
  const refused = await (await shown("listTasks")).execute();
  assert.equal(refused.status, 401);
  assert.equal(await docs.page.locator("#key-said").innerText(), JSON.parse(refused.text).detail);
  await docs.picture("wrong-key");
  forgive(401);
});

test("the right key is kept, also when the page is loaded again", async () => {
  await docs.page.locator("#key-enter").click();
  await docs.authorise(KEY);
  assert.equal((await (await shown("listTasks")).execute()).status, 200);
  assert.equal(await docs.keyPrompt.isVisible(), false);

  await docs.visit("/docs/");
  assert.equal(await docs.dialogue.count(), 0);
  assert.equal((await (await shown("listTasks")).execute()).status, 200);
  assert.equal(await docs.keyPrompt.isVisible(), false);
  await docs.picture("authorised");
  await docs.operation(find("listTasks")).fold();
});

test("create, get, cancel, retry: the id goes from one call to the next", async () => {
  const create = await shown("createTask");
  const first = await create.execute();
  assert.equal(first.status, 201, first.text);
  const done = JSON.parse(first.text);
  assert.equal(done.status, "COMPLETE", "the example waits for the end");
  await docs.picture("created");

  const get = await shown("getTask");
  assert.equal(await get.field({ name: "id", in: "path" }).inputValue(), done.id);
  assert.deepEqual(JSON.parse((await get.execute()).text).result, done.result);
  const attempts = await (await shown("listTaskAttempts")).execute();
  assert.equal(JSON.parse(attempts.text).attempts.length, 1);

  await create.clear("Prefer");
  await create.body.fill(JSON.stringify({ ...JSON.parse(await create.body.inputValue()), delay_seconds: 3600 }));
  const second = JSON.parse((await create.execute()).text);
  assert.notEqual(second.id, done.id);
  for (const [id, status] of [["cancelTask", "CANCELLED"], ["getTask", "CANCELLED"], ["retryTask", "QUEUED"]]) {
    const call = await shown(id);
    assert.equal(await call.field({ name: "id", in: "path" }).inputValue(), second.id, id);
    await call.clear("Prefer");
    const answer = await call.execute();
    assert.equal(answer.status, 200, answer.text);
    assert.equal(JSON.parse(answer.text).status, status, id);
    await call.fold();
  }
  const listed = JSON.parse((await (await shown("listTasks")).execute()).text).tasks.map((task) => task.id);
  assert.ok(listed.includes(done.id) && listed.includes(second.id));
  const stats = JSON.parse((await (await shown("getStats")).execute()).text);
  assert.ok(stats.tasks.complete >= 1);
});

/** In which order to go, and what must come of it; of operations that are not named here, anything documented that is not a failure
 * of the gateway's own. */
const TOUR = {
  createTask: 201,
  getTask: 200,
  listTasks: 200,
  listTaskAttempts: 200,
  createTaskBatch: 201,
  cancelTasks: 200,
  retryTasks: 200,
  streamEvents: 200,
  getStats: 200,
  scaleWorkers: 200,
  listWorkers: 200,
  drainWorker: 202,
  putUrlWorker: 201,
  listUrlWorkers: 200,
  createSchedule: 201,
  getSchedule: 200,
  triggerSchedule: 201,
  listScheduleRuns: 200,
  changeQueue: 200,
  listQueues: 200,
  getQueue: 200,
  pauseQueue: 200,
  resumeQueue: 200,
  purgeQueue: 200,
  createWebhook: 201,
  getWebhook: 200,
  testWebhook: 202,
  listDeliveries: 200,
  getDelivery: 200,
  createHook: 201,
  getHook: 200,
  listHookDeliveries: 200,
  receiveHook: 401,
  createKey: 201,
  listKeys: 200,
  getKey: 200,
  rotateKey: 200,
  revokeKey: 204,
  listSigningSecrets: 200,
  rotateSigningSecret: 200,
  livez: 200,
  readyz: 200,
};

test("every operation is filled in from its examples, and answers", async () => {
  await docs.visit("/docs/");
  const named = Object.keys(TOUR).map(find);
  // What creates comes before what asks for an id, and what deletes at the end.
  const turn = ({ path, method }) => (method === "delete" ? 2 : path.includes("{") ? 1 : 0);
  const others = operations.filter((operation) => !named.includes(operation)).sort((a, b) => turn(a) - turn(b));
  assert.ok(named.every(Boolean));
  for (const operation of [...named, ...others]) {
    const id = operation.operationId;
    const call = await docs.operation(operation).unfold();
    if (operation.requestBody) {
      const example = exampleOf(document, operation);
      assert.ok(example, `${id} has no example`);
      assert.deepEqual(JSON.parse(await call.body.inputValue()), example, id);
    }
    for (const parameter of operation.parameters ?? []) {
      const value = await call.field(parameter).inputValue();
      if (parameter.required) assert.notEqual(value, "", `${id}: ${parameter.name} is not filled in`);
      else assert.equal(value, parameter.name === "Prefer" ? parameter.example : String(parameter.schema.default ?? ""), `${id}: ${parameter.name}`);
    }
    if (id === "streamEvents") await call.field({ name: "after", in: "query" }).fill("0");
    const answer = await call.execute();
    await docs.picture(`operation-${id}`);
    assertDocumented(operation, answer.status);
    assert.ok(TOUR[id] ? answer.status === TOUR[id] : answer.status < 500, `${id}: ${answer.status} ${answer.text}`);
    if (answer.status >= 400) forgive(answer.status);
    if (id === "streamEvents") assert.match(answer.text, /^event: task\./m);
    await call.fold();
  }
});

test("the other documents are there; what cannot be called from here is only shown", async () => {
  const names = await docs.page.locator("#select option").allInnerTexts();
  assert.deepEqual(names.map((name) => name.split(":")[0]), ["TaskMaster", "Coordinator", "Worker"]);
  const elsewhere = docs.page.locator("#elsewhere");
  const choose = async (place, id) => {
    await docs.page.locator("#select").selectOption({ index: place });
    await docs.page.locator(`[id$="-${id}"]`).waitFor();
    return operationsOf(await docs.document()).find((operation) => operation.operationId === id);
  };

  // What workers say is passed on by the gateway, and refused without their token.
  const heartbeat = await docs.operation(await choose(1, "sendHeartbeat")).unfold();
  await heartbeat.field({ name: "worker_id", in: "path" }).fill("worker-1");
  assert.equal((await heartbeat.execute()).status, 401);
  await docs.picture("coordinator");
  forgive(401);
  assert.equal(await elsewhere.isVisible(), false);

  const submit = docs.operation(await choose(2, "submitTask"));
  await submit.block.locator(".opblock-summary-control").click();
  await submit.block.locator(".opblock-body .responses-wrapper").waitFor();
  assert.equal(await submit.block.locator(".btn.execute").count(), 0);
  assert.equal(await elsewhere.isVisible(), true);
  await docs.picture("worker");

  await choose(0, "createTask");
  assert.equal(await elsewhere.isVisible(), false);
  assert.equal(await docs.keyPrompt.isVisible(), false);
});

test("the browser has complained of nothing, and asked no other host", () => {
  assert.deepEqual(docs.complaints, []);
  assert.deepEqual([...docs.hosts], [new URL(KEYED_URL).host]);
});

test("the page of a gateway without keys asks for none", async () => {
  const open = await Docs.open(OPEN_URL);
  try {
    assert.equal(await open.dialogue.count(), 0);
    assert.equal(await open.keyPrompt.isVisible(), false);
    const create = await open.operation(find("createTask")).unfold();
    const answer = await create.execute();
    assert.equal(answer.status, 201, answer.text);
    await open.picture("open-gateway");
    assert.deepEqual(open.complaints, []);
    assert.deepEqual([...open.hosts], [new URL(OPEN_URL).host]);
  } finally {
    await open.close();
  }
});
