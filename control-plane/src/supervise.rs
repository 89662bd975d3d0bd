//! Tasks that run for as long as the process does. When one of them ends by itself, by a panic above
//! all, nothing does its work any more while everything else looks healthy: configuration would stay
//! as it is, or a certificate run out. So the process ends then, in order and with an error, and is
//! started again; proxies keep their configuration meanwhile.

use std::any::Any;
use std::collections::HashMap;
use std::future::{Future, pending};

use tokio::task::{self, JoinSet};

/// A task that has ended by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskEnded {
    #[error("{0} has ended, which nothing else does; start the control plane again")]
    Returned(&'static str),
    #[error(
        "{task} has panicked, which nothing else does; start the control plane again: {message}"
    )]
    Panicked { task: &'static str, message: String },
}

/// See the module. Dropped, it ends its tasks.
#[derive(Default)]
pub struct LongLivedTasks {
    running: JoinSet<()>,
    names: HashMap<task::Id, &'static str>,
}

impl LongLivedTasks {
    /// `name`: what the task does, in a message.
    pub fn spawn(&mut self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let task = self.running.spawn(work);
        self.names.insert(task.id(), name);
    }

    /// Waits until one of them ends. That is an error unless they are being stopped. It may be dropped
    /// and called again.
    pub async fn ended(&mut self) -> TaskEnded {
        let Some(ended) = self.running.join_next_with_id().await else {
            return pending().await;
        };
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        let task = self.names.remove(&id).unwrap_or("a task");
        match ended.map_err(task::JoinError::try_into_panic) {
            Err(Ok(panic)) => TaskEnded::Panicked {
                task,
                message: message(&*panic),
            },
            _ => TaskEnded::Returned(task),
        }
    }

    /// Waits until all have ended.
    pub async fn join(&mut self) {
        while self.running.join_next().await.is_some() {}
    }

    /// Ends all.
    pub async fn shutdown(&mut self) {
        self.running.shutdown().await;
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_by_itself_is_named() {
        let mut tasks = LongLivedTasks::default();
        tasks.spawn("serving", pending());
        tasks.spawn("following", async { panic!("on {}", "purpose") });
        let panicked = TaskEnded::Panicked {
            task: "following",
            message: "on purpose".to_owned(),
        };
        assert_eq!(tasks.ended().await, panicked);
        tasks.spawn("renewing", async {});
        assert_eq!(tasks.ended().await, TaskEnded::Returned("renewing"));
        tasks.shutdown().await;
        tasks.join().await;
    }
}
