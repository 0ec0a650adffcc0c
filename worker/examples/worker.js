#!/usr/bin/env node
// A TaskMaster worker for Node.js 18 and newer, of its standard library alone, written from docs/workers.md.
// It runs HTTP tasks, with --allow-commands commands as well: node worker.js --coordinator URL --join-token SECRET
'use strict';
const { spawn } = require('node:child_process');
const { createHash, randomBytes, randomUUID, timingSafeEqual } = require('node:crypto');
const http = require('node:http');
const https = require('node:https');
const { parseArgs } = require('node:util');

const { values: options } = parseArgs({ options: {
  'coordinator': { type: 'string', default: process.env.TASKMASTER_COORDINATOR_URL ?? 'http://127.0.0.1:8080' },
  'join-token': { type: 'string', default: process.env.TASKMASTER_JOIN_TOKEN ?? '' },
  'label': { type: 'string', multiple: true, default: [] }, // name=value
  'port': { type: 'string', default: '0' },
  'allow-commands': { type: 'boolean', default: false },
} });
const SLOTS = 5, QUEUE = 100, BATCH = 100, REMEMBERED = 10_000, OUTPUT_BYTES = 65_536, BODY_BYTES = 64 * 1024 * 1024;
const LABELS = Object.fromEntries(options.label.map((label) => label.split(/=(.*)/s, 2)));

// Who it is, and whom it knows.
const me = randomUUID(), pushSecret = randomBytes(32).toString('hex');
let token = options['join-token'], coordinators = [], leaseUntil = 0, draining = false, wakeHeart = () => {};

// What it holds, by `task_id claim`. Every claim goes one way: waiting, running, an outcome that is unsent, over.
const waiting = new Map(); // { task, due }
const running = new Map(); // { stop }
const unsent = new Map(); // { report, start, end }; a start is said at once, and its place taken by the end
const over = new Map(); // remembered for a while, so that a late copy of a push does not run again

