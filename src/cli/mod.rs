//! What you type.

pub mod listen;
