//! What the daemon and the roles that make processes say to each other, over
//! one socket pair: a [`CreateRequest`] or [`ExecRequest`] down, then
//! [`Report`]s up, each one line of JSON.

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use oci_spec::runtime::Process;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::trace;

/// A mount of the root file system, as containerd's `CreateTaskRequest` has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RootfsMount {
    /// File system type, such as `overlay` or `bind`.
    pub kind: String,
    /// What is mounted.
    pub source: String,
    /// Options as in fstab.
    pub options: Vec<String>,
}

/// Everything the init role needs to create a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreateRequest {
    /// containerd namespace.
    pub namespace: String,
    /// Container id.
    pub id: String,
    /// The OCI bundle, an absolute path.
    pub bundle: PathBuf,
    /// Mounts to make at the bundle's `rootfs`, in order.
    pub rootfs: Vec<RootfsMount>,
    /// containerd's gRPC socket, where images are looked up.
    pub containerd: String,
    /// A config file named by the runtime options.
    pub config: Option<PathBuf>,
    /// The container's ledger, a descriptor of the role.
    pub ledger: RawFd,
    /// Whether each step is to be reported with its time.
    pub traced: bool,
}

/// Everything the exec role needs to add a process to a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExecRequest {
    /// containerd namespace.
    pub namespace: String,
    /// Container id.
    pub id: String,
    /// The OCI bundle, an absolute path.
    pub bundle: PathBuf,
    /// containerd's gRPC socket, where images are looked up.
    pub containerd: String,
    /// What the container runs.
    pub kind: ProgramKind,
    /// The container's first process.
    pub pid: i32,
    /// The same as a pidfd, a descriptor of the role. As long as that is alive,
    /// the number above means the same process.
    pub pidfd: RawFd,
    /// The container's ledger, a descriptor of the role.
    pub ledger: RawFd,
    /// Which place in it the process has.
    pub place: usize,
    /// Where the container is.
    pub cgroup: Cgroup,
    /// What to run, and as whom.
    pub process: Process,
}

/// What kind of program a container runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProgramKind {
    /// A guest in the engine.
    Wasm,
    /// An ordinary Linux program.
    Native,
}

/// A created container: all that the daemon needs of its spec, so that it does
/// not parse that too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// Its first process, in the daemon's pid namespace.
    pub pid: i32,
    /// What it will run.
    pub kind: ProgramKind,
    /// Where it is.
    pub cgroup: Cgroup,
    /// It has no pid namespace of its own: its processes outlive its first one.
    pub shares_pids: bool,
    /// The spec has hooks that the daemon must run: those of a guest's
    /// container for after its start and after its end.
    pub hooks: bool,
}

/// The line that lets a guest run.
pub const START: &[u8] = b"start\n";

/// One line from a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Report {
    /// A terminal's master comes with this line, as a descriptor.
    Terminal,
    /// The container is created; a native program waits for `Start`.
    Created(Created),
    /// The guest's process exists: its pid, in the reporter's pid namespace.
    Forked(i32),
    /// The guest's process is in its container and waits for `Start`.
    Waiting,
    /// A step of the creation, done at a time (see [`trace`](crate::trace)).
    Step(String, u64),
    /// The further process is there: its pid in the daemon's namespace.
    Added(i32),
    /// Something the node's admin should know; the container is fine.
    Warning(String),
    /// The program runs; for an HTTP component: its port listens.
    Ready,
    /// Create or Start failed, and why.
    Failed(String),
}

/// A role's end of the socket pair. Clones are the same end.
#[derive(Clone, Debug)]
pub struct Control {
    stream: Rc<RefCell<Option<UnixStream>>>,
    traced: Cell<bool>,
}

