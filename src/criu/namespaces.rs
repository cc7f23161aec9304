//! Whose namespaces the first process of an image is in.

use std::io;
use std::path::Path;

use prost::Message;

use super::images::{self, Ids};
use crate::bundle::IdMapping;

const USERS: u32 = 0x5547_4906;

#[derive(Clone, PartialEq, Message)]
struct Users {
    #[prost(message, repeated, tag = "1")]
    users: Vec<Extent>,
    #[prost(message, repeated, tag = "2")]
    groups: Vec<Extent>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Extent {
    #[prost(uint32, tag = "1")]
    inside: u32,
    #[prost(uint32, tag = "2")]
    outside: u32,
    #[prost(uint32, tag = "3")]
    count: u32,
}

#[derive(Debug)]
pub struct Namespaces {
    its: Ids,
    hosts: Ids,
}

impl Namespaces {
    pub fn of(folder: &Path) -> io::Result<Namespaces> {
        let hosts = images::inventory(folder)?.hosts.unwrap_or_default();
        Ok(Namespaces { its: images::first_ids(folder)?, hosts })
    }

    /// Whether one of a kind ("pid", "user", …) is the host's, as far as the image tells.
    pub fn is_hosts(&self, kind: &str) -> Option<bool> {
        let (its, hosts) = (self.its.of(kind)?, self.hosts.of(kind)?);
        Some(its == hosts)
    }

    /// Who users and groups inside are outside.
    pub fn mappings(&self, folder: &Path) -> io::Result<[Vec<IdMapping>; 2]> {
        let file = format!("userns-{}.img", self.its.of("user").unwrap_or_default());
        let Users { users, groups } = images::first(&folder.join(file), USERS)?;
        Ok([users, groups].map(|extents| extents.into_iter().map(IdMapping::from).collect()))
    }
}

impl From<Extent> for IdMapping {
    fn from(extent: Extent) -> IdMapping {
        IdMapping { inside: extent.inside, outside: extent.outside, count: extent.count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criu::images::tests::{write_all, write_first};

    #[test]
    fn the_hosts_are_told_from_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let its = Ids { pid_ns_id: Some(7), ipc_ns_id: Some(2), user_ns_id: Some(9), ..Ids::default() };
        let hosts = Ids { pid_ns_id: Some(1), ipc_ns_id: Some(2), user_ns_id: Some(3), ..Ids::default() };
        write_first(folder.path(), 1, its, hosts);
        let namespaces = Namespaces::of(folder.path()).unwrap();
        assert_eq!(namespaces.is_hosts("pid"), Some(false));
        assert_eq!(namespaces.is_hosts("ipc"), Some(true));
        assert_eq!(namespaces.is_hosts("uts"), None);
        let extent = Extent { inside: 0, outside: 100_000, count: 65_536 };
        let users = Users { users: vec![extent], groups: Vec::new() };
        write_all(&folder.path().join("userns-9.img"), USERS, &[users]);
        let [users, groups] = namespaces.mappings(folder.path()).unwrap();
        assert_eq!(users, [IdMapping { inside: 0, outside: 100_000, count: 65_536 }]);
        assert_eq!(groups, []);
    }
}
