//! apalis on PostgreSQL: finished jobs are kept.

use std::time::Duration;

use apalis::prelude::*;
use apalis_postgres::{Config, PgPool, PostgresStorage, queries::push_tasks};
use sqlx::postgres::PgPoolOptions;

use crate::job::Job;
use crate::{Peer, Result};

const QUEUE: &str = "bench";
const WORKERS: usize = 3;
const CONNECTIONS: u32 = 20;

pub struct Apalis {
    pool: PgPool,
}

async fn handle(job: Job) -> std::result::Result<(), BoxDynError> {
    job.handle();
    Ok(())
}

impl Peer for Apalis {
    async fn set_up(database_url: &str) -> Result<Self> {
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect(database_url).await?;
        PostgresStorage::setup(&pool).await?;
        Ok(Self { pool })
    }

    async fn insert(&self, jobs: Vec<Job>) -> Result<()> {
        let tasks: std::result::Result<Vec<_>, _> = jobs
            .iter()
            .map(|job| Ok::<_, serde_json::Error>(TaskBuilder::new(serde_json::to_vec(job)?).build()))
            .collect();
        let mut connection = self.pool.acquire().await?;
        push_tasks(&mut *connection, QUEUE, tasks?).await?;
        Ok(())
    }

    async fn start(&self) -> Result<()> {
        for number in 1..=WORKERS {
            let config = Config::default().queue(QUEUE).batch_size(2_000).lock_tasks(false);
            let backend = PostgresStorage::<Job>::new(&self.pool)
                .with_config(config)
                .with_pubsub()
                .poll_with_strategy(Strategy::new().interval(Duration::from_millis(20)));
            let worker = WorkerBuilder::new(format!("worker-{number}")).backend(backend).build(handle);
            tokio::spawn(async move {
                let ended = worker.run().await;
                eprintln!("a worker ended: {ended:?}");
            });
        }
        Ok(())
    }

    async fn left(&self, _: u64) -> Result<u64> {
        let left: i64 =
            sqlx::query_scalar("SELECT count(*) FROM apalis.jobs WHERE status <> 'Done'").fetch_one(&self.pool).await?;
        Ok(left as u64)
    }
}
