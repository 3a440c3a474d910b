//! Asking the system for the addresses of names, within bounds that all clients share.
//!
//! A lookup blocks a thread for as long as the system's resolver likes, half a minute and more where a name's server is
//! silent, even when nobody waits for it any more. So no webhook may take many of them (invariant I8): however many ask for
//! a name, one lookup of it runs, and all get its answer; and a name that was silent lately has to share a few threads with
//! its like, while all others have the rest. The permit that bounds how many run travels into the thread.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout};

use crate::domain::limits;

/// What a lookup came to.
pub(super) type Answer = Result<Arc<[SocketAddr]>, Arc<io::Error>>;
/// Asks for the addresses of a name, on a thread that it may block.
type Ask = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Lookups of names, shared by all who have a clone.
#[derive(Clone)]
pub struct Lookups {
    shared: Arc<Shared>,
}

struct Shared {
    ask: Box<Ask>,
    /// For names that answer.
    usual: Arc<Semaphore>,
    /// For those that lately did not.
    silent: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: HashMap<Arc<str>, watch::Receiver<Option<Answer>>>,
    /// When a name was last found silent.
    silent: HashMap<Arc<str>, Instant>,
}

impl fmt::Debug for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookups").field("running", &self.shared.state().running.len()).finish_non_exhaustive()
    }
}

/// A lookup that runs; is not listed any more when it has ended, however it did.
struct Running {
    name: Arc<str>,
    shared: Arc<Shared>,
    answer: watch::Sender<Option<Answer>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.state().running.remove(&self.name);
    }
}

impl Lookups {
    /// Those of the system's resolver.
    pub fn of_the_system() -> Self {
        Self::by(|name| Ok((name, 0).to_socket_addrs()?.collect()))
    }

