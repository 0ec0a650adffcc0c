//! What gateways tell one another of the requests that they admitted: one row a gateway, in a table that is not logged and that a crash
//! empties, which costs a minute's accuracy.

use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row};
use uuid::Uuid;

use crate::database::Store;
use crate::error::StoreError;

/// Gateways that are listened to.
const GATEWAYS_MAX: i64 = 100;

/// What a gateway has admitted, by the names of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaUse {
    pub gateway: Uuid,
    pub admitted: Vec<(String, i64)>,
}

impl Store {
    /// Tells the other gateways what this one has admitted; instead of what it told before.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn tell_quota_use(&self, gateway: Uuid, admitted: &[(String, i64)]) -> Result<(), StoreError> {
        if admitted.is_empty() {
            // Also what gateways have left behind that are gone: nothing is told for longer than quotas take to fill up.
            sqlx::query("delete from quota_use where gateway_id = $1 or told_at < now() - interval '2 minutes'")
                .bind(gateway)
                .execute(&self.pool)
                .await?;
            return Ok(());
        }
        sqlx::query(
            "insert into quota_use (gateway_id, clients, admitted) values ($1, $2, $3)
             on conflict (gateway_id) do update
                set clients = excluded.clients, admitted = excluded.admitted, told_at = now()",
        )
        .bind(gateway)
        .bind(admitted.iter().map(|(client, _)| client.as_str()).collect::<Vec<_>>())
        .bind(admitted.iter().map(|(_, count)| *count).collect::<Vec<_>>())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// What the others have told last.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn quota_use_of_others(&self, gateway: Uuid) -> Result<Vec<QuotaUse>, StoreError> {
        Ok(sqlx::query_as(
            "select gateway_id, clients, admitted from quota_use
              where gateway_id <> $1 and told_at >= now() - interval '2 minutes' order by gateway_id limit $2",
        )
        .bind(gateway)
        .bind(GATEWAYS_MAX)
        .fetch_all(&self.pool)
        .await?)
    }
}

impl<'r> FromRow<'r, PgRow> for QuotaUse {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        let (clients, admitted): (Vec<String>, Vec<i64>) = (row.try_get("clients")?, row.try_get("admitted")?);
        Ok(QuotaUse { gateway: row.try_get("gateway_id")?, admitted: clients.into_iter().zip(admitted).collect() })
    }
}
