//! Messages to chunks: which change (or logical message) belongs to which transaction, and its number there.

use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::SourceError;
use super::item::{Chunk, Entry, LogicalMessage, Oversized, RawChange};
use crate::domain::{EndLsn, MARK_PREFIX, MESSAGE_PREFIX, Operation, Relation, Transaction, limits};
use crate::pgoutput::{Decoder, HeadOnly, Message, MessageKind, RawOld, RawTuple, decode_head};

/// How the prefixes of logical messages begin that are for us: events, and marks of our own.
const OUR_PREFIXES: [&str; 2] = [MESSAGE_PREFIX, MARK_PREFIX];

/// The state of one connection's stream.
#[derive(Debug)]
pub(super) struct Assembler {
    decoder: Decoder,
    relations: FxHashMap<u32, Known>,
    own_schema: String,
    warned: bool,
    warned_of_message: bool,
    open: Option<Open>,
    chunk: Chunk,
}

#[derive(Debug)]
struct Known {
    relation: Arc<Relation>,
    whose: Whose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Theirs,
    /// Ours: counted, not delivered (invariant I10).
    Ours,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    transaction: Transaction,
    sequence: u32,
}

impl Assembler {
    pub(super) fn new(own_schema: &str) -> Self {
        Self {
            decoder: Decoder::new(),
            relations: FxHashMap::default(),
            own_schema: own_schema.to_owned(),
            warned: false,
            warned_of_message: false,
            open: None,
            chunk: Chunk::default(),
        }
    }

    /// Whether the chunk must go before more is taken.
    pub(super) fn is_full(&self) -> bool {
        self.chunk.bytes() >= limits::CHUNK_BYTES
            || self.chunk.entries() >= limits::CHUNK_CHANGES
            || self.chunk.piece_count() >= limits::CHUNK_CHANGES
    }

    /// Whether there is something to send.
    pub(super) fn has_chunk(&self) -> bool {
        !self.chunk.is_empty()
    }

    /// Whether a transaction is under way.
    pub(super) fn in_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// What has gathered.
    pub(super) fn take_chunk(&mut self) -> Option<Chunk> {
        self.has_chunk().then(|| std::mem::take(&mut self.chunk))
    }

    /// Takes the payload of one `XLogData`; `cut` is its full size where only its head is here.
    ///
    /// Only bytes that stay are counted: what makes no entry must never fill a chunk that has nothing to send.
    pub(super) fn take(&mut self, payload: Bytes, cut: Option<usize>) -> Result<(), SourceError> {
        let (bytes, before) = (payload.len(), self.chunk.entries());
        self.read(payload, cut)?;
        if self.chunk.entries() > before {
            self.chunk.count_bytes(bytes);
        }
        Ok(())
    }

    fn read(&mut self, payload: Bytes, cut: Option<usize>) -> Result<(), SourceError> {
        if let Some(bytes) = cut {
            return self.take_head(payload, bytes);
        }
        match self.decoder.decode(payload)? {
            Message::Insert { relation, new } => self.row(relation, Operation::Insert, Some(new), None),
            Message::Update { relation, old, new } => self.row(relation, Operation::Update, Some(new), old),
            Message::Delete { relation, old } => self.row(relation, Operation::Delete, None, Some(old)),
            Message::Truncate { relations, .. } => relations
                .into_iter()
                .try_for_each(|relation| self.row(relation, Operation::Truncate, None, None)),
            Message::Begin { commit, committed_at, xid } => {
                self.begin(Transaction { commit, committed_at, xid })
            }
            Message::Commit { commit, end, .. } => self.commit(commit, end),
            Message::Relation(relation) => self.describe(relation),
            Message::Logical { transactional, prefix, content, .. } => {
                self.message(transactional, Some(prefix), Ok(content))
            }
            Message::Type { .. } | Message::Origin { .. } => Ok(()),
        }
    }

    fn begin(&mut self, transaction: Transaction) -> Result<(), SourceError> {
        if self.open.is_some() {
            return Err(SourceError::out_of_order("a Begin inside a transaction"));
        }
        self.open = Some(Open { transaction, sequence: 0 });
        self.chunk.begin(transaction);
        Ok(())
    }

