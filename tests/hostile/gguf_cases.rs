//! Hostile GGUF files, by their numbers in the list (C-G). Those about what a model means are tested where that is
//! read.

use headwater::error::ErrorKind::{InvalidArgument, LimitExceeded, MalformedGguf, NotFound, UnsupportedFormat};

use crate::case::{Case, Expect, files};
use crate::gguf::{ARRAY, BOOL, Gguf, I32, T_F32, T_Q8_0, TEXT, U8, U32, U64, array, text};

use Expect::{Fails, Loads};

fn one(id: &str, bytes: Vec<u8>, expect: Expect) -> Case {
    Case::new(format!("C-G {id}"), vec![("model.gguf".to_owned(), bytes)], expect)
}

fn u32_key(key: &str, value: u32) -> Gguf {
    Gguf::new().key(key, U32, &value.to_le_bytes())
}

/// One tensor of one row or more, with as many bytes of data as asked.
fn tensor(dims: &[u64], tensor_type: u32, offset: u64, data: usize) -> Vec<u8> {
    Gguf::new().tensor("blk.0.attn_q.weight", dims, tensor_type, offset).data(data).build()
}

/// Arrays inside arrays, `depth` of them, the innermost empty.
fn nested(depth: usize) -> Vec<u8> {
    let mut value = array(U8, 0, &[]);
    for _ in 1..depth {
        value = array(ARRAY, 1, &value);
    }
    Gguf::new().key("deep", ARRAY, &value).build()
}

fn header_cases() -> Vec<Case> {
    let mut wrong_magic = Gguf::small();
    wrong_magic.magic = b"FUGG".to_vec();
    let version = |version: [u8; 4]| {
        let mut file = Gguf::small();
        file.version = version.to_vec();
        file.build()
    };
    let counts = |n_tensors: u64, n_keys: u64| {
        let mut file = Gguf::new();
        (file.n_tensors, file.n_keys) = (n_tensors, n_keys);
        file.build()
    };
    vec![
        one("1 empty file", Vec::new(), Fails(UnsupportedFormat, &["model.gguf", "empty"])),
        one("2 three bytes", b"GGU".to_vec(), Fails(UnsupportedFormat, &["model.gguf"])),
        one("2 the magic alone", b"GGUF".to_vec(), Fails(MalformedGguf, &["model.gguf", "file ends"])),
        one("3 magic FUGG", wrong_magic.build(), Fails(UnsupportedFormat, &["model.gguf"])),
        one("4 big-endian", version([0, 0, 0, 3]), Fails(UnsupportedFormat, &["version 3", "big-endian"])),
        one("5 version 0", version([0; 4]), Fails(UnsupportedFormat, &["version 0"])),
        one("6 version 1", version([1, 0, 0, 0]), Fails(UnsupportedFormat, &["version 1", "2 and 3"])),
        one("7 version 4", version([4, 0, 0, 0]), Fails(UnsupportedFormat, &["version 4"])),
        one("version 2", version([2, 0, 0, 0]), Loads),
        one("8 2^64-1 tensors", counts(u64::MAX, 1), Fails(LimitExceeded, &["tensors", "65536"])),
        one("8 more tensors than bytes", counts(60_000, 1), Fails(MalformedGguf, &["60000 items"])),
        one("9 2^64-1 keys", counts(0, u64::MAX), Fails(LimitExceeded, &["key-value pairs"])),
        one("10 one key too few", counts(0, 2), Fails(MalformedGguf, &["model.gguf"])),
        one("no architecture", one_key_file(), Fails(MalformedGguf, &["model.gguf", "general.architecture"])),
    ]
}

fn one_key_file() -> Vec<u8> {
    let mut file = u32_key("general.quantization_version", 2);
    // Leaves out the first key, which is the architecture.
    file.n_keys = 1;
    let whole = file.build();
    let first_key = text("general.architecture").len() + 4 + text("llama").len();
    [&whole[..24], &whole[24 + first_key..]].concat()
}

