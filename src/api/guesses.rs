//! Who guesses keys is locked out for a while.
//!
//! The table is bounded: of more addresses than it holds the one seen longest ago makes room. It counts by address, of
//! IPv6 by the network of 64 bits that one customer has. While an address is locked out none of its keys is looked at,
//! right or wrong; so behind a proxy all callers share one count.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::limits;

/// The wrong keys of late.
#[derive(Debug, Default)]
pub struct Guesses {
    table: Mutex<HashMap<IpAddr, Count>>,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    wrong: u32,
    since: Instant,
}

/// What one more wrong key leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The next one is looked at.
    GoOn,
    /// This was the last one for a while.
    LockedOut,
}

impl Guesses {
    /// How long an address is still locked out; `None`: it is not.
    pub fn locked_out(&self, address: IpAddr) -> Option<Duration> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let count = table.get(&network(address)).filter(|count| count.wrong >= limits::API_GUESSES)?;
        let left = limits::API_GUESSES_WITHIN.saturating_sub(count.since.elapsed());
        (!left.is_zero()).then_some(left)
    }

    /// A key from this address was wrong.
    pub fn wrong(&self, address: IpAddr) -> Then {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let (address, now) = (network(address), Instant::now());
        if table.len() >= limits::API_GUESSERS
            && !table.contains_key(&address)
            && let Some(oldest) =
                table.iter().min_by_key(|(_, count)| count.since).map(|(address, _)| *address)
        {
            table.remove(&oldest);
        }
        let count = table.entry(address).or_insert(Count { wrong: 0, since: now });
        if count.since.elapsed() >= limits::API_GUESSES_WITHIN {
            *count = Count { wrong: 0, since: now };
        }
        count.wrong += 1;
        if count.wrong == limits::API_GUESSES {
            // The lock lasts as long as the counting did at most.
            count.since = now;
            return Then::LockedOut;
        }
        Then::GoOn
    }
}

/// The address that counts: of IPv6 the network of one customer.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let bits = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(bits.into())
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_that_guesses_is_locked_out_for_a_while_and_no_other() {
        let guesses = Guesses::default();
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        for _ in 1..limits::API_GUESSES {
            assert_eq!(guesses.wrong(address), Then::GoOn);
            assert_eq!(guesses.locked_out(address), None);
        }
        assert_eq!(guesses.wrong(address), Then::LockedOut);
        assert!(guesses.locked_out(address).is_some());
        assert!(guesses.locked_out("::ffff:10.0.0.1".parse().unwrap()).is_some());
        assert_eq!(guesses.locked_out("10.0.0.2".parse().unwrap()), None);
        tokio::time::advance(limits::API_GUESSES_WITHIN).await;
        assert_eq!(guesses.locked_out(address), None);
        assert_eq!(guesses.wrong(address), Then::GoOn);
    }

    #[tokio::test(start_paused = true)]
    async fn one_network_of_ipv6_is_one_guesser_and_the_table_is_bounded() {
        let guesses = Guesses::default();
        for host in 0..u128::from(limits::API_GUESSES) {
            guesses.wrong(IpAddr::V6((0x2001_0db8_u128 << 96 | host).into()));
        }
        assert!(guesses.locked_out("2001:db8::ffff".parse().unwrap()).is_some());
        for network in 0..u128::try_from(limits::API_GUESSERS).unwrap() {
            guesses.wrong(IpAddr::V6((network << 64).into()));
            tokio::time::advance(Duration::from_nanos(1)).await;
        }
        assert_eq!(guesses.table.lock().unwrap().len(), limits::API_GUESSERS);
    }
}
