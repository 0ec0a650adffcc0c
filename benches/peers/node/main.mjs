// One peer on Node, measured once: node main.mjs PEER MEASURE. Prints one line of JSON.
// The same measurements as src/measure.rs, with the same flags.

import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

const LOOK_EVERY_MS = 5;
// Workers listen and are connected before anything is measured.
const WARM_UP_MS = 1000;
const LATENCY_EVERY_MS = 20;

const PEERS = { "graphile-worker-node": "./graphile.mjs", "pg-boss": "./pgboss.mjs", bullmq: "./bullmq.mjs" };
const MEASURES = { drain, both, sustained, latency };

const { positionals, values: flags } = parseArgs({
  allowPositionals: true,
  options: Object.fromEntries(
    ["tasks", "batch", "connections", "seconds", "backlog"].map((name) => [name, { type: "string" }]),
  ),
});
const args = Object.fromEntries(Object.entries(flags).map(([name, value]) => [name, Number(value)]));

let handled = 0;
const latencies = [];

/** All that a worker does with a job. */
function handle(job) {
  if (job.sent) latencies.push(performance.timeOrigin + performance.now() - job.sent);
  handled += 1;
}

/** The payload is what `taskmaster bench` sends. */
const jobs = (count) => Array.from({ length: count }, () => ({ command: "true" }));

async function drain(peer) {
  const began = performance.now();
  await insertAll(peer);
  const insert = since(began);
  await peer.start(handle);
  await allDone(peer, args.tasks);
  return { handled, insert, total: since(began) };
}

async function both(peer) {
  await peer.start(handle);
  await sleep(WARM_UP_MS);
  const began = performance.now();
  const inserting = insertAll(peer).then(() => since(began));
  const [insert] = await Promise.all([inserting, allDone(peer, args.tasks)]);
  return { handled, insert, total: since(began) };
}

async function sustained(peer) {
  await peer.start(handle);
  await sleep(WARM_UP_MS);
  const began = performance.now();
  let inserted = 0;
  async function produce() {
    while (since(began) < args.seconds) {
      if (inserted - handled + args.batch <= args.backlog) {
        inserted += args.batch;
        await peer.insert(jobs(args.batch));
      } else {
        await sleep(LOOK_EVERY_MS);
      }
    }
  }
  const producers = Array.from({ length: args.connections }, produce);
  const [samples] = await Promise.all([sample(began), ...producers]);
  await allDone(peer, inserted);
  return { handled, inserted, samples };
}

async function latency(peer) {
  await peer.start(handle);
  await sleep(WARM_UP_MS);
  for (let sent = 0; sent < args.tasks; sent += 1) {
    await peer.insert([{ command: "true", sent: performance.timeOrigin + performance.now() }]);
    await sleep(LATENCY_EVERY_MS);
  }
  await allDone(peer, args.tasks);
  return { handled, latencies_ms: latencies };
}

async function insertAll(peer) {
  let inserted = 0;
  async function produce() {
    while (inserted < args.tasks) {
      const count = Math.min(args.batch, args.tasks - inserted);
      inserted += count;
      await peer.insert(jobs(count));
    }
  }
  await Promise.all(Array.from({ length: args.connections }, produce));
}

/** How many jobs were handled after each tenth of the time. */
async function sample(began) {
  const samples = [];
  for (let tenth = 1; tenth <= 10; tenth += 1) {
    await sleep(Math.max(0, (args.seconds * tenth) / 10 - since(began)) * 1000);
    samples.push(handled);
  }
  return samples;
}

/** The handlers' count is looked at first: asking the database all the time would slow it down. */
async function allDone(peer, tasks) {
  while (handled < tasks || (await peer.left(tasks)) > 0) await sleep(LOOK_EVERY_MS);
}

const since = (began) => (performance.now() - began) / 1000;

const [name, measure] = positionals;
const { setUp } = await import(PEERS[name]);
console.log(JSON.stringify(await MEASURES[measure](await setUp())));
// Workers are still running; all that they have done is in the database.
process.exit(0);
