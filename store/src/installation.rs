//! What an installation keeps for itself: where it is reached, and the secrets that attempts are signed and named with.

use std::time::Duration;

use chrono::{DateTime, Utc};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use taskmaster_openapi::gateway::paths;
use taskmaster_openapi::report::TaskClaim;
use taskmaster_openapi::signing::SigningSecret;
use taskmaster_openapi::task::{Completion, HttpWork};
use taskmaster_openapi::webhook::headers as webhook;
use taskmaster_openapi::worker::headers;
use uuid::Uuid;

use crate::database::Store;
use crate::error::StoreError;
use crate::row::from_row;
use crate::webhooks::WebhookSecret;

/// Bytes of the mark by which a token is known to be ours; twice as many characters.
const MARK_BYTES: usize = 16;

/// Makes and reads the tokens of attempts. A token names a task and its claim, and is proved by a mark that only an installation can make:
/// nothing is kept of it.
#[derive(Clone)]
pub struct AttemptTokens(String);

impl std::fmt::Debug for AttemptTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AttemptTokens")
    }
}

impl AttemptTokens {
    /// The token of this attempt.
    pub fn make(&self, TaskClaim { task_id, claim }: TaskClaim) -> String {
        let name = format!("{}.{claim}", task_id.simple());
        let mark = self.mark(&name);
        format!("{name}.{mark}")
    }

    /// Whose token it is; `None` where it is not ours.
    pub fn read(&self, token: &str) -> Option<TaskClaim> {
        let (name, mark) = token.rsplit_once('.')?;
        let is_ours: bool = self.mark(name).as_bytes().ct_eq(mark.as_bytes()).into();
        let (task_id, claim) = name.split_once('.')?;
        let claim = TaskClaim { task_id: Uuid::try_parse(task_id).ok()?, claim: claim.parse().ok()? };
        is_ours.then_some(claim)
    }

    fn mark(&self, name: &str) -> String {
        // HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.0.as_bytes()) else { return String::new() };
        mac.update(b"attempt ");
        mac.update(name.as_bytes());
        let digest = mac.finalize().into_bytes();
        digest.iter().take(MARK_BYTES).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What requests of HTTP tasks are completed with when they are pushed. Not for output.
pub struct Equipment {
    now_seconds: i64,
    public_url: Option<String>,
    tokens: AttemptTokens,
    secrets: Vec<WebhookSecret>,
}

/// No gateway has said where it is reached from outside, so that nobody could call back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no gateway has a public URL (TASKMASTER_PUBLIC_URL), so that the target could not call back")]
pub struct NoPublicUrl;

impl Equipment {
    /// Whether a request wants anything of this.
    pub fn is_wanted(work: &HttpWork) -> bool {
        work.sign || work.completion == Completion::Callback
    }

    /// Completes the request of an attempt.
    ///
    /// # Errors
    /// When it is to call back, and there is no way to.
    pub fn complete(&self, work: &mut HttpWork, of: TaskClaim, attempt: i64) -> Result<(), NoPublicUrl> {
        if work.completion == Completion::Callback {
            let base = self.public_url.as_deref().ok_or(NoPublicUrl)?;
            let url = format!("{base}{}?token={}", paths::ATTEMPTS, self.tokens.make(of));
            work.headers.insert(headers::CALLBACK_URL.into(), url);
        }
        if work.sign {
            let id = format!("msg_{}_{attempt}", of.task_id.simple());
            let body = body_of(work);
            let sign = |secret: &WebhookSecret| secret.sign(&id, self.now_seconds, &body);
            let signatures: Vec<String> = self.secrets.iter().map(sign).collect();
            work.headers.insert(webhook::SIGNATURE.into(), signatures.join(" "));
            work.headers.insert(webhook::TIMESTAMP.into(), self.now_seconds.to_string());
            work.headers.insert(webhook::ID.into(), id);
        }
        Ok(())
    }
}

/// The body as it will be sent. What is no base64 is refused when a task is created.
fn body_of(work: &HttpWork) -> Vec<u8> {
    use base64::Engine;
    match (&work.body, &work.body_base64) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(text)) => base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default(),
        (None, None) => Vec::new(),
    }
}

/// The row, as far as attempts want it.
struct Row {
    public_url: Option<String>,
    attempt_secret: String,
    signing_secret: String,
    previous_secret: Option<String>,
    now_seconds: i64,
}

from_row!(Row { public_url, attempt_secret, signing_secret, previous_secret, now_seconds });

/// The secrets, as they are shown.
struct Secrets {
    signing_secret: String,
    signing_secret_at: DateTime<Utc>,
    previous_secret: Option<String>,
    previous_secret_at: Option<DateTime<Utc>>,
    previous_secret_expires_at: Option<DateTime<Utc>>,
}

from_row!(Secrets {
    signing_secret,
    signing_secret_at,
    previous_secret,
    previous_secret_at,
    previous_secret_expires_at
});

impl Secrets {
    fn shown(self) -> Vec<SigningSecret> {
        let newest =
            SigningSecret { secret: self.signing_secret, created_at: self.signing_secret_at, expires_at: None };
        let previous = self.previous_secret.zip(self.previous_secret_at).map(|(secret, created_at)| SigningSecret {
            secret,
            created_at,
            expires_at: self.previous_secret_expires_at,
        });
        std::iter::once(newest).chain(previous).collect()
    }
}

