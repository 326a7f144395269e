//! Pages of keys and values on their way to the host and back.

use super::super::readback::Pending;
use super::Gpu;
use crate::error::Result;
use crate::graph::{PAGE_TOKENS, check_page};

impl Gpu {
    /// Where the first `positions` of a page lie: buffer, offset and bytes, keys and values of each layer.
    pub(super) fn page_parts(&self, page: u32, positions: usize) -> impl Iterator<Item = (&wgpu::Buffer, u64, u64)> {
        self.shared.kv.iter().zip(&self.graph.kv_widths).flat_map(move |(layer, widths)| {
            let bytes = |dim: usize, positions: usize| (widths.heads * self.kv.head_words(dim) * positions * 4) as u64;
            let keys = u64::from(page) * (PAGE_TOKENS * widths.position_bytes(self.kv)) as u64;
            let values = keys + bytes(widths.key_dim, PAGE_TOKENS);
            let parts =
                [(layer, keys, bytes(widths.key_dim, positions)), (layer, values, bytes(widths.value_dim, positions))];
            parts.into_iter().filter(|(.., size)| *size > 0)
        })
    }

    /// Reads the first `positions` of a page back.
    pub(super) async fn page_bytes(&self, page: u32, positions: usize) -> Result<Vec<u8>> {
        self.device.check()?;
        check_page(page, positions, self.n_pages)?;
        let position_bytes: usize = self.graph.kv_widths.iter().map(|widths| widths.position_bytes(self.kv)).sum();
        let size_bytes = (positions * position_bytes) as u64;
        if size_bytes == 0 {
            return Ok(vec![]);
        }
        let buffer = {
            use wgpu::BufferUsages as U;
            let mut kept = self.page_readback.borrow_mut();
            let whole = (PAGE_TOKENS * position_bytes) as u64;
            kept.get_or_insert_with(|| self.device.buffer("page", whole, U::MAP_READ | U::COPY_DST)).clone()
        };
        let mut encoder = self.device.encoder();
        let mut to = 0;
        for (layer, at, size) in self.page_parts(page, positions) {
            encoder.copy_buffer_to_buffer(layer, at, &buffer, to, size);
            to += size;
        }
        let submission = self.device.submit(encoder);
        let words = Pending::new(&buffer, size_bytes, submission).words(&self.device).await?;
        Ok(bytemuck::cast_slice(&words).to_vec())
    }
}