    /// Those that `ask` answers; it may block.
    pub fn by(ask: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
        let permits = |count| Arc::new(Semaphore::new(count));
        let shared = Shared {
            ask: Box::new(ask),
            usual: permits(limits::DNS_LOOKUPS - limits::DNS_LOOKUPS_SILENT),
            silent: permits(limits::DNS_LOOKUPS_SILENT),
            state: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The addresses of a name, their port 0; `None` where they did not come within this time.
    pub(super) async fn addresses(&self, name: &str, within: Duration) -> Option<Answer> {
        let answered = timeout(within, self.answer(name)).await.ok();
        self.shared.note(name, answered.is_none());
        answered
    }

    /// The same for who does not insist: no addresses where there are none, and at once where the name was silent lately.
    pub async fn look(&self, name: &str, within: Duration) -> Vec<IpAddr> {
        if self.shared.was_silent(name) {
            return Vec::new();
        }
        match self.addresses(name, within).await {
            Some(Ok(found)) => found.iter().map(SocketAddr::ip).collect(),
            _ => Vec::new(),
        }
    }

    async fn answer(&self, name: &str) -> Answer {
        let running = self.shared.running(name);
        let mut answer = match running {
            Some(answer) => answer,
            None => self.start(name).await?,
        };
        let answered = answer.wait_for(Option::is_some).await.map(|answer| answer.clone());
        let gone = || Err(Arc::new(io::Error::other("the lookup was broken off")));
        answered.ok().flatten().unwrap_or_else(gone)
    }

    /// Starts a lookup when there is room for it, or joins one that another has started meanwhile.
    async fn start(&self, name: &str) -> Result<watch::Receiver<Option<Answer>>, Arc<io::Error>> {
        let lane = Arc::clone(self.shared.lane(name));
        let permit = lane.acquire_owned().await.map_err(|closed| Arc::new(io::Error::other(closed)))?;
        let name: Arc<str> = name.into();
        let mut state = self.shared.state();
        if let Some(running) = state.running.get(&name) {
            return Ok(running.clone());
        }
        let (answer, answered) = watch::channel(None);
        state.running.insert(Arc::clone(&name), answered.clone());
        drop(state);
        let running = Running { name, shared: Arc::clone(&self.shared), answer, _permit: permit };
        tokio::task::spawn_blocking(move || {
            let found = (running.shared.ask)(&running.name);
            running.answer.send_replace(Some(found.map(Into::into).map_err(Arc::new)));
        });
        Ok(answered)
    }

    /// How many lookups may still start, of usual names and of silent ones.
    #[cfg(test)]
    pub(super) fn room(&self) -> (usize, usize) {
        (self.shared.usual.available_permits(), self.shared.silent.available_permits())
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self, name: &str) -> Option<watch::Receiver<Option<Answer>>> {
        self.state().running.get(name).cloned()
    }

    fn was_silent(&self, name: &str) -> bool {
        self.state().silent.get(name).is_some_and(|at| at.elapsed() < limits::DNS_SILENT_FOR)
    }

    fn lane(&self, name: &str) -> &Arc<Semaphore> {
        if self.was_silent(name) { &self.silent } else { &self.usual }
    }

    /// Remembers whether a name was silent. One that waits only for room is not to blame, and is not noted.
    fn note(&self, name: &str, was_silent: bool) {
        let mut state = self.state();
        if !was_silent {
            state.silent.remove(name);
        } else if state.running.contains_key(name) {
            if state.silent.len() >= limits::DNS_SILENT_KNOWN {
                let oldest = state.silent.iter().min_by_key(|(_, at)| **at).map(|(name, _)| Arc::clone(name));
                oldest.and_then(|oldest| state.silent.remove(&oldest));
            }
            state.silent.insert(name.into(), Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    const USUAL: usize = limits::DNS_LOOKUPS - limits::DNS_LOOKUPS_SILENT;

    /// A resolver that is silent on names that begin with `silent`, until told to go on; and how often it was asked.
    fn resolver() -> (Lookups, mpsc::Sender<()>, Arc<AtomicUsize>) {
        let (go_on, wait) = mpsc::channel();
        let (wait, asked) = (Mutex::new(wait), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&asked);
        let lookups = Lookups::by(move |name| {
            count.fetch_add(1, Ordering::SeqCst);
            if name.starts_with("silent") {
                wait.lock().unwrap().recv().unwrap_or(());
            }
            Ok(vec![([192, 0, 2, 1], 0).into()])
        });
        (lookups, go_on, asked)
    }

    async fn until(what: &str, is_so: impl Fn() -> bool) {
        for _ in 0..120_000 {
            if is_so() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
            tokio::task::yield_now().await;
        }
        panic!("never: {what}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_that_never_returns_is_not_waited_for_and_gives_its_room_back_when_it_does() {
        let (lookups, go_on, _) = resolver();
        let began = Instant::now();
        let waited = tokio::join!(lookups.addresses("silent.test", limits::DNS_TIMEOUT), async {
            until("it is asked", || lookups.room().0 < USUAL).await;
            tokio::time::advance(limits::DNS_TIMEOUT).await;
        });
        assert!(waited.0.is_none());
        assert_eq!(began.elapsed(), limits::DNS_TIMEOUT);
        assert_eq!(lookups.room().0, USUAL - 1, "the thread is still blocked");
        drop(go_on);
        until("its room is given back", || lookups.room().0 == USUAL).await;
        assert!(lookups.shared.state().running.is_empty());
    }

    #[tokio::test]
    async fn who_asks_for_a_name_that_is_being_asked_for_gets_the_same_answer() {
        let (lookups, go_on, asked) = resolver();
        let all = futures_util::future::join_all(
            (0..50).map(|_| lookups.addresses("silent.test", Duration::from_secs(60))),
        );
        let ((), answers) = tokio::join!(
            async {
                until("it is asked", || asked.load(Ordering::SeqCst) == 1).await;
                go_on.send(()).unwrap();
            },
            all
        );
        assert!(
            answers.into_iter().all(|answer| answer.is_some_and(|answer| answer.is_ok_and(|a| a.len() == 1)))
        );
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn names_that_were_silent_lately_take_no_room_from_others() {
        let (lookups, go_on, _) = resolver();
        let names: Vec<String> = (0..USUAL).map(|n| format!("silent-{n}.test")).collect();
        for round in 0..2 {
            let waited = futures_util::future::join_all(
                names.iter().map(|name| lookups.addresses(name, limits::DNS_TIMEOUT)),
            );
            let room = if round == 0 { (0, limits::DNS_LOOKUPS_SILENT) } else { (USUAL, 0) };
            let ((), waited) = tokio::join!(
                async {
                    until("all are asked that can be", || lookups.room() == room).await;
                    tokio::time::advance(limits::DNS_TIMEOUT).await;
                },
                waited
            );
            assert!(waited.iter().all(Option::is_none));
            if round == 0 {
                for _ in &names {
                    go_on.send(()).unwrap();
                }
                until("the room is given back", || lookups.room().0 == USUAL).await;
            }
        }
        // The silent ones of now hold their own few threads; a healthy name is answered at once.
        let healthy = lookups.addresses("fine.test", limits::DNS_TIMEOUT).await;
        assert!(healthy.is_some_and(|answer| answer.is_ok()));
        assert_eq!(lookups.room(), (USUAL, 0));
        drop(go_on);
    }
}
