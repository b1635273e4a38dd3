//! An instance at work, which whoever brings it something can have go on at once.

use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// What an instance does from its beginning to its end. It belongs to a task; but to
/// be woken, to wait for its turn and to wake others in their turn takes longer than
/// most requests, so it also goes on in the turn of whoever has something for it.
#[derive(Default)]
pub struct Course(Mutex<Option<Going>>);

type Work = Pin<Box<dyn Future<Output = wasmtime::Result<()>> + Send>>;

struct Going {
    work: Work,
    /// Of the task, in whosever turn it goes on.
    waker: Option<Waker>,
    ended: Option<wasmtime::Result<()>>,
}

impl Course {
    /// Does `work` to its end.
    ///
    /// # Errors
    /// The work's.
    pub async fn run(&self, work: Work) -> wasmtime::Result<()> {
        let _over = Over(self);
        *self.going() = Some(Going {
            work,
            waker: None,
            ended: None,
        });
        std::future::poll_fn(|context| match &mut *self.going() {
            Some(going) => going.poll(context),
            // Nobody but `_over` takes it away.
            None => Poll::Ready(Ok(())),
        })
        .await
    }

    /// Has it go on now, unless it does or has ended already; says whether.
    pub fn go_on(&self) -> bool {
        let Ok(mut going) = self.0.try_lock() else {
            return false;
        };
        let Some(Going {
            work,
            waker: Some(waker),
            ended: ended @ None,
        }) = &mut *going
        else {
            return false;
        };
        let _panics = Panics(waker);
        let mut context = Context::from_waker(waker);
        if let Poll::Ready(result) = work.as_mut().poll(&mut context) {
            *ended = Some(result);
            waker.wake_by_ref();
        }
        true
    }

    fn going(&self) -> MutexGuard<'_, Option<Going>> {
        // What panicked is not asked again: the task ends with it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Going {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<wasmtime::Result<()>> {
        if let Some(ended) = self.ended.take() {
            return Poll::Ready(ended);
        }
        let known = self.waker.as_ref();
        if known.is_none_or(|waker| !waker.will_wake(context.waker())) {
            self.waker = Some(context.waker().clone());
        }
        self.work.as_mut().poll(context)
    }
}

/// Where the work panics in another's turn, its task must learn of it: nobody else ends
/// what waits for it.
struct Panics<'a>(&'a Waker);

impl Drop for Panics<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.wake_by_ref();
        }
    }
}

/// Drops the work with the task.
struct Over<'a>(&'a Course);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        let going = self.0.going().take();
        drop(going);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    /// Work that ends with what it is polled for the `last` time.
    fn counting(count: &Arc<AtomicU32>, last: u32) -> Work {
        let count = count.clone();
        Box::pin(std::future::poll_fn(move |_| {
            match count.fetch_add(1, Relaxed) + 1 >= last {
                true => Poll::Ready(Err(wasmtime::Error::msg("the end"))),
                false => Poll::Pending,
            }
        }))
    }

    #[tokio::test]
    async fn it_goes_on_in_the_turns_of_others_and_its_task_learns_of_the_end() {
        let (course, count) = (Arc::new(Course::default()), Arc::default());
        assert!(!course.go_on(), "it has not begun");
        let task = tokio::spawn({
            let (course, work) = (course.clone(), counting(&count, 3));
            async move { course.run(work).await }
        });
        while count.load(Relaxed) < 1 {
            tokio::task::yield_now().await;
        }
        assert!(course.go_on());
        assert!(course.go_on());
        assert!(!course.go_on(), "it has ended");
        assert_eq!(count.load(Relaxed), 3);
        let ended = task.await.expect("task").expect_err("the work's error");
        assert_eq!(ended.to_string(), "the end");
        assert!(!course.go_on(), "it is over");
    }

    #[tokio::test]
    async fn a_panic_in_the_turn_of_another_ends_its_task() {
        let course = Arc::new(Course::default());
        let task = tokio::spawn({
            let course = course.clone();
            let mut first = true;
            let work = Box::pin(async move {
                let once = std::future::poll_fn(|_| match std::mem::take(&mut first) {
                    true => Poll::Pending,
                    false => Poll::Ready(()),
                });
                once.await;
                panic!("the host's")
            });
            async move { course.run(work).await }
        });
        tokio::task::yield_now().await;
        let gone = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| course.go_on()));
        assert!(gone.is_err());
        assert!(task.await.expect_err("it panics as well").is_panic());
        assert!(!course.go_on());
    }

    #[tokio::test]
    async fn it_ends_with_its_task() {
        let (course, count) = (Arc::new(Course::default()), Arc::default());
        let held = Arc::downgrade(&count);
        let task = tokio::spawn({
            let (course, work) = (course.clone(), counting(&count, 9));
            async move { course.run(work).await }
        });
        tokio::task::yield_now().await;
        drop(count);
        assert!(held.upgrade().is_some());
        task.abort();
        task.await.expect_err("it was cancelled");
        assert!(held.upgrade().is_none(), "what it held is dropped");
        assert!(!course.go_on());
    }
}
