//! The nouns: what every other module talks about.
//!
//! Nothing here does I/O, reads a clock or rolls dice. The life of the nouns: a [`Change`] of a row stands at a
//! [`Place`] in the log; it makes [`Event`]s; a [`Webhook`] that wants an event is owed a [`Delivery`]; each try
//! of a delivery is an [`Attempt`] that ends in an [`Outcome`], which [`judge`] turns into a [`Verdict`].

mod batch;
mod delivery;
mod event;
mod flow;
mod histogram;
mod ids;
pub mod limits;
mod lineage;
mod mask;
mod notice;
mod position;
mod reach;
mod retry;
mod row;
mod rules;
mod secret;
mod shape;
mod tally;
mod tenant;
mod webhook;

pub use batch::{BatchPolicy, array_bytes, array_of, array_type};
pub use delivery::{
    Attempt, Delivery, DeliveryStatus, Lane, Outcome, RefusedBy, TimeoutStage, UnreachableBy, lane_of,
};
pub use event::{Event, MARK_PREFIX, MESSAGE_PREFIX, Operation, Transaction};
pub use flow::{BreakerPolicy, Flow, RateLimit};
pub use histogram::Histogram;
pub use ids::{DeliveryId, EventId, OF_SHAPE, Origin, Place};
pub use lineage::Lineage;
pub use mask::MaskKey;
pub use notice::{Notice, Topic};
pub use position::{CommitLsn, EndLsn, Lsn, ParseLsnError};
pub use reach::{
    Auth, ClientCredentials, Connection, CustomSignature, Encoding, Fingerprint, HashAlgorithm, Identity,
    Jwt, JwtAlgorithm, OAuth2, Proxy, ProxyKind, Reach, SignatureScheme, SignedPart, TlsVersion,
    Verification,
};
pub use retry::{Backoff, FailReason, RetryPolicy, SCHEDULES, Verdict, judge, judge_test};
pub use row::{Cell, Change, Column, OldRow, Relation, ReplicaIdentity, Tuple, ValueKind};
pub use rules::{JsonWriter, Seen, TableRules, Treatment};
pub use secret::{EncryptionKey, KeyId, SigningSecret};
pub use shape::{ColumnShape, IdentityShape, NameShape, Retyped, SchemaChange, TableShape, Turn, TypeShape};
pub use tally::{Causes, Ending, Promise, Tally};
pub use tenant::{Owner, TENANT_MARK, TenantChange, tenant_of};
pub use webhook::{
    BodyShape, Coding, Compression, Format, Int8, Mask, NamedEvent, Ordering, StoreBodies, TableRule,
    TemplateSource, Webhook, WebhookSource,
};
