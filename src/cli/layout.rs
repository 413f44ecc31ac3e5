//! The cluster on one machine: which node has which ports, and its configuration files.
//!
//! Node n has the hundred ports from `base + 100 (n - 1)`: the name server first, then HTTP (+1), peers (+3)
//! and each group (+4, +8, ...). A group's old VIP channel, two ports below it, is therefore always free.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use super::failure::Failure;
use crate::config::{
    BindFile, ConfigFile, GroupFile, ListenerFile, ListenerNodeFile, PeerFile, StorageFile,
};

/// Most groups whose ports fit in a node's hundred.
pub(super) const GROUPS_MAX: u16 = 24;
const PORTS_OF_A_NODE: u16 = 100;
const SEGMENT: &str = "64MiB";

/// What a development cluster looks like.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// 1, 3 or 5.
    pub(super) nodes: u16,
    /// Broker groups.
    pub(super) groups: u16,
    /// The first node's first port.
    pub(super) base_port: u16,
    /// Directory of everything.
    pub(super) data: PathBuf,
}

/// One node as its configuration describes it.
#[derive(Clone, Debug)]
pub(super) struct NodePlace {
    /// Its number.
    pub(super) id: u16,
    /// Its configuration file.
    pub(super) config: PathBuf,
    /// Where its output goes.
    pub(super) log: PathBuf,
    /// Name server, `host:port`.
    pub(super) namesrv: String,
    /// HTTP, `host:port`.
    pub(super) http: String,
    /// Address of each group on this node.
    pub(super) groups: BTreeMap<String, String>,
    /// Groups that this node leads when it can.
    pub(super) preferred: Vec<String>,
}

impl Layout {
    /// Writes `node-N.toml` for every node and says where they are. Files that are there keep the settings
    /// that are not about places.
    pub(super) fn write(&self) -> Result<Vec<NodePlace>, Failure> {
        self.check()?;
        let cannot = |what: &Path, error: std::io::Error| {
            Failure::new(format!(
                "cannot write {}: {error}; choose another --data",
                what.display()
            ))
        };
        std::fs::create_dir_all(&self.data).map_err(|error| cannot(&self.data, error))?;
        let data = self
            .data
            .canonicalize()
            .map_err(|error| cannot(&self.data, error))?;
        let mut files = Vec::new();
        for id in 1..=self.nodes {
            let path = data.join(format!("node-{id}.toml"));
            let file = self.merge(&path, self.config_of(id, &data))?;
            files.push((id, path, file));
        }
        let mut places = Vec::new();
        for (id, path, file) in files {
            let text = toml::to_string(&file)
                .map_err(|error| Failure::new(format!("cannot describe node {id}: {error}")))?;
            std::fs::write(&path, text).map_err(|error| cannot(&path, error))?;
            places.push(NodePlace::of(&path, &file)?);
        }
        Ok(places)
    }

    fn check(&self) -> Result<(), Failure> {
        if !(1..=GROUPS_MAX).contains(&self.groups) {
            return Err(Failure::usage(format!("--groups is 1 to {GROUPS_MAX}")));
        }
        let last = u32::from(self.base_port) + u32::from(self.nodes * PORTS_OF_A_NODE);
        if self.base_port < 1024 || last > 65536 {
            let most = 65536 - u32::from(self.nodes * PORTS_OF_A_NODE);
            return Err(Failure::usage(format!(
                "--base-port is 1024 to {most} for {} nodes",
                self.nodes
            )));
        }
        Ok(())
    }

    /// Every port that the nodes will listen on, the VIP channels included.
    fn ports(&self) -> impl Iterator<Item = u16> {
        let groups = self.groups;
        let firsts = (0..self.nodes).map(|node| self.base_port + node * PORTS_OF_A_NODE);
        firsts.flat_map(move |first| {
            let of_groups =
                (0..groups).flat_map(move |group| [first + 2 + 4 * group, first + 4 + 4 * group]);
            [first, first + 1, first + 3].into_iter().chain(of_groups)
        })
    }

