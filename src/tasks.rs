//! Where every task is spawned.
//!
//! A task has a name and its death a meaning: an *essential* task that ends before the stop was asked for brings
//! the process down in order, a *passing* one is only logged. Stopping has two stages: [`Tasks::stop`] asks
//! everybody to take no more work; [`Tasks::finish`] waits for them as long as the grace allows and then cuts. *Brief* ones
//! come by the hundred thousand: what a name, a meaning and a cut cost would be felt.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What it means when a task ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The process cannot go on without it.
    Essential,
    /// It comes and goes.
    Passing,
}

/// How an essential task ended although nobody asked it to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// The task.
    pub task: &'static str,
    /// Whether it panicked (or returned).
    pub panicked: bool,
}

/// Owner of all tasks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    brief: TaskTracker,
    stop: CancellationToken,
    cut: CancellationToken,
    deaths: mpsc::UnboundedSender<Death>,
}

impl Tasks {
    /// A new owner, and where the deaths of essential tasks are told.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Death>) {
        let (deaths, told) = mpsc::unbounded_channel();
        let tasks = Self {
            tracker: TaskTracker::new(),
            brief: TaskTracker::new(),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
            deaths,
        };
        (tasks, told)
    }

    /// Spawns a task under a name. It is dropped at the cut, wherever it stands.
    pub fn spawn<F>(&self, name: &'static str, role: Role, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, cut, deaths) = (self.stop.clone(), self.cut.clone(), self.deaths.clone());
        self.tracker.spawn(async move {
            let caught = tokio::select! {
                ended = AssertUnwindSafe(future).catch_unwind() => ended,
                () = cut.cancelled() => Ok(()),
            };
            let panicked = caught.is_err();
            if panicked {
                tracing::error!(task = name, "a task panicked; this is a fault in walhook");
            }
            if role == Role::Essential && !stop.is_cancelled() {
                let told = deaths.send(Death { task: name, panicked });
                drop(told);
            }
        });
    }

    /// Spawns a task that ends by itself within a bound, as an attempt does. Nobody cuts it, after the grace nobody waits for
    /// it, and a panic ends it alone.
    pub fn spawn_brief<F>(&self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // In a box, so that its size is moved once.
        self.brief.spawn(Box::pin(future));
    }

    /// Asks every task to take no more work.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// The token that [`Tasks::stop`] cancels.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Waits for all tasks, then cuts those that are left, but for brief ones. Returns whether all ended by themselves.
    pub async fn finish(&self, grace: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        self.brief.close();
        let all = futures_util::future::join(self.tracker.wait(), self.brief.wait());
        let ended = tokio::time::timeout(grace, all).await.is_ok();
        self.cut.cancel();
        if !ended {
            self.tracker.wait().await;
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_essential_death_is_told_and_the_grace_is_kept() {
        let (tasks, mut told) = Tasks::new();
        tasks.spawn("dies", Role::Essential, async {});
        assert_eq!(told.recv().await, Some(Death { task: "dies", panicked: false }));
        tasks.spawn("panics", Role::Essential, async { panic!("on purpose") });
        assert_eq!(told.recv().await, Some(Death { task: "panics", panicked: true }));
        tasks.spawn("hangs", Role::Passing, std::future::pending());
        assert!(!tasks.finish(Duration::from_secs(1)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn brief_tasks_have_the_grace_and_nobody_waits_for_them_beyond_it() {
        let second = Duration::from_secs(1);
        let (tasks, mut told) = Tasks::new();
        let (ended, mut heard) = mpsc::unbounded_channel();
        tasks.spawn_brief(async move {
            tokio::time::sleep(second / 2).await;
            assert!(ended.send(()).is_ok());
        });
        tasks.spawn_brief(async { panic!("on purpose") });
        assert!(tasks.finish(second).await);
        assert_eq!((heard.try_recv(), told.try_recv().ok()), (Ok(()), None));
        let (tasks, _told) = Tasks::new();
        tasks.spawn_brief(std::future::pending());
        assert!(!tasks.finish(second).await);
    }
}
