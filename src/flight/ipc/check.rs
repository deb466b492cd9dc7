//! What must hold of an Arrow IPC message before arrow may decode it. Walks the buffers in the order in which
//! arrow-ipc reads them.

use arrow::datatypes::{DataType, Field, Schema, UnionMode};
use arrow::ipc;
use arrow::ipc::{CompressionType, MetadataVersion};
use tonic::Status;

use super::{MAX_DEPTH, MAX_FIELDS, bad, too_large};

/// Rows that a batch may claim whatever its size: columns of nulls or of runs take no bytes a row.
const FREE_ROWS: u64 = 1 << 24;

/// Checks the size of a schema's tree of fields.
pub(super) fn schema(schema: ipc::Schema<'_>) -> Result<(), Status> {
    let mut count = 0;
    for field in schema.fields().into_iter().flatten() {
        fields(field, 1, &mut count)?;
    }
    Ok(())
}

fn fields(field: ipc::Field<'_>, depth: usize, count: &mut usize) -> Result<(), Status> {
    *count += 1;
    if *count > MAX_FIELDS {
        return Err(bad(format!("the schema has more than {MAX_FIELDS} fields")));
    }
    if depth > MAX_DEPTH {
        return Err(bad(format!("the schema nests fields more than {MAX_DEPTH} deep")));
    }
    for child in field.children().into_iter().flatten() {
        fields(child, depth + 1, count)?;
    }
    Ok(())
}

/// Checks a record batch; the bytes of its buffers when they are uncompressed.
pub(super) fn batch(
    batch: ipc::RecordBatch<'_>,
    schema: &Schema,
    version: MetadataVersion,
    body: &[u8],
    limit: u64,
) -> Result<u64, Status> {
    let mut walk = Walk::new(batch, version, body, limit)?;
    for field in schema.fields() {
        let rows = walk.field(field)?;
        if rows != walk.row_count {
            return Err(bad(format!(
                "column \"{}\" has {rows} rows in a batch of {}",
                field.name(),
                walk.row_count
            )));
        }
    }
    walk.finish()
}

/// Checks a dictionary batch; the bytes of its buffers when they are uncompressed.
pub(super) fn dictionary(
    dictionary: ipc::DictionaryBatch<'_>,
    schema: &Schema,
    version: MetadataVersion,
    body: &[u8],
    limit: u64,
) -> Result<u64, Status> {
    let id = dictionary.id();
    #[allow(deprecated)] // the id is all that a message has
    let users = schema.fields_with_dict_id(id);
    let Some(DataType::Dictionary(_, value_type)) = users.first().map(|f| f.data_type()) else {
        return Err(bad(format!("the schema names no dictionary {id}")));
    };
    let data = dictionary.data().ok_or_else(|| bad(format!("dictionary {id} is empty")))?;
    let mut walk = Walk::new(data, version, body, limit)?;
    walk.field(&Field::new("dictionary", value_type.as_ref().clone(), true))?;
    walk.finish()
}

struct Walk<'a> {
    batch: ipc::RecordBatch<'a>,
    version: MetadataVersion,
    body: &'a [u8],
    limit: u64,
    total: u64,
    row_count: u64,
    node: usize,
    buffer: usize,
    variadic: usize,
    longest: u64,
}

impl<'a> Walk<'a> {
    fn new(
        batch: ipc::RecordBatch<'a>,
        version: MetadataVersion,
        body: &'a [u8],
        limit: u64,
    ) -> Result<Self, Status> {
        let row_count = u64::try_from(batch.length())
            .map_err(|_| bad("the batch has a negative number of rows"))?;
        Ok(Self {
            batch,
            version,
            body,
            limit,
            total: 0,
            row_count,
            node: 0,
            buffer: 0,
            variadic: 0,
            longest: row_count,
        })
    }

    /// Checks what is known only at the end.
    fn finish(self) -> Result<u64, Status> {
        if self.longest > FREE_ROWS.max(self.total.saturating_mul(8)) {
            return Err(bad(format!(
                "the batch claims {} rows in {} bytes",
                self.longest, self.total
            )));
        }
        if self.variadic != self.batch.variadicBufferCounts().map_or(0, |c| c.len()) {
            return Err(bad(
                "the batch counts more view buffers than its schema has columns of views",
            ));
        }
        Ok(self.total)
    }

