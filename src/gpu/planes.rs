//! Matrices on the device: planes by shards of rows, and the repacking of raw blocks into them as they are read.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::device::{Device, whole};
use super::shader::{repack_source, rounds};
use super::stage::Matrix;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::WeightId;
use crate::kernel::{ShardRows, Use, padded, word};
use crate::quant::{Format, FormatId, Shared};

/// Rows of a shard are a multiple of this, so that no two shards share a word of any plane.
const SHARD_ROWS: usize = Shared::LARGEST_WINDOW;

struct Shard {
    rows: ShardRows,
    planes: [wgpu::Buffer; 2],
    group: wgpu::BindGroup,
}

struct Planes {
    matrix: Matrix,
    shards: Vec<Shard>,
}

/// All matrices of a model, or of an adapter.
pub(super) struct Matrices {
    planes: Vec<Planes>,
    /// For each weight its matrix and its part in it.
    homes: BTreeMap<WeightId, (usize, usize)>,
    repacker: Rc<Repacker>,
}

/// The matrices of a model and, after them, those of an adapter.
#[derive(Clone, Copy)]
pub(super) struct Bank<'a> {
    pub(super) model: &'a Matrices,
    pub(super) adapter: Option<&'a Matrices>,
}

impl<'a> Bank<'a> {
    /// Columns and rows of the shards of every matrix.
    pub(super) fn shapes(&self) -> Vec<(usize, Vec<ShardRows>)> {
        let shape = |planes: &Planes| (planes.matrix.cols, planes.shards.iter().map(|shard| shard.rows).collect());
        let further = self.adapter.iter().flat_map(|adapter| &adapter.planes);
        self.model.planes.iter().chain(further).map(shape).collect()
    }

    /// Columns of each matrix whose format is multiplied by integers.
    pub(super) fn rounded(&self) -> Vec<Option<usize>> {
        let cols = |planes: &Planes| rounds(planes.matrix.format).then_some(planes.matrix.cols);
        let further = self.adapter.iter().flat_map(|adapter| &adapter.planes);
        self.model.planes.iter().chain(further).map(cols).collect()
    }

    /// The format of a matrix, rows and columns of one of its shards, and that shard's bind group.
    pub(super) fn shard(&self, matrix: usize, shard: usize) -> Result<(FormatId, [usize; 2], &'a wgpu::BindGroup)> {
        let model = &self.model.planes;
        let further = self.adapter.and_then(|adapter| adapter.planes.get(matrix.checked_sub(model.len())?));
        let planes = model.get(matrix).or(further);
        let found = planes.and_then(|planes| {
            let shard = planes.shards.get(shard)?;
            Some((planes.matrix.format, [shard.rows.rows, planes.matrix.cols], &shard.group))
        });
        found.ok_or_else(|| Error::new(ErrorKind::Internal, "a launch names a shard that does not exist"))
    }
}

/// What fills planes.
struct Repacker {
    device: Device,
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
    params: wgpu::Buffer,
    staging: wgpu::Buffer,
    staging_bytes: u64,
}

/// Browsers free a buffer that is let go of some time later; a load that failed should not keep the device full till then.
impl Drop for Matrices {
    fn drop(&mut self) {
        self.destroy();
    }
}

impl Matrices {
    /// Makes the planes of all matrices (zeros) and what fills them. `layout` is that of bind group 0.
    pub(super) async fn new(device: &Device, matrices: Vec<Matrix>, layout: &wgpu::BindGroupLayout) -> Result<Self> {
        let widest = matrices.iter().filter_map(|matrix| matrix.format.row_bytes(matrix.cols)).max();
        let repacker = Rc::new(Repacker::new(device, widest.unwrap_or(0)));
        Self::filled_by(repacker, matrices, layout).await
    }

    /// Makes the planes of further matrices, filled by the same means.
    pub(super) async fn beside(&self, matrices: Vec<Matrix>, layout: &wgpu::BindGroupLayout) -> Result<Self> {
        Self::filled_by(Rc::clone(&self.repacker), matrices, layout).await
    }

    async fn filled_by(repacker: Rc<Repacker>, matrices: Vec<Matrix>, layout: &wgpu::BindGroupLayout) -> Result<Self> {
        let device = &repacker.device;
        let limit = device.max_binding_bytes();
        let mut homes = BTreeMap::new();
        let mut planes = vec![];
        let mut tables = BTreeMap::new();
        for matrix in matrices {
            let label = format!("matrix {}", planes.len());
            let format = matrix.format.format();
            let row_bytes = first_plane_row_bytes(format, matrix.cols) as u64;
            let table = tables.entry(matrix.format).or_insert_with(|| table(device, format));
            let mut shards = vec![];
            for rows in shard_rows(matrix.rows, row_bytes, limit)? {
                let wanted = plane_bytes(format, rows.rows, matrix.cols);
                let buffers = device
                    .guarded(wanted[0] + wanted[1], || Ok(wanted.map(|bytes| device.storage(&label, bytes))))
                    .await?;
                // Formats without a table do not look at binding 2.
                let table = table.as_ref().unwrap_or(&buffers[0]);
                let group = device.bind(&label, layout, &[&buffers[0], &buffers[1], table].map(whole));
                shards.push(Shard { rows, planes: buffers, group });
            }
            for (part, home) in matrix.parts.iter().enumerate() {
                homes.insert(home.weight, (planes.len(), part));
            }
            planes.push(Planes { matrix, shards });
        }
        Ok(Self { planes, homes, repacker })
    }

