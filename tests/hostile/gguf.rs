//! Writes GGUF files, right and wrong.

/// Value types of the format.
pub(crate) const U8: u32 = 0;
pub(crate) const U32: u32 = 4;
pub(crate) const I32: u32 = 5;
pub(crate) const F32: u32 = 6;
pub(crate) const BOOL: u32 = 7;
pub(crate) const TEXT: u32 = 8;
pub(crate) const ARRAY: u32 = 9;
pub(crate) const U64: u32 = 10;

/// Tensor types of ggml.
pub(crate) const T_F32: u32 = 0;
pub(crate) const T_Q8_0: u32 = 8;

/// A file under construction. What it says of itself can be overridden.
#[derive(Clone)]
pub(crate) struct Gguf {
    pub(crate) magic: Vec<u8>,
    pub(crate) version: Vec<u8>,
    pub(crate) n_tensors: u64,
    pub(crate) n_keys: u64,
    keys: Vec<u8>,
    tensors: Vec<u8>,
    pub(crate) alignment: usize,
    pub(crate) data: Vec<u8>,
}

/// A text as the format has it.
pub(crate) fn text(text: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = text.as_ref();
    [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

/// An array's type, count and items.
pub(crate) fn array(item_type: u32, n_items: u64, items: &[u8]) -> Vec<u8> {
    [&item_type.to_le_bytes()[..], &n_items.to_le_bytes(), items].concat()
}

impl Gguf {
    /// A file with an architecture and nothing else.
    pub(crate) fn new() -> Self {
        let empty = Self {
            magic: b"GGUF".to_vec(),
            version: 3_u32.to_le_bytes().to_vec(),
            n_tensors: 0,
            n_keys: 0,
            keys: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
            data: Vec::new(),
        };
        empty.key("general.architecture", TEXT, &text("llama"))
    }

    /// A small file with keys of several types and two tensors.
    pub(crate) fn small() -> Self {
        Self::new()
            .key("llama.block_count", U32, &1_u32.to_le_bytes())
            .key("llama.rope.freq_base", F32, &1e4_f32.to_le_bytes())
            .key("tokenizer.ggml.add_bos_token", BOOL, &[1])
            .key("tokenizer.ggml.tokens", ARRAY, &array(TEXT, 2, &[text("a"), text("\u{120}b")].concat()))
            .tensor("output_norm.weight", &[8], T_F32, 0)
            .tensor("output.weight", &[32, 2], T_Q8_0, 32)
            .data(32 + 2 * 34)
    }

    /// Adds a pair with raw bytes as its value.
    pub(crate) fn key(self, key: impl AsRef<[u8]>, value_type: u32, value: &[u8]) -> Self {
        self.raw_key(&[&text(key)[..], &value_type.to_le_bytes(), value].concat())
    }

    /// Adds the bytes of a pair.
    pub(crate) fn raw_key(mut self, bytes: &[u8]) -> Self {
        self.keys.extend(bytes);
        self.n_keys += 1;
        self
    }

    /// Adds a tensor; `dims` in ggml's order.
    pub(crate) fn tensor(self, name: impl AsRef<[u8]>, dims: &[u64], tensor_type: u32, offset: u64) -> Self {
        let n_dims = dims.len() as u32;
        self.odd_tensor(name, n_dims, dims, tensor_type, offset)
    }

    /// Adds a tensor that claims another number of dimensions than it has.
    pub(crate) fn odd_tensor(
        mut self,
        name: impl AsRef<[u8]>,
        n_dims: u32,
        dims: &[u64],
        tensor_type: u32,
        offset: u64,
    ) -> Self {
        self.tensors.extend(text(name));
        self.tensors.extend(n_dims.to_le_bytes());
        self.tensors.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
        self.tensors.extend(tensor_type.to_le_bytes());
        self.tensors.extend(offset.to_le_bytes());
        self.n_tensors += 1;
        self
    }

    /// Sets how many bytes lie behind the header.
    pub(crate) fn data(mut self, len: usize) -> Self {
        self.data = (0..len).map(|index| (index % 251) as u8).collect();
        self
    }

    /// The header without what pads it.
    pub(crate) fn header(&self) -> Vec<u8> {
        [
            &self.magic[..],
            &self.version,
            &self.n_tensors.to_le_bytes(),
            &self.n_keys.to_le_bytes(),
            &self.keys,
            &self.tensors,
        ]
        .concat()
    }

    /// The whole file.
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut bytes = self.header();
        if !self.data.is_empty() {
            bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
            bytes.extend(&self.data);
        }
        bytes
    }
}
