//! The one table of errors: what can go wrong with a statement, as fine as PostgreSQL's SQLSTATE. Codes of protocols (gRPC
//! status) follow from it in one exhaustive match each.

use super::error::ErrorKind;
use crate::engine::{self, ErrorKind as EngineKind, ObjectKind};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $sqlstate:literal, $kind:expr;)*) => {
        /// What is wrong, with PostgreSQL's name for it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* #[doc = concat!(" SQLSTATE ", $sqlstate, ".")] $name,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The five characters that the SQL standard and PostgreSQL give it.
            pub const fn sqlstate(self) -> &'static str {
                match self {
                    $(Self::$name => $sqlstate,)*
                }
            }

            /// What a client can do about it.
            pub const fn kind(self) -> ErrorKind {
                match self {
                    $(Self::$name => $kind,)*
                }
            }
        }
    };
}

use ErrorKind::{Cancelled, Data, Refused, State, Syntax, TimedOut, Unsupported};

const fn engine(kind: EngineKind) -> ErrorKind {
    ErrorKind::Engine(kind)
}

codes! {
    // 08: the connection
    /// A message breaks the protocol.
    ProtocolViolation = "08P01", engine(EngineKind::InvalidArgument);
    /// Whether a commit is durable is not known: its sync failed.
    TransactionResolutionUnknown = "08007", engine(EngineKind::OutcomeUnknown);
    // 0A
    /// The statement is understood and not supported.
    FeatureNotSupported = "0A000", Unsupported;
    // 21
    /// A subquery that stands for one value returned several rows, or a change would change a row twice.
    CardinalityViolation = "21000", Data;
    // 22: data
    /// A value does not fit where it is used.
    DataException = "22000", Data;
    /// A text is longer than its column.
    StringDataRightTruncation = "22001", Data;
    /// A number is beyond its type.
    NumericValueOutOfRange = "22003", Data;
    /// A NULL where none may be.
    NullValueNotAllowed = "22004", Data;
    /// A text is no date or time.
    InvalidDatetimeFormat = "22007", Data;
    /// A date or time is beyond its type.
    DatetimeFieldOverflow = "22008", Data;
    /// A division by zero.
    DivisionByZero = "22012", Data;
    /// The logarithm of zero or of a negative number.
    InvalidArgumentForLogarithm = "2201E", Data;
    /// A root or power that is no real number.
    InvalidArgumentForPowerFunction = "2201F", Data;
    /// A time zone that does not exist.
    InvalidTimeZoneDisplacementValue = "22009", Data;
    /// ESCAPE is not one character.
    InvalidEscapeCharacter = "22019", Data;
    /// A pattern ends with its escape.
    InvalidEscapeSequence = "22025", Data;
    /// LIMIT is negative.
    InvalidRowCountInLimitClause = "2201W", Data;
    /// OFFSET is negative.
    InvalidRowCountInResultOffsetClause = "2201X", Data;
    /// A regular expression that cannot be read.
    InvalidRegularExpression = "2201B", Data;
    /// An argument, option or parameter has a value that it cannot have.
    InvalidParameterValue = "22023", engine(EngineKind::InvalidArgument);
    /// A text cannot be read as a value of its type.
    InvalidTextRepresentation = "22P02", Data;
    // 23: constraints
    /// NULL for a column that takes none.
    NotNullViolation = "23502", engine(EngineKind::Constraint);
    /// A row with the same key exists.
    UniqueViolation = "23505", engine(EngineKind::DuplicateKey);
    // 25: the transaction's state
    /// The session or its transaction is not in a state for it.
    InvalidTransactionState = "25000", State;
    /// A transaction is open already.
    ActiveSqlTransaction = "25001", State;
    /// There is no transaction.
    NoActiveSqlTransaction = "25P01", State;
    /// The transaction has failed: it can only be rolled back.
    InFailedSqlTransaction = "25P02", State;
    // 26, 28, 34, 3B, 3D, 3F: names of things that come and go
    /// A prepared statement, or what was bound to it, is not there any more.
    InvalidSqlStatementName = "26000", engine(EngineKind::NotFound);
    /// Nobody, or nobody any more, has this name and secret.
    InvalidAuthorization = "28000", Refused;
    /// Rows that were kept are not there any more.
    InvalidCursorName = "34000", engine(EngineKind::NotFound);
    /// A savepoint that does not exist.
    InvalidSavepointSpecification = "3B001", engine(EngineKind::NotFound);
    /// A catalog that does not exist.
    InvalidCatalogName = "3D000", engine(EngineKind::NotFound);
    /// A schema that does not exist.
    InvalidSchemaName = "3F000", engine(EngineKind::NotFound);
    // 40
    /// Another transaction committed a conflicting change first: run the transaction again.
    SerializationFailure = "40001", engine(EngineKind::Conflict);
    // 42: the text
    /// The text is not SQL.
    SyntaxError = "42601", Syntax;
    /// Names or types of the text do not fit together.
    SyntaxErrorOrAccessRuleViolation = "42000", Syntax;
    /// Nobody may do this, or not this one.
    InsufficientPrivilege = "42501", Refused;
    /// A name of the system's own.
    ReservedName = "42939", Refused;
    /// A column that does not exist.
    UndefinedColumn = "42703", engine(EngineKind::NotFound);
    /// A function that does not exist for such arguments.
    UndefinedFunction = "42883", Syntax;
    /// A table or view that does not exist.
    UndefinedTable = "42P01", engine(EngineKind::NotFound);
    /// A parameter that does not exist.
    UndefinedParameter = "42P02", Syntax;
    /// A setting or another object that does not exist.
    UndefinedObject = "42704", engine(EngineKind::NotFound);
    /// A column of that name exists.
    DuplicateColumn = "42701", engine(EngineKind::AlreadyExists);
    /// A table or view of that name exists.
    DuplicateTable = "42P07", engine(EngineKind::AlreadyExists);
    /// A schema of that name exists.
    DuplicateSchema = "42P06", engine(EngineKind::AlreadyExists);
    /// A name stands for several columns.
    AmbiguousColumn = "42702", Syntax;
    /// An expression is neither grouped nor aggregated.
    GroupingError = "42803", Syntax;
    /// Types that cannot stand there.
    DatatypeMismatch = "42804", Syntax;
    /// A view where a table must be, or the other way round.
    WrongObjectType = "42809", Syntax;
    /// What it refers to cannot be referred to there.
    InvalidColumnReference = "42P10", Syntax;
    /// Nothing tells the type of a parameter.
    IndeterminateDatatype = "42P18", Syntax;
    // 53, 54: resources and limits
    /// Memory is short.
    OutOfMemory = "53200", engine(EngineKind::ResourceExhausted);
    /// There are too many connections, statements or loads already.
    TooManyConnections = "53300", engine(EngineKind::ResourceExhausted);
    /// A configured limit is reached.
    ConfigurationLimitExceeded = "53400", engine(EngineKind::ResourceExhausted);
    /// The disk is full, or another resource is used up.
    InsufficientResources = "53000", engine(EngineKind::ResourceExhausted);
    /// The statement is larger or deeper than the limits.
    ProgramLimitExceeded = "54000", engine(EngineKind::ResourceExhausted);
    /// The statement nests too deeply or holds too many parts.
    StatementTooComplex = "54001", engine(EngineKind::ResourceExhausted);
    // 55, 57, 58
    /// What is changed is in use.
    ObjectInUse = "55006", State;
    /// The data directory is open in another process.
    LockNotAvailable = "55P03", engine(EngineKind::Locked);
    /// Somebody stopped the statement.
    QueryCanceled = "57014", Cancelled;
    /// The statement ran out of time.
    StatementTimeout = "57014", TimedOut;
    /// The server is stopping.
    AdminShutdown = "57P01", engine(EngineKind::Closed);
    /// The transaction was begun as READ ONLY.
    ReadOnlySqlTransaction = "25006", State;
    /// The database takes no writes any more.
    ReadOnlyDatabase = "25006", engine(EngineKind::ReadOnly);
    /// The operating system refused a file operation.
    IoError = "58030", engine(EngineKind::Io);
    // XX
    /// A file is damaged.
    DataCorrupted = "XX001", engine(EngineKind::Corruption);
    /// A defect of OmenDB itself.
    InternalError = "XX000", engine(EngineKind::Internal);
}

