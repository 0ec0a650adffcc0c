//! Connections to a server, and who has them.
//!
//! sqlx's pool makes them, tests those that have lain idle, and closes them. But whatever comes back to it is asked for a sign of life,
//! since a statement may have been given up half way: a round trip for every statement. So a connection that has answered stays
//! out here, warm, for whoever comes next, and goes back only when it is not used any more, or when nobody knows how it is.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryFutureExt, TryStreamExt, stream};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgPool, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Either, Error, Execute, Executor, PgConnection, Postgres, SqlStr};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::database::{Role, suits};
use crate::news::{News, Untold};

/// One that was used within this time is taken without asking whether it still leads to where it should.
pub(crate) const TRUSTED: Duration = Duration::from_secs(1);
/// One that was not used for so long goes back, and is closed there once it has been idle for long enough.
const WARM: Duration = Duration::from_secs(5);
/// Also one that is used all the time goes back this often, to be closed there when it is too old.
const OUT_MAX: Duration = Duration::from_secs(60);

/// Connections to one server. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sqlx: PgPool,
    role: Role,
    timeout: Duration,
    /// As many as sqlx's pool has: whoever has a place finds a connection here or there.
    places: Arc<Semaphore>,
    /// Those that are out and not used, by when they were used last.
    warm: Mutex<Vec<Out>>,
}

/// A connection that is out of sqlx's pool.
#[derive(Debug)]
struct Out {
    connection: PoolConnection<Postgres>,
    since: Instant,
    used_at: Instant,
}

impl Pool {
    pub fn new(sqlx: PgPool, role: Role) -> Self {
        let options = sqlx.options();
        let (places, timeout) = (options.get_max_connections() as usize, options.get_acquire_timeout());
        Self(Arc::new(Inner { role, timeout, places: Arc::new(Semaphore::new(places)), warm: Mutex::default(), sqlx }))
    }

    /// A connection, once there is one.
    ///
    /// # Errors
    /// When none can be had in time.
    pub async fn acquire(&self) -> sqlx::Result<Lease> {
        let acquired = tokio::time::timeout(self.0.timeout, async {
            let place = self.place().await?;
            Ok(Lease { out: self.0.any().await?, pool: self.0.clone(), place })
        });
        acquired.await.unwrap_or(Err(Error::PoolTimedOut))
    }

    /// Asks something over one connection, and leaves that to whoever comes next if it went well.
    ///
    /// # Errors
    /// When no connection can be had in time, and those of what is asked.
    pub async fn ask<T, E: From<Error>>(
        &self,
        what: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut lease = self.acquire().await?;
        let answer = what(&mut lease).await;
        lease.answered(answer)
    }

    /// A transaction on a connection of its own.
    ///
    /// It begins in a task of its own: a `begin` that is given up before its answer would leave its connection within a transaction
    /// that nobody knows of, and what others then do over that connection would not be committed.
    ///
    /// # Errors
    /// When no connection can be had in time, or the server does not begin one.
    pub async fn begin(&self, news: Arc<News>) -> sqlx::Result<Transaction> {
        let pool = self.clone();
        let begun = tokio::spawn(async move {
            let Lease { out, place, .. } = pool.acquire().await?;
            let begun = sqlx::Transaction::begin(out.connection, None).await?;
            Ok(Transaction { begun, news, untold: Untold::default(), _place: place })
        });
        begun.await.map_err(|_| Error::WorkerCrashed)?
    }

    /// sqlx's pool, for what takes a connection of it by itself, and the place for that.
    ///
    /// # Errors
    /// When there is no place in time.
    pub async fn below(&self) -> sqlx::Result<(&PgPool, OwnedSemaphorePermit)> {
        let place = tokio::time::timeout(self.0.timeout, self.place()).await.unwrap_or(Err(Error::PoolTimedOut))?;
        // What is warm makes room.
        drop(self.0.warm().pop());
        Ok((&self.0.sqlx, place))
    }

    /// Closes all connections, once they are given back.
    pub async fn close(&self) {
        self.0.places.close();
        let closing = self.0.sqlx.close();
        self.0.warm().clear();
        closing.await;
    }

    async fn place(&self) -> sqlx::Result<OwnedSemaphorePermit> {
        self.0.places.clone().acquire_owned().await.map_err(|_| Error::PoolClosed)
    }
}

