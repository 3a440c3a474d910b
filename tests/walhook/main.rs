//! The integration tests: the real binary between a real Postgres and a real HTTP receiver.
//!
//! One binary, split by subject. `support` has the cast: a [`support::Database`] of the test's own on a server that
//! all tests share (or a [`walhook::cluster::Cluster`] where the test crashes the server), a
//! [`support::Receiver`] with scripted answers, and a [`support::Sidecar`], which is the binary as users run it.
//! Nothing here sleeps and hopes: a test waits for a condition, with a deadline, and a sidecar that logged a warning
//! or an error that the test did not list fails the test.

#[cfg(test)]
mod accidents;
#[cfg(test)]
mod api;
#[cfg(test)]
mod backfill;
#[cfg(test)]
mod backfill_keys;
#[cfg(test)]
mod batch;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod compression;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod delivery;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod facts;
#[cfg(test)]
mod failover;
#[cfg(test)]
mod flow;
#[cfg(test)]
mod formats;
#[cfg(test)]
mod gaps;
mod ghosts;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod hints;
#[cfg(test)]
mod idle;
#[cfg(test)]
mod instances;
#[cfg(test)]
mod lagging;
#[cfg(test)]
mod ledger;
#[cfg(test)]
mod ledger_care;
#[cfg(test)]
mod ledger_model;
#[cfg(test)]
mod live;
#[cfg(test)]
mod login;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod messages;
#[cfg(test)]
mod notices;
#[cfg(test)]
mod numbers;
#[cfg(test)]
mod operator;
#[cfg(test)]
mod order;
#[cfg(test)]
mod partitions;
#[cfg(test)]
mod privacy;
#[cfg(test)]
mod proof;
#[cfg(test)]
mod publications;
#[cfg(test)]
mod rebuild;
#[cfg(test)]
mod record;
#[cfg(test)]
mod regress;
#[cfg(test)]
mod remote;
#[cfg(test)]
mod rights;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod shapes;
#[cfg(test)]
mod signatures;
#[cfg(test)]
mod source;
#[cfg(test)]
mod standing;
#[cfg(test)]
mod statements;
#[cfg(test)]
mod stats;
#[cfg(test)]
mod stop;
#[cfg(test)]
mod support;
#[cfg(test)]
mod templates;
#[cfg(test)]
mod tenants;
#[cfg(test)]
mod trials;
#[cfg(test)]
mod trust;
#[cfg(test)]
mod types;
#[cfg(test)]
mod versions;