    /// Checks one field, and says how many rows it has.
    fn field(&mut self, field: &Field) -> Result<u64, Status> {
        let (rows, nulls) = self.next_node(field)?;
        let short = |what: &str, need: u64, have: u64| {
            bad(format!(
                "column \"{}\": its {what} for {rows} rows need {need} bytes and have {have}",
                field.name()
            ))
        };
        let bitmap = |walk: &mut Self| -> Result<(), Status> {
            let have = walk.next_buffer(field)?;
            let need = rows.div_ceil(8);
            if nulls > 0 && have < need { Err(short("null bits", need, have)) } else { Ok(()) }
        };
        let fixed = |walk: &mut Self, what: &str, need: Option<u64>| -> Result<(), Status> {
            let have = walk.next_buffer(field)?;
            let need =
                need.ok_or_else(|| bad(format!("column \"{}\" is too long", field.name())))?;
            if have < need { Err(short(what, need, have)) } else { Ok(()) }
        };
        // No rows: the offsets may be left out.
        let offsets = |width: u64| if rows == 0 { Some(0) } else { (rows + 1).checked_mul(width) };
        match field.data_type() {
            DataType::Null => {}
            DataType::Utf8 | DataType::Binary => {
                bitmap(self)?;
                fixed(self, "offsets", offsets(4))?;
                self.next_buffer(field)?;
            }
            DataType::LargeUtf8 | DataType::LargeBinary => {
                bitmap(self)?;
                fixed(self, "offsets", offsets(8))?;
                self.next_buffer(field)?;
            }
            DataType::Utf8View | DataType::BinaryView => {
                bitmap(self)?;
                fixed(self, "views", rows.checked_mul(16))?;
                for _ in 0..self.next_variadic(field)? {
                    self.next_buffer(field)?;
                }
            }
            DataType::Boolean => {
                bitmap(self)?;
                fixed(self, "values", Some(rows.div_ceil(8)))?;
            }
            DataType::FixedSizeBinary(width) => {
                let width = self.size(field, *width)?;
                bitmap(self)?;
                fixed(self, "values", rows.checked_mul(width))?;
            }
            DataType::List(child) | DataType::Map(child, _) => {
                bitmap(self)?;
                fixed(self, "offsets", offsets(4))?;
                self.field(child)?;
            }
            DataType::LargeList(child) => {
                bitmap(self)?;
                fixed(self, "offsets", offsets(8))?;
                self.field(child)?;
            }
            DataType::ListView(child) | DataType::LargeListView(child) => {
                let width = if matches!(field.data_type(), DataType::ListView(_)) { 4 } else { 8 };
                bitmap(self)?;
                fixed(self, "offsets", rows.checked_mul(width))?;
                fixed(self, "sizes", rows.checked_mul(width))?;
                self.field(child)?;
            }
            DataType::FixedSizeList(child, size) => {
                let size = self.size(field, *size)?;
                bitmap(self)?;
                let have = self.field(child)?;
                if rows.checked_mul(size).is_none_or(|need| have < need) {
                    return Err(bad(format!(
                        "column \"{}\": its lists are cut short",
                        field.name()
                    )));
                }
            }
            DataType::Struct(children) => {
                bitmap(self)?;
                for child in children {
                    if self.field(child)? < rows {
                        return Err(bad(format!(
                            "column \"{}\": its field \"{}\" is cut short",
                            field.name(),
                            child.name()
                        )));
                    }
                }
            }
            DataType::RunEndEncoded(run_ends, values) => {
                self.field(run_ends)?;
                self.field(values)?;
            }
            DataType::Dictionary(key, _) => {
                bitmap(self)?;
                let width = key.primitive_width().unwrap_or(8) as u64;
                fixed(self, "dictionary keys", rows.checked_mul(width))?;
            }
            DataType::Union(children, mode) => {
                if self.version < MetadataVersion::V5 {
                    self.next_buffer(field)?;
                }
                fixed(self, "type ids", Some(rows))?;
                if *mode == UnionMode::Dense {
                    fixed(self, "offsets", rows.checked_mul(4))?;
                }
                for (_, child) in children.iter() {
                    self.field(child)?;
                }
            }
            other => {
                let width = other.primitive_width().ok_or_else(|| {
                    bad(format!("column \"{}\": type {other} is not understood", field.name()))
                })?;
                bitmap(self)?;
                fixed(self, "values", rows.checked_mul(width as u64))?;
            }
        }
        Ok(rows)
    }

    fn size(&self, field: &Field, size: i32) -> Result<u64, Status> {
        u64::try_from(size)
            .map_err(|_| bad(format!("column \"{}\" has a negative size", field.name())))
    }

    fn next_node(&mut self, field: &Field) -> Result<(u64, u64), Status> {
        let nodes = self.batch.nodes().filter(|nodes| self.node < nodes.len());
        let node = nodes
            .ok_or_else(|| bad(format!("column \"{}\" is missing in the batch", field.name())))?
            .get(self.node);
        self.node += 1;
        let rows = u64::try_from(node.length());
        let nulls = u64::try_from(node.null_count());
        let (Ok(rows), Ok(nulls)) = (rows, nulls) else {
            return Err(bad(format!("column \"{}\" has a negative length", field.name())));
        };
        if nulls > rows {
            return Err(bad(format!("column \"{}\" has more nulls than rows", field.name())));
        }
        self.longest = self.longest.max(rows);
        Ok((rows, nulls))
    }

    fn next_variadic(&mut self, field: &Field) -> Result<i64, Status> {
        let counts = self.batch.variadicBufferCounts().filter(|c| self.variadic < c.len());
        let count = counts
            .ok_or_else(|| bad(format!("column \"{}\" lacks a count of buffers", field.name())))?
            .get(self.variadic);
        self.variadic += 1;
        let left = self.batch.buffers().map_or(0, |b| b.len()).saturating_sub(self.buffer);
        if count < 0 || count as u64 > left as u64 {
            return Err(bad(format!("column \"{}\" claims {count} buffers", field.name())));
        }
        Ok(count)
    }

