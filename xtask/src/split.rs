//! A module in two: what a chat runs comes first, the rest is fetched when it is first called.
//!
//! The first module keeps its memory, tables, globals and data. Each deferred function that it can reach is a stub there:
//! it makes sure of the second module by one import and calls through a slot of the table, which the second module fills.
//! So any function may be deferred without a change of what the program does; which ones are is a question of size alone.
//! The method is that of Binaryen's `wasm-split`, which its npm package does not carry.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use walrus::ir::{Const, GlobalSet, UnaryOp, Value, Visitor, dfs_in_order};
use walrus::{
    ConstExpr, ElementItems, ElementKind, ExportItem, FunctionBuilder, FunctionId, FunctionKind, GlobalId, GlobalKind,
    ImportKind, ImportedFunction, Module, ModuleConfig, TableId, ValType, passes,
};

/// Where the first module imports the function that makes sure of the second one.
pub(crate) const LOADER: (&str, &str) = ("./deferred.js", "load");
/// The global of the first module that is 1 once the second one has filled its slots.
pub(crate) const IS_LOADED: &str = "deferred_is_loaded";
/// Where the second module imports from: what the first one exports.
const FIRST: &str = "first";
/// Exported globals of a module that records which functions ran begin so; the function's key follows.
pub(crate) const RAN: &str = "ran:";

/// Names a function independently of the compiler's disambiguators, in 8 hexadecimal digits: FNV-1a
/// (<https://datatracker.ietf.org/doc/html/draft-eastlake-fnv>) of its demangled path without hashes.
fn key(name: &str) -> String {
    let path = format!("{:#}", rustc_demangle::demangle(name));
    let hash = path.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{hash:08x}")
}

fn parse(wasm: &[u8]) -> Result<Module> {
    let mut config = ModuleConfig::new();
    config
        .generate_name_section(false)
        .generate_producers_section(false)
        .generate_synthetic_names_for_anonymous_items(false);
    config.parse(wasm).context("the module cannot be read")
}

/// The module with a global for each key, exported, which becomes 1 when a function of that key begins.
pub(crate) fn recording(wasm: &[u8]) -> Result<Vec<u8>> {
    let mut module = parse(wasm)?;
    let named: Vec<(FunctionId, String)> = module
        .funcs
        .iter_local()
        .filter_map(|(id, _)| Some((id, key(module.funcs.get(id).name.as_deref()?))))
        .collect();
    let mut globals: BTreeMap<String, GlobalId> = BTreeMap::new();
    for (id, key) in named {
        let global = *globals.entry(key).or_insert_with_key(|key| {
            let zero = ConstExpr::Value(Value::I32(0));
            let global = module.globals.add_local(ValType::I32, true, false, zero);
            module.exports.add(&format!("{RAN}{key}"), global);
            global
        });
        let function = module.funcs.get_mut(id).kind.unwrap_local_mut();
        let entry = function.entry_block();
        let mut body = function.builder_mut().instr_seq(entry);
        body.instr_at(0, Const { value: Value::I32(1) }).instr_at(1, GlobalSet { global });
    }
    Ok(module.emit_wasm())
}

/// The two modules of a split.
pub(crate) struct Halves {
    pub(crate) first: Vec<u8>,
    pub(crate) second: Vec<u8>,
}

/// Splits `wasm` so that functions all of whose namesakes have a key in `deferred` are in the second module.
pub(crate) fn split(wasm: &[u8], deferred: &BTreeSet<String>) -> Result<Halves> {
    let mut first = parse(wasm)?;
    let is_deferred: BTreeSet<usize> = first
        .funcs
        .iter_local()
        .filter(|(id, _)| first.funcs.get(*id).name.as_deref().is_some_and(|name| deferred.contains(&key(name))))
        .map(|(id, _)| id.index())
        .collect();
    let border = Border::find(&first, &is_deferred)?;
    let second = second_half(parse(wasm)?, &border)?;
    first_half(&mut first, &border)?;
    Ok(Halves { first: first.emit_wasm(), second })
}

