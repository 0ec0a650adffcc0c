//! API keys as this gateway knows them: what the database said a few seconds ago, so that a request costs no statement.
//!
//! What is remembered of a key is believed for [`FRESH`]; so long a revocation takes at most to be seen by every gateway. Then the
//! database is asked again: once for all that wait, by one statement for all keys. While it is away, a key is believed for
//! [`BELIEVED`]. A secret that does not fit may be newer than what is remembered, so that it is always asked for.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use taskmaster_openapi::key::{Scope, Scopes};
use taskmaster_openapi::{Code, Problem};
use taskmaster_service::batch::{BatchError, BatchLimits, Batcher};
use taskmaster_service::{Shutdown, auth};
use taskmaster_store::Store;
use taskmaster_store::keys::{KeyId, KeyToken, Refusal, SecretHash, StoredKey, USED_EVERY_SECONDS};

/// How long what the database said is taken for granted.
const FRESH: Duration = Duration::from_secs(3);
/// How long while the database is away.
const BELIEVED: Duration = Duration::from_secs(60);
/// How long after it did not answer the database is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// A database that does not answer by then is away.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
/// Keys remembered at once; ids that are nobody's are counted apart, so that guessing drives no key out.
const KNOWN_MAX: usize = 10_000;
const UNKNOWN_MAX: usize = 10_000;
const LOOKUPS: BatchLimits = BatchLimits { waiting_max: 10_000, batch_weight_max: 1_000, concurrency: 2, pace: None };
/// How often the keys that were used are noted; of each at most once a minute.
const NOTE_EVERY: Duration = Duration::from_secs(1);

type Found = Result<Option<Arc<StoredKey>>, Problem>;

/// Checks API keys of the database.
#[derive(Debug)]
pub(crate) struct Keyring {
    lookups: Batcher<KeyId, Found>,
    memory: Mutex<Memory>,
}

