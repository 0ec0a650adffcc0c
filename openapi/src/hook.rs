//! Incoming webhooks: another app's webhook becomes a task. How the sender is verified, what is passed on, and what became of deliveries.

pub mod operations;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::bounds;
use crate::schedule::TaskTemplate;

/// How a sender shows that it is the one. All of it goes by the bytes of the body as they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HookVerification {
    /// GitHub: `X-Hub-Signature-256`. Deliveries are told apart by `X-GitHub-Delivery`.
    Github,
    /// Stripe: `Stripe-Signature`, at most five minutes old. Deliveries are told apart by the event's `id`.
    Stripe,
    /// Standard Webhooks 1.0.0: `webhook-id`, `webhook-timestamp` (at most five minutes off), `webhook-signature`; or Svix's, which
    /// begin with `svix-`.
    StandardWebhooks,
    /// The secret itself stands in a header, `secret_header`.
    SharedSecret,
    /// The secret is part of the URL: `?token=…`.
    SecretUrl,
}

impl HookVerification {
    /// Every kind.
    pub const ALL: [HookVerification; 5] = [
        HookVerification::Github,
        HookVerification::Stripe,
        HookVerification::StandardWebhooks,
        HookVerification::SharedSecret,
        HookVerification::SecretUrl,
    ];

    /// The kind as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            HookVerification::Github => "github",
            HookVerification::Stripe => "stripe",
            HookVerification::StandardWebhooks => "standard_webhooks",
            HookVerification::SharedSecret => "shared_secret",
            HookVerification::SecretUrl => "secret_url",
        }
    }

    /// The kind of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Headers that are passed on when a hook does not say which.
    pub fn usual_headers(self) -> &'static [&'static str] {
        match self {
            HookVerification::Github => &["x-github-event", "x-github-delivery"],
            HookVerification::StandardWebhooks => &["webhook-id", "webhook-timestamp"],
            HookVerification::Stripe | HookVerification::SharedSecret | HookVerification::SecretUrl => &[],
        }
    }
}

/// An incoming webhook to make.
#[derive(Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "pushes", "verification": "github", "secret": "It's a Secret to Everybody", "task": {"http": {"url": "http://127.0.0.1:8081/livez"}}}))]
pub struct NewHook {
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 100)]
    pub name: Option<String>,
    pub verification: HookVerification,
    /// What the sender signs with, or shows: 16 to 200 visible characters; of `standard_webhooks`, `whsec_` and 24 to 64 bytes in base64.
    /// Made here when left out, and always for `secret_url`. Of Stripe it is known only once the URL is registered there: give it by a
    /// rotation then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 16, max_length = 200, pattern = "^[!-~]([ -~]*[!-~])?$")]
    pub secret: Option<String>,
    /// Of `shared_secret`: the header that has the secret, bare or after `Bearer`. `authorization` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 256)]
    pub secret_header: Option<String>,
    /// Of `shared_secret` and `secret_url`: the header that tells deliveries apart. Without one each delivery makes a task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 256)]
    pub delivery_id_header: Option<String>,
    /// The body becomes that of the task's request, with its content type; or `$1` of the command, and the last argument but one of the
    /// program. When `false`, the task is the template as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(default = true)]
    pub pass_body: Option<bool>,
    /// Headers that are passed on with the body, at most 20: to the task's request; to a command as `$2`, to a program as the last argument, as a JSON
    /// object. When left out `x-github-event` and `x-github-delivery` of GitHub, `webhook-id` and `webhook-timestamp` of Standard
    /// Webhooks, none of others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 20, value_type = Option<Vec<bounds::HeaderName>>)]
    pub pass_headers: Option<Vec<String>>,
    /// What a delivery becomes.
    #[serde(deserialize_with = "crate::object::required")]
    pub task: TaskTemplate,
    /// Whether deliveries are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(default = true)]
    pub enabled: Option<bool>,
}

impl std::fmt::Debug for NewHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewHook").field("verification", &self.verification).finish_non_exhaustive()
    }
}

