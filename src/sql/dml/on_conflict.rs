//! ON CONFLICT: what becomes of a new row whose key exists, and the writes of an INSERT.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{filter_record_batch, take_record_batch};
use datafusion::common::{DFSchema, ParamValues, TableReference};
use datafusion::sql::sqlparser::ast;

use super::evaluate::Evaluator;
use super::returning::Returning;
use super::{assignments, set_value};
use crate::engine::{
    self, EncodedKey, KeyColumn, KeyKind, OnConflict, RowAddress, TableSnapshot, Transaction, Write,
};
use crate::sql::cast::{BatchCaster, CastPolicy};
use crate::sql::context::{PlanContext, fold};
use crate::sql::semantics::floats::canonical_batch;
use crate::sql::semantics::time_zone::TimeZone;
use crate::sql::{Code, Error, Outcome, Result};

/// Name of the row that was to be inserted, in DO UPDATE.
const EXCLUDED: &str = "excluded";

/// What an INSERT does about keys that exist.
#[derive(Debug)]
pub(super) enum Conflict {
    /// Fails.
    Error,
    /// Leaves the new row out.
    Ignore,
    /// Puts the new row in place of the old one: DO UPDATE that sets every column to `excluded`.
    Replace,
    /// Computes the row to put in place of the old one.
    Update(Box<DoUpdate>),
}

/// A compiled DO UPDATE SET.
#[derive(Debug)]
pub(super) struct DoUpdate {
    /// Over the old row's columns and then the new one's: the value of every column, then the condition
    /// where there is one.
    evaluator: Evaluator,
    has_condition: bool,
}

impl Conflict {
    /// Compiles the clause of an INSERT.
    pub(super) fn compile(
        context: &PlanContext,
        table: &TableSnapshot,
        qualifier: &TableReference,
        on: Option<&ast::OnInsert>,
        parameters: Option<&ParamValues>,
        returns: bool,
    ) -> Result<Self> {
        let clause = match on {
            None => return Ok(Self::Error),
            Some(ast::OnInsert::OnConflict(clause)) => clause,
            Some(other) => {
                return Err(Error::unsupported(format!(
                    "{} is not supported",
                    other.to_string().trim()
                )));
            }
        };
        let has_key = check_target(table, clause.conflict_target.as_ref())?;
        match &clause.action {
            ast::OnConflictAction::DoNothing if !has_key => Ok(Self::Error),
            ast::OnConflictAction::DoNothing => Ok(Self::Ignore),
            ast::OnConflictAction::DoUpdate(_) if !has_key => Err(no_key(table)),
            ast::OnConflictAction::DoUpdate(update) if !returns && replaces_all(table, update)? => {
                Ok(Self::Replace)
            }
            ast::OnConflictAction::DoUpdate(update) => {
                DoUpdate::compile(context, table, qualifier, update, parameters)
                    .map(|u| Self::Update(Box::new(u)))
            }
        }
    }
}

/// Checks that the columns after ON CONFLICT are the primary key. Says whether there is one.
fn check_target(table: &TableSnapshot, target: Option<&ast::ConflictTarget>) -> Result<bool> {
    let meta = table.meta();
    let has_key = meta.key_kind == KeyKind::Primary;
    match target {
        None => Ok(has_key),
        Some(ast::ConflictTarget::OnConstraint(name)) => Err(Error::unsupported(format!(
            "ON CONFLICT ON CONSTRAINT {name} is not supported; name the key columns"
        ))),
        Some(ast::ConflictTarget::Columns(columns)) => {
            let mut wanted = columns
                .iter()
                .map(|c| meta.column_index(&fold(c)))
                .collect::<engine::Result<Vec<_>>>()?;
            let mut key = meta.key_indices();
            wanted.sort_unstable();
            key.sort_unstable();
            if has_key && wanted == key { Ok(true) } else { Err(no_key(table)) }
        }
    }
}

fn no_key(table: &TableSnapshot) -> Error {
    let meta = table.meta();
    let key: Vec<&str> =
        meta.key_indices().iter().map(|i| meta.columns[*i].field.name().as_str()).collect();
    let is = match meta.key_kind {
        KeyKind::Primary => format!("its primary key is ({})", key.join(", ")),
        _ => "it has no primary key".to_owned(),
    };
    engine::Error::invalid(format!(
        "ON CONFLICT must name the primary key of table {}, and {is}",
        meta.name
    ))
    .into()
}

/// Whether a DO UPDATE sets every column outside the key to the new row's, whatever the old row.
fn replaces_all(table: &TableSnapshot, update: &ast::DoUpdate) -> Result<bool> {
    if update.selection.is_some() {
        return Ok(false);
    }
    let meta = table.meta();
    let mut set = meta.key_indices();
    for (column, value) in assignments(table, &update.assignments)? {
        let ast::Expr::CompoundIdentifier(parts) = value else { return Ok(false) };
        let [relation, name] = parts.as_slice() else { return Ok(false) };
        if fold(relation) != EXCLUDED || fold(name) != *meta.columns[column].field.name() {
            return Ok(false);
        }
        set.push(column);
    }
    Ok((0..meta.columns.len()).all(|c| set.contains(&c)))
}