    /// Says which ports something else listens on, before anything is started.
    pub(super) fn check_ports_free(&self) -> Result<(), Failure> {
        let taken: Vec<String> = self
            .ports()
            .filter(|port| !is_free(*port))
            .map(|port| port.to_string())
            .collect();
        if taken.is_empty() {
            return Ok(());
        }
        Err(Failure::new(format!(
            "in use on 127.0.0.1: port {}. Is another `gantry dev` running? Stop it, or choose other ports \
             with --base-port, for instance --base-port 21000.",
            taken.join(", ")
        )))
    }

    /// The first base port, from `base_port` on in steps of a node's ports, with all ports free; and
    /// listeners that keep others who search from these ports, also while a node is down.
    pub(super) fn on_free_ports(mut self) -> Result<(Layout, Vec<TcpListener>), Failure> {
        while self.check().is_ok() {
            if let Some(claim) = self.claim_ports() {
                return Ok((self, claim));
            }
            self.base_port += PORTS_OF_A_NODE;
        }
        Err(Failure::new(
            "there is no free range of ports; stop something that listens on many",
        ))
    }

    /// Whoever holds the last port of a node's hundred, which no node uses, has them all.
    fn claim_ports(&self) -> Option<Vec<TcpListener>> {
        let firsts = (0..self.nodes).map(|node| self.base_port + node * PORTS_OF_A_NODE);
        let lasts = firsts.map(|first| first + (PORTS_OF_A_NODE - 1));
        let claim = lasts.map(|last| TcpListener::bind((Ipv4Addr::LOCALHOST, last)).ok());
        let claim = claim.collect::<Option<Vec<TcpListener>>>()?;
        self.ports().all(is_free).then_some(claim)
    }

    fn config_of(&self, id: u16, data: &Path) -> ConfigFile {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let first = |node: u16| self.base_port + (node - 1) * PORTS_OF_A_NODE;
        let peer = |node: u16| SocketAddr::new(loopback, first(node) + 3);
        let nodes = 1..=self.nodes;
        let reached = |node: u16| ListenerNodeFile {
            node,
            host: loopback.to_string(),
            namesrv: first(node),
            groups: (0..self.groups)
                .map(|group| first(node) + 4 + 4 * group)
                .collect(),
        };
        let group = |position: u16| GroupFile {
            name: format!("broker-{}", char::from(b'a' + position as u8)),
            preferred: Some(position % self.nodes + 1),
        };
        ConfigFile {
            node: Some(id),
            data: Some(data.join(format!("node-{id}"))),
            peers: nodes
                .clone()
                .map(|node| PeerFile {
                    node,
                    address: peer(node).to_string(),
                })
                .collect(),
            groups: (0..self.groups).map(group).collect(),
            listeners: vec![ListenerFile {
                name: "local".to_string(),
                bind: loopback,
                nodes: nodes.map(reached).collect(),
            }],
            peer: Some(BindFile { bind: peer(id) }),
            http: Some(BindFile {
                bind: SocketAddr::new(loopback, first(id) + 1),
            }),
            storage: StorageFile {
                segment_bytes: Some(SEGMENT.to_string()),
                ..StorageFile::default()
            },
            ..ConfigFile::default()
        }
    }

    /// Keeps what a user has set in an earlier file; its data must be of a cluster of the same shape.
    fn merge(&self, path: &Path, wanted: ConfigFile) -> Result<ConfigFile, Failure> {
        if !path.exists() {
            return Ok(wanted);
        }
        let no_variables: [(String, String); 0] = [];
        let old = ConfigFile::load(path, no_variables)
            .map_err(|error| Failure::usage(error.to_string()))?;
        let (nodes, groups) = (old.peers.len(), old.groups.len());
        if nodes != usize::from(self.nodes) || groups != usize::from(self.groups) {
            return Err(Failure::usage(format!(
                "{} is of a cluster of {nodes} nodes and {groups} groups. Use --nodes {nodes} \
                 --groups {groups}, or another --data; removing the directory deletes its messages.",
                path.display()
            )));
        }
        Ok(ConfigFile {
            node: wanted.node,
            data: wanted.data,
            peers: wanted.peers,
            groups: wanted.groups,
            listeners: wanted.listeners,
            peer: wanted.peer,
            http: wanted.http,
            ..old
        })
    }
}

