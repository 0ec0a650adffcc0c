//! API keys, and what they allow.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a key allows. `admin` allows everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum Scope {
    /// Read tasks, attempts, events, figures and webhooks.
    #[serde(rename = "tasks:read")]
    TasksRead,
    /// Create, cancel and retry tasks. Tasks that run commands want `commands:run` as well.
    #[serde(rename = "tasks:write")]
    TasksWrite,
    /// Besides `tasks:write`: create tasks that run commands on workers.
    #[serde(rename = "commands:run")]
    CommandsRun,
    /// List, drain and scale workers.
    #[serde(rename = "workers")]
    Workers,
    /// Make, change, test and remove webhooks, and send deliveries once more.
    #[serde(rename = "webhooks:write")]
    WebhooksWrite,
    /// Everything, keys included.
    #[serde(rename = "admin")]
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Scope; 6] =
        [Scope::TasksRead, Scope::TasksWrite, Scope::CommandsRun, Scope::Workers, Scope::WebhooksWrite, Scope::Admin];

    /// The scope as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::TasksRead => "tasks:read",
            Scope::TasksWrite => "tasks:write",
            Scope::CommandsRun => "commands:run",
            Scope::Workers => "workers",
            Scope::WebhooksWrite => "webhooks:write",
            Scope::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            format!("{text:?} is no scope; there are {known}")
        })
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u8);

impl Scopes {
    /// Everything.
    pub const ALL: Scopes = Scopes(1 << Scope::Admin as u8);

    /// Whether this is allowed.
    pub fn allow(self, scope: Scope) -> bool {
        self.has(scope) || self.has(Scope::Admin)
    }

    fn has(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Scopes(scopes.into_iter().fold(0, |set, scope| set | (1 << scope as u8)))
    }
}

/// A key to make. Give at most one of `expires_in_seconds` and `expires_at`; without them it does not expire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "nightly reports", "scopes": ["tasks:read", "tasks:write"], "expires_in_seconds": 7776000}))]
pub struct NewKey {
    /// Whose key it is, or what for: to tell keys apart.
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\u0000-\\u001f\\u007f-\\u009f\\s][^\\u0000-\\u001f\\u007f-\\u009f]*$"
    )]
    pub name: String,
    /// What it allows.
    #[schema(min_items = 1, max_items = 6)]
    pub scopes: Vec<Scope>,
    /// Expires after so many seconds, at most ten years.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 1, maximum = 315576000)]
    pub expires_in_seconds: Option<i64>,
    /// Expires at this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
}

/// How to rotate a key.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"overlap_seconds": 3600}))]
pub struct RotateKeyRequest {
    /// The secret that the key had goes on working for so many seconds, at most 30 days. A day when left out.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 0, maximum = 2592000, default = 86400)]
    pub overlap_seconds: Option<i64>,
}

/// Whether a key works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum KeyStatus {
    Active,
    Expired,
    Revoked,
}

impl KeyStatus {
    /// The status as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            KeyStatus::Active => "ACTIVE",
            KeyStatus::Expired => "EXPIRED",
            KeyStatus::Revoked => "REVOKED",
        }
    }
}

/// A key, without its secret, which nobody knows but whoever made it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "7Kq2mX9aBc4Z",
    "name": "nightly reports",
    "scopes": ["tasks:read", "tasks:write"],
    "status": "ACTIVE",
    "created_at": "2026-01-31T12:00:00.000000Z",
    "expires_at": "2026-05-01T12:00:00.000000Z",
}))]
pub struct Key {
    /// The middle part of the token: `tm_<id>_<secret>`.
    #[schema(min_length = 12, max_length = 12, pattern = "^[0-9A-Za-z]{12}$", example = "7Kq2mX9aBc4Z")]
    pub id: String,
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    #[schema(max_items = 6)]
    pub scopes: Vec<Scope>,
    pub status: KeyStatus,
    pub created_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<DateTime<Utc>>,
    /// To the minute: about when it was last accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<DateTime<Utc>>,
    /// Until then the secret before the last rotation works as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_secret_expires_at: Option<DateTime<Utc>>,
}

/// A key with a new secret: this answer is the only place that ever shows it.
#[derive(Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "7Kq2mX9aBc4Z",
    "name": "nightly reports",
    "scopes": ["tasks:read", "tasks:write"],
    "status": "ACTIVE",
    "created_at": "2026-01-31T12:00:00.000000Z",
    "expires_at": "2026-05-01T12:00:00.000000Z",
    "token": "tm_7Kq2mX9aBc4Z_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG",
}))]
pub struct IssuedKey {
    #[serde(flatten)]
    pub key: Key,
    /// What requests carry: `Authorization: Bearer <token>`.
    #[schema(min_length = 59, max_length = 59, pattern = "^tm_[0-9A-Za-z]{12}_[0-9A-Za-z]{43}$")]
    pub token: String,
}

impl std::fmt::Debug for IssuedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedKey").field("key", &self.key).finish_non_exhaustive()
    }
}

/// A page of keys, newest first, revoked and expired ones included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"keys": [{
    "id": "7Kq2mX9aBc4Z",
    "name": "nightly reports",
    "scopes": ["tasks:read", "tasks:write"],
    "status": "ACTIVE",
    "created_at": "2026-01-31T12:00:00.000000Z",
    "expires_at": "2026-05-01T12:00:00.000000Z",
}], "next_page_token": ""}))]
pub struct KeyList {
    #[schema(max_items = 500)]
    pub keys: Vec<Key>,
    /// Asks for the next page; empty at the end, and only there.
    #[schema(max_length = 500, pattern = "^[A-Za-z0-9_-]*$")]
    pub next_page_token: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_written_in_one_way() {
        for scope in Scope::ALL {
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
            assert_eq!(scope.as_str().parse(), Ok(scope));
        }
        assert!("tasks".parse::<Scope>().unwrap_err().contains("tasks:write"));
    }

    #[test]
    fn a_set_allows_what_is_in_it_and_admin_everything() {
        for held in Scope::ALL {
            for wanted in Scope::ALL {
                let expected = held == wanted || held == Scope::Admin;
                assert_eq!(Scopes::from_iter([held]).allow(wanted), expected, "{held:?} {wanted:?}");
            }
            assert!(!Scopes::default().allow(held) && Scopes::ALL.allow(held));
        }
    }

    #[test]
    fn an_issued_key_does_not_show_its_secret_in_debug_output() {
        let (id, name) = ("7Kq2mX9aBc4Z".to_owned(), "x".to_owned());
        let (scopes, status, created_at) = (vec![Scope::Admin], KeyStatus::Active, Utc::now());
        let key = Key {
            id,
            name,
            scopes,
            status,
            created_at,
            expires_at: None,
            revoked_at: None,
            last_used_at: None,
            previous_secret_expires_at: None,
        };
        let issued = IssuedKey { key, token: "tm_7Kq2mX9aBc4Z_hunter2".into() };
        assert!(!format!("{issued:?}").contains("hunter2"));
    }
}