fn key_cases() -> Vec<Case> {
    let odd_key = |len: u64| Gguf::new().raw_key(&len.to_le_bytes()).data(64).build();
    let key = |key: &[u8]| Gguf::new().key(key, U8, &[1]).build();
    vec![
        one("11 key of 2^64-1 bytes", odd_key(u64::MAX), Fails(LimitExceeded, &["pair 1", "key"])),
        one("12 key as long as the file", odd_key(192), Fails(MalformedGguf, &["pair 1", "192 bytes"])),
        one("13 empty key", key(b""), Fails(MalformedGguf, &["pair 1", "key"])),
        one("14 key of 65,536 bytes", key(&[b'k'; 65_536]), Fails(LimitExceeded, &["65535"])),
        one("14 key of 65,535 bytes", key(&[b'k'; 65_535]), Loads),
        one("15 key not ASCII", key("ключ".as_bytes()), Fails(MalformedGguf, &["ASCII", "ключ"])),
        one("15 key not UTF-8", key(b"key\xff"), Fails(MalformedGguf, &["UTF-8"])),
        one("15 key with a line break", key(b"a\nb"), Fails(MalformedGguf, &["a\\nb"])),
        one(
            "16 key twice",
            Gguf::new().key("general.architecture", TEXT, &text("x")).build(),
            Fails(MalformedGguf, &["general.architecture", "twice"]),
        ),
    ]
}

fn value_cases() -> Vec<Case> {
    let value = |value_type: u32, value: &[u8]| Gguf::new().key("the.key", value_type, value).build();
    let alignment = |value: u32| u32_key("general.alignment", value).build();
    let mut inner = array(TEXT, 1, &text("a"));
    inner.extend(array(U8, 1, &[1]));
    vec![
        one("17 value type 13", value(13, &[0; 8]), Fails(MalformedGguf, &["the.key", "type 13"])),
        one("18 value type 2^31", value(1 << 31, &[0; 8]), Fails(MalformedGguf, &["the.key", "2147483648"])),
        one("19 text of 2^63 bytes", value(TEXT, &(1_u64 << 63).to_le_bytes()), Fails(LimitExceeded, &["the.key"])),
        one("19 text past the end", value(TEXT, &1000_u64.to_le_bytes()), Fails(MalformedGguf, &["the.key", "ends"])),
        one("19 text not UTF-8", value(TEXT, &text(b"\xc3")), Fails(MalformedGguf, &["the.key", "UTF-8"])),
        one("20 boolean 2", value(BOOL, &[2]), Fails(MalformedGguf, &["the.key", "0 or 1"])),
        one("21 array of type 13", value(ARRAY, &array(13, 1, &[0; 8])), Fails(MalformedGguf, &["the.key", "type 13"])),
        one(
            "22 array of 2^61 u64",
            value(ARRAY, &array(U64, 1 << 61, &[])),
            Fails(LimitExceeded, &["the.key", "array"]),
        ),
        one(
            "22 array past the end",
            value(ARRAY, &array(U64, 9, &[0; 71])),
            Fails(MalformedGguf, &["the.key", "9 items"]),
        ),
        one("22 u64 of 2^64-1", value(U64, &[0xff; 8]), Loads),
        one(
            "22 array of u64 of 2^64-1",
            value(ARRAY, &array(U64, 1, &[0xff; 8])),
            Fails(MalformedGguf, &["the.key", "item 0", "18446744073709551615"]),
        ),
        one("23 array nested 4 deep", nested(4), Loads),
        one("23 array nested 5 deep", nested(5), Fails(LimitExceeded, &["deep", "inside"])),
        one("23 array nested 10,000 deep", nested_head(10_000), Fails(LimitExceeded, &["deep", "inside"])),
        one(
            "23 array of arrays of two types",
            value(ARRAY, &array(ARRAY, 2, &inner)),
            Fails(MalformedGguf, &["the.key"]),
        ),
        one("26 alignment 0", alignment(0), Fails(MalformedGguf, &["general.alignment", "power of two"])),
        one("27 alignment 13", alignment(13), Fails(MalformedGguf, &["general.alignment", "13"])),
        one(
            "28 alignment as i32",
            Gguf::new().key("general.alignment", I32, &32_i32.to_le_bytes()).build(),
            Fails(MalformedGguf, &["general.alignment", "unsigned"]),
        ),
        one("29 alignment 2^31", alignment(1 << 31), Fails(LimitExceeded, &["general.alignment"])),
        one("47 empty vocabulary", value(ARRAY, &array(TEXT, 0, &[])), Loads),
    ]
}

/// The heads of nested arrays, outermost first, without copying them again and again.
fn nested_head(depth: usize) -> Vec<u8> {
    let head = array(ARRAY, 1, &[]);
    Gguf::new().key("deep", ARRAY, &head.repeat(depth)).build()
}