    /// The matrices.
    pub(super) fn list(&self) -> impl Iterator<Item = &Matrix> {
        self.planes.iter().map(|planes| &planes.matrix)
    }

    /// Frees the planes without waiting for anybody else who holds them.
    pub(super) fn destroy(&self) {
        let shards = self.planes.iter().flat_map(|planes| &planes.shards);
        shards.flat_map(|shard| &shard.planes).for_each(wgpu::Buffer::destroy);
    }

    /// Repacks whole rows of a weight, `first_row` on, into its planes.
    pub(super) fn rows(&self, weight: WeightId, first_row: usize, bytes: &[u8]) -> Result<()> {
        let Some(&(index, part)) = self.homes.get(&weight) else {
            return Err(Error::new(ErrorKind::Internal, "a weight that no matrix holds"));
        };
        let matrix = &self.planes[index].matrix;
        let part = matrix.parts[part];
        let row_bytes = matrix.format.row_bytes(matrix.cols).unwrap_or(0);
        if row_bytes == 0 || !bytes.len().is_multiple_of(row_bytes) {
            return Err(Error::new(ErrorKind::Internal, "weights did not arrive in whole rows"));
        }
        let place = |row: usize| part.first_row + row * part.row_step;
        matrix.format.format().check_shared((place(first_row), part.row_step), row_bytes, bytes)?;
        let rows = bytes.len() / row_bytes;
        let most = (self.repacker.staging_bytes as usize / row_bytes).max(1);
        for shard in &self.planes[index].shards {
            // Source rows whose place, first_row + r * row_step, lies in this shard.
            let begin = shard.rows.first.saturating_sub(part.first_row).div_ceil(part.row_step);
            let end = (shard.rows.first + shard.rows.rows).saturating_sub(part.first_row).div_ceil(part.row_step);
            let (mut row, end) = (begin.max(first_row), end.min(first_row + rows));
            while row < end {
                let count = most.min(end - row);
                let from = (row - first_row) * row_bytes;
                let piece = bytes.get(from..from + count * row_bytes).unwrap_or_default();
                self.repacker.repack(matrix, shard, piece, count, place(row) - shard.rows.first, part.row_step);
                row += count;
            }
        }
        Ok(())
    }
}

impl Repacker {
    /// Makes room for rows of `widest_row` bytes at least.
    fn new(device: &Device, widest_row: usize) -> Self {
        let layout = device.layout(&[Use::Uniform, Use::Read, Use::Write, Use::Write]);
        use wgpu::BufferUsages as U;
        let staging_bytes = staging_bytes(widest_row);
        Self {
            device: device.clone(),
            pipeline: device.pipeline("repack", repack_source(), &[Some(&layout)], &[]),
            layout,
            params: device.buffer("repack params", 48, U::UNIFORM | U::COPY_DST),
            staging: device.storage("upload", staging_bytes),
            staging_bytes,
        }
    }

    fn repack(&self, matrix: &Matrix, shard: &Shard, piece: &[u8], rows: usize, first_row: usize, row_step: usize) {
        let format = matrix.format.format();
        // What is all in plane 0 is copied by the word, whatever its blocks are.
        let (block_bytes, first) = match format.plane_bytes() {
            [_, 0] => (4, 0..4),
            _ => (format.block_bytes, format.planes.first.clone()),
        };
        let blocks_per_row = first_plane_row_bytes(format, matrix.cols) / first.len();
        let (span, row_bytes) = (format.planes.nibble_span, piece.len() / rows);
        let shared = format.planes.shared;
        let shared_blocks = if shared.blocks == 0 { blocks_per_row } else { shared.blocks };
        let mut params = vec![blocks_per_row, rows, first_row, row_step, block_bytes, first.start, first.len(), span];
        params.extend([row_bytes, usize::from(shared.rows), shared_blocks, usize::from(shared.runs)]);
        let params: Vec<u32> = params.into_iter().map(word).collect();
        self.device.write(&self.params, 0, bytemuck::cast_slice(&params));
        let whole_words = piece.len() / 4 * 4;
        self.device.write(&self.staging, 0, &piece[..whole_words]);
        if whole_words < piece.len() {
            let mut last = [0u8; 4];
            last[..piece.len() - whole_words].copy_from_slice(&piece[whole_words..]);
            self.device.write(&self.staging, whole_words as u64, &last);
        }
        let buffers = [&self.params, &self.staging, &shard.planes[0], &shard.planes[1]].map(whole);
        let group = self.device.bind("repack", &self.layout, &buffers);
        let mut encoder = self.device.encoder();
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&self.pipeline);
            pass.set_bind_group(0, &group, &[]);
            let (x, y) = crate::kernel::fold((rows * blocks_per_row).div_ceil(64));
            pass.dispatch_workgroups(x, y, 1);
        }
        self.device.submit(encoder);
    }
}