macro_rules! shown_secrets {
    () => {
        "signing_secret, signing_secret_at, previous_secret_at, previous_secret_expires_at,
         case when previous_secret_expires_at > now() then previous_secret end as previous_secret"
    };
}

impl Store {
    /// What requests are completed with, as of now.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn equipment(&self) -> Result<Equipment, StoreError> {
        let row: Row = sqlx::query_as(
            "select public_url, attempt_secret, signing_secret,
                    case when previous_secret_expires_at > now() then previous_secret end as previous_secret,
                    floor(extract(epoch from clock_timestamp()))::bigint as now_seconds
               from installation",
        )
        .fetch_one(&self.pool)
        .await?;
        let secrets = [Some(row.signing_secret), row.previous_secret];
        Ok(Equipment {
            now_seconds: row.now_seconds,
            public_url: row.public_url,
            tokens: AttemptTokens(row.attempt_secret),
            secrets: secrets.iter().flatten().filter_map(|secret| WebhookSecret::parse(secret)).collect(),
        })
    }

    /// What reads the tokens of attempts. It never changes, and is asked for once.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn attempt_tokens(&self) -> Result<AttemptTokens, StoreError> {
        let ask = async { sqlx::query_scalar("select attempt_secret from installation").fetch_one(&self.pool).await };
        Ok(AttemptTokens(self.attempt_secret.get_or_try_init(|| ask).await?.clone()))
    }

    /// Keeps where the outside reaches the installation: an origin, perhaps with a path.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn keep_public_url(&self, url: &str) -> Result<(), StoreError> {
        sqlx::query("update installation set public_url = $1 where public_url is distinct from $1")
            .bind(url)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The secrets that HTTP tasks are signed with, the newest first.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn signing_secrets(&self) -> Result<Vec<SigningSecret>, StoreError> {
        let secrets: Secrets =
            sqlx::query_as(concat!("select ", shown_secrets!(), " from installation")).fetch_one(&self.pool).await?;
        Ok(secrets.shown())
    }

    /// Takes a new secret; requests are signed with the one before as well for so long.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn rotate_signing_secret(&self, overlap: Duration) -> Result<Vec<SigningSecret>, StoreError> {
        let secrets: Secrets = sqlx::query_as(concat!(
            "update installation
                set previous_secret = signing_secret, previous_secret_at = signing_secret_at,
                    previous_secret_expires_at = now() + $2 * interval '1 second', signing_secret = $1, signing_secret_at = now()
             returning ",
            shown_secrets!()
        ))
        .bind(WebhookSecret::random().expose())
        .bind(overlap.as_secs_f64())
        .fetch_one(&self.pool)
        .await?;
        Ok(secrets.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM: TaskClaim = TaskClaim { task_id: Uuid::from_u128(7), claim: 4711 };

    fn equipment() -> Equipment {
        let secret = WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        Equipment {
            now_seconds: 1_614_265_330,
            public_url: Some("https://tasks.example.com".into()),
            tokens: AttemptTokens("secret".into()),
            secrets: secret.into_iter().chain([WebhookSecret::random()]).collect(),
        }
    }

    #[test]
    fn a_token_is_read_back_and_no_other_is_ours() {
        let tokens = AttemptTokens("secret".into());
        let token = tokens.make(CLAIM);
        assert_eq!(tokens.read(&token), Some(CLAIM));
        let (name, mark) = token.rsplit_once('.').unwrap();
        let other = name.replace("4711", "4712");
        for wrong in ["", ".", "..", name, &format!("{other}.{mark}"), &format!("{name}."), &format!("{token}0")] {
            assert_eq!(tokens.read(wrong), None, "{wrong}");
        }
        assert_eq!(AttemptTokens("another".into()).read(&token), None);
        assert_eq!(format!("{tokens:?}"), "AttemptTokens");
    }

    #[test]
    fn a_request_is_signed_over_its_bytes_with_every_secret_in_use() {
        let equipment = equipment();
        let mut text = HttpWork { body: Some("{}".into()), sign: true, ..HttpWork::default() };
        equipment.complete(&mut text, CLAIM, 2).unwrap();
        assert_eq!(text.headers[webhook::ID], "msg_00000000000000000000000000000007_2");
        assert_eq!(text.headers[webhook::TIMESTAMP], "1614265330");
        let expected: Vec<String> =
            equipment.secrets.iter().map(|s| s.sign(&text.headers[webhook::ID], 1_614_265_330, b"{}")).collect();
        assert_eq!(text.headers[webhook::SIGNATURE], expected.join(" "));
        let mut bytes = HttpWork { body_base64: Some("e30=".into()), sign: true, ..HttpWork::default() };
        equipment.complete(&mut bytes, CLAIM, 2).unwrap();
        assert_eq!(bytes.headers, text.headers);
    }

    #[test]
    fn a_request_that_is_to_call_back_says_where() {
        let mut work = HttpWork { completion: Completion::Callback, ..HttpWork::default() };
        let equipment = equipment();
        equipment.complete(&mut work, CLAIM, 1).unwrap();
        let url = &work.headers[headers::CALLBACK_URL];
        let token = url.strip_prefix("https://tasks.example.com/v1/attempts?token=").unwrap();
        assert_eq!(equipment.tokens.read(token), Some(CLAIM));
        let nowhere = Equipment { public_url: None, ..equipment };
        assert_eq!(nowhere.complete(&mut work, CLAIM, 1), Err(NoPublicUrl));
    }
}
