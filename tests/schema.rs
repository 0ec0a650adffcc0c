//! `migrations/schema.sql` is the schema that the migrations make: a migration's effect shows in review.
//!
//! Write it anew with `TASKMASTER_WRITE_SCHEMA=1 cargo test --test schema`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Command;

use taskmaster::postgres::{Options, PrivatePostgres};
use taskmaster_store::{DatabaseArgs, Store};

/// The committed dump is what this version of `pg_dump` writes; others order and name things otherwise.
const DUMPED_BY: u32 = 15;

#[tokio::test]
async fn the_committed_schema_is_what_the_migrations_make() {
    let server = PrivatePostgres::start(&Options::ephemeral()).await.unwrap();
    let store = Store::new(server.connect_options(), &DatabaseArgs::default());
    store.migrate().await.unwrap();
    store.ping().await.unwrap();
    store.migrate().await.expect("migrating again is harmless");
    store.close().await;
    if server.version().0 == DUMPED_BY {
        let made = dump(&server);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/schema.sql");
        if std::env::var_os("TASKMASTER_WRITE_SCHEMA").is_some() {
            std::fs::write(&path, &made).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == made,
            "migrations/schema.sql is stale: TASKMASTER_WRITE_SCHEMA=1 cargo test --test schema"
        );
    }
    server.stop().await;
}

/// The schema without what depends on the day and on the program that writes it.
fn dump(server: &PrivatePostgres) -> String {
    let output = Command::new(server.bin().join("pg_dump"))
        .args(["--schema-only", "--no-owner", "--no-privileges", "--exclude-table=*_20[0-9][0-9]_*", "--dbname"])
        .arg(server.url())
        .output()
        .expect("pg_dump is among PostgreSQL's programs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let noise = ["--", "SET ", "SELECT pg_catalog.set_config", "\\restrict", "\\unrestrict"];
    let mut kept: Vec<&str> = text.lines().filter(|line| !noise.iter().any(|n| line.starts_with(n))).collect();
    kept.dedup_by(|a, b| a.is_empty() && b.is_empty());
    format!("-- What the migrations make. Generated: see tests/schema.rs.\n{}\n", kept.join("\n").trim_end())
}
