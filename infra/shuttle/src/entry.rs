//! What Shuttle calls: reads the settings from its secrets and from the environment.

use shuttle_runtime::{CustomError, Error, SecretStore};
use taskmaster::cli::from_environment;
use taskmaster::up::UpArgs;
use taskmaster_service::Secret;

use crate::service::TaskMaster;

/// Starts the runtime, and with it the service. Does not come back.
pub fn run() {
    // Written by the attribute below.
    main();
}

#[shuttle_runtime::main]
async fn shuttle(#[shuttle_runtime::Secrets] secrets: SecretStore) -> Result<TaskMaster, Error> {
    let args: UpArgs = from_environment(&[]).map_err(CustomError::msg)?;
    Ok(TaskMaster::new(with_secrets(args, &secrets)))
}

/// Secrets win over the environment.
fn with_secrets(mut args: UpArgs, secrets: &SecretStore) -> UpArgs {
    if let Some(url) = secrets.get("DATABASE_URL") {
        args.database_url = Some(Secret::new(url));
    }
    let keys = secrets.get("TASKMASTER_API_KEYS").unwrap_or_default();
    args.api_keys = keys.split(',').map(str::trim).filter(|key| !key.is_empty()).map(Secret::new).collect();
    args
}
