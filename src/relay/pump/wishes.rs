//! The next wish, waited for beside other things.

use crate::relay::ending::Wish;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::watch;
use tokio::task::unconstrained;

/// Ready when there is another wish than the one that there was; never, once nobody wishes any more.
///
/// It stays from wait to wait: to queue for the next wish anew costs more than the rest of a wait.
pub(super) struct NextWish(Pin<Box<dyn Future<Output = ()> + Send>>);

impl NextWish {
    /// After the wish that there is now.
    pub fn after(wish: &watch::Receiver<Wish>) -> Self {
        let mut wishes = wish.clone();
        wishes.mark_unchanged();
        // Unconstrained: pending means queued, and not that the task has done enough for now.
        Self(Box::pin(unconstrained(async move {
            if wishes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        })))
    }
}

impl Future for NextWish {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::ending::Cause;
    use std::future::poll_fn;
    use std::time::Duration;
    use tokio::task::coop::poll_proceed;
    use tokio::time::timeout;

    #[tokio::test]
    async fn a_wish_wakes_who_had_done_enough_when_it_began_to_wait() {
        let (wishes, wish) = watch::channel(Wish::Run);
        let waiting = tokio::spawn(async move {
            let mut next = NextWish::after(&wish);
            let mut first = true;
            poll_fn(|context| {
                while first {
                    match poll_proceed(context) {
                        Poll::Ready(more) => more.made_progress(),
                        Poll::Pending => first = false,
                    }
                }
                Pin::new(&mut next).poll(context)
            })
            .await;
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!waiting.is_finished());
        wishes.send(Wish::Now(Cause::Shutdown)).unwrap();
        timeout(Duration::from_secs(20), waiting).await.expect("it is woken").unwrap();
    }

    #[tokio::test]
    async fn a_wish_that_was_there_is_no_next_one_and_nobody_wishing_is_none() {
        let (wishes, wish) = watch::channel(Wish::Run);
        wishes.send(Wish::Now(Cause::Shutdown)).unwrap();
        let mut next = NextWish::after(&wish);
        assert!(timeout(Duration::from_millis(20), &mut next).await.is_err());
        drop(wishes);
        assert!(timeout(Duration::from_millis(20), &mut next).await.is_err());
    }
}
