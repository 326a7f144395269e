//! Models split over several GGUF files: `split.no` of `split.count`, all metadata in the first.

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

use super::super::limits::{self, GGUF_SHARDS};
use super::super::open::Extent;
use super::super::{Checkpoint, TensorInfo, Value, base_name, shown};
use super::header::Header;
use super::{assemble, malformed, read_header};
use crate::error::{At, Error, ErrorKind, Result};
use crate::source::Source;

const NUMBER_KEY: &str = "split.no";
const COUNT_KEY: &str = "split.count";
const TENSORS_KEY: &str = "split.tensors.count";

/// One file of the model.
struct Shard {
    source: Rc<dyn Source>,
    header: Header,
    number: u64,
    count: u64,
}

/// Opens one GGUF file, or all shards of one model in any order.
pub(in super::super) async fn open_all(sources: Vec<Rc<dyn Source>>, extent: Extent) -> Result<Checkpoint> {
    let mut shards = Vec::new();
    for source in sources {
        let header = read_header(source.as_ref(), extent).await.at(|| source.name().to_owned())?;
        let (number, count) = position(&header, source.name()).at(|| source.name().to_owned())?;
        shards.push(Shard { source, header, number, count });
    }
    shards.sort_by_key(|shard| shard.number);
    check_set(&shards)?;
    join(shards).await
}

fn integer(header: &Header, key: &str) -> Result<Option<u64>> {
    match header.values.get(key) {
        None => Ok(None),
        Some(Value::Integer(integer)) => {
            u64::try_from(*integer).map(Some).map_err(|_| malformed("a negative number is there").at(key))
        }
        Some(_) => Err(malformed("an integer is needed").at(key)),
    }
}

/// Which shard of how many a file is; a whole model is shard 0 of 1.
fn position(header: &Header, name: &str) -> Result<(u64, u64)> {
    let count = integer(header, COUNT_KEY)?.unwrap_or(0).max(1);
    let number = integer(header, NUMBER_KEY)?.unwrap_or(0);
    if count > GGUF_SHARDS {
        return Err(limits::exceeded("shards", count, GGUF_SHARDS).at(COUNT_KEY));
    }
    if number >= count {
        return Err(malformed(format!("shard {number} (from 0) of {count} does not exist")).at(NUMBER_KEY));
    }
    match named_position(name) {
        Some((named, of)) if named != number.saturating_add(1) || of != count => Err(malformed(format!(
            "the file's name says shard {named} of {of}, its metadata {} of {count}",
            number.saturating_add(1)
        ))
        .at(COUNT_KEY)),
        _ => Ok((number, count)),
    }
}

/// The numbers in a name that ends in `-00002-of-00003.gguf`.
fn named_position(name: &str) -> Option<(u64, u64)> {
    let (rest, count) = base_name(name).strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (_, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| (text.len() == 5).then(|| text.parse::<u64>().ok()).flatten();
    Some((digits(number)?, digits(count)?))
}

/// Every shard of one model must be there once.
fn check_set(shards: &[Shard]) -> Result<()> {
    let Some(first) = shards.first() else {
        return Err(Error::new(ErrorKind::InvalidArgument, "no files were given"));
    };
    let counts_differ = shards.iter().any(|shard| shard.count != first.count);
    if counts_differ || (first.count == 1 && shards.len() > 1) {
        let names: Vec<_> = shards.iter().map(|shard| shard.source.name()).collect();
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("these GGUF files are not one model, choose one: {}", names.join(", ")),
        ));
    }
    for number in 0..first.count {
        let mut found = shards.iter().filter(|shard| shard.number == number);
        match (found.next(), found.next()) {
            (Some(_), None) => {}
            (None, _) => {
                let of = first.count;
                let number = number.saturating_add(1);
                let message = format!("shard {number} of {of} is not among the files");
                return Err(Error::new(ErrorKind::NotFound, message).at(first.source.name()));
            }
            (Some(_), Some(twice)) => {
                let message = format!("shard {} is there twice", number.saturating_add(1));
                return Err(Error::new(ErrorKind::InvalidArgument, message).at(twice.source.name()));
            }
        }
    }
    Ok(())
}

/// Makes one model of its shards, which are in order.
async fn join(shards: Vec<Shard>) -> Result<Checkpoint> {
    let mut files = Vec::new();
    let mut values: Option<BTreeMap<String, Value>> = None;
    let mut tensors: Vec<TensorInfo> = Vec::new();
    let mut names: HashSet<String> = HashSet::new();
    let split = shards.len() > 1;
    for (file, shard) in shards.into_iter().enumerate() {
        for mut tensor in shard.header.tensors {
            if split && !names.insert(tensor.name.clone()) {
                let place = shown(&tensor.name);
                return Err(malformed("the tensor is in two shards").at(place).at(shard.source.name()));
            }
            tensor.file = file;
            tensors.push(tensor);
        }
        values.get_or_insert(shard.header.values);
        files.push(shard.source);
    }
    let values = values.unwrap_or_default();
    if let Some(Value::Integer(total)) = values.get(TENSORS_KEY)
        && *total != tensors.len() as i128
    {
        let place = files.first().map(|file| file.name().to_owned()).unwrap_or_default();
        let message = format!("{total} tensors are promised, the shards have {}", tensors.len());
        return Err(malformed(message).at(TENSORS_KEY).at(place));
    }
    assemble(files, values, tensors).await
}

#[cfg(test)]
mod tests {
    use super::named_position;

    #[test]
    fn the_position_is_read_from_names_of_shards_only() {
        assert_eq!(named_position("a/b-00002-of-00003.gguf"), Some((2, 3)));
        assert_eq!(named_position("b-2-of-3.gguf"), None);
        assert_eq!(named_position("talk-of-town.gguf"), None);
    }
}