impl Control {
    /// Wraps the role's end.
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream: Rc::new(RefCell::new(Some(stream))),
            traced: Cell::new(false),
        }
    }

    /// Reads the request, the first line the daemon sends.
    ///
    /// # Errors
    /// When the daemon is gone or the line is not a request.
    pub fn request<T: DeserializeOwned>(&self) -> io::Result<T> {
        let mut line = String::new();
        if let Some(stream) = &*self.stream.borrow() {
            BufReader::new(stream).read_line(&mut line)?;
        }
        serde_json::from_str(&line).map_err(io::Error::from)
    }

    /// Sends one report. A daemon that is gone is not an error here: there is
    /// nobody left to tell.
    pub fn report(&self, report: &Report) {
        if let Some(mut stream) = self.stream.borrow().as_ref()
            && let Ok(mut line) = serde_json::to_vec(report)
        {
            line.push(b'\n');
            let _ = stream.write_all(&line);
        }
    }

    /// Waits, as the guest's process, until it may run; `false` when the daemon
    /// is gone.
    pub fn wait_for_start(&self) -> bool {
        let mut line = [0; START.len()];
        self.stream
            .borrow()
            .as_ref()
            .is_some_and(|mut stream| stream.read_exact(&mut line).is_ok() && line == START)
    }

    /// Hands the daemon a terminal's master.
    ///
    /// # Errors
    /// When the daemon is gone.
    pub fn send_terminal(&self, master: impl AsFd) -> io::Result<()> {
        let mut line = serde_json::to_vec(&Report::Terminal)?;
        line.push(b'\n');
        let descriptors = [master.as_fd().as_raw_fd()];
        let own = self.descriptor().ok_or(io::ErrorKind::NotConnected)?;
        let sent = sendmsg::<UnixAddr>(
            own,
            &[IoSlice::new(&line)],
            &[ControlMessage::ScmRights(&descriptors)],
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        if sent == line.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }

    /// Reports steps from here on.
    pub fn trace(&self, on: bool) {
        self.traced.set(on);
    }

    /// Reports that a step is done, if the daemon asked to hear of steps.
    pub fn step(&self, what: &str) {
        if self.traced.get() {
            self.step_at(what, trace::now());
        }
    }

    /// The same for a step that was done at `at`.
    pub fn step_at(&self, what: &str, at: u64) {
        if self.traced.get() {
            self.report(&Report::Step(what.to_owned(), at));
        }
    }

    /// Its descriptor's number; none once it is closed.
    pub fn descriptor(&self) -> Option<RawFd> {
        self.stream.borrow().as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Closes it for this process and all clones: a guest has no business with
    /// the daemon.
    pub fn close(&self) {
        self.stream.borrow_mut().take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_and_a_report_survive_the_wire() {
        let (daemon, init) = UnixStream::pair().expect("socket pair");
        let request = CreateRequest {
            namespace: "k8s.io".into(),
            id: "c1".into(),
            bundle: "/run/bundle".into(),
            rootfs: vec![RootfsMount {
                kind: "overlay".into(),
                source: "overlay".into(),
                options: vec!["lowerdir=/a".into()],
            }],
            containerd: "/run/containerd/containerd.sock".into(),
            config: None,
            ledger: 7,
            traced: false,
        };
        let mut line = serde_json::to_vec(&request).expect("encode");
        line.push(b'\n');
        (&daemon).write_all(&line).expect("send");

        let control = Control::new(init);
        let received: CreateRequest = control.request().expect("receive");
        assert_eq!(received.id, "c1");
        assert_eq!(received.rootfs[0].options, ["lowerdir=/a"]);

        let report = Report::Failed("two\nlines".into());
        control.report(&report);
        let mut line = String::new();
        BufReader::new(&daemon).read_line(&mut line).expect("line");
        assert_eq!(
            serde_json::from_str::<Report>(&line).expect("decode"),
            report
        );
    }

    #[test]
    fn a_request_that_is_not_json_is_an_error() {
        let (daemon, init) = UnixStream::pair().expect("socket pair");
        (&daemon).write_all(b"hello\n").expect("send");
        assert!(Control::new(init).request::<CreateRequest>().is_err());
    }
}