/// What expressions of DO UPDATE see: the old row under the table's name, the new one as `excluded`.
pub(super) fn update_schema(table: &TableSnapshot, qualifier: &TableReference) -> Result<DFSchema> {
    let schema = table.schema();
    let old = DFSchema::try_from_qualified_schema(qualifier.clone(), &schema)?;
    let new = DFSchema::try_from_qualified_schema(TableReference::bare(EXCLUDED), &schema)?;
    Ok(old.join(&new)?)
}

impl DoUpdate {
    fn compile(
        context: &PlanContext,
        table: &TableSnapshot,
        qualifier: &TableReference,
        update: &ast::DoUpdate,
        parameters: Option<&ParamValues>,
    ) -> Result<Self> {
        let input = update_schema(table, qualifier)?;
        let meta = table.meta();
        let mut named = Vec::with_capacity(meta.columns.len() + 1);
        for (i, column) in meta.columns.iter().enumerate() {
            let old = datafusion::logical_expr::Expr::from(input.qualified_field(i));
            named.push((old, column.field.name().clone()));
        }
        for (column, value) in assignments(table, &update.assignments)? {
            let value = set_value(table, column, value)?;
            named[column].0 = context.expression(&value, &input)?;
        }
        if let Some(condition) = &update.selection {
            named.push((context.expression(condition, &input)?, "condition".to_owned()));
        }
        let clause = "ON CONFLICT DO UPDATE";
        let evaluator = Evaluator::compile(context, named, &input, parameters, clause)?;
        Ok(Self { evaluator, has_condition: update.selection.is_some() })
    }

    /// The rows to put in place of `old`, where `new` was to be inserted, and which of them to put.
    fn rows(
        &self,
        caster: &mut BatchCaster,
        old: &RecordBatch,
        new: &RecordBatch,
    ) -> Result<(RecordBatch, Option<BooleanArray>)> {
        let columns: Vec<ArrayRef> = old.columns().iter().chain(new.columns()).cloned().collect();
        let fields: Vec<_> = [old, new]
            .iter()
            .flat_map(|b| b.schema().fields().iter().cloned().collect::<Vec<_>>())
            .collect();
        let both = RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), columns)
            .map_err(engine::Error::from)?;
        let mut values = self.evaluator.columns(&both)?;
        let mask = match self.has_condition {
            false => None,
            true => {
                let condition = values.pop().ok_or_else(|| Error::internal("no condition"))?;
                let condition = condition.as_boolean_opt().cloned().ok_or_else(|| {
                    Error::data("the WHERE of ON CONFLICT DO UPDATE is not a boolean")
                })?;
                // NULL is no match, and a row that is not updated must not fail a cast.
                let mask = match condition.nulls() {
                    None => condition,
                    Some(nulls) => BooleanArray::new(condition.values() & nulls.inner(), None),
                };
                values = values
                    .iter()
                    .map(|v| arrow::compute::filter(v, &mask))
                    .collect::<Result<_, _>>()
                    .map_err(engine::Error::from)?;
                Some(mask)
            }
        };
        let count = mask.as_ref().map_or(both.num_rows(), BooleanArray::true_count);
        Ok((caster.cast_columns(&values, count)?, mask))
    }
}

/// Keys that one statement has met.
#[derive(Debug)]
enum SeenKeys {
    U64(HashSet<u64>),
    Other(HashSet<EncodedKey>),
}

impl SeenKeys {
    fn insert(&mut self, keys: &KeyColumn, position: usize) -> bool {
        match (&mut *self, keys) {
            (Self::U64(seen), KeyColumn::U64(keys)) => seen.insert(keys[position]),
            (Self::Other(seen), keys) => seen.insert(keys.get(position)),
            (Self::U64(_), keys) => {
                *self = Self::Other(HashSet::new());
                self.insert(keys, position)
            }
        }
    }
}

/// The encoded keys of rows of a table.
pub(super) fn encode_keys(table: &TableSnapshot, rows: &RecordBatch) -> Result<KeyColumn> {
    let columns: Vec<ArrayRef> =
        table.meta().key_indices().iter().map(|i| Arc::clone(rows.column(*i))).collect();
    Ok(table.codec().encode(&columns)?)
}

/// How many rows from the start have keys that differ from each other.
pub(super) fn distinct_prefix(keys: &KeyColumn, start: usize) -> usize {
    let mut seen = SeenKeys::U64(HashSet::new());
    (start..keys.len()).find(|i| !seen.insert(keys, *i)).unwrap_or(keys.len()) - start
}

/// The writes of one INSERT: rows go in batch by batch.
pub(super) struct Inserter {
    conflict: Conflict,
    table: TableSnapshot,
    write: Write,
    returning: Option<Returning>,
    seen: SeenKeys,
    caster: BatchCaster,
    /// Rows inserted or updated, where it is counted here.
    count: u64,
    row_count: u64,
    /// Whether the rows come from several bindings, which are statements of their own.
    pub(super) many: bool,
}

