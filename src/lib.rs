//! walhook, seen from the top.
<<<<<<< HEAD
pub mod app;
pub mod catalog;
pub mod chores;
=======
>>>>>>> a270e4a0c2a3ba0043487a502fdbddb9503a10fb
pub mod cli;
pub mod clock;
pub mod config;
pub mod dispatcher;
pub mod domain;
pub mod intake;
pub mod ledger;
pub mod matcher;
pub mod pgoutput;
pub mod postgres;
pub mod render;
pub mod settlement;
pub mod sign;
pub mod source;
pub mod tasks;
pub mod telemetry;
pub mod transport;
