//! The distributions: where each has what an installer needs to know, and which
//! cannot be installed to at run time. All that is known of them is in this
//! table.

use std::path::{Path, PathBuf};

/// A kind of node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// What it is called.
    pub name: &'static str,
    /// How it is known.
    signs: &'static [Sign],
    /// What is done there.
    pub way: Way,
}

/// Something that only one kind of node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// `ID=` of os-release(5).
    Os(&'static str),
    /// A file or directory.
    Path(&'static str),
    /// The configuration that the running containerd was given.
    Config(&'static str),
}

/// How a node is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By the configuration that the running containerd was given.
    Config,
    /// By the template that the distribution makes that configuration from, a
    /// file beside it: what is written into the configuration itself is lost
    /// with the next start.
    Template(Template),
    /// By the file beside it, TOML as well, that the distribution makes it from.
    Source(&'static str),
    /// By a file in a directory of which the distribution merges all into one that
    /// the configuration imports; where the owner has taken the configuration over,
    /// by that.
    Merged(Merged),
    /// Not at run time. What to do instead.
    Instead(&'static str),
}

/// Files that a distribution merges by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merged {
    /// The line of the configuration which says that the distribution does so.
    pub sign: &'static str,
    /// The directory beside the configuration.
    pub dir: &'static str,
    /// What becomes of them.
    pub result: &'static str,
}

/// The names of a template for each schema, and its line for everything that the
/// distribution writes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Template {
    /// For schema 1 and 2.
    pub old: &'static str,
    /// From schema 3 on.
    pub new: &'static str,
    /// What stands for the distribution's own configuration.
    pub base: &'static str,
}

/// Since k3s 1.24 (docs.k3s.io, "Configuring containerd").
const RANCHER: Template = Template {
    old: "config.toml.tmpl",
    new: "config-v3.toml.tmpl",
    base: "{{ template \"base\" . }}\n",
};

/// In order: the first whose sign is there. What matches none is plain: a
/// containerd with its configuration, as kubeadm, kind, minikube, EKS, AKS and
/// GKE on Ubuntu have it.
pub const LAYOUTS: [Layout; 10] = [
    Layout {
        name: "Talos",
        signs: &[Sign::Os("talos")],
        way: Way::Instead(
            "its files cannot be changed at run time: build a system extension with the \
             shim, and add the runtime by a machine configuration patch to \
             /etc/cri/conf.d/20-customization.part",
        ),
    },
    Layout {
        name: "Bottlerocket",
        signs: &[Sign::Os("bottlerocket")],
        way: Way::Instead(
            "its files cannot be changed at run time, and it has no setting for another \
             runtime: use nodes of another system for the class, or build a variant with \
             the shim",
        ),
    },
    Layout {
        name: "Container-Optimized OS",
        signs: &[Sign::Os("cos")],
        way: Way::Instead(
            "GKE writes containerd's configuration anew with every node: use the Ubuntu \
             image for the node pool (--image-type=UBUNTU_CONTAINERD)",
        ),
    },
    Layout {
        name: "RKE2",
        signs: &[
            Sign::Config("/var/lib/rancher/rke2/"),
            Sign::Path("/var/lib/rancher/rke2/agent/etc/containerd"),
        ],
        way: Way::Template(RANCHER),
    },
    Layout {
        name: "k3s",
        signs: &[
            Sign::Config("/var/lib/rancher/k3s/"),
            Sign::Path("/var/lib/rancher/k3s/agent/etc/containerd"),
        ],
        way: Way::Template(RANCHER),
    },
    Layout {
        name: "k0s",
        signs: &[
            Sign::Config("/etc/k0s/"),
            Sign::Path("/etc/k0s/containerd.toml"),
        ],
        // Since k0s 1.27.1 (docs.k0sproject.io, "Runtime").
        way: Way::Merged(Merged {
            sign: "# k0s_managed=true",
            dir: "containerd.d",
            result: "/run/k0s/containerd-cri.toml",
        }),
    },
    Layout {
        name: "MicroK8s",
        signs: &[Sign::Config("/var/snap/microk8s/")],
        way: Way::Source("containerd-template.toml"),
    },
    Layout {
        name: "Flatcar",
        signs: &[Sign::Os("flatcar")],
        way: Way::Config,
    },
    Layout {
        name: "EKS",
        signs: &[Sign::Os("amzn")],
        way: Way::Config,
    },
    PLAIN,
];

const PLAIN: Layout = Layout {
    name: "containerd",
    signs: &[Sign::Path("/")],
    way: Way::Config,
};

/// Which kind of node has its files below `root` and a containerd with the
/// configuration `config` (a path on the node).
pub fn of(root: &Path, config: &Path) -> Layout {
    let release = std::fs::read_to_string(below(root, Path::new("/etc/os-release")))
        .or_else(|_| std::fs::read_to_string(below(root, Path::new("/usr/lib/os-release"))))
        .unwrap_or_default();
    let id = release
        .lines()
        .find_map(|line| line.strip_prefix("ID="))
        .map(|id| id.trim_matches(['"', '\'']))
        .unwrap_or_default();
    let is = |sign: &Sign| match sign {
        Sign::Os(name) => *name == id,
        Sign::Path(path) => below(root, Path::new(path)).exists(),
        Sign::Config(prefix) => config.starts_with(prefix),
    };
    // How containerd was started says more than what lies about.
    let by_config = |layout: &&Layout| {
        layout
            .signs
            .iter()
            .any(|sign| matches!(sign, Sign::Config(_)) && is(sign))
    };
    let own = config.starts_with("/etc/containerd");
    let by_any = |layout: &&Layout| {
        layout.signs.iter().any(|sign| match sign {
            // Left behind by something that does not run.
            Sign::Path(path) if own => *path == "/",
            sign => is(sign),
        })
    };
    LAYOUTS
        .iter()
        .find(by_config)
        .or_else(|| LAYOUTS.iter().find(by_any))
        .copied()
        .unwrap_or(PLAIN)
}

/// A path of the node, as it is reached from here.
pub fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(os: &str, paths: &[&str], config: &str) -> &'static str {
        let root = tempfile::tempdir().expect("dir");
        let place = |path: &str| below(root.path(), Path::new(path));
        std::fs::create_dir_all(place("/etc")).expect("etc");
        std::fs::write(place("/etc/os-release"), format!("NAME=x\nID={os}\n")).expect("write");
        for path in paths {
            std::fs::create_dir_all(place(path)).expect("dir");
        }
        of(root.path(), Path::new(config)).name
    }

    #[test]
    fn distributions_are_known_by_their_signs() {
        let usual = "/etc/containerd/config.toml";
        let k3s = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml";
        assert_eq!(name("debian", &[], usual), "containerd");
        assert_eq!(name("\"talos\"", &[], usual), "Talos");
        assert_eq!(name("bottlerocket", &[], usual), "Bottlerocket");
        assert_eq!(name("cos", &[], usual), "Container-Optimized OS");
        assert_eq!(name("sles", &[], k3s), "k3s");
        assert_eq!(name("sles", &[], &k3s.replace("k3s", "rke2")), "RKE2");
        assert_eq!(name("debian", &[], "/etc/k0s/containerd.toml"), "k0s");
        assert_eq!(
            name("ubuntu", &[], "/var/snap/microk8s/7/args/containerd.toml"),
            "MicroK8s"
        );
        assert_eq!(name("flatcar", &[], usual), "Flatcar");
    }

    #[test]
    fn what_an_older_cluster_left_behind_does_not_count() {
        let left = ["/var/lib/rancher/k3s/agent/etc/containerd"];
        assert_eq!(
            name("debian", &left, "/etc/containerd/config.toml"),
            "containerd"
        );
        assert_eq!(name("debian", &left, "/run/x/config.toml"), "k3s");
    }

    #[test]
    fn what_cannot_be_changed_has_a_way_out() {
        for layout in LAYOUTS {
            if let Way::Instead(text) = layout.way {
                assert!(text.len() > 40, "{}", layout.name);
            }
        }
    }
}