impl Keyring {
    /// A keyring, and the future that drives it until the keyring is dropped.
    pub(crate) fn new(store: Store) -> (Self, impl Future<Output = ()> + Send) {
        let (lookups, driver) = Batcher::new(
            LOOKUPS,
            |_| 1,
            move |ids: Vec<KeyId>| {
                let store = store.clone();
                async move { find(&store, &ids).await }
            },
        );
        (Self { lookups, memory: Mutex::default() }, driver)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a token allows, where that is known here.
    pub(crate) fn recall(&self, token: &KeyToken) -> Option<Result<Scopes, Problem>> {
        match self.memory().recall(token.id, &token.hash(), Instant::now()) {
            Recalled::Settled(verdict) => Some(verdict.map_err(refused)),
            Recalled::Strange | Recalled::Doubtful(_) => None,
        }
    }

    /// What a token allows. Unless the database may be asked, only tokens that are remembered are right.
    ///
    /// # Errors
    /// `unauthorized`; `database_unavailable` when nobody can tell.
    pub(crate) async fn check(&self, token: &KeyToken, may_ask: impl FnOnce() -> bool) -> Result<Scopes, Problem> {
        let secret = token.hash();
        let remembered = match self.memory().recall(token.id, &secret, Instant::now()) {
            Recalled::Settled(verdict) => return verdict.map_err(refused),
            Recalled::Strange if !may_ask() => return Err(refused(Refusal::Unknown)),
            Recalled::Strange => None,
            Recalled::Doubtful(remembered) => remembered,
        };
        let asked_at = Instant::now();
        let found = match (self.look_up(token.id).await, remembered) {
            (Ok(found), _) => found,
            (Err(_), Some(scopes)) => return Ok(scopes),
            (Err(problem), None) => return Err(problem),
        };
        let key = found.ok_or_else(|| refused(Refusal::Unknown))?;
        let scopes = key.check(&secret, asked_at.elapsed()).map_err(refused)?;
        self.memory().note_use(token.id);
        Ok(scopes)
    }

    /// Whether a key that was accepted before still is: for answers that have no end.
    pub(crate) async fn still_allows(&self, id: KeyId, scope: Scope) -> bool {
        if !self.memory().is_fresh(id, Instant::now()) {
            // Without an answer, what is remembered counts.
            let _ = self.look_up(id).await;
        }
        self.memory().allows(id, scope, Instant::now())
    }

    /// Forgets what is remembered of a key that this gateway has just changed.
    pub(crate) fn forget(&self, id: KeyId) {
        self.memory().known.remove(&id);
    }

    /// Asks the database, together with whoever else asks.
    async fn look_up(&self, id: KeyId) -> Result<Option<Arc<StoredKey>>, Problem> {
        let asked_at = Instant::now();
        let found = self.lookups.submit(id).await.unwrap_or_else(|error| Err(not_asked(error)));
        let mut memory = self.memory();
        match &found {
            Ok(Some(key)) => memory.learn(key, asked_at),
            Ok(None) => memory.learn_nobody(id, asked_at),
            Err(_) => memory.learn_nothing(id, Instant::now()),
        }
        found
    }

    /// Notes in the database which keys were used, until the stop is requested.
    pub(crate) async fn note_used(&self, store: &Store, shutdown: &Shutdown) {
        while shutdown.or_stop(tokio::time::sleep(NOTE_EVERY)).await.is_some() {
            let used = self.memory().take_used(Instant::now());
            if used.is_empty() {
                continue;
            }
            // What cannot be noted now is noted when the key is used in a minute.
            if let Ok(Err(error)) = tokio::time::timeout(LOOKUP_TIMEOUT, store.keys_used(&used)).await {
                tracing::debug!(%error, "the use of API keys could not be noted");
            }
        }
    }
}

/// Asks the database for all of these; one answer an id, in order.
async fn find(store: &Store, ids: &[KeyId]) -> Vec<Found> {
    let wanted: HashSet<KeyId> = ids.iter().copied().collect();
    let wanted: Vec<KeyId> = wanted.into_iter().collect();
    let asked = match tokio::time::timeout(LOOKUP_TIMEOUT, store.stored_keys(&wanted)).await {
        Ok(asked) => asked.map_err(Problem::from),
        Err(_) => Err(away()),
    };
    match asked {
        Ok(keys) => {
            let keys: HashMap<KeyId, Arc<StoredKey>> = keys.into_iter().map(|key| (key.id, Arc::new(key))).collect();
            ids.iter().map(|id| Ok(keys.get(id).cloned())).collect()
        }
        Err(problem) => vec![Err(problem); ids.len()],
    }
}

fn away() -> Problem {
    let detail = "The API key cannot be checked: the database did not answer in time.";
    Problem::new(Code::DatabaseUnavailable, detail).retry_after_seconds(2)
}

fn not_asked(error: BatchError) -> Problem {
    match error {
        BatchError::Overloaded => Problem::new(Code::Overloaded, "Too many API keys wait to be checked."),
        BatchError::Stopped => Problem::new(Code::ShuttingDown, "This gateway is stopping."),
    }
    .retry_after_seconds(1)
}

fn refused(refusal: Refusal) -> Problem {
    auth::unauthorized(match refusal {
        Refusal::Unknown => "This API key is not known here.",
        Refusal::Expired => "This API key has expired.",
        Refusal::Revoked => "This API key was revoked.",
    })
}

/// What is remembered. Pure: every call is told the time.
#[derive(Debug, Default)]
struct Memory {
    known: HashMap<KeyId, Known>,
    /// Ids that are nobody's, and until when that is taken for granted.
    unknown: HashMap<KeyId, Instant>,
}

#[derive(Debug)]
struct Known {
    key: Arc<StoredKey>,
    asked_at: Instant,
    ask_again_at: Instant,
    used: bool,
    noted_at: Option<Instant>,
}

/// What memory says of a token.
#[derive(Debug, PartialEq)]
enum Recalled {
    Settled(Result<Scopes, Refusal>),
    /// To be asked for again; what to believe when that fails.
    Doubtful(Option<Scopes>),
    /// Nothing that is remembered fits.
    Strange,
}

impl Known {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.asked_at)
    }
}

