//! API keys: made, listed, rotated, revoked, and found when somebody presents one.

mod token;

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row};
use taskmaster_openapi::key::{Key, KeyStatus, Scope, Scopes};
use taskmaster_openapi::limits;

pub use token::{KeyId, KeyToken, SecretHash};

use crate::database::Store;
use crate::error::StoreError;

/// `last_used_at` is written again after so many seconds at the soonest, whichever gateway does.
pub const USED_EVERY_SECONDS: f64 = 60.0;

/// When a key expires.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Expiry {
    Never,
    After(Duration),
    At(DateTime<Utc>),
}

/// A validated key.
#[derive(Debug, Clone)]
pub struct KeyToCreate {
    pub name: String,
    pub scopes: Vec<Scope>,
    pub expiry: Expiry,
}

/// What is wrong with a key's name, if anything is.
pub fn wrong_name(name: &str) -> Option<String> {
    let max = limits::KEY_NAME_CHARS_MAX;
    if name.chars().any(char::is_control) {
        return Some("must not contain control characters".into());
    }
    let right = (1..=max).contains(&name.chars().count()) && !name.trim().is_empty();
    (!right).then(|| format!("must have 1 to {max} characters, and not only spaces"))
}

/// What came of rotating a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Rotation {
    Rotated(Key),
    /// It was revoked, or has expired.
    NotActive,
    NotFound,
}

/// A key as it is checked. Times are counted from the moment when the database was asked.
#[derive(Debug, Clone)]
pub struct StoredKey {
    pub id: KeyId,
    pub scopes: Scopes,
    secret: SecretHash,
    previous: Option<(SecretHash, Duration)>,
    expires_in: Option<Duration>,
    revoked: bool,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No key has this id and this secret.
    Unknown,
    Expired,
    Revoked,
}

impl StoredKey {
    /// A key that neither expires nor was rotated.
    pub fn lasting(token: &KeyToken, scopes: Scopes) -> Self {
        Self { id: token.id, scopes, secret: token.hash(), previous: None, expires_in: None, revoked: false }
    }

    /// Whether a secret is the key's, so long after the database was asked. Whoever does not have the secret learns nothing of
    /// the key.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, presented: &SecretHash, age: Duration) -> Result<Scopes, Refusal> {
        let mut same = self.secret.same(presented);
        if let Some((previous, left)) = &self.previous
            && age < *left
        {
            same |= previous.same(presented);
        }
        if !bool::from(same) {
            return Err(Refusal::Unknown);
        }
        self.is_active(age).map(|()| self.scopes)
    }

    /// Whether the key itself works, whatever its secret.
    ///
    /// # Errors
    /// Why not.
    pub fn is_active(&self, age: Duration) -> Result<(), Refusal> {
        if self.revoked {
            return Err(Refusal::Revoked);
        }
        match self.expires_in.is_none_or(|left| age < left) {
            true => Ok(()),
            false => Err(Refusal::Expired),
        }
    }
}

/// What [`Key`] is read from.
macro_rules! key_columns {
    () => {
        "id, name, scopes, created_at, expires_at, revoked_at, last_used_at,
         case when previous_secret_expires_at > now() then previous_secret_expires_at end as previous_secret_expires_at,
         case when revoked_at is not null then 2 when expires_at <= now() then 1 else 0 end as status"
    };
}

