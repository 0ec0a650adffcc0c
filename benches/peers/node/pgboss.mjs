// pg-boss, with its fetch and complete, which are faster than its work: finished jobs are kept.

import { setTimeout as sleep } from "node:timers/promises";

import pg from "pg";
import PgBoss from "pg-boss";

const CONNECTIONS = 20;
const QUEUE = "bench";
const WORKERS = 2;
const BATCH = 2000;
const POLL_MS = 20;

export async function setUp() {
  const connectionString = process.env.DATABASE_URL;
  const boss = new PgBoss({ connectionString, max: CONNECTIONS });
  boss.on("error", (error) => console.error(error));
  await boss.start();
  await boss.createQueue(QUEUE);
  const pool = new pg.Pool({ connectionString, max: 1 });
  return {
    insert: (jobs) => boss.insert(jobs.map((data) => ({ name: QUEUE, data }))),
    start: async (handle) => {
      for (let worker = 0; worker < WORKERS; worker += 1) work(boss, handle);
    },
    left: async () => {
      const { rows } = await pool.query("SELECT count(*) FROM pgboss.job WHERE name = $1 AND state <> 'completed'", [QUEUE]);
      return Number(rows[0].count);
    },
  };
}

async function work(boss, handle) {
  for (;;) {
    const jobs = await boss.fetch(QUEUE, { batchSize: BATCH });
    if (jobs.length === 0) {
      await sleep(POLL_MS);
      continue;
    }
    for (const { data } of jobs) handle(data);
    await boss.complete(QUEUE, jobs.map(({ id }) => id));
  }
}
