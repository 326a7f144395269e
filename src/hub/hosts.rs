//! The declared hosts: the list that every request is held against.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::DEFAULT_ENDPOINT;
use super::address::Address;
use crate::error::{Error, ErrorKind, Result};

/// Where the default hub keeps its files: its documentation names these two domains for firewalls
/// (<https://huggingface.co/docs/hub/storage-backends>).
const DEFAULT_HUB_FILES: &[&str] = &["*.huggingface.co", "*.hf.co"];

/// Which hosts may be asked, and which were.
pub struct Hosts {
    allowed: Vec<String>,
    asked: RefCell<BTreeSet<String>>,
}

impl Hosts {
    /// The hub's own host, those that belong to it, and those that the caller declares: `host`, `host:port` or
    /// `*.domain`, which means every host below the domain.
    pub fn new(hub: &Address, declared: &[String]) -> Result<Self> {
        let mut allowed = vec![hub.host().to_owned()];
        if hub.origin() == DEFAULT_ENDPOINT {
            allowed.extend(DEFAULT_HUB_FILES.iter().map(|host| (*host).to_owned()));
        }
        for host in declared {
            let name = host.strip_prefix("*.").unwrap_or(host);
            // A pattern must keep the star away from whole top-level domains.
            let broad = host.starts_with("*.") && !name.contains('.');
            let parsed = Address::parse(&format!("https://{name}/"));
            let parsed = parsed.ok().filter(|address| !broad && address.path() == "/" && !name.contains('/'));
            let Some(address) = parsed else {
                let words = format!("{host:?} is no host; write host, host:port or *.domain.example");
                return Err(Error::new(ErrorKind::InvalidArgument, words).at("hosts"));
            };
            let star = if host.starts_with("*.") { "*." } else { "" };
            allowed.push(format!("{star}{}", address.host()));
        }
        Ok(Self { allowed, asked: RefCell::new(BTreeSet::new()) })
    }

    /// Fails with `PolicyRefused` unless the address's host is declared; notes that it is asked.
    pub fn check(&self, address: &Address) -> Result<()> {
        let host = address.host();
        let fits = |allowed: &String| match allowed.strip_prefix('*') {
            Some(domain) => host.ends_with(domain),
            None => allowed == host,
        };
        if !self.allowed.iter().any(fits) {
            let words = format!(
                "a request to {host} was refused: it is not among the declared hosts ({}); if the model's files lie \
                 there, declare it",
                self.declared()
            );
            return Err(Error::new(ErrorKind::PolicyRefused, words).at("hosts"));
        }
        self.asked.borrow_mut().insert(host.to_owned());
        Ok(())
    }

    /// The hosts that may be asked.
    pub fn declared(&self) -> String {
        self.allowed.join(", ")
    }

    /// Every host that was asked.
    pub fn asked(&self) -> Vec<String> {
        self.asked.borrow().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, Hosts};
    use crate::error::ErrorKind;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn only_declared_hosts_are_asked() {
        let declared = ["one.example:8443".to_owned(), "*.two.example".to_owned()];
        let hosts = Hosts::new(&address("https://hub.example/"), &declared).unwrap();
        for good in ["https://hub.example/x", "https://one.example:8443/x", "https://a.b.two.example/x"] {
            hosts.check(&address(good)).unwrap();
        }
        for bad in
            ["https://hub.example:444/", "https://two.example/", "https://one.example/", "https://eviltwo.example/"]
        {
            assert_eq!(hosts.check(&address(bad)).unwrap_err().kind(), ErrorKind::PolicyRefused, "{bad}");
        }
        assert_eq!(hosts.asked(), ["a.b.two.example", "hub.example", "one.example:8443"]);
    }

    #[test]
    fn the_default_hub_brings_its_own_file_hosts_and_no_other_does() {
        let cdn = address("https://cdn-lfs-us-1.hf.co/x");
        Hosts::new(&address("https://huggingface.co/"), &[]).unwrap().check(&cdn).unwrap();
        Hosts::new(&address("https://other.example/"), &[]).unwrap().check(&cdn).unwrap_err();
        for bad in ["*", "*.com", "https://x.example", "x.example/path", ""] {
            assert!(Hosts::new(&address("https://huggingface.co/"), &[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
