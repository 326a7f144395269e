//! A split module does what the whole one did, run by node: calls over the border in both ways, through the table too.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use walrus::ir::BinaryOp;
use walrus::{ConstExpr, ElementItems, ElementKind, FunctionBuilder, FunctionId, Module, RefType, ValType, ir::Value};

use super::*;

/// `f(x) = twice(plus(x)) + table[0](x)`; `twice` and what is in the table call `plus`, which counts its calls in a global.
fn module() -> Vec<u8> {
    let mut module = Module::default();
    let zero = ConstExpr::Value(Value::I32(0));
    let calls = module.globals.add_local(ValType::I32, true, false, zero.clone());
    module.exports.add("calls", calls);
    let memory = module.memories.add_local(false, false, 1, None, None);
    module.exports.add("memory", memory);
    let function =
        |module: &mut Module, name: &str, make: &dyn Fn(&mut walrus::InstrSeqBuilder<'_>, walrus::LocalId)| {
            let mut builder = FunctionBuilder::new(&mut module.types, &[ValType::I32], &[ValType::I32]);
            let x = module.locals.add(ValType::I32);
            make(&mut builder.name(name.to_owned()).func_body(), x);
            builder.finish(vec![x], &mut module.funcs)
        };
    let plus = function(&mut module, "plus", &|body, x| {
        body.global_get(calls).i32_const(1).binop(BinaryOp::I32Add).global_set(calls);
        body.local_get(x).i32_const(1).binop(BinaryOp::I32Add);
    });
    let twice = function(&mut module, "twice", &|body, x| {
        body.local_get(x).call(plus).i32_const(2).binop(BinaryOp::I32Mul);
    });
    let in_table = function(&mut module, "in_table", &|body, x| {
        body.local_get(x).call(plus).i32_const(100).binop(BinaryOp::I32Mul);
    });
    let table = module.tables.add_local(false, 1, Some(1), RefType::FUNCREF);
    let active = ElementKind::Active { table, offset: zero };
    let element = module.elements.add(active, ElementItems::Functions(vec![in_table]));
    module.tables.get_mut(table).elem_segments.insert(element);
    let ty = module.types.add(&[ValType::I32], &[ValType::I32]);
    let f: FunctionId = function(&mut module, "f", &|body, x| {
        body.local_get(x).call(plus).call(twice).local_get(x).i32_const(0).call_indirect(ty, table);
        body.binop(BinaryOp::I32Add);
    });
    module.exports.add("f", f);
    module.emit_wasm()
}

/// What node prints of a script that has the modules' bytes.
fn node(script: &str, modules: &[&[u8]]) -> String {
    let folder = tempfile::tempdir().unwrap();
    for (index, wasm) in modules.iter().enumerate() {
        fs::write(folder.path().join(format!("{index}.wasm")), wasm).unwrap();
    }
    let script = format!(
        "const module = (i) => new WebAssembly.Module(require('fs').readFileSync(`${{i}}.wasm`));
        const print = (value) => console.log(JSON.stringify(value));
        {script}"
    );
    let output = Command::new("node").arg("-e").arg(script).current_dir(folder.path()).output().expect("node runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// f(3), f(4), how often `plus` ran, how often the second half was asked for.
const CALLS: &str = "print([first.exports.f(3), first.exports.f(4), first.exports.calls.value, loads])";

#[test]
fn a_split_module_does_what_the_whole_did() {
    let wasm = module();
    let whole =
        node(&format!("const loads = 0; const first = new WebAssembly.Instance(module(0), {{}}); {CALLS}"), &[&wasm]);
    assert_eq!(whole, "[410,512,6,0]");
    for deferred in
        [&["twice"][..], &["in_table"], &["twice", "in_table"], &["plus", "in_table"], &["f"], &["f", "plus", "twice"]]
    {
        let keys: BTreeSet<String> = deferred.iter().map(|name| key(name)).collect();
        let Halves { first, second } = split(&wasm, &keys).unwrap();
        let script = format!(
            "let loads = 0;
            const load = () => {{
              loads += 1;
              new WebAssembly.Instance(module(1), {{ first: first.exports }});
              first.exports.{IS_LOADED}.value = 1;
            }};
            const first = new WebAssembly.Instance(module(0), {{ '{}': {{ {}: load }} }});
            {CALLS}",
            LOADER.0, LOADER.1
        );
        assert_eq!(node(&script, &[&first, &second]), "[410,512,6,1]", "{deferred:?}");
    }
}

#[test]
fn what_nothing_is_deferred_of_is_refused() {
    assert!(split(&module(), &BTreeSet::new()).is_err());
}

#[test]
fn a_recording_tells_which_functions_ran() {
    let recording = recording(&module()).unwrap();
    let script = "const first = new WebAssembly.Instance(module(0), {});
        const ran = () => Object.entries(first.exports).filter(([name, mark]) => name.startsWith('ran:') && mark.value).length;
        const before = ran();
        first.exports.f(1);
        print([before, ran()])";
    assert_eq!(node(script, &[&recording]), "[0,4]");
}

#[test]
fn keys_know_paths_but_not_hashes() {
    let with = |hash: &str| key(&format!("_ZN4core3fmt5write17h{hash}E"));
    assert_eq!(with("0123456789abcdef"), with("fedcba9876543210"));
    assert_ne!(with("0123456789abcdef"), key("_ZN4core3fmt6format17h0123456789abcdefE"));
    assert_eq!(key(""), "811c9dc5");
}
