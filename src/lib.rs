//! walhook, seen from the top.
pub mod clock;
pub mod cluster;
pub mod config;
pub mod domain;
pub mod matcher;
pub mod pgoutput;
pub mod postgres;
pub mod render;
pub mod sign;
pub mod source;
pub mod tasks;
pub mod transport;
