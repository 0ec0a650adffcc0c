// Graphile Worker: finished jobs are deleted.

import { Logger, makeWorkerUtils, run } from "graphile-worker";
import pg from "pg";

const CONNECTIONS = 20;

export async function setUp() {
  const pgPool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: CONNECTIONS });
  const logger = new Logger(() => (level, message) => level === "error" && console.error(message));
  const utils = await makeWorkerUtils({ pgPool, logger });
  await utils.migrate();
  return {
    insert: (jobs) => utils.addJobs(jobs.map((payload) => ({ identifier: "job", payload }))),
    start: (handle) =>
      run({
        pgPool,
        logger,
        noHandleSignals: true,
        pollInterval: 20,
        taskList: { job: async (payload) => handle(payload) },
        preset: { worker: { concurrentJobs: 32, localQueue: { size: 1000 }, completeJobBatchDelay: 1 } },
      }),
    left: async () => {
      const { rows } = await pgPool.query("SELECT count(*) FROM graphile_worker._private_jobs");
      return Number(rows[0].count);
    },
  };
}
