//! The engine's error: a small, prescriptive [`ErrorKind`] to act on, and a message that says
//! what is at fault and what to do.

use std::fmt;

/// Result of an engine operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is wrong as written: fix the argument that the message names.
    InvalidArgument,
    /// A table, column, schema, view or savepoint does not exist.
    NotFound,
    /// A table, schema, view or column of that name exists.
    AlreadyExists,
    /// A row with the same primary key exists.
    DuplicateKey,
    /// A value breaks a constraint of its column (NOT NULL, overflow of its type).
    Constraint,
    /// Another transaction committed a conflicting change first: retry the transaction.
    Conflict,
    /// The operation is not supported.
    Unsupported,
    /// A limit of memory, disk or size was reached.
    ResourceExhausted,
    /// A file is damaged. The message names file and offset.
    Corruption,
    /// The operating system refused a file operation. Nothing was acknowledged.
    Io,
    /// The database does not take writes any more, because an earlier sync failed.
    ReadOnly,
    /// The write may or may not be durable: its sync failed.
    OutcomeUnknown,
    /// The data directory is open in another process.
    Locked,
    /// The engine was closed.
    Closed,
    /// A defect of OmenDB itself.
    Internal,
}

/// What an [`ErrorKind::NotFound`] or [`ErrorKind::AlreadyExists`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ObjectKind {
    /// A table or view.
    Table,
    /// A column.
    Column,
    /// A schema.
    Schema,
}

/// An error of the engine.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    object: Option<ObjectKind>,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `message` is lower case, names what is at fault and what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, object: None, message: message.into(), source: None }))
    }

    /// The same error with the lower-level error that caused it.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Puts `context` and a colon before the message.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    /// The same error about an object of this kind.
    #[must_use]
    pub fn of(mut self, object: ObjectKind) -> Self {
        self.0.object = Some(object);
        self
    }

    /// What it is about, where that was said.
    pub fn object(&self) -> Option<ObjectKind> {
        self.0.object
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message alone.
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident;)*) => {
        impl Error {
            $($(#[$doc])* pub fn $name(message: impl Into<String>) -> Self {
                Self::new(ErrorKind::$kind, message)
            })*
        }
    };
}

constructors! {
    /// [`ErrorKind::InvalidArgument`].
    invalid => InvalidArgument;
    /// [`ErrorKind::NotFound`].
    not_found => NotFound;
    /// [`ErrorKind::AlreadyExists`].
    already_exists => AlreadyExists;
    /// [`ErrorKind::DuplicateKey`].
    duplicate_key => DuplicateKey;
    /// [`ErrorKind::Constraint`].
    constraint => Constraint;
    /// [`ErrorKind::Conflict`].
    conflict => Conflict;
    /// [`ErrorKind::Unsupported`].
    unsupported => Unsupported;
    /// [`ErrorKind::ResourceExhausted`].
    exhausted => ResourceExhausted;
    /// [`ErrorKind::Corruption`].
    corruption => Corruption;
    /// [`ErrorKind::Internal`].
    internal => Internal;
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.0.kind).field("message", &self.0.message);
        if let Some(source) = &self.0.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|s| s as _)
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        let kind = match e.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                ErrorKind::ResourceExhausted
            }
            _ => ErrorKind::Io,
        };
        Self::new(kind, e.to_string()).with_source(e)
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(e: arrow::error::ArrowError) -> Self {
        Self::internal(format!("arrow: {e}")).with_source(e)
    }
}

impl From<parquet::errors::ParquetError> for Error {
    fn from(e: parquet::errors::ParquetError) -> Self {
        Self::corruption(format!("parquet: {e}")).with_source(e)
    }
}
