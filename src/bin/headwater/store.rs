//! `headwater store`: what is kept on this machine.

use headwater::error::Result;
use serde_json::json;

use crate::args::{StoreArgs, StoreVerb};
use crate::output::{print_json, print_line};
use crate::pull::report;
use crate::{hub, source};

pub(crate) async fn run(args: &StoreArgs) -> Result<()> {
    let flags = args.verb.flags();
    let hub = hub::open(&flags.hub)?;
    match &args.verb {
        StoreVerb::List(_) => {
            let (models, usage) = (hub.shelf.list().await?, hub.shelf.usage().await?);
            if flags.json {
                return print_json(&json!({ "models": models, "usage": usage }));
            }
            for listed in models {
                let license =
                    listed.model.license.and_then(|license| license.id).unwrap_or("licence not told".to_owned());
                let (name, commit) = (&listed.model.reference, &listed.model.commit);
                print_line(&format!("{name}  {commit}  {} bytes  {license}", listed.size_bytes))?;
            }
            print_line(&format!("{} bytes of models, {} bytes begun", usage.model_bytes, usage.partial_bytes))
        }
        StoreVerb::Import { reference, files, .. } => {
            let call = hub::call(&flags.hub, flags.json)?;
            let pulled = hub.import(reference, &source::all_below(files)?, &call).await?;
            report(flags.json, &pulled, None)
        }
        StoreVerb::Remove { reference, .. } => {
            let freed = hub.remove(reference, flags.hub.endpoint.as_deref()).await?;
            if flags.json {
                return print_json(&json!({ "freedBytes": freed }));
            }
            print_line(&format!("{freed} bytes freed"))
        }
        StoreVerb::Clear(_) => {
            hub.shelf.clear().await?;
            if flags.json { print_json(&json!({})) } else { print_line("everything was removed") }
        }
    }
}
