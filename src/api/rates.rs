//! How many requests one key may make (`server.rate_limit`).
//!
//! A bucket a key: it holds as many requests as the limit's period allows, and fills evenly. It is looked at once the key is
//! known to be valid, so that nobody empties another's, and costs no look at the database. What is left is told in every
//! answer (draft-ietf-httpapi-ratelimit-headers-10). Buckets are each instance's own.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tokio::time::Instant;

use super::problem::Problem;
use crate::domain::{RateLimit, limits};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LEFT: HeaderName = HeaderName::from_static("ratelimit");

/// What every key has left.
#[derive(Debug, Default)]
pub struct Rates {
    buckets: Mutex<HashMap<String, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// How a key stands after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    limit: RateLimit,
    /// Requests it may make at once.
    left: u32,
    /// When it may make the next, where it may not now.
    wait: Option<Duration>,
}

/// Where the standing is left for the answer.
#[derive(Debug, Default)]
pub struct Noted(pub OnceLock<Standing>);

impl Rates {
    /// Counts a request of a key.
    pub fn count(&self, key: &str, limit: RateLimit) -> Standing {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if buckets.len() >= limits::API_RATED && !buckets.contains_key(key) {
            // It has filled up the longest, and has the least to lose.
            let longest = buckets.iter().min_by_key(|(_, bucket)| bucket.at).map(|(key, _)| key.clone());
            longest.map(|key| buckets.remove(&key));
        }
        let most = f64::from(limit.count);
        let bucket = buckets.entry(key.to_owned()).or_insert(Bucket { left: most, at: now });
        let per_second = most / limit.per.as_secs_f64();
        bucket.left = (bucket.left + now.duration_since(bucket.at).as_secs_f64() * per_second).min(most);
        bucket.at = now;
        let wait = if bucket.left >= 1.0 {
            bucket.left -= 1.0;
            None
        } else {
            Some(Duration::from_secs_f64((1.0 - bucket.left) / per_second))
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0 to a u32's value"
        )]
        let left = bucket.left as u32;
        Standing { limit, left, wait }
    }
}

impl Standing {
    /// Refuses a request that is too much.
    pub fn checked(self) -> Result<(), Problem> {
        let Some(wait) = self.wait else { return Ok(()) };
        let RateLimit { count, per } = self.limit;
        let detail = format!("this key may make {count} requests in {} s (server.rate_limit)", per.as_secs());
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate", "Too many requests", detail);
        Err(problem.header(header::RETRY_AFTER, &(wait.as_secs() + 1).to_string()))
    }

    /// Tells it in an answer.
    pub fn tell(self, headers: &mut HeaderMap) {
        let RateLimit { count, per } = self.limit;
        let reset = self.wait.map_or(0, |wait| wait.as_secs() + 1);
        let told = [
            (POLICY, format!("\"key\";q={count};w={}", per.as_secs())),
            (LEFT, format!("\"key\";r={};t={reset}", self.left)),
        ];
        headers.extend(
            told.into_iter()
                .filter_map(|(name, value)| HeaderValue::from_str(&value).ok().map(|v| (name, v))),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: RateLimit = RateLimit { count: 10, per: Duration::from_secs(60) };

    #[tokio::test(start_paused = true)]
    async fn a_key_makes_so_many_requests_and_then_one_whenever_its_bucket_has_one_again() {
        let rates = Rates::default();
        for left in (0..10).rev() {
            let standing = rates.count("a", LIMIT);
            assert_eq!((standing.left, standing.wait), (left, None));
        }
        let refused = rates.count("a", LIMIT);
        assert_eq!(refused.wait, Some(Duration::from_secs(6)));
        assert!(refused.checked().is_err());
        assert_eq!(rates.count("b", LIMIT).wait, None, "another key has its own");
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(rates.count("a", LIMIT).wait, None);
        assert!(rates.count("a", LIMIT).wait.is_some());
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(rates.count("a", LIMIT).left, 9, "it holds no more than a period's");
    }

    #[tokio::test(start_paused = true)]
    async fn the_buckets_are_bounded() {
        let rates = Rates::default();
        for key in 0..limits::API_RATED + 5 {
            rates.count(&key.to_string(), LIMIT);
            tokio::time::advance(Duration::from_nanos(1)).await;
        }
        assert_eq!(rates.buckets.lock().unwrap().len(), limits::API_RATED);
    }
}