impl Inserter {
    /// Begins a statement.
    pub(super) fn new(
        transaction: &Transaction,
        table: &TableSnapshot,
        conflict: Conflict,
        returning: Option<Returning>,
        zone: TimeZone,
    ) -> Result<Self> {
        let on_conflict = match conflict {
            // What RETURNING returns must be known here.
            Conflict::Ignore if returning.is_none() => OnConflict::Ignore,
            Conflict::Replace => OnConflict::Replace,
            _ => OnConflict::Error,
        };
        let meta = table.meta();
        let all: Vec<usize> = (0..meta.columns.len()).collect();
        let caster = BatchCaster::by_position(meta, &all, CastPolicy::Assign, |_| {
            Err(Error::internal("every column of an updated row is given"))
        })?
        .in_zone(zone);
        Ok(Self {
            write: transaction.write(table.id(), on_conflict)?,
            table: table.clone(),
            conflict,
            returning,
            seen: SeenKeys::U64(HashSet::new()),
            caster,
            count: 0,
            row_count: 0,
            many: false,
        })
    }

    /// Whether rows that exist are updated from what they are.
    pub(super) fn updates(&self) -> bool {
        matches!(self.conflict, Conflict::Update(_))
    }

    /// Adds rows of the table's schema.
    pub(super) fn push(&mut self, rows: &RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let first_row = self.row_count;
        self.row_count += rows.num_rows() as u64;
        match &self.conflict {
            Conflict::Ignore if self.returning.is_some() => {
                let (keys, found) = self.locate(rows)?;
                let fresh: BooleanArray = (0..rows.num_rows())
                    .map(|i| Some(found[i].is_none() && self.seen.insert(&keys, i)))
                    .collect();
                self.insert(&filter_record_batch(rows, &fresh).map_err(engine::Error::from)?)
            }
            Conflict::Update(_) => self.upsert(rows, first_row),
            _ => self.insert(rows),
        }
    }

    fn insert(&mut self, rows: &RecordBatch) -> Result<()> {
        self.write.insert(rows)?;
        self.count += rows.num_rows() as u64;
        match &mut self.returning {
            Some(returning) => returning.push(rows),
            None => Ok(()),
        }
    }

    fn locate(&self, rows: &RecordBatch) -> Result<(KeyColumn, Vec<Option<RowAddress>>)> {
        let keys = encode_keys(&self.table, rows)?;
        let found = self.table.locate(&keys)?;
        Ok((keys, found))
    }

    fn upsert(&mut self, rows: &RecordBatch, first_row: u64) -> Result<()> {
        let (keys, found) = self.locate(rows)?;
        if let Some(row) = (0..rows.num_rows()).find(|i| !self.seen.insert(&keys, *i)) {
            return Err(twice(&self.table, Some(first_row + row as u64 + 1)));
        }
        let (mut new, mut old, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
        for (row, address) in found.into_iter().enumerate() {
            match address {
                None => new.push(row as u32),
                Some(address) => {
                    old.push(row as u32);
                    addresses.push(address);
                }
            }
        }
        if old.is_empty() {
            return self.insert(rows);
        }
        let take = |rows: &RecordBatch, positions: Vec<u32>| {
            take_record_batch(rows, &UInt32Array::from(positions)).map_err(engine::Error::from)
        };
        if !new.is_empty() {
            let new = take(rows, new)?;
            self.insert(&new)?;
        }
        let excluded = take(rows, old)?;
        let existing = canonical_batch(self.table.take(&addresses, None)?)?;
        let Conflict::Update(update) = &self.conflict else {
            return Err(Error::internal("rows to update without DO UPDATE"));
        };
        let (updated, mask) = update.rows(&mut self.caster, &existing, &excluded)?;
        if let Some(mask) = mask {
            let mut kept = mask.values().iter();
            addresses.retain(|_| kept.next().unwrap_or(false));
        }
        self.write.delete(&addresses)?;
        self.insert(&updated)
    }

    /// Carries the writes out.
    pub(super) fn finish(self, transaction: &mut Transaction) -> Result<Outcome> {
        let given = self.write.row_count();
        let before = matches!(self.conflict, Conflict::Replace).then(|| transaction.savepoint());
        let result = transaction.apply(self.write)?;
        let affected = match self.conflict {
            Conflict::Ignore if self.returning.is_none() => result.inserted_count,
            Conflict::Replace => {
                if let Some(before) = before
                    && !self.many
                    && result.inserted_count < given
                {
                    transaction.rollback_to(&before);
                    return Err(twice(&self.table, None));
                }
                given
            }
            _ => self.count,
        };
        Ok(Returning::finish(self.returning, affected))
    }
}

/// The error for two rows of one statement with the same key, where the first would be updated by the second.
fn twice(table: &TableSnapshot, row: Option<u64>) -> Error {
    let which = row.map_or("a row".to_owned(), |row| format!("row {row}"));
    Error::new(
        Code::CardinalityViolation,
        format!(
            "ON CONFLICT DO UPDATE cannot change a row of table {} twice: {which} has the same key as one \
         before it in the statement",
            table.meta().name
        ),
    )
}