impl Store {
    /// Keeps a new key. `None` when it would have expired already.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn create_key(&self, key: &KeyToCreate, token: &KeyToken) -> Result<Option<Key>, StoreError> {
        let (after_seconds, at) = match key.expiry {
            Expiry::Never => (None, None),
            Expiry::After(duration) => (Some(duration.as_secs_f64()), None),
            Expiry::At(at) => (None, Some(at)),
        };
        let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
        let made = sqlx::query_as(concat!(
            "insert into api_keys (id, name, secret_hash, scopes, expires_at)
             select $1, $2, $3, $4, asked.at from (select coalesce($6, now() + $5 * interval '1 second') as at) asked
              where asked.at is null or asked.at > now()
             returning ",
            key_columns!()
        ))
        .bind(token.id.as_str())
        .bind(&key.name)
        .bind(token.hash().as_bytes())
        .bind(scopes)
        .bind(after_seconds)
        .bind(at)
        .fetch_optional(&self.pool)
        .await?;
        Ok(made.map(|KeyRow(key)| key))
    }

    /// Keys from the newest on, or those older than this one.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn keys(&self, after: Option<KeyId>, count: i64) -> Result<Vec<Key>, StoreError> {
        let rows: Vec<KeyRow> = sqlx::query_as(concat!(
            "select ",
            key_columns!(),
            " from api_keys
              where $1::text is null or (created_at, id) < (select created_at, id from api_keys where id = $1)
              order by created_at desc, id desc limit $2"
        ))
        .bind(after.as_ref().map(KeyId::as_str))
        .bind(count)
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|KeyRow(key)| key).collect())
    }

    /// One key.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn key(&self, id: KeyId) -> Result<Option<Key>, StoreError> {
        let row = sqlx::query_as(concat!("select ", key_columns!(), " from api_keys where id = $1"))
            .bind(id.as_str())
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.map(|KeyRow(key)| key))
    }

    /// Gives a key the secret of this token. The one that it had is accepted for so long.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn rotate_key(&self, token: &KeyToken, overlap: Duration) -> Result<Rotation, StoreError> {
        let row = sqlx::query_as(concat!(
            "update api_keys
                set previous_secret_hash = secret_hash, previous_secret_expires_at = now() + $3 * interval '1 second',
                    secret_hash = $2
              where id = $1 and revoked_at is null and (expires_at is null or expires_at > now())
             returning ",
            key_columns!()
        ))
        .bind(token.id.as_str())
        .bind(token.hash().as_bytes())
        .bind(overlap.as_secs_f64())
        .fetch_optional(&self.pool)
        .await?;
        match row {
            Some(KeyRow(key)) => Ok(Rotation::Rotated(key)),
            None if self.key(token.id).await?.is_some() => Ok(Rotation::NotActive),
            None => Ok(Rotation::NotFound),
        }
    }

    /// Revokes a key for good. `false` when there is no such key; revoking again changes nothing.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn revoke_key(&self, id: KeyId) -> Result<bool, StoreError> {
        let done = sqlx::query("update api_keys set revoked_at = coalesce(revoked_at, now()) where id = $1")
            .bind(id.as_str())
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Those of the keys that there are, for checking what clients present.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn stored_keys(&self, ids: &[KeyId]) -> Result<Vec<StoredKey>, StoreError> {
        Ok(sqlx::query_as(
            "select id, scopes, secret_hash, previous_secret_hash, revoked_at is not null as revoked,
                    extract(epoch from previous_secret_expires_at - now())::float8 as previous_seconds,
                    extract(epoch from expires_at - now())::float8 as expires_seconds
               from api_keys where id = any($1)",
        )
        .bind(ids.iter().map(KeyId::as_str).collect::<Vec<_>>())
        .fetch_all(&self.pool)
        .await?)
    }

    /// Whether any key works.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn has_active_key(&self) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar(
            "select exists (select from api_keys where revoked_at is null and (expires_at is null or expires_at > now()))",
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// Notes that keys were just used, of each once a minute.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn keys_used(&self, ids: &[KeyId]) -> Result<(), StoreError> {
        sqlx::query(
            "update api_keys set last_used_at = now()
              where id = any($1) and (last_used_at is null or last_used_at <= now() - $2 * interval '1 second')",
        )
        .bind(ids.iter().map(KeyId::as_str).collect::<Vec<_>>())
        .bind(USED_EVERY_SECONDS)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

struct KeyRow(Key);

