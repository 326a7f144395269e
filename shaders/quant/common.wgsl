// What several formats share. Every format file gives weights8 over its planes, which src/quant/<format>.rs lays out.
// `at`: the index of a group of eight weights in the matrix; `row * (params.cols / 8) + group`. `params.cols` is a
// multiple of eight: rows that are none are filled up with zeros.

struct Weights8 { lo: vec4<f32>, hi: vec4<f32> }

override TAIL: u32 = 0u;                                               // columns that the last group has, 0: all eight

fn columns8(x: Weights8, is_last: bool) -> Weights8 {                  // of eight activations those that are there
    if (TAIL == 0u || !is_last) { return x; }
    let column = vec4(0u, 1u, 2u, 3u);
    return Weights8(
        select(vec4(0.0), x.lo, column < vec4(TAIL)),
        select(vec4(0.0), x.hi, column + vec4(4u) < vec4(TAIL)),
    );
}

fn half_of(word: u32, index: u32) -> f32 {                             // the half float `index % 2` of a word
    return unpack2x16float(word >> ((index & 1u) * 16u)).x;
}

fn byte_of(word: u32, index: u32) -> u32 {                             // the byte `index % 4` of a word
    return (word >> ((index & 3u) * 8u)) & 0xffu;
}

fn low_nibbles(word: u32) -> vec4<u32> {                               // of regrouped nibbles the weights 0 .. 4
    return unpack4xU8(word & 0x0f0f0f0fu);
}

fn high_nibbles(word: u32) -> vec4<u32> {                              // of regrouped nibbles the weights 4 .. 8
    return unpack4xU8((word >> 4u) & 0x0f0f0f0fu);
}

fn first_nibbles(word: u32) -> vec4<u32> {                             // of nibbles in order the weights 0 .. 4
    return (vec4(word) >> vec4(0u, 4u, 8u, 12u)) & vec4(15u);
}

fn last_nibbles(word: u32) -> vec4<u32> {                              // of nibbles in order the weights 4 .. 8
    return (vec4(word) >> vec4(16u, 20u, 24u, 28u)) & vec4(15u);
}

fn two_floats(word: u32, upper_halves: bool) -> vec2<f32> {            // half floats, or upper halves of float32
    let upper = vec2(bitcast<f32>(word << 16u), bitcast<f32>(word & 0xffff0000u));
    return select(unpack2x16float(word), upper, upper_halves);
}

fn bytes_of(low: u32, high: u32, byte: u32) -> u32 {                   // 4 bytes from byte 0 .. 4 of two words on
    let shift = (byte & 3u) * 8u;
    return select((low >> shift) | (high << (32u - shift)), low, shift == 0u);
}

fn bit_pairs(word: u32, shift: u32) -> vec4<u32> {                     // two bits of each byte
    return unpack4xU8((word >> shift) & 0x03030303u);
}

fn single_bits(word: u32, shift: u32) -> vec4<u32> {                   // one bit of each byte
    return unpack4xU8((word >> shift) & 0x01010101u);
}

fn four_bits(bits: u32) -> vec4<u32> {                                 // the four lowest bits
    return (vec4(bits) >> vec4(0u, 1u, 2u, 3u)) & vec4(1u);
}

// Scale and minimum of 32 of 256 weights (Q4_K, Q5_K): `head` is d and m, half floats, then three words with six bits
// of each: the first four are the low six bits of the bytes of words 0 and 1, the last four have their low bits in the
// nibbles of word 2 and their two high bits at the top of words 0 and 1.
fn scale_and_minimum(head: vec4<u32>, index: u32) -> vec2<f32> {
    let s = (head.yzw >> vec3(index % 4u * 8u)) & vec3(0xffu);
    let first = s.xy & vec2(63u);
    let last = vec2(s.z & 15u, s.z >> 4u) | ((s.xy >> vec2(6u)) << vec2(4u));
    return unpack2x16float(head.x) * vec2<f32>(select(first, last, index >= 4u));
}

fn levels(words: vec4<u32>, index: vec4<u32>) -> vec4<f32> {           // of 16 signed bytes those of `index`
    let odd = (index & vec4(4u)) != vec4(0u);
    let upper = (index & vec4(8u)) != vec4(0u);
    let word = select(select(vec4(words.x), vec4(words.y), odd), select(vec4(words.z), vec4(words.w), odd), upper);
    return vec4<f32>(bitcast<vec4<i32>>(word << ((vec4(3u) - (index & vec4(3u))) * 8u)) >> vec4(24u));
}

const IQ4_LEVELS = vec4<u32>(0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u);

fn half_bits(word: u32, index: u32) -> u32 {                           // the 16 bits `index % 2` of a word
    return (word >> ((index & 1u) * 16u)) & 0xffffu;
}

fn levels2(entry: u32) -> vec4<f32> {                                  // four magnitudes of two bits: 8, 25, 43
    let code = (vec4(entry) >> vec4(0u, 2u, 4u, 6u)) & vec4(3u);
    return vec4<f32>(code * 17u + (code >> vec4(1u)) + 8u);
}

fn codes3(entry: u32) -> vec4<u32> {                                   // four numbers of three bits
    return (vec4(entry) >> vec4(0u, 3u, 6u, 9u)) & vec4(7u);
}

fn even_signs(seven: u32) -> u32 {                                     // eight signs, an even number of them set
    return (seven & 127u) | ((countOneBits(seven & 127u) & 1u) << 7u);
}

fn signed8(scale: f32, lo: vec4<f32>, hi: vec4<f32>, signs: u32) -> Weights8 {
    let factor = vec4(scale);
    return Weights8(
        lo * select(factor, -factor, four_bits(signs) == vec4(1u)),
        hi * select(factor, -factor, four_bits(signs >> 4u) == vec4(1u)),
    );
}

fn shifted8(scale: f32, entry: u32, down: bool) -> Weights8 {          // eight of -1, 0, 1, shifted by 1/8
    let shift = select(-0.875, -1.125, down);
    let codes = vec4(0u, 2u, 4u, 6u);
    return Weights8(
        scale * (vec4<f32>((vec4(entry) >> codes) & vec4(3u)) + shift),
        scale * (vec4<f32>((vec4(entry >> 8u) >> codes) & vec4(3u)) + shift),
    );
}
