//! How much is done at once for those who ask: reads of the mesh, pages of proxies, and the bytes of
//! answers until they are read ([`HeldAnswer`]); in all, and for one holder. A user with a right in one
//! namespace could use up the memory of the control plane otherwise.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::unwrap_used
    )
)]

mod answer;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

pub use self::answer::HeldAnswer;

/// Reads that run at once: each has a copy of what it shows. Others wait.
const RUNNING: usize = 4;
/// For a read to begin.
const WAIT: Duration = Duration::from_secs(5);
/// Of all holders.
const OF_ALL: Amount = Amount {
    reads: 64,
    pages: 8,
    bytes: 160 << 20,
};
/// Of one. A page, the largest, may have 64 MiB.
const OF_ONE: Amount = Amount {
    reads: 8,
    pages: 2,
    bytes: 80 << 20,
};

/// For whom something is done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LoadHolder {
    /// The holder of the API's token.
    ApiToken,
    /// A user, or all service accounts of a namespace.
    User(String),
    /// The other replicas, which have bounds for their own users.
    Replicas,
}

/// Why something is not done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Overload {
    #[error(
        "you have as many open requests as one user may (service accounts: one namespace), or as many bytes in their answers"
    )]
    OfHolder,
    #[error(
        "the control plane has as many open requests as it takes, or as many bytes in their answers"
    )]
    OfAll,
}

/// What is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    /// That run or wait.
    reads: usize,
    /// That proxies, or other replicas, are asked for.
    pages: usize,
    bytes: usize,
}