/// What crosses the border between the halves. Functions are told by their number, which both parsings share.
struct Border {
    /// Deferred functions that the first half refers to, in the order of their slots.
    stubs: Vec<usize>,
    /// Functions of the first half that deferred ones refer to.
    wanted: BTreeSet<usize>,
    /// The table of functions, and its first new slot.
    table: usize,
    slot: u64,
}

/// The functions that a body refers to.
#[derive(Default)]
struct References {
    functions: BTreeSet<usize>,
}

impl Visitor<'_> for References {
    fn visit_function_id(&mut self, function: &FunctionId) {
        self.functions.insert(function.index());
    }
}

impl Border {
    fn find(module: &Module, is_deferred: &BTreeSet<usize>) -> Result<Self> {
        let (mut from_first, mut from_second) = (References::default(), References::default());
        for (id, function) in module.funcs.iter_local() {
            let references = if is_deferred.contains(&id.index()) { &mut from_second } else { &mut from_first };
            dfs_in_order(references, function, function.entry_block());
        }
        from_first.functions.extend(module.exports.iter().filter_map(|export| match export.item {
            ExportItem::Function(id) => Some(id.index()),
            _ => None,
        }));
        from_first.functions.extend(module.start.map(|id| id.index()));
        for element in module.elements.iter() {
            match &element.items {
                ElementItems::Functions(ids) => from_first.functions.extend(ids.iter().map(|id| id.index())),
                ElementItems::Expressions(_, items) => {
                    from_first.functions.extend(items.iter().filter_map(|item| match item {
                        ConstExpr::RefFunc(id) => Some(id.index()),
                        _ => None,
                    }));
                }
            }
        }
        let table = module.tables.main_function_table()?.context("the module has no table of functions")?;
        Ok(Self {
            stubs: from_first.functions.intersection(is_deferred).copied().collect(),
            wanted: from_second.functions.difference(is_deferred).copied().collect(),
            table: table.index(),
            slot: module.tables.get(table).initial,
        })
    }

    /// The name under which the first half exports a function to the second.
    fn name(function: usize) -> String {
        format!("f{function}")
    }

    fn table(&self, module: &Module) -> Result<TableId> {
        module.tables.iter().map(walrus::Table::id).find(|id| id.index() == self.table).context("the table is gone")
    }
}

/// The functions of a module by their numbers.
fn by_number(module: &Module) -> BTreeMap<usize, FunctionId> {
    module.funcs.iter().map(|function| (function.id().index(), function.id())).collect()
}