fn tensor_cases() -> Vec<Case> {
    let named = |name: &[u8]| Gguf::new().tensor(name, &[8], T_F32, 0).data(32).build();
    let dims = |n_dims: u32, dims: &[u64]| Gguf::new().odd_tensor("t", n_dims, dims, T_F32, 0).data(64).build();
    let two = |dims: &[u64], second: u64, data: usize| {
        Gguf::new().tensor("first", dims, T_F32, 0).tensor("second", dims, T_F32, second).data(data).build()
    };
    let mut cut = Gguf::small().build();
    cut.pop();
    let trailing = [Gguf::small().build(), vec![0; 100 << 10]].concat();
    let past_the_end: &[&str] = &["blk.0.attn_q.weight", "past the end"];
    let mut cases = vec![
        one("30 name of 64 bytes", named(&[b'n'; 64]), Loads),
        one("30 name of 65 bytes", named(&[b'n'; 65]), Fails(LimitExceeded, &["tensor 0", "name"])),
        one("30 empty name", named(b""), Fails(MalformedGguf, &["tensor 0"])),
        one("30 name with a zero byte", named(b"a\0b"), Fails(MalformedGguf, &["a\\0b"])),
        one("30 name not UTF-8", named(b"\xff"), Fails(MalformedGguf, &["tensor 0", "UTF-8"])),
        one(
            "31 tensor twice",
            Gguf::new().tensor("t", &[8], T_F32, 0).tensor("t", &[8], T_F32, 32).data(64).build(),
            Fails(MalformedGguf, &["t: ", "twice"]),
        ),
        one("32 no dimensions", dims(0, &[]), Fails(MalformedGguf, &["t: ", "dimensions"])),
        one("32 five dimensions", dims(5, &[1; 5]), Fails(LimitExceeded, &["t: ", "dimensions"])),
        one("32 2^32-1 dimensions", dims(u32::MAX, &[1]), Fails(LimitExceeded, &["t: ", "dimensions"])),
        one("33 a dimension of 0", dims(2, &[8, 0]), Fails(MalformedGguf, &["t: ", "is 0"])),
        one("34 a negative dimension", dims(1, &[u64::MAX]), Fails(LimitExceeded, &["t: ", "dimension"])),
        one("35 two dimensions of 2^40", dims(2, &[1 << 40; 2]), Fails(LimitExceeded, &["t: ", "dimension"])),
        one("35 two dimensions of 2^32", dims(2, &[1 << 32; 2]), Fails(MalformedGguf, &["t: ", "overflows"])),
        one("36 a dimension of 2^42+1", dims(1, &[(1 << 42) + 1]), Fails(LimitExceeded, &["t: ", "dimension"])),
        one("37 half a block", tensor(&[48, 2], T_Q8_0, 0, 102), Fails(MalformedGguf, &["attn_q", "48", "q8_0"])),
        one("39 offset not aligned", tensor(&[8], T_F32, 16, 64), Fails(MalformedGguf, &["attn_q", "alignment"])),
        one("40 offset past the end", tensor(&[8], T_F32, 1 << 20, 64), Fails(MalformedGguf, past_the_end)),
        one("41 one byte past the end", tensor(&[8], T_F32, 32, 63), Fails(MalformedGguf, past_the_end)),
        one("41 to the last byte", tensor(&[8], T_F32, 32, 64), Loads),
        one("42 offset and size wrap", tensor(&[8], T_F32, u64::MAX - 31, 64), Fails(MalformedGguf, past_the_end)),
        one("43 overlap", two(&[16], 32, 128), Fails(MalformedGguf, &["second", "overlap"])),
        one("43 the same bytes", two(&[16], 0, 128), Fails(MalformedGguf, &["overlap"])),
        one(
            "44 two tensors of 2^63 bytes",
            two(&[1 << 32, 1 << 29], 1 << 63, 64),
            Fails(MalformedGguf, &["past the end"]),
        ),
        one("45 data cut by one byte", cut, Fails(MalformedGguf, &["output.weight", "past the end"])),
        one("46 100 KiB of trailing bytes", trailing, Loads),
        one("56 weights that are no numbers", nan_file(), Loads),
        one(
            "rope factors past their limit",
            Gguf::new().tensor("rope_freqs.weight", &[65_537], T_F32, 0).data(4 * 65_537).build(),
            Fails(LimitExceeded, &["rope_freqs.weight"]),
        ),
    ];
    let types: [(u32, &[&str]); 5] = [
        (4, &["blk.0.attn_q.weight", "Q4_2"]),
        (5, &["blk.0.attn_q.weight", "Q4_3"]),
        (31, &["blk.0.attn_q.weight", "Q4_0_4_4"]),
        (40, &["blk.0.attn_q.weight", "NVFP4"]),
        (u32::MAX, &["blk.0.attn_q.weight", "unknown", "supported are"]),
    ];
    for (number, words) in types {
        let id = format!("38 tensor type {number}");
        cases.push(one(&id, tensor(&[256], number, 0, 1024), Fails(UnsupportedFormat, words)));
    }
    cases
}

