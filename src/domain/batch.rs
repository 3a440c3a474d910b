//! Several deliveries in one request: what operators declare, who may share a request, and the array they make.

use std::time::Duration;

use bytes::Bytes;

use super::limits;

/// How many deliveries share a request, and how long one waits for others (`batch = { … }`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchPolicy {
    /// How many at most; at least one, at most [`limits::BATCH_EVENTS`].
    pub max_events: usize,
    /// How long one waits for company at most.
    pub max_wait: Duration,
    /// The most bytes of the request's body, before compression; at most [`limits::BATCH_BYTES`]. A delivery that is larger
    /// by itself goes alone.
    pub max_bytes: usize,
}

impl Default for BatchPolicy {
    fn default() -> Self {
        Self { max_events: 100, max_wait: Duration::from_millis(200), max_bytes: limits::BATCH_BYTES / 4 }
    }
}

impl BatchPolicy {
    /// With how many, itself included, a delivery may share its next request, when `tried` of at most `attempts` attempts
    /// were made: a quarter as many with each failure, and none at its last. So whatever makes a receiver refuse a whole
    /// batch is alone at last, and takes no other down with it.
    pub fn most(&self, tried: u32, attempts: u32) -> usize {
        if tried == 0 {
            return self.max_events;
        }
        if tried.saturating_add(1) >= attempts {
            return 1;
        }
        self.max_events.checked_shr(tried.saturating_mul(2)).unwrap_or(0).max(1)
    }
}

/// The media type of an array of bodies of a media type; `None` where such bodies are no JSON.
///
/// That of structured `CloudEvents` has a name of its own (`CloudEvents` 1.0, JSON format, section 4).
pub fn array_type(content_type: &str) -> Option<&'static str> {
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media.as_str() {
        "application/cloudevents+json" => Some("application/cloudevents-batch+json"),
        media if media == "application/json" || media.ends_with("+json") => Some("application/json"),
        _ => None,
    }
}

/// The bytes of an array of so many bodies that have so many bytes together.
pub fn array_bytes(count: usize, bytes: usize) -> usize {
    // Two brackets, and a comma between each two.
    bytes.saturating_add(count.max(1)).saturating_add(1)
}

/// The array of these bodies: each as it is, byte for byte.
pub fn array_of<'b>(bodies: impl ExactSizeIterator<Item = &'b Bytes> + Clone) -> Bytes {
    let size = array_bytes(bodies.len(), bodies.clone().map(Bytes::len).sum());
    let mut array = Vec::with_capacity(size);
    array.push(b'[');
    for body in bodies {
        if array.len() > 1 {
            array.push(b',');
        }
        array.extend_from_slice(body);
    }
    array.push(b']');
    array.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn who_has_failed_shares_with_fewer_each_time_and_is_alone_at_last() {
        let most = |max_events, tried, attempts| {
            BatchPolicy { max_events, ..BatchPolicy::default() }.most(tried, attempts)
        };
        assert_eq!([0, 1, 2, 3, 4, 5].map(|tried| most(100, tried, 6)), [100, 25, 6, 1, 1, 1]);
        assert_eq!([0, 1, 2].map(|tried| most(1000, tried, 3)), [1000, 250, 1]);
        assert_eq!(most(100, 0, 1), 100, "the only attempt is the first");
        assert_eq!(most(1000, u32::MAX, u32::MAX), 1);
        assert_eq!(most(1000, 40, 100), 1);
    }

    #[test]
    fn only_json_makes_an_array() {
        let check = |content_type, expect| assert_eq!(array_type(content_type), expect, "{content_type}");
        check("application/json", Some("application/json"));
        check("Application/JSON; charset=utf-8", Some("application/json"));
        check("application/vnd.shop+json", Some("application/json"));
        check("application/cloudevents+json", Some("application/cloudevents-batch+json"));
        for other in ["application/xml", "text/plain", "application/x-www-form-urlencoded", ""] {
            check(other, None);
        }
    }

    proptest! {
        #[test]
        fn an_array_has_every_body_as_it_is_and_as_many_bytes_as_was_said(
            bodies in proptest::collection::vec("\"[a-z]{0,9}\"|[1-9][0-9]{0,4}|\\{\\}", 1..20),
        ) {
            let bodies: Vec<Bytes> = bodies.into_iter().map(Bytes::from).collect();
            let array = array_of(bodies.iter());
            prop_assert_eq!(array.len(), array_bytes(bodies.len(), bodies.iter().map(Bytes::len).sum()));
            let read: Vec<serde_json::Value> = serde_json::from_slice(&array).unwrap();
            let each: Vec<serde_json::Value> = bodies.iter().map(|b| serde_json::from_slice(b).unwrap()).collect();
            prop_assert_eq!(read, each);
        }
    }
}