impl NodePlace {
    /// Reads a node's place from its configuration.
    pub(super) fn of(path: &Path, file: &ConfigFile) -> Result<NodePlace, Failure> {
        let missing = |what: &str| Failure::usage(format!("{}: {what} is missing", path.display()));
        let id = file.node.ok_or_else(|| missing("`node`"))?;
        let http = file
            .http
            .as_ref()
            .ok_or_else(|| missing("`http.bind`"))?
            .bind
            .to_string();
        let listener = file
            .listeners
            .first()
            .ok_or_else(|| missing("[[listener]]"))?;
        let mine = listener.nodes.iter().find(|node| node.node == id);
        let mine = mine.ok_or_else(|| missing("this node's entry in [[listener]]"))?;
        let ports = file.groups.iter().zip(&mine.groups);
        let preferred = file
            .groups
            .iter()
            .filter(|group| group.preferred == Some(id));
        let groups =
            ports.map(|(group, port)| (group.name.clone(), format!("{}:{port}", mine.host)));
        Ok(NodePlace {
            id,
            config: path.to_path_buf(),
            log: path.with_file_name(format!("node-{id}.log")),
            namesrv: format!("{}:{}", mine.host, mine.namesrv),
            http,
            groups: groups.collect(),
            preferred: preferred.map(|group| group.name.clone()).collect(),
        })
    }

    /// Every node that has a configuration in a directory, by number.
    pub(super) fn all_in(data: &Path) -> Result<Vec<NodePlace>, Failure> {
        let mut places = Vec::new();
        for id in 1.. {
            let path = data.join(format!("node-{id}.toml"));
            if !path.exists() {
                break;
            }
            let no_variables: [(String, String); 0] = [];
            let file = ConfigFile::load(&path, no_variables)
                .map_err(|error| Failure::usage(error.to_string()))?;
            places.push(NodePlace::of(&path, &file)?);
        }
        Ok(places)
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn layout(nodes: u16, groups: u16, data: &Path) -> Layout {
        Layout {
            nodes,
            groups,
            base_port: 9876,
            data: data.to_path_buf(),
        }
    }

    #[test]
    fn no_two_listeners_share_a_port() {
        let data = tempfile::tempdir().unwrap();
        for (nodes, groups) in [(1, 1), (3, 3), (5, GROUPS_MAX)] {
            let ports: Vec<u16> = layout(nodes, groups, data.path()).ports().collect();
            assert_eq!(ports.len(), usize::from(nodes * (3 + 2 * groups)));
            assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len());
            let range = 9876..9876 + nodes * PORTS_OF_A_NODE;
            assert!(ports.iter().all(|port| range.contains(port)));
        }
    }

    #[test]
    fn files_resolve_and_settings_survive_a_new_start() {
        let data = tempfile::tempdir().unwrap();
        let places = layout(3, 3, data.path()).write().unwrap();
        assert_eq!(places[0].namesrv, "127.0.0.1:9876");
        assert_eq!(places[2].http, "127.0.0.1:10077");
        assert_eq!(places[1].groups["broker-b"], "127.0.0.1:9984");
        for place in &places {
            let text = std::fs::read_to_string(&place.config).unwrap();
            ConfigFile::parse(&text).unwrap().resolve().unwrap();
        }
        let changed = std::fs::read_to_string(&places[0].config).unwrap();
        std::fs::write(&places[0].config, changed.replace("64MiB", "128MiB")).unwrap();
        let moved = Layout {
            base_port: 21000,
            ..layout(3, 3, data.path())
        };
        assert_eq!(moved.write().unwrap()[0].namesrv, "127.0.0.1:21000");
        assert!(
            std::fs::read_to_string(&places[0].config)
                .unwrap()
                .contains("128MiB")
        );
        assert_eq!(NodePlace::all_in(data.path()).unwrap().len(), 3);
    }

    #[test]
    fn data_of_another_shape_is_not_touched() {
        let data = tempfile::tempdir().unwrap();
        layout(3, 3, data.path()).write().unwrap();
        let failure = layout(3, 2, data.path()).write().unwrap_err();
        assert!(
            failure.message.contains("--groups 3"),
            "{}",
            failure.message
        );
    }

    #[test]
    fn a_port_in_use_is_named() {
        let data = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let layout = Layout {
            base_port: port,
            ..layout(1, 1, data.path())
        };
        let failure = layout.check_ports_free().unwrap_err();
        assert!(
            failure.message.contains(&port.to_string()),
            "{}",
            failure.message
        );
    }
}
