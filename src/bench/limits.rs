//! What this machine itself can do: nothing of what is measured with TaskMaster can be faster.

use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::postgres::PgPoolOptions;
use taskmaster_service::client;
use tokio::task::JoinSet;

use super::figures::Report;
use super::target::Target;
use crate::postgres::{Options, PrivatePostgres};

/// How long each is measured.
const EACH: Duration = Duration::from_secs(3);
/// Connections and commands at once.
const CONNECTIONS: usize = 64;
const COMMANDS: usize = 5;
/// Rows of one statement.
const ROWS: i64 = 500;
/// What one fsync makes durable.
const PAGE: [u8; 8192] = [7; 8192];

pub(super) async fn measure() -> Result<Report, String> {
    let fsyncs = tokio::task::spawn_blocking(fsyncs).await.map_err(|error| error.to_string())??;
    let rows = rows().await?;
    let requests = requests().await?;
    let commands = repeat(COMMANDS, command).await?;
    Ok(Report::new("limits of this machine")
        .rate("fsyncs", fsyncs as f64, EACH, "8 KiB pages made durable one by one")
        .rate("rows", rows as f64, EACH, "rows inserted, 500 a commit, one connection")
        .rate("requests", requests as f64, EACH, "HTTP requests over 64 connections, both ends here")
        .rate("commands", commands as f64, EACH, "`/bin/sh -c true`, five at a time"))
}

fn fsyncs() -> Result<u64, String> {
    let path = std::env::temp_dir().join(format!("taskmaster-bench-{}", std::process::id()));
    let measured = (|| {
        let mut file = std::fs::File::create(&path)?;
        let (began, mut count) = (Instant::now(), 0);
        while began.elapsed() < EACH {
            file.write_all(&PAGE)?;
            file.sync_data()?;
            count += 1;
        }
        Ok(count)
    })();
    let _ = std::fs::remove_file(&path);
    measured.map_err(|error: std::io::Error| error.to_string())
}

async fn rows() -> Result<u64, String> {
    let server = PrivatePostgres::start(&Options::ephemeral()).await.map_err(|error| error.to_string())?;
    let measured = async {
        let pool = PgPoolOptions::new().max_connections(1).connect_with(server.connect_options()).await?;
        sqlx::query(
            "create table rows (id bigint primary key, at timestamptz not null default now(), text text not null)",
        )
        .execute(&pool)
        .await?;
        let (began, mut count) = (Instant::now(), 0_i64);
        while began.elapsed() < EACH {
            sqlx::query("insert into rows (id, text) select i, 'a task of some fifty bytes, as most tasks are so long' from generate_series($1, $2) i")
                .bind(count + 1)
                .bind(count + ROWS)
                .execute(&pool)
                .await?;
            count += ROWS;
        }
        pool.close().await;
        Ok(count as u64)
    };
    let measured: sqlx::Result<u64> = measured.await;
    server.stop().await;
    measured.map_err(|error| error.to_string())
}

async fn requests() -> Result<u64, String> {
    let target = Target::start().await?;
    let http = client::build(EACH * 2).map_err(|error| error.to_string())?;
    repeat(CONNECTIONS, || {
        let request = http.get(target.url());
        async move {
            let answer = request.send().await.map_err(|error| error.to_string())?;
            answer.bytes().await.map(drop).map_err(|error| error.to_string())
        }
    })
    .await
}

async fn command() -> Result<(), String> {
    let mut command = tokio::process::Command::new("/bin/sh");
    command.args(["-c", "true"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().await.map(drop).map_err(|error| error.to_string())
}

/// How often it was done, so many at a time.
async fn repeat<F>(at_once: usize, once: impl Fn() -> F) -> Result<u64, String>
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let count = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut running = JoinSet::new();
    loop {
        while running.len() < at_once && began.elapsed() < EACH {
            let (count, once) = (count.clone(), once());
            running.spawn(async move {
                once.await?;
                if began.elapsed() < EACH {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, String>(())
            });
        }
        match running.join_next().await {
            Some(done) => done.map_err(|error| error.to_string())??,
            None => return Ok(count.load(Ordering::Relaxed)),
        }
    }
}
