//! When to wait a moment before reading again.
//!
//! The walsender writes each message by itself, and a reader that takes them one by one spends its time in system
//! calls. Waiting a millisecond after a small read, with the socket off the poller, lets a hundred of them gather; but on
//! a quiet stream it would only delay. So the wait is made only while the stream is hot: it becomes hot with more than [`HOT_READS`] small
//! reads within [`WINDOW`], and cold again when [`COLD_READS`] waits in a row brought next to nothing.

use std::time::Duration;

use tokio::time::Instant;

/// What a wait takes.
pub(super) const WAIT: Duration = Duration::from_millis(1);
const WINDOW: Duration = Duration::from_millis(10);
/// A read under this many bytes is small.
const SMALL: usize = 16 * 1024;
const HOT_READS: u32 = 40;
const COLD_READS: u32 = 3;
/// A wait that brought fewer bytes was in vain.
const VAIN: usize = 256;

/// The state between reads.
#[derive(Debug)]
pub(super) struct Gate {
    hot: bool,
    window: Instant,
    small: u32,
    vain: u32,
}

impl Gate {
    pub(super) fn new(now: Instant) -> Self {
        Self { hot: false, window: now, small: 0, vain: 0 }
    }

    /// Takes note of a read and says whether to wait before the next.
    pub(super) fn after_read(&mut self, bytes: usize, now: Instant) -> Option<Duration> {
        if bytes >= SMALL {
            self.vain = 0;
            return None;
        }
        if self.hot {
            self.vain = if bytes < VAIN { self.vain + 1 } else { 0 };
            if self.vain >= COLD_READS {
                *self = Self::new(now);
            }
        } else {
            if now.duration_since(self.window) > WINDOW {
                self.window = now;
                self.small = 0;
            }
            self.small += 1;
            self.hot = self.small > HOT_READS;
        }
        self.hot.then_some(WAIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds reads of one size at one pace; returns how many of them were followed by a wait.
    fn feed(gate: &mut Gate, now: &mut Instant, reads: u32, bytes: usize, apart: Duration) -> u32 {
        let mut waits = 0;
        for _ in 0..reads {
            *now += apart;
            waits += u32::from(gate.after_read(bytes, *now).is_some());
        }
        waits
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_of_five_hundred_changes_a_second_is_never_delayed() {
        let mut now = Instant::now();
        let mut gate = Gate::new(now);
        assert_eq!(feed(&mut gate, &mut now, 5000, 150, Duration::from_micros(600)), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hot_stream_waits_until_waiting_is_in_vain() {
        let mut now = Instant::now();
        let mut gate = Gate::new(now);
        assert_eq!(feed(&mut gate, &mut now, HOT_READS, 150, Duration::from_micros(50)), 0);
        assert_eq!(feed(&mut gate, &mut now, 100, 5000, Duration::from_millis(1)), 100);
        assert_eq!(feed(&mut gate, &mut now, 1, 100, Duration::from_millis(1)), 1);
        assert_eq!(feed(&mut gate, &mut now, 1, 5000, Duration::from_millis(1)), 1);
        assert_eq!(feed(&mut gate, &mut now, 10, 100, Duration::from_millis(1)), COLD_READS - 1);
    }

    #[tokio::test(start_paused = true)]
    async fn large_reads_never_wait() {
        let mut now = Instant::now();
        let mut gate = Gate::new(now);
        feed(&mut gate, &mut now, HOT_READS + 1, 150, Duration::ZERO);
        assert_eq!(feed(&mut gate, &mut now, 10, SMALL, Duration::ZERO), 0);
    }
}
