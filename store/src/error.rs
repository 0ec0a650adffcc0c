//! What can go wrong with the database, sorted by what the caller can do about it.

use taskmaster_openapi::{Code, Problem, limits};

/// Why a call of the store failed. Nothing was changed, unless the connection broke while a commit was under way.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, or is not ready (starting, stopping, read-only, out of connections). Try again.
    #[error("the database is not available: {0}")]
    Unavailable(sqlx::Error),
    /// The database is of an older version than this program needs: its migrations have not run yet.
    #[error("the database's schema is not there yet: run `taskmaster migrate`")]
    NotMigrated,
    /// There are as many queues as there may be.
    #[error("there are {} queues already, the most an installation may have", limits::QUEUES_MAX)]
    TooManyQueues,
    /// There are as many combinations of a queue, a kind of work and required labels as there may be.
    #[error(
        "there are {} combinations of required labels already, the most an installation may have",
        limits::REQUIREMENTS_MAX
    )]
    TooManyRequirements,
    /// As many flow keys of the queue have tasks as may have some at once.
    #[error("{} flow keys of the queue have tasks, the most that may have some at once", limits::FLOW_KEYS_MAX)]
    TooManyFlowKeys,
    /// Anything else is a defect of ours.
    #[error("the database refused a statement: {0}")]
    Defect(sqlx::Error),
}

impl StoreError {
    /// Whether trying again later can help.
    pub fn is_temporary(&self) -> bool {
        matches!(self, StoreError::Unavailable(_) | StoreError::NotMigrated)
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let Some(code) = error.as_database_error().and_then(|e| e.code().map(|c| c.into_owned())) else {
            return match error {
                sqlx::Error::ColumnDecode { .. }
                | sqlx::Error::ColumnNotFound(_)
                | sqlx::Error::Decode(_)
                | sqlx::Error::Encode(_)
                | sqlx::Error::TypeNotFound { .. } => StoreError::Defect(error),
                _ => StoreError::Unavailable(error),
            };
        };
        // Classes of SQLSTATE (PostgreSQL, appendix A).
        match (&code[..2], code.as_str()) {
            // 08 connection, 53 resources, 57 operator intervention, 58 system error, 25006 read-only, 40 rollback,
            // 55 object not in the needed state, 28/3D: credentials or database not there (yet).
            ("08" | "53" | "57" | "58" | "40" | "55" | "28" | "3D", _) | (_, "25006") => StoreError::Unavailable(error),
            (_, "42P01" | "42703" | "42883") => StoreError::NotMigrated,
            _ => StoreError::Defect(error),
        }
    }
}

impl From<StoreError> for Problem {
    /// What a client may know; the cause is logged here, once.
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(cause) => {
                tracing::warn!(%cause, "the database is not available");
                Problem::new(
                    Code::DatabaseUnavailable,
                    "The database cannot be reached at the moment. Try again in a few seconds.",
                )
                .retry_after_seconds(2)
            }
            StoreError::NotMigrated => Problem::new(
                Code::DatabaseUnavailable,
                "The database has not been set up for this version yet: `taskmaster migrate` does that.",
            )
            .retry_after_seconds(5),
            StoreError::TooManyQueues => Problem::field(
                Code::TooManyQueues,
                "/queue",
                format!("this installation has {} queues, the most there may be; use one of them", limits::QUEUES_MAX),
            ),
            StoreError::TooManyRequirements => Problem::field(
                Code::TooManyRequirements,
                "/requires",
                format!(
                    "this installation has {} combinations of a queue and required labels, the most there may be; use one of them",
                    limits::REQUIREMENTS_MAX
                ),
            ),
            StoreError::TooManyFlowKeys => Problem::field(
                Code::TooManyFlowKeys,
                "/flow_key",
                format!(
                    "{} flow keys of the queue have tasks, the most that may have some at once; try again when some have ended",
                    limits::FLOW_KEYS_MAX
                ),
            ),
            StoreError::Defect(cause) => {
                tracing::error!(%cause, "the database refused a statement");
                Problem::internal()
            }
        }
    }
}