impl<'r> FromRow<'r, PgRow> for KeyRow {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        Ok(KeyRow(Key {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            scopes: scopes(row)?,
            status: match row.try_get::<i32, _>("status")? {
                0 => KeyStatus::Active,
                1 => KeyStatus::Expired,
                _ => KeyStatus::Revoked,
            },
            created_at: row.try_get("created_at")?,
            expires_at: row.try_get("expires_at")?,
            revoked_at: row.try_get("revoked_at")?,
            last_used_at: row.try_get("last_used_at")?,
            previous_secret_expires_at: row.try_get("previous_secret_expires_at")?,
        }))
    }
}

impl<'r> FromRow<'r, PgRow> for StoredKey {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        let hash = |bytes: Option<Vec<u8>>| bytes.and_then(|bytes| SecretHash::from_bytes(&bytes));
        let left = |seconds: Option<f64>| seconds.map(|s| Duration::try_from_secs_f64(s).unwrap_or(Duration::ZERO));
        let missing = |column: &str| sqlx::Error::ColumnNotFound(column.into());
        let id: &str = row.try_get("id")?;
        let previous = hash(row.try_get("previous_secret_hash")?).zip(left(row.try_get("previous_seconds")?));
        Ok(StoredKey {
            id: KeyId::parse(id).ok_or_else(|| missing("id"))?,
            scopes: scopes(row)?.into_iter().collect(),
            secret: hash(row.try_get("secret_hash")?).ok_or_else(|| missing("secret_hash"))?,
            previous,
            expires_in: left(row.try_get("expires_seconds")?),
            revoked: row.try_get("revoked")?,
        })
    }
}

/// The scopes of a row. One that this version does not know allows nothing.
fn scopes(row: &PgRow) -> sqlx::Result<Vec<Scope>> {
    let names: Vec<String> = row.try_get("scopes")?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn key(token: &KeyToken) -> StoredKey {
        StoredKey::lasting(token, Scopes::from_iter([Scope::TasksRead]))
    }

    #[test]
    fn a_key_is_accepted_with_its_secret_until_it_expires_or_is_revoked() {
        let (token, other) = (KeyToken::random(KeyId::random()), KeyToken::random(KeyId::random()));
        let lasting = key(&token);
        assert_eq!(lasting.check(&token.hash(), HOUR), Ok(lasting.scopes));
        assert_eq!(lasting.check(&other.hash(), HOUR), Err(Refusal::Unknown));
        let expiring = StoredKey { expires_in: Some(HOUR), ..key(&token) };
        assert!(expiring.check(&token.hash(), HOUR - Duration::from_nanos(1)).is_ok());
        assert_eq!(expiring.check(&token.hash(), HOUR), Err(Refusal::Expired));
        let revoked = StoredKey { revoked: true, ..expiring };
        assert_eq!(revoked.check(&token.hash(), HOUR), Err(Refusal::Revoked));
        assert_eq!(revoked.check(&other.hash(), HOUR), Err(Refusal::Unknown), "strangers learn nothing");
    }

    #[test]
    fn the_secret_before_a_rotation_is_accepted_for_the_overlap() {
        let (new, old) = (KeyToken::random(KeyId::random()), KeyToken::random(KeyId::random()));
        let rotated = StoredKey { previous: Some((old.hash(), HOUR)), ..key(&new) };
        for (token, age, right) in
            [(&new, Duration::ZERO, true), (&old, Duration::ZERO, true), (&new, HOUR, true), (&old, HOUR, false)]
        {
            assert_eq!(rotated.check(&token.hash(), age).is_ok(), right, "{age:?}");
        }
    }

    #[test]
    fn names_are_short_words_for_people() {
        for right in ["a", "nightly reports", "é".repeat(100).as_str()] {
            assert_eq!(wrong_name(right), None, "{right}");
        }
        for wrong in ["", " ", "a\nb", "a\0b", "x".repeat(101).as_str()] {
            assert!(wrong_name(wrong).is_some(), "{wrong:?}");
        }
    }
}
