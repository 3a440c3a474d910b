//! The deliveries that a table's new shape owes.

use std::sync::Arc;

use super::{Alike, Expander, Expansion, Naming, Payload, Subject, json, report};
use crate::catalog::Snapshot;
use crate::domain::{Change, Operation, Relation, TableShape, Transaction};
use crate::render::write_schema_data;
use crate::source::RawChange;

impl Expander {
    /// Whether anybody wants to know when a table has another shape.
    pub async fn wants_shape(&mut self, snapshot: &Snapshot, relation: &Arc<Relation>) -> bool {
        self.resolve(snapshot, relation).await;
        self.tables.get(&relation.id).is_some_and(|table| table.interest.wants(Operation::Schema))
    }

    /// What the shape that this row was the first to show owes, in the table's lane; `None` where nobody wants it, or
    /// where only excluded columns differ.
    pub fn expand_shape(
        &mut self,
        snapshot: &Snapshot,
        transaction: Transaction,
        raw: &RawChange,
        before: &TableShape,
    ) -> Option<Expansion> {
        let (relation, sequence) = (Arc::clone(&raw.relation), raw.sequence);
        let table = Arc::clone(self.tables.get(&relation.id)?);
        let shape = TableShape::of(&relation);
        let difference = shape.since(before, |column| table.interest.rules().hides(column))?;
        let change = Change { relation, operation: Operation::Schema, new: None, old: None, sequence };
        let owing = table.interest.owed(&change, json);
        for failure in &owing.failures {
            report(&mut self.failed_conditions, failure);
        }
        if owing.deliveries.iter().all(|owed| snapshot.webhook(owed.webhook).is_none()) {
            return None;
        }
        let mut data = Vec::new();
        write_schema_data(Operation::Schema, (&table.schema, &table.name), &difference, &mut data);
        let subject = Subject {
            schema: Arc::clone(&table.schema),
            table: Arc::clone(&table.name),
            alike: Alike::ByKey,
            key: Vec::new(),
            hides_key: false,
            operation: Operation::Schema,
        };
        let payload = Payload { data, fault: None, max_body: self.max_body };
        let expansion = self.expansion(subject, owing.deliveries, transaction, sequence, payload);
        Some(expansion.named(Naming::Shape))
    }
}