/// Deferred bodies become stubs; what the second half asks for is exported.
fn first_half(module: &mut Module, border: &Border) -> Result<()> {
    let functions = by_number(module);
    let zero = ConstExpr::Value(Value::I32(0));
    let is_loaded = module.globals.add_local(ValType::I32, true, false, zero);
    module.exports.add(IS_LOADED, is_loaded);
    let load = module.types.add(&[], &[]);
    let (load, _) = module.add_import_func(LOADER.0, LOADER.1, load);
    let mut ensure = FunctionBuilder::new(&mut module.types, &[], &[]);
    ensure.func_body().global_get(is_loaded).unop(UnaryOp::I32Eqz).if_else(
        None,
        |then| {
            then.call(load);
        },
        |_| {},
    );
    let ensure = ensure.finish(Vec::new(), &mut module.funcs);

    let table = border.table(module)?;
    for (slot, number) in (border.slot..).zip(&border.stubs) {
        let id = functions[number];
        let ty = module.funcs.get(id).ty();
        let (params, results) = {
            let ty = module.types.get(ty);
            (ty.params().to_vec(), ty.results().to_vec())
        };
        let mut stub = FunctionBuilder::new(&mut module.types, &params, &results);
        let locals: Vec<_> = params.iter().map(|param| module.locals.add(*param)).collect();
        let mut body = stub.func_body();
        body.call(ensure);
        for local in &locals {
            body.local_get(*local);
        }
        body.i32_const(i32::try_from(slot).context("more slots than a table has")?).call_indirect(ty, table);
        module.funcs.get_mut(id).kind = FunctionKind::Local(stub.local_func(locals));
    }
    let count = border.slot + border.stubs.len() as u64;
    let slots = module.tables.get_mut(table);
    slots.initial = count;
    slots.maximum = slots.maximum.map(|maximum| maximum.max(count));

    for number in &border.wanted {
        module.exports.add(&Border::name(*number), functions[number]);
    }
    let tables: Vec<_> = module.tables.iter().map(walrus::Table::id).collect();
    for table in tables {
        module.exports.add(&format!("t{}", table.index()), table);
    }
    let memories: Vec<_> = module.memories.iter().map(walrus::Memory::id).collect();
    for memory in memories {
        module.exports.add(&format!("m{}", memory.index()), memory);
    }
    let globals: Vec<_> = module.globals.iter().map(walrus::Global::id).filter(|id| *id != is_loaded).collect();
    for global in globals {
        module.exports.add(&format!("g{}", global.index()), global);
    }
    passes::gc::run(module);
    Ok(())
}

/// Only deferred functions stay; everything else is imported from the first half.
fn second_half(mut module: Module, border: &Border) -> Result<Vec<u8>> {
    let functions = by_number(&module);
    let table = border.table(&module)?;
    module.start = None;
    for export in module.exports.iter().map(walrus::Export::id).collect::<Vec<_>>() {
        module.exports.delete(export);
    }
    for element in module.elements.iter().map(walrus::Element::id).collect::<Vec<_>>() {
        module.elements.delete(element);
    }
    for data in module.data.iter().map(walrus::Data::id).collect::<Vec<_>>() {
        module.data.delete(data);
    }
    for number in &border.wanted {
        let id = functions[number];
        let ty = module.funcs.get(id).ty();
        let import = module.imports.add(FIRST, &Border::name(*number), ImportKind::Function(id));
        let earlier = std::mem::replace(
            &mut module.funcs.get_mut(id).kind,
            FunctionKind::Import(ImportedFunction { import, ty }),
        );
        if let FunctionKind::Import(ImportedFunction { import, .. }) = earlier {
            module.imports.delete(import);
        }
    }
    for id in module.memories.iter().map(walrus::Memory::id).collect::<Vec<_>>() {
        let import = module.imports.add(FIRST, &format!("m{}", id.index()), ImportKind::Memory(id));
        let memory = module.memories.get_mut(id);
        memory.import = Some(import);
        memory.data_segments.clear();
    }
    for id in module.tables.iter().map(walrus::Table::id).collect::<Vec<_>>() {
        let import = module.imports.add(FIRST, &format!("t{}", id.index()), ImportKind::Table(id));
        let slots = module.tables.get_mut(id);
        slots.import = Some(import);
        slots.maximum = None;
        slots.elem_segments.clear();
    }
    for id in module.globals.iter().map(walrus::Global::id).collect::<Vec<_>>() {
        let import = module.imports.add(FIRST, &format!("g{}", id.index()), ImportKind::Global(id));
        module.globals.get_mut(id).kind = GlobalKind::Import(import);
    }
    let offset = ConstExpr::Value(Value::I32(i32::try_from(border.slot).context("more slots than a table has")?));
    let items = border.stubs.iter().map(|number| functions[number]).collect();
    let element = module.elements.add(ElementKind::Active { table, offset }, ElementItems::Functions(items));
    module.tables.get_mut(table).elem_segments.insert(element);
    passes::gc::run(&mut module);
    if module.funcs.iter_local().next().is_none() {
        bail!("nothing is deferred");
    }
    Ok(module.emit_wasm())
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
