//! Real keys, in files that `run` fetches. What is not there is left out by name.

use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, Int64Array};
use arrow::datatypes::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

type Keys = Result<Vec<u64>, String>;

/// A set of real keys.
pub struct Real {
    pub name: &'static str,
    file: &'static str,
    read: fn(&Path) -> Keys,
}

pub const REAL: &[Real] = &[
    Real { name: "geoip", file: "geoip-city.dat", read: geoip },
    Real { name: "flights", file: "flights-3m.parquet", read: flights },
];

impl Real {
    /// The keys, ascending, or why there are none.
    pub fn keys(&self) -> Keys {
        let path = cache()?.join(self.file);
        if !path.exists() {
            return Err(format!("{} is missing", self.file));
        }
        (self.read)(&path)
    }
}

/// Where `run` puts what it fetches.
pub fn cache() -> Result<PathBuf, String> {
    std::env::var_os("OMENDB_PEERS_CACHE")
        .map(PathBuf::from)
        .ok_or_else(|| "OMENDB_PEERS_CACHE is not set: start it by benches/peers/run".to_owned())
}

/// First addresses of the ranges of IPv4: records of 24 bytes that begin with them, big endian.
fn geoip(path: &Path) -> Keys {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let first = |record: &[u8]| {
        record.first_chunk::<4>().map_or(0, |four| u64::from(u32::from_be_bytes(*four)))
    };
    let keys: Vec<u64> = bytes.chunks_exact(24).map(first).collect();
    if keys.is_sorted() { Ok(keys) } else { Err(format!("{}: not ascending", path.display())) }
}

/// Minutes of the flights' departures, in the file's own unit. Many repeat.
fn flights(path: &Path) -> Keys {
    let fail = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let file = std::fs::File::open(path).map_err(|e| fail(&e))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| fail(&e))?;
    let is_time = |t: &DataType| matches!(t, DataType::Timestamp(..) | DataType::Date64);
    let column = builder
        .schema()
        .fields()
        .iter()
        .position(|f| is_time(f.data_type()))
        .ok_or_else(|| fail(&format!("no column of times in {:?}", builder.schema())))?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), [column]);
    let reader = builder.with_projection(mask).build().map_err(|e| fail(&e))?;
    let mut keys = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|e| fail(&e))?;
        let times: ArrayRef = arrow::array::make_array(
            batch
                .column(0)
                .to_data()
                .into_builder()
                .data_type(DataType::Int64)
                .build()
                .map_err(|e| fail(&e))?,
        );
        let times = times.as_any().downcast_ref::<Int64Array>().ok_or_else(|| fail(&"no times"))?;
        keys.extend(times.iter().flatten().map(|t| t as u64));
    }
    keys.sort_unstable();
    Ok(keys)
}