/// What to change of a hook: a JSON merge patch (RFC 7396). What is left out stays, `null` takes away. The secret is changed by a
/// rotation; how the sender is verified cannot be changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "pushes and releases", "enabled": true}))]
pub struct HookPatch {
    #[schema(min_length = 1, max_length = 100)]
    pub name: Option<String>,
    #[schema(min_length = 1, max_length = 256)]
    pub secret_header: Option<String>,
    #[schema(min_length = 1, max_length = 256)]
    pub delivery_id_header: Option<String>,
    pub pass_body: Option<bool>,
    #[schema(max_items = 20, value_type = Option<Vec<bounds::HeaderName>>)]
    pub pass_headers: Option<Vec<String>>,
    /// Merged with the template that there is.
    #[serde(default, deserialize_with = "crate::object::optional")]
    pub task: Option<TaskTemplate>,
    pub enabled: Option<bool>,
}

/// An incoming webhook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"id": "01890a5d-ac96-774b-bcce-b302099a8057", "revision": 1, "name": "pushes", "verification": "github", "pass_body": true, "pass_headers": ["x-github-event", "x-github-delivery"], "task": {"http": {"method": "POST", "url": "https://example.com/build"}}, "enabled": true, "receive_path": "/v1/hooks/01890a5d-ac96-774b-bcce-b302099a8057/receive", "created_at": "2026-01-31T12:00:00Z"}))]
pub struct Hook {
    /// A UUIDv7.
    pub id: Uuid,
    /// Rises with every change.
    #[schema(minimum = 1, maximum = 9007199254740991i64)]
    pub revision: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 100)]
    pub name: Option<String>,
    pub verification: HookVerification,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256)]
    pub secret_header: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256)]
    pub delivery_id_header: Option<String>,
    pub pass_body: bool,
    #[schema(max_items = 20, value_type = Vec<bounds::HeaderName>)]
    pub pass_headers: Vec<String>,
    /// What a delivery becomes. Sensitive values can be written but not read back.
    pub task: TaskTemplate,
    pub enabled: bool,
    /// Where deliveries are sent, by POST: below the address of the gateway. Of `secret_url`, `?token=` and the secret come after it.
    #[schema(max_length = 200, example = "/v1/hooks/01890a5d-ac96-774b-bcce-b302099a8057/receive")]
    pub receive_path: String,
    pub created_at: DateTime<Utc>,
    /// Until then the secret before the last rotation is taken as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_secret_expires_at: Option<DateTime<Utc>>,
}

/// A hook with its secret, as it is shown when that is new.
#[derive(Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"id": "01890a5d-ac96-774b-bcce-b302099a8057", "revision": 1, "name": "pushes", "verification": "github", "pass_body": true, "pass_headers": ["x-github-event", "x-github-delivery"], "task": {"http": {"method": "POST", "url": "https://example.com/build"}}, "enabled": true, "receive_path": "/v1/hooks/01890a5d-ac96-774b-bcce-b302099a8057/receive", "created_at": "2026-01-31T12:00:00Z", "secret": "It's a Secret to Everybody"}))]
pub struct IssuedHook {
    #[serde(flatten)]
    pub hook: Hook,
    /// What the sender is to be given. Not there when the answer is one that was given before: rotate the secret if it was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 200)]
    pub secret: Option<String>,
}

impl std::fmt::Debug for IssuedHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedHook").field("hook", &self.hook).finish_non_exhaustive()
    }
}

/// A page of hooks, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"hooks": [{"id": "01890a5d-ac96-774b-bcce-b302099a8057", "revision": 1, "name": "pushes", "verification": "github", "pass_body": true, "pass_headers": ["x-github-event", "x-github-delivery"], "task": {"http": {"method": "POST", "url": "https://example.com/build"}}, "enabled": true, "receive_path": "/v1/hooks/01890a5d-ac96-774b-bcce-b302099a8057/receive", "created_at": "2026-01-31T12:00:00Z"}], "next_page_token": ""}))]
pub struct HookList {
    #[schema(max_items = 500)]
    pub hooks: Vec<Hook>,
    /// Asks for the next page; empty at the end, and only there.
    #[schema(max_length = 500)]
    pub next_page_token: String,
}