impl From<ErrorKind> for Code {
    /// The code of what is said of an error in no finer way.
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Syntax => Self::SyntaxErrorOrAccessRuleViolation,
            ErrorKind::Unsupported => Self::FeatureNotSupported,
            ErrorKind::Data => Self::DataException,
            ErrorKind::Refused => Self::InsufficientPrivilege,
            ErrorKind::Cancelled => Self::QueryCanceled,
            ErrorKind::TimedOut => Self::StatementTimeout,
            ErrorKind::State => Self::InvalidTransactionState,
            ErrorKind::Engine(kind) => of_engine(kind, None),
        }
    }
}

impl From<&engine::Error> for Code {
    fn from(e: &engine::Error) -> Self {
        of_engine(e.kind(), e.object())
    }
}

fn of_engine(kind: EngineKind, object: Option<ObjectKind>) -> Code {
    match kind {
        EngineKind::InvalidArgument => Code::InvalidParameterValue,
        EngineKind::NotFound => match object {
            Some(ObjectKind::Column) => Code::UndefinedColumn,
            Some(ObjectKind::Schema) => Code::InvalidSchemaName,
            Some(ObjectKind::Table) => Code::UndefinedTable,
            None => Code::UndefinedObject,
        },
        EngineKind::AlreadyExists => match object {
            Some(ObjectKind::Column) => Code::DuplicateColumn,
            Some(ObjectKind::Schema) => Code::DuplicateSchema,
            Some(ObjectKind::Table) | None => Code::DuplicateTable,
        },
        EngineKind::DuplicateKey => Code::UniqueViolation,
        EngineKind::Constraint => Code::NotNullViolation,
        EngineKind::Conflict => Code::SerializationFailure,
        EngineKind::Unsupported => Code::FeatureNotSupported,
        EngineKind::ResourceExhausted => Code::InsufficientResources,
        EngineKind::Corruption => Code::DataCorrupted,
        EngineKind::Io => Code::IoError,
        EngineKind::ReadOnly => Code::ReadOnlyDatabase,
        EngineKind::OutcomeUnknown => Code::TransactionResolutionUnknown,
        EngineKind::Locked => Code::LockNotAvailable,
        EngineKind::Closed => Code::AdminShutdown,
        EngineKind::Internal => Code::InternalError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_five_characters_of_a_class() {
        for code in Code::ALL {
            let state = code.sqlstate();
            assert_eq!(state.len(), 5, "{code:?}");
            assert!(
                state.bytes().all(|c| c.is_ascii_digit() || c.is_ascii_uppercase()),
                "{code:?}"
            );
        }
    }

    #[test]
    fn an_engine_error_keeps_its_kind() {
        let missing = engine::Error::not_found("no column").of(ObjectKind::Column);
        assert_eq!(Code::from(&missing), Code::UndefinedColumn);
        for kind in [EngineKind::Conflict, EngineKind::Constraint, EngineKind::ReadOnly] {
            assert_eq!(Code::from(ErrorKind::Engine(kind)).kind(), ErrorKind::Engine(kind));
        }
    }
}
