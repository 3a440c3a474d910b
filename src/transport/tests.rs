//! What the transport makes of receivers that behave and of those that do not, all on loopback.

mod answers;
mod bounds;
mod guard;
mod http2;
mod proxy;
mod rig;
mod tls;
mod token;
