// BullMQ on Redis: finished jobs are kept.

import { Queue, Worker } from "bullmq";

const QUEUE = "bench";
const CONCURRENCY = 256;

export async function setUp() {
  const connection = { host: "127.0.0.1", port: Number(process.env.REDIS_PORT), maxRetriesPerRequest: null };
  const queue = new Queue(QUEUE, { connection });
  await queue.waitUntilReady();
  return {
    insert: (jobs) => queue.addBulk(jobs.map((data) => ({ name: "job", data }))),
    start: async (handle) => {
      const worker = new Worker(QUEUE, async ({ data }) => handle(data), { connection, concurrency: CONCURRENCY });
      worker.on("error", (error) => console.error(error));
      await worker.waitUntilReady();
    },
    left: async (tasks) => tasks - (await queue.getCompletedCount()),
  };
}
