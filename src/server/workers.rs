//! Threads that serve connections, each with a runtime of its own.
//!
//! A connection lives on one thread: nothing of it is handed over between threads, which costs a relay more than what it
//! does (a runtime of several threads took a plain forwarder a fifth more CPU a transaction). A new connection goes to
//! the thread that has the fewest.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Running threads; they end when this is dropped, and what they still serve with them.
#[derive(Debug)]
pub(super) struct Workers(Vec<Worker>);

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// Connections that it has.
    serving: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// One connection of a worker's.
struct Counted(Arc<AtomicUsize>);

impl Workers {
    /// Starts so many threads.
    pub fn start(count: usize) -> io::Result<Self> {
        (0..count.max(1)).map(Worker::start).collect::<Result<_, _>>().map(Self)
    }

    /// Runs a connection's whole life on the thread that has the fewest.
    pub fn spawn(&self, connections: &mut JoinSet<()>, life: impl Future<Output = ()> + Send + 'static) {
        let fewest = self.0.iter().min_by_key(|worker| worker.serving.load(Ordering::Relaxed));
        let Some(Worker { runtime, serving, .. }) = fewest else { return };
        let counted = Counted::new(serving);
        // Boxed: the task's future would have room for it twice, before its first step and after.
        let life = Box::pin(life);
        connections.spawn_on(
            async move {
                let _counted = counted;
                life.await;
            },
            runtime,
        );
    }
}

impl Worker {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            // Dropped without a word is told to stop, too.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name(format!("serving-{number}")).spawn(run)?;
        Ok(Self { runtime: handle, serving: Arc::default(), stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a serving thread panicked");
        }
    }
}

impl Counted {
    fn new(serving: &Arc<AtomicUsize>) -> Self {
        serving.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(serving))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::thread::ThreadId;
    use tokio::sync::Barrier;

    #[tokio::test]
    async fn connections_are_spread_and_stay_where_they_are() {
        const EACH: usize = 5;
        let workers = Workers::start(3).unwrap();
        let mut connections = JoinSet::new();
        let seen: Arc<Mutex<BTreeMap<usize, ThreadId>>> = Arc::default();
        let all = Arc::new(Barrier::new(3 * EACH));
        for number in 0..3 * EACH {
            let (seen, all) = (Arc::clone(&seen), Arc::clone(&all));
            let life = async move {
                let here = std::thread::current().id();
                all.wait().await;
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                assert_eq!(std::thread::current().id(), here);
                seen.lock().unwrap().insert(number, here);
            };
            workers.spawn(&mut connections, life);
        }
        while let Some(ended) = connections.join_next().await {
            ended.unwrap();
        }
        let threads: Vec<ThreadId> = seen.lock().unwrap().values().copied().collect();
        for thread in &threads {
            assert_eq!(threads.iter().filter(|other| *other == thread).count(), EACH);
        }
        assert!(workers.0.iter().all(|worker| worker.serving.load(Ordering::Relaxed) == 0));
    }

    #[tokio::test]
    async fn what_is_served_still_ends_with_the_threads() {
        let workers = Workers::start(2).unwrap();
        let mut connections = JoinSet::new();
        let (held, gone) = oneshot::channel::<()>();
        let life = async move {
            let _held = held;
            std::future::pending::<()>().await;
        };
        workers.spawn(&mut connections, life);
        drop(workers);
        assert!(gone.await.is_err());
        assert!(connections.join_next().await.is_some_and(|ended| ended.is_err_and(|error| error.is_cancelled())));
    }
}