fn nan_file() -> Vec<u8> {
    let mut file = Gguf::new().tensor("output_norm.weight", &[64], T_F32, 0);
    file.data = f32::NAN.to_le_bytes().repeat(64);
    file.build()
}

/// A shard with one tensor.
pub(crate) fn shard(number: u64, count: u64, total: i32, tensor: &str) -> Vec<u8> {
    Gguf::new()
        .key("split.no", U64, &number.to_le_bytes())
        .key("split.count", U64, &count.to_le_bytes())
        .key("split.tensors.count", I32, &total.to_le_bytes())
        .tensor(tensor, &[8], T_F32, 0)
        .data(32)
        .build()
}

fn split_cases() -> Vec<Case> {
    let (a, b) = ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf");
    let case = |id: &str, list: &[(&str, &[u8])], expect: Expect| Case::new(format!("C-G {id}"), files(list), expect);
    let first = shard(0, 2, 2, "one");
    let second = shard(1, 2, 2, "two");
    vec![
        case("split: both shards, the second first", &[(b, &second), (a, &first)], Loads),
        case("split: one is missing", &[(a, &first)], Fails(NotFound, &["shard 2 of 2"])),
        case(
            "split: one is there twice",
            &[(a, &first), ("copy.gguf", &first)],
            Fails(InvalidArgument, &["shard 1", "twice"]),
        ),
        case(
            "52 name and metadata differ",
            &[("m-00002-of-00003.gguf", &second)],
            Fails(MalformedGguf, &["split.count"]),
        ),
        case("52 number past the count", &[("m.gguf", &shard(2, 2, 2, "t"))], Fails(MalformedGguf, &["split.no"])),
        case("52 2^40 shards", &[("m.gguf", &shard(0, 1 << 40, 2, "t"))], Fails(LimitExceeded, &["split.count"])),
        case(
            "52 a tensor in two shards",
            &[(a, &first), (b, &shard(1, 2, 2, "one"))],
            Fails(MalformedGguf, &["m-00002-of-00002.gguf", "one", "two shards"]),
        ),
        case(
            "52 another number of tensors",
            &[(a, &shard(0, 2, 3, "one")), (b, &second)],
            Fails(MalformedGguf, &["split.tensors.count"]),
        ),
        case(
            "52 two models",
            &[("a.gguf", &Gguf::small().build()), ("b.gguf", &Gguf::small().build())],
            Fails(InvalidArgument, &["a.gguf", "b.gguf"]),
        ),
    ]
}

/// A header of the size of the largest real ones.
fn large_header() -> Case {
    let tokens: Vec<u8> = (0..262_144).flat_map(|id| text(format!("token{id}"))).collect();
    let merges: Vec<u8> = (0..520_000).flat_map(|id| text(format!("tok en{id}"))).collect();
    let types = 1_i32.to_le_bytes().repeat(262_144);
    let file = Gguf::new()
        .key("tokenizer.ggml.tokens", ARRAY, &array(TEXT, 262_144, &tokens))
        .key("tokenizer.ggml.token_type", ARRAY, &array(I32, 262_144, &types))
        .key("tokenizer.ggml.merges", ARRAY, &array(TEXT, 520_000, &merges));
    one("57 262,144 tokens and 520,000 merges", file.build(), Loads).large()
}

/// All cases about GGUF.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![one("a small file", Gguf::small().build(), Loads), large_header()];
    cases.extend(header_cases());
    cases.extend(key_cases());
    cases.extend(value_cases());
    cases.extend(tensor_cases());
    cases.extend(split_cases());
    cases
}
