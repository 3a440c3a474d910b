//! Durations in buckets whose bounds grow by one factor: small, exact to add up, and near enough to tell a percentile.
//!
//! Bucket `n` holds what is longer than bound `n - 1` and not longer than bound `n`; each bound is 21/19 of the one before
//! it. So the value told for a bucket (the harmonic mean of its bounds) is at most [`Histogram::ERROR`] of the true one
//! away from it, wherever in the bucket that stood. That holds from 0.1 ms to 126 days: shorter ones are told as 0.1 ms, longer
//! ones as 126 days. The scheme is that of `DDSketch` (Masson, Rim, Lee: VLDB 2019).
//!
//! Two histograms are added bucket by bucket, and the sum is the histogram of all values: whatever is kept of a minute can
//! be told of an hour or a week.

use std::sync::LazyLock;
use std::time::Duration;

/// The upper bounds of all buckets but the last, which has none; nanoseconds.
static BOUNDS: LazyLock<[u64; 255]> = LazyLock::new(|| {
    let mut next = 100_000;
    std::array::from_fn(|_| {
        let bound = next;
        next = next / 19 * 21 + next % 19 * 21 / 19;
        bound
    })
});

/// Bytes of a bucket in [`Histogram::to_bytes`]: its number, and its count, big endian.
const ENTRY_BYTES: usize = 5;

/// How often durations of each size were seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Histogram {
    /// The buckets that are not empty, in order; 256 at most.
    buckets: Vec<(u8, u32)>,
}

impl Histogram {
    /// The largest relative error of a percentile.
    pub const ERROR: f64 = 0.05;

    /// Counts a duration.
    pub fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < nanos);
        self.add(u8::try_from(bucket).unwrap_or(u8::MAX), 1);
    }

    /// Adds another one's counts.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.buckets {
            self.add(*bucket, *count);
        }
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// The duration that so many of a hundred do not exceed, by nearest rank; `None` where nothing was counted.
    pub fn percentile(&self, percent: u64) -> Option<Duration> {
        let rank = self.count().saturating_mul(percent).div_ceil(100);
        let mut seen = 0;
        let reaches = self.buckets.iter().find(|(_, count)| {
            seen += u64::from(*count);
            seen >= rank
        });
        reaches.map(|(bucket, _)| middle(*bucket))
    }

    /// As it is stored: five bytes a bucket, empty where nothing was counted.
    pub fn to_bytes(&self) -> Vec<u8> {
        let entry = |(bucket, count): &(u8, u32)| std::iter::once(*bucket).chain(count.to_be_bytes());
        self.buckets.iter().flat_map(entry).collect()
    }

    /// From what [`Self::to_bytes`] made; a piece at the end that is no bucket is passed over.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut read = Self::default();
        for entry in bytes.chunks_exact(ENTRY_BYTES) {
            if let [bucket, a, b, c, d] = *entry {
                read.add(bucket, u32::from_be_bytes([a, b, c, d]));
            }
        }
        read
    }

    fn add(&mut self, bucket: u8, count: u32) {
        match self.buckets.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(at) => {
                if let Some((_, sum)) = self.buckets.get_mut(at) {
                    *sum = sum.saturating_add(count);
                }
            }
            Err(at) => self.buckets.insert(at, (bucket, count)),
        }
    }
}

/// The value that is told for a bucket.
fn middle(bucket: u8) -> Duration {
    let bound = |at: usize| BOUNDS.get(at).or(BOUNDS.last()).copied().unwrap_or_default();
    let upper = u128::from(bound(usize::from(bucket)));
    let lower = usize::from(bucket).checked_sub(1).map_or(upper, |at| u128::from(bound(at)));
    let mean = (2 * lower * upper).checked_div(lower + upper).unwrap_or_default();
    Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PERCENTS: [u64; 6] = [0, 25, 50, 90, 99, 100];

    fn of(nanos: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        for nanos in nanos {
            histogram.record(Duration::from_nanos(*nanos));
        }
        histogram
    }

    #[test]
    fn the_bounds_grow_by_one_factor_from_a_tenth_of_a_millisecond_to_126_days() {
        assert_eq!(BOUNDS[0], 100_000);
        for pair in BOUNDS.windows(2) {
            assert!(pair[0] * 21 / 19 >= pair[1] && pair[1] > pair[0] * 1105 / 1000, "{pair:?}");
        }
        assert_eq!(BOUNDS[254] / 1_000_000_000 / 86_400, 126);
    }

    #[test]
    fn nothing_has_no_percentile_and_the_ends_are_told_as_the_bounds() {
        assert_eq!(Histogram::default().percentile(50), None);
        assert_eq!(of(&[0]).percentile(50), Some(Duration::from_micros(100)));
        assert_eq!(of(&[u64::MAX]).percentile(50), Some(Duration::from_nanos(BOUNDS[254])));
    }

    #[test]
    fn bytes_that_are_cut_off_lose_one_bucket() {
        let bytes = of(&[1, 5_000_000]).to_bytes();
        assert_eq!(Histogram::from_bytes(&bytes[..bytes.len() - 1]), of(&[1]));
    }

    proptest! {
        #[test]
        fn percentiles_are_within_the_error_of_the_true_ones(
            mut nanos in prop::collection::vec(prop_oneof![100_000_u64..1_000_000_000, 100_000_u64..10_000_000_000_000_000], 1..200),
        ) {
            let histogram = of(&nanos);
            nanos.sort_unstable();
            prop_assert_eq!(histogram.count(), nanos.len() as u64);
            for percent in PERCENTS {
                let rank = (usize::try_from(percent).unwrap() * nanos.len()).div_ceil(100).max(1);
                let (truth, told) = (Duration::from_nanos(nanos[rank - 1]), histogram.percentile(percent).unwrap());
                let (truth, told) = (truth.as_secs_f64(), told.as_secs_f64());
                // A nanosecond is what rounding the bounds may add.
                prop_assert!((told - truth).abs() <= truth * Histogram::ERROR + 1e-9, "{} told as {}", truth, told);
            }
        }

        #[test]
        fn what_is_merged_or_stored_is_the_histogram_of_all_values(
            one in prop::collection::vec(any::<u64>().prop_map(|n| n >> (n % 60)), 0..60),
            other in prop::collection::vec(any::<u64>().prop_map(|n| n >> (n % 60)), 0..60),
        ) {
            let mut merged = of(&one);
            merged.merge(&of(&other));
            prop_assert_eq!(&merged, &of(&[one, other].concat()));
            prop_assert_eq!(&Histogram::from_bytes(&merged.to_bytes()), &merged);
        }

        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let read = Histogram::from_bytes(&bytes);
            prop_assert_eq!(&Histogram::from_bytes(&read.to_bytes()), &read);
        }
    }
}