impl Memory {
    fn recall(&mut self, id: KeyId, secret: &SecretHash, now: Instant) -> Recalled {
        let Some(known) = self.known.get_mut(&id) else {
            return match self.unknown.get(&id).is_some_and(|until| now < *until) {
                true => Recalled::Settled(Err(Refusal::Unknown)),
                false => Recalled::Strange,
            };
        };
        let age = known.age(now);
        match known.key.check(secret, age) {
            Err(Refusal::Unknown) => Recalled::Strange,
            verdict if now < known.ask_again_at => {
                known.used |= verdict.is_ok();
                Recalled::Settled(verdict)
            }
            Ok(scopes) if age < BELIEVED => Recalled::Doubtful(Some(scopes)),
            _ => Recalled::Doubtful(None),
        }
    }

    fn note_use(&mut self, id: KeyId) {
        if let Some(known) = self.known.get_mut(&id) {
            known.used = true;
        }
    }

    fn is_fresh(&self, id: KeyId, now: Instant) -> bool {
        self.known.get(&id).is_some_and(|known| now < known.ask_again_at)
    }

    fn allows(&self, id: KeyId, scope: Scope, now: Instant) -> bool {
        let Some(known) = self.known.get(&id) else { return false };
        let age = known.age(now);
        age < BELIEVED && known.key.is_active(age).is_ok() && known.key.scopes.allow(scope)
    }

    fn learn(&mut self, key: &Arc<StoredKey>, asked_at: Instant) {
        let ask_again_at = asked_at + FRESH;
        self.unknown.remove(&key.id);
        if let Some(known) = self.known.get_mut(&key.id) {
            // Answers may overtake one another.
            if known.asked_at <= asked_at {
                (known.key, known.asked_at, known.ask_again_at) = (key.clone(), asked_at, ask_again_at);
            }
            return;
        }
        if self.known.len() >= KNOWN_MAX {
            self.make_room(asked_at);
        }
        self.known.insert(key.id, Known { key: key.clone(), asked_at, ask_again_at, used: false, noted_at: None });
    }

    fn learn_nobody(&mut self, id: KeyId, asked_at: Instant) {
        self.known.remove(&id);
        if self.unknown.len() >= UNKNOWN_MAX {
            self.unknown.retain(|_, until| asked_at < *until);
        }
        if self.unknown.len() < UNKNOWN_MAX {
            self.unknown.insert(id, asked_at + FRESH);
        }
    }

    /// Drops what would have to be asked for anyway, and of what is left one in two.
    fn make_room(&mut self, now: Instant) {
        self.known.retain(|_, known| now < known.ask_again_at);
        let mut keep = false;
        if self.known.len() >= KNOWN_MAX {
            self.known.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
    }

    /// The database did not answer: what is believed meanwhile does not wait for it again at once.
    fn learn_nothing(&mut self, id: KeyId, now: Instant) {
        if let Some(known) = self.known.get_mut(&id) {
            known.ask_again_at = (now + ASK_AGAIN).min(known.asked_at + BELIEVED).max(known.ask_again_at);
        }
    }

    /// Keys that were used, and not noted within the last minute.
    fn take_used(&mut self, now: Instant) -> Vec<KeyId> {
        let every = Duration::from_secs_f64(USED_EVERY_SECONDS);
        let due =
            |known: &Known| known.used && known.noted_at.is_none_or(|at| now.saturating_duration_since(at) >= every);
        let mut ids = Vec::new();
        for (id, known) in self.known.iter_mut().filter(|(_, known)| due(known)) {
            (known.used, known.noted_at) = (false, Some(now));
            ids.push(*id);
        }
        ids
    }
}

#[cfg(test)]
mod tests;
