//! Writes GGUF files in constant memory: the header, then tensor after tensor.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::blocks::{Format, Noise};
use super::shapes::{Shape, Spread, Tensor};
use super::tokenizer;

const U32: u32 = 4;
const F32: u32 = 6;
const TEXT: u32 = 8;
const ALIGNMENT: u64 = 32;
/// Bytes that are made and written at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// A text as the format has it.
pub(super) fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// A key with its value's type and bytes.
pub(super) fn pair(key: &str, value_type: u32, value: &[u8]) -> Vec<u8> {
    [&text(key), &value_type.to_le_bytes()[..], value].concat()
}

/// The model's keys, those of a tokenizer among them.
fn keys(shape: &Shape) -> Result<Vec<Vec<u8>>> {
    let own = |key: &str, value_type, value: &[u8]| pair(&format!("{}.{key}", shape.architecture), value_type, value);
    let count = |key: &str, count: u64| own(key, U32, &(count as u32).to_le_bytes());
    let mut keys = vec![
        pair("general.architecture", TEXT, &text(shape.architecture)),
        pair("general.name", TEXT, &text(&format!("{} of noise", shape.name))),
        count("context_length", shape.context),
        count("embedding_length", shape.dim),
        count("block_count", shape.n_layers),
        count("feed_forward_length", shape.ffn_dim),
        count("attention.head_count", shape.n_heads),
        count("attention.head_count_kv", shape.n_kv_heads),
        count("attention.key_length", shape.head_dim),
        count("attention.value_length", shape.head_dim),
        count("rope.dimension_count", shape.head_dim),
        own("rope.freq_base", F32, &shape.rope_base.to_le_bytes()),
        own("attention.layer_norm_rms_epsilon", F32, &shape.norm_eps.to_le_bytes()),
    ];
    if shape.experts.0 > 0 {
        keys.push(count("expert_count", shape.experts.0));
        keys.push(count("expert_used_count", shape.experts.1));
        keys.push(count("expert_feed_forward_length", shape.ffn_dim));
    }
    keys.extend(tokenizer::keys(shape.vocab as usize)?);
    Ok(keys)
}

fn size_bytes(tensor: &Tensor) -> Result<u64> {
    let (weights, bytes) = tensor.format.block();
    let count: u64 = tensor.dims.iter().product();
    if !tensor.dims[0].is_multiple_of(weights) {
        bail!("{}: rows of {} are no whole blocks", tensor.name, tensor.dims[0]);
    }
    Ok(count / weights * bytes)
}

/// Writes the file. It appears under its name only once it is whole.
pub(super) fn write(path: &Path, shape: &Shape) -> Result<()> {
    let (keys, tensors) = (keys(shape)?, shape.tensors());
    let mut header = [&b"GGUF"[..], &3u32.to_le_bytes()].concat();
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend((keys.len() as u64).to_le_bytes());
    header.extend(keys.concat());
    let mut offset = 0;
    for tensor in &tensors {
        header.extend(text(&tensor.name));
        header.extend((tensor.dims.len() as u32).to_le_bytes());
        header.extend(tensor.dims.iter().flat_map(|dim| dim.to_le_bytes()));
        header.extend(tensor.format.gguf_type().to_le_bytes());
        header.extend(u64::to_le_bytes(offset));
        offset += size_bytes(tensor)?.next_multiple_of(ALIGNMENT);
    }
    header.resize(header.len().next_multiple_of(ALIGNMENT as usize), 0);

    let part = path.with_extension("part");
    let failed = || format!("writing {}", part.display());
    let mut file = BufWriter::with_capacity(CHUNK_BYTES, File::create(&part).with_context(failed)?);
    file.write_all(&header).with_context(failed)?;
    let mut chunk = vec![];
    for (seed, tensor) in tensors.iter().enumerate() {
        let size = size_bytes(tensor)?;
        write_tensor(&mut file, shape, tensor, size, seed as u64, &mut chunk).with_context(failed)?;
        let padding = size.next_multiple_of(ALIGNMENT) - size;
        file.write_all(&[0; ALIGNMENT as usize][..padding as usize]).with_context(failed)?;
    }
    file.flush().with_context(failed)?;
    std::fs::rename(&part, path).with_context(|| format!("renaming {}", part.display()))
}

fn write_tensor(
    file: &mut impl Write,
    shape: &Shape,
    tensor: &Tensor,
    size: u64,
    seed: u64,
    chunk: &mut Vec<u8>,
) -> std::io::Result<()> {
    let mut noise = Noise::new(seed + 1);
    let floats = |numbers: &mut dyn Iterator<Item = f32>| numbers.flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
    let count: u64 = tensor.dims.iter().product();
    match (tensor.spread, tensor.format) {
        (Spread::RopeFactors, _) => file.write_all(&floats(&mut shape.rope_factors().into_iter())),
        (Spread::One, _) => file.write_all(&floats(&mut (0..count).map(|_| 1.0 + 0.1 * noise.unit()))),
        (Spread::Zero(spread), Format::F32) => {
            // Even noise between -1 and 1 has a deviation of 1 / sqrt(3).
            file.write_all(&floats(&mut (0..count).map(|_| 3f32.sqrt() * spread * noise.unit())))
        }
        (Spread::Zero(spread), format) => {
            let block = format.block().1 as usize;
            let mut left = size as usize;
            while left > 0 {
                chunk.resize(left.min(CHUNK_BYTES / block * block), 0);
                noise.blocks(format, spread, chunk);
                file.write_all(chunk)?;
                left -= chunk.len();
            }
            Ok(())
        }
    }
}