impl Inner {
    fn warm(&self) -> MutexGuard<'_, Vec<Out>> {
        self.warm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that was used last, or one of sqlx's.
    async fn any(&self) -> sqlx::Result<Out> {
        let warm = self.warm().pop();
        if let Some(out) = warm {
            if out.used_at.elapsed() < TRUSTED {
                return Ok(out);
            }
            if let Some(out) = Asked(Some(out)).still_suits(self.role).await {
                return Ok(out);
            }
        }
        let now = Instant::now();
        Ok(Out { connection: self.sqlx.acquire().await?, since: now, used_at: now })
    }

    /// Takes one back that has answered.
    fn keep(&self, mut out: Out) {
        out.used_at = Instant::now();
        let is_old = out.used_at - out.since >= OUT_MAX;
        let mut warm = self.warm();
        let cold = warm.partition_point(|other| out.used_at - other.used_at >= WARM);
        let mut back: Vec<Out> = warm.drain(..cold).collect();
        match is_old || self.sqlx.is_closed() {
            true => back.push(out),
            false => warm.push(out),
        }
        drop(warm);
        // Here they go back, outside of the lock.
        drop(back);
    }
}

impl Drop for Inner {
    /// What is warm goes back, to be closed there. Where there is no runtime any more the process ends, and they with it.
    fn drop(&mut self) {
        let warm = std::mem::take(self.warm.get_mut().unwrap_or_else(PoisonError::into_inner));
        if Handle::try_current().is_err() {
            std::mem::forget(warm);
        }
    }
}

/// A connection that is asked whether it still leads to where it should. One that does not, or does not answer for as long as somebody waits
/// for it, is closed at once: the place that it has is wanted for another.
struct Asked(Option<Out>);

impl Asked {
    async fn still_suits(mut self, role: Role) -> Option<Out> {
        let suits = suits(&mut self.0.as_mut()?.connection, role).await.unwrap_or(false);
        self.0.take_if(|_| suits)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        drop(self.0.take().map(|out| out.connection.detach()));
    }
}

/// A connection of the pool, which goes back to sqlx's when this is dropped. Who has an answer to all that was asked over it
/// gives it back with [`Lease::answered`].
#[derive(Debug)]
pub(crate) struct Lease {
    out: Out,
    pool: Arc<Inner>,
    place: OwnedSemaphorePermit,
}

impl Lease {
    /// Leaves the connection to whoever comes next if this went well.
    pub fn answered<T, E>(self, result: Result<T, E>) -> Result<T, E> {
        let Self { out, pool, place } = self;
        if result.is_ok() {
            pool.keep(out);
        }
        drop(place);
        result
    }
}

impl Deref for Lease {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.out.connection
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.out.connection
    }
}

/// A transaction, which is rolled back when it is dropped.
#[derive(Debug)]
pub(crate) struct Transaction {
    begun: sqlx::Transaction<'static, Postgres>,
    news: Arc<News>,
    untold: Untold,
    _place: OwnedSemaphorePermit,
}

impl Transaction {
    /// Commits it, and has others told what there is to tell of it.
    pub async fn commit(self) -> sqlx::Result<()> {
        let storing = (!self.untold.is_empty()).then(|| self.news.storing());
        self.begun.commit().await?;
        if let Some(storing) = storing {
            storing.stored(&self.untold);
        }
        Ok(())
    }

    /// Once it is committed, these bands have work: see [`Untold::due`].
    pub fn due(&mut self, bands: Option<&str>) {
        self.untold.due(bands.unwrap_or_default());
    }

    pub async fn rollback(self) -> sqlx::Result<()> {
        self.begun.rollback().await
    }
}

impl Deref for Transaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.begun
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.begun
    }
}

/// Each statement on whichever connection there is. Its rows are read to the end before the first is given out.
impl<'p> Executor<'p> for &'_ Pool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<Either<PgQueryResult, PgRow>>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let pool = self.clone();
        let answer = async move {
            let mut lease = pool.acquire().await?;
            let answer: sqlx::Result<Vec<_>> = (&mut *lease).fetch_many(query).try_collect().await;
            lease.answered(answer)
        };
        answer.map_ok(|rows| stream::iter(rows).map(Ok)).try_flatten_stream().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let pool = self.clone();
        async move {
            let mut lease = pool.acquire().await?;
            let answer = (&mut *lease).fetch_optional(query).await;
            lease.answered(answer)
        }
        .boxed()
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, sqlx::Result<PgStatement>>
    where
        'p: 'e,
    {
        let pool = self.clone();
        async move {
            let mut lease = pool.acquire().await?;
            let answer = (&mut *lease).prepare_with(sql, parameters).await;
            lease.answered(answer)
        }
        .boxed()
    }
}