const now = () => performance.now();
const keyOf = ({ task_id, claim }) => `${task_id} ${claim}`;
const claimOf = (key) => ({ task_id: key.split(' ')[0], claim: Number(key.split(' ')[1]) });
const room = () => draining ? 0 : Math.max(0, SLOTS + QUEUE - waiting.size - running.size);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// One HTTP request: redirects are not followed, and every status is an answer.
function request(url, { method, headers = {}, body, signal, bytesMax = BODY_BYTES }) {
  return new Promise((resolve, reject) => {
    const module = url.startsWith('https:') ? https : http;
    const length = body ? { 'Content-Length': Buffer.byteLength(body) } : {};
    const sent = module.request(url, { method, headers: { ...headers, ...length }, signal }, (answer) => {
      const parts = [];
      let size = 0;
      answer.on('data', (part) => { if (size < bytesMax) parts.push(part); size += part.length; });
      answer.on('error', reject);
      answer.on('end', () => {
        const kept = Buffer.concat(parts).subarray(0, bytesMax);
        resolve({ status: answer.statusCode, body: kept.toString(), truncated: size > bytesMax });
      });
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

// Asks home, then the others; null when nobody answers.
async function call(method, path, body) {
  for (const address of new Set([...coordinators, options.coordinator])) {
    try {
      const headers = { 'Content-Type': 'application/json', 'Authorization': `Bearer ${token}` };
      const signal = AbortSignal.timeout(5_000);
      const answer = await request(address + path, { method, headers, body: body && JSON.stringify(body), signal });
      if (answer.status < 300) return answer.body ? JSON.parse(answer.body) : {};
      if (answer.status === 401) token = options['join-token']; // join again
    } catch { /* nobody there, or the answer was lost: the next one */ }
  }
  return null;
}

// Says what is held; hears what to let go of, and until when tasks may be started.
async function heartbeat() {
  const sent = now();
  const answer = await call('POST', `/v1/workers/${me}/heartbeat`, {
    address: `http://127.0.0.1:${server.address().port}`, slots: SLOTS, room: room(), draining, labels: LABELS,
    abilities: { commands: options['allow-commands'], http: true }, push_secret: pushSecret,
    held: [...new Set([...waiting.keys(), ...running.keys(), ...unsent.keys()])].map(claimOf),
  });
  if (!answer) return 1_000;
  token = answer.token;
  coordinators = [answer.home.address, ...answer.coordinators];
  leaseUntil = sent + answer.lease_ms; // from the sending on: the answer may have been slow
  if (answer.drain) drain();
  for (const claim of answer.stop) stop(keyOf(claim));
  startDue();
  return answer.heartbeat_ms;
}

function stop(key) {
  if (waiting.delete(key)) say(key, { status: 'RELEASED' });
  running.get(key)?.stop();
}

function drain() {
  draining = true;
  for (const key of [...waiting.keys()]) stop(key); // a copy: stopping takes them away
  wakeHeart();
}

// What coordinators ask of a worker.
function submit(task) {
  const key = keyOf(task);
  if ([waiting, running, unsent, over].some((known) => known.has(key))) return 'already_held';
  if (draining || now() > leaseUntil) return 'draining';
  if (!task.work.http && !options['allow-commands']) return 'unsupported';
  if (room() === 0) return 'no_room';
  waiting.set(key, { task, due: now() + (task.start_in_ms ?? 0) });
  return 'accepted';
}

function release(task, andStop) {
  const key = keyOf(task);
  if (waiting.delete(key)) { remember(key); return 'released'; }
  if (!running.has(key)) return unsent.has(key) ? 'running' : 'unknown';
  if (andStop) stop(key);
  return andStop ? 'stopping' : 'running';
}

const digest = (text) => createHash('sha256').update(text).digest();
const server = http.createServer(async (asked, answer) => {
  const respond = (status, body) => {
    const type = status < 300 ? 'application/json' : 'application/problem+json';
    answer.writeHead(status, { 'Content-Type': type }).end(JSON.stringify(body));
  };
  const problem = (status, code, detail) =>
    respond(status, { type: 'about:blank', title: code, status, code, detail, request_id: randomUUID() });
  const act = { '/v1/tasks': submit, '/v1/tasks/release': release }[asked.url];
  if (asked.method !== 'POST' || !act) return problem(404, 'not_found', 'there is nothing at this path');
  // Digests have one length, whatever was sent, and the comparison takes one time.
  const given = digest(asked.headers.authorization ?? ''), right = digest(`Bearer ${pushSecret}`);
  if (!timingSafeEqual(given, right)) return problem(401, 'unauthorized', 'the push secret is missing or wrong');
  try {
    const parts = [];
    for await (const part of asked) parts.push(part);
    const body = JSON.parse(Buffer.concat(parts).toString());
    const isTask = (task) => typeof task.task_id === 'string' && Number.isInteger(task.claim) && (act !== submit || task.work);
    if (!body.tasks.every(isTask)) throw new Error('tasks must have ids, claims and work');
    if (act === submit && body.worker_id !== me) throw new Error('this is for another worker');
    const results = body.tasks.map((task) => ({ ...claimOf(keyOf(task)), code: act(task, body.stop) }));
    respond(200, act === submit ? { results, room: room() } : { results });
    startDue();
  } catch (error) {
    problem(422, 'validation_failed', String(error.message));
  }
});

// Starts what is due, while there are slots and the lease lasts; sets the alarm for what is due next.
let alarm;
function startDue() {
  clearTimeout(alarm);
  const line = [...waiting].sort(([, a], [, b]) => a.due - b.due);
  for (const [key, { task, due }] of line) {
    if (running.size >= SLOTS || draining || now() >= leaseUntil) return; // a slot's end or a heartbeat calls again
    if (due > now()) { alarm = setTimeout(startDue, Math.min(due - now(), 2 ** 31 - 1)); return; }
    waiting.delete(key);
    run(key, task);
  }
}

async function run(key, task) {
  const start = now(), attempt = new AbortController();
  let ended; // why it was ended, if it was
  const end = (why) => { ended ??= why; attempt.abort(); };
  const timer = setTimeout(() => end('timeout'), task.timeout_ms);
  running.set(key, { stop: () => end('stop') });
  say(key, { status: 'STARTED' }, start);
  let report;
  try {
    report = await (task.work.http ? runHttp : runCommand)(task, attempt.signal);
  } catch (error) {
    report = failed('worker_error', String(error));
  }
  clearTimeout(timer);
  if (ended === 'timeout') report = failed('timeout', `the attempt took longer than ${task.timeout_ms} ms`, report.result);
  if (ended === 'stop') report = { status: 'CANCELLED', result: report.result };
  running.delete(key);
  say(key, report, start, now());
  startDue();
}

const failed = (code, message, result) => ({ status: 'FAILED', error: { code, message: message.slice(0, 1_000) }, result });

async function runHttp({ task_id, attempt, work: { http: { method, url, headers, body, body_base64 } } }, signal) {
  const own = { 'TaskMaster-Task-Id': task_id, 'TaskMaster-Attempt': String(attempt) };
  const bytes = body_base64 === undefined ? body : Buffer.from(body_base64, 'base64');
  const sent = { method, headers: { ...headers, ...own }, body: bytes, signal, bytesMax: OUTPUT_BYTES };
  const answer = await request(url, sent);
  const result = { http_status: answer.status, body: answer.body, body_truncated: answer.truncated };
  if (answer.status >= 200 && answer.status < 300) return { status: 'COMPLETE', result };
  return failed('http_status', `the target answered ${answer.status}`, result);
}

function runCommand({ work: { argv, command } }, signal) {
  return new Promise((resolve, reject) => {
    const [program, ...args] = argv ?? ['/bin/sh', '-c', command];
    // With none of this worker's own secrets, and a group of its own, so that all of it can be ended.
    const child = spawn(program, args, { env: { PATH: process.env.PATH }, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
    const kill = () => { try { process.kill(-child.pid, 'SIGKILL'); } catch { /* it has ended */ } };
    const result = {};
    for (const name of ['stdout', 'stderr']) {
      const parts = [];
      let size = 0;
      child[name].on('data', (part) => { if (size < OUTPUT_BYTES) parts.push(part); size += part.length; });
      child[name].on('close', () => { result[name] = Buffer.concat(parts).subarray(0, OUTPUT_BYTES).toString(); });
    }
    signal.addEventListener('abort', kill);
    child.on('error', reject);
    child.on('close', (code) => {
      signal.removeEventListener('abort', kill);
      if (code !== null) result.exit_code = code;
      resolve(code === 0 ? { status: 'COMPLETE', result } : failed('exit_status', `the command ended with ${code ?? 'a signal'}`, result));
    });
  });
}

// Keeps what is to be said until a coordinator has answered it.
let sending = false;
function say(key, report, start, end) {
  unsent.set(key, { report, start, end });
  if (!sending) sendReports();
}

function remember(key) {
  over.set(key, true);
  if (over.size > REMEMBERED) over.delete(over.keys().next().value);
}

async function sendReports() {
  sending = true;
  while (unsent.size > 0) {
    const batch = [...unsent].slice(0, BATCH);
    const msAgo = (at) => at === undefined ? undefined : Math.floor(now() - at);
    const reports = batch.map(([key, { report, start, end }]) =>
      ({ ...claimOf(key), ...report, started_ms_ago: msAgo(start), ended_ms_ago: msAgo(end) }));
    const answer = await call('POST', '/v1/task-status', { worker_id: me, reports });
    const final = (i) => answer?.results?.[i] && answer.results[i].code !== 'not_recorded';
    batch.forEach(([key, said], i) => {
      if (!final(i)) return;
      if (answer.results[i].stop) stop(key);
      if (unsent.get(key) !== said) return; // there is more to say by now
      unsent.delete(key);
      if (!running.has(key)) remember(key);
    });
    if (!batch.every((_, i) => final(i))) await sleep(500);
  }
  sending = false;
}

async function main() {
  await new Promise((resolve) => server.listen(Number(options.port), '127.0.0.1', resolve));
  process.on('SIGTERM', drain).on('SIGINT', drain);
  while (!draining || waiting.size + running.size + unsent.size > 0) {
    const pause = await heartbeat();
    await new Promise((resolve) => { wakeHeart = resolve; setTimeout(resolve, Math.min(pause, draining ? 500 : pause)); });
  }
  await call('DELETE', `/v1/workers/${me}`);
  process.exit(0);
}
main();
