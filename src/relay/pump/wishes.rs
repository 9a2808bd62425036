//! The next wish, waited for beside other things.

use crate::relay::ending::Wish;
use std::pin::Pin;
use tokio::sync::watch;

/// Ready when there is another wish than the one that there was; never, once nobody wishes any more.
///
/// It stays from wait to wait: to queue for the next wish anew costs more than the rest of a wait. It is asked at every
/// poll, whether or not there seems to be a wish: who wishes wakes all who wait, one after the other, and one who was
/// woken first and waits again meanwhile is woken once more, for nothing. That takes it off the queue; only when it is
/// asked again does it queue again.
pub(super) type NextWish = Pin<Box<dyn Future<Output = ()> + Send>>;

/// After the wish that there is now.
pub(super) fn next_wish(wish: &watch::Receiver<Wish>) -> NextWish {
    let mut wishes = wish.clone();
    wishes.mark_unchanged();
    Box::pin(async move {
        if wishes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::ending::Cause;
    use std::future::poll_fn;
    use std::task::Poll;
    use std::time::Duration;
    use tokio::sync::oneshot;
    use tokio::time::timeout;

    /// Two threads, as in the process: one wishes while the other, woken by the first wish, waits for the second.
    #[test]
    fn who_is_woken_twice_by_one_wish_hears_the_next() {
        const ROUNDS: usize = 5_000;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (sessions, sessions_come) = std::sync::mpsc::channel::<(watch::Sender<Wish>, oneshot::Receiver<()>)>();
        let wishing = std::thread::spawn(move || {
            for (wishes, first_is_heard) in sessions_come {
                wishes.send_replace(Wish::WhenIdle(Cause::Policy));
                first_is_heard.blocking_recv().unwrap();
                wishes.send_replace(Wish::Now(Cause::Policy));
            }
        });
        runtime.block_on(async {
            for round in 0..ROUNDS {
                let (wishes, wish) = watch::channel(Wish::Run);
                let (heard, is_heard) = oneshot::channel();
                let mut next = next_wish(&wish);
                sessions.send((wishes, is_heard)).unwrap();
                // A task of its own, which nothing else wakes.
                let waiting = tokio::spawn(async move {
                    (&mut next).await;
                    next = next_wish(&wish);
                    // Asked, and not yet there: it queues while the first wish may still be waking others.
                    assert!(poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await.is_pending());
                    heard.send(()).unwrap();
                    next.await;
                });
                let waited = timeout(Duration::from_secs(20), waiting).await;
                waited.unwrap_or_else(|_| panic!("round {round}: the second wish is not heard")).unwrap();
            }
        });
        drop(sessions);
        wishing.join().unwrap();
    }

    #[tokio::test]
    async fn a_wish_that_was_there_is_no_next_one_and_nobody_wishing_is_none() {
        let (wishes, wish) = watch::channel(Wish::Run);
        wishes.send(Wish::Now(Cause::Shutdown)).unwrap();
        let mut next = next_wish(&wish);
        assert!(timeout(Duration::from_millis(20), &mut next).await.is_err());
        drop(wishes);
        assert!(timeout(Duration::from_millis(20), &mut next).await.is_err());
    }
}
