//! The join token of `up`: made once and kept with the data, so that outside workers can join again.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rand::Rng;
use rand::distr::Alphanumeric;
use taskmaster_service::Secret;

use super::UpArgs;

const FILE: &str = "join-token";
const CHARS: usize = 32;

/// The token from the environment, the kept one, or a new one.
///
/// # Errors
/// One line: the file cannot be read or written.
pub(super) fn keep_or_make(args: &UpArgs) -> Result<Secret, String> {
    if let Ok(token) = std::env::var("TASKMASTER_JOIN_TOKEN") {
        return Ok(Secret::new(token));
    }
    if args.ephemeral {
        return Ok(Secret::new(random()));
    }
    let path = args.data_dir.join(FILE);
    let kept = match std::fs::read_to_string(&path) {
        Ok(token) if token.trim().len() == CHARS => Ok(token.trim().to_owned()),
        Ok(_) => make(&path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => make(&path),
        Err(error) => Err(error),
    };
    kept.map(Secret::new).map_err(|error| format!("the join token in {}: {error}", path.display()))
}

fn make(path: &Path) -> std::io::Result<String> {
    let token = random();
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    writeln!(file, "{token}")?;
    Ok(token)
}

fn random() -> String {
    rand::rng().sample_iter(Alphanumeric).take(CHARS).map(char::from).collect()
}