    /// Checks the next buffer's place in the body, and says how long it is when uncompressed.
    fn next_buffer(&mut self, field: &Field) -> Result<u64, Status> {
        let buffers = self.batch.buffers().filter(|buffers| self.buffer < buffers.len());
        let buffer = buffers
            .ok_or_else(|| bad(format!("column \"{}\" lacks a buffer", field.name())))?
            .get(self.buffer);
        self.buffer += 1;
        let range = usize::try_from(buffer.offset())
            .ok()
            .zip(usize::try_from(buffer.length()).ok())
            .and_then(|(start, length)| Some(start..start.checked_add(length)?));
        let data = range.and_then(|range| self.body.get(range)).ok_or_else(|| {
            bad(format!(
                "column \"{}\": a buffer of {} bytes at {} lies outside the body of {} bytes",
                field.name(),
                buffer.length(),
                buffer.offset(),
                self.body.len()
            ))
        })?;
        let length = match self.batch.compression() {
            Some(compression) if !data.is_empty() => self.uncompressed(field, compression, data)?,
            _ => data.len() as u64,
        };
        // Buffers may overlap, and each may be copied: what counts is their sum.
        self.total = self.total.saturating_add(length);
        if self.total > self.limit {
            return Err(too_large(self.total, self.limit));
        }
        Ok(length)
    }

    /// How long a compressed buffer claims to be; checks that it cannot become longer.
    fn uncompressed(
        &self,
        field: &Field,
        compression: ipc::BodyCompression<'_>,
        data: &[u8],
    ) -> Result<u64, Status> {
        let malformed =
            || bad(format!("column \"{}\": a compressed buffer is malformed", field.name()));
        let (prefix, data) = data.split_first_chunk::<8>().ok_or_else(malformed)?;
        match i64::from_le_bytes(*prefix) {
            -1 => Ok(data.len() as u64),
            0 => Ok(0),
            claimed if claimed < 0 => Err(malformed()),
            claimed if claimed as u64 > self.limit => Err(too_large(claimed as u64, self.limit)),
            claimed => match compression.codec() {
                // arrow-ipc reads a frame to its end, whatever length was claimed.
                CompressionType::LZ4_FRAME => {
                    let bound = lz4_bound(data).ok_or_else(malformed)?;
                    let slack = bound.saturating_sub(claimed as u64);
                    // The last block may be shorter than blocks can be, and so may flushed ones.
                    if slack > self.limit {
                        return Err(too_large(bound, self.limit));
                    }
                    Ok(claimed as u64)
                }
                // The decompressor gets a buffer of the claimed length and stops there.
                CompressionType::ZSTD => Ok(claimed as u64),
                other => Err(bad(format!("compression {other:?} is not understood"))),
            },
        }
    }
}

/// The bytes that an LZ4 frame can hold at most, from the headers of its blocks. `None` where it is not one whole frame.
fn lz4_bound(data: &[u8]) -> Option<u64> {
    const MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
    let rest = data.strip_prefix(&MAGIC)?;
    let [flags, block, ..] = *rest else { return None };
    let block_bytes: u64 = match (block >> 4) & 7 {
        4 => 64 << 10,
        5 => 256 << 10,
        6 => 1 << 20,
        7 => 4 << 20,
        _ => return None,
    };
    let content_size = if flags & 0x08 != 0 { 8 } else { 0 };
    let dictionary_id = if flags & 0x01 != 0 { 4 } else { 0 };
    let block_checksum = if flags & 0x10 != 0 { 4 } else { 0 };
    let mut rest = rest.get(2 + content_size + dictionary_id + 1..)?;
    let mut bound = 0_u64;
    loop {
        let (size, after) = rest.split_first_chunk::<4>()?;
        let size = u32::from_le_bytes(*size);
        if size == 0 {
            let checksum = if flags & 0x04 != 0 { 4 } else { 0 };
            return (after.len() == checksum).then_some(bound);
        }
        let stored = size >> 31 == 1;
        let size = (size & 0x7FFF_FFFF) as usize;
        // One byte of a block stands for at most 255 bytes.
        let most = if stored { size as u64 } else { block_bytes.min(size as u64 * 255) };
        bound = bound.saturating_add(most);
        rest = after.get(size.checked_add(block_checksum)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_of_a_frame_counts_its_blocks() {
        // Two blocks of 64 KiB at most: one stored of 3 bytes, one compressed of 1000.
        let mut frame = 0x184D_2204_u32.to_le_bytes().to_vec();
        frame.extend([0x60, 0x40, 0x82]);
        frame.extend((3_u32 | 1 << 31).to_le_bytes());
        frame.extend([1, 2, 3]);
        frame.extend(1000_u32.to_le_bytes());
        frame.extend([0; 1000]);
        assert_eq!(lz4_bound(&frame), None, "no end mark");
        frame.extend([0; 4]);
        assert_eq!(lz4_bound(&frame), Some(3 + (64 << 10)));
        frame.push(0);
        assert_eq!(lz4_bound(&frame), None, "bytes after the end");
    }
}
