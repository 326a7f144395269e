//! The hub at the command line: sockets, a folder and the clock for the library's logic, and its options out of the flags.

mod clock;
mod disk;
mod http;

use std::cell::Cell;
use std::io::{IsTerminal, Write, stderr};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use headwater::error::{Error, ErrorKind, Result};
use headwater::hub::{Call, Hub, Listener, Lock, Phase, Policy, Progress, Reference, Token};

use crate::args::HubArgs;
use crate::source;

/// The environment's token, which is for the default hub and for nobody else.
const TOKEN_VARIABLE: &str = "HF_TOKEN";
/// The environment's folder for what is kept.
const STORE_VARIABLE: &str = "HEADWATER_STORE";

/// Whether a model's name means a hub rather than a file: `hf:...` and addresses always do, `owner/name` does where a
/// mirror is named and no such file is there.
pub(crate) fn is_meant(model: &str, args: &HubArgs) -> bool {
    Reference::is_unmistakable(model) || (args.endpoint.is_some() && !Path::new(model).exists())
}

/// A hub over this machine's network and the store's folder.
pub(crate) fn open(args: &HubArgs) -> Result<Hub> {
    let store = disk::Disk::new(folder(args)?);
    Ok(Hub::new(Rc::new(http::Http::new()), Rc::new(store), Rc::new(clock::Clock::default())))
}

/// What the flags ask for. A lock file that is named has to be there.
pub(crate) fn call(args: &HubArgs, quiet: bool) -> Result<Call> {
    let lock = args.lock.as_ref().map(|path| read_lock(path)).transpose()?;
    let mut policy = match &args.policy {
        None => Policy::default(),
        Some(path) => Policy::from_json(&read(path)?)?,
    };
    policy.hosts.extend(args.allow_host.iter().cloned());
    let token = match (&args.token, &args.endpoint) {
        (Some(token), _) => Some(Token::new(token.clone())?),
        // Another hub than the default one gets no token that it was not given by name.
        (None, None) => {
            std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty()).map(Token::new).transpose()?
        }
        (None, Some(_)) => None,
    };
    let on_progress: Listener = if quiet || !stderr().is_terminal() { Rc::new(|_| {}) } else { meter() };
    Ok(Call {
        endpoint: args.endpoint.clone(),
        token,
        policy,
        lock,
        offline: args.offline,
        on_progress,
        ..Call::default()
    })
}

/// Reads a lock file.
pub(crate) fn read_lock(path: &Path) -> Result<Lock> {
    Lock::from_json(&read(path)?).map_err(|error| error.at(path.display().to_string()))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| source::failed(path, error))
}

/// The folder of the store: the flag's, the environment's, or where programs of this system keep their data.
pub(crate) fn folder(args: &HubArgs) -> Result<PathBuf> {
    if let Some(folder) = &args.store {
        return Ok(folder.clone());
    }
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let own = variable(STORE_VARIABLE);
    let data = variable("XDG_DATA_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".local").join("share")))
        .or_else(|| variable("LOCALAPPDATA"))
        .map(|data| data.join("headwater"));
    own.or(data)
        .ok_or_else(|| Error::new(ErrorKind::StorageUnavailable, "no folder to keep models in; name one with --store"))
}

/// One line on standard error that is written over and over.
fn meter() -> Listener {
    let last = Rc::new(Cell::new(0));
    Rc::new(move |progress: &Progress| {
        let line = describe(progress);
        let width = line.chars().count();
        let blank = " ".repeat(last.replace(width).saturating_sub(width));
        let end = if progress.total_bytes > 0 && progress.loaded_bytes == progress.total_bytes { "\n" } else { "" };
        // Progress that cannot be shown is no reason to stop.
        write!(stderr().lock(), "\r{line}{blank}{end}").ok();
    })
}

fn describe(progress: &Progress) -> String {
    const MIB: f64 = 1_048_576.0;
    let what = match progress.phase {
        Phase::Resolve => return "asking the hub".to_owned(),
        Phase::Wait => return "waiting for another process that fetches the same".to_owned(),
        Phase::Lost => return format!("what was stored is not there any more ({})", progress.file),
        Phase::Verify => "verifying",
        Phase::Download => "fetching",
    };
    let eta = progress.eta_secs.map_or(String::new(), |secs| format!(", {secs:.0} s left"));
    format!(
        "{what} {}: {:.1} of {:.1} MiB, {:.1} MiB/s{eta}",
        progress.file,
        progress.loaded_bytes as f64 / MIB,
        progress.total_bytes as f64 / MIB,
        progress.bytes_per_second / MIB,
    )
}
