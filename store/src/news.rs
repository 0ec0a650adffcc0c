//! What the processes tell one another, after the commit of what it is about.
//!
//! A transaction that notifies holds a lock of the whole server from the beginning of its commit until that is on the disk: no two of them
//! share an fsync, and where the disk is slow they wait in line. So who commits often only notes here what there is to tell, and a statement of
//! its own, whose commit waits for no disk, tells it. What is seldom notifies by itself.

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::database::Store;
use crate::error::StoreError;
use crate::wakeup::Channel;

/// A notification is shorter than 8,000 bytes. What there is more of is told by [`EVERY_BAND`].
const DUE_BYTES_MAX: usize = 7_500;
/// All bands may have something due.
const EVERY_BAND: &str = "*";
/// Between tries while the database is not available.
const PAUSE: Duration = Duration::from_millis(500);

/// What coordinators are to be told of rows that are QUEUED now, as `due` of `news`; see [`Channel::Due`]. `$count` is how many have just
/// come.
macro_rules! news_sql {
    ($rows:literal, $count:literal) => {
        concat!(
            "bands as (
    select lane, priority, ",
            $count,
            " as n, min(run_at) as first
      from ",
            $rows,
            " where run_at < now() + interval '30 seconds' group by lane, priority limit 101
), news as (
    select case when count(*) > 100 then '*' else string_agg(concat_ws(':', lane, priority, coalesce(n::text, ''),
                (extract(epoch from first) * 1000000)::bigint), ',') end as due
      from bands having count(*) > 0
)"
        )
    };
}
pub(crate) use news_sql;

/// What this process has to tell.
#[derive(Debug, Default)]
pub(crate) struct News {
    untold: Mutex<Untold>,
    noted: Notify,
}

/// What is to be told; of a transaction, once it is committed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Untold {
    /// Bands that have work, separated by commas.
    due: String,
    /// There are events.
    events: bool,
}

impl Untold {
    pub fn of(due: Option<&str>) -> Self {
        let mut untold = Self::default();
        untold.due(due.unwrap_or_default());
        untold
    }

    /// These bands have work: as [`Channel::Due`] names them.
    pub fn due(&mut self, bands: &str) {
        if bands.is_empty() || self.due == EVERY_BAND {
            return;
        }
        let together = self.due.len() + 1 + bands.len();
        if bands == EVERY_BAND || together > DUE_BYTES_MAX {
            EVERY_BAND.clone_into(&mut self.due);
            return;
        }
        if !self.due.is_empty() {
            self.due.push(',');
        }
        self.due.push_str(bands);
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn add(&mut self, other: &Self) {
        self.due(&other.due);
        self.events |= other.events;
    }

    /// Channels, and what is told on each.
    fn told(&self) -> (Vec<&'static str>, Vec<&str>) {
        let due = (!self.due.is_empty()).then_some((Channel::Due.name(), self.due.as_str()));
        let events = self.events.then_some((Channel::Events.name(), ""));
        due.into_iter().chain(events).unzip()
    }
}

impl News {
    fn due(&self, bands: &str) {
        self.note(|untold| untold.due(bands));
    }

    /// There are events.
    pub fn events(&self) {
        self.note(|untold| untold.events = true);
    }

    fn note(&self, note: impl FnOnce(&mut Untold)) {
        note(&mut self.untold.lock().unwrap_or_else(PoisonError::into_inner));
        self.noted.notify_one();
    }

    fn take(&self) -> Option<Untold> {
        let untold = std::mem::take(&mut *self.untold.lock().unwrap_or_else(PoisonError::into_inner));
        (!untold.is_empty()).then_some(untold)
    }

    /// All of this.
    fn add(&self, untold: &Untold) {
        self.note(|all| all.add(untold));
    }

    /// Something is being stored that others are to be told of.
    pub fn storing(&self) -> Storing<'_> {
        Storing { news: self, is_known: false }
    }
}

/// Between a statement and its answer. Who gives up waiting (a client that hangs up, a deadline) does not know what has been stored:
/// then every band may have something.
#[derive(Debug)]
pub(crate) struct Storing<'a> {
    news: &'a News,
    is_known: bool,
}

impl Storing<'_> {
    /// It is stored, and this is what there is to tell.
    pub fn stored(mut self, untold: &Untold) {
        self.is_known = true;
        self.news.add(untold);
    }
}

impl Drop for Storing<'_> {
    fn drop(&mut self) {
        if !self.is_known {
            self.news.due(EVERY_BAND);
        }
    }
}

impl Store {
    /// Tells others what this process has to tell, as it comes and at last, while something is done. Every gateway and every
    /// coordinator does.
    pub async fn tell_news_while<T>(&self, done: impl Future<Output = T>) -> T {
        let done = tokio::select! {
            done = done => done,
            never = self.tell_news() => match never {},
        };
        if let Err(error) = self.tell().await {
            tracing::debug!(%error, "others will find what is new by themselves");
        }
        done
    }

    async fn tell_news(&self) -> Infallible {
        loop {
            self.news.noted.notified().await;
            if let Err(error) = self.tell().await {
                tracing::debug!(%error, "notifications wait for the database");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// What could not be told is told with what comes next.
    async fn tell(&self) -> Result<(), StoreError> {
        let Some(untold) = self.news.take() else { return Ok(()) };
        let (channels, payloads) = untold.told();
        let told = self.notify(&channels, &payloads).await;
        if told.is_err() {
            // With what has come meanwhile.
            self.news.add(&untold);
        }
        told
    }

    /// Notifies on each channel of its payload, without waiting for the disk.
    pub(crate) async fn notify(&self, channels: &[&str], payloads: &[&str]) -> Result<(), StoreError> {
        sqlx::query(
            "select set_config('synchronous_commit', 'off', true), pg_notify(channel, payload)
               from unnest($1::text[], $2::text[]) as n(channel, payload)",
        )
        .bind(channels)
        .bind(payloads)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_before_it_is_told_is_told_together() {
        let news = News::default();
        assert_eq!(news.take(), None);
        news.due("1:5:3");
        news.due("");
        news.due("2:0,3:0");
        assert_eq!(news.take().unwrap().told(), (vec!["taskmaster_due"], vec!["1:5:3,2:0,3:0"]));
        news.events();
        assert_eq!(news.take().unwrap().told(), (vec!["taskmaster_events"], vec![""]));
        assert_eq!(news.take(), None);
    }

    #[test]
    fn what_could_not_be_told_is_told_with_what_has_come_since() {
        let news = News::default();
        news.due("1:5");
        news.events();
        let failed = news.take().unwrap();
        news.due("2:5");
        news.add(&failed);
        assert_eq!(news.take().unwrap().told().1, ["2:5,1:5", ""]);
    }

    #[test]
    fn what_nobody_waited_for_may_be_anywhere() {
        let news = News::default();
        news.storing().stored(&Untold::of(Some("1:5")));
        assert_eq!(news.take().unwrap().due, "1:5");
        drop(news.storing());
        assert_eq!(news.take().unwrap().due, EVERY_BAND);
    }

    #[test]
    fn more_than_fits_into_a_notification_means_every_band() {
        let news = News::default();
        (0..5_000).for_each(|_| news.due("1:5:100"));
        news.due("2:5");
        assert_eq!(news.take().unwrap().due, EVERY_BAND);
        let long = "1:5,".repeat(2_000);
        news.due(&long);
        assert_eq!(news.take().unwrap().due, EVERY_BAND);
    }
}
