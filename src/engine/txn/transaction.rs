//! A transaction: a private fork of a root.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use super::commit::{self, ActiveGuard, By};
use super::root::{DbRoot, Object, Snapshot};
use super::write::{Write, WriteResult};
use super::{OnConflict, resolve};
use crate::engine::Shared;
use crate::engine::error::{Error, ObjectKind, Result};
use crate::engine::id::{SeqNo, TableId};
use crate::engine::schema::{DEFAULT_SCHEMA, KeySpec, TableMeta, TableName};
use crate::engine::table::{TableSnapshot, TableState};
use crate::engine::wal::WalOp;

/// A transaction: a private fork of the state that it began on. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct Transaction {
    pub(super) shared: Arc<Shared>,
    pub(super) base: Arc<DbRoot>,
    pub(super) fork: Fork,
    pub(super) active: ActiveGuard,
}

/// What a transaction has made of the state that it began on.
#[derive(Debug, Clone)]
pub(super) struct Fork {
    pub(super) root: Arc<DbRoot>,
    /// Changes to schemas and views, for the log; those to tables follow from the roots.
    pub(super) catalog: Vec<WalOp>,
    /// Tables that it changed, made or dropped.
    pub(super) tables: BTreeSet<TableId>,
    /// Names whose meaning it changed.
    pub(super) names: BTreeSet<TableName>,
    /// Schemas that it made or dropped.
    pub(super) schemas: BTreeSet<Arc<str>>,
}

/// The state of a transaction to come back to. Savepoints are cheap.
#[derive(Debug, Clone)]
pub struct Savepoint {
    fork: Fork,
}

impl Transaction {
    pub(crate) fn begin(shared: &Arc<Shared>) -> Result<Self> {
        let (base, active) = commit::register(shared)?;
        let fork = Fork {
            root: Arc::clone(&base),
            catalog: Vec::new(),
            tables: BTreeSet::new(),
            names: BTreeSet::new(),
            schemas: BTreeSet::new(),
        };
        Ok(Self { shared: Arc::clone(shared), base, fork, active })
    }