/// How to rotate a hook's secret.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"overlap_seconds": 3600}))]
pub struct RotateHookRequest {
    /// The secret that it had is taken as well for so many seconds, at most 30 days. A day when left out.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 0, maximum = 2592000, default = 86400)]
    pub overlap_seconds: Option<i64>,
    /// The new secret; made here when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 16, max_length = 200, pattern = "^[!-~]([ -~]*[!-~])?$")]
    pub secret: Option<String>,
}

impl std::fmt::Debug for RotateHookRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RotateHookRequest").field("overlap_seconds", &self.overlap_seconds).finish_non_exhaustive()
    }
}

/// What a sender sends: whatever it is. Apps send JSON objects, as a rule.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"ref": "refs/heads/main"}))]
pub struct HookPayload {}

/// What a delivery has become.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"task_id": "01890a5d-ac96-774b-bcce-b302099a8058", "duplicate": false}))]
pub struct HookReceipt {
    /// The task; none of GitHub's `ping`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<Uuid>,
    /// The delivery was there before: this is its task.
    pub duplicate: bool,
}

/// What came of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HookOutcome {
    /// It is a task.
    Accepted,
    /// It was there before: no second task was made.
    Duplicate,
    /// GitHub's `ping`, which makes no task.
    Ping,
    /// The signature, the secret or the token is missing or wrong. Of those that come within a second one is noted.
    Unverified,
    /// The signature is right, and its time is over five minutes off: a replay, or a clock that is wrong.
    Stale,
    /// The hook is disabled.
    Disabled,
    /// The sender is the one, but its body cannot become a task: it is too large, or no text where a command is to take it.
    Unusable,
}

impl HookOutcome {
    /// Every outcome.
    pub const ALL: [HookOutcome; 7] = [
        HookOutcome::Accepted,
        HookOutcome::Duplicate,
        HookOutcome::Ping,
        HookOutcome::Unverified,
        HookOutcome::Stale,
        HookOutcome::Disabled,
        HookOutcome::Unusable,
    ];

    /// The outcome as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            HookOutcome::Accepted => "accepted",
            HookOutcome::Duplicate => "duplicate",
            HookOutcome::Ping => "ping",
            HookOutcome::Unverified => "unverified",
            HookOutcome::Stale => "stale",
            HookOutcome::Disabled => "disabled",
            HookOutcome::Unusable => "unusable",
        }
    }

    /// The outcome of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text)
    }
}

/// A delivery that arrived.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"received_at": "2026-01-31T12:00:00Z", "outcome": "accepted", "delivery_id": "72d3162e-cc78-11e3-81ab-4c9367dc0958", "task_id": "01890a5d-ac96-774b-bcce-b302099a8058"}))]
pub struct HookDelivery {
    pub received_at: DateTime<Utc>,
    pub outcome: HookOutcome,
    /// What the sender calls it; none of those that are not verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 255)]
    pub delivery_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<Uuid>,
}

/// The last deliveries, newest first: at most 100 from the sender, and at most 20 from whoever was not verified.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"deliveries": [{"received_at": "2026-01-31T12:00:00Z", "outcome": "accepted", "delivery_id": "72d3162e-cc78-11e3-81ab-4c9367dc0958", "task_id": "01890a5d-ac96-774b-bcce-b302099a8058"}]}))]
pub struct HookDeliveryList {
    #[schema(max_items = 120)]
    pub deliveries: Vec<HookDelivery>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for kind in HookVerification::ALL {
            assert_eq!(HookVerification::parse(kind.as_str()), Some(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        for outcome in HookOutcome::ALL {
            assert_eq!(HookOutcome::parse(outcome.as_str()), Some(outcome));
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.as_str());
        }
    }

    #[test]
    fn secrets_are_not_in_debug_output() {
        let new = NewHook {
            name: None,
            verification: HookVerification::Github,
            secret: Some("hunter2hunter2hunter2".into()),
            secret_header: None,
            delivery_id_header: None,
            pass_body: None,
            pass_headers: None,
            task: TaskTemplate::default(),
            enabled: None,
        };
        let rotate = RotateHookRequest { overlap_seconds: None, secret: new.secret.clone() };
        assert!(!format!("{new:?} {rotate:?}").contains("hunter2"));
    }
}