/// Bytes of the buffer that rows are uploaded through.
pub(super) fn staging_bytes(widest_row: usize) -> u64 {
    (8u64 << 20).max(widest_row as u64).next_multiple_of(16)
}

/// Bytes that a row takes in plane 0. Only rows of single floats need not be whole groups of columns.
pub(super) fn first_plane_row_bytes(format: &Format, cols: usize) -> usize {
    padded(cols) / format.block_weights * format.plane_bytes()[0]
}

/// Bytes of both planes of a matrix or a shard of it.
pub(super) fn plane_bytes(format: &Format, rows: usize, cols: usize) -> [u64; 2] {
    let second = format.second_plane_bytes(rows, padded(cols) / format.block_weights);
    [first_plane_row_bytes(format, cols) * rows, second].map(|bytes| bytes as u64)
}

/// The numbers that all blocks of a format share, where it has such.
fn table(device: &Device, format: &Format) -> Option<wgpu::Buffer> {
    let numbers: &[u8] = bytemuck::cast_slice(format.planes.table);
    (!numbers.is_empty()).then(|| {
        let buffer = device.storage(format.name, numbers.len() as u64);
        device.write(&buffer, 0, numbers);
        buffer
    })
}

/// Rows by shards of at most `limit` bytes of the first plane.
fn shard_rows(rows: usize, row_bytes: u64, limit: u64) -> Result<Vec<ShardRows>> {
    let most = usize::try_from(limit / row_bytes.max(1)).unwrap_or(usize::MAX) / SHARD_ROWS * SHARD_ROWS;
    if most == 0 {
        let words = format!("a row of {row_bytes} bytes is larger than this device binds ({limit} bytes)");
        return Err(Error::new(ErrorKind::GpuFeatureMissing, words));
    }
    Ok((0..rows).step_by(most).map(|first| ShardRows { first, rows: most.min(rows - first) }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_are_no_larger_than_the_files_tensors_and_two_percent() {
        // (512, 1024) of each kind, and the bytes that its tensors have in a file.
        let (rows, cols) = (512usize, 1024usize);
        let group = |bits: usize, group: usize, extra: f64| {
            (rows * cols * bits / 8) as f64 + (rows * cols / group) as f64 * extra
        };
        for (id, format) in crate::quant::FORMATS {
            let name = format.name;
            let width = |name: &str| -> usize {
                let digits = name.split("_g").nth(1).unwrap_or("0").split('_').next().unwrap_or("0");
                digits.parse().unwrap_or(0)
            };
            let file = match name.split('_').next().unwrap_or_default() {
                "affine4" => group(4, width(name), 4.0),
                "affine8" => group(8, width(name), 4.0),
                "nf4" if name.contains("nested") => group(4, 64, 1.0) + group(0, 64 * 256, 4.0),
                "zero4" if name.ends_with("row") => (rows * cols / 2) as f64 + 2.5 * rows as f64,
                "zero8" if name.ends_with("row") => (rows * cols) as f64 + 3.0 * rows as f64,
                "zero4" => group(4, width(name), 2.5),
                "zero8" => group(8, width(name), 3.0),
                "f8" if name.ends_with("row") => (rows * cols + 4 * rows) as f64,
                "f8" => (rows * cols + 4 * rows / 128 * cols / 128) as f64,
                _ => id.row_bytes(cols).unwrap_or(0) as f64 * rows as f64,
            };
            let planes = plane_bytes(format, rows, cols).iter().sum::<u64>() as f64;
            assert!(planes <= 1.02 * file, "{name}: {planes} bytes, {file} in the file");
        }
    }

    /// Every tensor of bitsandbytes has a code for 64 weights and a scale for 256 codes, whatever its width.
    #[test]
    fn nested_magnitudes_take_two_percent_at_most_at_every_width() {
        let format = FormatId::Nf4Nested.format();
        for rows in [64, 96, 512, 4096] {
            for cols in (64_usize..=16384).step_by(64) {
                let file = rows * cols / 2 + rows * cols / 64 + (rows * cols).div_ceil(16384) * 4;
                let planes = plane_bytes(format, rows, cols).iter().sum::<u64>();
                assert!(planes as f64 <= 1.02 * file as f64, "{rows} x {cols}: {planes} bytes, {file} in the file");
            }
        }
    }

    #[test]
    fn shards_cover_all_rows_once() -> Result<()> {
        for (rows, row_bytes, limit) in [(1, 16, 1024), (100, 16, 1024), (4097, 4096, 1 << 20), (64, 16, 1024)] {
            let shards = shard_rows(rows, row_bytes, limit)?;
            let mut next = 0;
            for shard in &shards {
                assert_eq!(shard.first, next);
                assert!(shard.rows as u64 * row_bytes <= limit);
                next += shard.rows;
            }
            assert_eq!(next, rows);
        }
        assert!(shard_rows(1, 4096, 4096).is_err());
        Ok(())
    }
}
