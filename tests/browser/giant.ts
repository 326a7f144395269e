/** A GGUF file of which only the header is ever written: of more than 1 GiB, or less where it has fewer layers. */

/** Numbers of GGUF's types of metadata. */
const TYPE = { u32: 4, f32: 6, string: 8, array: 9 } as const;

/** Numbers of ggml's types of tensors, with the bytes of a row. */
const F32 = { type: 0, rowBytes: (cols: number): number => cols * 4 };
const Q8_0 = { type: 8, rowBytes: (cols: number): number => (cols / 32) * 34 };

const ALIGNMENT = 32;
const LAYERS = 17;
const DIM = 2048;
const FFN = 8192;
const KV = 512;
const VOCAB = 512;

type Tensor = readonly [name: string, cols: number, rows: number];

/** The header of a llama with zeros for weights, and the size of the whole file. */
export function giantGguf(layers = LAYERS): { header: Buffer; sizeBytes: number } {
  const vocabulary = tokens();
  const metadata = [
    text("general.architecture", "llama"),
    text("general.name", "Giant"),
    number("llama.block_count", layers),
    number("llama.context_length", 2048),
    number("llama.embedding_length", DIM),
    number("llama.feed_forward_length", FFN),
    number("llama.attention.head_count", 32),
    number("llama.attention.head_count_kv", 8),
    number("llama.rope.dimension_count", 64),
    number("llama.vocab_size", VOCAB),
    float("llama.rope.freq_base", 10000),
    float("llama.attention.layer_norm_rms_epsilon", 1e-5),
    text("tokenizer.ggml.model", "gpt2"),
    text("tokenizer.ggml.pre", "qwen2"),
    texts("tokenizer.ggml.tokens", vocabulary),
    numbers("tokenizer.ggml.token_type", vocabulary.map((_, id) => (id < 256 ? 1 : 3)), 5),
    texts("tokenizer.ggml.merges", []),
    number("tokenizer.ggml.eos_token_id", 256),
  ];
  let offset = 0;
  const infos = tensors(layers).map(([name, cols, rows]) => {
    const { type, rowBytes } = rows === 1 ? F32 : Q8_0;
    const shape = rows === 1 ? [cols] : [cols, rows];
    const info = Buffer.concat([string(name), u32(shape.length), ...shape.map(u64), u32(type), u64(offset)]);
    offset = align(offset + rowBytes(cols) * rows);
    return info;
  });
  const head = Buffer.concat([Buffer.from("GGUF"), u32(3), u64(infos.length), u64(metadata.length), ...metadata, ...infos]);
  const header = Buffer.concat([head, Buffer.alloc(align(head.length) - head.length)]);
  return { header, sizeBytes: header.length + offset };
}

function tensors(layers: number): Tensor[] {
  const all: Tensor[] = [["token_embd.weight", DIM, VOCAB]];
  for (let layer = 0; layer < layers; layer += 1) {
    const of = (name: string, cols: number, rows: number): Tensor => [`blk.${layer}.${name}.weight`, cols, rows];
    all.push(
      of("attn_norm", DIM, 1), of("attn_q", DIM, DIM), of("attn_k", DIM, KV), of("attn_v", DIM, KV), of("attn_output", DIM, DIM),
      of("ffn_norm", DIM, 1), of("ffn_gate", DIM, FFN), of("ffn_up", DIM, FFN), of("ffn_down", FFN, DIM),
    );
  }
  all.push(["output_norm.weight", DIM, 1], ["output.weight", DIM, VOCAB]);
  return all;
}

/** The 256 letters that stand for bytes in byte-level vocabularies, then control tokens. */
function tokens(): string[] {
  const printable = (byte: number): boolean => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  let next = 256;
  const letters = Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++));
  return [...letters, ...Array.from({ length: VOCAB - 256 }, (_, index) => `<|${index}|>`)];
}

function align(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function f32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return bytes;
}

function string(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([u64(bytes.length), bytes]);
}

function entry(key: string, type: number, value: Buffer): Buffer {
  return Buffer.concat([string(key), u32(type), value]);
}

function text(key: string, value: string): Buffer {
  return entry(key, TYPE.string, string(value));
}

function number(key: string, value: number): Buffer {
  return entry(key, TYPE.u32, u32(value));
}

function float(key: string, value: number): Buffer {
  return entry(key, TYPE.f32, f32(value));
}

function texts(key: string, values: readonly string[]): Buffer {
  return entry(key, TYPE.array, Buffer.concat([u32(TYPE.string), u64(values.length), ...values.map(string)]));
}

function numbers(key: string, values: readonly number[], type: number): Buffer {
  return entry(key, TYPE.array, Buffer.concat([u32(type), u64(values.length), ...values.map(u32)]));
}
