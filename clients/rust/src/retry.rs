//! When a call is tried again, and after how long.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::Error;

/// Exponential backoff with full jitter: a random time up to `first`, which doubles after each attempt, up to `cap`.
/// Where the service says when to come again, the random time is added to that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The longest random wait after the first failure.
    pub first: Duration,
    /// The longest random wait of all.
    pub cap: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(500), cap: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// Returns the longest random wait after that many failures, 1 or more.
    pub fn window(&self, failures: u32) -> Duration {
        let grown = 2u32.checked_pow(failures.saturating_sub(1));
        grown.and_then(|factor| self.first.checked_mul(factor)).map_or(self.cap, |grown| grown.min(self.cap))
    }
}

/// Counts the failures of one call and knows how much time is left.
pub(crate) struct Tries {
    backoff: Backoff,
    timeout: Duration,
    ends: Instant,
    failures: u32,
}

impl Tries {
    pub(crate) fn started(backoff: Backoff, timeout: Duration) -> Self {
        Self { backoff, timeout, ends: Instant::now() + timeout, failures: 0 }
    }

    pub(crate) fn left(&self) -> Duration {
        self.ends.saturating_duration_since(Instant::now())
    }

    /// Begins again, since something came through: failures are forgotten and all of the time is left.
    pub(crate) fn restart(&mut self) {
        *self = Self::started(self.backoff, self.timeout);
    }

    /// Waits until the next attempt; returns the error when there shall be none.
    pub(crate) async fn pause_after(&mut self, refused: Error) -> Result<(), Error> {
        if !refused.is_retryable() {
            return Err(refused);
        }
        self.failures += 1;
        let random = self.backoff.window(self.failures).mul_f64(rand::random());
        let pause = refused.retry_after.unwrap_or_default().saturating_add(random);
        if pause >= self.left() {
            return Err(refused);
        }
        sleep(pause).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Backoff, Tries};
    use crate::Error;

    #[test]
    fn the_window_doubles_up_to_its_cap() {
        let window = |failures| Backoff::default().window(failures);
        assert_eq!(window(1), Duration::from_millis(500));
        assert_eq!(window(2), Duration::from_secs(1));
        assert_eq!(window(6), Duration::from_secs(16));
        assert_eq!(window(7), Duration::from_secs(30));
        assert_eq!(window(u32::MAX), Duration::from_secs(30));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_what_the_service_asks_for_and_a_random_time_more() {
        let mut tries = Tries::started(Backoff::default(), Duration::from_secs(60));
        let busy =
            Error { retry_after: Some(Duration::from_secs(7)), ..Error::here("rate.exceeded", 429, "Too many.") };
        let before = Instant::now();
        tries.pause_after(busy).await.unwrap();
        let slept = before.elapsed();
        assert!(slept >= Duration::from_secs(7) && slept <= Duration::from_millis(7510), "{slept:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_attempt_begins_after_the_time_of_the_call() {
        let mut tries = Tries::started(Backoff::default(), Duration::from_secs(60));
        let busy =
            Error { retry_after: Some(Duration::from_secs(60)), ..Error::here("quota.exceeded", 429, "Used up.") };
        assert_eq!(tries.pause_after(busy.clone()).await, Err(busy));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_told_to_come_again_in_ages_gives_up() {
        let mut tries = Tries::started(Backoff::default(), Duration::from_secs(60));
        let busy = Error { retry_after: Some(Duration::MAX), ..Error::here("quota.exceeded", 429, "Used up.") };
        assert_eq!(tries.pause_after(busy.clone()).await, Err(busy));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_for_good_is_not_tried_again() {
        let mut tries = Tries::started(Backoff::default(), Duration::from_secs(60));
        let refused = Error::here("model.not_found", 404, "None.");
        assert_eq!(tries.pause_after(refused.clone()).await, Err(refused));
    }
}
