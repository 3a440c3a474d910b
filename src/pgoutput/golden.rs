//! A recorded stream.