    /// What the transaction sees now: the state it began on and its own writes.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { root: Arc::clone(&self.fork.root) }
    }

    /// Whether it has changed nothing.
    pub fn is_empty(&self) -> bool {
        Arc::ptr_eq(&self.base, &self.fork.root)
    }

    fn root_mut(&mut self) -> &mut DbRoot {
        Arc::make_mut(&mut self.fork.root)
    }

    fn put_table(&mut self, state: TableState) {
        self.fork.tables.insert(state.shape.meta.id);
        self.root_mut().put_table(Arc::new(state));
    }

    fn check_schema(&self, schema: &str) -> Result<()> {
        if self.fork.root.schemas.contains(schema) {
            return Ok(());
        }
        Err(Error::not_found(format!("schema \"{schema}\" does not exist")).of(ObjectKind::Schema))
    }

    fn check_free(&self, name: &TableName) -> Result<()> {
        self.check_schema(&name.schema)?;
        match self.fork.root.names.get(name) {
            None => Ok(()),
            Some(Object::Table(_)) => {
                Err(Error::already_exists(format!("table {name} already exists"))
                    .of(ObjectKind::Table))
            }
            Some(Object::View(_)) => {
                Err(Error::already_exists(format!("view {name} already exists"))
                    .of(ObjectKind::Table))
            }
        }
    }

    /// Creates a schema.
    pub fn create_schema(&mut self, name: &str) -> Result<()> {
        if self.fork.root.schemas.contains(name) {
            return Err(Error::already_exists(format!("schema \"{name}\" already exists"))
                .of(ObjectKind::Schema));
        }
        self.root_mut().schemas.insert_mut(Arc::from(name));
        self.fork.schemas.insert(Arc::from(name));
        self.fork.catalog.push(WalOp::PutSchema(name.to_owned()));
        Ok(())
    }

    /// Drops an empty schema.
    pub fn drop_schema(&mut self, name: &str) -> Result<()> {
        self.check_schema(name)?;
        if name == DEFAULT_SCHEMA {
            return Err(Error::invalid(format!("schema \"{name}\" cannot be dropped")));
        }
        if let Some((object, _)) = self.fork.root.names.iter().find(|(n, _)| &*n.schema == name) {
            return Err(Error::invalid(format!(
                "schema \"{name}\" is not empty: drop {object} first"
            )));
        }
        self.root_mut().schemas.remove_mut(name);
        self.fork.schemas.insert(Arc::from(name));
        self.fork.catalog.push(WalOp::DropSchema(name.to_owned()));
        Ok(())
    }

    /// Creates a table.
    pub fn create_table(
        &mut self,
        name: &TableName,
        schema: &Schema,
        key: &KeySpec,
    ) -> Result<TableId> {
        self.check_free(name)?;
        let id = TableId(self.shared.next_table.fetch_add(1, Ordering::Relaxed));
        let meta = TableMeta::new(id, name.clone(), schema, key)?;
        let state = TableState::new(Arc::new(meta))?;
        self.put_table(state);
        self.fork.names.insert(name.clone());
        Ok(id)
    }

    /// Changes a table's definition: its name, columns added (take `next_field_id`, set `initial`) or dropped,
    /// their names, defaults and nullability. The key stays as it is, and key columns cannot be dropped.
    pub fn alter_table(
        &mut self,
        table: TableId,
        change: impl FnOnce(&mut TableMeta) -> Result<()>,
    ) -> Result<()> {
        let old = Arc::clone(self.fork.root.table(table)?);
        let mut meta = (*old.shape.meta).clone();
        change(&mut meta)?;
        meta.version += 1;
        meta.check_change_from(&old.shape.meta)?;
        if meta.name != old.shape.meta.name {
            self.check_free(&meta.name)?;
            self.fork.names.insert(old.shape.meta.name.clone());
            self.fork.names.insert(meta.name.clone());
        }
        let mut state = (*old).clone();
        state.set_meta(Arc::new(meta))?;
        self.put_table(state);
        Ok(())
    }

    /// Drops a table.
    pub fn drop_table(&mut self, table: TableId) -> Result<()> {
        self.fork.root.table(table)?;
        if let Some(state) = self.root_mut().remove_table(table) {
            self.fork.names.insert(state.shape.meta.name.clone());
            self.fork.tables.insert(table);
        }
        Ok(())
    }

    /// Removes all rows of a table; says how many there were.
    pub fn truncate(&mut self, table: TableId) -> Result<u64> {
        let mut state = (**self.fork.root.table(table)?).clone();
        let count = state.live_count;
        state.truncate();
        self.put_table(state);
        Ok(count)
    }

    /// Creates a view, or replaces it.
    pub fn put_view(&mut self, name: &TableName, sql: &str) -> Result<()> {
        if !matches!(self.fork.root.names.get(name), Some(Object::View(_))) {
            self.check_free(name)?;
        }
        self.root_mut().names.insert_mut(name.clone(), Object::View(Arc::from(sql)));
        self.fork.names.insert(name.clone());
        self.fork.catalog.push(WalOp::PutView(name.clone(), sql.to_owned()));
        Ok(())
    }

    /// Drops a view.
    pub fn drop_view(&mut self, name: &TableName) -> Result<()> {
        if !matches!(self.fork.root.names.get(name), Some(Object::View(_))) {
            return Err(
                Error::not_found(format!("view {name} does not exist")).of(ObjectKind::Table)
            );
        }
        self.root_mut().names.remove_mut(name);
        self.fork.names.insert(name.clone());
        self.fork.catalog.push(WalOp::DropView(name.clone()));
        Ok(())
    }

    /// Begins the writes of one statement on one table: gather them in the [`Write`], then
    /// [`Transaction::apply`] it. Nothing else may be applied to the table between the two.
    pub fn write(&self, table: TableId, on_conflict: OnConflict) -> Result<Write> {
        let state = Arc::clone(self.fork.root.table(table)?);
        Ok(Write::new(&self.shared, TableSnapshot { state }, on_conflict))
    }

    /// Carries a statement's writes out, deletes first, wholly or (on an error) not at all.
    pub fn apply(&mut self, write: Write) -> Result<WriteResult> {
        let current = self.fork.root.table(write.table().id())?;
        if !Arc::ptr_eq(current, &write.table().state) {
            return Err(Error::invalid(format!(
                "table {} was changed by another statement of this transaction in the meantime",
                write.table().meta().name
            )));
        }
        let base = self.base.tables.get(&write.table().id()).cloned();
        let (state, result) = resolve::apply(write, base.as_deref())?;
        self.put_table(state);
        Ok(result)
    }

    /// Inserts the rows of one batch: a statement of its own.
    pub fn insert(
        &mut self,
        table: TableId,
        batch: &RecordBatch,
        on_conflict: OnConflict,
    ) -> Result<WriteResult> {
        let mut write = self.write(table, on_conflict)?;
        write.insert(batch)?;
        self.apply(write)
    }

    /// Marks the present state to come back to.
    pub fn savepoint(&self) -> Savepoint {
        Savepoint { fork: self.fork.clone() }
    }

    /// Goes back to a marked state of this transaction.
    pub fn rollback_to(&mut self, savepoint: &Savepoint) {
        self.fork = savepoint.fork.clone();
    }

    /// Makes the changes durable and visible. An error of kind
    /// [`Conflict`](crate::engine::ErrorKind::Conflict) says that another transaction changed the same
    /// rows first: retry from the start.
    pub fn commit(self) -> Result<SeqNo> {
        commit::commit(self, By::Client).map_err(|refused| refused.error)
    }
}
