//! Partitions ahead of time, and retention.

use crate::database::Store;
use crate::error::StoreError;

/// Partitions are made so many months ahead: long before they are needed.
const MONTHS_AHEAD: i32 = 3;

impl Store {
    /// Makes the monthly partitions that will be needed. To be called at the start and from time to time.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn ensure_partitions(&self) -> Result<(), StoreError> {
        sqlx::query("select taskmaster_ensure_partitions($1)").bind(MONTHS_AHEAD).execute(&self.pool).await?;
        Ok(())
    }

    /// Drops the monthly partitions whose youngest row is older than so many days. Gives back their names.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn drop_old_partitions(&self, kept_days: i32) -> Result<Vec<String>, StoreError> {
        Ok(sqlx::query_scalar("select taskmaster_drop_partitions($1)").bind(kept_days).fetch_all(&self.pool).await?)
    }
}
