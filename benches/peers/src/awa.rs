//! awa with its queue storage: finished jobs are kept, until their ring of partitions turns.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use awa::{
    Client, InsertOpts, InsertParams, JobArgs, JobResult, PartitionedQueue, QueueConfig, QueueStorage,
    QueueStorageConfig, migrations,
};
use serde::{Deserialize, Serialize};
use sqlx08::PgPool;
use sqlx08::postgres::PgPoolOptions;
use tokio::sync::OnceCell;

use crate::job::Job;
use crate::{Peer, Result};

const CONNECTIONS: u32 = 20;
const PARTITIONS: usize = 2;
const WORKERS: u32 = 1_024;
/// awa's own views of finished jobs take minutes for a hundred thousand.
const DONE: &str = include_str!("awa_done.sql");

#[derive(Serialize, Deserialize, JobArgs)]
#[serde(transparent)]
struct AwaJob(Job);

pub struct Awa {
    pool: PgPool,
    store: QueueStorage,
    queue: PartitionedQueue,
    batches: AtomicUsize,
    client: OnceCell<Client>,
}

impl Awa {
    /// awa chooses its storage when the first client starts, so one has to have been there before jobs are inserted.
    async fn choose_storage(pool: &PgPool, store: &QueueStorage) -> Result<()> {
        store.prepare_schema(pool).await?;
        let chosen: bool = sqlx08::query_scalar("SELECT awa.storage_auto_finalize_if_fresh($1)")
            .bind(store.schema())
            .fetch_one(pool)
            .await?;
        if chosen { Ok(()) } else { Err("awa does not use its queue storage".into()) }
    }
}

impl Peer for Awa {
    async fn set_up(database_url: &str) -> Result<Self> {
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect(database_url).await?;
        migrations::run(&pool).await?;
        let store = QueueStorage::new(QueueStorageConfig::default())?;
        Self::choose_storage(&pool, &store).await?;
        let queue = PartitionedQueue::new("bench", PARTITIONS)?;
        Ok(Self { pool, store, queue, batches: AtomicUsize::new(0), client: OnceCell::new() })
    }

    /// Whole batches go to one partition and the next in turn: each is one COPY.
    async fn insert(&self, jobs: Vec<Job>) -> Result<()> {
        let batch = self.batches.fetch_add(1, Ordering::Relaxed);
        let opts = self.queue.route_opts_by_index(InsertOpts::default(), batch);
        let params = jobs.into_iter().map(|job| {
            let args = serde_json::to_value(&job)?;
            Ok(InsertParams { kind: AwaJob::kind().to_string(), args, opts: opts.clone() })
        });
        let params = params.collect::<Result<Vec<_>>>()?;
        self.store.enqueue_params_copy(&self.pool, &params).await?;
        Ok(())
    }

    async fn start(&self) -> Result<()> {
        let config = QueueConfig {
            max_workers: WORKERS / PARTITIONS as u32,
            poll_interval: Duration::from_millis(20),
            // Without deadlines awa takes its short path.
            deadline_duration: Duration::ZERO,
            ..QueueConfig::default()
        };
        let client = Client::builder(self.pool.clone())
            .partitioned_queue(&self.queue, config)
            .register::<AwaJob, _, _>(|job: AwaJob, _| async move {
                job.0.handle();
                Ok(JobResult::Completed)
            })
            .build()?;
        client.start().await?;
        self.client.set(client).map_err(|_| "started twice".into())
    }

    async fn left(&self, tasks: u64) -> Result<u64> {
        let done: i64 = sqlx08::query_scalar(DONE).fetch_one(&self.pool).await?;
        Ok(tasks.saturating_sub(done as u64))
    }
}
