//! graphile_worker for Rust: finished jobs are deleted.

use std::time::Duration;

use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, TaskHandler, WorkerContext, WorkerOptions, WorkerUtils,
};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::job::Job;
use crate::{Peer, Result};

const CONNECTIONS: u32 = 20;

impl TaskHandler for Job {
    const IDENTIFIER: &'static str = "job";

    async fn run(self, _: WorkerContext) -> impl IntoTaskHandlerResult {
        self.handle();
        Ok::<(), String>(())
    }
}

pub struct Graphile {
    pool: PgPool,
    utils: WorkerUtils,
}

impl Graphile {
    fn options(pool: &PgPool) -> WorkerOptions {
        WorkerOptions::default()
            .pg_pool(pool.clone())
            .schema("graphile_worker")
            .concurrency(32)
            .poll_interval(Duration::from_millis(20))
            .complete_job_batch_delay(Duration::from_millis(1))
            .local_queue(LocalQueueConfig::default().with_size(1_000).with_queue_count(4))
            .define_job::<Job>()
    }
}

impl Peer for Graphile {
    async fn set_up(database_url: &str) -> Result<Self> {
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect(database_url).await?;
        let utils = Self::options(&pool).init().await?.create_utils();
        Ok(Self { pool, utils })
    }

    async fn insert(&self, jobs: Vec<Job>) -> Result<()> {
        let spec = JobSpec::default();
        let jobs: Vec<_> = jobs.into_iter().map(|job| (job, &spec)).collect();
        self.utils.add_jobs(&jobs).await?;
        Ok(())
    }

    async fn start(&self) -> Result<()> {
        let worker = Self::options(&self.pool).init().await?;
        tokio::spawn(async move {
            let ended = worker.run().await;
            eprintln!("the worker ended: {ended:?}");
        });
        Ok(())
    }

    async fn left(&self, _: u64) -> Result<u64> {
        let left: i64 =
            sqlx::query_scalar("SELECT count(*) FROM graphile_worker._private_jobs").fetch_one(&self.pool).await?;
        Ok(left as u64)
    }
}