impl Amount {
    fn plus(self, other: Amount) -> Amount {
        Amount {
            reads: self.reads.saturating_add(other.reads),
            pages: self.pages.saturating_add(other.pages),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    fn minus(self, other: Amount) -> Amount {
        Amount {
            reads: self.reads.saturating_sub(other.reads),
            pages: self.pages.saturating_sub(other.pages),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    fn is_within(self, bound: Amount) -> bool {
        self.reads <= bound.reads && self.pages <= bound.pages && self.bytes <= bound.bytes
    }
}

#[derive(Default)]
struct LoadTable {
    all: Amount,
    of: HashMap<LoadHolder, Amount>,
}

/// See the module.
pub struct RequestLoad {
    table: Mutex<LoadTable>,
    running: Arc<Semaphore>,
}

impl Default for RequestLoad {
    fn default() -> Self {
        RequestLoad {
            table: Mutex::default(),
            running: Arc::new(Semaphore::new(RUNNING)),
        }
    }
}

impl RequestLoad {
    fn table(&self) -> MutexGuard<'_, LoadTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.table().all.bytes
    }

    fn take(&self, holder: &LoadHolder, more: Amount) -> Result<(), Overload> {
        let bound = match holder {
            LoadHolder::Replicas => OF_ALL,
            LoadHolder::ApiToken | LoadHolder::User(_) => OF_ONE,
        };
        let mut table = self.table();
        let one = table.of.get(holder).copied().unwrap_or_default().plus(more);
        let all = table.all.plus(more);
        if !one.is_within(bound) {
            return Err(Overload::OfHolder);
        }
        if !all.is_within(OF_ALL) {
            return Err(Overload::OfAll);
        }
        table.all = all;
        table.of.insert(holder.clone(), one);
        Ok(())
    }

    fn release(&self, holder: &LoadHolder, less: Amount) {
        let mut table = self.table();
        table.all = table.all.minus(less);
        let left = table.of.get(holder).copied().unwrap_or_default();
        match left.minus(less) {
            left if left == Amount::default() => drop(table.of.remove(holder)),
            left => drop(table.of.insert(holder.clone(), left)),
        }
    }

    fn hold(self: &Arc<Self>, holder: LoadHolder, held: Amount) -> Result<HeldLoad, Overload> {
        self.take(&holder, held)?;
        Ok(HeldLoad {
            of: Arc::clone(self),
            holder,
            held,
        })
    }

    /// A read that is open, once it may run.
    ///
    /// # Errors
    /// When it may not in time.
    pub async fn run(&self, held: HeldLoad) -> Result<RunningRead, Overload> {
        let running = Arc::clone(&self.running).acquire_owned();
        match timeout(WAIT, running).await {
            Ok(Ok(running)) => Ok(RunningRead {
                held,
                _running: running,
            }),
            // It is never closed.
            Ok(Err(_)) | Err(_) => Err(Overload::OfAll),
        }
    }

    /// A read: one that waits for proxies and copies little, or one that is to run.
    ///
    /// # Errors
    /// When too many are open.
    pub fn read(self: &Arc<Self>, holder: LoadHolder) -> Result<HeldLoad, Overload> {
        let one = Amount {
            reads: 1,
            ..Amount::default()
        };
        self.hold(holder, one)
    }

    /// A page of a proxy.
    ///
    /// # Errors
    /// When too many are open.
    pub fn page(self: &Arc<Self>, holder: LoadHolder) -> Result<HeldLoad, Overload> {
        let one = Amount {
            pages: 1,
            ..Amount::default()
        };
        self.hold(holder, one)
    }
}

/// Counts until it is dropped.
pub struct HeldLoad {
    of: Arc<RequestLoad>,
    holder: LoadHolder,
    held: Amount,
}

impl HeldLoad {
    /// # Errors
    /// When so many more bytes are too many.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Overload> {
        let more = Amount {
            bytes,
            ..Amount::default()
        };
        self.of.take(&self.holder, more)?;
        self.held = self.held.plus(more);
        Ok(())
    }

    /// What was asked for is there: only its bytes count from now on.
    #[must_use]
    pub fn answered(mut self) -> Self {
        let rest = Amount {
            bytes: 0,
            ..self.held
        };
        self.of.release(&self.holder, rest);
        self.held = self.held.minus(rest);
        self
    }
}

impl Drop for HeldLoad {
    fn drop(&mut self) {
        self.of.release(&self.holder, self.held);
    }
}

/// See [`RequestLoad::run`].
pub struct RunningRead {
    held: HeldLoad,
    _running: OwnedSemaphorePermit,
}

impl RunningRead {
    /// Its answer, which counts until it is read.
    ///
    /// # Errors
    /// When it has too many bytes.
    pub fn answer(mut self, data: Vec<u8>) -> Result<HeldAnswer, Overload> {
        self.held.grow(data.len())?;
        Ok(HeldAnswer::new(vec![data], self.held.answered()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> LoadHolder {
        LoadHolder::User(name.to_owned())
    }

    #[test]
    fn one_user_has_a_part_of_what_all_have() {
        let load = Arc::new(RequestLoad::default());
        let mut open: Vec<_> = (0..2).map(|_| load.page(user("jane")).unwrap()).collect();
        let refused = |name: &str| load.page(user(name)).err();
        assert_eq!(refused("jane"), Some(Overload::OfHolder));
        for name in ["joe", "joe", "jim", "jim", "ann", "ann"] {
            open.push(load.page(user(name)).unwrap());
        }
        assert_eq!(refused("bob"), Some(Overload::OfAll));
        let replicas = load.page(LoadHolder::Replicas).err();
        assert_eq!(replicas, Some(Overload::OfAll));
        open.remove(0);
        assert_eq!(refused("bob"), None);
        // What is there counts by its bytes.
        let jane = open.remove(0).answered();
        assert_eq!(refused("jane"), None);
        drop((open, jane));
        assert_eq!(load.table().all, Amount::default());
        assert!(load.table().of.is_empty());
    }

    #[test]
    fn bytes_count_until_they_are_dropped() {
        let load = Arc::new(RequestLoad::default());
        let mut page = load.page(user("jane")).unwrap();
        page.grow(OF_ONE.bytes).unwrap();
        assert_eq!(page.grow(1), Err(Overload::OfHolder));
        let mut other = load.page(user("joe")).unwrap();
        other.grow(OF_ALL.bytes - OF_ONE.bytes).unwrap();
        let mut third = load.page(user("ann")).unwrap();
        assert_eq!(third.grow(1), Err(Overload::OfAll));
        let page = page.answered();
        assert_eq!(third.grow(1), Err(Overload::OfAll));
        drop(page);
        assert_eq!(third.grow(1), Ok(()));
    }

    #[tokio::test]
    async fn reads_run_one_after_the_other_beyond_a_few() {
        let load = Arc::new(RequestLoad::default());
        let mut running = Vec::new();
        for _ in 0..RUNNING {
            let open = load.read(user("jane")).unwrap();
            running.push(load.run(open).await.unwrap());
        }
        let next = load.run(load.read(user("joe")).unwrap());
        let mut next = std::pin::pin!(next);
        assert!(timeout(Duration::ZERO, next.as_mut()).await.is_err());
        let answer = running.remove(0).answer(b"{}".to_vec()).unwrap();
        assert!(next.await.is_ok(), "an answer that is written runs no more");
        assert_eq!(load.bytes(), 2);
        drop(answer);
        assert_eq!(load.bytes(), 0);
        let open: Vec<_> = (0..OF_ONE.reads)
            .map_while(|_| load.read(user("jane")).ok())
            .collect();
        assert_eq!(open.len(), OF_ONE.reads - running.len());
        assert!(load.read(user("joe")).is_ok());
    }
}
