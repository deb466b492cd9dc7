//! The root of a state of the database. A snapshot is a root; a transaction is a changed clone of one.

use std::sync::Arc;

use rpds::{HashTrieMapSync, RedBlackTreeMapSync, RedBlackTreeSetSync};

use crate::engine::error::{Error, ObjectKind, Result};
use crate::engine::id::{SeqNo, TableId};
use crate::engine::schema::{DEFAULT_SCHEMA, TableName};
use crate::engine::table::{TableSnapshot, TableState};

/// What a name stands for. Tables and views share their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Object {
    Table(TableId),
    /// A view's SQL text.
    View(Arc<str>),
}

/// An immutable state of the database. Its maps are persistent: a clone is cheap, and a change copies
/// the path to it.
#[derive(Debug, Clone)]
pub(crate) struct DbRoot {
    /// The last commit in it.
    pub(crate) seq: SeqNo,
    pub(crate) tables: HashTrieMapSync<TableId, Arc<TableState>>,
    pub(crate) names: RedBlackTreeMapSync<TableName, Object>,
    pub(crate) schemas: RedBlackTreeSetSync<Arc<str>>,
}

impl Default for DbRoot {
    fn default() -> Self {
        let mut schemas = RedBlackTreeSetSync::new_sync();
        schemas.insert_mut(Arc::from(DEFAULT_SCHEMA));
        Self {
            seq: SeqNo(0),
            tables: HashTrieMapSync::new_sync(),
            names: RedBlackTreeMapSync::new_sync(),
            schemas,
        }
    }
}

impl DbRoot {
    /// The table with an id, or an error that says it is gone.
    pub(crate) fn table(&self, id: TableId) -> Result<&Arc<TableState>> {
        self.tables.get(&id).ok_or_else(|| {
            Error::not_found(format!("table with id {id} does not exist (any more)"))
                .of(ObjectKind::Table)
        })
    }

    /// Puts a table in, under the name that its definition has.
    pub(crate) fn put_table(&mut self, state: Arc<TableState>) {
        let meta = &state.shape.meta;
        if let Some(old) = self.tables.get(&meta.id)
            && old.shape.meta.name != meta.name
        {
            let old = old.shape.meta.name.clone();
            self.forget_name(&old, meta.id);
        }
        if self.names.get(&meta.name) != Some(&Object::Table(meta.id)) {
            self.names.insert_mut(meta.name.clone(), Object::Table(meta.id));
        }
        self.tables.insert_mut(meta.id, state);
    }

    /// Takes a table out.
    pub(crate) fn remove_table(&mut self, id: TableId) -> Option<Arc<TableState>> {
        let state = self.tables.get(&id).cloned()?;
        self.forget_name(&state.shape.meta.name, id);
        self.tables.remove_mut(&id);
        Some(state)
    }

    /// Forgets a table's name, unless another table has it by now.
    fn forget_name(&mut self, name: &TableName, id: TableId) {
        if self.names.get(name) == Some(&Object::Table(id)) {
            self.names.remove_mut(name);
        }
    }
}

/// The whole database at one moment. Cheap to clone; never changes.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(crate) root: Arc<DbRoot>,
}

impl Snapshot {
    /// The last commit that it sees.
    pub fn seq(&self) -> SeqNo {
        self.root.seq
    }

    /// Names of schemas, sorted.
    pub fn schemas(&self) -> Vec<Arc<str>> {
        self.root.schemas.iter().cloned().collect()
    }

    /// All tables, sorted by name.
    pub fn tables(&self) -> Vec<TableSnapshot> {
        self.root
            .names
            .iter()
            .filter_map(|(_, object)| match object {
                Object::Table(id) => self.table_by_id(*id),
                Object::View(_) => None,
            })
            .collect()
    }

    /// The table called `name`.
    pub fn table(&self, name: &TableName) -> Option<TableSnapshot> {
        match self.root.names.get(name) {
            Some(Object::Table(id)) => self.table_by_id(*id),
            _ => None,
        }
    }

    /// The table with this id.
    pub fn table_by_id(&self, id: TableId) -> Option<TableSnapshot> {
        self.root.tables.get(&id).map(|state| TableSnapshot { state: Arc::clone(state) })
    }

    /// All views with their SQL text, sorted by name.
    pub fn views(&self) -> Vec<(TableName, Arc<str>)> {
        self.root
            .names
            .iter()
            .filter_map(|(name, object)| match object {
                Object::View(sql) => Some((name.clone(), Arc::clone(sql))),
                Object::Table(_) => None,
            })
            .collect()
    }

    /// The SQL text of the view called `name`.
    pub fn view(&self, name: &TableName) -> Option<Arc<str>> {
        match self.root.names.get(name) {
            Some(Object::View(sql)) => Some(Arc::clone(sql)),
            _ => None,
        }
    }
}
