//! Two futures of one task, each polled only when something has woken it.
//!
//! A session's directions wait for two sockets. A task that is woken polls all that it waits for, and a socket with TLS
//! over it that is asked in vain costs a good part of what it costs when it has something to say.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Which of the two was done first, and what it gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum First<A, B> {
    One(A),
    Other(B),
}

/// The first of the two to be done; where both are at first, `one`. Both are polled at once, and then as they are woken, in
/// turn: what one may do at a time (tokio's budget) is not all taken by the other. Who is not done may be polled on by
/// whoever has it.
pub(super) async fn first<A: Future, B: Future>(
    mut one: Pin<&mut A>,
    mut other: Pin<&mut B>,
) -> First<A::Output, B::Output> {
    let (ones, others) = (Bell::rung(), Bell::rung());
    let (ones_waker, others_waker) = (Waker::from(Arc::clone(&ones)), Waker::from(Arc::clone(&others)));
    let mut others_turn = false;
    std::future::poll_fn(move |context| {
        for _ in 0..2 {
            if others_turn {
                if others.is_answered(context)
                    && let Poll::Ready(done) = other.as_mut().poll(&mut Context::from_waker(&others_waker))
                {
                    return Poll::Ready(First::Other(done));
                }
            } else if ones.is_answered(context)
                && let Poll::Ready(done) = one.as_mut().poll(&mut Context::from_waker(&ones_waker))
            {
                return Poll::Ready(First::One(done));
            }
            others_turn = !others_turn;
        }
        others_turn = !others_turn;
        Poll::Pending
    })
    .await
}

/// What wakes one of the two: it keeps that it was, and wakes the task.
#[derive(Debug)]
struct Bell {
    rung: AtomicBool,
    task: Mutex<Waker>,
}

impl Bell {
    fn rung() -> Arc<Self> {
        Arc::new(Self { rung: AtomicBool::new(true), task: Mutex::new(Waker::noop().clone()) })
    }

    /// Whether it was rung since this was last asked; from now on it wakes this task. Who rings after the question is heard
    /// by the next: the task is woken behind it.
    fn is_answered(&self, context: &Context<'_>) -> bool {
        self.task().clone_from(context.waker());
        self.rung.swap(false, Ordering::AcqRel)
    }

    fn task(&self) -> MutexGuard<'_, Waker> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.swap(true, Ordering::AcqRel);
        // The runtime only queues the task: nothing is run under the lock.
        self.task().wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::{pending, poll_fn};
    use std::pin::pin;
    use std::time::Duration;
    use tokio::sync::Notify;

    /// Counts how often a future is polled.
    async fn counting<F: Future>(polls: &Cell<usize>, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|context| {
            polls.set(polls.get() + 1);
            future.as_mut().poll(context)
        })
        .await
    }

    #[tokio::test]
    async fn each_is_polled_at_first_and_then_when_it_was_woken() {
        let (polls, others_polls, bell) = (Cell::new(0), Cell::new(0), Notify::new());
        let mut one = pin!(counting(&polls, async {
            for _ in 0..5 {
                bell.notified().await;
            }
        }));
        let mut other = pin!(counting(&others_polls, pending::<()>()));
        let ring = async {
            for polled in 1..=5 {
                while polls.get() < polled {
                    tokio::task::yield_now().await;
                }
                bell.notify_one();
            }
        };
        let (first, ()) = tokio::join!(first(one.as_mut(), other.as_mut()), ring);
        assert_eq!(first, First::One(()));
        assert_eq!((polls.get(), others_polls.get()), (6, 1));
    }

    #[tokio::test]
    async fn who_wakes_himself_while_he_is_polled_is_polled_again() {
        let mut one = pin!(pending::<()>());
        let mut other = pin!(async {
            for _ in 0..5 {
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(first(one.as_mut(), other.as_mut()).await, First::Other(()));
    }

    #[tokio::test]
    async fn of_two_that_are_done_it_is_the_one() {
        let (mut one, mut other) = (pin!(async { 1 }), pin!(async { 2 }));
        assert_eq!(first(one.as_mut(), other.as_mut()).await, First::One(1));
        assert_eq!(other.await, 2, "the other goes on elsewhere");
    }

    /// Both would go on for ever, and each uses all that a poll may: the other one has its turn all the same.
    #[tokio::test]
    async fn neither_takes_all_that_the_task_may_do() {
        let (ones, others) = (Cell::new(0), Cell::new(0));
        let greedy = async |count: &Cell<usize>| {
            loop {
                tokio::task::coop::consume_budget().await;
                count.set(count.get() + 1);
            }
        };
        let (mut one, mut other) = (pin!(greedy(&ones)), pin!(greedy(&others)));
        let mut both = pin!(first::<_, _>(one.as_mut(), other.as_mut()));
        for _ in 0..20 {
            assert!(poll_fn(|context| Poll::Ready(both.as_mut().poll(context))).await.is_pending());
            tokio::task::yield_now().await;
        }
        let (ones, others) = (ones.get(), others.get());
        assert!(ones > 500 && others > 500, "{ones} and {others}");
    }

    /// Two threads ring, each for one of the two; no ring is lost.
    #[tokio::test]
    async fn nobody_who_rings_from_another_thread_is_missed() {
        const RINGS: usize = 20_000;
        let channels = || tokio::sync::mpsc::channel::<()>(1);
        let ((ones, mut ones_come), (others, mut others_come)) = (channels(), channels());
        let ring = |sender: tokio::sync::mpsc::Sender<()>| {
            std::thread::spawn(move || (0..RINGS).for_each(|_| sender.blocking_send(()).unwrap()))
        };
        let threads = [ring(ones), ring(others)];
        let (heard, others_heard) = (Cell::new(0), Cell::new(0));
        let mut one = pin!(async {
            while ones_come.recv().await.is_some() {
                heard.set(heard.get() + 1);
            }
        });
        let mut other = pin!(async {
            while others_come.recv().await.is_some() {
                others_heard.set(others_heard.get() + 1);
            }
        });
        let both = async {
            match first(one.as_mut(), other.as_mut()).await {
                First::One(()) => other.await,
                First::Other(()) => one.await,
            }
        };
        tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
        assert_eq!((heard.get(), others_heard.get()), (RINGS, RINGS));
        for thread in threads {
            thread.join().unwrap();
        }
    }

    /// A task may be polled with another waker than before.
    #[tokio::test]
    async fn the_task_that_polls_last_is_woken() {
        let bell = Arc::new(Notify::new());
        let rung = Arc::clone(&bell);
        let mut waiting = Box::pin(async move {
            let (mut one, mut other) = (pin!(rung.notified()), pin!(pending::<()>()));
            first(one.as_mut(), other.as_mut()).await
        });
        assert!(poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context))).await.is_pending());
        let elsewhere = tokio::spawn(waiting);
        tokio::task::yield_now().await;
        bell.notify_one();
        assert_eq!(tokio::time::timeout(Duration::from_secs(20), elsewhere).await.unwrap().unwrap(), First::One(()));
    }
}