    fn commit(&mut self, commit: crate::domain::CommitLsn, end: EndLsn) -> Result<(), SourceError> {
        match self.open.take() {
            Some(open) if open.transaction.commit == commit => {
                self.chunk.end(open.transaction, end);
                Ok(())
            }
            Some(_) => Err(SourceError::out_of_order("a Commit of another transaction than the open one")),
            None => Err(SourceError::out_of_order("a Commit outside a transaction")),
        }
    }

    fn describe(&mut self, relation: Relation) -> Result<(), SourceError> {
        let whose = if *relation.schema == *self.own_schema { Whose::Ours } else { Whose::Theirs };
        let id = relation.id;
        if self.relations.len() >= limits::RELATIONS && !self.relations.contains_key(&id) {
            return Err(SourceError::ManyTables { most: limits::RELATIONS });
        }
        self.relations.insert(id, Known { relation: Arc::new(relation), whose });
        Ok(())
    }

    fn row(
        &mut self,
        relation: u32,
        operation: Operation,
        new: Option<RawTuple>,
        old: Option<RawOld>,
    ) -> Result<(), SourceError> {
        self.change(relation, operation, new, old, None)
    }

    fn change(
        &mut self,
        relation: u32,
        operation: Operation,
        new: Option<RawTuple>,
        old: Option<RawOld>,
        oversized: Option<Box<Oversized>>,
    ) -> Result<(), SourceError> {
        let Some(open) = &mut self.open else {
            return Err(SourceError::out_of_order("a row change outside a transaction"));
        };
        let Some(known) = self.relations.get(&relation) else {
            return Err(SourceError::out_of_order("a row change of a table that was not described"));
        };
        open.sequence = open.sequence.saturating_add(1);
        if known.whose == Whose::Ours {
            if !self.warned {
                self.warned = true;
                tracing::warn!(
                    schema = %self.own_schema,
                    "the publication covers walhook's own schema; its changes are dropped"
                );
            }
            return Ok(());
        }
        let relation = Arc::clone(&known.relation);
        let change = RawChange { relation, operation, sequence: open.sequence, new, old, oversized };
        self.chunk.push(open.transaction, Entry::Row(change));
        Ok(())
    }

    /// Takes a logical message. Every one of a transaction is counted, whoever wrote it, so that places in it do not
    /// depend on what this version makes of prefixes. One outside a transaction stands before the one it was written
    /// in, comes even when that is rolled back, and so is no event.
    fn message(
        &mut self,
        transactional: bool,
        prefix: Option<Box<str>>,
        content: Result<Bytes, usize>,
    ) -> Result<(), SourceError> {
        let ours = prefix.filter(|prefix| OUR_PREFIXES.iter().any(|ours| prefix.starts_with(ours)));
        if !transactional {
            if ours.is_some() {
                self.ignored();
            }
            return Ok(());
        }
        let Some(open) = &mut self.open else {
            return Err(SourceError::out_of_order("a transactional message outside a transaction"));
        };
        open.sequence = open.sequence.saturating_add(1);
        if let Some(prefix) = ours {
            let message = LogicalMessage { sequence: open.sequence, prefix, content };
            self.chunk.push(open.transaction, Entry::Message(message));
        }
        Ok(())
    }

    fn ignored(&mut self) {
        metrics::counter!("walhook_messages_ignored_total").increment(1);
        if !std::mem::replace(&mut self.warned_of_message, true) {
            tracing::warn!(
                "a logical message for walhook is ignored because it is not transactional: it would be sent even after a \
                 rollback; pass true as the first argument of pg_logical_emit_message"
            );
        }
    }

    /// Takes what is left of an over-large message.
    fn take_head(&mut self, payload: Bytes, bytes: usize) -> Result<(), SourceError> {
        let HeadOnly { kind, relation, new, old, transactional, prefix } = decode_head(payload)?;
        let operation = match kind {
            MessageKind::Insert => Operation::Insert,
            MessageKind::Update => Operation::Update,
            MessageKind::Delete => Operation::Delete,
            MessageKind::Logical => return self.message(transactional, prefix, Err(bytes)),
            _ => return Err(SourceError::out_of_order("a message other than a row change over the limit")),
        };
        let relation = relation.ok_or(SourceError::out_of_order("a row change without a table"))?;
        self.change(relation, operation, None, None, Some(Box::new(Oversized { bytes, new, old })))
    }
}
